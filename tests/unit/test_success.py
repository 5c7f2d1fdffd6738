"""Partial success: shares of dialogues at half of their subgoals, with their intervals."""

from __future__ import annotations

import pytest

from trainer.filters import Facts, Table
from trainer.success import success


def table(*said: float | None) -> Table:
    found = Table(("subgoals_relative", "subgoals_said_relative"))
    for number, value in enumerate(said):
        measures = {"subgoals_relative": 1.0, "subgoals_said_relative": value}
        found.add(f"w{number}", "", (), Facts("ended", (), measures))
    return found


def test_half_of_the_subgoals_is_enough_and_what_was_not_measured_does_not_count() -> None:
    found = success(table(0.5, 0.49, 1.0, 0.0, None))["said"]
    assert found is not None
    assert (found["dialogues"], found["halfway"], found["share"]) == (4, 2, 0.5)
    assert found["mean"] == pytest.approx(0.4975)
    # Wilson's interval for 2 of 4, from its formula with z = 1.96.
    assert (found["low"], found["high"]) == pytest.approx((0.150, 0.850), abs=5e-4)


def test_nothing_measured_is_nothing_said() -> None:
    assert success(table()) == {"walked": None, "said": None}
    found = success(table(None, None))
    assert found["said"] is None
    assert found["walked"] is not None
    assert found["walked"]["share"] == 1
    assert found["walked"]["high"] == 1
