"""A dialogue's figures against values computed by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from cluster.rehearsal import rehearse
from specs.engine import REFERENCE
from specs.loader import open_domain
from specs.records import CheckResult, Dialogue
from specs.replay import source_of
from specs.run_file import PolicySection, Subgoals
from tests.unit.kiosk import SEED, kiosk
from trainer.consistency import Inconsistency, follow
from trainer.likeness import SubgoalGauge
from trainer.measures import NAMES, compression_ratio, distinct, measure, ngrams, own_texts


def nothing_embedded(texts: Any) -> Any:
    raise AssertionError(f"words need no model: {texts}")


GAUGE = SubgoalGauge(Subgoals(), nothing_embedded)


@cache
def bought() -> Dialogue:
    """Return the shortest dialogue that ends in a sale, in a person's words."""
    ended = [d for d in rehearse(kiosk(), 30, 0, SEED) if "bye" in d.subgoals_reached]
    shortest = min(ended, key=lambda dialogue: len(dialogue.turns))
    # As though a model had been there for whose words the references stand.
    turns = tuple(replace(turn, model="tiny") for turn in shortest.turns)
    return replace(shortest, turns=turns)


def figures(dialogue: Dialogue, found: tuple[Inconsistency, ...] = ()) -> dict[str, float | None]:
    return measure(follow(dialogue, kiosk(), source_of(dialogue, SEED)), found, GAUGE).columns()


def own(**by_place: Any) -> Dialogue:
    """Return the dialogue with some turns (`t3={...}`) worded by the model, changed so."""
    turns = list(bought().turns)
    for place, values in by_place.items():
        number = int(place[1:])
        turns[number] = replace(turns[number], **{"source": "model", **values})
    return replace(bought(), turns=tuple(turns))


QUALITY = (
    "words_per_turn", "subgoals_said", "subgoals_said_relative", "groundedness",
    "persona_coverage", "distinct_1", "distinct_2", "distinct_3", "compression_ratio",
    "repetition",
)  # fmt: skip


def test_references_bear_no_quality() -> None:
    row = figures(bought())
    assert tuple(row) == NAMES
    assert {name: row[name] for name in QUALITY} == dict.fromkeys(QUALITY)
    assert (row["own_share"], row["reference_share"]) == (0.0, 1.0)
    assert (row["ended"], row["subgoals_reached"], row["subgoals_relative"]) == (1.0, 2, 1.0)
    assert row["turns"] == len(bought().turns)


def test_a_dialogue_without_turns_has_figures() -> None:
    row = figures(replace(bought(), turns=()))
    assert (row["turns"], row["own_share"], row["reference_share"]) == (0, None, None)


def test_figures_are_of_the_own_turns_alone() -> None:
    dialogue = own(
        t1={"text": "one two three", "rejected": ("a", "b"), "completion_tokens": 7},
        t3={"text": "one two four five one", "source": "repair", "prompt_tokens": 5},
    )
    row = figures(dialogue, (Inconsistency("repeats", 0, ""),))
    assert row["words_per_turn"] == 4
    assert row["own_share"] == 2 / len(dialogue.turns)
    assert row["rejected_share"] == 2 / 4
    assert row["distinct_1"] == 5 / 8  # one two three | one two four five one
    assert row["distinct_2"] == 5 / 6
    assert row["distinct_3"] == 4 / 4
    assert row["repetition"] == 0.0
    assert row["inconsistencies"] == 1
    before, changed = figures(bought()), bought().turns
    assert row["prompt_tokens"] == (before["prompt_tokens"] or 0) + 5 - changed[3].prompt_tokens
    spent = (before["completion_tokens"] or 0) - changed[1].completion_tokens
    assert row["completion_tokens"] == spent + 7
    assert own_texts(dialogue.turns) == ["one two three", "one two four five one"]


def test_repetition_counts_runs_of_four_words() -> None:
    twice = "mind the grey sky, mind the grey sky"  # 5 runs of four, the last of them again
    assert figures(own(t1={"text": twice}))["repetition"] == pytest.approx(1 / 5)


def test_groundedness_is_what_the_checks_measured() -> None:
    def grounded(value: float) -> dict[str, Any]:
        return {"checks": (CheckResult("grounded", value, True), CheckResult("asks", None, True))}

    dialogue = own(t0=grounded(0.5), t2=grounded(1.0), t1=grounded(0.0))  # t1 is the user's
    assert figures(dialogue)["groundedness"] == 0.75


def test_subgoals_that_are_said() -> None:
    offer = next(i for i, turn in enumerate(bought().turns) if "shown" in turn.reply)
    last = len(bought().turns) - 1
    said: dict[str, Any] = {f"t{offer}": {}, f"t{last}": {}}
    assert figures(own(**said))["subgoals_said"] == 2
    assert figures(own(**said))["subgoals_said_relative"] == 1.0
    mute: dict[str, Any] = {f"t{offer}": {"text": "Hm, wait."}, f"t{last}": {}}
    assert figures(own(**mute))["subgoals_said_relative"] == 0.5
    assert figures(own(t1={}))["subgoals_said"] is None  # the user's words say no subgoal


def test_the_reference_engine_shows_the_most_that_can_be_found() -> None:
    perfect = tuple(replace(turn, model=REFERENCE) for turn in bought().turns)
    row = figures(replace(bought(), turns=perfect))
    assert (row["subgoals_said"], row["subgoals_said_relative"]) == (2, 1.0)
    assert row["own_share"] == 0.0


@pytest.mark.parametrize("name", ["tavern", "healer"])
def test_a_perfect_agent_says_what_it_reaches_and_no_more(name: str) -> None:
    """Questions are much alike: what the agent asks between subgoals must not be taken for one."""
    domain, short = open_domain(name), 0
    for dialogue in rehearse(domain, 40, 0, SEED, PolicySection(kind="routed", manager="rouge")):
        row = measure(follow(dialogue, domain, source_of(dialogue, SEED)), (), GAUGE).columns()
        assert row["subgoals_said"] == row["subgoals_reached"]
        short += row["subgoals_relative"] != 1.0  # whoever leaves, or refuses, gets no further
    assert short


def test_what_the_user_makes_of_the_persona() -> None:
    dialogue = replace(own(t1={"text": "A baker like me walks."}), persona="A tired baker.")
    assert figures(dialogue)["persona_coverage"] == 0.5
    assert figures(replace(dialogue, persona=""))["persona_coverage"] is None


def test_any_script_has_words_and_runs() -> None:
    row = figures(own(t1={"text": "抹茶ラテをください"}, t3={"text": "мятный чай, пожалуйста"}))
    assert row["words_per_turn"] == (8 + 3) / 2
    assert row["distinct_1"] == 1.0


def test_runs_do_not_cross_texts() -> None:
    assert ngrams([("a", "b"), ("c",)], 2) == [("a", "b")]
    assert distinct([("a",)], 2) is None


def test_repetitive_text_compresses_better() -> None:
    varied = compression_ratio(["mint and jasmine", "a cup of rooibos", "fennel after dinner"])
    same = compression_ratio(["mint and jasmine"] * 3)
    assert varied is not None
    assert same is not None
    assert same > varied
    assert compression_ratio([]) is None
