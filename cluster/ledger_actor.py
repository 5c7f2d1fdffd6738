"""The ledger as an actor: what is owed is what is wanted and not on disk, whenever it comes up.

Invariants: the constructor only stores (an exception there during a restart would end the actor for
good); nothing that a restart needs lies in this process alone: what is durable is read from parts
and log, who plays what is told by the walkers, and epochs go on above those that the log holds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from actors.options import ACTOR_OPTIONS
from actors.orphans import end_when_orphaned
from actors.outage import in_words, is_outage
from actors.turn_log import ended_in_log
from cluster.ledger import LEASE_S, Caps, LedgerCore, Progress
from specs.errors import DuologueError, Unavailable
from specs.lease import Blame, Lease
from specs.parts import Folder, durable_indices

LEDGER_OPTIONS: dict[str, Any] = {**ACTOR_OPTIONS, "max_restarts": -1, "max_concurrency": 1000}
"""For `ray.remote(LedgerActor).options(...)`."""


class LedgerActor:
    """One ledger of a round's folder; every method opens it first."""

    def __init__(
        self,
        folder: Folder,
        wanted: int,
        seats: int,
        caps: Caps | None = None,
        attempts: Mapping[int, int] | None = None,
        lease_s: float = LEASE_S,
    ) -> None:
        """Take the round's folder, and how many walkers there are; see `LedgerCore`."""
        end_when_orphaned()
        self._folder, self._wanted, self._seats = folder, wanted, seats
        self._caps, self._attempts, self._lease_s = caps, attempts, lease_s
        self._opening = asyncio.Lock()
        self._core: LedgerCore | None = None
        self._answers: dict[str, tuple[int, list[Lease] | None]] = {}

    async def open(self) -> Progress:
        """Begin a run: no walker plays anything yet."""
        return (await self._opened(0)).progress()

    async def lease(self, walker: str, want: int, asked: int) -> list[Lease] | None:
        """See `LedgerCore.lease`.

        Args:
            asked: counts the walker's questions; the same one again gets the same answer, so that
                no lease is lost with an answer that did not arrive.
        """
        core = await self._ready()
        known = self._answers.get(walker)
        if known is not None and asked <= known[0]:
            return known[1]  # of an older question nobody hears any more
        leases = core.lease(walker, want)
        self._answers[walker] = (asked, leases)
        return leases

    async def renew(self, walker: str, leases: list[Lease]) -> list[Lease]:
        """See `LedgerCore.renew`."""
        return (await self._ready()).renew(walker, leases)

    async def done(self, dialogues: Sequence[tuple[int, int]]) -> list[bool]:
        """See `LedgerCore.done`.

        Args:
            dialogues: the index and the epoch of each.
        """
        core = await self._ready()
        return [core.done(index, epoch) for index, epoch in dialogues]

    async def failed(self, index: int, epoch: int, reason: str, blame: Blame) -> bool:
        """See `LedgerCore.failed`."""
        return (await self._ready()).failed(index, epoch, reason, blame)

    async def superseded(self, index: int, epoch: int, seen: int) -> bool:
        """See `LedgerCore.superseded`."""
        return (await self._ready()).superseded(index, epoch, seen)

    async def release(self, walker: str, lost: bool) -> int:
        """See `LedgerCore.release`."""
        self._answers.pop(walker, None)
        return (await self._ready()).release(walker, lost)

    async def given_up(self) -> dict[int, str]:
        """See `LedgerCore.given_up`."""
        return (await self._ready()).given_up()

    async def progress(self) -> Progress:
        """See `LedgerCore.progress`; ends leases that were not renewed."""
        core = await self._ready()
        core.expire()
        return core.progress()

    async def _ready(self) -> LedgerCore:
        return self._core or await self._opened(self._seats)

    async def _opened(self, seats: int) -> LedgerCore:
        async with self._opening:
            if self._core is None:
                self._core = await asyncio.to_thread(self._read, seats)
        return self._core

    def _read(self, seats: int) -> LedgerCore:
        try:
            # In this order: what a sink moves from the log into a part meanwhile is seen twice.
            ended, epoch = ended_in_log(self._folder.child("log"))
            durable = ended | durable_indices(self._folder.child("dialogues"))
        except (DuologueError, OSError) as error:
            if not is_outage(error):
                raise
            raise Unavailable(
                f"the ledger cannot read what is durable: {in_words(error)}"
            ) from error
        # The time of day, too: what was leased and not logged yet had epochs as well.
        first = max(epoch + 1, time.time_ns() // 1_000_000)
        return LedgerCore(
            self._wanted,
            durable,
            lease_s=self._lease_s,
            caps=self._caps,
            first_epoch=first,
            attempts=self._attempts,
            seats=seats,
        )
