"""A set of dialogue indices in one bit each: a million of them take 125 KB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class IndexSet:
    """A set of integers from 0 on, which only grows."""

    def __init__(self, indices: Iterable[int] = ()) -> None:
        self._bits = bytearray()
        self._count = 0
        for index in indices:
            self.add(index)

    def add(self, index: int) -> bool:
        """Take an index in; returns whether it is new. Raises ValueError below zero."""
        if index < 0:
            raise ValueError(f"an index is never below zero: {index}")
        byte, bit = index >> 3, 1 << (index & 7)
        if byte >= len(self._bits):
            self._bits.extend(bytes(max(byte + 1 - len(self._bits), len(self._bits))))
        if self._bits[byte] & bit:
            return False
        self._bits[byte] |= bit
        self._count += 1
        return True

    def __contains__(self, index: int) -> bool:
        byte = index >> 3
        return 0 <= byte < len(self._bits) and bool(self._bits[byte] & (1 << (index & 7)))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        for byte, bits in enumerate(self._bits):
            if bits:
                yield from (byte * 8 + bit for bit in range(8) if bits & (1 << bit))
