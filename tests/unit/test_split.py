from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specs.errors import InputError
from trainer.split import split, split_findings, unit

shares = st.floats(0, 0.45)


@given(st.sets(st.text(min_size=1, max_size=5), min_size=3, max_size=200), shares, shares,
       st.integers())  # fmt: skip
def test_every_side_that_is_asked_for_is_there_and_has_its_share(
    documents: set[str], validation: float, test: float, seed: int
) -> None:
    units = [unit("w", document) for document in documents]
    found = split(units, validation, test, seed)
    assert set(found) == set(units)
    for side, share in (("validation", validation), ("test", test)):
        count = sum(its == side for its in found.values())
        assert (count >= 1) == (share > 0)
        assert abs(count - share * len(units)) <= 5 * len(units) ** 0.5 + 1
    assert "train" in found.values()
    assert found == split(reversed(units), validation, test, seed)


@given(st.sets(st.integers(0, 10**6), min_size=10, max_size=60), st.integers(0, 10**6))
def test_a_document_more_moves_no_other(documents: set[int], more: int) -> None:
    units = {unit("w", str(document)) for document in documents}
    before = split(units, 0.1, 0.2, 0)
    after = split({*units, unit("w", str(more))}, 0.1, 0.2, 0)
    moved = {before[one] for one in units if before[one] != after[one]}
    # Only a side that was lent its only document gives it back.
    assert all(list(before.values()).count(side) == 1 for side in moved)


def test_runs_that_kept_other_documents_hold_the_same_ones_back() -> None:
    units = [unit("", f"d{number}") for number in range(72)]
    every = split(units, 0.05, 0.15, 11)
    some = split(units[::2], 0.05, 0.15, 11)
    assert all(every[one] == side for one, side in some.items())
    assert 6 <= list(every.values()).count("test") <= 16


def test_the_seed_decides() -> None:
    units = [unit("", f"d{number}") for number in range(24)]
    assert split(units, 0.1, 0.1, 0) == split(units, 0.1, 0.1, 0)
    assert split(units, 0.1, 0.1, 0) != split(units, 0.1, 0.1, 1)


def test_dialogues_without_documents_stand_for_themselves() -> None:
    assert unit("a", "") != unit("b", "")
    assert unit("a", "d") == unit("b", "d")
    assert unit("a", "") != unit("b", "a")


def test_too_few_documents_for_a_split() -> None:
    with pytest.raises(InputError, match="only one of the seed documents"):
        split([unit("a", "d"), unit("b", "d")], 0.0, 0.1, 0)
    with pytest.raises(InputError, match="2 seed documents, which cannot stand on 3 sides"):
        split([unit("a", "d"), unit("b", "e")], 0.1, 0.1, 0)
    assert split([unit("a", "d")], 0, 0, 0) == {"document d": "train"}


def test_shares_that_leave_nothing() -> None:
    assert "leave nothing to train on" in split_findings(0.5, 0.5)[0].message
    assert split_findings(0.5, 0.4) == []
