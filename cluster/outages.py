"""What a run says of its parts that are away: when it begins, now and then, when it is over.

Pure, with an injected clock. A part that is away stops nothing by itself: whoever needs it asks
again. What ends the run is that nothing moves for too long, whatever the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

REMIND_S = 60.0
"""From one reminder of the same trouble to the next."""


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
