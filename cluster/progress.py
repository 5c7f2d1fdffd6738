"""What a run shows of itself: one line a few times a minute, or one that changes in a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from actors.walker import WalkerStats
from cluster.show import plain
from specs.engine import EngineStats

PLAIN_EVERY_S = 10.0
"""Between two lines when the output is no terminal."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a run is.

    Attributes:
        before: dialogues that were durable when it began.
        engines: by engine, its replicas' stats.
    """

    wanted: int
    done: int
    before: int
    owed: int
    walkers: Sequence[WalkerStats]
    engines: Mapping[str, Sequence[EngineStats]]
    elapsed_s: float


def line(snapshot: Snapshot, before: Snapshot | None) -> str:
    """Return one line; speeds are over the time since the snapshot before."""
    turns = sum(stats.turns for stats in snapshot.walkers)
    tokens = sum(stats.completion_tokens for stats in snapshot.walkers)
    references = sum(stats.reference_turns for stats in snapshot.walkers)
    seconds = snapshot.elapsed_s - (before.elapsed_s if before else 0.0)
    turns_before = sum(stats.turns for stats in before.walkers) if before else 0
    tokens_before = sum(stats.completion_tokens for stats in before.walkers) if before else 0
    parts = [f"dialogues {snapshot.done}/{snapshot.wanted}", f"turns {turns}"]
    if seconds > 0:
        parts.append(f"{(turns - turns_before) / seconds:.1f} turns/s")
        parts.append(f"{(tokens - tokens_before) / seconds:.0f} tokens/s")
    if turns:
        parts.append(f"references {references / turns:.0%}")
    for name, replicas in snapshot.engines.items():
        running = sum(stats.running for stats in replicas)
        waiting = sum(stats.waiting for stats in replicas)
        parts.append(f"{name} {running}+{waiting}")
    given_back = sum(stats.given_back for stats in snapshot.walkers)
    if given_back:
        parts.append(f"given back {given_back}")
    left = remaining_s(snapshot)
    if left is not None:
        parts.append(f"left {duration(left)}")
    return "  ".join(parts)


def remaining_s(snapshot: Snapshot) -> float | None:
    """Return an estimate of the seconds left: what is alive counts half, by the pace so far."""
    alive = sum(stats.alive for stats in snapshot.walkers)
    made = snapshot.done - snapshot.before
    worth = made + alive / 2
    if not made or snapshot.elapsed_s <= 0:
        return None
    return max(0.0, snapshot.wanted - snapshot.before - worth) * snapshot.elapsed_s / worth


def duration(seconds: float) -> str:
    """Return seconds as people read them."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}m{seconds:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m"


class Reporter:
    """Writes progress to standard error: results go to standard output."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._terminal = sys.stderr.isatty()
        self._last: Snapshot | None = None
        self._next = 0.0
        self._width = 0

    def say(self, text: str) -> None:
        """Write a line that stays; what a server or a model put into it steers no terminal."""
        self._clear()
        sys.stderr.write(f"{plain(text, newlines=True)}\n")
        sys.stderr.flush()

    def due(self) -> bool:
        """Whether it is time to show where the run is: gathering it asks every actor."""
        return self._clock() >= self._next

    def show(self, snapshot: Snapshot) -> None:
        """Show where the run is; the next time is due after a while."""
        now = self._clock()
        text = line(snapshot, self._last)
        if self._terminal:
            self._clear()
            sys.stderr.write(text[:200])
            self._width = len(text[:200])
            sys.stderr.flush()
            self._next = now + 1.0
        else:
            self.say(text)
            self._next = now + PLAIN_EVERY_S
        if self._last is None or snapshot.elapsed_s - self._last.elapsed_s >= 5.0:
            self._last = snapshot

    def _clear(self) -> None:
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            self._width = 0
