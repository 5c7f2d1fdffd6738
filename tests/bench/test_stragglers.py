"""Stragglers, and replicas of unequal speed: share of a perfect scheduler, and who is kept busy.

make bench PYTEST_ARGS='-k stragglers'
DUOLOGUE_BENCH_SECONDS=240 make bench PYTEST_ARGS='-k stragglers'

User and agent have engines of their own. The agent says three times as many words, so its engine is
the bottleneck; in the last run of each kind there are more agents, and the two are even.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.bench.scale_figures import ENGINE_7B, Figures, figures
from tests.bench.scaled_run import Setting, play
from tests.bench.test_scale import TURN_S, TURNS, commit

SECONDS = float(os.environ.get("DUOLOGUE_BENCH_SECONDS", "180"))
PLACES = int(os.environ.get("DUOLOGUE_BENCH_PLACES_EACH", "32"))
ONLY = os.environ.get("DUOLOGUE_BENCH_CASES", "")
STRAGGLERS = {"stragglers": 0.01, "straggler_factor": 50.0}
SPEEDS = {"user": [1.0, 0.5], "agent": [1.0, 0.5]}


def setting(replicas: dict[str, int], **more: Any) -> Setting:
    """Return a run of so many seconds of its slower engine."""
    places = PLACES * sum(replicas.values())
    alive = round(1.5 * places)
    dialogues = max(3 * alive, round(places / TURN_S / TURNS * SECONDS))
    found = Setting(
        replicas=replicas, places=PLACES, dialogues=dialogues, faults=ENGINE_7B, limit_s=8 * SECONDS
    )
    return replace(found, **more)


UNEVEN, EVEN = {"user": 2, "agent": 2}, {"user": 2, "agent": 5}
SLOW = {**ENGINE_7B, **STRAGGLERS}
CASES = {
    "nothing wrong": setting(UNEVEN),
    "nothing wrong, both sides even": setting(EVEN),
    "1% take 50 times as long": setting(UNEVEN, faults=SLOW),
    "1% take 50 times as long, both sides even": setting(EVEN, faults=SLOW),
    "every second replica at half speed": setting(UNEVEN, speeds=SPEEDS),
    "every second replica at half speed, both sides even": setting(EVEN, speeds=SPEEDS),
}


@pytest.mark.timeout(7200)
def test_stragglers(capsys: Any, tmp_path: Path) -> None:
    with capsys.disabled():
        print(f"\nstragglers, commit {commit().strip()}, {PLACES} places a replica")
    played = 0
    for number, (name, case) in enumerate(CASES.items()):
        if ONLY and str(number) not in ONLY.split():
            continue
        found = figures(play(case, tmp_path / str(number)))
        played += 1
        with capsys.disabled():
            print(_row(name, found), flush=True)
        assert found.played.complete
    assert played


def _row(name: str, found: Figures) -> str:
    steady, replicas = found.steady, found.played.setting.replicas
    busiest = max(found.perfect_busy, key=lambda engine: found.perfect_busy[engine])
    each = ", ".join(
        f"{engine} {steady.busy[engine]:.3f} ({found.perfect_busy[engine]:.3f})"
        for engine in replicas
    )
    sizes = " + ".join(f"{count} {engine}" for engine, count in replicas.items())
    return (
        f"  {name} ({sizes}): {steady.turns_s:.1f} of {found.perfect_turns_s:.1f} turns/s, "
        f"{found.share:.3f}, start and drain in it {found.whole:.3f}; bottleneck {busiest}; "
        f"places in use (perfect): {each}; stretch {steady.stretch:.3f}"
    )
