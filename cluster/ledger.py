"""The ledger: who plays which index, under a lease, until every wanted index is durable.

Invariants: an index is leased to one walker at a time, and each lease of it has a higher epoch than
the one before; the lowest owed index goes first; an index that is durable is never owed again; an
index whose lease ended without a row so often that its attempts are used up is given up and said,
never tried for ever. Memory grows with the leases, not with the wanted number (a bit an index).
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from specs.index_set import IndexSet
from specs.lease import Lease


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands: `wanted` = `done` + `leased` + `owed` + `given_up`."""

    wanted: int
    done: int
    leased: int
    owed: int
    given_up: int
    returned: int

    @property
    def complete(self) -> bool:
        """Whether nothing is left to play."""
        return self.done + self.given_up >= self.wanted


@dataclass(slots=True)
class _Held:
    walker: str
    lease: Lease
    expires: float


class LedgerCore:
    """The ledger's decisions; `clock` gives seconds that never go back."""

    def __init__(
        self,
        wanted: int,
        durable: Iterable[int] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
        lease_s: float = 120.0,
        max_attempts: int = 5,
        first_epoch: int = 1,
        attempts: Mapping[int, int] | None = None,
    ) -> None:
        """Owe what is wanted and not durable.

        Args:
            wanted: indices 0 to wanted - 1.
            durable: indices that have their row; those beyond `wanted` are ignored.
            lease_s: how long a lease lasts without being renewed.
            max_attempts: how many leases of an index may end without a row.
            first_epoch: above every epoch that a log of an earlier start may hold.
            attempts: how often an index was played to an end before that is owed again; its
                attempts count on from there, and `max_attempts` counts anew.
        """
        self._before = dict(attempts or {})
        self._wanted, self._clock, self._lease_s = wanted, clock, lease_s
        self._max_attempts, self._epoch = max_attempts, first_epoch
        self._done = IndexSet(index for index in durable if 0 <= index < wanted)
        self._given_up: dict[int, str] = {}
        self._held: dict[int, _Held] = {}
        self._back: list[int] = []
        self._attempts: dict[int, int] = {}
        self._cursor = self._returned = 0
        self._next_expiry = float("inf")

    def lease(self, walker: str, want: int) -> list[Lease]:
        """Lease up to `want` owed indices, the lowest first; fewer when there are no more."""
        self.expire()
        expires, epoch = self._clock() + self._lease_s, self._epoch
        leases: list[Lease] = []
        while len(leases) < want and (index := self._next()) is not None:
            attempt = 1 + self._before.get(index, 0) + self._attempts.get(index, 0)
            lease = Lease(index, epoch, attempt)
            self._hold(walker, lease, expires)
            leases.append(lease)
        self._epoch += bool(leases)
        return leases

    def renew(self, walker: str, leases: Iterable[Lease]) -> list[Lease]:
        """Prolong a walker's leases; takes over those that it holds from before a restart, too.

        Returns:
            Those that are its own no more, because a later lease plays the index or it is settled:
            the walker drops these.
        """
        self.expire()
        expires = self._clock() + self._lease_s
        lost = []
        for lease in leases:
            held = self._held.get(lease.index)
            if self._settled(lease.index) or (held is not None and _later(held, walker, lease)):
                lost.append(lease)
                continue
            self._epoch = max(self._epoch, lease.epoch + 1)
            self._hold(walker, lease, expires)
        return lost

    def done(self, index: int, epoch: int) -> bool:
        """Note that an index is durable; False when that was known, or when it is not wanted.

        What is durable is durable, so an old epoch counts, too; another walker's lease of the
        index then ends, which it learns when it renews.
        """
        del epoch
        if not 0 <= index < self._wanted or not self._done.add(index):
            return False
        self._held.pop(index, None)
        self._attempts.pop(index, None)
        self._given_up.pop(index, None)
        return True

    def failed(self, index: int, epoch: int, reason: str) -> bool:
        """Take back a lease that ended without a row through no fault of the dialogue.

        Returns:
            Whether the lease was held; an old epoch changes nothing.
        """
        held = self._held.get(index)
        if held is None or held.lease.epoch != epoch:
            return False
        self._take_back(index, reason, counted=True)
        return True

    def release(self, walker: str, counted: bool = True, reason: str = "its walker died") -> int:
        """Take back all leases of a walker; `counted=False` when it leaves in good order."""
        mine = [index for index, held in self._held.items() if held.walker == walker]
        for index in mine:
            self._take_back(index, reason, counted)
        return len(mine)

    def expire(self) -> int:
        """Take back the leases that were not renewed in time; returns how many."""
        now = self._clock()
        if now < self._next_expiry:
            return 0
        late = [index for index, held in self._held.items() if held.expires <= now]
        for index in late:
            self._take_back(index, f"no sign of life for {self._lease_s:g} s", counted=True)
        self._next_expiry = min((h.expires for h in self._held.values()), default=float("inf"))
        return len(late)

    def given_up(self) -> dict[int, str]:
        """Return the indices given up, each with the last reason."""
        return dict(sorted(self._given_up.items()))

    def progress(self) -> Progress:
        """Return where the run stands."""
        done, leased, lost = len(self._done), len(self._held), len(self._given_up)
        owed = self._wanted - done - leased - lost
        return Progress(self._wanted, done, leased, owed, lost, self._returned)

    def _hold(self, walker: str, lease: Lease, expires: float) -> None:
        self._held[lease.index] = _Held(walker, lease, expires)
        self._next_expiry = min(self._next_expiry, expires)

    def _settled(self, index: int) -> bool:
        return not 0 <= index < self._wanted or index in self._done or index in self._given_up

    def _next(self) -> int | None:
        while self._back and (self._settled(self._back[0]) or self._back[0] in self._held):
            heapq.heappop(self._back)
        while self._cursor < self._wanted and (
            self._settled(self._cursor) or self._cursor in self._held
        ):
            self._cursor += 1
        if self._back and self._back[0] < self._cursor:
            return heapq.heappop(self._back)
        if self._cursor >= self._wanted:
            return heapq.heappop(self._back) if self._back else None
        self._cursor += 1
        return self._cursor - 1

    def _take_back(self, index: int, reason: str, counted: bool) -> None:
        held = self._held.pop(index)
        self._returned += 1
        attempts = held.lease.attempt - self._before.get(index, 0) - (not counted)
        if attempts >= self._max_attempts:
            self._attempts.pop(index, None)
            self._given_up[index] = reason
            return
        if attempts:
            self._attempts[index] = attempts
        heapq.heappush(self._back, index)


