"""The actors of a run: made, started, asked, ended.

Invariants: every wait has a deadline; what cannot start ends the run with its own error, before
the first dialogue; whatever happens, `close` ends every actor that was made. Sinks, ledger, engines
and retrievers that die are started again by Ray and open or load by themselves when they are next
asked; walkers have their supervision.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayError

from actors.retrieval.remote import start_actor
from actors.retrieval.store import Corpus
from actors.sink import SINK_OPTIONS, Recovered, SinkActor, SinkLimits
from actors.walker_actor import WalkerParts
from cluster.agent_adapter import carried
from cluster.asking import ask, ask_one, gather
from cluster.fleet import Fleet, replica_actor
from cluster.kept import KeptEngines, Taken, end
from cluster.ledger import Caps
from cluster.ledger import Progress as LedgerProgress
from cluster.ledger_actor import LEDGER_OPTIONS, LedgerActor
from cluster.nodes import CpuPlaces
from cluster.sizes import Sizes, in_words
from cluster.supervision import Walkers
from specs.domain import Domain
from specs.engine import EngineStats, engine_of, replica_name
from specs.errors import DuologueError
from specs.index_set import IndexSet
from specs.masking import plain_url
from specs.parts import Folder
from specs.plan import PlanSource
from specs.run_file import RunFile

ASK_S = 5.0
"""How long the driver waits for all actors' figures."""

AGAIN_S = 120.0
"""How long it asks an actor that is being started again."""

SILENT_S = 120.0
"""How long an actor may tell nothing (it has been stopped, or its node is out of reach)."""

LOOK_S = 0.1
"""From one look at engines that come up to the next."""

TELL_S = 2.0
"""From one look of whoever started it to the next, while engines come up."""

CLOSE_S = 60.0
"""How long sinks may take to write what they hold."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What the actors told of themselves.

    Attributes:
        progress: of the ledger; None where it did not answer.
        engines: by engine and replica, the figures of those that take turns.
        all_engines: and of those that are about to leave.
        placed: for how many seconds each replica has had its place.
        wanted: replicas that each engine is to have.
        away: by part, what is wrong with it.
        silent: those that did not answer, each with the seconds after which it is ended.
    """

    progress: LedgerProgress | None
    engines: Mapping[str, Mapping[str, EngineStats]]
    all_engines: Mapping[str, Mapping[str, EngineStats]]
    placed: Mapping[str, float]
    wanted: Mapping[str, int]
    away: Mapping[str, str]
    silent: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Part:
    handle: Any
    ask: Callable[[], Any]
    silent_s: float = SILENT_S


