"""The engines' replicas: placed, loaded, used as soon as they are up, drained when they must go.

Invariants: each replica has a placement group of its own, which keeps its GPUs while its process
is started again, and gets others when its node is gone; dialogues may begin when one replica of
each engine is up; what a run needs and does not come up within the engine's deadline ends the run
with the engine's own error; what it only takes where there is room is asked for when all that is
needed has its place, and never ends it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.engines.replica_actor import ReplicaActor
from actors.options import ACTOR_OPTIONS
from cluster.asking import Asking
from cluster.placement import bundle, bundle_in_words
from specs.engine import EngineInfo, replica_name
from specs.engine_section import EngineSection
from specs.errors import DuologueError, EngineError

LATE_S = 30.0
"""What is added to an engine's deadline, so that its own message comes first."""

DRAIN_S = 5.0
"""From one question for nodes that must go to the next."""

State = Literal["waiting", "placing", "loading", "up", "leaving", "given up"]


@dataclass(slots=True)
class Seat:
    """One replica's place, and what has become of it.

    Attributes:
        needed: the run cannot do without.
        group: the placement group; None for a replica that asks for nothing.
        since: when it came into its state.
        placed: when it got its place; None where it has none.
        held_s: for how long it had places before.
    """

    engine: str
    number: int
    needed: bool
    state: State = "waiting"
    group: Any = None
    handle: Any = None
    asking: Asking | None = None
    since: float = 0.0
    placed: float | None = None
    held_s: float = 0.0

    @property
    def name(self) -> str:
        """The replica's name."""
        return replica_name(self.engine, self.number)


