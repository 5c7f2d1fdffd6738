"""The ledger behind its actor's handle; a call that meets a restart is made again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from actors.gathering import Gathering
from specs.errors import DuologueError, Unavailable
from specs.lease import Blame, Lease

DEADLINE_S = 900.0
"""How long an actor may be away: longer than a store's outage, after which its sink says so."""

CALL_S = 180.0
"""After this a call is made again. Actors that tell nothing are ended sooner (`cluster.watch`), and
that ends their calls; this is for calls that were lost on the way."""

DONE_S = 0.5
"""How long a dialogue that is durable may wait for others until the ledger hears of it."""

PAUSES_S = (0.05, 1.0)
"""The first and the longest pause before a call is made again."""


async def call_again(
    handle: Any,
    method: str,
    *arguments: Any,
    deadline_s: float = DEADLINE_S,
    call_s: float = CALL_S,
) -> Any:
    """Call an idempotent actor method until it answers.

    Raises:
        DuologueError: the method's own error.
        Unavailable: when the actor has not come back within the deadline.
    """
    from ray.exceptions import RayError, RayTaskError

    ends = time.monotonic() + deadline_s
    pause, longest = PAUSES_S
    while True:
        problem: BaseException
        try:
            async with asyncio.timeout(min(call_s, max(ends - time.monotonic(), 0.0))):
                return await getattr(handle, method).remote(*arguments)
        except RayTaskError as error:
            if not isinstance(error.cause, Unavailable):
                if isinstance(error.cause, DuologueError):
                    raise error.cause from None
                raise
            problem = error.cause
        except (RayError, TimeoutError) as error:
            # A call that died with its actor's process or node may or may not have been executed.
            problem = error
        if time.monotonic() + pause > ends:
            raise Unavailable(
                f"an actor does not come back for {method!r}: {str(problem) or 'no answer'}"
            ) from None
        await asyncio.sleep(pause)
        pause = min(2 * pause, longest)


class RayLedger:
    """Implements `actors.walker.LedgerClient`."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._asked = 0
        self._done: Gathering[tuple[int, int]] = Gathering(self._tell_done, DONE_S)

    async def lease(self, walker: str, want: int) -> Sequence[Lease] | None:
        """Return up to `want` leases; None when the walker has to renew what it holds first."""
        self._asked += 1
        leases: list[Lease] | None = await call_again(
            self._handle, "lease", walker, want, self._asked
        )
        return leases

    async def renew(self, walker: str, leases: Sequence[Lease]) -> Sequence[Lease]:
        """Keep these leases from expiring."""
        lost: list[Lease] = await call_again(self._handle, "renew", walker, list(leases))
        return lost

    async def done(self, index: int, epoch: int) -> None:
        """Report a dialogue that is durable."""
        await self._done.ask((index, epoch))

    async def _tell_done(self, done: Sequence[tuple[int, int]]) -> Sequence[bool]:
        known: Sequence[bool] = await call_again(self._handle, "done", list(done))
        return known

    async def failed(self, index: int, epoch: int, reason: str, blame: Blame) -> None:
        """Report a lease that ended without a row."""
        await call_again(self._handle, "failed", index, epoch, reason, blame)

    async def superseded(self, index: int, epoch: int, seen: int) -> None:
        """Report that a sink knows a later epoch of an index."""
        await call_again(self._handle, "superseded", index, epoch, seen)

    async def release(self, walker: str) -> None:
        """Give all leases back, in good order."""
        await call_again(self._handle, "release", walker, False)

    async def complete(self) -> bool:
        """Whether nothing is left to play."""
        progress = await call_again(self._handle, "progress")
        return bool(progress.complete)
