"""Near-duplicates: what is found agrees with comparing everything with everything."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from trainer.duplicates import Duplicate, NearDuplicates, bands, jaccard, shingles, sketch

TEA = "do you have some mint tea today? i would like two cups of it, with honey and lemon"


def text_of(draws: random.Random, count: int = 120) -> list[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return ["".join(draws.choices(letters, k=4)) for _ in range(count)]


def test_shingles_are_runs_of_words_whatever_their_dress() -> None:
    assert len(shingles("one two three four")) == 2
    assert jaccard(shingles("One, TWO:\nthree four!"), shingles("one two three four")) == 1
    assert jaccard(shingles("one two three"), shingles("three two one")) == 0
    assert len(shingles("tea")) == 1
    assert len(shingles("tea for")) == 1
    assert len(shingles("?!")) == 0
    assert jaccard(shingles(""), shingles("")) == 0


def test_the_jaccard_of_shingles_is_that_of_the_words() -> None:
    one, other = text_of(random.Random(0)), text_of(random.Random(0))
    other[60] = "else"

    def runs(spoken: list[str]) -> set[tuple[str, ...]]:
        return {tuple(spoken[i : i + 3]) for i in range(len(spoken) - 2)}

    a, b = runs(one), runs(other)
    found = jaccard(shingles(" ".join(one)), shingles(" ".join(other)))
    assert found == pytest.approx(len(a & b) / len(a | b))


def test_the_same_words_again() -> None:
    near = NearDuplicates()
    assert near.add("first" * 20, sketch(TEA)) is None
    assert near.add("second", sketch("something else altogether, if you please")) is None
    found = near.add("third", sketch(TEA.upper()))
    assert found == Duplicate("first" * 20, "words", 1.0)
    assert str(found) == "like firstfirstfi (words 1.000)"


@pytest.mark.parametrize(
    "text",
    [
        "抹茶ラテをください。砂糖は入れないでお願いします。",
        "Есть ли у вас мятный чай? Мне две чашки.",
        "هل لديك شاي بالنعناع؟ أريد كوبين",
        "ขอชามะนาวสองแก้วครับ",
    ],
)
def test_any_script(text: str) -> None:
    near = NearDuplicates()
    assert near.add("a", sketch(text)) is None
    assert near.add("b", sketch(text[::-1])) is None
    assert near.add("c", sketch(text)) == Duplicate("a", "words", 1.0)


def test_texts_without_words_are_like_no_other() -> None:
    near = NearDuplicates()
    assert [near.add(str(i), sketch("...")) for i in range(3)] == [None] * 3


def test_what_repeats_is_not_remembered() -> None:
    # Each differs from the one before by a little, and the last from the first by much.
    spoken = text_of(random.Random(1), 200)
    near = NearDuplicates(words=0.9)
    found = []
    for step in range(6):
        found.append(near.add(str(step), sketch(" ".join(spoken))))
        spoken = [*spoken[8:], *text_of(random.Random(step + 10), 8)]
    assert found[0] is None
    assert found[1] is not None
    assert "1" not in [one.of for one in found if one]
    assert None in found[2:]


def test_bands_miss_few_of_those_that_are_similar_enough() -> None:
    for least in (0.5, 0.7, 0.8, 0.9, 0.95, 1.0):
        count, rows = bands(least)
        assert count * rows <= 128
        assert (1 - least**rows) ** count <= 0.01


def test_all_pairs_of_words_are_found() -> None:
    draws = random.Random(2)
    near = NearDuplicates(words=0.8)
    kept: list[tuple[str, npt.NDArray[np.uint32]]] = []
    missed = invented = 0
    base = [text_of(draws, 150) for _ in range(20)]
    for number in range(400):
        spoken = list(base[draws.randrange(20)])
        for _ in range(draws.randrange(12)):
            spoken[draws.randrange(150)] = text_of(draws, 1)[0]
        hashes = shingles(" ".join(spoken))
        best = max((jaccard(hashes, other) for _, other in kept), default=0.0)
        found = near.add(str(number), sketch(" ".join(spoken)))
        missed += best >= 0.8 and found is None
        invented += best < 0.8 and found is not None
        if found is None:
            kept.append((str(number), hashes))
        else:
            assert found.similarity >= 0.8
    assert invented == 0
    assert missed <= 0.02 * 400
    assert 20 < len(kept) < 400


def cone(count: int, size: int, towards: float, seed: int) -> npt.NDArray[np.float32]:
    """Return unit vectors that point much the same way, as one domain's dialogues do."""
    draws = np.random.default_rng(seed)
    rows = draws.standard_normal((count, size)) / np.sqrt(size)
    rows[:, 0] += towards
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(units, dtype=np.float32)


@pytest.mark.parametrize("towards", [0.0, 1.0, 4.0])
def test_all_pairs_of_vectors_are_found(towards: float) -> None:
    rows = cone(3000, 64, towards, 0)  # beyond the first mean and the first room
    shifts = np.random.default_rng(1).uniform(0, 0.15, 3000)
    for number in range(1, 3000, 3):
        mixed = rows[number - 1] + shifts[number] * cone(1, 64, 0.0, number)[0]
        rows[number] = mixed / np.linalg.norm(mixed)
    near = NearDuplicates(cosine=0.999)
    kept: list[int] = []
    for number, row in enumerate(rows):
        best = float((rows[kept] @ row).max()) if kept else 0.0
        found = near.add(str(number), sketch(str(number)), row)
        if abs(best - 0.999) > 1e-3:  # half precision may tip what is nearer to the bound
            assert (found is not None) is (best > 0.999), (number, best)
        if found is None:
            kept.append(number)
        else:
            assert found.by == "cosine"
            assert found.similarity == pytest.approx(best, abs=1e-3)
    assert 2000 < len(kept) < 3000


def test_vectors_find_what_other_words_say() -> None:
    near = NearDuplicates()
    assert near.add("a", sketch("one way to say it"), [1.0, 2.0, 2.0]) is None
    found = near.add("b", sketch("and quite another of them"), [2.0, 4.0, 4.0])
    assert found is not None
    assert (found.of, found.by) == ("a", "cosine")
    assert found.similarity == pytest.approx(1.0, abs=1e-3)
    assert near.add("c", sketch("a third thing to say"), [1.0, -2.0, 2.0]) is None


@pytest.mark.parametrize("vector", [None, [0.0, 0.0, 0.0]])
def test_a_vector_may_be_missing(vector: Any) -> None:
    near = NearDuplicates()
    assert near.add("a", sketch("one way to say it"), vector) is None
    assert near.add("b", sketch("and quite another of them"), vector) is None
    assert near.add("c", sketch("a third thing to say"), [1.0, 2.0, 2.0]) is None
    assert near.add("d", sketch("the fourth of them all"), [1.0, 2.0, 2.0]) is not None
