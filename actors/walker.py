"""A walker: plays many dialogues at once, and fills up again as soon as one is over.

Invariants: no turn waits for another dialogue's turn; an index is leased before it is played and
reported done only when the sink has it; a failure of the infrastructure gives the lease back, and a
dialogue's own failure is a record, once its attempts are used up. While nothing is said at all,
because an engine, the store or a sink is away, one dialogue at a time tries whether it is back, and
what fails then counts for nobody. When told to stop, a walker admits nothing more, and what it has
in flight stays in the turn log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from actors.cast import Cast
from actors.laps import Lap, Laps, begin_laps
from actors.playing_time import PlayingTime
from actors.policies import CONVERSATIONS
from actors.single_prompt import SinglePrompt
from specs.domain import Side
from specs.errors import DuologueError, EngineError, Superseded, Unavailable
from specs.lease import Blame, Lease
from specs.plan import Plan, make_plan
from specs.records import LUCKLESS, Dialogue, StopReason, Turn

_log = logging.getLogger(__name__)

STORE_S = 30.0
"""How long a walker that stops waits for dialogues that are over to become durable."""

LAG_S = 0.5
"""From one look at how late the event loop is to the next."""

FEW, REFILL_S = 1 / 32, 0.5
"""The share of the places that are too few to ask the ledger for, and how long they wait for more:
there is one ledger, whatever the number of walkers."""

_AT_LEISURE = contextlib.nullcontext()

OUTAGE_PAUSES_S = (0.5, 30.0)
"""The first and the longest pause before it is tried whether what is away has come back."""


class LedgerClient(Protocol):
    """The ledger as a walker sees it."""

    async def lease(self, walker: str, want: int) -> Sequence[Lease] | None:
        """Return up to `want` leases; none when nothing is owed now.

        None for a ledger that has come back and does not know what this walker plays: it renews.
        """

    async def renew(self, walker: str, leases: Sequence[Lease]) -> Sequence[Lease]:
        """Keep these leases from expiring; returns those that are the walker's no more."""

    async def done(self, index: int, epoch: int) -> None:
        """Report a dialogue that is durable."""

    async def failed(self, index: int, epoch: int, reason: str, blame: Blame) -> None:
        """Report a lease that ended without a row; it is owed again, while it has attempts."""

    async def superseded(self, index: int, epoch: int, seen: int) -> None:
        """Report that a sink knows a later epoch of an index."""

    async def release(self, walker: str) -> None:
        """Give all leases back, in good order."""

    async def complete(self) -> bool:
        """Whether nothing is left to play."""


class SinkClient(Protocol):
    """The sinks as a walker sees them."""

    async def begin(self, index: int, walk_id: str, epoch: int) -> Sequence[Turn] | None:
        """Return the turns that an interrupted dialogue has; None when it is durable already.

        Raises:
            Superseded: when a later lease plays it.
        """

    async def turn(self, index: int, walk_id: str, epoch: int, turn: Turn) -> None:
        """Log a turn; returns once it is buffered."""

    async def finish(self, dialogue: Dialogue, epoch: int) -> None:
        """Keep a dialogue; returns once it is durable, or known to be there already.

        Raises:
            Superseded: when a later lease plays it.
        """


def _no_laps() -> dict[Side, Laps]:
    return {"user": Laps(), "agent": Laps()}


@dataclass(slots=True)
class WalkerStats:
    """What a walker has done since its start, and how its event loop keeps up.

    Attributes:
        said: turns by role and by who worded them.
        stops: durable dialogues by why they stopped.
        laps: where the turns' time went, by role.
        tokens: written, by role; those of a manager that is a model under `manager`.
        retries: requests that were made again: for more `candidates`, for a `repair`, and those
            `sent` again to an engine that had failed.
        lag_s: how late the loop was when it was looked at last; `longest_lag_s` at its worst.
        late_s: of all looks together, of which there is one every `LAG_S` seconds.
        played_s: since it began to play; `loop_s` is what the loop's thread has had of a core
            since, `cpu_s` what the whole process has.
        waits_for: what is away, in words, while nothing at all is said; else empty.
    """

    alive: int = 0
    said: Counter[tuple[Side, str]] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    laps: dict[Side, Laps] = field(default_factory=_no_laps)
    retries: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    given_back: int = 0
    lag_s: float = 0.0
    longest_lag_s: float = 0.0
    late_s: float = 0.0
    played_s: float = 0.0
    loop_s: float = 0.0
    cpu_s: float = 0.0
    last_failure: str = ""
    waits_for: str = ""

    @property
    def turns(self) -> int:
        """Turns said."""
        return self.said.total()

    @property
    def reference_turns(self) -> int:
        """Turns in a person's words."""
        return sum(count for (_, source), count in self.said.items() if source == "reference")

    @property
    def completion_tokens(self) -> int:
        """Tokens written."""
        return self.tokens.total()

    @property
    def dialogues(self) -> int:
        """Dialogues that are durable."""
        return self.stops.total()

    @property
    def ended(self) -> int:
        """Of these, how many ended in an end state."""
        return self.stops[StopReason.ENDED.value]

    def copy(self) -> WalkerStats:
        """Return how it stands now, for whoever reads it in another thread than the walker's."""
        return replace(
            self,
            said=self.said.copy(),
            stops=self.stops.copy(),
            laps={side: laps.plus(Laps()) for side, laps in self.laps.items()},
            retries=self.retries.copy(),
            tokens=self.tokens.copy(),
        )

    def plus(self, other: WalkerStats) -> WalkerStats:
        """Return what both have done; what is only so now is left out."""
        return WalkerStats(
            said=self.said + other.said,
            stops=self.stops + other.stops,
            laps={side: laps.plus(other.laps[side]) for side, laps in self.laps.items()},
            retries=self.retries + other.retries,
            tokens=self.tokens + other.tokens,
            given_back=self.given_back + other.given_back,
            longest_lag_s=max(self.longest_lag_s, other.longest_lag_s),
            late_s=self.late_s + other.late_s,
            played_s=self.played_s + other.played_s,
            loop_s=self.loop_s + other.loop_s,
            cpu_s=self.cpu_s + other.cpu_s,
        )


