"""Clients and replicas as a queueing network: their routers decide, everything else is drawn."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.engines.routing import Router
from specs.engine import Load

Span = tuple[float, float]


@dataclass(frozen=True)
class Scene:
    """What is played.

    Attributes:
        load: dialogues for each place of all replicas; half of their time they are elsewhere.
        speeds: of the replicas.
        late: when a replica joins, by its number.
        stragglers: share of requests that take 50 times as long.
        counted: the seconds between which turns and work are counted.
    """

    clients: int = 4
    speeds: Sequence[float] = (1.0,) * 16
    limit: int = 16
    load: float = 3.0
    late: Mapping[int, float] = field(default_factory=dict)
    stragglers: float = 0.0
    elsewhere: Span = (1.0, 3.0)
    takes: Span = (1.0, 3.0)
    counted: Span = (8.0, 20.0)
    seed: int = 1

    @property
    def dialogues(self) -> int:
        return int(self.load * self.limit * len(self.speeds))


class _Timeline:
    """What happens, in its order; every request takes what its dialogue and turn drew."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.now, self.done = scene, 0.0, 0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        self._draws = [random.Random(f"{scene.seed} {d}") for d in range(scene.dialogues)]

    def after(self, seconds: float, what: Callable[..., None], *about: Any) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), what, about))

    def play(self) -> None:
        while self._events and self._events[0][0] <= self.scene.counted[1]:
            self.now, _, what, about = heapq.heappop(self._events)
            what(*about)

    @property
    def counts(self) -> bool:
        return self.now > self.scene.counted[0]

    def elsewhere(self, dialogue: int) -> float:
        return self._draws[dialogue].uniform(*self.scene.elsewhere)

    def takes(self, dialogue: int) -> float:
        draws = self._draws[dialogue]
        seconds = draws.uniform(*self.scene.takes)
        return seconds * 50 if draws.random() < self.scene.stragglers else seconds


