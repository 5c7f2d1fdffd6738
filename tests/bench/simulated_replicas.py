"""Many replicas of the reference engine in one actor, each behind what looks like a handle.

An actor costs some 60 MB and a quarter of a second, so that 256 of them would not fit this machine;
walkers, sinks, ledger, driver and client cannot tell the difference, except that calls to replicas
of one host share its process, its event loop and one connection.

Invariants: a handle is data (it travels to walkers as an actor's handle does); each replica has a
`ReplicaCore` of its own; places count as used from a request's admission to its answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray

from actors.engines.reference import ReferenceBackend
from actors.engines.replica import ReplicaCore
from actors.orphans import end_when_orphaned
from cluster.crew import LOOK_S, Crew
from specs.engine import Answer, EngineInfo, EngineStats, Request, engine_of, replica_name
from specs.engine_section import EngineSection
from specs.errors import EngineError

HOST_OPTIONS: dict[str, Any] = {"num_cpus": 0, "max_concurrency": 100_000}
"""Each walker keeps a poll open at each replica."""


@dataclass(slots=True)
class Use:
    """How much of an engine's places is in use.

    Attributes:
        seconds: place-seconds in use until `since`.
        drawn: seconds that the answered requests were to take.
    """

    running: int = 0
    seconds: float = 0.0
    since: float = 0.0
    drawn: float = 0.0
    answered: int = 0

    def change(self, by: int, now: float) -> None:
        """Note that so many places more are in use."""
        self.seconds += self.running * (now - self.since)
        self.since = now
        self.running += by


class _Noting(ReferenceBackend):
    """The reference engine, which notes how long its places are in use."""

    def __init__(self, config: EngineSection, name: str, use: Use) -> None:
        super().__init__(config, name)
        self._use = use

    async def generate(self, request: Request) -> Answer:
        self._use.change(1, time.time())
        try:
            answer = await super().generate(request)
            self._use.drawn += answer.decode_s
            self._use.answered += 1
            return answer
        finally:
            self._use.change(-1, time.time())


class ReplicaHost:
    """An actor with many replicas; the caller wraps it."""

    def __init__(self) -> None:
        end_when_orphaned()
        self._cores: dict[str, ReplicaCore] = {}
        self._use: dict[str, Use] = {}

    async def call(self, name: str, config: EngineSection, method: str, *arguments: Any) -> Any:
        """Call a method of a replica, as its own actor would."""
        core = self._cores.get(name)
        if method == "start":
            return await self._start(name, config)
        if core is None:
            if method == "stats":
                return EngineStats(away="it is loading")
            if method == "stop":
                return None
            raise EngineError(f"the engine {name} is loading")
        return await getattr(core, method)(*arguments)

    async def _start(self, name: str, config: EngineSection) -> EngineInfo:
        if name not in self._cores:
            use = self._use.setdefault(engine_of(name), Use(since=time.time()))
            self._cores[name] = ReplicaCore(_Noting(config, name, use), name)
        return await self._cores[name].start()

    async def use(self) -> dict[str, Use]:
        """Return how much of the places is in use, by engine, until now."""
        await asyncio.sleep(0)  # behind what is already to be done
        for use in self._use.values():
            use.change(0, time.time())
        return self._use


@dataclass(frozen=True)
class SimulatedReplica:
    """What looks like the handle of a `ReplicaActor`."""

    host: Any
    name: str
    config: EngineSection

    @property
    def __ray_ready__(self) -> Any:
        return self.host.__ray_ready__

    def __getattr__(self, method: str) -> SimulatedMethod:
        if method.startswith("_"):  # pickle asks whether there are some of its own
            raise AttributeError(method)
        return SimulatedMethod(self, method)


@dataclass(frozen=True, slots=True)
class SimulatedMethod:
    """What looks like the method of an actor's handle."""

    replica: SimulatedReplica
    name: str

    def remote(self, *arguments: Any) -> Any:
        """Call it; returns the reference of its answer."""
        replica = self.replica
        return replica.host.call.remote(replica.name, replica.config, self.name, *arguments)


def paced(config: EngineSection, speed: float) -> EngineSection:
    """Return the section of a replica that is so many times as fast."""
    faults = config.faults
    latencies = {
        "latency_s": tuple(one / speed for one in faults.latency_s),
        "token_s": faults.token_s / speed,
    }
    return config.model_copy(update={"faults": faults.model_copy(update=latencies)})


@dataclass(slots=True)
class SimulatedCrew(Crew):
    """A run's actors, with simulated replicas in the place of the reference engine's.

    Attributes:
        speeds: by engine, of its replicas in turn; 1 for those that are not in it.
        hosts: the actors that the replicas live in.
    """

    speeds: Mapping[str, list[float]] = field(default_factory=dict)
    hosts: list[Any] = field(default_factory=list)

    def start_hosts(self, count: int) -> None:
        """Start the actors that the replicas are to live in."""
        make: Any = ray.remote(ReplicaHost)
        self.hosts = [make.options(**HOST_OPTIONS).remote() for _ in range(count)]

    def make_replica(self, engine: str, number: int, group: Any) -> Any:
        """Return what stands for the handle of a replica's actor."""
        del group
        speeds = self.speeds.get(engine, [1.0])
        config = paced(self.run.engines[engine], speeds[number % len(speeds)])
        return SimulatedReplica(
            self.hosts[number % len(self.hosts)], replica_name(engine, number), config
        )

    def _await_engines(self, look: Callable[[], None]) -> None:
        """Wait for all replicas, so that none is missing in what the first dialogues come to."""
        while not self.fleet.complete:
            self.fleet.look()
            time.sleep(LOOK_S)

    def use(self) -> dict[str, Use]:
        """Return how much of the places is in use, by engine."""
        joined: dict[str, Use] = {}
        for found in ray.get([host.use.remote() for host in self.hosts]):
            for name, use in found.items():
                total = joined.setdefault(name, Use())
                total.running += use.running
                total.seconds += use.seconds
                total.drawn += use.drawn
                total.answered += use.answered
                total.since = max(total.since, use.since)
        return joined
