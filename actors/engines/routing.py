"""Which replica answers which side of a dialogue, as one client of an engine sees it.

Invariants: a side keeps its replica, whose prefix cache knows it, until that is out of reach, has
left, or holds more than a margin above its share beside the emptiest one; a replica is sent no more
than it can soon begin, so that what waits can still go to another; a client that uses some of many
replicas sounds out the others, so that none stays idle. All counts are places: a request takes one
for each candidate. Nothing here owns a task, a clock or a connection.

Why so (`tests/unit/test_router.py` plays it, against one queue for all replicas): a replica's load
scatters by the square root of what it holds, as its dialogues come and go, and two that share the
work evenly seldom differ by twice that, so that is the margin. What is beyond it is no chance: a
replica came late, or is slow. A smaller margin carries no more turns and moves three times as many,
and each of them computes its prompt anew. Without the bound on what is sent, what was sent to the
first replica waits there while those that come later stand idle (16% of what one queue carries).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from specs.engine import Load
from specs.seeds import digest

MEMBERS = 64
"""Replicas that a client uses, where there are as many, however few its dialogues are."""

SIDES_EACH = 32
"""Sides of dialogues on each of them before a client uses one more."""

AHEAD = 0.5
"""What may wait at a replica, by its limit: it has work while it tells of a free place."""

UNTOLD = 8
"""Places that a replica is sent before it has told its limit."""

LEAST = 2
"""Places that a client may always send: the answers tell how full the replica is."""


def margin(limit: int) -> float:
    """Return the places that a replica may hold above its share before sides leave it."""
    return 2 * math.sqrt(limit)


@dataclass(slots=True, eq=False)
class _Place:
    """One replica.

    Attributes:
        rank: where it stands in the order of this client, which every client draws for itself.
        others: places of other clients' requests, as it told last.
        limit: of its admission, as it told last; 0 before.
        own: places of this client's requests, `sent` of them sent.
        sides: of dialogues that have it.
        used: by this client.
        gone: it gets nothing more, and is forgotten when all is answered.
    """

    name: str
    rank: str
    others: int = 0
    limit: int = 0
    own: int = 0
    sent: int = 0
    sides: int = 0
    used: bool = False
    down: bool = False
    gone: bool = False

    @property
    def closed(self) -> bool:
        return self.down or self.gone


class Router:
    """Sticky least-loaded routing by dialogue and role.

    Args:
        replicas: their names.
        name: of the client: it settles in which order that turns to replicas.
        members: how many it uses at least.
    """

    def __init__(self, replicas: Iterable[str], name: str = "", members: int = MEMBERS) -> None:
        self._name = name
        self._least = members
        self._places: dict[str, _Place] = {}
        self._sides: dict[tuple[Hashable, str], _Place] = {}
        self._roles: set[str] = set()
        self._holding: dict[str, _Place] = {}  # what was not sent yet
        self._members: list[_Place] = []
        self._adopted: list[_Place] = []
        self._order: list[_Place] = []
        self._sounded = 0
        self._grows_at = math.inf
        self._hint, self._hints = _Place("", ""), 0
        self._usual = 1
        self.set_replicas(replicas)

    # -- replicas

    def set_replicas(self, replicas: Iterable[str]) -> None:
        """Use these from now on; those that are missing get nothing more.

        Raises:
            ValueError: when there is none.
        """
        names = dict.fromkeys(replicas)
        if not names:
            raise ValueError("an engine needs a replica")
        for name in names:
            if name not in self._places:
                self._places[name] = _Place(name, digest(self._name, name))
        for place in list(self._places.values()):
            place.gone = place.name not in names
            self._forget(place)
        self._choose_members()

    def down(self, replica: str, is_down: bool = True) -> None:
        """Note that a replica is out of reach, or is back."""
        place = self._places.get(replica)
        if place is not None and place.down != is_down:
            place.down, place.others = is_down, 0
            self._choose_members()

    def is_down(self, replica: str) -> bool:
        """Whether a replica is out of reach."""
        return self._places[replica].down

    @property
    def all_down(self) -> bool:
        """Whether no replica is in reach."""
        return all(place.closed for place in self._places.values())

    @property
    def members(self) -> list[str]:
        """The replicas that this client uses."""
        return [place.name for place in self._members]

    def sides(self, replica: str) -> int:
        """Return how many sides of dialogues have a replica."""
        return self._places[replica].sides

    def next_to_sound(self) -> str | None:
        """Return the next replica to be asked for its load: of those that answer nothing else."""
        for _ in range(len(self._order) if len(self._order) > 1 else 0):
            self._sounded = (self._sounded + 1) % len(self._order)
            place = self._order[self._sounded]
            if not place.own and not place.down:
                return place.name
        return None

    # -- sides

    def route(self, dialogue: Hashable, role: str = "") -> str:
        """Return the replica that answers a side of a dialogue now."""
        key = (dialogue, role)
        place = self._sides.get(key)
        if place is not None and not self._leaves(place):
            return place.name
        best = self._emptiest()
        if place is None:
            self._roles.add(role)
        elif best.down and not place.gone:
            return place.name
        else:
            place.sides -= 1
        best.sides += 1
        self._sides[key] = best
        if len(self._sides) > self._grows_at:
            self._choose_members()
        return best.name

    def move(self, dialogue: Hashable, role: str, replica: str) -> None:
        """Give a side another replica; what has been released meanwhile is left alone."""
        key, place = (dialogue, role), self._places[replica]
        if key in self._sides:
            self._sides[key].sides -= 1
            self._sides[key] = place
            place.sides += 1

    def release(self, dialogue: Hashable) -> None:
        """Forget all sides of a dialogue; unknown ones are ignored."""
        for role in self._roles:
            place = self._sides.pop((dialogue, role), None)
            if place is not None:
                place.sides -= 1

    def _leaves(self, place: _Place) -> bool:
        """Whether its sides should leave a replica."""
        if place.closed:
            return True
        if self._hint is place and len(self._members) == 1:
            return False
        # Every turn comes by here: the emptiest is looked for once for as many turns as there are.
        self._hints -= 1
        if self._hints < 0:
            self._hint, self._hints = self._emptiest(), len(self._members)
        return self._excess(place, self._hint) > margin(self._limit(place))

    # -- load

    def take(self, replica: str, places: int) -> None:
        """Count what is asked of a replica; what is answered or has moved counts negatively."""
        place = self._places[replica]
        place.own += places
        self._note(place)

    def send(self, replica: str, places: int) -> None:
        """Count what was sent to a replica; what is not there any more counts negatively."""
        place = self._places[replica]
        place.sent += places
        self._note(place)

    def tell(self, replica: str, load: Load) -> None:
        """Take what a replica has told of itself."""
        place = self._places.get(replica)
        if place is None:
            return
        place.others, place.limit = load.others, load.limit
        self._usual = load.limit or self._usual
        if not place.used and not place.closed and self._is_emptier(place, self._emptiest()):
            self._adopted.append(place)
            self._choose_members()

    def room(self, replica: str) -> int:
        """Return the places that may be sent to a replica now, beyond those that were."""
        place = self._places[replica]
        if not place.limit:
            return UNTOLD - place.sent
        ahead = math.ceil((1 + AHEAD) * place.limit)
        return max(LEAST, ahead - place.others) - place.sent

    def relief(self, replica: str) -> tuple[str, int] | None:
        """Return from what was not sent to which other replica this one takes how many places.

        None where it has work of its own, or none has so much more that moving it is worth a prompt
        that is computed anew.
        """
        place = self._places.get(replica)
        if place is None or not place.used or place.down:
            return None
        if not self._holding or replica in self._holding:
            return None
        room = self.room(replica)
        fullest = max(self._holding.values(), key=self._level)
        if room <= 0 or not self._is_emptier(place, fullest):
            return None
        one, other = self._limit(fullest), self._limit(place)
        even = (self._load(fullest) * other - self._load(place) * one) // (one + other)
        return fullest.name, max(1, min(room, even))

    def _note(self, place: _Place) -> None:
        if place.own > place.sent:
            self._holding[place.name] = place
        else:
            self._holding.pop(place.name, None)
            self._forget(place)

    def _forget(self, place: _Place) -> None:
        if place.gone and not place.own:
            self._places.pop(place.name, None)

    def _emptiest(self) -> _Place:
        return min(self._members, key=lambda place: (self._level(place), place.sides))

    def _limit(self, place: _Place) -> int:
        return place.limit or self._usual

    def _load(self, place: _Place) -> int:
        return place.others + place.own

    def _level(self, place: _Place) -> float:
        return math.inf if place.down else self._load(place) / self._limit(place)

    def _excess(self, place: _Place, other: _Place) -> float:
        """Return the places that one replica holds above its share beside another."""
        return self._load(place) - self._limit(place) * self._level(other)

    def _is_emptier(self, place: _Place, other: _Place) -> bool:
        return self._excess(other, place) > margin(self._limit(other))

    # -- members

    def _choose_members(self) -> None:
        """Take the first replicas of this client's order, and those that it has found empty."""
        self._order = sorted(
            (place for place in self._places.values() if not place.gone),
            key=lambda place: (place.down, place.rank),
        )
        count = max(self._least, math.ceil(len(self._sides) / SIDES_EACH))
        chosen, rest = self._order[:count], self._order[count:]
        # Of what was adopted only so much: it was empty once, and others have found it, too.
        self._adopted = [place for place in self._adopted if place in rest][-count:]
        self._members = [*chosen, *self._adopted]
        for place in self._places.values():
            place.used = False
        for place in self._members:
            place.used = True
        self._grows_at = SIDES_EACH * count if rest else math.inf
        self._hints = 0
