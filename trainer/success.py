"""Partial success: how many dialogues reached half of their subgoals, by the walk and in words.

The walk reaches a subgoal by entering its state; the agent says it in words of its own
(`trainer.measures`). Where the agent is told what comes next, the first says how far users let
themselves be led, the second how well the agent speaks; where it is not (`policy.workflow =
"unstructured"`), the second is what the agent knows by itself.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from trainer.bootstrap import LEVEL
from trainer.filters import Table

HALF = 0.5

WAYS: Final[dict[str, str]] = {
    "walked": "subgoals_relative",
    "said": "subgoals_said_relative",
}
"""How subgoals are reached, and the measure that says how many of the best path's were."""


def success(table: Table) -> dict[str, dict[str, Any] | None]:
    """Return, for each way, the share of dialogues that reached half of the best path's subgoals.

    The interval is Wilson's (1927) for a share, at the level of all intervals here; None stands for
    a way that no dialogue could be measured by.
    """
    return {
        way: _share(table.column(name)) if name in table.names else None
        for way, name in WAYS.items()
    }


def _share(column: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any] | None:
    known = column[np.isfinite(column)]
    if not len(known):
        return None
    halfway = int((known >= HALF).sum())
    low, high = wilson(halfway, len(known))
    return {
        "dialogues": len(known),
        "halfway": halfway,
        "share": halfway / len(known),
        "low": low,
        "high": high,
        "mean": float(known.mean()),
    }


def wilson(count: int, of: int) -> tuple[float, float]:
    """Return Wilson's interval of a share, for `of` of at least 1."""
    from scipy.stats import binomtest

    interval = binomtest(count, of).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)
