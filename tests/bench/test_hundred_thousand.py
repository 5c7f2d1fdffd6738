"""100,000 dialogues through one run: is memory flat, and how long does it take to go on from there?

make bench PYTEST_ARGS='-k hundred_thousand'
DUOLOGUE_BENCH_DIALOGUES=5000 make bench PYTEST_ARGS='-k hundred_thousand'

The tiny domain, and the reference engine without latencies. The run is killed (signal 9, all of it)
near its end, and the same command goes on; then once more, with everything there. Memory is what a
process has for itself (USS) of the largest of its kind, and its slope is that of the second half of
what the first run played.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from specs.parts import Folder, durable_indices, part_names
from tests.bench.process_costs import DRIVER, KINDS, RAY, SERVERS, Costs, slope, watched
from tests.bench.test_scale import commit
from tests.ray.command import ROOT, environment
from tests.unit.tiny_domain import write

DIALOGUES = int(os.environ.get("DUOLOGUE_BENCH_DIALOGUES", "100000"))
ALIVE = int(os.environ.get("DUOLOGUE_BENCH_ALIVE", "200"))
WALKERS = int(os.environ.get("DUOLOGUE_BENCH_WALKERS", "2"))
KILLED_AT = 0.9

RUN_FILE = """\
[run]
name = "many"
dialogues = {dialogues}
out = "{out}"
[domain]
path = "{domain}"
[engines.ref]
kind = "reference"
max_running = 4096
[roles]
user = "ref"
agent = "ref"
[walkers]
count = {walkers}
alive = {alive}
sinks = 2
[retrieval]
embedding = "lexical"
"""


@dataclass
class Generate:
    """`duologue generate` at work.

    Attributes:
        progress: (seconds since the epoch, dialogues done) of each line that tells them.
        playing_s: seconds from the command to the first dialogues; None before.
    """

    run_file: Path
    began: float = field(default_factory=time.time)
    progress: list[tuple[float, int]] = field(default_factory=list)
    playing_s: float | None = None
    said: str = ""
    process: subprocess.Popen[str] = field(init=False)
    _reader: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        command = [sys.executable, "-m", "cluster.cli", "generate", str(self.run_file)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=-3, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            now = time.time()
            self.said += line
            if match := re.match(r"dialogues (\d+)/", line):
                self.progress.append((now, int(match[1])))
            elif line.startswith("playing"):
                self.playing_s = now - self.began

    @property
    def done(self) -> int:
        """Dialogues, as it told them last."""
        return self.progress[-1][1] if self.progress else 0

    def kill(self) -> None:
        """End everything at once."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        for pid in [self.process.pid, *(child.pid for child in children)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()

    def end(self) -> float:
        """Wait for its end; returns the seconds from the command."""
        code = self.process.wait()
        self._reader.join()
        assert code == 0, self.said[-3000:]
        return time.time() - self.began


@pytest.mark.timeout(4 * 3600)
def test_hundred_thousand(capsys: Any, tmp_path: Path) -> None:
    def tell(text: str) -> None:
        with capsys.disabled():
            print(text, flush=True)

    path, out = tmp_path / "run.toml", tmp_path / "out"
    path.write_text(
        RUN_FILE.format(
            dialogues=DIALOGUES,
            out=out,
            domain=write(tmp_path / "kiosk"),
            alive=ALIVE,
            walkers=WALKERS,
        )
    )
    tell(f"\n{DIALOGUES} dialogues, commit {commit().strip()}, {WALKERS} walkers of {ALIVE} alive")
    first = Generate(path)
    with watched(first.process.pid, interval_s=5.0, memory=True) as costs:
        while first.done < KILLED_AT * DIALOGUES and first.process.poll() is None:
            time.sleep(0.5)
        assert first.process.poll() is None, first.said[-3000:]
        first.kill()
    pace = slope(first.progress[len(first.progress) // 4 :])
    tell(
        f"  played {first.done} in {first.progress[-1][0] - first.began:.0f} s, {pace:.1f} a second"
    )
    for kind in (DRIVER, *dict.fromkeys(KINDS.values()), *SERVERS.values(), RAY):
        tell(_memory(kind, costs, first.progress))
    dialogues = Folder.of(out).child("many", "round-0", "dialogues")
    log = Folder.of(out).child("many", "round-0", "log")
    tell(f"  killed: {len(part_names(dialogues))} parts and {len(log.names('log-'))} log files")
    second = Generate(path)
    seconds = second.end()
    assert second.playing_s is not None
    tell(f"  the same command plays after {second.playing_s:.1f} s, is done after {seconds:.0f} s")
    third = Generate(path)
    tell(f"  and finds all there in {third.end():.1f} s")
    assert durable_indices(dialogues) == set(range(DIALOGUES))


def _memory(kind: str, costs: Costs, progress: list[tuple[float, int]]) -> str:
    """Return what a kind's largest process had, by dialogues done, and how fast that grows."""
    points = [
        (done, sample.memory[kind][0])
        for sample in costs.samples
        if kind in sample.memory and (done := _done_at(progress, sample.at)) > 0
    ]
    if not points:
        return f"  {kind:>10}: never seen"
    half = [point for point in points if point[0] >= points[-1][0] / 2]
    shown = [points[int(share * (len(points) - 1))] for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    each = ", ".join(f"{memory:.0f} at {done:.0f}" for done, memory in shown)
    return f"  {kind:>10}: {each} MiB; {slope(half) * 10_000:+.2f} MiB per 10,000 dialogues"


def _done_at(progress: list[tuple[float, int]], at: float) -> float:
    """Return how many dialogues were done at a time, by the straight line between two lines."""
    for (before, low), (after, high) in itertools.pairwise(progress):
        if before <= at <= after:
            return low + (high - low) * (at - before) / (after - before)
    return 0.0
