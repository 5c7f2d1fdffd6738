"""What a scheduler that costs nothing would do with the same dialogues: simulated event by event.

Invariants: a free place is never left free while a turn waits for its engine; the oldest dialogue's
turn goes first, and to the fastest of the free places; a dialogue's turns follow each other without
a pause, and the next dialogue begins in the moment in which one ends. Any place takes any dialogue,
and each dialogue knows nothing of those to come: it is what a system can be compared with, not a
bound that nothing can pass (a schedule made with the future in view might be shorter).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from actors.engines.reference import latency_of
from specs.engine_section import ReferenceFaults
from specs.records import Dialogue


@dataclass(frozen=True, slots=True)
class Work:
    """One turn: the engine that says it, and the seconds that it takes at speed 1."""

    engine: str
    seconds: float


Places = Sequence[tuple[float, int]]
"""One engine's replicas: of each, its speed and its places."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What came of it.

    Attributes:
        ends: of all turns, ascending, in seconds from the start.
        used: place-seconds in use, by engine, of each turn (from, to).
        places: of all replicas together, by engine.
    """

    ends: Sequence[float]
    used: Mapping[str, Sequence[tuple[float, float]]]
    places: Mapping[str, int]

    @property
    def seconds(self) -> float:
        """From the first turn's beginning to the last one's end."""
        return self.ends[-1] if self.ends else 0.0

    def busy(self, engine: str, first: float = 0.0, last: float | None = None) -> float:
        """Return the share of an engine's places in use between two times, from 0 to 1."""
        last = self.seconds if last is None else last
        inside = sum(max(0.0, min(to, last) - max(at, first)) for at, to in self.used[engine])
        return inside / (self.places[engine] * (last - first))


def work_of(dialogue: Dialogue, roles: Mapping[str, str], faults: ReferenceFaults) -> list[Work]:
    """Return a dialogue's turns as the reference engine takes them.

    Args:
        roles: the engine of each side.
    """
    return [
        Work(roles[turn.role], latency_of(faults, turn.seed, turn.completion_tokens))
        for turn in dialogue.turns
    ]


def schedule(
    dialogues: Sequence[Sequence[Work]], engines: Mapping[str, Places], alive: int
) -> Schedule:
    """Play dialogues, in their order, so many at once.

    Raises:
        ValueError: an engine without places, or none alive.
    """
    if alive < 1 or any(count < 1 or speed <= 0 for of in engines.values() for speed, count in of):
        raise ValueError("somebody must be alive, and every replica needs places and a speed")
    run = _Run(dialogues, {name: _Engine.of(places) for name, places in engines.items()})
    for _ in range(min(alive, len(dialogues))):
        run.begin()
    run.play()
    places = {name: sum(count for _, count in of) for name, of in engines.items()}
    return Schedule(run.ends, run.used, places)


@dataclass(slots=True)
class _Engine:
    free: list[tuple[float, int]]  # minus a replica's speed, its number: the fastest first
    room: list[int]
    waiting: list[tuple[int, int]] = field(default_factory=list)  # dialogue, turn

    @classmethod
    def of(cls, places: Places) -> _Engine:
        free = [(-speed, number) for number, (speed, _) in enumerate(places)]
        heapq.heapify(free)
        return cls(free, [count for _, count in places])

    def take(self) -> tuple[float, int] | None:
        """Return the fastest replica that has room, with one place less."""
        while self.free and not self.room[self.free[0][1]]:
            heapq.heappop(self.free)
        if not self.free:
            return None
        self.room[self.free[0][1]] -= 1
        return self.free[0]

    def give_back(self, replica: tuple[float, int]) -> None:
        self.room[replica[1]] += 1
        if self.room[replica[1]] == 1:
            heapq.heappush(self.free, replica)


@dataclass(slots=True)
class _Run:
    dialogues: Sequence[Sequence[Work]]
    engines: dict[str, _Engine]
    ends: list[float] = field(default_factory=list)
    used: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    now: float = 0.0
    begun: int = 0
    events: list[tuple[float, int, int, tuple[float, int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.used = {name: [] for name in self.engines}

    def begin(self) -> None:
        """Let the next dialogue that says anything begin."""
        while self.begun < len(self.dialogues):
            self.begun += 1
            if self.dialogues[self.begun - 1]:
                self._ask(self.begun - 1, 0)
                return

    def play(self) -> None:
        self._dispatch(self.engines)
        while self.events:
            self.now = self.events[0][0]
            touched = set[str]()
            while self.events and self.events[0][0] == self.now:
                touched |= self._end()
            self._dispatch(touched)

    def _end(self) -> set[str]:
        """End one turn; return the engines for which that changes anything."""
        _, dialogue, turn, replica = heapq.heappop(self.events)
        self.ends.append(self.now)
        engine = self.dialogues[dialogue][turn].engine
        self.engines[engine].give_back(replica)
        if turn + 1 < len(self.dialogues[dialogue]):
            self._ask(dialogue, turn + 1)
            return {engine, self.dialogues[dialogue][turn + 1].engine}
        before = self.begun
        self.begin()
        if self.begun == before:
            return {engine}
        return {engine, *(one[0].engine for one in self.dialogues[before : self.begun] if one)}

    def _ask(self, dialogue: int, turn: int) -> None:
        heapq.heappush(
            self.engines[self.dialogues[dialogue][turn].engine].waiting, (dialogue, turn)
        )

    def _dispatch(self, names: Iterable[str]) -> None:
        for name in names:
            engine = self.engines[name]
            while engine.waiting and (replica := engine.take()) is not None:
                dialogue, turn = heapq.heappop(engine.waiting)
                end = self.now + self.dialogues[dialogue][turn].seconds / -replica[0]
                self.used[name].append((self.now, end))
                heapq.heappush(self.events, (end, dialogue, turn, replica))
