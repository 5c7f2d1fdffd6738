"""Near-duplicates in a stream of dialogues, in bounded memory: by words and by embeddings.

Invariants: a dialogue is compared with the earlier ones that were no duplicates themselves, so that
what is kept holds no two alike; the outcome depends on the texts, the vectors and their order
alone. Both ways look for candidates first (MinHash bands on words, sign bits of random projections
on vectors) and then compare exactly; what each keeps of a dialogue is its shingles' hashes (4 bytes
each), its bands, its vector in half precision and 24 bytes of signs: about 4 KB for 300 words.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from specs.words import words

Vector = Sequence[float] | npt.NDArray[np.floating]
Hashes = npt.NDArray[np.uint32]

SHINGLE = 3
"""Words of a shingle."""

PERMUTATIONS = 128
"""Of a MinHash."""

MISSED = 0.01
"""Largest chance that the bands miss a pair that is as similar as it must be."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """What a dialogue repeats.

    Attributes:
        of: the earlier dialogue's walk_id.
        by: `words`, Jaccard similarity of the sets of shingles; `cosine`, of the vectors.
        similarity: in [0, 1].
    """

    of: str
    by: Literal["words", "cosine"]
    similarity: float

    def __str__(self) -> str:
        return f"like {self.of[:12]} ({self.by} {self.similarity:.3f})"


@dataclass(frozen=True, slots=True)
class Sketch:
    """What is compared of a text.

    Attributes:
        shingles: the hashes of its runs of SHINGLE words, sorted, each once; none for no words.
        minhash: PERMUTATIONS least hashes of theirs, each under another permutation.
    """

    shingles: Hashes
    minhash: Hashes


def sketch(text: str) -> Sketch:
    """Return the sketch of a dialogue's utterances, one a line."""
    hashes = shingles(text)
    minhash = _minhash().copy()  # shares the permutations, which take long to make
    minhash.update_batch(hashes)
    return Sketch(hashes, minhash.hashvalues.astype(np.uint32))


@cache
def _minhash() -> Any:
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, hashfunc=int)


class NearDuplicates:
    """Takes dialogues one by one, and says which repeat an earlier one.

    Args:
        words: least Jaccard similarity of sets of SHINGLE words in a row.
        cosine: least cosine of the vectors.
    """

    def __init__(self, words: float = 0.9, cosine: float = 0.98) -> None:
        self._texts = _Texts(words)
        self._vectors = _Vectors(cosine)
        self._ids: list[str] = []

    def add(self, walk_id: str, sketch: Sketch, vector: Vector | None = None) -> Duplicate | None:
        """Return which earlier dialogue this one repeats; if none, remember it.

        Args:
            sketch: of all utterances; one without words is like no other.
            vector: of any length but zero, the same size for all; None to compare words alone.
        """
        keys = self._texts.keys(sketch)
        like = self._texts.nearest(sketch.shingles, keys)
        if like is not None:
            return Duplicate(self._ids[like[0]], "words", like[1])
        unit = _unit(vector)
        if unit is not None:
            like = self._vectors.nearest(unit)
            if like is not None:
                return Duplicate(self._ids[like[0]], "cosine", like[1])
        self._texts.keep(sketch.shingles, keys)
        if unit is not None:
            self._vectors.keep(unit, len(self._ids))
        self._ids.append(walk_id)
        return None


def shingles(text: str) -> Hashes:
    """Return the hashes of a text's runs of SHINGLE words, sorted, each once.

    A text of fewer words has one shingle; scripts without blanks have pairs of characters for words
    (`specs.words`), so that a shingle is four characters of theirs.
    """
    spoken = [word for line in text.splitlines() for word in words(line)]
    if not spoken:
        return np.empty(0, np.uint32)
    hashes = np.array([_hash(word) for word in spoken], np.uint64)
    count = max(1, len(spoken) - SHINGLE + 1)
    mixed = np.zeros(count, np.uint64)
    for place in range(min(SHINGLE, len(spoken))):
        mixed = (mixed ^ hashes[place : place + count]) * _ODD  # the order of the words counts
        mixed ^= mixed >> np.uint64(29)
    return np.unique((mixed >> np.uint64(32)).astype(np.uint32))


_ODD = np.uint64(0x9E3779B97F4A7C15)


@lru_cache(maxsize=65_536)
def _hash(word: str) -> int:
    # Python's own hash of texts differs from process to process.
    return zlib.crc32(word.encode())


def jaccard(one: Hashes, other: Hashes) -> float:
    """Return the share of hashes in common; 0 when both are empty."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    every = len(one) + len(other) - common
    return common / every if every else 0.0


class _Texts:
    """Shingles and MinHash bands of what was kept.

    The bands stand in one dictionary of whole numbers: datasketch's own index takes three times the
    memory, most of it for sets of one.
    """

    def __init__(self, least: float) -> None:
        self._least = least
        self._count, self._rows = bands(least)
        self._kept: list[Hashes] = []
        self._places: dict[int, int | list[int]] = {}

    def keys(self, sketch: Sketch) -> list[int]:
        """Return a text's bands, each with its number."""
        if not len(sketch.shingles):
            return []
        used = sketch.minhash[: self._count * self._rows].reshape(self._count, self._rows)
        return [
            int.from_bytes(blake2b(row.tobytes(), digest_size=7).digest()) << 8 | number
            for number, row in enumerate(used)
        ]

    def nearest(self, hashes: Hashes, keys: Sequence[int]) -> tuple[int, float] | None:
        places: set[int] = set()
        for key in keys:
            held = self._places.get(key, ())
            places.update((held,) if isinstance(held, int) else held)
        found = [(jaccard(hashes, self._kept[place]), -place) for place in places]
        share, place = max(found, default=(0.0, 0))
        return (-place, share) if share >= self._least else None

    def keep(self, hashes: Hashes, keys: Sequence[int]) -> None:
        place = len(self._kept)
        self._kept.append(hashes)
        for key in keys:
            held = self._places.setdefault(key, place)
            if isinstance(held, list):
                held.append(place)
            elif held != place:
                self._places[key] = [held, place]