class Fleet:
    """All replicas of a run's engines.

    Args:
        engines: by name, with those that no role has.
        counts: the least and the most replicas, by engine.
        make: makes the actor of an engine's replica, given its number and its placement group.
        mark: stands behind the groups' names, of which a cluster has none twice.
    """

    def __init__(
        self,
        engines: Mapping[str, EngineSection],
        counts: Mapping[str, tuple[int, int]],
        make: Callable[[str, int, Any], Any],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        mark: str = "",
    ) -> None:
        self._mark = mark
        self.infos: dict[str, EngineInfo] = {}
        self._engines = engines
        self._make = make
        self._say = say
        self._clock = clock
        self._drains_asked = 0.0
        self._leaving: frozenset[str] = frozenset()
        self._seats = [
            Seat(name, number, needed=number < least)
            for name, (least, most) in counts.items()
            for number in range(most)
        ]

    # -- what there is

    def up(self) -> dict[str, dict[str, Any]]:
        """Return the handles of the replicas that take turns, by engine and replica."""
        found: dict[str, dict[str, Any]] = {seat.engine: {} for seat in self._seats}
        for seat in self._seats:
            if seat.state == "up":
                found[seat.engine][seat.name] = seat.handle
        return found

    def made(self) -> dict[str, Any]:
        """Return the handles of all replicas that have come up once, by replica."""
        return {s.name: s.handle for s in self._seats if s.state in ("up", "leaving")}

    def wanted(self) -> dict[str, int]:
        """Return how many replicas each engine is to have at most."""
        found: dict[str, int] = {}
        for seat in self._seats:
            found[seat.engine] = found.get(seat.engine, 0) + (seat.state != "given up")
        return found

    def placed(self) -> dict[str, float]:
        """Return for how many seconds each replica has had its place."""
        now = self._clock()
        return {
            seat.name: seat.held_s + (now - seat.placed if seat.placed is not None else 0.0)
            for seat in self._seats
            if seat.placed is not None or seat.held_s
        }

    @property
    def ready(self) -> bool:
        """Whether one replica of each engine is up."""
        return all(self.up().values())

    @property
    def complete(self) -> bool:
        """Whether all that are needed are up."""
        return all(seat.state in ("up", "leaving") for seat in self._seats if seat.needed)

    # -- what happens

    def look(self) -> bool:
        """Go on with whatever can, without waiting; say whether other replicas take turns now.

        Raises:
            EngineError: one that is needed has no place, or does not come up, in time.
            DuologueError: it cannot be loaded.
        """
        before = self.up()
        needed_placed = all(s.placed is not None for s in self._seats if s.needed)
        for seat in self._seats:
            if seat.state == "waiting" and (seat.needed or needed_placed):
                self._place(seat)
            if seat.state == "placing":
                self._placing(seat)
            if seat.state == "loading":
                self._loading(seat)
        self._drain()
        return self.up() != before

    def _place(self, seat: Seat) -> None:
        asked = bundle(self._engines[seat.engine])
        self._enter(seat, "placing")
        if asked:
            name = f"{seat.name}{self._mark}"
            seat.group = ray.util.placement_group([asked], "STRICT_PACK", name=name)

    def _placing(self, seat: Seat) -> None:
        if seat.group is None or seat.group.wait(timeout_seconds=0):
            seat.handle = self._make(seat.engine, seat.number, seat.group)
            seat.asking = Asking(seat.handle.start.remote, f"engine {seat.engine} ({seat.name})")
            seat.placed = self._clock()
            self._enter(seat, "loading")
        elif seat.needed and self._late(seat):
            what = bundle_in_words(self._engines[seat.engine])
            raise EngineError(
                f"{seat.name} has found no place within {self._deadline(seat):g} s: it asks for "
                f"{what} (engines.{seat.engine}.start_deadline_s says how long it may wait; "
                f"replicas = [1, {seat.number + 1}] begins with fewer)"
            )

    def _loading(self, seat: Seat) -> None:
        assert seat.asking is not None
        try:
            if seat.asking.look():
                self.infos.setdefault(seat.engine, seat.asking.answer)
                self._enter(seat, "up")
            elif self._late(seat):
                raise EngineError(f"{seat.name} did not answer within {self._deadline(seat):g} s")
        except DuologueError as error:
            if seat.needed:
                raise
            self._say(f"{seat.name} does not come up, and the run goes on without it: {error}")
            self._end(seat)
            self._unplaced(seat)
            self._enter(seat, "given up")

    def _deadline(self, seat: Seat) -> float:
        return self._engines[seat.engine].start_deadline_s

    def _late(self, seat: Seat) -> bool:
        return self._clock() - seat.since > self._deadline(seat) + LATE_S

    def _drain(self) -> None:
        """Let no new turn go to nodes that are about to be taken away."""
        now = self._clock()
        if now - self._drains_asked >= DRAIN_S:
            self._drains_asked = now
            self._leaving = _draining_nodes()
        if not self._leaving and not any(seat.state == "leaving" for seat in self._seats):
            return
        for seat in self._seats:
            if seat.state not in ("up", "leaving") or seat.group is None:
                continue
            nodes = _nodes_of(seat.group)
            goes = bool(nodes & self._leaving)
            if goes and seat.state == "up":
                self._say(f"{seat.name}: its node is to go; its dialogues go on elsewhere")
                self._enter(seat, "leaving")
            elif seat.state == "leaving" and not nodes:
                self._unplaced(seat)  # the node has gone, and there is no other yet
            elif seat.state == "leaving" and not goes:
                seat.placed = now if seat.placed is None else seat.placed
                self._enter(seat, "up")  # it has another node; clients ask it until it answers

    def _unplaced(self, seat: Seat) -> None:
        if seat.placed is not None:
            seat.held_s, seat.placed = seat.held_s + self._clock() - seat.placed, None

    def _enter(self, seat: Seat, state: State) -> None:
        seat.state, seat.since = state, self._clock()

    # -- going down

    def close(self) -> None:
        """End all processes and give all places back."""
        for seat in self._seats:
            self._end(seat)

    def _end(self, seat: Seat) -> None:
        if seat.handle is not None:
            with contextlib.suppress(RayError, ValueError):
                ray.kill(seat.handle)
        if seat.group is not None:
            with contextlib.suppress(RayError, ValueError):
                ray.util.remove_placement_group(seat.group)
        seat.handle = seat.group = None


def replica_actor(config: EngineSection, name: str, group: Any, adapter: str = "") -> Any:
    """Return the actor of a replica, in its placement group where it has one."""
    options: dict[str, Any] = {
        **ACTOR_OPTIONS,
        "name": name,
        "num_gpus": config.gpus or 0,
        "resources": {k: v for k, v in bundle(config).items() if k != "GPU"} or None,
        "max_restarts": -1,
        "max_concurrency": 4000,
        "scheduling_strategy": "SPREAD"
        if group is None
        else PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0),
    }
    return ray.remote(ReplicaActor).options(**options).remote(config, name, adapter)


def _draining_nodes() -> frozenset[str]:
    from ray._private.state import state

    # There is no public way to ask; without an answer their end is noticed when it comes.
    with contextlib.suppress(AttributeError, RuntimeError, ValueError):
        return frozenset(state.get_draining_nodes())
    return frozenset()


def _nodes_of(group: Any) -> frozenset[str]:
    with contextlib.suppress(RayError, RuntimeError, ValueError, KeyError):
        table = ray.util.placement_group_table(group)
        if table["state"] == "CREATED":  # else it waits for a node
            return frozenset(table["bundles_to_node_id"].values())
    return frozenset()
