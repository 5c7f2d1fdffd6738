"""vLLM's processes end with whoever holds the engine, killed at once and without a word."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.ray.command import HANG_S, LONG, ROOT

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow

HERE = """
import asyncio, signal
from actors.engines.backends import make_backend
from specs.engine_section import EngineSection

async def main():
    backend = make_backend(EngineSection(window=512, max_running=4, kv_cache_gb=0.25), "e")
    await backend.start()
    print("started", flush=True)
    await asyncio.Event().wait()

if __name__ == "__main__":
    asyncio.run(main())
"""
"""The engine of a command such as `evaluate`: its processes are the command's own children."""

ACTOR = """
import signal
import ray
from actors.engines.replica_actor import ReplicaActor
from specs.engine_section import EngineSection

ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
config = EngineSection(window=512, max_running=4, kv_cache_gb=0.25)
options = {"num_cpus": 0, "max_restarts": -1, "max_concurrency": 4000}
actor = ray.remote(ReplicaActor).options(**options).remote(config, "e")
ray.get(actor.start.remote())
print("started", flush=True)
signal.pause()
"""
"""The engine of a run. This process never waits for its raylet: killed, it stays a zombie."""


class Holder:
    """A process that holds an engine, and everything that it has started."""

    def __init__(self, folder: Path, script: str) -> None:
        file = folder / "holder.py"
        file.write_text(script, encoding="utf-8")
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, str(file)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.started = self.process.stdout.readline().strip()
        self.every = psutil.Process(self.process.pid).children(recursive=True)

    def named(self, name: str) -> list[psutil.Process]:
        """Return its processes of that name; one may not have its title, or its parent, yet."""
        for _ in range(50):
            found = [one for one in self.every if name in " ".join(one.cmdline())]
            if found:
                return found
            time.sleep(0.2)
            self.every = psutil.Process(self.process.pid).children(recursive=True)
        raise AssertionError(f"no process is called {name}: {self.every}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for one in self.every:
            if one.is_running():
                one.kill()


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Yield a folder with a short name, as sockets need it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _all_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=HANG_S)
    assert not [(one.pid, one.cmdline()) for one in alive]


@LONG
def test_an_engine_ends_with_its_command(temporary: Path) -> None:
    holder = Holder(temporary, HERE)
    try:
        assert holder.started == "started"
        held = holder.named("VLLM::") + holder.named("actors.engines.guard")
        holder.named("VLLM::Worker")[0].suspend()
        holder.process.kill()
        holder.process.wait()
        _all_gone(held)
        assert not list(holder.folder.glob("duologue-engine-*"))
    finally:
        holder.close()


def test_an_engine_ends_with_its_actor_and_an_actor_with_its_raylet(temporary: Path) -> None:
    holder = Holder(temporary, ACTOR)
    try:
        assert holder.started == "started"
        held = holder.named("VLLM::") + holder.named("actors.engines.guard")
        actor, raylet = holder.named("ray::ReplicaActor"), holder.named("raylet/raylet")
        # Stopped ones do not see anybody's end.
        for one in holder.named("VLLM::"):
            one.suspend()
        raylet[0].kill()
        _all_gone([*actor, *held])
        assert not list(holder.folder.glob("duologue-engine-*"))
    finally:
        holder.close()
