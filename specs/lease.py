"""The right to play one index."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to play one index, until it expires.

    Attributes:
        epoch: grows with every lease of the index; sinks refuse older ones.
        attempt: counts from 1.
    """

    index: int
    epoch: int
    attempt: int
