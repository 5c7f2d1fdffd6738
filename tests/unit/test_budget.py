"""When a budget is used up, and what that means for the next start."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.budget import Used, left, played_out, used, used_up, within
from specs.index_set import IndexSet
from specs.run_file import BudgetSection
from tests.unit.usage_samples import engine_of, run_of, session_of


def test_money_counts_over_all_starts_and_time_over_one() -> None:
    engine = engine_of(
        1.0, replicas=2, gpus=3.0, placed_s=600.0, prompt_tokens=70, completion_tokens=30
    )
    before = [session_of({"e": engine}, number=number) for number in (1, 2)]
    now = session_of({"e": engine}, number=3, starting_s=1800.0, playing_s=1700.0, stopping_s=100.0)
    assert used(before, now) == Used(tokens=600, gpu_hours=3.0, hours=1.0)
    assert used(before) == Used(tokens=400, gpu_hours=2.0, hours=0.0)


@pytest.mark.parametrize(
    ("key", "most", "spent", "again"),
    [
        ("tokens", 1000, Used(tokens=1000), "larger one (--set budget.tokens=...)"),
        ("gpu_hours", 1.5, Used(gpu_hours=1.5), "larger one (--set budget.gpu_hours=...)"),
        ("hours", 0.5, Used(hours=0.5), "The same command goes on from there."),
    ],
)
def test_the_first_that_is_used_up_is_named_with_the_way_on(
    key: str, most: float, spent: Used, again: str
) -> None:
    everything = {"tokens": 10**9, "gpu_hours": 1e9, "hours": 1e9}
    budget = BudgetSection.model_validate({**everything, key: most})
    assert used_up(budget, Used()) == ""
    said = used_up(budget, spent)
    assert f"budget.{key} = {most:,} is used up" in said
    assert "What is finished is durable" in said
    assert again in said
    assert used_up(BudgetSection(), Used(10**12, 1e6, 1e6)) == ""


@given(
    st.integers(1, 40),
    st.sets(st.integers(0, 60), max_size=50),
    st.one_of(st.none(), st.integers(1, 40)),
)
def test_as_many_dialogues_are_played_as_the_budget_lets_and_no_more(
    wanted: int, durable: set[int], most: int | None
) -> None:
    run = run_of(budget={"dialogues": most})
    run = run.model_copy(update={"run": run.run.model_copy(update={"dialogues": wanted})})
    capped = within(run, IndexSet(sorted(durable, reverse=True)))
    missing = [index for index in range(wanted) if index not in durable]
    played = [index for index in range(capped.run.dialogues) if index not in durable]
    assert played == missing[:most]  # the lowest go first
    assert (capped is run) == (played == missing)
    assert capped.model_copy(update={"run": run.run}) == run


def test_what_is_still_to_be_played_is_told() -> None:
    said = played_out(run_of(budget={"dialogues": 4}), before=1)
    assert "budget.dialogues = 4 is used up (5 dialogues are still to be played)" in said
    assert "The same command goes on from there." in said


@pytest.mark.parametrize(
    ("budget", "rest"),
    [
        ({}, {}),
        ({"tokens": 5, "gpu_hours": 1.0}, {"tokens": 5, "gpu_hours": 1.0}),  # counted on disk
        ({"dialogues": 10, "hours": 2.0}, {"dialogues": 7, "hours": 1.5}),
        ({"dialogues": 3}, None),
        ({"hours": 0.5}, None),
    ],
)
def test_one_command_does_not_spend_its_budget_twice(
    budget: dict[str, Any], rest: dict[str, Any] | None
) -> None:
    found = left(BudgetSection.model_validate(budget), 3, 0.5)
    assert found == (None if rest is None else BudgetSection.model_validate(rest))
