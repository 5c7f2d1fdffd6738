"""Sessions and run files for the tests of what a generation uses."""

from __future__ import annotations

from typing import Any

from actors.laps import PHASES
from cluster.usage import EngineUse, ReplicaUse, Session, WalkersUse
from specs.run_file import RunFile, validate


def run_of(budget: dict[str, Any] | None = None, **engines: dict[str, Any]) -> RunFile:
    """A run file with these engines, `user` and `agent` unless others are given."""
    engines = engines or {"user": {}, "agent": {}}
    names = list(engines)
    data = {
        "run": {"name": "r", "dialogues": 10},
        "domain": {"path": "recipe"},
        "engines": {name: {"kind": "reference", **engine} for name, engine in engines.items()},
        "roles": {"user": names[0], "agent": names[-1]},
        "cluster": {"gpu_hour_price": 2.5, "currency": "EUR"},
        "budget": budget or {},
    }
    return validate(data, "run.toml")


def engine_of(
    load: float, replicas: int = 1, seconds: float = 600.0, kind: str = "vllm", **figures: Any
) -> EngineUse:
    """An engine whose replicas had this share of their places in use; figures are of each."""
    fields = {name: figures.pop(name) for name in ("gpus", "price") if name in figures}
    one = ReplicaUse(up_s=seconds, busy_s=seconds, load_s=load * seconds, **figures)
    return EngineUse(
        kind=kind,
        model="m",
        max_running=100,
        replicas={f"e-{number}": one for number in range(replicas)},
        **fields,
    )


def walkers_of(share: float = 0.3, seconds: float = 60_000.0, **phases: float) -> WalkersUse:
    """Walkers whose 20,000 turns took so long; phases are shares of that, decoding is the rest."""
    phases = {"decode": 1.0 - sum(phases.values()), **phases}
    spent = {name: seconds / 2 * phases.get(name, 0.0) for name in PHASES}
    return WalkersUse(
        seats=2,
        alive=100,
        turns={"user": 10_000, "agent": 10_000},
        phases={"user": spent, "agent": spent},
        stops={"ended": 1000},
        core_share=share,
        most_core_share=share,
    )


def session_of(
    engines: dict[str, EngineUse] | None = None, walkers: WalkersUse | None = None, **fields: Any
) -> Session:
    """A session of ten minutes."""
    engines = engines if engines is not None else {"user": engine_of(0.7), "agent": engine_of(0.7)}
    names = list(engines)
    defaults = {
        "number": 1,
        "began": "2026-01-01T00:00:00+00:00",
        "written": "2026-01-01T00:10:30+00:00",
        "end": "done",
        "starting_s": 30.0,
        "playing_s": 600.0,
        "wanted": 10_000,
        "roles": {"user": names[0], "agent": names[-1]} if names else {},
        "currency": "EUR",
    }
    return Session(**{**defaults, **fields}, engines=engines, walkers=walkers or walkers_of())
