"""The sink as an actor: `SinkCore` behind async methods, with all writing in a thread.

Invariants: the event loop never waits for a disk; one file is written at a time; `finish` answers
only when its dialogue is durable; a write that fails is tried again under the same name for as long
as an outage may take (`SinkLimits.outage_s`), in which callers wait and `stats` tells; when that
does not help every caller gets the error, for nothing may be lost in silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, TypeVar

from actors.fence import Fenced
from actors.metrics import begin_recording, sink_readings
from actors.options import ACTOR_OPTIONS
from actors.orphans import end_when_orphaned
from actors.outage import Outage, in_words, is_outage
from actors.sink_core import SinkCore
from actors.sink_messages import (
    Begun,
    LoggedTurn,
    Recovered,
    SinkLimits,
    SinkStats,
    Stored,
)
from specs.errors import DuologueError
from specs.parts import Folder
from specs.records import Dialogue

__all__ = [
    "SINK_OPTIONS",
    "Begun",
    "LoggedTurn",
    "Recovered",
    "SinkActor",
    "SinkCore",
    "SinkLimits",
    "SinkStats",
    "Stored",
]

SINK_OPTIONS: dict[str, Any] = {**ACTOR_OPTIONS, "max_restarts": -1, "max_concurrency": 10_000}
"""For `ray.remote(SinkActor).options(...)`: every dialogue may wait in `finish` at once."""

GATHERING = 0.6
"""The share of the log's interval in which turns are gathered; the rest is for their way here and
for the writing, so that what was said is on disk within the interval."""

_BACKLOG = 4  # log files' worth of turns that may wait before `turns` makes its callers wait

_log = logging.getLogger(__name__)

T = TypeVar("T")


def _end_process() -> None:
    os._exit(1)


class SinkActor:
    """One sink. Every method opens it first, so that a restarted actor serves at once."""

    def __init__(
        self,
        folder: Folder,
        number: int,
        sinks: int,
        limits: SinkLimits | None = None,
        start: int = 0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        leave: Callable[[], None] = _end_process,
    ) -> None:
        """Take the round's folder (`RunFolder.round`); nothing is read before `open`.

        Args:
            start: counts the starts of the run (`RunFolder.open`).
            leave: ends the process of a sink whose place was taken.
        """
        end_when_orphaned()
        limits = limits or SinkLimits()
        self._core = SinkCore(folder, number, sinks, limits, uuid.uuid4().hex[:8], start)
        self._limits, self._sleep, self._leave = limits, sleep, leave
        self._start = start
        self._outage, self._clock = Outage(limits.outage_s, clock), clock
        self._oldest: float | None = None  # when the first of what waits for the log came
        self._log_delay_s = 0.0
        self._opening, self._writing = asyncio.Lock(), asyncio.Lock()
        self._changed = asyncio.Condition()
        self._wake = asyncio.Event()
        self._first: Recovered | None = None
        self._writer: asyncio.Task[None] | None = None
        self._recording: asyncio.Task[None] | None = None
        self._failed: DuologueError | None = None
        self._closed = False
        self._closing: asyncio.Task[None] | None = None

    async def open(self) -> Recovered:
        """Read back what is on disk; later calls tell what is known by then.

        Raises:
            DuologueError: at once when the place cannot be used: at a run's start somebody is there
                to mend it.
        """
        return await self._open(asyncio.to_thread)

    async def _open(self, call: Callable[..., Awaitable[Recovered]]) -> Recovered:
        async with self._opening:
            if self._first is None:
                self._first = await call(self._core.open)
                self._writer = asyncio.create_task(self._write_on())
                self._recording = begin_recording(self.stats, sink_readings)
                return self._first
        return self._core.recovered(self._first.warnings)

    async def begin(self, index: int, walk_id: str, epoch: int) -> Begun:
        """Start or take over a dialogue: says whether to play it, and from which turns on."""
        await self._ready()
        begun = self._core.begin(index, walk_id, epoch)
        if begun.status == "stored" and not self._core.has(index):
            await self._flushed()
        return begun

    async def turns(self, turns: Sequence[LoggedTurn]) -> tuple[int, ...]:
        """Buffer turns for the log; returns the indices refused (stored, or an older epoch)."""
        await self._ready()
        refused = self._core.turns(turns)
        self._came()
        if self._core.log_size >= self._limits.log_bytes:
            self._wake.set()
        await self._until(lambda: self._core.log_size < _BACKLOG * self._limits.log_bytes)
        return refused

    async def finish(self, dialogue: Dialogue, epoch: int, told: int = 0) -> Stored:
        """Store a finished dialogue; answers `stored` or `duplicate` when it is durable.

        Args:
            told: see `SinkCore.finish`.
        """
        await self._ready()
        stored = self._core.finish(dialogue, epoch, told)
        self._came()
        if self._core.log_size >= self._limits.log_bytes:
            self._wake.set()
        if stored not in ("stale", "incomplete") and not self._core.has(dialogue.index):
            await self._flushed()
        return stored

    async def flush(self) -> None:
        """Write all turns to the log and all finished dialogues into a part."""
        await self._ready()
        await self._write(cut=True)

    async def stats(self) -> SinkStats:
        """Return what the sink holds now, and what is wrong; answers at once, whatever that is."""
        return replace(
            self._core.stats(),
            log_delay_s=self._log_delay_s,
            outage=self._outage.words,
            outage_s=self._outage.seconds,
            outages=self._outage.count,
        )

    async def close(self) -> None:
        """Flush, and end; safe to call twice. Afterwards every other method is refused.

        Answers when all is written, to whoever asks again meanwhile, too.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._ready()
        self._closed = True
        if self._writer is not None:
            self._wake.set()
            await self._writer
        await self._write(cut=True)
        async with self._writing:
            await self._in_thread(self._core.leave)

    # --- writing --------------------------------------------------------------------------------

    async def _ready(self) -> None:
        if self._first is None:  # a restart, in the middle of a run
            await self._open(self._in_thread)
        self._check()
        if self._closed:
            raise DuologueError("this sink is closed")

    def _came(self) -> None:
        if self._oldest is None and self._core.log_size:
            self._oldest = self._clock()

    async def _flushed(self) -> None:
        ticket = self._core.ticket if self._core.log_size else self._core.ticket - 1
        await self._until(lambda: self._core.flushed >= ticket)

    async def _until(self, holds: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: holds() or self._failed is not None)
        if not holds():
            self._check()

    async def _write_on(self) -> None:
        while not self._closed and self._failed is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), GATHERING * self._limits.log_interval_s)
            self._wake.clear()
            with contextlib.suppress(DuologueError):  # kept in _failed, for the callers
                await self._write(cut=False)

    async def _write(self, cut: bool) -> None:
        async with self._writing:
            oldest, self._oldest = self._oldest, None
            batch = self._core.take_log()
            if batch is not None:
                rows = await self._in_thread(self._core.write_batch, batch)
                self._core.log_written(batch, rows)
                if oldest is not None:
                    self._log_delay_s = self._clock() - oldest
                await self._tell()
            if cut or self._core.part_due:
                await self._cut()

    async def _cut(self) -> None:
        part = self._core.take_part()
        if part is not None:
            await self._in_thread(self._core.write_rows, part)
            await self._in_thread(self._core.delete_logs, self._core.part_written(part))

    async def _in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        """Call in a thread, and again while the store is out of reach; nothing is lost by that."""
        while True:
            self._check()
            seconds = self._outage.trying()
            try:
                answer = await asyncio.wait_for(asyncio.to_thread(call, *arguments), seconds)
            except Exception as error:  # noqa: BLE001  # told to every caller
                await self._pause(error)
            else:
                self._outage.over()
                return answer

    async def _pause(self, error: Exception) -> None:
        """Wait before the next try; raises, for good, when there is to be none."""
        pause = None
        if isinstance(error, TimeoutError) and error.errno is None:
            # The thread may hang for ever, and there must be no second one beside it.
            self._outage.failed("the store does not answer")
        elif is_outage(error):
            pause = self._outage.failed(in_words(error))
        if pause is None:
            self._failed = _as_failure(error, self._outage)
            await self._tell()
            if isinstance(error, Fenced) and error.start <= self._start:
                _log.error("%s", error)
                self._leave()
            self._check()
        else:
            await self._sleep(pause)

    def _check(self) -> None:
        if self._failed is not None:
            raise copy(self._failed)  # one error raised to thousands would hold all their stacks

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _as_failure(error: Exception, outage: Outage) -> DuologueError:
    if is_outage(error):
        return DuologueError(
            f"{outage.words} (for {outage.seconds:.0f} s now)\n    What is durable stays; "
            "the same command goes on once the store can be written again."
        )
    if isinstance(error, DuologueError):
        return error
    return DuologueError(f"the sink cannot write: {type(error).__name__}: {error}")
