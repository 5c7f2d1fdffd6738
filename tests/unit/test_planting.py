from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from actors.retrieval.planting import Fetch, drawn, page_of, position, suggestions
from specs.seeds import generator

COUNTS = st.integers(0, 40)
LIMITS = st.integers(1, 6)
PAGES = st.integers(0, 5)


def ranking(count: int) -> Sequence[str]:
    return [f"d{i}" for i in range(count)]


def fetch(others: Sequence[str]) -> Fetch[str]:
    return lambda offset, limit: others[offset : offset + limit]


@given(COUNTS, LIMITS, PAGES, st.data())
def test_pages_are_slices_of_the_ranking_with_the_planted_inserted(
    count: int, limit: int, plant_page: int, data: st.DataObject
) -> None:
    others = ranking(count)
    place = data.draw(st.integers(0, limit - 1))
    full = list(others)
    full.insert(plant_page * limit + place, "planted")  # list.insert puts what is beyond last
    for page in range(count // limit + plant_page + 3):
        got = page_of(fetch(others), "planted", plant_page, place, page, limit)
        assert got == full[page * limit : (page + 1) * limit]


@given(COUNTS, LIMITS, PAGES, PAGES)
def test_a_planted_document_that_is_not_wanted_stands_nowhere(
    count: int, limit: int, plant_page: int, page: int
) -> None:
    others = ranking(count)
    expected = others[page * limit : (page + 1) * limit]
    assert page_of(fetch(others), None, plant_page, 0, page, limit) == expected


@given(st.integers(12, 40), st.text(), st.text(max_size=5))
def test_planted_document_stands_on_its_page_when_the_others_reach_it(
    count: int, draws: str, query: str
) -> None:
    place = position(draws, query, 4)
    pages = [page_of(fetch(ranking(count)), "planted", 2, place, k, 4) for k in range(4)]
    assert ["planted" in page for page in pages] == [False, False, True, False]
    assert pages[2].index("planted") == place


def test_every_place_on_the_page_is_drawn() -> None:
    assert {position(str(seed), "soup", 3) for seed in range(60)} == {0, 1, 2}


@given(st.integers(), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_a_shorter_draw_begins_a_longer_one(seed: int, population: int, a: int, b: int) -> None:
    short, long = sorted((a, b))
    first = drawn(generator(seed), population, short)
    second = drawn(generator(seed), population, long)
    assert second[: len(first)] == first
    assert len(set(second)) == len(second) == min(long, population)
    assert sorted(drawn(generator(seed), population, population)) == list(range(population))


@given(st.text(), st.integers(1, 25), LIMITS)
def test_suggestions_are_one_permutation_a_dialogue(draws: str, count: int, limit: int) -> None:
    ids = ranking(count)
    paged = suggestions(ids, frozenset({"d0"}), draws)
    seen = [id_ for page in range(count + 1) for id_ in paged(page * limit, limit)]
    assert sorted(seen) == sorted(ids[1:])


def test_suggestions_differ_between_dialogues() -> None:
    firsts = {tuple(suggestions(ranking(20), frozenset(), str(n))(0, 3)) for n in range(20)}
    assert len(firsts) > 15
