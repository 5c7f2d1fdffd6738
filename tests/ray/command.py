"""The command line, in a process of its own or in this one, and run files for it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from specs.records import dialogue_schema
from tests.unit.tiny_domain import write

ROOT = Path(__file__).resolve().parents[2]
HANG_S = 900
"""After this a command, or what is waited for, hangs, and its test fails.

Far above what anything here takes, for a busy machine without AVX-512 takes many times what a quick
one does, and how long something takes is not what these tests ask."""

LONG = pytest.mark.skipif(
    not os.environ.get("DUOLOGUE_LONG"),
    reason="takes more than a minute of a suite that has 25: run it with DUOLOGUE_LONG=1",
)

RUN_FILE = """\
[run]
name = "tea"
dialogues = {dialogues}
out = "{out}"
log_interval_s = 0.05
[domain]
path = "{domain}"
[engines.ref]
kind = "reference"
[engines.ref.faults]
latency_s = [{latency}, {latency}]
[roles]
user = "ref"
agent = "ref"
[walkers]
alive = 4
sinks = 2
[retrieval]
embedding = "lexical"
"""


def run_file(
    folder: Path, dialogues: int, latency: float = 0.0, out: str | Path | None = None
) -> Path:
    """Write the tiny domain and a run file for it; returns the run file."""
    domain, out = write(folder / "kiosk"), out or folder / "out"
    path = folder / "run.toml"
    path.write_text(RUN_FILE.format(dialogues=dialogues, latency=latency, domain=domain, out=out))
    return path


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a command: no cluster of anybody else's."""
    others = ("RAY_AUTH_MODE", "RAY_worker_niceness")  # tests/conftest.py
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_") or k in others}
    return {**kept, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1", **(more or {})}


@dataclass
class Command:
    """A running `duologue` in a process group of its own, its standard error read as it comes."""

    arguments: tuple[str, ...]
    process: subprocess.Popen[str] = field(init=False)
    said: str = ""

    def __post_init__(self) -> None:
        # What runs in a script's background ignores SIGINT, and so would all that it starts.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cluster.cli", *self.arguments],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def says(self, pattern: str) -> bool:
        """Read on until a line matches; False when the command ends before."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            if re.search(pattern, line):
                return True
        return False

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Return once it holds, while the command runs."""
        ends = time.monotonic() + HANG_S
        while not holds():
            if self.process.poll() is not None:
                self.end()
                raise AssertionError(self.said)
            assert time.monotonic() < ends
            time.sleep(0.2)  # looking costs, too, and the command wants the cores

    def interrupt(self) -> None:
        """Do what Ctrl-C in a terminal does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self, seconds: float = HANG_S) -> int:
        """Return the exit code."""
        try:
            _, said = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        self.said += said
        return self.process.returncode


def duologue(*arguments: str) -> tuple[int, str]:
    """Run a command to its end; returns its exit code and what it said on standard error."""
    command = Command(tuple(arguments))
    return command.end(), command.said


@contextlib.contextmanager
def one_ray() -> Iterator[None]:
    """Open a Ray for `in_process`; the variables that both change are put back afterwards."""
    from cluster.session import ray_session

    variables = dict(os.environ)
    os.environ.pop("RAY_ADDRESS", None)
    try:
        with ray_session(None):
            yield
    finally:
        os.environ.clear()
        os.environ.update(variables)


def in_process(*arguments: str) -> tuple[int, str]:
    """Run a command in this process, and within `one_ray` on that: a start of both takes longer.

    For what does not depend on whose process it is. What Ray's own processes print is not in what
    is returned, as it is in `duologue`'s.
    """
    from cluster.cli import main

    said, code = io.StringIO(), 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            main(arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return code, said.getvalue()


def rows(folder: Path) -> dict[int, dict[str, Any]]:
    """Return a run's dialogues by index, read by pyarrow; fails when an index is there twice."""
    import pyarrow.dataset as ds

    parts = folder / "out" / "tea" / "round-0" / "dialogues"
    files = sorted(str(path) for path in parts.glob("part-*.parquet"))
    found = ds.dataset(files, schema=dialogue_schema()).to_table().to_pylist() if files else []
    assert len({row["index"] for row in found}) == len(found)
    return {row["index"]: row for row in found}
