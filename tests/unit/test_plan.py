"""Plans: an index means the same plan, everything is dealt, and draws are stratified."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specs.errors import Where
from specs.expressions import Template
from specs.plan import BLOCK, NOBODY, Plan, PlanSource, make_plan
from specs.seeds import identity
from tests.unit.kiosk import kiosk
from tests.unit.tiny_domain import TEXT, tiny

PARTS = (3, "digest", "walk", "main", 0, 7)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**9), st.lists(st.integers(0, 10**6), max_size=8))
def test_an_index_means_the_same_plan_whatever_else_is_planned(
    index: int, others: list[int]
) -> None:
    source = PlanSource(5)
    plan = make_plan(kiosk(), source, index)
    for other in others:
        make_plan(kiosk(), source, other)
    assert make_plan(kiosk(), source, index) == plan
    with TemporaryDirectory() as folder:  # another process would load the domain anew
        assert make_plan(tiny(Path(folder)), source, index) == plan


@given(st.integers(0, 2**40), st.integers(0, 1000))
def test_documents_and_personas_are_dealt_once_a_pass(seed: int, pass_: int) -> None:
    domain, source = kiosk(), PlanSource(seed)
    size = len(domain.documents)
    plans = [make_plan(domain, source, pass_ * size + i) for i in range(size)]
    assert {plan.document.id for plan in plans if plan.document} == {
        document.id for document in domain.documents
    }
    size = len(domain.personas)
    plans = [make_plan(domain, source, pass_ * size + i) for i in range(size)]
    assert {plan.persona.id for plan in plans} == {persona.id for persona in domain.personas}


def test_passes_are_shuffled() -> None:
    size = len(kiosk().documents)
    orders = {
        tuple(dealt(make_plan(kiosk(), PlanSource(seed), p * size + i)) for i in range(size))
        for seed in range(3)
        for p in range(3)
    }
    assert len(orders) == 9


def dealt(plan: Plan) -> str:
    assert plan.document is not None
    return plan.document.id


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**40), st.integers(0, 50))
def test_a_blocks_draws_match_their_probabilities(seed: int, block: int) -> None:
    domain, source = kiosk(), PlanSource(seed)
    plans = [make_plan(domain, source, block * BLOCK + i) for i in range(BLOCK)]
    # `hurried` may be set by the goal after its draw, so only the other is counted.
    drawn = Counter(plan.memory["plant_page"] for plan in plans)
    for value, p in domain.memory["plant_page"].draw:
        assert abs(drawn[value] / BLOCK - p) <= 1 / BLOCK


def test_draws_of_two_variables_are_independent(tmp_path: Path) -> None:
    free = TEXT.replace(", with: {hurried: true}", "")
    domain = tiny(tmp_path, free)
    both = Counter(
        (plan.memory["plant_page"], plan.memory["hurried"])
        for plan in (make_plan(domain, PlanSource(1), index) for index in range(40 * BLOCK))
    )
    for (page, _), count in both.items():
        assert count / (40 * BLOCK) == pytest.approx((0.25 if page else 0.75) / 2, abs=0.03)
    assert len(both) == 4


def test_goals_set_memory_and_lists_are_not_shared() -> None:
    plans = [make_plan(kiosk(), PlanSource(0), index) for index in range(40)]
    assert {plan.goal.split()[0] for plan in plans} == {"Buy", "Drink"}
    assert all(plan.memory["hurried"] for plan in plans if plan.goal.startswith("Drink"))
    assert plans[0].memory["cart"] == []
    assert plans[0].memory["cart"] is not plans[1].memory["cart"]


def test_a_domain_without_documents_and_personas() -> None:
    bare = replace(kiosk(), documents=(), personas=(), goals=())
    plan = make_plan(bare, PlanSource(0), 3)
    assert (plan.document, plan.persona, plan.goal) == (None, NOBODY, "")


def test_a_goal_that_its_document_does_not_suit_is_told_in_the_plan() -> None:
    where = Where("domain.yaml", 9)
    goals = tuple(replace(g, text=Template("{{ doc.title + 1 }}", where)) for g in kiosk().goals)
    plan = make_plan(replace(kiosk(), goals=goals), PlanSource(0), 3)
    assert plan.goal == ""
    assert "domain.yaml:9" in plan.error
    assert make_plan(kiosk(), PlanSource(0), 3).error == ""


def test_identity_changes_with_each_of_its_parts() -> None:
    others = [
        (4, *PARTS[1:]),
        (3, "digesu", *PARTS[2:]),
        (*PARTS[:2], "single_prompt", *PARTS[3:]),
        (*PARTS[:3], "mai", *PARTS[4:]),
        (*PARTS[:4], 1, PARTS[5]),
        (*PARTS[:5], 8),
        (3, "digestwalk", "", *PARTS[3:]),  # the same letters, cut elsewhere
    ]
    made = [identity(*parts) for parts in (PARTS, *others)]
    assert len(set(made)) == len(made)
    assert identity(*PARTS) == made[0]
    assert all(len(one) == 64 for one in made)


def test_policies_share_what_is_dealt_and_differ_in_identity() -> None:
    walk, single = (
        make_plan(kiosk(), PlanSource(1, policy), 9) for policy in ("walk", "single_prompt")
    )
    assert walk.document == single.document  # so that a baseline can be compared with
    assert walk.persona == single.persona
    assert walk.walk_id != single.walk_id
    assert 0 <= walk.seed < 2**62
