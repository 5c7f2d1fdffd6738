"""An outage of the store: when a write is tried again, and when no more.

Invariants: the pauses double up to a limit, and the last try falls on the end of the time that an
outage may take; a write that succeeds ends the outage. Decides alone: it does no waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from specs.errors import InputError

FIRST_S = 1.0
MOST_S = 30.0
"""The first pause between two tries, and the longest."""

STUCK_S = 20.0
"""After this a write that has neither succeeded nor failed is told as an outage, too."""


class Outage:
    """What is wrong with the store now, if anything; `clock` gives seconds that never go back."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s, self._clock = limit_s, clock
        self._pause = FIRST_S
        self._reason = ""
        self._since: float | None = None
        self._trying: float | None = None
        self.count = 0

    def trying(self) -> float:
        """Note that a try begins; returns the seconds that it may take."""
        self._trying = self._clock()
        return max(MOST_S, self._limit_s - self._lasted(self._trying))

    def failed(self, reason: str) -> float | None:
        """Note that a try failed; returns the pause before the next, or None to give up."""
        now = self._clock()
        if self._since is None:
            self._since = self._trying if self._trying is not None else now
            self.count += 1
        self._trying, self._reason = None, reason
        left = self._limit_s - self._lasted(now)
        if left <= 0:
            return None
        pause = min(self._pause, left)
        self._pause = min(2 * self._pause, MOST_S)
        return pause

    def over(self) -> None:
        """Note that a try succeeded."""
        self._pause, self._reason, self._since, self._trying = FIRST_S, "", None, None

    @property
    def words(self) -> str:
        """What is wrong; empty when all is well."""
        if self._reason or self._trying is None or self._clock() - self._trying < STUCK_S:
            return self._reason
        return "the store does not answer"

    @property
    def seconds(self) -> float:
        """How long that has been so; 0 when all is well."""
        return self._lasted(self._clock()) if self.words else 0.0

    def _lasted(self, now: float) -> float:
        began = self._since if self._since is not None else self._trying
        return 0.0 if began is None else now - began


def is_outage(error: Exception) -> bool:
    """Whether an error is the store's, which may pass, and not a mistake in what was written."""
    return isinstance(error, OSError) or isinstance(error.__cause__, OSError)


def in_words(error: Exception) -> str:
    """Return an error in one line, without what to do about it."""
    if isinstance(error, InputError):
        finding = error.findings[0]
        return f"{finding.where}: {finding.message}"
    return str(error).partition("\n")[0] or type(error).__name__
