"""A Ray head with a job server, as `ray start --head` makes it, for tests of a real one."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.ray.command import HANG_S, environment

BIN = Path(sys.executable).parent
OTHER_PORTS = (
    "ray-client-server-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
)
"""By default each is the same for all heads of a machine."""

_number = itertools.count()


@dataclass(frozen=True)
class Head:
    """Where it is reached: the job server by HTTP, the cluster by its drivers."""

    jobs: str
    address: str


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def ray_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of heads and of what is submitted: the tests' own interpreter."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    # Ray may turn authentication on by itself where a token lies in the home folder.
    return environment({"PATH": path, "RAY_AUTH_MODE": "disabled", **(more or {})})


def other_ports() -> list[str]:
    """Return arguments of `ray start` that keep it out of the way of other heads."""
    ports = free_ports(len(OTHER_PORTS))
    return [f"--{name}={free}" for name, free in zip(OTHER_PORTS, ports, strict=True)]


@contextlib.contextmanager
def head(
    log: Path,
    more: Mapping[str, str] | None = None,
    arguments: Sequence[str] = ("--num-cpus=2",),
    port: int | None = None,
) -> Iterator[Head]:
    """Start a head; ends what it started, by its process.

    Args:
        log: gets what it says.
        more: environment variables.
        arguments: of `ray start`, beside those that keep it apart from others.
        port: of the cluster; None for a free one.
    """
    # Sockets lie in this folder, and their paths must be short.
    folder = Path(f"/tmp/duologue-{os.getpid()}-{next(_number)}")
    dashboard, free = free_ports(2)
    port = port or free
    patient = {"RAY_DASHBOARD_STARTUP_TIMEOUT_S": str(HANG_S)}
    with log.open("w") as said:
        process = subprocess.Popen(
            [
                str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats",
                "--port", str(port), *other_ports(), *arguments,
                "--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard),
                "--temp-dir", str(folder),
            ],
            env=ray_environment({**patient, **(more or {})}),
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        jobs = f"http://127.0.0.1:{dashboard}"
        assert started(log, process), log.read_text()
        assert answers(jobs), log.read_text()
        yield Head(jobs, f"127.0.0.1:{port}")
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def started(log: Path, process: subprocess.Popen[bytes]) -> bool:
    """Wait until a head says that it is there; False when it has ended, or is very late."""
    ends = time.monotonic() + HANG_S
    while time.monotonic() < ends and process.poll() is None:
        if "Ray runtime started" in log.read_text():
            return True
        time.sleep(0.2)
    return False


def answers(jobs: str) -> bool:
    """Wait until a job server answers; False when it is very late."""
    ends = time.monotonic() + HANG_S
    while time.monotonic() < ends:
        try:
            with urllib.request.urlopen(f"{jobs}/api/jobs/", timeout=5):
                return True
        except urllib.error.HTTPError as error:
            return error.code in (401, 403)  # it is there, and wants a token
        except OSError:
            time.sleep(0.2)
    return False


def end(process: subprocess.Popen[bytes]) -> None:
    """End a head and every process that came of it, by their numbers."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(20)
    for child in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(family, 20)