def _later(held: _Held, walker: str, lease: Lease) -> bool:
    """Whether an index is held by another lease than this one, which is no older."""
    epoch = held.lease.epoch
    return epoch > lease.epoch or (epoch == lease.epoch and held.walker != walker)


def spans(indices: Iterable[int]) -> list[tuple[int, int]]:
    """Return indices as runs without gaps, each with its first and its last."""
    runs: list[tuple[int, int]] = []
    for index in sorted(indices):
        if runs and runs[-1][1] + 1 == index:
            runs[-1] = (runs[-1][0], index)
        else:
            runs.append((index, index))
    return runs


class LedgerActor:
    """One ledger as an actor (`ray.remote(LedgerActor)`).

    A restarted ledger knows what was durable at the run's start; what became durable since is
    leased again, refused by its sink, and noted. Its epochs begin at the time of day in
    milliseconds, so that they lie above those that it gave before.
    """

    def __init__(
        self,
        wanted: int,
        durable: Iterable[tuple[int, int]] = (),
        lease_s: float = 120.0,
        max_attempts: int = 5,
        first_epoch: int = 1,
        attempts: Mapping[int, int] | None = None,
    ) -> None:
        """See `LedgerCore`.

        Args:
            durable: as `spans`: a restart needs it, and Ray keeps no large arguments for that.
        """
        self._core = LedgerCore(
            wanted,
            (index for first, last in durable for index in range(first, last + 1)),
            lease_s=lease_s,
            max_attempts=max_attempts,
            first_epoch=max(first_epoch, time.time_ns() // 1_000_000),
            attempts=attempts,
        )

    async def lease(self, walker: str, want: int) -> list[Lease]:
        """See `LedgerCore.lease`. Not idempotent: what an unheard answer leased comes back late."""
        return self._core.lease(walker, want)

    async def renew(self, walker: str, leases: list[Lease]) -> list[Lease]:
        """See `LedgerCore.renew`."""
        return self._core.renew(walker, leases)

    async def done(self, index: int, epoch: int) -> bool:
        """See `LedgerCore.done`."""
        return self._core.done(index, epoch)

    async def failed(self, index: int, epoch: int, reason: str) -> bool:
        """See `LedgerCore.failed`."""
        return self._core.failed(index, epoch, reason)

    async def release(self, walker: str, counted: bool = True) -> int:
        """See `LedgerCore.release`."""
        return self._core.release(walker, counted)

    async def given_up(self) -> dict[int, str]:
        """See `LedgerCore.given_up`."""
        return self._core.given_up()

    async def progress(self) -> Progress:
        """See `LedgerCore.progress`; ends leases that were not renewed."""
        self._core.expire()
        return self._core.progress()
