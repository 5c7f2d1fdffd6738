"""How many requests a minute go to a server, and how long to wait when it says "later"."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MINUTE_S = 60.0


class RateLimit:
    """At most so many requests begin in any sixty seconds; the clock is injected.

    Args:
        per_minute: None for no limit.
    """

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._begun: deque[float] = deque(maxlen=per_minute)
        self._held_until = float("-inf")

    def reserve(self) -> float:
        """Take the next free moment, and return the seconds until then."""
        now = self._clock()
        at = max(now, self._held_until)
        if self._per_minute is not None:
            if self._begun:
                at = max(at, self._begun[-1])  # in the order of asking
            if len(self._begun) == self._per_minute:
                at = max(at, self._begun[0] + MINUTE_S)
            self._begun.append(at)
        return max(0.0, at - now)

    def hold(self, seconds: float) -> None:
        """Let nothing begin for so long: the server has asked for it."""
        self._held_until = max(self._held_until, self._clock() + seconds)


def backoff(
    attempt: int, draw: random.Random, first_s: float = 0.5, longest_s: float = 30.0
) -> float:
    """Return the pause before try number `attempt` + 1: exponential, between half and whole."""
    return min(longest_s, first_s * 2.0**attempt) * draw.uniform(0.5, 1.0)


def retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds that a Retry-After header asks for (a number or a date), or None."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(header)
    except (TypeError, ValueError):
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())
