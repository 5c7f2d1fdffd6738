"""What durability costs, and what `kill -9` of everything loses.

make bench PYTEST_ARGS='-k durability'
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from actors.engines.client import EngineClient
from actors.engines.ray_replica import RayReplica
from actors.sink import SINK_OPTIONS, SinkActor
from actors.sink_client import RaySinks
from actors.turn_log import read_log
from actors.walker import SinkClient, Walker
from actors.walker_actor import calm_collector
from specs.domain import Domain
from specs.engine import EngineInfo
from specs.loader import open_domain
from specs.parts import Folder, read_dialogues
from tests.bench.test_orchestration import (
    Endless,
    Forgetful,
    make_cast,
    reference_engine,
)
from tests.ray.command import ROOT, environment

ALIVE = int(os.environ.get("DUOLOGUE_BENCH_ALIVE", "200"))
SECONDS = float(os.environ.get("DUOLOGUE_BENCH_SECONDS", "15"))
KILLS = int(os.environ.get("DUOLOGUE_BENCH_KILLS", "6"))

RUN_FILE = """\
[run]
name = "killed"
dialogues = 100000
out = "{out}"
[domain]
path = "recipe"
[engines.ref]
kind = "reference"
max_running = 4096
faults = {{ latency_s = [0.02, 0.2] }}
[roles]
user = "ref"
agent = "ref"
[walkers]
alive = {alive}
[retrieval]
embedding = "lexical"
"""


async def speed(domain: Domain, replicas: dict[str, RayReplica], sinks: SinkClient) -> float:
    """Return turns a second with these sinks, past the start."""
    client = EngineClient(replicas, f"durable-{time.monotonic_ns()}")
    info = EngineInfo("reference", "references", 0, 100_000)
    cast = make_cast(domain, client, info, None)
    walker = Walker("bench", cast, Endless(), sinks, ALIVE)
    running = asyncio.create_task(walker.run())
    await asyncio.sleep(5)
    began, turns = time.monotonic(), walker.stats.turns
    await asyncio.sleep(SECONDS)
    found = (walker.stats.turns - turns) / (time.monotonic() - began)
    walker.stop()
    await running
    await client.close()
    return found


def test_durability_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Turns a second with the turn log and without any sink, by turns in one run."""
    domain = open_domain("recipe")
    calm_collector()
    with reference_engine() as replicas:
        with_log, without = [], []
        for number in range(3):
            without.append(asyncio.run(speed(domain, replicas, Forgetful())))
            sink_class: Any = ray.remote(SinkActor).options(**SINK_OPTIONS)
            sink: Any = sink_class.remote(Folder.of(tmp_path / str(number)), 0, 1)
            with_log.append(asyncio.run(speed(domain, replicas, RaySinks([sink]))))
            ray.get(sink.close.remote())
            ray.kill(sink)
    with capsys.disabled():
        each = ", ".join(f"{a / b:.3f}" for a, b in zip(with_log, without, strict=True))
        print(
            f"\ndurability: {sum(with_log) / 3:.0f} turns/s with the turn log, "
            f"{sum(without) / 3:.0f} without any sink, {ALIVE} alive: "
            f"{sum(with_log) / sum(without):.3f} ({each})"
        )


def test_durability_at_kill_9(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Turns that were said and are not on disk, in units of log interval times turns a second."""
    lines = []
    for number in range(KILLS):
        folder = tmp_path / str(number)
        folder.mkdir()
        lost, pace, known = killed(folder, after_s=8.0 + 0.37 * number)
        lines.append(
            f"  {lost:.0f} turns lost of {known:.0f}, {lost / (2.0 * pace):.2f} of 2 s x "
            f"{pace:.0f} turns/s"
        )
    with capsys.disabled():
        print("\ndurability: everything killed by signal 9")
        print("\n".join(lines))


def killed(folder: Path, after_s: float) -> tuple[float, float, float]:
    """Return the turns lost, turns a second, and turns said when all was killed at once."""
    run_file, notes = folder / "run.toml", folder / "notes"
    run_file.write_text(RUN_FILE.format(out=folder / "out", alive=ALIVE))
    command = [sys.executable, "-m", "tests.bench.durable_run", str(run_file), str(notes)]
    with (folder / "said").open("wb") as said:
        driver = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=said, stderr=said)
        while not notes.exists() and driver.poll() is None:
            time.sleep(0.1)
        time.sleep(after_s)
        family = [driver.pid, *(p.pid for p in psutil.Process(driver.pid).children(True))]
        at = time.time()
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        driver.wait()
    told = [tuple(map(float, line.split())) for line in notes.read_text().splitlines() if line]
    (first_at, first), (last_at, last) = told[len(told) // 2], told[-1]
    pace = (last - first) / (last_at - first_at)
    known = last + pace * (at - last_at)  # what was said since the last note
    return known - on_disk(folder / "out" / "killed" / "round-0"), pace, known


def on_disk(place: Path) -> int:
    """Return how many turns can be read back."""
    folder = Folder.of(place)
    log = read_log(folder.child("log"))
    rows = {d.index: len(d.turns) for d in read_dialogues(folder.child("dialogues"))}
    rows |= {index: len(ended.turns) for index, ended in log.finished.items()}
    rows |= {index: len(known.turns) for index, known in log.unfinished.items()}
    return sum(rows.values())