def one_queue(scene: Scene) -> int:
    """Return the turns of a scheduler that knows everything: one queue, the fastest place first."""
    time = _Timeline(scene)
    waiting: deque[int] = deque()
    free: list[tuple[float, int]] = []

    def opens(replica: int) -> None:
        for _ in range(scene.limit):
            heapq.heappush(free, (-scene.speeds[replica], replica))
        begin()

    def asks(dialogue: int) -> None:
        waiting.append(dialogue)
        begin()

    def begin() -> None:
        while waiting and free:
            speed, replica = heapq.heappop(free)
            dialogue = waiting.popleft()
            time.after(time.takes(dialogue) / -speed, ends, dialogue, replica)

    def ends(dialogue: int, replica: int) -> None:
        time.done += time.counts
        heapq.heappush(free, (-scene.speeds[replica], replica))
        time.after(time.elsewhere(dialogue), asks, dialogue)
        begin()

    for replica in range(len(scene.speeds)):
        time.after(scene.late.get(replica, 0.0), opens, replica)
    for dialogue in range(scene.dialogues):
        time.after(time.elsewhere(dialogue) / 4, asks, dialogue)
    time.play()
    return time.done


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        moved: share of turns that another replica answered than the one before.
        calls: submissions and polls a turn.
        busy: share of its places that each replica used, while turns were counted.
    """

    done: int
    moved: float
    calls: float
    busy: list[float]


class Routed:
    """Clients with routers of their own, and a network between them and the replicas.

    Args:
        make: a router, from the replicas there are and the client's name.
        bounded: clients send no more than the router has room for.
        sounding_s: how often a client sounds a replica out; 0 for never.
        gather_s: what asks and answers wait for others that travel with them.
    """

    LAG_S = 0.005

    def __init__(
        self,
        scene: Scene,
        make: Callable[[list[str], str], Router],
        bounded: bool = True,
        sounding_s: float = 1.0,
        gather_s: float = 0.0,
    ) -> None:
        self.scene, self.bounded, self.gather_s = scene, bounded, gather_s
        self.time = _Timeline(scene)
        count = len(scene.speeds)
        self.present = [f"r{i}" for i in range(count) if i not in scene.late]
        self.routers = [make(self.present, f"walker-{w}.1:writer") for w in range(scene.clients)]
        self.unsent: list[dict[int, deque[int]]] = [{} for _ in self.routers]
        self.gathering: set[tuple[int, int]] = set()
        self.queues: list[deque[int]] = [deque() for _ in range(count)]
        self.running = [0] * count
        self.here = [Counter[int]() for _ in range(count)]
        self.answers: dict[tuple[int, int], list[int]] = {}
        self.worked, self.since = [0.0] * count, [0.0] * count
        self.last: dict[int, int] = {}
        self.turns = self.moved = self.calls = 0
        for dialogue in range(scene.dialogues):
            self.time.after(self.time.elsewhere(dialogue) / 4, self.ask, dialogue)
        for replica, at in scene.late.items():
            self.time.after(at, self.join, replica)
        for client in range(scene.clients) if sounding_s else ():
            self.time.after(sounding_s * client / scene.clients, self.sound, client, sounding_s)

    def play(self) -> Outcome:
        self.time.play()
        self.time.now = self.scene.counted[1]
        for replica in range(len(self.queues)):
            self.note(replica)
        whole = (self.scene.counted[1] - self.scene.counted[0]) * self.scene.limit
        return Outcome(
            self.time.done,
            self.moved / self.turns,
            self.calls / self.turns,
            [worked / whole for worked in self.worked],
        )

    # -- clients

    def ask(self, dialogue: int) -> None:
        client = dialogue % self.scene.clients
        replica = int(self.routers[client].route(dialogue)[1:])
        self.turns += 1
        self.moved += self.last.get(dialogue, replica) != replica
        self.hold(client, replica, dialogue)
        if not self.gather_s:
            self.flush(client, replica)
        elif (client, replica) not in self.gathering:
            self.gathering.add((client, replica))
            self.time.after(self.gather_s, self.flush, client, replica)

    def hold(self, client: int, replica: int, dialogue: int) -> None:
        self.last[dialogue] = replica
        self.routers[client].take(f"r{replica}", 1)
        self.unsent[client].setdefault(replica, deque()).append(dialogue)

    def flush(self, client: int, replica: int) -> None:
        self.gathering.discard((client, replica))
        router, unsent = self.routers[client], self.unsent[client].get(replica, deque())
        room = router.room(f"r{replica}") if self.bounded else len(unsent)
        batch = [unsent.popleft() for _ in range(min(room, len(unsent)))]
        if batch:
            self.calls += 1
            router.send(f"r{replica}", len(batch))
            self.time.after(self.LAG_S, self.arrive, client, replica, batch)

    def hear(self, client: int, replica: int, load: Load) -> None:
        self.routers[client].tell(f"r{replica}", load)
        if self.bounded:
            self.flush(client, replica)
            self.relieve(client, replica)

    def relieve(self, client: int, replica: int) -> None:
        router = self.routers[client]
        if found := router.relief(f"r{replica}"):
            fullest, places = int(found[0][1:]), found[1]
            unsent = self.unsent[client][fullest]
            for _ in range(min(places, len(unsent))):
                dialogue = unsent.popleft()
                router.take(f"r{fullest}", -1)
                router.move(dialogue, "", f"r{replica}")
                self.moved += 1
                self.hold(client, replica, dialogue)
            self.flush(client, replica)

    def join(self, replica: int) -> None:
        self.present.append(f"r{replica}")
        for client, router in enumerate(self.routers):
            router.set_replicas(self.present)
            if self.bounded:
                self.relieve(client, replica)

    def sound(self, client: int, every_s: float) -> None:
        name = self.routers[client].next_to_sound()
        if name is not None:
            self.calls += 1
            replica = int(name[1:])
            self.time.after(2 * self.LAG_S, self.hear, client, replica, self.load(replica))
        self.time.after(every_s, self.sound, client, every_s)

    # -- replicas

    def load(self, replica: int, client: int = -1) -> Load:
        here = self.here[replica]
        return Load(here.total() - here[client], self.scene.limit)

    def arrive(self, client: int, replica: int, batch: list[int]) -> None:
        self.queues[replica].extend(batch)
        self.here[replica][client] += len(batch)
        self.begin(replica)
        self.time.after(self.LAG_S, self.hear, client, replica, self.load(replica, client))

    def note(self, replica: int) -> None:
        if self.time.counts:
            since = max(self.since[replica], self.scene.counted[0])
            self.worked[replica] += self.running[replica] * (self.time.now - since)
        self.since[replica] = self.time.now

    def begin(self, replica: int) -> None:
        self.note(replica)
        while self.queues[replica] and self.running[replica] < self.scene.limit:
            dialogue = self.queues[replica].popleft()
            self.running[replica] += 1
            seconds = self.time.takes(dialogue) / self.scene.speeds[replica]
            self.time.after(seconds, self.end, dialogue, replica)

    def end(self, dialogue: int, replica: int) -> None:
        self.note(replica)
        client = dialogue % self.scene.clients
        self.running[replica] -= 1
        self.here[replica][client] -= 1
        self.time.done += self.time.counts
        self.begin(replica)
        answers = self.answers.setdefault((client, replica), [])
        if not answers:
            self.time.after(self.gather_s, self.tell, client, replica)
        answers.append(dialogue)

    def tell(self, client: int, replica: int) -> None:
        self.calls += 1
        answers = self.answers.pop((client, replica))
        self.time.after(
            self.LAG_S, self.answered, client, replica, answers, self.load(replica, client)
        )

    def answered(self, client: int, replica: int, dialogues: list[int], load: Load) -> None:
        self.routers[client].send(f"r{replica}", -len(dialogues))
        self.routers[client].take(f"r{replica}", -len(dialogues))
        for dialogue in dialogues:
            self.time.after(self.time.elsewhere(dialogue), self.ask, dialogue)
        self.hear(client, replica, load)
