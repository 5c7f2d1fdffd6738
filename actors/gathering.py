"""What is asked of an actor within a moment goes together: most of it costs less than its call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class Gathering(Generic[Item]):
    """What one process asks of one actor.

    Args:
        send: takes what was asked for, in its order; returns the outcome of each: its answer, or
            its error. What it raises is the error of all.
        wait_s: how long the first may wait for others.
    """

    def __init__(
        self, send: Callable[[list[Item]], Awaitable[Sequence[Any]]], wait_s: float
    ) -> None:
        self._send, self._wait_s = send, wait_s
        self._waiting: list[tuple[Item, asyncio.Future[Any]]] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def ask(self, item: Item) -> Any:
        """Return the answer to one; raises its error."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if len(self._waiting) == 1:
            sending = asyncio.create_task(self._send_soon())
            self._sending.add(sending)  # the loop itself would let go of it
            sending.add_done_callback(self._sending.discard)
        return await future

    async def _send_soon(self) -> None:
        await asyncio.sleep(self._wait_s)
        waiting, self._waiting = self._waiting, []
        waiting = [(item, future) for item, future in waiting if not future.done()]
        if not waiting:
            return
        outcomes: Sequence[Any]
        try:
            outcomes = await self._send([item for item, _ in waiting])
        except Exception as error:  # noqa: BLE001 - whoever has asked gets it
            outcomes = [error] * len(waiting)
        for (_, future), outcome in zip(waiting, outcomes, strict=True):
            if future.done():
                continue  # nobody waits any more
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
