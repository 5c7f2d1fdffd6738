"""The walkers' supervision: a walker in every seat until nothing is left to play.

Invariants: a walker that has died, or that answers nothing for `SILENT_S` seconds, is ended, its
leases go back to the ledger, and another one takes its seat under a new name; what dies again and
again before it has played anything ends the run with its error; the driver waits for no walker
longer than a moment.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import ray
from ray.exceptions import RayError, RayTaskError

from actors.options import ACTOR_OPTIONS
from actors.walker import WalkerStats
from actors.walker_actor import WalkerActor, WalkerParts
from cluster.nodes import CpuPlaces
from specs.engine import EngineInfo
from specs.errors import DuologueError, EngineError

START_S = 300.0
"""How long a walker may take to load what it needs."""

SILENT_S = 120.0
"""How long a walker may tell nothing; its leases have run out by then."""

YOUNG_DEATHS = 8
"""How often in a row a seat's walker may die before it has played a turn."""

PAUSES_S = (0.2, 20.0)
"""The first and the longest pause before a seat is taken again."""

WALKER_OPTIONS: dict[str, Any] = {**ACTOR_OPTIONS, "max_concurrency": 100}

Engines = Mapping[str, Mapping[str, Any]]
State = Literal["starting", "playing", "vacant", "over"]


@dataclass(slots=True)
class _Seat:
    """One seat, and who has it."""

    number: int
    state: State = "vacant"
    taken: int = 0
    young_deaths: int = 0
    since: float = 0.0
    heard: float = 0.0
    handle: Any = None
    doing: Any = None
    asked: Any = None
    stats: WalkerStats = field(default_factory=WalkerStats)
    knows: Engines = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"walker-{self.number}.{self.taken}"


class Walkers:
    """All walkers of a run."""

    def __init__(
        self,
        parts: WalkerParts,
        count: int,
        say: Callable[[str], None],
        places: CpuPlaces,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parts = parts
        self._say = say
        self._places = places
        self._clock = clock
        self._past = WalkerStats()
        self._seats = [_Seat(number) for number in range(count)]

    def start(self) -> None:
        """Take every seat, and wait until all have what they need.

        Raises:
            DuologueError: when one cannot start.
        """
        for seat in self._seats:
            self._take(seat)
        while any(seat.state in ("starting", "vacant") for seat in self._seats):
            self.look(0.5)
            self.stats()  # of those that play already, lest they be taken for silent

    @property
    def over(self) -> bool:
        """Whether every walker has found nothing left to play."""
        return all(seat.state == "over" for seat in self._seats)

    def look(self, seconds: float) -> None:
        """Wait for a moment, and deal with what has happened to the walkers.

        Raises:
            DuologueError: when a walker failed by itself, or none stays alive in a seat.
        """
        busy = {seat.doing: seat for seat in self._seats if seat.doing is not None}
        if busy:
            done, _ = ray.wait(
                list(busy), num_returns=len(busy), timeout=seconds, fetch_local=False
            )
            for ref in done:
                self._moved_on(busy[ref], ref)
        else:
            time.sleep(seconds)
        now = self._clock()
        for seat in self._seats:
            if seat.state == "vacant" and now >= seat.since:
                self._take(seat)
            elif seat.state == "starting" and now - seat.since > START_S:
                self._lose(seat, f"it did not start within {START_S:g} s")
            elif seat.state == "playing" and now - seat.heard > SILENT_S:
                self._lose(seat, f"it tells nothing for {SILENT_S:g} s")

    def stats(self) -> list[WalkerStats]:
        """Return the walkers' figures as they told them last, and those of the dead as one more.

        Asks for new ones, without waiting for them.
        """
        for seat in self._seats:
            if seat.state != "playing":
                continue
            if seat.asked is None:
                seat.asked = seat.handle.stats.remote()
                continue
            ready, _ = ray.wait([seat.asked], timeout=0)
            if ready:
                with contextlib.suppress(RayError):
                    seat.stats, seat.heard = ray.get(seat.asked), self._clock()
                seat.asked = seat.handle.stats.remote()
        return [*(seat.stats for seat in self._seats), self._past]

    def names(self) -> Mapping[str, WalkerStats]:
        """Return the figures of those that play, by name."""
        return {seat.name: seat.stats for seat in self._seats if seat.state == "playing"}

    def stop(self, seconds: float) -> None:
        """Let the walkers leave; returns when they have, or after `seconds`."""
        playing = [seat for seat in self._seats if seat.state == "playing"]
        for seat in playing:
            seat.handle.stop.remote()
        refs = [seat.doing for seat in playing]
        if refs:
            ray.wait(refs, num_returns=len(refs), timeout=seconds, fetch_local=False)

    def kill(self) -> None:
        """End all their processes."""
        for seat in self._seats:
            _kill(seat.handle)

    def use(self, engines: Engines, infos: Mapping[str, EngineInfo]) -> None:
        """Let all walkers take their turns to these replicas from now on.

        An engine without any keeps those that it had: they may come back.
        """
        engines = {name: of or self._parts.engines[name] for name, of in engines.items()}
        self._parts = replace(self._parts, engines=engines, infos=dict(infos))
        for seat in self._seats:
            if seat.state == "playing":
                self._tell(seat)

    # -- one seat

    def _tell(self, seat: _Seat) -> None:
        for name, handles in self._parts.engines.items():
            if handles != seat.knows.get(name):
                seat.handle.set_replicas.remote(name, dict(handles))
        seat.knows = self._parts.engines

    def _take(self, seat: _Seat) -> None:
        seat.taken += 1
        make = ray.remote(WalkerActor).options(
            **WALKER_OPTIONS, name=seat.name, scheduling_strategy=self._places.next()
        )
        seat.handle = make.remote(seat.name)
        seat.doing = seat.handle.start.remote(self._parts)
        seat.state, seat.since, seat.asked = "starting", self._clock(), None
        seat.knows = self._parts.engines
        seat.stats = WalkerStats()

    def _moved_on(self, seat: _Seat, ref: Any) -> None:
        try:
            answer = ray.get(ref)
        except RayTaskError as error:
            if isinstance(error.cause, DuologueError):
                raise error.cause from None
            raise DuologueError(f"{seat.name} failed: {error.cause!r}") from error
        except RayError as error:
            self._lose(seat, str(error).strip().splitlines()[0])
            return
        if seat.state == "starting":
            seat.state, seat.doing = "playing", seat.handle.run.remote()
            seat.heard = self._clock()
            self._tell(seat)  # of what has changed while it started
        else:
            seat.state, seat.doing, seat.stats = "over", None, answer

    def _lose(self, seat: _Seat, why: str) -> None:
        """End a walker, give its leases back, and let its seat be taken again after a while."""
        _kill(seat.handle)
        with contextlib.suppress(RayError):
            self._parts.ledger.release.remote(seat.name, True)
        young = seat.state == "starting" or not seat.stats.turns
        seat.young_deaths = seat.young_deaths + 1 if young else 0
        if seat.young_deaths >= YOUNG_DEATHS:
            raise EngineError(f"{seat.name} has died {YOUNG_DEATHS} times in a row: {why}")
        self._past = self._past.plus(seat.stats)
        first, longest = PAUSES_S
        pause = min(longest, first * 2.0**seat.young_deaths)
        self._say(f"{seat.name} has died, and another takes its place: {why}")
        seat.state, seat.doing, seat.since = "vacant", None, self._clock() + pause
        seat.stats = WalkerStats()


def _kill(handle: Any) -> None:
    if handle is not None:
        with contextlib.suppress(RayError, ValueError):
            ray.kill(handle)
