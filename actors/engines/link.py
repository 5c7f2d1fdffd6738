"""A client's side of one replica: what waits to be sent there, and what was sent.

Invariants: a request belongs to one link at a time, and waits there or was sent; the router's
counts follow every change of that.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from actors.engines.routing import Router
from specs.engine import Answer, Replica, Request

_entries = itertools.count(1)


@dataclass(slots=True)
class Asked:
    """One request from its asking to its answer.

    Attributes:
        wire: as it was sent last: every try has an id of its own.
        places: that it takes of a replica.
        entry: its place in a link's queue; older ones count no more.
        sent_under, life, lives: the incarnation that it was sent to, the last one that took it, and
            how many have.
        held_s: how long it has waited to be sent, seconds; the last time since `held_at`.
    """

    request: Request
    dialogue: Hashable
    future: asyncio.Future[Answer]
    wire: Request
    order: int
    places: int
    tries: int = 1
    link: Link | None = None
    entry: int = 0
    sent_under: str = ""
    life: str = ""
    lives: int = 0
    held_s: float = 0.0
    held_at: float = 0.0


@dataclass(slots=True, eq=False)
class Link:
    """One replica.

    Attributes:
        leaving: it gets nothing more, and ends when all is answered or moved.
        lost: it has said that it will never work.
    """

    name: str
    replica: Replica
    router: Router
    wake_sender: asyncio.Event = field(default_factory=asyncio.Event)
    wake_poller: asyncio.Event = field(default_factory=asyncio.Event)
    pending: list[tuple[int, int, int, Asked]] = field(default_factory=list)
    outstanding: dict[str, Asked] = field(default_factory=dict)
    aborts: list[str] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    incarnation: str = ""
    acknowledged: int = 0
    failures: int = 0
    down_since: float | None = None
    leaving: bool = False
    lost: bool = False

    @property
    def idle(self) -> bool:
        """Whether nothing is to be sent or awaited."""
        return not (self.pending or self.outstanding or self.aborts)

    def push(self, asked: Asked, now: float) -> None:
        """Let a request be this replica's."""
        asked.link = self
        self.router.take(self.name, asked.places)
        self._wait(asked, now)

    def take(self, most: int, now: float) -> list[Asked]:
        """Return what is sent now, as far as there is room: by priority, then as it was asked."""
        room = self.router.room(self.name)
        batch: list[Asked] = []
        while room > 0 and len(batch) < most and (asked := self._next()) is not None:
            room -= asked.places
            asked.held_s += now - asked.held_at
            asked.sent_under = ""
            self.router.send(self.name, asked.places)
            self.outstanding[asked.wire.id] = asked
            batch.append(asked)
        return batch

    def leave(self, asked: Asked) -> bool:
        """Have nothing more to do with a request; returns whether the replica may still have it."""
        sent = self.unsend(asked) or asked.sent_under == self.incarnation != ""
        self.router.take(self.name, -asked.places)
        asked.link = None
        return sent

    def unsend(self, asked: Asked) -> bool:
        """Note that a request is not at the replica any more; returns whether it was."""
        if self.outstanding.get(asked.wire.id) is not asked:
            return False
        del self.outstanding[asked.wire.id]
        self.router.send(self.name, -asked.places)
        return True

    def requeue(self, sent: Iterable[Asked], now: float) -> None:
        """Send these again, as far as they are still without an answer."""
        for asked in list(sent):
            if self.unsend(asked):
                self._wait(asked, now)

    def give(self, places: float = math.inf) -> list[Asked]:
        """Return the first of what waits here, as much as takes so many places elsewhere."""
        given = []
        while places > 0 and (asked := self._next()) is not None:
            places -= asked.places
            self.leave(asked)
            given.append(asked)
        return given

    def _wait(self, asked: Asked, now: float) -> None:
        asked.entry, asked.held_at = next(_entries), now
        heapq.heappush(self.pending, (asked.request.priority, asked.order, asked.entry, asked))
        self.wake_sender.set()

    def _next(self) -> Asked | None:
        """Take the first of the queue that is still to be sent from here."""
        while self.pending:
            _, _, entry, asked = heapq.heappop(self.pending)
            if asked.link is self and asked.entry == entry and not asked.future.done():
                return asked
        return None
