"""Where a turn's time goes: measured where it is spent, added up by phase and by role.

Invariants: the phases of a turn do not overlap, and what none of them has is `rest`; a dialogue is
one task, so whatever it awaits finds its lap in the context; outside a walker there is no lap, and
nothing is measured. A walker says thousands of turns a second: what is measured of one is put into
a buffer as it is, and added up a thousand turns at a time.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import accumulate
from time import perf_counter
from typing import Any

import numpy as np

from specs.engine import Answer

PROMPT, QUEUE, PREFILL, DECODE, TRANSPORT, RETRIEVAL, TOOLS, CHECKS, REST = range(9)

PHASES = (
    "prompt",
    "queue",
    "prefill",
    "decode",
    "transport",
    "retrieval",
    "tools",
    "checks",
    "rest",
)
"""What a turn's time is spent on: rendering and tokenizing; the engine's own three; the way to the
engine and back; waiting for the retriever; the domain's tools; the checks; everything else (the
event loop's other dialogues, the sinks)."""

WHOLE = "whole"

COUNTED = ("queue", "prefill", "decode", "retrieval", "checks")
"""The phases of which it is counted how often they take how long, beside the whole turn."""

BOUNDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of the counts, seconds; what takes longer counts behind the last."""

_FOLD = 1024 * len(PHASES)


@dataclass(slots=True)
class Lap:
    """The turn in hand of one dialogue.

    Attributes:
        since: when the turn before it was said.
        seconds: by phase; until the turn is said, TRANSPORT holds all that its requests took, and
            REST nothing.
        retries: of the walker; requests that were made again, by why.
    """

    retries: Counter[str] = field(default_factory=Counter)
    since: float = field(default_factory=perf_counter)
    seconds: list[float] = field(default_factory=lambda: [0.0] * len(PHASES))

    def part(self, turns: int) -> Lap:
        """Return the share of one of so many turns that one request has written."""
        now = perf_counter()
        share = [seconds / turns for seconds in self.seconds]
        return Lap(self.retries, now - (now - self.since) / turns, share)


_LAP: ContextVar[Lap | None] = ContextVar("lap", default=None)


def begin_laps(retries: Counter[str]) -> Lap:
    """Begin to measure the dialogue of this task, and to count its retries there."""
    begun = Lap(retries)
    _LAP.set(begun)
    return begun


def spent(phase: int, since: float) -> None:
    """Add to a phase of the turn in hand what has passed since then (of `perf_counter`)."""
    here = _LAP.get()
    if here is not None:
        here.seconds[phase] += perf_counter() - since


def answered(answer: Answer, since: float) -> None:
    """Add a request to the turn in hand that was asked then."""
    here = _LAP.get()
    if here is not None:
        seconds = here.seconds
        seconds[QUEUE] += answer.queue_s
        seconds[PREFILL] += answer.prefill_s
        seconds[DECODE] += answer.decode_s
        seconds[TRANSPORT] += perf_counter() - since


def asked_again(why: str) -> None:
    """Count a request that is made because those before were of no use."""
    here = _LAP.get()
    if here is not None:
        here.retries[why] += 1


def _no_counts() -> dict[str, list[int]]:
    return {name: [0] * (len(BOUNDS) + 1) for name in (WHOLE, *COUNTED)}


@dataclass(slots=True)
class Laps:
    """The turns of one role, added up.

    Attributes:
        seconds: by phase.
        counts: of whole turns and of some phases, turns by the bound that they do not exceed.
    """

    turns: int = 0
    seconds: list[float] = field(default_factory=lambda: [0.0] * len(PHASES))
    counts: dict[str, list[int]] = field(default_factory=_no_counts)
    _raw: array[float] = field(default_factory=lambda: array("d"))

    def add(self, done: Lap) -> None:
        """Take a turn that was said, and begin the next."""
        now, seconds = perf_counter(), done.seconds
        seconds[REST] = now - done.since  # the whole turn, until it is added up
        self._raw.fromlist(seconds)
        done.since, done.seconds = now, [0.0] * len(PHASES)
        if len(self._raw) >= _FOLD:
            self._fold()

    def summed(self) -> Laps:
        """Return itself with every turn added up; before that it tells less than there is."""
        self._fold()
        return self

    def plus(self, other: Laps) -> Laps:
        """Return the sum of both."""
        mine, theirs = self.summed(), other.summed()
        return Laps(
            mine.turns + theirs.turns,
            _sums(mine.seconds, theirs.seconds),
            {name: _sums(counts, theirs.counts[name]) for name, counts in mine.counts.items()},
        )

    @property
    def whole_s(self) -> float:
        """Seconds of all turns."""
        return sum(self.seconds)

    def at_most(self, name: str) -> Sequence[int]:
        """Return how many turns took no longer than each of the bounds, and last all of them."""
        return list(accumulate(self.counts[name]))

    def _fold(self) -> None:
        if not self._raw:
            return
        rows = np.array(self._raw).reshape(-1, len(PHASES))
        self._raw = array("d")
        rows[:, TRANSPORT] -= rows[:, [QUEUE, PREFILL, DECODE]].sum(axis=1)
        whole = rows[:, REST].copy()
        rows[:, REST] -= rows[:, :REST].sum(axis=1)
        # An engine's clock is not the walker's: what was not there to be spent is nobody's.
        np.maximum(rows, 0.0, out=rows)
        self.turns += len(rows)
        self.seconds = _sums(self.seconds, rows.sum(axis=0).tolist())
        columns: dict[str, Any] = {name: rows[:, PHASES.index(name)] for name in COUNTED}
        for name, column in {WHOLE: whole, **columns}.items():
            places = np.searchsorted(BOUNDS, column)
            found = np.bincount(places, minlength=len(BOUNDS) + 1).tolist()
            self.counts[name] = _sums(self.counts[name], found)


def _sums(some: list[Any], others: list[Any]) -> list[Any]:
    return [one + other for one, other in zip(some, others, strict=True)]
