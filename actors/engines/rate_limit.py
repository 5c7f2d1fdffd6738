"""How many requests a minute go to a server, and how long to wait when it says "later".

Invariant: a moment is taken when it has come, never ahead of time, so that whoever gives up waiting
leaves no hole.
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_log = logging.getLogger(__name__)
MINUTE_S = 60.0
LONGEST_HOLD_S = 600.0
"""A server that asks for more (a day, for ever) is asked again after so long."""


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
        self._warned = False

    def admit(self) -> float:
        """Let one request begin now and return 0, or return the seconds until one may."""
        now = self._clock()
        pause = self._held_until - now
        if self._per_minute is not None and len(self._begun) == self._per_minute:
            pause = max(pause, self._begun[0] + MINUTE_S - now)
        if pause > 0:
            return pause
        if self._per_minute is not None:
            self._begun.append(now)
        return 0.0

    def hold(self, seconds: float) -> None:
        """Let nothing begin for so long, at most `LONGEST_HOLD_S`: the server has asked for it."""
        if seconds > LONGEST_HOLD_S and not self._warned:
            self._warned = True
            asked = f"the server asks to wait {seconds:g} s"
            _log.warning("%s; it is asked again every %g s", asked, LONGEST_HOLD_S)
        self._held_until = max(self._held_until, self._clock() + min(seconds, LONGEST_HOLD_S))


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
    except (TypeError, ValueError, OverflowError):
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())
