"""More and more simulated replicas: turns a second, share of a perfect scheduler, CPU a turn.

make bench PYTEST_ARGS='-k scale'
DUOLOGUE_BENCH_REPLICAS='8 64' DUOLOGUE_BENCH_SECONDS=60 make bench PYTEST_ARGS='-k scale'

Replicas have the latencies of a 7B model (`scale_figures.ENGINE_7B`) and its 64 places, as long as
their turns are no more than this machine's cores can carry (`DUOLOGUE_BENCH_PLACES` places in all);
beyond that they have fewer places each, so that their number is real and the load bearable. At the
end all replicas at full width show what the cores carry when they are full. Everything but the
replicas is what a user's run has (`scaled_run`).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from tests.bench.scale_figures import (
    ENGINE_7B,
    PLACES_7B,
    Figures,
    figures,
    heading,
    projection,
    row,
)
from tests.bench.scaled_run import Setting, play
from tests.ray.command import ROOT

REPLICAS = [int(n) for n in os.environ.get("DUOLOGUE_BENCH_REPLICAS", "1 2 4 8 16 64 256").split()]
SECONDS = float(os.environ.get("DUOLOGUE_BENCH_SECONDS", "90"))
PLACES = int(os.environ.get("DUOLOGUE_BENCH_PLACES", "512"))
WIDE = int(os.environ.get("DUOLOGUE_BENCH_WIDE", "256"))
WALKERS = os.environ.get("DUOLOGUE_BENCH_WALKERS", "")
ACTORS = int(os.environ.get("DUOLOGUE_BENCH_ACTORS", "24"))
EMBEDDING = os.environ.get("DUOLOGUE_BENCH_EMBEDDING", "lexical")

TURN_S, TURNS = 0.55, 24.5
"""A turn's mean seconds and a dialogue's mean turns, to choose how many dialogues to play."""


def setting(replicas: int, places: int, seconds: float = SECONDS) -> Setting:
    """Return a run of so many seconds, of which a good half is steady."""
    alive = max(1, round(1.5 * replicas * places))
    dialogues = max(3 * alive, round(replicas * places / TURN_S / TURNS * seconds))
    walkers = int(WALKERS) if WALKERS else None
    return Setting(
        replicas={"shared": replicas},
        places=places,
        dialogues=dialogues,
        faults=ENGINE_7B,
        alive=alive if walkers else None,
        walkers=walkers,
        limit_s=6 * seconds,
        embedding=EMBEDDING,
    )


def commit() -> str:
    """Return the commit that is measured."""
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.timeout(7200)
def test_scale(capsys: Any, tmp_path: Path) -> None:
    with capsys.disabled():
        print(f"\nscale, commit {commit().strip()}, {os.cpu_count()} cores\n{heading()}")
    rows: list[Figures] = []
    for replicas in REPLICAS:
        places = max(1, min(PLACES_7B, PLACES // replicas))
        rows.append(_shown(capsys, setting(replicas, places), tmp_path))
    carried = rows[-1]
    if WIDE:
        # Far more than the cores carry: whether what they carry falls when they are full.
        wide = setting(WIDE, PLACES_7B, SECONDS)
        limited = Setting(**{**_fields(wide), "walkers": 4, "alive": 4 * 1500, "limit_s": SECONDS})
        _shown(capsys, limited, tmp_path)
    with capsys.disabled():
        print("\n".join(projection(carried, max(rows, key=lambda one: one.steady.turns_s))))
    assert all(one.played.complete for one in rows)


def _fields(one: Setting) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Setting.__slots__}


def _shown(capsys: Any, one: Setting, folder: Path) -> Figures:
    found = figures(play(one, folder / f"{one.replicas}-{one.places}"))
    with capsys.disabled():
        print(row(found), flush=True)
    return found


class Callee:
    """An actor that is called."""

    async def call(self) -> None: ...

    async def hold(self) -> None:
        await asyncio.sleep(600)


class Caller:
    """An actor that calls many others, and looks at what that takes."""

    async def call(self, callees: list[Any]) -> tuple[float, int]:
        """Call all of them; returns this process's own MiB, and its descriptors."""
        for callee in callees:
            await callee.call.remote()
        process = psutil.Process()
        return process.memory_full_info().uss / 2**20, process.num_fds()

    async def hold(self, callees: list[Any]) -> tuple[float, int]:
        """Leave a call open at each of them; returns the same."""
        self._held = [callee.hold.remote() for callee in callees]
        return await self.call(callees)


def test_what_a_connection_takes(capsys: Any) -> None:
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    try:
        options: dict[str, Any] = {"num_cpus": 0, "max_concurrency": 1000}
        callee: Any = ray.remote(Callee).options(**options)
        caller_class: Any = ray.remote(Caller).options(**options)
        caller, callees = caller_class.remote(), [callee.remote() for _ in range(ACTORS)]
        ray.get([one.call.remote() for one in callees])
        few, few_open = ray.get(caller.call.remote(callees[:1]))
        many, many_open = ray.get(caller.call.remote(callees))
        held, _ = ray.get(caller.hold.remote(callees))
    finally:
        ray.shutdown()
    with capsys.disabled():
        print(
            f"\na connection of an actor to another ({ACTORS} of them): {many_open - few_open} "
            f"descriptors and {many - few:.1f} MiB in all, {held - many:.1f} MiB more with a call "
            "open at each"
        )
    assert many_open > few_open
