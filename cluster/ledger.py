"""The ledger: who plays which index, under a lease, until every wanted index is durable.

Invariants: an index is leased to one walker at a time, and each lease of it has a higher epoch than
the one before; the lowest owed index goes first; an index that is durable is never owed again; an
index whose lease ended without a row so often that its attempts are used up is given up and said,
never tried for ever. A ledger that does not know who plays what (it has died and come back) leases
nothing until every walker has told it, or had the time to. Memory grows with the leases, not with
the wanted number (a bit an index).
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from specs.index_set import IndexSet
from specs.lease import Blame, Lease

LEASE_S = 60.0
"""How long a lease lasts without being renewed; walkers renew every few seconds."""


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


@dataclass(frozen=True, slots=True)
class Caps:
    """How often an index is tried.

    Attributes:
        failures: attempts that may fail by the dialogue's own doing; the last one's is its row.
        losses: leases that may end without a word (its walker died, an engine did not answer)
            before the index is given up, so that a dialogue that kills walkers ends some time.
    """

    failures: int = 3
    losses: int = 10


@dataclass(frozen=True, slots=True)
class _Tried:
    failures: int = 0
    losses: int = 0


class LedgerCore:
    """The ledger's decisions; `clock` gives seconds that never go back."""

    def __init__(
        self,
        wanted: int,
        durable: Iterable[int] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
        lease_s: float = LEASE_S,
        caps: Caps | None = None,
        first_epoch: int = 1,
        attempts: Mapping[int, int] | None = None,
        seats: int = 0,
    ) -> None:
        """Owe what is wanted and not durable.

        Args:
            wanted: indices 0 to wanted - 1.
            durable: indices that have their row; those beyond `wanted` are ignored.
            lease_s: how long a lease lasts without being renewed.
            first_epoch: above every epoch that a log of an earlier start may hold.
            attempts: of indices whose failed rows were taken out: their numbers go on from there.
            seats: walkers that may hold leases that this ledger does not know of. They have
                `lease_s` seconds to tell: a lease that nobody renews for so long is over anyway.
        """
        self._wanted, self._clock, self._lease_s = wanted, clock, lease_s
        self._caps, self._epoch = caps or Caps(), first_epoch
        self._done = IndexSet(index for index in durable if 0 <= index < wanted)
        self._given_up: dict[int, str] = {}
        self._held: dict[int, _Held] = {}
        self._back: list[int] = []
        self._before = dict(attempts or {})
        self._tried: dict[int, _Tried] = {}
        self._cursor = self._returned = 0
        self._next_expiry = float("inf")
        self._announced: set[str] = set()
        self._strangers, self._awaited = seats > 0, seats
        self._grace_ends = clock() + lease_s

    def lease(self, walker: str, want: int) -> list[Lease] | None:
        """Lease up to `want` owed indices, the lowest first; fewer when there are no more.

        Returns:
            None when the walker has to say first (`renew`) what it plays.
        """
        if self._strangers and walker not in self._announced:
            return None
        self.expire()
        if self._awaiting():
            return []
        expires, epoch = self._clock() + self._lease_s, self._epoch
        leases: list[Lease] = []
        while len(leases) < want and (index := self._next()) is not None:
            lease = self._new_lease(index, epoch)
            self._hold(walker, lease, expires)
            leases.append(lease)
        self._epoch += bool(leases)
        return leases

    def _new_lease(self, index: int, epoch: int) -> Lease:
        tried = self._tried.get(index, _Tried())
        attempt = self._before.get(index, 0) + tried.failures + tried.losses + 1
        return Lease(index, epoch, attempt, last=tried.failures + 1 >= self._caps.failures)

    def _awaiting(self) -> bool:
        """Whether a walker may still tell of leases that would be given out a second time."""
        if self._awaited:
            seats = {seat_of(walker) for walker in self._announced}
            if len(seats) >= self._awaited or self._clock() >= self._grace_ends:
                self._awaited = 0
        return self._awaited > 0

    def renew(self, walker: str, leases: Iterable[Lease]) -> list[Lease]:
        """Prolong a walker's leases; takes over those that it holds from before a restart, too.

        Returns:
            Those that are its own no more, because a later lease plays the index or it is settled:
            the walker drops these.
        """
        self._announced.add(walker)
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
        self._tried.pop(index, None)
        self._given_up.pop(index, None)
        return True

    def failed(self, index: int, epoch: int, reason: str, blame: Blame = "loss") -> bool:
        """Take back a lease that ended without a row; `nobody`'s doing counts as no attempt.

        Returns:
            Whether the lease was held; an old epoch changes nothing.
        """
        held = self._held.get(index)
        if held is None or held.lease.epoch != epoch:
            return False
        self._take_back(index, reason, blame)
        return True

    def superseded(self, index: int, epoch: int, seen: int) -> bool:
        """Hear that a sink refused a lease because it had seen the later epoch `seen`.

        Where this ledger holds the lease for the latest one it has come back with a clock that was
        set back: its epochs go on above what was seen, and the index is leased again.

        Returns:
            Whether that was so.
        """
        self._epoch = max(self._epoch, seen + 1)
        return self.failed(index, epoch, "its lease was older than its sink", "nobody")

    def release(self, walker: str, lost: bool = True, reason: str = "its walker died") -> int:
        """Take back all leases of a walker; not `lost` when it leaves in good order."""
        self._announced.add(walker)  # nobody waits for what it might have told
        mine = [index for index, held in self._held.items() if held.walker == walker]
        for index in mine:
            self._take_back(index, reason, "loss" if lost else "nobody")
        return len(mine)

    def expire(self) -> int:
        """Take back the leases that were not renewed in time; returns how many."""
        now = self._clock()
        if now < self._next_expiry:
            return 0
        late = [index for index, held in self._held.items() if held.expires <= now]
        for index in late:
            self._take_back(index, f"no sign of life for {self._lease_s:g} s", "loss")
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

    def _take_back(self, index: int, reason: str, blame: Blame) -> None:
        del self._held[index]
        self._returned += 1
        tried = self._tried.get(index, _Tried())
        if blame != "nobody":
            own = blame == "dialogue"
            tried = _Tried(tried.failures + own, tried.losses + (not own))
            self._tried[index] = tried
        if tried.losses >= self._caps.losses or tried.failures >= self._caps.failures:
            del self._tried[index]
            self._given_up[index] = reason
            return
        heapq.heappush(self._back, index)


def _later(held: _Held, walker: str, lease: Lease) -> bool:
    """Whether an index is held by another lease than this one, which is no older."""
    epoch = held.lease.epoch
    return epoch > lease.epoch or (epoch == lease.epoch and held.walker != walker)


def seat_of(walker: str) -> str:
    """Return the seat of a walker: the part of its name that its successor will have, too."""
    return walker.partition(".")[0]
