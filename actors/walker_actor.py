"""The Ray actor around a walker: builds what it needs in its own process, then plays.

Invariants: the constructor only stores a name, so that nothing can fail there; `start` brings all
that is needed, loads tokenizers and measures the prompts, so that what cannot work is said before
the first dialogue. A walker that has died is not started again: another takes its seat.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from actors.caller import ToolCaller
from actors.cast import Cast
from actors.engines.client import EngineClient
from actors.engines.models import load_tokenizer
from actors.engines.ray_replica import RayReplica
from actors.ledger_client import RayLedger
from actors.manager import make_manager
from actors.metrics import begin_recording, walker_readings
from actors.orphans import end_when_orphaned
from actors.playing_time import PlayingTime, Timed
from actors.preflight import PromptNeed, check_windows, measure_prompts
from actors.retrieval.remote import RetrieverClient
from actors.retrieval.store import Corpus
from actors.seat import Client, Seat
from actors.sink_client import RaySinks
from actors.walker import Walker, WalkerStats
from specs.chat_template import ChatEncoder
from specs.domain import SIDES, Domain, Side
from specs.engine import EngineInfo
from specs.plan import PlanSource
from specs.run_file import MANAGED, RunFile
from specs.seeds import seed


@dataclass(frozen=True, slots=True)
class WalkerParts:
    """What a walker works with.

    Attributes:
        domain: in Ray's object store, so that many walkers of a node read one copy.
        alive: dialogues that it plays at once.
        infos: by engine.
        engines: handles, by engine and replica.
    """

    run: RunFile
    alive: int
    domain: Any
    source: PlanSource
    infos: Mapping[str, EngineInfo]
    engines: Mapping[str, Mapping[str, Any]]
    retrievers: Sequence[Any]
    sinks: Sequence[Any]
    ledger: Any


class WalkerActor:
    """One walker as a Ray actor; the caller wraps it.

    Args:
        name: its seat, a dot, and what tells it from those that had the seat before.
    """

    def __init__(self, name: str) -> None:
        end_when_orphaned()
        self._name = name
        self._clients: dict[str, EngineClient] = {}
        self._replicas: dict[str, Mapping[str, Any]] = {}
        self._playing: PlayingTime | None = None
        self._walker: Walker | None = None
        self._sinks: RaySinks | None = None
        self._recording: asyncio.Task[None] | None = None
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizer")

    async def start(self, parts: WalkerParts) -> dict[Side, PromptNeed]:
        """Load tokenizers, and measure the prompts against the windows.

        Raises:
            InputError: when a window is too small, or no dialogue of the domain can end.
        """
        if (limit_s := parts.run.run.dialogue_deadline_s) is not None:
            self._playing = PlayingTime(limit_s)
        cast = await self._cast(parts, await parts.domain)
        calm_collector()
        needs = await measure_prompts(cast)
        engines = {side: getattr(parts.run.roles, side) for side in SIDES}
        check_windows(needs, cast.seats, engines)
        # Of the time in which a turn is to be in the log, its sink needs the greater part.
        waiting_s = parts.run.run.log_interval_s / 8
        self._sinks = RaySinks(parts.sinks, waiting_s)
        ledger, alive = RayLedger(parts.ledger), parts.alive
        self._walker = Walker(self._name, cast, ledger, self._sinks, alive, playing=self._playing)
        self._recording = begin_recording(self.stats, walker_readings)
        return needs

    async def run(self) -> WalkerStats:
        """Play until nothing is owed, or `stop` is called."""
        assert self._walker is not None
        assert self._sinks is not None
        try:
            await self._walker.run()
            return await self.stats()
        finally:
            await self._sinks.flush()

    async def stats(self) -> WalkerStats:
        """Return what has been done so far."""
        if self._walker is None:
            return WalkerStats()
        stats = self._walker.stats.copy()
        stats.retries["sent"] = sum(client.sent_again for client in self._clients.values())
        return stats

    async def stop(self) -> None:
        """Admit nothing more."""
        if self._walker is not None:
            self._walker.stop()

    async def set_replicas(self, engine: str, handles: Mapping[str, Any]) -> None:
        """Use these replicas of an engine from now on (`EngineClient.set_replicas`).

        Args:
            engine: its name in the run file.
            handles: of the actors, by replica.
        """
        self._replicas[engine] = handles  # it may come before `start` has made the client
        if engine in self._clients:
            self._clients[engine].set_replicas(_behind(handles))

    async def _cast(self, parts: WalkerParts, domain: Domain) -> Cast:
        run = parts.run
        seats: dict[Side, Seat] = {
            side: await self._seat(parts, getattr(run.roles, side), side) for side in SIDES
        }
        # Each walker asks one retriever; the walkers' names spread them.
        chosen = parts.retrievers[seed(self._name) % len(parts.retrievers)]
        retriever = RetrieverClient(chosen, Corpus.of(domain.documents))
        policy = run.policy
        return Cast(
            domain=domain,
            source=parts.source,
            run=run.run.name,
            seats=seats,
            caller=ToolCaller(domain, retriever),
            max_turns=policy.max_turns or domain.max_turns,
            node=_node(),
            manager=make_manager(policy, retriever.embed, await self._manager_seat(parts))
            if policy.kind in MANAGED
            else None,
            structured=policy.workflow == "structured",
            patience=policy.patience,
        )

    async def _manager_seat(self, parts: WalkerParts) -> Seat | None:
        name = parts.run.roles.manager
        if parts.run.policy.manager != "model" or not name:
            return None
        return await self._seat(parts, name, "manager")

    async def _seat(self, parts: WalkerParts, name: str, role: str) -> Seat:
        engine, info = parts.run.engines[name], parts.infos[name]
        if name not in self._clients:
            handles = self._replicas.get(name, parts.engines[name])
            self._clients[name] = EngineClient(_behind(handles), f"{self._name}:{name}")
        tokenizer = None
        if info.takes == "tokens":
            tokenizer = await asyncio.to_thread(load_tokenizer, engine.model, engine.revision)
        adapter = (parts.run.roles.adapter or "") if role == "agent" else ""
        encoder = None
        if adapter and tokenizer is not None:
            encoder = await asyncio.to_thread(ChatEncoder, tokenizer)
        client: Client = self._clients[name]
        return Seat(
            client=client if self._playing is None else Timed(client, self._playing),
            info=info,
            profile=engine.profile,
            tokenizer=tokenizer,
            executor=self._executor,
            deadline_s=engine.turn_deadline_s,
            role=role,
            adapter=adapter,
            encoder=encoder,
        )


def calm_collector() -> None:
    """Make Python's cycle collector rare: thousands of live dialogues are much to look through.

    What is loaded by now lives as long as the process, and dialogues leave no cycles to speak of.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


def _behind(handles: Mapping[str, Any]) -> dict[str, RayReplica]:
    return {name: RayReplica(handle) for name, handle in handles.items()}


def _node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())[:12]
