"""Percentile bootstrap over dialogues: how far a figure could be off with these many of them.

Turns of one dialogue are alike, so whole dialogues are drawn, with replacement (Efron and
Tibshirani 1993, chapter 13: percentile intervals). A figure is a function of sums over dialogues,
so that a resample is a matrix product and no text is looked at twice. The same seed draws the same
dialogues for every system, which is what makes the differences paired.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

Statistic = Callable[[Floats, Floats], Floats]
"""From sums, shape (resamples, columns), and those of all dialogues, shape (columns,), to figures,
shape (resamples,); NaN where undefined."""

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its interval; the bounds are None where no resample defines the figure."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Resamples:
    """How often each dialogue is in each resample, shape (resamples, dialogues)."""

    counts: Floats

    @classmethod
    def draw(cls, dialogues: int, resamples: int, seed: int) -> Resamples:
        """Draw `resamples` times as many dialogues as there are, with replacement."""
        generator = np.random.default_rng(seed)
        shares = np.full(dialogues, 1 / dialogues) if dialogues else np.zeros(0)
        return cls(generator.multinomial(dialogues, shares, size=resamples).astype(np.float64))

    def interval(self, statistic: Statistic, sums: Floats) -> Interval | None:
        """Return a figure and its interval; None where all dialogues together do not define it.

        Args:
            sums: what the figure is made of, summed in each dialogue, shape (dialogues, columns).
        """
        value, drawn = self._figures(statistic, sums)
        return _interval(value, drawn)

    def difference(self, statistic: Statistic, one: Floats, other: Floats) -> Interval | None:
        """Return how much greater a figure is for `one` than for `other`, dialogues paired."""
        (value, drawn), (against, beside) = (self._figures(statistic, s) for s in (one, other))
        return _interval(value - against, drawn - beside)

    def _figures(self, statistic: Statistic, sums: Floats) -> tuple[float, Floats]:
        whole = sums.sum(axis=0)
        return float(statistic(whole[None], whole)[0]), statistic(self.counts @ sums, whole)


def _interval(value: float, drawn: Floats) -> Interval | None:
    if not np.isfinite(value):
        return None
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return Interval(value, None, None)
    tail = (1 - LEVEL) / 2 * 100
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Interval(value, float(low), float(high))
