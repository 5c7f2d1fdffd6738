"""What a run shows of itself: one line a few times a minute, or one that changes in a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from actors.walker import WalkerStats
from cluster.show import plain
from specs.engine import EngineStats

WIDTH = 200
"""The most characters of a line of progress."""

PLAIN_EVERY_S = 10.0
"""Between two lines when the output is no terminal."""


@dataclass(frozen=True, slots=True)
class Load:
    """How busy one engine is, all its replicas together.

    Attributes:
        running: requests in their places; `limit` places there are, as far as that is known.
        kv: the share of the KV cache in use, on average.
        up: replicas that take turns, of those `wanted`.
    """

    running: int
    limit: int
    waiting: int
    kv: float
    up: int
    wanted: int

    def __str__(self) -> str:
        places = f"{self.running}/{self.limit}" if self.limit else f"{self.running}"
        cache = f" kv {self.kv:.0%}" if self.kv else ""
        missing = f" ({self.up} of {self.wanted} up)" if self.up < self.wanted else ""
        return f"{places}+{self.waiting}{cache}{missing}"


def load_of(stats: Sequence[EngineStats], places: int, wanted: int) -> Load:
    """Return an engine's load.

    Args:
        stats: of the replicas that answered.
        places: of a replica that does not tell how many it has now.
        wanted: replicas.
    """
    up = [one for one in stats if not one.away]
    return Load(
        running=sum(one.running for one in up),
        limit=sum(one.limit or places for one in up),
        waiting=sum(one.waiting for one in up),
        kv=sum(one.kv_cache_use for one in up) / len(up) if up else 0.0,
        up=len(up),
        wanted=wanted,
    )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a run is.

    Attributes:
        before: dialogues that were durable when it began.
        given_up: dialogues that could not be played.
        engines: by name.
        cost: of the GPUs so far; empty where no price is known.
    """

    wanted: int
    done: int
    before: int
    owed: int
    given_up: int
    walkers: Sequence[WalkerStats]
    engines: Mapping[str, Load]
    elapsed_s: float
    cost: str = ""


def line(snapshot: Snapshot, before: Snapshot | None) -> str:
    """Return one line of `WIDTH` characters at most; speeds are since the snapshot before."""
    parts = [part for part in _parts(snapshot, before) if part[1]]
    while len(parts) > 1 and sum(len(text) + 2 for _, text in parts) - 2 > WIDTH:
        parts.remove(max(reversed(parts), key=lambda part: part[0]))
    return "  ".join(text for _, text in parts)[:WIDTH]


def _parts(snapshot: Snapshot, before: Snapshot | None) -> Iterator[tuple[int, str]]:
    """Yield a line's parts in their order; those of the highest number are the first to go."""
    walkers = snapshot.walkers
    turns = sum(stats.turns for stats in walkers)
    seconds = snapshot.elapsed_s - (before.elapsed_s if before else 0.0)
    yield 0, f"dialogues {snapshot.done}/{snapshot.wanted}"
    yield 6, f"turns {turns}"
    if seconds > 0 and turns:
        then = before.walkers if before else ()
        said = turns - sum(stats.turns for stats in then)
        tokens = sum(stats.completion_tokens for stats in walkers)
        written = tokens - sum(stats.completion_tokens for stats in then)
        yield 1, f"{said / seconds:.1f} turns/s"
        yield 2, f"{written / seconds:.0f} tokens/s"
    if turns:
        references = sum(stats.reference_turns for stats in walkers)
        yield 5, f"references {references / turns:.0%}"
    for name, load in snapshot.engines.items():
        yield 4, f"{name} {load}"
    given_back = sum(stats.given_back for stats in walkers)
    yield 3, f"given back {given_back}" if given_back else ""
    yield 1, f"given up {snapshot.given_up}" if snapshot.given_up else ""
    yield 2, snapshot.cost
    left = remaining_s(snapshot)
    yield 1, f"left {duration(left)}" if left is not None else ""


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
            sys.stderr.write(text)
            self._width = len(text)
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
