"""How long a dialogue may be played: what it waits in engines' queues is not its doing.

Invariant: the clock of a dialogue stands still while an engine is asked, and then goes on by what
that took without the queue; so a dialogue that hangs anywhere else ends at its deadline, and one
that an engine holds up ends at the turn's own (`EngineSection.turn_deadline_s`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from actors.seat import Client
from specs.engine import Answer, Request
from specs.errors import Unavailable


class PlayingTime:
    """The clocks of a walker's dialogues.

    Args:
        limit_s: of one dialogue.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._timers: dict[str, asyncio.Timeout] = {}

    @contextlib.asynccontextmanager
    async def of(self, walk_id: str) -> AsyncIterator[None]:
        """Play a dialogue within.

        Raises:
            Unavailable: when its time is over; it is given back, as what took too long.
        """
        try:
            async with asyncio.timeout(self._limit_s) as timer:
                self._timers[walk_id] = timer
                yield
        except TimeoutError:
            if not timer.expired():
                raise
            message = f"it was played for {self._limit_s:g} s (run.dialogue_deadline_s)"
            raise Unavailable(message, late=True) from None
        finally:
            self._timers.pop(walk_id, None)

    def timer(self, request: Request) -> asyncio.Timeout | None:
        """Return the timer of a request's dialogue, by whose name its id begins."""
        return self._timers.get(request.id.partition(":")[0])


class Timed:
    """An engine's client that stops the clocks of dialogues while it is asked."""

    def __init__(self, client: Client, playing: PlayingTime) -> None:
        self._client = client
        self._playing = playing

    async def ask(self, request: Request, dialogue: str) -> Answer:
        """Return the answer to a request; failures are answers."""
        timer = self._playing.timer(request)
        ends = timer.when() if timer is not None else None
        if timer is None or ends is None:
            return await self._client.ask(request, dialogue)
        if ends <= asyncio.get_running_loop().time():
            await asyncio.sleep(0)  # its time is over: let that be told before another turn
        timer.reschedule(None)
        queued = 0.0
        try:
            answer = await self._client.ask(request, dialogue)
            queued = answer.queue_s
        finally:
            timer.reschedule(ends + queued)
        return answer

    def release(self, dialogue: str) -> None:
        """Forget which replicas the dialogue's roles stick to."""
        self._client.release(dialogue)
