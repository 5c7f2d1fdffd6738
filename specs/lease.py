"""The right to play one index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Blame = Literal["dialogue", "loss", "nobody"]
"""Whose doing it is that a lease ended without a row: the dialogue's own; something that befell it,
as far as one can tell (its walker died, its turn was late); or something that all wait for."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to play one index, until it expires.

    Attributes:
        epoch: grows with every lease of the index; sinks refuse older ones.
        attempt: counts from 1.
        last: a failure of the dialogue's own doing is not tried again: it becomes the row.
    """

    index: int
    epoch: int
    attempt: int
    last: bool = True
