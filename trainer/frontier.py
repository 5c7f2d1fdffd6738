"""What each filter keeps, and what that does to every measure.

The rows: everything as it was played, each filter by itself, and the run file's list.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from specs.run_file import Filter
from trainer.filters import Duplicates, Mask, Table, decide, label

ALL, LISTED = "no filter", "all filters"


@dataclass(frozen=True, slots=True)
class FrontierRow:
    """One filter, or the list: how many dialogues it keeps, and their mean figures.

    Attributes:
        share: of all dialogues played.
        means: of each measure over the kept dialogues that have it; None where none has.
    """

    name: str
    kept: int
    share: float
    means: Mapping[str, float | None]


def frontier(
    rules: Sequence[Filter], table: Table, kept: Mask, seed: int, duplicates: Duplicates
) -> list[FrontierRow]:
    """Return the table; `kept` is what the whole list keeps."""
    everyone = np.ones(len(table), np.bool_)
    rows = [_row(ALL, table, everyone)]
    for number, rule in enumerate(rules):
        alone = decide(rule, number, table, everyone, seed, duplicates)
        rows.append(_row(label(rule), table, alone.kept))
    rows.append(_row(LISTED, table, kept))
    return rows


def _row(name: str, table: Table, kept: Mask) -> FrontierRow:
    count = int(kept.sum())
    return FrontierRow(name, count, count / len(table) if len(table) else 0.0, means(table, kept))


def means(table: Table, kept: Mask) -> dict[str, float | None]:
    """Return the mean of each measure over these dialogues; None where none has the figure."""
    found: dict[str, float | None] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing is NaN, and a None
        for name in table.names:
            mean = float(np.nanmean(table.column(name)[kept])) if kept.any() else float("nan")
            found[name] = None if np.isnan(mean) else mean
    return found
