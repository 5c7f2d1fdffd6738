from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from specs.run_file import Filter
from trainer.filters import Facts, Mask, Table, chain, decide, findings, never_kept
from trainer.frontier import frontier

NAMES = ("worth", "length")


def table(*rows: tuple[float | None, float], **more: Any) -> Table:
    made = Table(NAMES)
    stops, kinds = more.get("stops", {}), more.get("kinds", {})
    intents = more.get("intents", {})
    for number, (worth, length) in enumerate(rows):
        facts = Facts(
            stops.get(number, "ended"), kinds.get(number, ()), {"worth": worth, "length": length}
        )
        made.add(f"walk-{number}", f"d{number}", intents.get(number, ("greet",)), facts)
    return made


def none_alike(rule: Filter, eligible: Mask) -> Mapping[int, str]:
    return {}


def kept(mask: Mask) -> list[int]:
    return [int(row) for row in np.flatnonzero(mask)]


def test_filters_apply_in_their_order_and_say_why() -> None:
    rows = table(
        (0.9, 4), (0.2, 4), (None, 4), (0.8, 4), (0.5, 9),
        stops={3: "turn_limit"}, kinds={0: ["repeats", "repeats", "off_path"]},
    )  # fmt: skip
    rules = [
        Filter(kind="ended"),
        Filter(kind="consistent"),
        Filter(kind="threshold", measure="worth", min=0.4),
        Filter(kind="threshold", measure="length", max=9),
    ]
    decisions, left = chain(rules, rows, 0, none_alike)
    assert kept(left) == [4]
    ended, consistent, worth, length = decisions
    assert ended.reason(3) == "stopped: turn_limit"
    assert consistent.reason(0) == "repeats (2 times), off_path"
    assert [worth.reason(row) for row in (1, 2, 4)] == ["worth is 0.2", "worth has no value", ""]
    assert kept(length.kept) == [0, 1, 2, 3, 4]
    assert all(decision.asked.all() for decision in decisions)


def test_the_best_by_a_measure_of_what_is_left() -> None:
    rows = table((0.1, 1), (0.9, 2), (None, 3), (0.5, 4), (0.7, 5), stops={1: "no_words"})
    decisions, left = chain(
        [Filter(kind="ended"), Filter(kind="top", measure="worth", share=0.5)], rows, 0, none_alike
    )
    assert kept(left) == [3, 4]
    assert kept(decisions[1].asked) == [0, 2, 3, 4]
    assert decisions[1].reason(0) == "not among the top 50% by worth"
    lowest = Filter(kind="top", measure="-worth", share=0.5)
    _, left = chain([lowest], rows, 0, none_alike)
    assert kept(left) == [0, 3, 4]


def test_a_random_share_depends_on_seed_and_identity_alone() -> None:
    rows = table(*[(0.5, 1.0)] * 40)
    rule = Filter(kind="random", share=0.25)
    everyone = np.ones(40, np.bool_)
    first = kept(decide(rule, 0, rows, everyone, 7, none_alike).kept)
    assert len(first) == 10
    assert first == kept(decide(rule, 0, rows, everyone, 7, none_alike).kept)
    assert first != kept(decide(rule, 1, rows, everyone, 7, none_alike).kept)
    assert first != kept(decide(rule, 0, rows, everyone, 8, none_alike).kept)


def test_balance_keeps_what_is_rare() -> None:
    intents: dict[int, tuple[str, ...]] = dict.fromkeys(range(30), ("common",))
    intents |= {30: ("common", "rare"), 31: ("rare",), 32: ("middle",), 33: ("middle",)}
    rows = table(*[(0.5, 1.0)] * 34, intents=intents)
    decision = decide(Filter(kind="balance", most=2), 0, rows, np.ones(34, np.bool_), 0, none_alike)
    left = kept(decision.kept)
    assert set(left) >= {30, 31, 32, 33}
    assert sum("common" in intents[row] for row in left) == 4  # twice the median of 2
    refused = next(row for row in range(30) if row not in left)
    assert decision.reason(refused) == "'common' is in 4 dialogues already"


def test_near_duplicates_are_looked_for_among_those_still_there() -> None:
    asked: list[list[int]] = []

    def alike(rule: Filter, eligible: Mask) -> Mapping[int, str]:
        asked.append(kept(eligible))
        return {3: "like 1"} if eligible[1] else {}

    rows = table((0.9, 1), (0.1, 1), (0.9, 1), (0.9, 1))
    copies = Filter(kind="near_duplicates")
    worth = Filter(kind="threshold", measure="worth", min=0.5)
    decisions, left = chain([copies, worth], rows, 0, alike)
    assert kept(left) == [0, 2]
    assert decisions[0].reason(3) == "like 1"
    _, left = chain([worth, copies], rows, 0, alike)
    assert kept(left) == [0, 2, 3]
    assert asked == [[0, 1, 2, 3], [0, 2, 3]]