class Walker:
    """Plays leased dialogues until nothing is owed.

    Args:
        alive: dialogues played at once.
        plan: from an index to its plan; `make_plan` of the cast's domain when not given.
        playing: holds dialogues to their time; None where they have no limit.
    """

    def __init__(
        self,
        name: str,
        cast: Cast,
        ledger: LedgerClient,
        sinks: SinkClient,
        alive: int,
        plan: Callable[[int], Plan] | None = None,
        renew_s: float = 10.0,
        playing: PlayingTime | None = None,
    ) -> None:
        self.name = name
        self.stats = WalkerStats()
        self._cast = cast
        self._ledger = ledger
        self._sinks = sinks
        self._alive = alive
        self._plan = plan or (lambda index: make_plan(cast.domain, cast.source, index))
        self._renew_s = renew_s
        self._playing_time = playing
        self._playing: dict[asyncio.Task[None], Lease] = {}
        self._storing: dict[asyncio.Task[None], Lease] = {}
        self._stopping = asyncio.Event()
        self._free = asyncio.Event()
        self._error: BaseException | None = None
        self._moved = True  # a turn was said since the last failure
        self._silent = 0  # failures since the last turn
        self._resume_at = 0.0

    async def run(self) -> WalkerStats:
        """Play until nothing is owed or `stop` is called.

        Raises:
            EngineError: when an engine cannot work at all.
        """
        # If one of them fails, so does the walker: leases that nobody renews run out.
        watch = [self._spawn(work, {}) for work in (self._renew(), self._measure_lag())]
        try:
            while not self._stopping.is_set():
                self._free.clear()  # before asking: a place that falls free meanwhile must count
                if await self._refill() or self._playing or self._storing:
                    await self._wait()
                elif await self._ledger.complete():
                    break
                else:
                    await self._pause(0.2)
        finally:
            await self._end([*watch, *self._playing])
        if self._error is not None:
            raise self._error
        return self.stats

    async def _end(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # What has been played to its end is worth the moment that the sink takes.
        if self._storing:
            await asyncio.wait(list(self._storing), timeout=STORE_S)
        self.stats.alive = 0
        await self._ledger.release(self.name)

    def stop(self) -> None:
        """Admit nothing more and leave what is in flight to the turn log."""
        self._stopping.set()
        self._free.set()

    async def _refill(self) -> int:
        alive = 1 if self.stats.waits_for else self._alive
        room = alive - len(self._playing)
        if room <= 0 or len(self._storing) > 4 * self._alive or self._resting():
            return 0
        leases = await self._ledger.lease(self.name, room)
        if leases is None:
            await self._renew_all()
            return 0
        for lease in leases:
            self._playing[self._spawn(self._play(lease), self._playing)] = lease
        self.stats.alive = len(self._playing)
        return len(leases)

    def _spawn(
        self, work: Coroutine[None, None, None], among: dict[asyncio.Task[None], Lease]
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(lambda done: self._over(done, among))
        return task

    async def _wait(self) -> None:
        """Return when a place is free, or after a while to ask for what came back to the ledger."""
        full = len(self._playing) >= self._alive
        try:
            await asyncio.wait_for(self._free.wait(), None if full else 1.0)
        except TimeoutError:
            return
        if self._alive - len(self._playing) < FEW * self._alive:
            await self._pause(REFILL_S)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    def _over(self, task: asyncio.Task[None], among: dict[asyncio.Task[None], Lease]) -> None:
        among.pop(task, None)
        self._free.set()
        self.stats.alive = len(self._playing)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = self._error or error
            self._stopping.set()

    def _resting(self) -> bool:
        return time.monotonic() < self._resume_at

    async def _play(self, lease: Lease) -> None:
        try:
            dialogue = await self._dialogue(lease)
        except (Unavailable, EngineError) as error:
            await self._give_back(lease, error)
            return
        except Superseded as later:
            await self._ledger.superseded(lease.index, lease.epoch, later.seen)
            return
        if dialogue is None:
            return
        if dialogue.stop_reason in LUCKLESS and not lease.last:
            reason = dialogue.error or dialogue.stop_reason.value
            await self._ledger.failed(lease.index, lease.epoch, reason, "dialogue")
            return
        # Its place is free while the sink makes it durable.
        self._storing[self._spawn(self._store(dialogue, lease), self._storing)] = lease

    async def _give_back(self, lease: Lease, error: DuologueError) -> None:
        if isinstance(error, EngineError) and error.permanent:
            raise error
        self.stats.given_back += 1
        self.stats.last_failure = str(error)
        _log.warning("dialogue %d is given back: %s", lease.index, error)
        blame = self._blame(error)
        await self._ledger.failed(lease.index, lease.epoch, str(error), blame)

    def _blame(self, error: DuologueError) -> Blame:
        """Say whose doing a failure is: nobody's, and waited out, where nothing moved before it."""
        if self._moved or (isinstance(error, Unavailable) and error.late):
            self._moved = False
            return "loss"
        self.stats.waits_for = str(error)
        if not self._resting():  # else it fails along with the one that began the pause
            first, longest = OUTAGE_PAUSES_S
            self._resume_at = time.monotonic() + min(longest, first * 2 ** min(self._silent, 16))
            self._silent += 1
        return "nobody"

    async def _store(self, dialogue: Dialogue, lease: Lease) -> None:
        try:
            await self._sinks.finish(dialogue, lease.epoch)
        except Unavailable as error:
            await self._give_back(lease, error)
            return
        except Superseded as later:
            await self._ledger.superseded(lease.index, lease.epoch, later.seen)
            return
        self.stats.stops[dialogue.stop_reason.value] += 1
        await self._ledger.done(lease.index, lease.epoch)

    async def _dialogue(self, lease: Lease) -> Dialogue | None:
        plan = self._plan(lease.index)
        logged = await self._sinks.begin(lease.index, plan.walk_id, lease.epoch)
        if logged is None:
            await self._ledger.done(lease.index, lease.epoch)
            return None
        playing = self._playing_time
        async with _AT_LEISURE if playing is None else playing.of(plan.walk_id):
            return await self._played(plan, lease, logged)

    async def _played(self, plan: Plan, lease: Lease, logged: Sequence[Turn]) -> Dialogue:
        lap = begin_laps(self.stats.retries)
        if self._cast.source.policy == "single_prompt":
            dialogue = await SinglePrompt(self._cast, plan, lease.attempt).play()
            for turn in dialogue.turns:
                self._count(turn, lap.part(len(dialogue.turns)))
            return dialogue

        async def on_turn(turn: Turn) -> None:
            self._count(turn, lap)
            await self._sinks.turn(lease.index, plan.walk_id, lease.epoch, turn)

        conversation = CONVERSATIONS[self._cast.source.policy]
        return await conversation(self._cast, plan, lease.attempt, logged, on_turn).play()

    def _count(self, turn: Turn, lap: Lap) -> None:
        self._moved = True
        if self._silent:
            self._silent, self._resume_at, self.stats.waits_for = 0, 0.0, ""
            self._free.set()
        stats = self.stats
        stats.said[turn.role, turn.source] += 1
        stats.tokens[turn.role] += turn.completion_tokens
        if turn.routing is not None:
            stats.tokens["manager"] += turn.managed_tokens
        stats.laps[turn.role].add(lap)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._renew_s)
            try:
                await self._renew_all()
            except DuologueError as error:
                _log.warning("leases could not be renewed: %s", error)

    async def _renew_all(self) -> None:
        held = {**self._playing, **self._storing}
        lost = set(await self._ledger.renew(self.name, list(held.values())))
        for task, lease in held.items():
            # What is over may still be the first to be stored.
            if lease in lost and task in self._playing:
                task.cancel()

    async def _measure_lag(self) -> None:
        stats = self.stats
        began, loop, process = time.monotonic(), time.thread_time(), time.process_time()
        while True:
            before = time.monotonic()
            await asyncio.sleep(LAG_S)
            now = time.monotonic()
            stats.lag_s = max(0.0, now - before - LAG_S)
            stats.longest_lag_s = max(stats.longest_lag_s, stats.lag_s)
            stats.late_s += stats.lag_s
            stats.played_s = now - began
            stats.loop_s = time.thread_time() - loop
            stats.cpu_s = time.process_time() - process
