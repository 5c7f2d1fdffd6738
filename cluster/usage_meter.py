"""Adds up what a generation uses, from looks at its actors: pure, with injected clocks.

Invariants: a replica or a walker that has died and begun anew counts from where it was; what
happens between two looks counts by the second of them; memory grows with the replicas alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from actors.laps import PHASES
from actors.walker import LAG_S, WalkerStats
from cluster.sizes import Sizes
from cluster.usage import LOADS, End, EngineUse, ReplicaUse, Session, Speed, WalkersUse
from specs.engine import REFERENCE, EngineStats, engine_of
from specs.engine_section import EngineSection
from specs.run_file import RunFile

WINDOW_S = 20.0
"""Of which a replica's speed is kept by its load: what it finishes lags behind what it runs."""

Phase = Literal["starting", "playing", "stopping"]

_COUNTERS = (
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "finished",
    "failed",
    "overdue",
    "preemptions",
    "queue_s",
    "prefill_s",
    "decode_s",
)


@dataclass(slots=True)
class _Window:
    seconds: float = 0.0
    load_s: float = 0.0
    tokens: int = 0
    first: bool = True


@dataclass(slots=True)
class _Replica:
    """One replica's figures so far."""

    totals: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_COUNTERS, 0))
    last: EngineStats = field(default_factory=EngineStats)
    placed_s: float = 0.0
    placed_then_s: float = 0.0
    placed_before_s: float = 0.0
    up_s: float = 0.0
    busy_s: float = 0.0
    full_s: float = 0.0
    load_s: float = 0.0
    waiting_s: float = 0.0
    kv_s: float = 0.0
    window: _Window = field(default_factory=_Window)
    speeds: dict[int, Speed] = field(default_factory=dict)

    def count(self, stats: EngineStats) -> int:
        """Add what has come to the counters; returns the tokens written."""
        done, before = stats.finished + stats.failed, self.last.finished + self.last.failed
        last = EngineStats() if done < before else self.last
        for name in _COUNTERS:
            self.totals[name] += max(0, getattr(stats, name) - getattr(last, name))
        self.last = stats
        return max(0, stats.completion_tokens - last.completion_tokens)

    def pass_time(self, stats: EngineStats, limit: int, seconds: float, tokens: int) -> None:
        """Add the seconds since the last look."""
        load = 1.0 if stats.waiting else min(1.0, stats.running / max(1, limit))
        self.up_s += seconds
        self.busy_s += seconds * (stats.running > 0)
        self.full_s += seconds * (load >= 1.0)
        self.load_s += seconds * load
        self.waiting_s += seconds * stats.waiting
        self.kv_s += seconds * stats.kv_cache_use
        window = self.window
        window.seconds += seconds
        window.load_s += seconds * load
        window.tokens += tokens
        if window.seconds >= WINDOW_S:
            if not window.first:
                place = min(LOADS - 1, int(LOADS * window.load_s / window.seconds))
                before = self.speeds.get(place, Speed())
                self.speeds[place] = Speed(
                    seconds=before.seconds + window.seconds, tokens=before.tokens + window.tokens
                )
            self.window = _Window(first=False)

    def hold(self, seconds: float) -> None:
        """Note for how long it has had its place; a shorter time is that of another place."""
        if seconds < self.placed_then_s:
            self.placed_then_s = 0.0
        seconds -= self.placed_then_s
        if seconds < self.placed_s:
            self.placed_before_s += self.placed_s
        self.placed_s = seconds

    def use(self) -> ReplicaUse:
        """Return its figures."""
        whole = {name: int(self.totals[name]) for name in _COUNTERS if not name.endswith("_s")}
        times = {name: self.totals[name] for name in _COUNTERS if name.endswith("_s")}
        return ReplicaUse.model_validate(
            {
                **whole,
                **times,
                "placed_s": self.placed_before_s + self.placed_s,
                "up_s": self.up_s,
                "busy_s": self.busy_s,
                "full_s": self.full_s,
                "load_s": self.load_s,
                "waiting_s": self.waiting_s,
                "kv_s": self.kv_s,
                "speeds": self.speeds,
            }
        )


