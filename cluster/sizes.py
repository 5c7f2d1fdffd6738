"""How many of everything a run has: what the run file says, and for `auto` what the plan finds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from specs.run_file import RunFile

SPARE = 1.5
"""Dialogues alive for each place of an engine, so that none is empty while tools and sinks work."""

ALIVE_EACH = 1000
"""Dialogues that one walker plays at once: of a 7B model's speed, a good half of a core."""

WALKERS_A_SINK = 4
WALKERS_A_RETRIEVER = 2


def in_words(least: int, most: int) -> str:
    """Return how many replicas there are, in words."""
    return f"{most}" if least == most else f"{least} to {most}"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many of everything.

    Attributes:
        replicas: the least and the most, by engine.
        alive: dialogues of one walker.
    """

    replicas: Mapping[str, tuple[int, int]]
    walkers: int
    alive: int
    sinks: int
    retrievers: int


def sizes(run: RunFile, auto: Mapping[str, int] | None = None) -> Sizes:
    """Return how many of everything a run has.

    Args:
        auto: replicas of the engines whose `replicas` are `auto`, as the plan found them; 1 for
            those that are not in it.
    """
    engines = {name: run.engines[name] for name in run.speaking_engines}
    replicas = {name: (engine.least, engine.most) for name, engine in engines.items()}
    for name, count in (auto or {}).items():
        if name in engines and engines[name].replicas == "auto":
            replicas[name] = (1, count)
    section = run.walkers
    places = sum(replicas[name][1] * engine.max_running for name, engine in engines.items())
    wanted = min(run.run.dialogues, math.ceil(SPARE * places))
    walkers = math.ceil(wanted / ALIVE_EACH) if section.count == "auto" else section.count
    return Sizes(
        replicas=replicas,
        walkers=walkers,
        alive=math.ceil(wanted / walkers) if section.alive == "auto" else section.alive,
        sinks=math.ceil(walkers / WALKERS_A_SINK) if section.sinks == "auto" else section.sinks,
        retrievers=math.ceil(walkers / WALKERS_A_RETRIEVER)
        if section.retrievers == "auto"
        else section.retrievers,
    )
