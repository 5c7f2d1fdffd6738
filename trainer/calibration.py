"""From which likeness on does a reference name what was said? Found on labelled turns.

A turn is taken for the label of the reference that it is most like, if it is at least as like as
the threshold; else for none, and so is what is more like a text that stands for no label. Precision
is of the labels given, recall of those there were. The threshold, and with it the measure, is
chosen on one half of the dialogues, and what it is worth is said of the other half alone: no
dialogue is in both. Labels whose references are equally like are one: replies that two labels share
tell nobody apart.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.bootstrap import Floats, Interval, Resamples
from trainer.labelled import Labelled
from trainer.likeness import EQUAL, Alike

TRIED: tuple[float, ...] = tuple(step / 100 for step in range(1, 100))

_BLOCK = 256

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Likeness:
    """How like each turn is to the references, shape (turns,) each.

    Attributes:
        best: to the nearest reference of any label; -1 where one that stands for none is nearer.
        own: to the nearest of its own label; -1 where it has none.
    """

    best: Floats
    own: Floats

    def counts(self, threshold: float) -> Floats:
        """Return of each turn: right, given a label, has a label; shape (turns, 3)."""
        given = self.best >= threshold
        right = given & (self.own >= self.best - EQUAL)
        return np.stack([right, given, self.own >= 0], axis=1).astype(np.float64)


def likeness(turns: Sequence[Labelled], alike: Alike) -> Likeness:
    """Return how like the turns are to their references."""
    best, own = np.zeros(len(turns)), np.full(len(turns), -1.0)
    for place, turn in enumerate(turns):
        if place % _BLOCK == 0:
            alike.expect([text for one in turns[place : place + _BLOCK] for text in _texts(one)])
        labels = [label for label, texts in turn.references.items() for _ in texts]
        scores = alike(turn.text, _texts(turn)[1:])
        best[place] = max(scores[: len(labels)], default=0.0)
        if max(scores[len(labels) :], default=0.0) > best[place] + EQUAL:
            best[place] = -1.0
        if turn.label is not None:
            pairs = zip(labels, scores, strict=False)
            own[place] = max(score for label, score in pairs if label == turn.label)
    return Likeness(best, own)


def _texts(turn: Labelled) -> list[str]:
    references = (text for texts in turn.references.values() for text in texts)
    return [turn.text, *references, *turn.others]


# -- how good a threshold is


@dataclass(frozen=True, slots=True)
class Worth:
    """Precision, recall and F1 of a threshold, with intervals over dialogues."""

    threshold: float
    precision: Interval | None
    recall: Interval | None
    f1: Interval | None


def precision(sums: Floats) -> Floats:
    """Return the share of the labels given that are right."""
    return _ratio(sums[:, 0], sums[:, 1])


def recall(sums: Floats) -> Floats:
    """Return the share of the labels there were that were found."""
    return _ratio(sums[:, 0], sums[:, 2])


def f1(sums: Floats) -> Floats:
    """Return the harmonic mean of the two."""
    return _ratio(2 * sums[:, 0], sums[:, 1] + sums[:, 2])


def _ratio(part: Floats, whole: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / whole, np.nan)


class Calibration:
    """Labelled turns in two halves, and what thresholds are worth on each."""

    def __init__(self, turns: Sequence[Labelled], seed: int, resamples: int) -> None:
        self.turns = turns
        self.edited: Mask = np.array([turn.edited for turn in turns], np.bool_)
        names = sorted({turn.dialogue for turn in turns})
        random.Random(seed).shuffle(names)
        order = {name: place for place, name in enumerate(names)}
        self._dialogue = np.array([order[turn.dialogue] for turn in turns], np.intp)
        self._chosen_on = (len(names) + 1) // 2
        self._resamples = Resamples.draw(len(names) - self._chosen_on, resamples, seed)
        self.choosing: Mask = self._dialogue < self._chosen_on

    @property
    def held_out_dialogues(self) -> int:
        """How many dialogues the figures are over."""
        return int(self._resamples.counts.shape[1])

    def labelled(self) -> tuple[int, int]:
        """Return how many turns have a label in the half that chooses, and in the other."""
        labelled: Mask = np.array([turn.label is not None for turn in self.turns], np.bool_)
        return int((labelled & self.choosing).sum()), int((labelled & ~self.choosing).sum())

    def sweep(self, like: Likeness, among: Mask) -> list[tuple[float, float, float, float]]:
        """Return threshold, precision, recall and F1 on the half that thresholds are chosen on."""
        rows = []
        for threshold in TRIED:
            sums = like.counts(threshold)[among & self.choosing].sum(axis=0, keepdims=True)
            figures = (float(figure(sums)[0]) for figure in (precision, recall, f1))
            rows.append((threshold, *(0.0 if np.isnan(one) else one for one in figures)))
        return [(t, p, r, f) for t, p, r, f in rows]

    def choose(self, like: Likeness, among: Mask) -> tuple[float, float]:
        """Return the threshold with the greatest F1 on its half, the lowest of equals; and its F1.

        Where that is 0, no threshold finds anything, and this one means nothing.
        """
        threshold, *_, best = max(self.sweep(like, among), key=lambda row: (row[3], -row[0]))
        return threshold, best

    def worth(self, like: Likeness, among: Mask, threshold: float) -> Worth:
        """Return what a threshold is worth on the other half."""
        sums = self._sums(like, among, threshold)
        figures = (self._resamples.interval(one, sums) for one in (precision, recall, f1))
        return Worth(threshold, *figures)

    def difference(
        self, among: Mask, one: tuple[Likeness, float], other: tuple[Likeness, float]
    ) -> Interval | None:
        """Return how much greater the F1 of one is, on the other half, dialogues paired."""
        return self._resamples.difference(
            f1, self._sums(one[0], among, one[1]), self._sums(other[0], among, other[1])
        )

    def _sums(self, like: Likeness, among: Mask, threshold: float) -> Floats:
        rows = among & ~self.choosing
        sums = np.zeros((self.held_out_dialogues, 3))
        np.add.at(sums, self._dialogue[rows] - self._chosen_on, like.counts(threshold)[rows])
        return sums


def calibrate(
    turns: Sequence[Labelled],
    measures: Mapping[str, Likeness],
    asked: Sequence[float],
    seed: int,
    resamples: int,
) -> dict[str, Any]:
    """Return everything a calibration found, as JSON data.

    Args:
        measures: how like the turns are to the references, by the measure's name.
        asked: thresholds whose worth is said beside that of each measure's best.

    Every figure but `sweep` and `f1_where_chosen` is of the half that no threshold was chosen on.
    `all` is over all turns, `edited` over those that do not just say a reference again. `best` is
    the measure and threshold with the greatest F1 over all on the half where they were chosen
    (`f1_where_chosen`); `better_by` is by how much on the other half, against each measure at its
    own best and at those asked.
    """
    calibration = Calibration(turns, seed, resamples)
    among = {"all": np.ones(len(turns), np.bool_), "edited": calibration.edited}
    found: dict[str, Any] = {}
    where_chosen: dict[str, float] = {}
    for name, like in measures.items():
        found[name] = {}
        for kind, rows in among.items():
            chosen, best_f1 = calibration.choose(like, rows)
            if kind == "all":
                where_chosen[name] = best_f1
            found[name][kind] = {
                "asked": [asdict(calibration.worth(like, rows, one)) for one in asked],
                "chosen": asdict(calibration.worth(like, rows, chosen)),
                "sweep": calibration.sweep(like, rows),
            }
    best = max(where_chosen, key=lambda name: where_chosen[name])
    threshold = {name: found[name]["all"]["chosen"]["threshold"] for name in measures}
    beside = {}
    for name, like in measures.items():
        for other in dict.fromkeys((threshold[name], *asked)):
            if (name, other) != (best, threshold[best]):
                first, second = (measures[best], threshold[best]), (like, other)
                better = calibration.difference(among["all"], first, second)
                beside[f"{name} at {other:.2f}"] = better and asdict(better)
    return {
        "format": "duologue-calibration",
        "turns": len(turns),
        "labelled": sum(turn.label is not None for turn in turns),
        "edited": int(calibration.edited.sum()),
        "edited_and_labelled": sum(turn.edited and turn.label is not None for turn in turns),
        "dialogues": {
            "chosen_on": len({turn.dialogue for turn in turns}) - calibration.held_out_dialogues,
            "held_out": calibration.held_out_dialogues,
        },
        "seed": seed,
        "best": {
            "measure": best,
            "threshold": threshold[best],
            "f1_where_chosen": where_chosen[best],
        },
        "better_by": beside,
        "measures": found,
    }
