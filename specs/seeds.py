"""Everything random derives from a dialogue's identity, so that nothing depends on order or timing.

An identity is the SHA-256 of what settles a dialogue's plan. Each draw takes its own generator,
derived from the identity and from the name and number of the draw; no generator is ever shared
between two draws, so a resumed dialogue makes the draws that the interrupted one would have made.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any, cast


def digest(*parts: object) -> str:
    """Return the SHA-256 in hex over the parts, each with its length, so that none run together."""
    state = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()


def seed(*parts: object) -> int:
    """Return a seed in [0, 2**62): with a candidate's number added it is still an int64."""
    return int(digest(*parts)[:16], 16) >> 2


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


def identity(
    run_seed: int, domain_digest: str, policy: str, arm: str, round_: int, index: int
) -> str:
    """Return a dialogue's identity (DESIGN.md section 7)."""
    return digest(run_seed, domain_digest, policy, arm, round_, index)
