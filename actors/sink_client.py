"""The sinks behind their actors' handles: turns go in small batches, ends at once.

Invariants: a dialogue's turns reach its sink in order; what a dying sink did not take is sent again
(a sink knows what it has); the end of a dialogue carries all its turns, so a lost batch costs
nothing but the log's freshness. While a sink cannot write, its dialogues wait here, those of other
sinks go on, and no more than `WAITING` turns are held for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from actors.ledger_client import call_again
from actors.sink import Begun, LoggedTurn, Stored
from specs.errors import DuologueError, Superseded
from specs.records import Dialogue, Turn

_log = logging.getLogger(__name__)

INTERVAL_S = 0.25
"""How long a turn may wait here for others, unless `RaySinks` is told otherwise."""

WAITING = 2000
"""Turns on their way to a sink (some 10 KB each) above which those who bring more wait."""


class RaySinks:
    """Implements `actors.walker.SinkClient` over all sinks of a run.

    Args:
        interval_s: how long a turn may wait for others on their way to a sink.
    """

    def __init__(self, handles: Sequence[Any], interval_s: float = INTERVAL_S) -> None:
        self._handles = list(handles)
        self._interval_s = interval_s
        self._waiting: list[list[LoggedTurn]] = [[] for _ in handles]
        self._tasks: list[asyncio.Task[None] | None] = [None for _ in handles]
        self._sending = [asyncio.Lock() for _ in handles]
        self._sent = [asyncio.Event() for _ in handles]

    async def begin(self, index: int, walk_id: str, epoch: int) -> Sequence[Turn] | None:
        """Return the turns that an interrupted dialogue has; None when it is durable already."""
        begun: Begun = await call_again(self._of(index), "begin", index, walk_id, epoch)
        _unless_stale(begun.status, index, begun.epoch)
        return begun.turns if begun.status == "play" else None

    async def turn(self, index: int, walk_id: str, epoch: int, turn: Turn) -> None:
        """Log a turn; returns once it is buffered here, which waits for a sink that lags behind."""
        place = index % len(self._handles)
        while len(self._waiting[place]) >= WAITING:
            self._sent[place].clear()
            await self._sent[place].wait()
        self._waiting[place].append(LoggedTurn(index, walk_id, epoch, turn))
        task = self._tasks[place]
        if task is None or task.done():
            self._tasks[place] = asyncio.create_task(self._soon(place))

    async def finish(self, dialogue: Dialogue, epoch: int) -> None:
        """Keep a dialogue; returns once it is durable.

        Its turns have gone ahead, mostly; a sink that has died meanwhile is given them again.
        """
        sink, told = self._of(dialogue.index), len(dialogue.turns)
        await self._send(dialogue.index % len(self._handles))
        bare = replace(dialogue, turns=())
        stored: Stored = await call_again(sink, "finish", bare, epoch, told)
        if stored == "incomplete":
            stored = await call_again(sink, "finish", dialogue, epoch)
        _unless_stale(stored, dialogue.index)

    async def flush(self) -> None:
        """Send what waits."""
        await asyncio.gather(*(self._send(place) for place in range(len(self._handles))))

    def _of(self, index: int) -> Any:
        return self._handles[index % len(self._handles)]

    async def _soon(self, place: int) -> None:
        await asyncio.sleep(self._interval_s)
        while self._waiting[place]:
            await self._send(place)

    async def _send(self, place: int) -> None:
        async with self._sending[place]:
            turns, self._waiting[place] = self._waiting[place], []
            self._sent[place].set()
            if not turns:
                return
            try:
                await call_again(self._handles[place], "turns", turns)
            except DuologueError as error:
                _log.warning(
                    "%d turns did not reach the log of sink %d: %s", len(turns), place, error
                )


def _unless_stale(status: str, index: int, seen: int = 0) -> None:
    if status == "stale":
        raise Superseded(f"dialogue {index} was leased to another walker", seen)
