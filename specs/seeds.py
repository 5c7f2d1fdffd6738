"""Everything random derives from a dialogue's identity, so that nothing depends on order or timing.

An identity is the SHA-256 of what settles a dialogue's plan. Each draw takes its own generator,
derived from the identity and from the name and number of the draw; no generator is ever shared
between two draws, so a resumed dialogue makes the draws that the interrupted one would have made.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, cast

T = TypeVar("T")


def digest(*parts: object) -> str:
    """Return the SHA-256 in hex over the parts, each with its length, so that none run together."""
    return hashlib.sha256(_joined(parts)).hexdigest()


_LENGTHS = [length.to_bytes(8, "big") for length in range(256)]


def _joined(parts: tuple[object, ...]) -> bytes:
    pieces: list[bytes] = []
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        length = len(data)
        pieces.append(_LENGTHS[length] if length < 256 else length.to_bytes(8, "big"))
        pieces.append(data)
    return b"".join(pieces)


def seed(*parts: object) -> int:
    """Return a seed in [0, 2**62): with a candidate's number added it is still an int64."""
    return int.from_bytes(hashlib.sha256(_joined(parts)).digest()[:8], "big") >> 2


def generator(*parts: object) -> random.Random:
    """Return a generator of its own for one draw."""
    return random.Random(seed(*parts))


class _Later:
    """A generator that is made at its first draw: most expressions that might draw never do."""

    __slots__ = ("_made", "_parts")

    def __init__(self, parts: tuple[object, ...]) -> None:
        self._parts = parts
        self._made: random.Random | None = None

    def __getattr__(self, name: str) -> Any:
        if self._made is None:
            self._made = generator(*self._parts)
        return getattr(self._made, name)


def later(*parts: object) -> random.Random:
    """Return what `generator` returns, made when something is drawn (seeding costs 25 us)."""
    return cast(random.Random, _Later(parts))


def uniform(*parts: object) -> float:
    """Return a number in [0, 1): one draw, without a generator (whose seeding takes longer)."""
    return seed(*parts) / 2**62


def shuffled(items: Sequence[T], *parts: object) -> Iterator[T]:
    """Yield the items in a drawn order: the places are the digits of one hash."""
    rest = list(items)
    number = 0
    while rest:
        number = number or int(digest(*parts, len(rest)), 16)
        number, place = divmod(number, len(rest))
        rest[place], rest[-1] = rest[-1], rest[place]
        yield rest.pop()


def identity(
    run_seed: int, domain_digest: str, policy: str, arm: str, round_: int, index: int
) -> str:
    """Return a dialogue's identity (DESIGN.md section 7)."""
    return digest(run_seed, domain_digest, policy, arm, round_, index)
