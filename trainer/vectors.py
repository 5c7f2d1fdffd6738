"""A vector a dialogue, kept in half precision in a temporary file and not in memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import TracebackType
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt

from specs.parts import storage_error

Vectors: TypeAlias = npt.NDArray[np.float32]
Embed: TypeAlias = Callable[[Sequence[str]], Vectors]
"""Texts to rows of length 1, shape (texts, size)."""

CHUNK = 900
"""Characters that are embedded at once: about what small embedding models read (256 tokens)."""


def chunks(text: str, size: int = CHUNK) -> list[str]:
    """Return a text in pieces of at most `size` characters, cut at line ends where there are."""
    found: list[str] = []
    for line in text.splitlines():
        for start in range(0, len(line), size):
            piece = line[start : start + size]
            if found and len(found[-1]) + len(piece) < size:
                found[-1] += "\n" + piece
            else:
                found.append(piece)
    return found or [""]


def embedded(embed: Embed, texts: Sequence[str]) -> Vectors:
    """Return one row of length 1 a text: the mean of its pieces' vectors, so that all of it counts.

    A text without words has a row of zeros.
    """
    cut = [chunks(text) for text in texts]
    vectors = embed([piece for pieces in cut for piece in pieces])
    starts = np.cumsum([0, *map(len, cut)])
    rows = np.array(
        [vectors[start:end].mean(axis=0) for start, end in pairwise(starts)],
        dtype=np.float32,
    )
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), dtype=np.float32)


class VectorFile:
    """Rows of one width, appended in order and read by number."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="duologue-vectors-")  # noqa: SIM115 - closed by `close`
        self._rows: dict[int, int] = {}
        self._size = 0

    def add(self, numbers: Sequence[int], vectors: Vectors) -> None:
        """Append the vectors of these dialogues."""
        for number in numbers:
            self._rows[number] = len(self._rows)
        self._size = vectors.shape[1]
        try:
            self._file.seek(0, os.SEEK_END)
            self._file.write(np.ascontiguousarray(vectors, dtype=np.float16).tobytes())
            self._file.flush()
        except OSError as error:
            raise storage_error(error, f"{tempfile.gettempdir()} (TMPDIR)") from error

    def get(self, number: int) -> Vectors | None:
        """Return the vector of a dialogue, or None where it has none."""
        place = self._rows.get(number)
        if place is None:
            return None
        self._file.seek(place * self._size * 2)
        data = self._file.read(self._size * 2)
        return np.frombuffer(data, dtype=np.float16).astype(np.float32)

    def close(self) -> None:
        """Delete the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