def test_what_is_dropped_in_any_case() -> None:
    rules = [Filter(kind="ended"), Filter(kind="top", measure="worth", share=0.1)]
    assert never_kept(rules, Facts("no_edge", [], {}))
    assert not never_kept(rules, Facts("ended", ["repeats"], {"worth": 0.0}))


def test_the_frontier_shows_each_filter_alone_and_the_list() -> None:
    rows = table((0.2, 2), (0.4, 4), (None, 6), stops={0: "no_edge"})
    rules = [Filter(kind="ended"), Filter(kind="threshold", measure="worth", max=0.3)]
    _, left = chain(rules, rows, 0, none_alike)
    found = frontier(rules, rows, left, 0, none_alike)
    assert [(row.name, row.kept) for row in found] == [
        ("no filter", 3), ("ended", 2), ("worth <= 0.3", 1), ("all filters", 0),
    ]  # fmt: skip
    assert found[0].means == {"worth": pytest.approx(0.3), "length": 4.0}
    assert found[1].means == {"worth": pytest.approx(0.4), "length": 5.0}
    assert found[3].means == {"worth": None, "length": None}
    assert found[2].share == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"kind": "threshold", "measure": "wort", "min": 1}, "did you mean 'worth'?"),
        ({"kind": "threshold", "measure": "zzzz", "min": 1}, "there are length, worth"),
        ({"kind": "threshold", "measure": "worth"}, "needs `min`, `max` or both"),
        ({"kind": "threshold", "min": 1}, "needs `measure`"),
        ({"kind": "threshold", "measure": "worth", "min": 2, "max": 1}, "nothing would be kept"),
        ({"kind": "top", "measure": "worth"}, "needs `share`"),
        ({"kind": "top", "measure": "-wort", "share": 0.5}, "there is no measure 'wort'"),
        ({"kind": "random"}, "needs `share`"),
        ({"kind": "balance"}, "needs `most`"),
        ({"kind": "ended", "share": 0.5}, "`share` means nothing"),
        ({"kind": "judge", "min": 3}, "needs `curate.judge`"),
        ({"kind": "judge"}, "needs `min`"),
    ],
)
def test_filters_that_cannot_be_are_refused(rule: dict[str, Any], message: str) -> None:
    found = findings([Filter(kind="ended"), Filter(**rule)], NAMES, judged=False)
    assert any(message in one.message for one in found)
    assert {one.where.file for one in found} == {"curate.filters[1]"}


def test_filters_as_they_should_be_are_not_refused() -> None:
    rules = [
        Filter(kind="ended"),
        Filter(kind="near_duplicates", words=0.8, cosine=0.9),
        Filter(kind="top", measure="-length", share=0.5),
        Filter(kind="judge", min=3, max=5),
    ]
    assert findings(rules, NAMES, judged=True) == []
    resolved = [Filter.model_validate_json(rule.model_dump_json()) for rule in rules]
    assert findings(resolved, NAMES, judged=True) == []


def test_the_published_filters_stand_side_by_side_in_the_frontier() -> None:
    columns = ("subgoals_said", "subgoals_said_relative")
    rows = Table(columns)
    for number, said in enumerate((0, 1, 2, 3)):
        facts = Facts(
            "ended" if said > 1 else "turn_limit",
            (),
            dict(zip(columns, (said, said / 4), strict=True)),
        )
        rows.add(f"walk-{number}", "d", (), facts)
    published = [
        Filter(kind="none"),
        Filter(kind="random", share=0.5),
        Filter(kind="threshold", measure="subgoals_said", min=1),
        Filter(kind="top", measure="subgoals_said_relative", share=0.25),
        Filter(kind="ended"),
    ]
    assert findings(published, columns, judged=False) == []
    _, left = chain(published, rows, 0, none_alike)
    found = frontier(published, rows, left, 0, none_alike)
    assert [(row.name, row.kept) for row in found[1:-1]] == [
        ("none", 4), ("random 50%", 2), ("1 <= subgoals_said", 3),
        ("top 25% by subgoals_said_relative", 1), ("ended", 2),
    ]  # fmt: skip
    assert found[4].means["subgoals_said"] == 3.0
    _, everyone = chain([], rows, 0, none_alike)
    assert everyone.all()
