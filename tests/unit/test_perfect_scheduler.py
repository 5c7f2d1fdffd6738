"""The perfect scheduler against what can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specs.engine_section import ReferenceFaults
from tests.bench.perfect_scheduler import Places, Schedule, Work, schedule, work_of
from tests.unit.durable_samples import make_dialogue, make_turn


def one_engine(turns: Sequence[Sequence[float]], places: Places, alive: int) -> Schedule:
    return schedule([[Work("e", s) for s in said] for said in turns], {"e": places}, alive)


def test_one_place_says_one_turn_after_the_other() -> None:
    played = one_engine([[1, 2], [3]], [(1.0, 1)], alive=2)
    assert played.ends == [1, 3, 6]
    assert played.busy("e") == 1.0


def test_a_dialogue_alone_leaves_the_other_places_empty() -> None:
    played = one_engine([[1, 1], [2]], [(1.0, 4)], alive=1)
    assert played.ends == [1, 2, 4]
    assert played.busy("e") == 0.25


@pytest.mark.parametrize(("places", "alive"), [(3, 3), (3, 12), (8, 8)])
def test_equal_turns_fill_all_places_to_the_end(places: int, alive: int) -> None:
    played = one_engine([[0.5] * 4] * (3 * alive), [(1.0, places)], alive)
    turns = 12 * alive
    assert played.seconds == pytest.approx(0.5 * turns / min(places, alive))


def test_the_oldest_dialogue_goes_first() -> None:
    """The first dialogue's second turn goes before the third dialogue, which has waited longer."""
    played = schedule(
        [[Work("e", 1), Work("e", 10)], [Work("e", 2)], [Work("e", 3)]], {"e": [(1.0, 2)]}, 3
    )
    assert played.ends == [1, 2, 5, 11]


def test_a_turn_takes_the_fastest_free_place() -> None:
    played = one_engine([[1], [1], [1]], [(0.5, 1), (2.0, 2)], alive=3)
    assert played.ends == [0.5, 0.5, 2.0]


def test_unequal_speeds_add_up() -> None:
    played = one_engine([[1.0]] * 3000, [(1.0, 10), (0.5, 10)], alive=60)
    assert played.seconds == pytest.approx(3000 / 15, rel=0.01)


def test_the_slower_side_is_the_bottleneck_and_always_busy() -> None:
    said = [Work("user", 1.0), Work("agent", 3.0)] * 10
    played = schedule([said] * 100, {"user": [(1.0, 4)], "agent": [(1.0, 4)]}, alive=20)
    assert played.seconds == pytest.approx(1000 * 3.0 / 4, rel=0.02)
    assert played.busy("agent", 20, 700) == 1.0
    assert played.busy("user", 20, 700) == pytest.approx(1 / 3, abs=0.01)


def test_a_dialogue_that_says_nothing_keeps_no_place() -> None:
    assert one_engine([[], [1], [], [], [1], []], [(1.0, 1)], alive=1).ends == [1, 2]


def test_nobody_alive_or_no_place_is_refused() -> None:
    with pytest.raises(ValueError, match="alive"):
        one_engine([[1]], [(1.0, 1)], 0)
    with pytest.raises(ValueError, match="places"):
        one_engine([[1]], [(1.0, 0)], 1)


@given(
    st.lists(st.lists(st.integers(1, 9), max_size=5), min_size=1, max_size=12),
    st.integers(1, 5),
)
def test_no_place_is_free_while_a_turn_waits(turns: list[list[int]], places: int) -> None:
    """Then Graham's bound holds: the work, shared, and the longest chain beside it."""
    played = one_engine(turns, [(1.0, places)], alive=len(turns))
    work, longest = sum(map(sum, turns)), max(map(sum, turns))
    assert len(played.ends) == sum(map(len, turns))
    assert max(work / places, longest) <= played.seconds
    assert played.seconds <= work / places + longest * (1 - 1 / places) + 1e-9
    if work:
        assert played.busy("e") == pytest.approx(work / places / played.seconds)


def test_work_is_what_the_reference_engine_takes() -> None:
    turns = tuple(replace(make_turn(n), completion_tokens=3 + n) for n in range(2))
    faults = ReferenceFaults(latency_s=(0.1, 0.1), token_s=0.5)
    said = replace(make_dialogue(0), turns=turns)
    work = work_of(said, {"user": "u", "agent": "a"}, faults)
    assert [one.engine for one in work] == ["u", "a"]
    assert [one.seconds for one in work] == pytest.approx([1.6, 2.1])