@dataclass(slots=True)
class Crew:
    """All actors of one run.

    Attributes:
        run_start: counts the starts of the run (`RunFolder.open`).
        attempts: of indices whose failed rows were taken out to be played again.
        kept: takes the engines when it is over, and had them before, perhaps.
        before: of engines that were up already, what they had used until then.
    """

    run: RunFile
    domain: Domain
    source: PlanSource
    folder: Folder
    say: Callable[[str], None]
    sizes: Sizes
    run_start: int = 0
    attempts: Mapping[int, int] = field(default_factory=dict)
    kept: KeptEngines | None = None
    before: Taken | None = field(init=False, default=None)
    retrievers: list[Any] = field(default_factory=list)
    sinks: list[Any] = field(default_factory=list)
    walkers: Walkers | None = None
    ledger: Any = None
    opened: bool = False
    fleet: Fleet = field(init=False)
    _cpu_places: CpuPlaces = field(default_factory=CpuPlaces)

    def __post_init__(self) -> None:
        """Know which replicas there are to be; none is made yet."""
        if self.kept is not None:
            self.before = self.kept.take(self.run, self.sizes)
        self.fleet = (
            Fleet(self.run.engines, self.sizes.replicas, self.make_replica, self.say)
            if self.before is None
            else self.before.fleet
        )

    # -- coming up

    def open_sinks(self) -> Recovered:
        """Start the sinks; return what they found on disk, joined."""
        section, count = self.run.run, self.sizes.sinks
        limits = SinkLimits(
            section.part_rows,
            section.part_bytes,
            section.log_interval_s,
            outage_s=section.outage_s,
        )
        make = ray.remote(SinkActor)
        self.sinks = [
            make.options(
                **SINK_OPTIONS,
                name=f"sink-{number}",
                scheduling_strategy=self._cpu_places.next(),
            ).remote(self.folder, number, count, limits, self.run_start)
            for number in range(count)
        ]
        calls = {number: sink.open.remote for number, sink in enumerate(self.sinks)}
        found: list[Recovered] = list(ask(calls, 600.0, "the sinks").values())
        self.opened = True
        return Recovered(
            durable=IndexSet(index for part in found for index in part.durable),
            warnings=tuple(warning for part in found for warning in part.warnings),
        )

    def start(self, look: Callable[[], None] = lambda: None) -> LedgerProgress:
        """Start everything else, and wait until dialogues can begin.

        Args:
            look: is called every other second while the engines come up; may raise.

        Raises:
            EngineError: when an engine does not come up.
            InputError: when the domain's prompts do not fit the engines.
        """
        self._say_what_starts()
        self.fleet.look()
        cpu = self._cpu_places
        self.retrievers = [
            start_actor(
                self.run.retrieval, name=f"retriever-{number}", scheduling_strategy=cpu.next()
            )
            for number in range(self.sizes.retrievers)
        ]
        corpus = ray.put(Corpus.of(self.domain.documents))
        starting = {
            number: partial(retriever.start.remote, corpus)
            for number, retriever in enumerate(self.retrievers)
        }
        gather(starting, 0.0)  # so that they load beside the engines
        self._await_engines(look)
        ask(starting, 600.0, "the retrievers")
        progress = self._open_ledger()
        self._make_walkers()
        return progress

    def _open_ledger(self) -> LedgerProgress:
        make = ray.remote(LedgerActor).options(**LEDGER_OPTIONS, name="ledger")
        section, seats = self.run.run, self.sizes.walkers
        caps = Caps(failures=section.attempts)
        self.ledger = make.remote(self.folder, section.dialogues, seats, caps, self.attempts)
        progress: LedgerProgress = ask_one(self.ledger.open.remote, AGAIN_S, "the ledger")
        return progress

    def make_replica(self, engine: str, number: int, group: Any) -> Any:
        """Return the actor of an engine's replica, in its placement group."""
        section = self.run.engines[engine]
        cores = section.cpu_cores or self._cores_each()
        config = section.model_copy(update={"cpu_cores": cores})
        name = replica_name(engine, number)
        return replica_actor(config, name, group, carried(self.run, engine))

    def _cores_each(self) -> int:
        """Return the cores of each engine without a GPU: 0 (all) where there is only one."""
        engines = self.run.engines
        count = sum(
            most
            for name, (_, most) in self.sizes.replicas.items()
            if engines[name].kind == "vllm" and not engines[name].gpus
        )
        return max(1, len(os.sched_getaffinity(0)) // count) if count > 1 else 0

    def _say_what_starts(self) -> None:
        for name, (least, most) in self.sizes.replicas.items():
            engine = self.run.engines[name]
            if engine.url and engine.kind == "openai":
                self.say(f"{name}: documents of this domain are sent to {plain_url(engine.url)}")
            what = engine.model if engine.kind != "reference" else "the domain's references"
            what = f"engine {name} ({what}, {in_words(least, most)} x)"
            self.say(f"starting {what}" if self.before is None else f"{what} is up already")

    def _await_engines(self, look: Callable[[], None]) -> None:
        """Wait until one replica of each engine is up; those that come later are used then."""
        looked = time.monotonic()
        while not self.fleet.ready:
            self.fleet.look()
            time.sleep(LOOK_S)
            if time.monotonic() - looked >= TELL_S:
                looked = time.monotonic()
                look()

    def _make_walkers(self) -> None:
        parts = WalkerParts(
            run=self.run,
            alive=self.sizes.alive,
            domain=ray.put(self.domain),
            source=self.source,
            infos=self.fleet.infos,
            engines=self.fleet.up(),
            retrievers=self.retrievers,
            sinks=self.sinks,
            ledger=self.ledger,
        )
        self.walkers = Walkers(parts, self.sizes.walkers, self.say, self._cpu_places)
        self.walkers.start()

    # -- at work

    def ledger_progress(self) -> LedgerProgress:
        """Return where the ledger stands."""
        progress: LedgerProgress = ask_one(self.ledger.progress.remote, AGAIN_S, "the ledger")
        return progress

    def given_up(self) -> dict[int, str]:
        """Return the indices that were given up, with the last reason."""
        found: dict[int, str] = ask_one(self.ledger.given_up.remote, AGAIN_S, "the ledger")
        return found

    def look_around(self) -> Sight:
        """Ask every actor at once for its figures; what does not answer is left out.

        Replicas that have come up meanwhile are given to the walkers.

        Raises:
            DuologueError: a replica that is needed does not come up.
        """
        if self.fleet.look() and self.walkers is not None:
            self.walkers.use(self.fleet.up(), self.fleet.infos)
        parts = self._parts()
        calls = {name: part.ask for name, part in parts.items()}
        # A ledger that comes back into an outage of the store lives, and knows nothing yet.
        found = gather({**calls, "progress": self.ledger.progress.remote}, ASK_S)
        silent = {name: part.silent_s for name, part in parts.items() if name not in found}
        sinks = [f"sink-{number}" for number in range(len(self.sinks))]
        away = dict.fromkeys(silent, "it does not answer")
        away |= {name: found[name].outage for name in sinks if name in found and found[name].outage}
        replicas = list(self.fleet.made())
        away |= {name: found[name].away for name in replicas if name in found and found[name].away}
        return Sight(
            progress=found.get("progress"),
            engines={
                name: {replica: found[replica] for replica in of if replica in found}
                for name, of in self.fleet.up().items()
            },
            all_engines=_by_engine({name: found[name] for name in replicas if name in found}),
            placed=self.fleet.placed(),
            wanted=self.fleet.wanted(),
            away=away,
            silent=silent,
        )

    def engine_stats(self) -> Mapping[str, Mapping[str, EngineStats]]:
        """Ask all replicas for their figures, and nobody else."""
        calls = {name: handle.stats.remote for name, handle in self.fleet.made().items()}
        return _by_engine(gather(calls, ASK_S))

    def end(self, name: str) -> None:
        """End the process of an actor that tells nothing any more; Ray starts it again."""
        with contextlib.suppress(RayError, ValueError):
            ray.kill(self._parts()[name].handle, no_restart=False)

    def _parts(self) -> dict[str, _Part]:
        """Return all actors but the walkers, each with what it is asked to show that it lives."""
        parts = {"ledger": _Part(self.ledger, self.ledger.__ray_ready__.remote)}
        for number, sink in enumerate(self.sinks):
            parts[f"sink-{number}"] = _Part(sink, sink.stats.remote)
        for number, retriever in enumerate(self.retrievers):
            parts[f"retriever-{number}"] = _Part(retriever, retriever.__ray_ready__.remote)
        for replica, handle in self.fleet.made().items():
            hang_s = self.run.engines[engine_of(replica)].hang_s
            parts[replica] = _Part(handle, handle.stats.remote, max(hang_s, SILENT_S))
        return parts

    # -- going down

    def close(self) -> None:
        """Write what is finished, end the engines, and all actors; never raises for one of them."""
        problems = []
        if self.opened:
            try:
                calls = {number: sink.close.remote for number, sink in enumerate(self.sinks)}
                ask(calls, CLOSE_S, "the sinks")
            except (DuologueError, RayError) as error:
                problems.append(f"the sinks could not close: {error}")
        if self.walkers is not None:
            self.walkers.kill()
        self._close_engines()
        for handle in [*self.retrievers, *self.sinks, self.ledger]:
            if handle is not None:
                with contextlib.suppress(RayError, ValueError):
                    ray.kill(handle)
        for problem in problems:
            self.say(problem)

    def _close_engines(self) -> None:
        if self.kept is not None and self.fleet.ready:
            taken = Taken(self.fleet, self.fleet.placed(), self.engine_stats())
            self.kept.keep(self.run, self.sizes, taken)
        else:
            end(self.fleet)


def _by_engine(stats: Mapping[str, EngineStats]) -> dict[str, dict[str, EngineStats]]:
    found: dict[str, dict[str, EngineStats]] = {}
    for replica, one in stats.items():
        found.setdefault(engine_of(replica), {})[replica] = one
    return found
