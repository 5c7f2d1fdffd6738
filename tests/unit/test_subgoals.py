"""Subgoals along the furthest path: branches exclude each other, and so do workflows."""

from __future__ import annotations

import pytest

from specs.loader import open_domain
from specs.subgoals import constants, furthest, possible


@pytest.mark.parametrize(("errand", "most"), [("supper", 4), ("bed", 5), ("work", 7)])
def test_each_workflow_has_its_own(errand: str, most: int) -> None:
    domain = open_domain("tavern")
    assert constants(domain) == {"errand"}
    assert possible(domain, {"errand": errand}) == most
    assert furthest(domain, {"errand": errand}, []) == 0
    assert furthest(domain, {"errand": errand}, domain.subgoals) == most


def test_what_lies_on_no_path_together_counts_once() -> None:
    domain = open_domain("tavern")
    supper = {"errand": "supper"}
    assert furthest(domain, supper, ["ask_bones", "ask_crust"]) == 1
    assert furthest(domain, supper, ["ask_seat", "ask_bones", "ask_crust", "supper_served"]) == 3
    assert furthest(domain, supper, ["ask_nights"]) == 0


def test_what_is_set_on_the_way_decides_nothing() -> None:
    domain = open_domain("recipe")
    assert "step" not in constants(domain)
    assert possible(domain, {}) == len(domain.subgoals)
