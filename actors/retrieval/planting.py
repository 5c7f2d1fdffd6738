"""Where the wanted document stands among the results: pure functions, no store, no clock.

Invariants: the full ranking is the store's ranking without the planted document, with that
document inserted on the page drawn for it, at a place drawn by the dialogue's seed; a page is a
slice of the full ranking. So the pages of one search share no document, the planted one stands on
exactly one of them, and asking for a page again gives the same page.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from specs import seeds

T = TypeVar("T")

Fetch = Callable[[int, int], Sequence[T]]
"""`fetch(offset, limit)`: that slice of the ranking without the planted document."""


def position(draws: str, query: str | None, limit: int) -> int:
    """Return the planted document's place on its page, in [0, limit): the same for every page."""
    return seeds.generator(draws, "plant", query or "").randrange(limit)


def page_of(
    others: Fetch[T], planted: T | None, plant_page: int, place: int, page: int, limit: int
) -> list[T]:
    """Return one page of the full ranking.

    Args:
        others: the ranking without the planted document; it may be shorter than what is asked for.
        planted: the planted document, or None when none is planted.
        plant_page: the page that it was drawn for, from 0.
        place: its place on that page, in [0, limit).
        page: the page wanted, from 0.
        limit: how many documents a page holds.

    When the others do not reach that page, the planted document stands last, behind all of them.
    """
    start = page * limit
    if planted is None:
        return list(others(start, limit))
    # One document more than the page holds, from the left: it moves in when the planted document
    # stands before, and it tells whether the full ranking reaches this page at all.
    first = max(start - 1, 0)
    window = list(others(first, start + limit - first))
    if start > 0 and not window:
        return []
    index = min(plant_page * limit + place, first + len(window))
    if index < first:
        return window[:limit]
    window.insert(index - first, planted)
    return window[start - first : start - first + limit]


def drawn(generator: random.Random, population: int, count: int) -> list[int]:
    """Return the first `count` numbers of a permutation of `range(population)`.

    For generators in the same state, a shorter list is the beginning of a longer one.
    """
    moved: dict[int, int] = {}
    chosen: list[int] = []
    for i in range(min(count, population)):
        j = generator.randrange(i, population)
        chosen.append(moved.get(j, j))
        moved[j] = moved.get(i, i)
    return chosen


def suggestions(ids: Sequence[str], apart: frozenset[str], draws: str) -> Fetch[str]:
    """Return the ranking of a search without a query: one permutation a dialogue."""
    return shuffled(ids, apart, draws, "suggestions")


def shuffled(ids: Sequence[str], apart: frozenset[str], *draw: object) -> Fetch[str]:
    """Return the ranking that a draw makes of the ids, without those that stand apart."""

    def fetch(offset: int, limit: int) -> list[str]:
        reach = offset + limit + len(apart)
        order = drawn(seeds.generator(*draw), len(ids), reach)
        return [ids[i] for i in order if ids[i] not in apart][offset : offset + limit]

    return fetch
