"""How many candidates an engine works on at once: as many as its KV cache holds.

Additive increase, multiplicative decrease, as TCP finds what a line carries. An engine that is
given more than its cache holds throws sequences out and computes their prompts anew (preemptions),
or lets them wait inside, in its own order, while their time runs.

Invariants: the limit stays within its bounds; it falls once a window at most, and not while more is
at work than it allows already; it rises only after as many requests as ran have ended, so that what
the last rise did has shown, and only while it is used up and the cache has room. An engine that
tells nothing of a cache keeps the most. The clock is given with every observation.
"""

from __future__ import annotations

from dataclasses import dataclass

from specs.engine import EngineStats

WINDOW_S = 1.0
"""How long an engine is looked at before the limit may fall: many steps, a part of a turn."""

LONGEST_S = 30.0
"""After which it may rise, however few requests have ended."""

FULL = 0.9
"""Share of a KV cache from which on the limit does not rise, and what waits inside waits for the
cache. What waits while there is room waits for its prompt, and a lower limit would not help."""

DECREASE = 0.9
"""What is left of what has run: decoding gains little by the last tenth of a batch, a preemption
costs a whole prompt."""

STEPS = 32
"""Increases from nothing to the most."""

USED = 0.8
"""Share of the limit that has to be at work before it rises."""


@dataclass(slots=True)
class _Window:
    """What was seen since the limit was last looked at.

    Attributes:
        first: what the engine told at its begin.
        running, inside, kv_cache_use: at most; `inside` counts what runs and what waits.
        waited: at least.
    """

    begun: float
    first: EngineStats
    waited: int
    running: int = 0
    inside: int = 0
    kv_cache_use: float = 0.0

    def add(self, stats: EngineStats) -> None:
        self.running = max(self.running, stats.running)
        self.inside = max(self.inside, _inside(stats))
        self.waited = min(self.waited, stats.waiting)
        self.kv_cache_use = max(self.kv_cache_use, stats.kv_cache_use)


class Admission:
    """The limit of one engine.

    Args:
        most: candidates at once, and what it begins with: an engine is taken to be sized for them
            until it shows that it is not.
        least: below which it never falls.
    """

    def __init__(self, most: int, least: int = 1) -> None:
        self._most = max(1, most)
        self._least = min(max(1, least), self._most)
        self._limit = self._most
        self._window: _Window | None = None

    @property
    def limit(self) -> int:
        """Candidates that may be at work now."""
        return self._limit

    def observe(self, now: float, stats: EngineStats) -> None:
        """Take the engine's load now; what has finished and was preempted counts from its start."""
        window = self._window
        if window is not None:
            window.add(stats)
            if now - window.begun < WINDOW_S or not self._settles(window, now, stats):
                return
        self._window = _Window(now, stats, stats.waiting)
        self._window.add(stats)

    def _settles(self, window: _Window, now: float, stats: EngineStats) -> bool:
        """Change the limit by what a window has seen; False while that is too little to go by."""
        limit, full = self._limit, window.kv_cache_use >= FULL
        crowded = _inside(window.first) > limit  # by what was admitted before
        if crowded and _inside(stats) <= limit:
            return True
        preempted = stats.preemptions > window.first.preemptions
        if preempted or (window.waited and full):
            if window.running and not crowded:
                self._limit = max(self._least, int(DECREASE * min(window.running, limit)))
            return True
        ended = stats.finished - window.first.finished
        if ended < window.running and now - window.begun < LONGEST_S:
            return False
        if not full and not window.waited and window.inside >= USED * limit:
            self._limit = min(self._most, limit - (-self._most // STEPS))
        return True


def _inside(stats: EngineStats) -> int:
    return stats.running + stats.waiting
