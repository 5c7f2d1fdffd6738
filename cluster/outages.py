"""What a run says of its parts that are away: when it begins, now and then, when it is over.

Pure, with an injected clock. A part that is away stops nothing by itself: whoever needs it asks
again. What ends the run is that nothing moves for too long, whatever the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from specs.engine import EngineStats

REMIND_S = 60.0
"""From one reminder of the same trouble to the next."""

OVERDUE, OVERDUE_SHARE = 5, 0.05
"""Requests whose deadline came first, and their share of all, from which that is worth a line."""


class Outages:
    """Tells from what is wrong now what is worth a line."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}
        self._said: dict[str, float] = {}

    def see(self, wrong: Mapping[str, str]) -> list[str]:
        """Take what is wrong now, by part, in words; returns the lines to be said."""
        now = self._clock()
        lines = []
        for part in [part for part in self._since if part not in wrong]:
            lines.append(f"{part} is back after {now - self._since.pop(part):.0f} s")
            del self._said[part]
        for part, why in wrong.items():
            if part not in self._since:
                self._since[part] = self._said[part] = now
                lines.append(f"{part} is away: {why}; what needs it waits")
            elif now - self._said[part] >= REMIND_S:
                self._said[part] = now
                lines.append(f"{part} has been away for {now - self._since[part]:.0f} s: {why}")
        return lines


class Silences:
    """Tells which parts have been silent for too long, once each time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}

    def too_long(self, silent: Mapping[str, float]) -> list[str]:
        """Take those that are silent now, each with the seconds that it may be."""
        now = self._clock()
        self._since = {part: self._since.get(part, now) for part in silent}
        late = [part for part, may in silent.items() if now - self._since[part] >= may]
        for part in late:
            del self._since[part]
        return late


class Standstill:
    """Measures how long nothing has moved."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: tuple[int, int | None] | None = None
        self._since = clock()

    def lasts(self, turns: int, done: int | None) -> float:
        """Return for how many seconds turns and dialogues have been what they are now.

        Args:
            done: None while nobody answers how many are done, which moves nothing by itself.
        """
        now = self._clock()
        if done is None and self._last is not None:
            done = self._last[1]
        if (turns, done) != self._last:
            self._last, self._since = (turns, done), now
        return now - self._since


class Deadlines:
    """Tells once of each engine that it is too slow for its requests' deadline.

    Such an engine is up and busy, and what it writes for them is thrown away: a request is given
    up before it is done, and asked again.
    """

    def __init__(self, seconds: Mapping[str, float]) -> None:
        """Take the deadline of each engine's requests."""
        self._seconds = seconds
        self._told: set[str] = set()

    def missed(self, engines: Mapping[str, Mapping[str, EngineStats]]) -> list[str]:
        """Take what each engine's replicas tell, by their names; returns the lines to be said."""
        lines = []
        for name, replicas in engines.items():
            overdue = sum(one.overdue for one in replicas.values())
            asked = sum(one.finished + one.failed for one in replicas.values())
            if name in self._told or not too_many(overdue, asked):
                continue
            self._told.add(name)
            lines.append(
                f"warning: {name} is slow: {overdue} of {asked} requests were given up after "
                f"{self._seconds[name]:g} s, with all that was written for them, and are asked "
                f"again; {more_time(name)}"
            )
        return lines


def too_many(overdue: int, asked: int) -> bool:
    """Return whether so many requests have passed their deadline that something is to be done."""
    return overdue >= OVERDUE and overdue >= OVERDUE_SHARE * asked


def more_time(engine: str) -> str:
    """Return what to do about an engine that is too slow for its deadline."""
    return (
        f"give them longer (engines.{engine}.turn_deadline_s), or let it write fewer at once "
        f"(engines.{engine}.max_running)"
    )
