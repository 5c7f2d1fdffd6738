"""Whose words somebody speaks in, on texts where that is plain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from specs.run_file import Filter
from tests.unit.kiosk import kiosk
from tests.unit.test_measures import figures, own
from trainer.filters import findings
from trainer.measures import NAMES
from trainer.persona import coverage, rank

BAKER, SAILOR, MONK = "A tired baker with flour.", "A loud sailor.", "A monk who sells candles."


def test_the_rank_is_the_share_of_personas_left_behind() -> None:
    said = ["The baker is out of flour.", "Any candles?"]
    assert coverage(BAKER, said) == 2 / 3
    assert rank(BAKER, [BAKER, SAILOR, MONK], said) == 1.0
    assert rank(MONK, [BAKER, SAILOR, MONK], said) == 0.5
    assert rank(SAILOR, [BAKER, SAILOR, MONK], said) == 0.0


def test_who_says_nothing_telling_is_told_apart_by_chance() -> None:
    assert rank(BAKER, [BAKER, SAILOR, MONK], ["Hello there."]) == 0.5
    assert rank(BAKER, [BAKER, SAILOR], []) is None
    assert rank(BAKER, [BAKER], ["flour"]) is None
    assert rank("", [SAILOR], ["flour"]) is None


def test_the_column_is_of_the_users_own_words() -> None:
    persona, other = kiosk().personas[0].text, kiosk().personas[1].text
    spoken = replace(own(t1={"text": persona}), persona=persona)
    assert figures(spoken)["persona_rank"] == 1.0
    assert figures(replace(spoken, persona=other))["persona_rank"] != 1.0
    assert figures(replace(own(t0={"text": persona}), persona=persona))["persona_rank"] is None


@pytest.mark.parametrize("kind", ["threshold", "top"])
def test_no_filter_may_use_it(kind: str) -> None:
    bounds = {"threshold": {"min": 0.5}, "top": {"share": 0.5}}[kind]
    rule = Filter.model_validate({"kind": kind, "measure": "persona_rank", **bounds})
    (found,) = findings([rule], NAMES, judged=False)
    assert "does not tell a persona's own utterances from another's" in found.message
    near = Filter(kind="threshold", measure="persona_ranks", min=0.5)
    (found,) = findings([near], NAMES, judged=False)
    assert "persona_rank'" not in found.message
