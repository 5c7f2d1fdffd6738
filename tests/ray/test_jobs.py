"""`ray job submit`: the same command on a cluster with a job server, from the working directory."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from tests.ray.command import ROOT, environment, rows

START_S = 60.0
OTHER_PORTS = (
    "ray-client-server-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
)
"""By default each is the same for all heads of a machine."""
BIN = Path(sys.executable).parent


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a head with a job server; ends what it started, by its process group."""
    # Sockets lie in this folder, and their paths must be short.
    folder = Path(f"/tmp/duologue-{os.getpid()}")
    log = tmp_path_factory.mktemp("head") / "log"
    port, dashboard, *others = free_ports(6)
    with log.open("w") as said:
        head = subprocess.Popen(
            [
                str(BIN / "ray"), "start", "--head", "--block", "--num-cpus", "2",
                "--node-ip-address", "127.0.0.1", "--port", str(port),
                *(f"--{name}={free}" for name, free in zip(OTHER_PORTS, others, strict=True)),
                "--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard),
                "--temp-dir", str(folder), "--disable-usage-stats",
            ],
            env=job_environment(),
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{dashboard}"
        assert answers(head, address), log.read_text()
        yield address
    finally:
        end(head)
        shutil.rmtree(folder, ignore_errors=True)


def job_environment() -> dict[str, str]:
    """Return the environment of the head and of what is submitted: the tests' own interpreter."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    # Ray may turn authentication on by itself where a token lies in the home folder.
    return environment({"PATH": path, "RAY_AUTH_MODE": "disabled"})


def answers(head: subprocess.Popen[bytes], address: str) -> bool:
    ends = time.monotonic() + START_S
    while head.poll() is None and time.monotonic() < ends:
        try:
            with urllib.request.urlopen(f"{address}/api/jobs/", timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False


def end(head: subprocess.Popen[bytes]) -> None:
    """End the head and every process that came of it, by their numbers."""
    try:
        family = psutil.Process(head.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    head.send_signal(signal.SIGTERM)
    try:
        head.wait(20)
    except subprocess.TimeoutExpired:
        head.kill()
        head.wait(20)
    for process in family:
        if process.is_running():
            process.kill()
    psutil.wait_procs(family, 20)


def submit(address: str, *before: str, settings: Sequence[str]) -> tuple[int, str]:
    """Submit `generate` from the repository's root as the README says; returns code and output."""
    command = [
        str(BIN / "ray"), "job", "submit", "--address", address, "--working-dir", ".", "--",
        *before, "python", "-m", "cluster.cli", "generate", "specs/runs/demo.toml",
        *(f"--set={setting}" for setting in settings),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, env=job_environment(), capture_output=True, text=True, timeout=150
    )
    return done.returncode, done.stdout + done.stderr


REHEARSAL = ("engines.cpu.kind=reference", "retrieval.embedding=lexical", "run.dialogues=6")


def test_a_submitted_job_plays_its_dialogues(jobs: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said = submit(jobs, settings=(f"run.out={out}", "run.name=tea", *REHEARSAL))
    assert code == 0, said
    assert "6 dialogues (" in said
    assert set(rows(tmp_path)) == set(range(6))


def test_a_job_is_given_the_code_alone_and_a_folder_that_would_vanish_is_refused(jobs: str) -> None:
    before = ("sh", "-c", 'ls -A; command -v python; exec "$@"', "sh")
    code, said = submit(jobs, *before, settings=("run.out=runs", *REHEARSAL))
    assert code != 0
    names = set(said.split("\n"))
    assert {"specs", "actors", "cluster", "trainer", "pyproject.toml"} <= names
    assert not names & {
        ".git",
        ".venv",
        "runs",
        "dist",
        ".hypothesis",
        ".mypy_cache",
        "__pycache__",
    }
    assert str(BIN / "python") in names
    assert "run.out is 'runs': under `ray job submit` that lies in the job's unpacked" in said
    assert "--set run.out=/shared/runs" in said
    assert "Traceback" not in said.split(str(BIN / "python"))[1]


def test_a_job_that_is_stopped_leaves_what_is_durable_and_is_gone_on_with(
    jobs: str, tmp_path: Path
) -> None:
    slow = "engines.cpu.faults.latency_s=[0.3, 0.3]"
    settings = (f"run.out={tmp_path / 'out'}", "run.name=tea", *REHEARSAL, "walkers.alive=2")
    log = tmp_path / "out" / "tea" / "round-0" / "log"
    command = [
        str(BIN / "ray"), "job", "submit", "--address", jobs, "--working-dir", ".",
        "--submission-id", "stopped", "--no-wait", "--",
        "python", "-m", "cluster.cli", "generate", "specs/runs/demo.toml",
        *(f"--set={setting}" for setting in (*settings, slow)),
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, env=job_environment(), check=True, timeout=120)
    ends = time.monotonic() + START_S
    while not (log.is_dir() and list(log.glob("log-*"))):  # it has begun to play
        assert time.monotonic() < ends
        time.sleep(0.2)
    stop = [str(BIN / "ray"), "job", "stop", "--address", jobs, "stopped"]
    stopped = subprocess.run(stop, env=job_environment(), capture_output=True, timeout=60)
    assert b"was stopped" in stopped.stdout + stopped.stderr
    first = rows(tmp_path)
    assert len(first) < 6
    code, said = submit(jobs, settings=settings)
    assert code == 0, said
    whole = rows(tmp_path)
    assert set(whole) == set(range(6))
    assert {index: whole[index] for index in first} == first
