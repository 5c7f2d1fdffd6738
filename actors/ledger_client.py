"""The ledger behind its actor's handle; a call that meets a restart is made again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from specs.errors import DuologueError, Unavailable
from specs.lease import Lease

DEADLINE_S = 120.0


async def call_again(
    handle: Any, method: str, *arguments: Any, deadline_s: float = DEADLINE_S
) -> Any:
    """Call an idempotent actor method until it answers.

    Raises:
        DuologueError: the method's own error.
        Unavailable: when the actor has not come back within the deadline.
    """
    from ray.exceptions import RayActorError, RayTaskError

    ends = time.monotonic() + deadline_s
    pause = 0.1
    while True:
        try:
            return await getattr(handle, method).remote(*arguments)
        except RayTaskError as error:
            if isinstance(error.cause, DuologueError):
                raise error.cause from None
            raise
        except RayActorError as error:
            if time.monotonic() + pause > ends:
                raise Unavailable(f"an actor does not come back for {method!r}: {error}") from None
        await asyncio.sleep(pause)
        pause = min(2 * pause, 5.0)


class RayLedger:
    """Implements `actors.walker.LedgerClient`."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def lease(self, walker: str, want: int) -> Sequence[Lease]:
        """Return up to `want` leases."""
        leases: list[Lease] = await call_again(self._handle, "lease", walker, want)
        return leases

    async def renew(self, walker: str, leases: Sequence[Lease]) -> Sequence[Lease]:
        """Keep these leases from expiring."""
        lost: list[Lease] = await call_again(self._handle, "renew", walker, list(leases))
        return lost

    async def done(self, index: int, epoch: int) -> None:
        """Report a dialogue that is durable."""
        await call_again(self._handle, "done", index, epoch)

    async def failed(self, index: int, epoch: int, reason: str) -> None:
        """Report a lease that could not be played."""
        await call_again(self._handle, "failed", index, epoch, reason)

    async def release(self, walker: str) -> None:
        """Give all leases back, in good order."""
        await call_again(self._handle, "release", walker, False)

    async def complete(self) -> bool:
        """Whether nothing is left to play."""
        progress = await call_again(self._handle, "progress")
        return bool(progress.complete)