def bands(least: float) -> tuple[int, int]:
    """Return bands and rows of a MinHash: the most rows that miss no more than MISSED.

    A pair of similarity s has a band of r rows in common with probability 1 - (1 - s^r)^b.
    """
    for rows in range(PERMUTATIONS // 2, 0, -1):
        count = PERMUTATIONS // rows
        if (1 - least**rows) ** count <= MISSED:
            return count, rows
    return PERMUTATIONS, 1


SIGNS = 192
"""Random directions, the sides of which a vector is remembered by: their count fits a byte."""

_OFF = 6.0
"""Standard deviations that a count of different signs may lie off: 1 in 10^9 do."""

_HALF = 5e-4
"""What half precision may take from a cosine: who was rounded down must not slip through."""

_BLOCK = 4096
_FIRST = 1024


class _Vectors:
    """Unit vectors in half precision, and the signs of their projections, which find candidates.

    Two vectors at an angle of t lie on different sides of a random direction with probability t/pi
    (Charikar, 2002), so few different signs tell who is worth comparing. The embeddings of one
    domain's dialogues all point much the same way, so the signs are of what is left when their mean
    is taken off: what was d apart is d apart still, and seen from a row of length a (and d below a)
    nobody within d stands at an angle of more than asin(d / a).
    """

    def __init__(self, least: float) -> None:
        self._least = least - _HALF
        self._apart = float(np.sqrt(max(0.0, 2 - 2 * self._least)))
        self._directions = np.empty((0, 0), np.float32)
        self._mean = np.empty(0, np.float32)
        self._rows = np.empty((0, 0), np.float16)
        self._signs = np.empty((SIGNS // 64, 0), np.uint64)
        self._numbers: list[int] = []

    def nearest(self, unit: npt.NDArray[np.float32]) -> tuple[int, float] | None:
        count = len(self._numbers)
        if not count:
            return None
        best, where = -1.0, 0
        candidates = self._candidates(unit, count)
        for start in range(0, len(candidates), _BLOCK):
            some = candidates[start : start + _BLOCK]
            cosines = self._rows[some].astype(np.float32) @ unit
            place = int(cosines.argmax())
            if cosines[place] > best:
                best, where = float(cosines[place]), int(some[place])
        return (self._numbers[where], min(1.0, best)) if best >= self._least else None

    def _candidates(self, unit: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.intp]:
        length = float(np.linalg.norm(unit - self._mean))
        if length <= self._apart:
            return np.arange(count)
        chance = float(np.arcsin(self._apart / length) / np.pi)
        most = SIGNS * chance + _OFF * float(np.sqrt(SIGNS * chance * (1 - chance))) + 1
        own = self._sides(unit[None, :])
        differing = np.zeros(count, np.uint8)
        for word in range(len(own)):
            differing += np.bitwise_count(self._signs[word, :count] ^ own[word, 0])
        return np.flatnonzero(differing <= most)

    def keep(self, unit: npt.NDArray[np.float32], number: int) -> None:
        count = len(self._numbers)
        if count == len(self._rows):
            self._grow(unit)
        self._rows[count] = unit
        self._signs[:, count] = self._sides(unit[None, :])[:, 0]
        self._numbers.append(number)

    def _grow(self, unit: npt.NDArray[np.float32]) -> None:
        """Make room, and take the mean and the signs anew: amortized, each row a few times."""
        count = len(self._rows)
        if not count:
            drawn = np.random.default_rng(0).standard_normal((len(unit), SIGNS))
            self._directions, self._mean = drawn.astype(np.float32), np.zeros_like(unit)
        room = max(_FIRST, count * 3 // 2)
        rows, signs = np.empty((room, len(unit)), np.float16), np.empty((SIGNS // 64, room), "u8")
        rows[:count] = self._rows if count else 0
        self._rows, self._signs = rows, signs
        if count:
            self._mean = rows[:count].mean(axis=0, dtype=np.float32)
        for start in range(0, count, _BLOCK):
            end = min(start + _BLOCK, count)
            signs[:, start:end] = self._sides(rows[start:end].astype(np.float32))

    def _sides(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.uint64]:
        """Return the signs of rows as whole numbers of 64 bits, a column each."""
        bits = (rows - self._mean) @ self._directions > 0
        return np.packbits(bits, axis=1).view(np.uint64).T


def _unit(vector: Vector | None) -> npt.NDArray[np.float32] | None:
    if vector is None:
        return None
    row = np.asarray(vector, dtype=np.float32)
    length = float(np.linalg.norm(row))
    return row / length if length > 0 else None
