"""What a generation has used: one file for each of its starts, in the round's `usage` folder.

Invariants: a file is replaced whole, every `WRITE_S` seconds and at the end, so that a `kill -9`
loses little of it; one that cannot be read is said and left out, and one that cannot be written
stops nothing and waits for nobody; money is counted by the prices of the time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from actors.laps import PHASES
from specs.errors import DuologueError
from specs.parts import Folder

WRITE_S = 20.0
"""From one writing to the next."""

CLOSE_S = 15.0
"""How long the last one may take."""

FOLDER, PREFIX, SUFFIX = "usage", "session-", ".json"

LOADS = 10
"""Speeds are kept for each tenth of an engine's load."""

STEADY_S = 60.0
"""Seconds at its highest load that an engine's speed is measured over, at least."""

HALF = LOADS // 2

End = Literal["", "done", "interrupted", "budget", "failed"]
"""How a start ended; empty while it goes on, and where it was killed."""


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class Speed(_Kept):
    """Tokens that a replica has written in windows of one tenth of load, and their seconds."""

    seconds: float = 0.0
    tokens: int = 0


class ReplicaUse(_Kept):
    """What one replica has done.

    Attributes:
        placed_s: seconds for which it has had its place, from its start to the end.
        up_s: seconds for which it was looked at and answered. Of these, `busy_s` are those in
            which something ran, `full_s` those in which it had no place free; `load_s` is the
            integral over them of the share of its places in use, `waiting_s` that of the requests
            that waited, and `kv_s` that of the KV cache's use.
        overdue: of those that failed, the requests whose deadline came first.
        speeds: by tenth of load, from 0 to 9.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    finished: int = 0
    failed: int = 0
    overdue: int = 0
    preemptions: int = 0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    placed_s: float = 0.0
    up_s: float = 0.0
    busy_s: float = 0.0
    full_s: float = 0.0
    load_s: float = 0.0
    waiting_s: float = 0.0
    kv_s: float = 0.0
    speeds: dict[int, Speed] = Field(default_factory=dict)


class EngineUse(_Kept):
    """What one engine's replicas have done.

    Attributes:
        gpus: of one replica.
        price: of a GPU for an hour; None where it is not known.
    """

    kind: str
    model: str
    max_running: int
    gpus: float = 0.0
    price: float | None = None
    replicas: dict[str, ReplicaUse] = Field(default_factory=dict)

    def total(self, figure: str) -> float:
        """Return the sum of a figure over the replicas."""
        return float(sum(getattr(one, figure) for one in self.replicas.values()))

    def mean(self, figure: str) -> float:
        """Return the mean over the time that replicas were up, such as of `load_s`."""
        up = self.total("up_s")
        return self.total(figure) / up if up else 0.0

    @property
    def cache_hits(self) -> float:
        """The share of the tokens read that the prefix cache had."""
        read = self.total("prompt_tokens")
        return self.total("cached_tokens") / read if read else 0.0

    @property
    def gpu_hours(self) -> float:
        """GPU-hours, from getting a place to the end."""
        return self.gpus * self.total("placed_s") / 3600

    @property
    def cost(self) -> float | None:
        """What they cost; None where the price is not known."""
        return None if self.price is None else self.price * self.gpu_hours


class WalkersUse(_Kept):
    """What the walkers have done, all together.

    Attributes:
        seats: how many there are; `alive` dialogues may each play at once.
        said: turns by who worded them; `tokens` by role; `stops`: dialogues by their reason.
        turns: by role, and `phases` where their seconds went.
        core_share: what a walker's event loop has had of a core, on average; `most_core_share` of
            the busiest one.
        lag_s: how late their loops were on average; `longest_lag_s` at the worst.
    """

    seats: int = 0
    alive: int = 0
    said: dict[str, int] = Field(default_factory=dict)
    stops: dict[str, int] = Field(default_factory=dict)
    tokens: dict[str, int] = Field(default_factory=dict)
    turns: dict[str, int] = Field(default_factory=dict)
    phases: dict[str, dict[str, float]] = Field(default_factory=dict)
    retries: dict[str, int] = Field(default_factory=dict)
    given_back: int = 0
    cpu_s: float = 0.0
    core_share: float = 0.0
    most_core_share: float = 0.0
    lag_s: float = 0.0
    longest_lag_s: float = 0.0

    @property
    def dialogues(self) -> int:
        """Dialogues that became durable."""
        return sum(self.stops.values())

    @property
    def all_turns(self) -> int:
        """Turns of both roles."""
        return sum(self.turns.values())

    def phase_s(self, phase: str, role: str | None = None) -> float:
        """Return the seconds that turns (of a role) have spent in a phase."""
        return sum(of.get(phase, 0.0) for side, of in self.phases.items() if role in (None, side))

    def turns_s(self, role: str | None = None) -> float:
        """Return the seconds of whole turns (of a role)."""
        return sum(self.phase_s(phase, role) for phase in PHASES)


class Session(_Kept):
    """One start of a generation, from its beginning to its end.

    Attributes:
        number: counts the starts of the run (`RunFolder.open`).
        began, written: time of day, ISO 8601; the file tells of what was until `written`.
        end: how it ended.
        starting_s, playing_s, stopping_s: its wall time: until dialogues began; while they were
            played; until all actors were gone.
        wanted: dialogues up to which it was to play; `before` of them were there when it began.
        roles: the engines by role.
    """

    format: Literal["duologue-usage"] = "duologue-usage"
    version: Literal[1] = 1
    number: int
    began: str
    written: str
    end: End = ""
    starting_s: float = 0.0
    playing_s: float = 0.0
    stopping_s: float = 0.0
    wanted: int = 0
    before: int = 0
    roles: dict[str, str] = Field(default_factory=dict)
    currency: str = ""
    engines: dict[str, EngineUse] = Field(default_factory=dict)
    walkers: WalkersUse = WalkersUse()

    @property
    def wall_s(self) -> float:
        """Seconds in all."""
        return self.starting_s + self.playing_s + self.stopping_s

    @property
    def tokens(self) -> int:
        """Tokens that the models have read (from the prefix cache or not) and written."""
        engines = self.engines.values()
        return int(sum(e.total("prompt_tokens") + e.total("completion_tokens") for e in engines))

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of all engines."""
        return sum(engine.gpu_hours for engine in self.engines.values())

    @property
    def cost(self) -> float | None:
        """What the GPUs cost; None where there are none, or a price is not known."""
        costs = [engine.cost for engine in self.engines.values() if engine.gpus]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if known and len(known) == len(costs) else None


