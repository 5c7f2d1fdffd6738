"""Percentile bootstrap over dialogues: how far a figure could be off with these many of them.

Turns of one dialogue are alike, so whole dialogues are drawn, with replacement (Efron and
Tibshirani 1993, chapter 13: percentile intervals). A figure is a function of sums over dialogues,
so that a resample is a matrix product and no text is looked at twice. The same seed draws the same
dialogues for every system, which is what makes the differences paired.

A figure that resampling itself moves, as macro-F1 where a resample lacks intents, has its draws
shifted to have their mean at the figure: left alone, its interval could lie beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

Statistic = Callable[[Floats], Floats]
"""From sums, shape (resamples, columns), to figures, shape (resamples,); NaN where undefined."""

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

    def interval(
        self, statistic: Statistic, sums: Floats, recentred: bool = False
    ) -> Interval | None:
        """Return a figure and its interval; None where all dialogues together do not define it.

        Args:
            sums: what the figure is made of, summed in each dialogue, shape (dialogues, columns).
            recentred: the figure, from 0 to 1, is by its making higher or lower in resamples than
                over all dialogues: they tell how far it spreads, not where it lies.
        """
        value, drawn = self._figures(statistic, sums)
        return _interval(value, drawn, 0.0 if recentred else None)

    def difference(
        self, statistic: Statistic, one: Floats, other: Floats, recentred: bool = False
    ) -> Interval | None:
        """Return how much greater a figure is for `one` than for `other`, dialogues paired."""
        (value, drawn), (against, beside) = (self._figures(statistic, s) for s in (one, other))
        return _interval(value - against, drawn - beside, -1.0 if recentred else None)

    def _figures(self, statistic: Statistic, sums: Floats) -> tuple[float, Floats]:
        whole = sums.sum(axis=0, keepdims=True)
        return float(statistic(whole)[0]), statistic(self.counts @ sums)


def counted(values: Sequence[float]) -> Floats:
    """Return what `counted_mean` is made of: a value and a 1 each, shape (dialogues, 2)."""
    return np.column_stack([values, np.ones(len(values))])


def counted_mean(sums: Floats) -> Floats:
    """Return the mean of what is `counted`: a Statistic."""
    found: Floats = sums[:, 0] / sums[:, 1]
    return found


def _interval(value: float, drawn: Floats, least: float | None) -> Interval | None:
    """Return the interval of draws; recentred on the value, from `least` to 1, where that is given.

    It is their deviations from the value whose mean is taken off: draws that all are the value stay
    it, to the last bit.
    """
    if not np.isfinite(value):
        return None
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return Interval(value, None, None)
    if least is not None:
        drawn = np.clip(drawn - (drawn - value).mean(), least, 1.0)
    tail = (1 - LEVEL) / 2 * 100
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Interval(value, float(low), float(high))
