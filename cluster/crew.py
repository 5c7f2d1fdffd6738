"""The actors of a run: made, started, asked, ended.

Invariants: every wait has a deadline; what cannot start ends the run with its own error, before
the first dialogue; whatever happens, `close` ends every actor that was made.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from actors.engines.replica_actor import ReplicaActor
from actors.retrieval.remote import start_actor
from actors.retrieval.store import Corpus
from actors.sink import SINK_OPTIONS, Recovered, SinkActor, SinkLimits
from actors.walker import WalkerStats
from actors.walker_actor import WalkerActor, WalkerParts
from cluster.ledger import LedgerActor, spans
from cluster.ledger import Progress as LedgerProgress
from cluster.placement import check_gpus, cluster_address
from specs.domain import Domain
from specs.engine import EngineInfo, EngineStats
from specs.errors import DuologueError, EngineError
from specs.masking import plain_url
from specs.parts import Folder
from specs.plan import PlanSource
from specs.run_file import RunFile

ASK_S = 10.0
"""How long the driver waits for an actor's figures."""

CLOSE_S = 60.0
"""How long sinks may take to write what they hold."""


@contextlib.contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Join the cluster at `address`, or of the job that this is, or start a local one.

    Raises:
        DuologueError: when no cluster answers at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    inside = cluster_address(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if not inside:
        # Ray's workers start in the working directory; the packages need not be installed there.
        root = str(Path(__file__).resolve().parents[1])
        path = os.environ.get("PYTHONPATH", "")
        if root not in path.split(os.pathsep):
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, path]))
        options |= {"address": "local", "include_dashboard": False}
    else:
        options |= {"address": inside}
    try:
        ray.init(**options)
    except SystemExit:  # what Ray does on SIGTERM while it starts
        raise KeyboardInterrupt from None
    except (ConnectionError, RayError, RuntimeError, ValueError) as error:
        where = f"at {inside}" if inside else "on this machine"
        raise DuologueError(f"no Ray cluster can be used {where}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


@dataclass(slots=True)
class Crew:
    """All actors of one run.

    Attributes:
        run_start: counts the starts of the run (`RunFolder.open`).
    """

    run: RunFile
    domain: Domain
    source: PlanSource
    folder: Folder
    say: Callable[[str], None]
    run_start: int = 0
    engines: dict[str, dict[str, Any]] = field(default_factory=dict)
    infos: dict[str, EngineInfo] = field(default_factory=dict)
    retrievers: list[Any] = field(default_factory=list)
    sinks: list[Any] = field(default_factory=list)
    walkers: list[Any] = field(default_factory=list)
    ledger: Any = None
    opened: bool = False

    # -- coming up

    def open_sinks(self) -> Recovered:
        """Start the sinks; return what they found on disk, joined."""
        section, count = self.run.run, self.run.walkers.sinks
        limits = SinkLimits(
            section.part_rows,
            section.part_bytes,
            section.log_interval_s,
            outage_s=section.outage_s,
        )
        make = ray.remote(SinkActor).options(**SINK_OPTIONS)
        self.sinks = [
            make.remote(self.folder, number, count, limits, self.run_start)
            for number in range(count)
        ]
        found: list[Recovered] = ask([sink.open.remote() for sink in self.sinks], 600.0, "sinks")
        self.opened = True
        return Recovered(
            durable=tuple(index for part in found for index in part.durable),
            unfinished={i: u for part in found for i, u in part.unfinished.items()},
            max_epoch=max(part.max_epoch for part in found),
            warnings=tuple(warning for part in found for warning in part.warnings),
        )

    def start(self, recovered: Recovered, attempts: Mapping[int, int]) -> None:
        """Start everything else, and wait until dialogues can begin.

        Args:
            attempts: of dialogues that are played again (`RunFolder.attempts`).

        Raises:
            EngineError: when an engine does not come up.
            InputError: when the domain's prompts do not fit the engines, or there are too few GPUs.
        """
        self._make_engines()
        self.retrievers = [
            start_actor(self.run.retrieval) for _ in range(self.run.walkers.retrievers)
        ]
        corpus = ray.put(Corpus.of(self.domain.documents))
        ledger = ray.remote(LedgerActor).options(num_cpus=0, max_restarts=-1, max_concurrency=1000)
        self.ledger = ledger.remote(
            self.run.run.dialogues,
            spans(recovered.durable),
            first_epoch=recovered.max_epoch + 1,
            attempts=attempts,
        )
        starting = [retriever.start.remote(corpus) for retriever in self.retrievers]
        self._start_engines()
        ask(starting, 600.0, "the retrievers")
        self._make_walkers()

    def _make_engines(self) -> None:
        used = self.run.speaking_engines
        engines = {name: self.run.engines[name] for name in used}
        check_gpus(engines, self.run.cluster.address, self.say)
        cores = self._cores_each(list(used))
        for name in used:
            engine = self.run.engines[name]
            if engine.url and engine.kind == "openai":
                self.say(f"{name}: documents of this domain are sent to {plain_url(engine.url)}")
            self.engines[name] = {}
            for number in range(engine.replicas):
                replica = f"{name}-{number}"
                options: dict[str, Any] = {
                    "num_cpus": 0,
                    "num_gpus": engine.gpus or 0,
                    "max_restarts": -1,
                    "max_concurrency": 4000,
                }
                config = engine.model_copy(update={"cpu_cores": engine.cpu_cores or cores})
                make = ray.remote(ReplicaActor).options(**options)
                self.engines[name][replica] = make.remote(config, replica)

    def _cores_each(self, names: Sequence[str]) -> int:
        """Return the cores of each engine without a GPU: 0 (all) where there is only one."""
        engines = [self.run.engines[name] for name in names]
        count = sum(e.replicas for e in engines if e.kind == "vllm" and not e.gpus)
        return max(1, len(os.sched_getaffinity(0)) // count) if count > 1 else 0

    def _start_engines(self) -> None:
        for name, replicas in self.engines.items():
            engine = self.run.engines[name]
            what = engine.model if engine.kind != "reference" else "the domain's references"
            self.say(f"starting engine {name} ({what}, {len(replicas)} x)")
        for name, replicas in self.engines.items():
            deadline = self.run.engines[name].start_deadline_s + 30.0
            refs = [handle.start.remote() for handle in replicas.values()]
            self.infos[name] = ask(refs, deadline, f"engine {name}")[0]

    def _make_walkers(self) -> None:
        parts = WalkerParts(self.engines, self.retrievers, self.sinks, self.ledger)
        domain = ray.put(self.domain)
        make = ray.remote(WalkerActor).options(num_cpus=0, max_concurrency=100)
        self.walkers = [
            make.remote(f"walker-{number}", self.run, domain, self.source, self.infos, parts)
            for number in range(self.run.walkers.count)
        ]
        ask([walker.start.remote() for walker in self.walkers], 300.0, "the walkers")

    # -- at work

    def ledger_progress(self) -> LedgerProgress:
        """Return where the ledger stands."""
        progress: LedgerProgress = ask([self.ledger.progress.remote()], ASK_S, "the ledger")[0]
        return progress

    def given_up(self) -> dict[int, str]:
        """Return the indices that were given up, with the last reason."""
        found: dict[int, str] = ask([self.ledger.given_up.remote()], ASK_S, "the ledger")[0]
        return found

    def walker_stats(self) -> list[WalkerStats]:
        """Return the walkers' figures."""
        stats: list[WalkerStats] = ask([w.stats.remote() for w in self.walkers], ASK_S, "walkers")
        return stats

    def engine_stats(self) -> Mapping[str, Sequence[EngineStats]]:
        """Return the engines' figures; a replica that does not answer is left out."""
        stats: dict[str, list[EngineStats]] = {}
        for name, replicas in self.engines.items():
            stats[name] = []
            for handle in replicas.values():
                with contextlib.suppress(RayError, DuologueError):
                    stats[name] += ask([handle.stats.remote()], ASK_S, name)
        return stats

    # -- going down

    def close(self) -> None:
        """Write what is finished, end the engines, and all actors; never raises for one of them."""
        problems = []
        if self.opened:
            try:
                ask([sink.close.remote() for sink in self.sinks], CLOSE_S, "the sinks")
            except (DuologueError, RayError) as error:
                problems.append(f"the sinks could not close: {error}")
        engines = [handle for replicas in self.engines.values() for handle in replicas.values()]
        with contextlib.suppress(DuologueError, RayError):
            ask([handle.stop.remote() for handle in engines], 20.0, "the engines")
        for handle in [*self.walkers, *self.retrievers, *self.sinks, *engines, self.ledger]:
            if handle is not None:
                with contextlib.suppress(RayError, ValueError):
                    ray.kill(handle)
        for problem in problems:
            self.say(problem)


def ask(refs: Sequence[Any], seconds: float, what: str) -> Any:
    """Return the results of calls; raises DuologueError in words when one fails or is late."""
    try:
        return ray.get(list(refs), timeout=seconds)
    except GetTimeoutError:
        raise DuologueError(f"{what} did not answer within {seconds:g} s") from None
    except RayTaskError as error:
        if isinstance(error.cause, DuologueError):
            raise error.cause from None
        raise DuologueError(f"{what} failed: {error.cause!r}") from error
    except RayActorError as error:
        raise EngineError(f"{what}: a process has ended: {error}") from error
