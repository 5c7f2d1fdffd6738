"""What a replica keeps for one client: the answers that it has not acknowledged yet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from specs.engine import Answer

POLL_LIMIT = 2000
LINGER_S = 0.001
"""An answer waits at least so long for others that finish with it."""

LULL = (0.01, 0.05)


def lull(takes_s: float) -> float:
    """Return the seconds for which requests, and answers, wait for others that travel with them.

    A hundredth of what a request takes, and 50 ms at the most: nobody feels it, and two walkers
    with eight replicas need a third fewer calls (`tests/unit/test_router.py`).

    Args:
        takes_s: seconds of a request.
    """
    share, most = LULL
    return min(most, share * takes_s)


@dataclass(slots=True)
class AnswerLog:
    """One client's answers with their sequence numbers.

    Attributes:
        seen: when it last called.
        owed: places of its requests that have no answer yet.
    """

    seen: float
    owed: int = 0
    entries: deque[tuple[int, Answer]] = field(default_factory=deque)
    waiter: asyncio.Future[None] | None = None

    def add(self, sequence: int, answer: Answer) -> None:
        """Keep an answer, and wake whoever polls."""
        self.entries.append((sequence, answer))
        self.wake()

    def first(self) -> tuple[tuple[int, Answer], ...]:
        """Return what one poll carries."""
        every = tuple(self.entries)
        return every if len(every) <= POLL_LIMIT else every[:POLL_LIMIT]

    def acknowledge(self, sequence: int) -> Iterator[str]:
        """Forget the answers up to a sequence number; yields their ids."""
        while self.entries and self.entries[0][0] <= sequence:
            yield self.entries.popleft()[1].id

    async def wait(self, timeout_s: float, linger_s: float) -> None:
        """Return `linger_s` after there is an answer, when woken, or after a while."""
        self.wake()  # an older poll of the same client: it has gone
        waiter = self.waiter = asyncio.get_running_loop().create_future()
        timer = asyncio.get_running_loop().call_later(timeout_s, _release, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
        if self.entries:
            await asyncio.sleep(linger_s)

    def wake(self) -> None:
        """Let a poll that waits return."""
        if self.waiter is not None:
            _release(self.waiter)


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