def measured_speed(sessions: Iterable[Session]) -> dict[str, float]:
    """Return the tokens a second that one replica of each engine has written when it was busiest.

    A session keeps, for each replica, windows of some twenty seconds by the tenth of its places
    that were in use on average (without the first, in which it fills up). Here the windows of all
    replicas and sessions are put together, those of the highest tenth first, then lower ones until
    there is a minute of them; the speed is their tokens over their seconds. An engine that was
    never half full for a minute is left out: what it had to do says nothing about what it can.
    Sessions with another model, other places or other GPUs than the last one's are left out, too.
    """
    newest: dict[str, EngineUse] = {}
    found: dict[str, dict[int, list[Speed]]] = {}
    for session in sorted(sessions, key=lambda one: one.number, reverse=True):
        for name, engine in session.engines.items():
            if _alike(newest.setdefault(name, engine), engine):
                by_load = found.setdefault(name, {})
                for replica in engine.replicas.values():
                    for load, speed in replica.speeds.items():
                        by_load.setdefault(load, []).append(speed)
    fastest = {name: _busiest(by_load) for name, by_load in found.items()}
    return {name: speed for name, speed in fastest.items() if speed}


def _alike(one: EngineUse, other: EngineUse) -> bool:
    settings = ("kind", "model", "max_running", "gpus")
    return all(getattr(one, name) == getattr(other, name) for name in settings)


def _busiest(by_load: Mapping[int, Sequence[Speed]]) -> float:
    seconds, tokens = 0.0, 0
    for load in range(LOADS - 1, HALF - 1, -1):
        seconds += sum(speed.seconds for speed in by_load.get(load, ()))
        tokens += sum(speed.tokens for speed in by_load.get(load, ()))
        if seconds >= STEADY_S:
            return tokens / seconds
    return 0.0


# -- on disk


def read_sessions(round_: Folder, say: Callable[[str], None] = lambda text: None) -> list[Session]:
    """Return a round's sessions in their order.

    Args:
        say: is told of files that cannot be read, which are left out.
    """
    folder = round_.child(FOLDER)
    found = []
    for name in folder.names(PREFIX, SUFFIX):
        try:
            found.append(Session.model_validate_json(folder.read_bytes(name)))
        except (ValidationError, OSError) as error:
            why = str(error).splitlines()[0]
            say(f"warning: {folder.file(name)} is left out of what was used: {why}")
    return sorted(found, key=lambda session: session.number)


class UsageFile:
    """The file of one session, written by a thread, since a store may take its time."""

    def __init__(self, round_: Folder, number: int, say: Callable[[str], None]) -> None:
        self._folder = round_.child(FOLDER)
        self._name = f"{PREFIX}{number:04}{SUFFIX}"
        self._say = say
        self._due = 0.0
        self._thread: threading.Thread | None = None
        self._failure = ""
        self._told = False

    def due(self) -> bool:
        """Whether it is time to write, and nothing is being written."""
        return time.monotonic() >= self._due and not self._writing()

    def write(self, session: Session) -> None:
        """Begin to write; what went wrong the last time is said once."""
        if self._failure and not self._told:
            self._told = True
            self._say(f"warning: what is used cannot be noted: {self._failure}")
        self._due = time.monotonic() + WRITE_S
        data = session.model_dump_json(indent=1).encode()
        self._thread = threading.Thread(target=self._write, args=(data,), daemon=True)
        self._thread.start()

    def close(self, session: Session) -> None:
        """Write for the last time, and wait for it as long as a store may take."""
        ends = time.monotonic() + CLOSE_S
        if self._thread is not None:
            self._thread.join(CLOSE_S)
        if not self._writing():
            self.write(session)
            assert self._thread is not None
            self._thread.join(max(0.0, ends - time.monotonic()))

    def _writing(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _write(self, data: bytes) -> None:
        try:
            self._folder.create()
            self._folder.write_bytes(self._name, data)
            self._failure = ""
        except DuologueError as error:
            self._failure = str(error).splitlines()[0]