class Meter:
    """What one session uses.

    Args:
        number: counts the starts of the run.
        clock: seconds that never go back.
        now: the time of day.
    """

    def __init__(
        self,
        run: RunFile,
        number: int,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._run, self._number = run, number
        self._sizes: Sizes | None = None
        self._clock, self._now = clock, now
        self._began = now()
        self._phase: Phase = "starting"
        self._since = clock()
        self._spent: dict[Phase, float] = {"starting": 0.0, "playing": 0.0, "stopping": 0.0}
        self._looked: float | None = None
        self._wanted = self._before = 0
        self._walkers: Sequence[WalkerStats] = ()
        self._replicas: dict[str, dict[str, _Replica]] = {name: {} for name in run.speaking_engines}

    def take_over(
        self, engines: Mapping[str, Mapping[str, EngineStats]], placed: Mapping[str, float]
    ) -> None:
        """Count replicas that were up before from what they had used then (see `look`, `hold`)."""
        for name, replicas in engines.items():
            for replica, stats in replicas.items():
                self._known(name, replica).last = stats
        for replica, seconds in placed.items():
            self._known(engine_of(replica), replica).placed_then_s = seconds

    def enter(self, phase: Phase) -> None:
        """Begin another phase."""
        now = self._clock()
        self._spent[self._phase] += now - self._since
        self._phase, self._since = phase, now

    def begin_playing(self, sizes: Sizes, wanted: int, before: int) -> None:
        """Note that dialogues are played from now on, from so many up to so many."""
        self.enter("playing")
        self._sizes, self._looked = sizes, self._clock()
        self._wanted, self._before = wanted, before

    def look(
        self,
        walkers: Sequence[WalkerStats],
        engines: Mapping[str, Mapping[str, EngineStats]],
    ) -> None:
        """Take what the actors tell of themselves now.

        Args:
            walkers: of all seats, and of those that have left.
            engines: by engine and replica; those that do not answer are missing.
        """
        now = self._clock()
        seconds = now - (self._looked if self._looked is not None else now)
        self._looked, self._walkers = now, walkers
        for name, replicas in engines.items():
            for replica, stats in replicas.items():
                if stats.away:
                    continue
                known = self._known(name, replica)
                limit = stats.limit or self._run.engines[name].max_running
                known.pass_time(stats, limit, seconds, known.count(stats))

    def hold(self, placed: Mapping[str, float]) -> None:
        """Take for how many seconds each replica (`engine-number`) has had its place."""
        for replica, seconds in placed.items():
            self._known(engine_of(replica), replica).hold(seconds)

    def session(self, end: End = "") -> Session:
        """Return all that was used so far."""
        spent = {**self._spent}
        spent[self._phase] += self._clock() - self._since
        run = self._run
        return Session(
            number=self._number,
            began=self._began.isoformat(timespec="seconds"),
            written=self._now().isoformat(timespec="seconds"),
            end=end,
            starting_s=spent["starting"],
            playing_s=spent["playing"],
            stopping_s=spent["stopping"],
            wanted=self._wanted,
            before=self._before,
            roles=run.speaking_roles,
            currency=run.cluster.currency,
            engines={name: self._engine(name, run.engines[name]) for name in self._replicas},
            walkers=_walkers_use(self._walkers, self._sizes),
        )

    def _known(self, name: str, replica: str) -> _Replica:
        return self._replicas.setdefault(name, {}).setdefault(replica, _Replica())

    def _engine(self, name: str, section: EngineSection) -> EngineUse:
        return EngineUse(
            kind=section.kind,
            model=section.model if section.kind != "reference" else REFERENCE,
            max_running=section.max_running,
            gpus=section.gpus or 0.0,
            price=self._run.gpu_hour_price(name),
            replicas={key: one.use() for key, one in self._replicas[name].items()},
        )


def _walkers_use(walkers: Sequence[WalkerStats], sizes: Sizes | None) -> WalkersUse:
    all_ = WalkerStats()
    for one in walkers:
        all_ = all_.plus(one)
    played = [one for one in walkers if one.played_s > 0]
    looks_s = all_.played_s - all_.late_s
    return WalkersUse(
        seats=sizes.walkers if sizes else 0,
        alive=sizes.alive if sizes else 0,
        said=_by_source(all_),
        stops=dict(all_.stops),
        tokens={role: tokens for role, tokens in all_.tokens.items() if tokens},
        turns={side: laps.turns for side, laps in all_.laps.items()},
        phases={
            side: dict(zip(PHASES, laps.seconds, strict=True)) for side, laps in all_.laps.items()
        },
        retries=dict(all_.retries),
        given_back=all_.given_back,
        cpu_s=all_.cpu_s,
        core_share=all_.loop_s / all_.played_s if all_.played_s else 0.0,
        most_core_share=max((one.loop_s / one.played_s for one in played), default=0.0),
        lag_s=all_.late_s * LAG_S / looks_s if looks_s > 0 else 0.0,
        longest_lag_s=all_.longest_lag_s,
    )


def _by_source(stats: WalkerStats) -> dict[str, int]:
    found: dict[str, int] = {}
    for (_, source), count in stats.said.items():
        found[source] = found.get(source, 0) + count
    return found
