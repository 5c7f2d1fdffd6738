"""However an engine's owner ends, its guard clears up what the engine's processes leave."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from actors.engines.guard import Guard, processes
from specs.errors import EngineError

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60

CORE = """
import os, signal, subprocess, sys
from multiprocessing.shared_memory import SharedMemory
import setproctitle
setproctitle.setproctitle("VLLM::EngineCore")
memory = SharedMemory(create=True, size=64)
worker = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print(worker.pid, memory._name.strip("/"), flush=True)
signal.pause()
"""
"""It names itself, as vLLM's processes do, and starts another one."""

OWNER = """
import json, os, signal, subprocess, sys
from actors.engines.guard import Guard
guard = Guard()
given = guard.begin()
core = subprocess.Popen(
    [sys.executable, "-c", sys.argv[1]], env=os.environ | given, stdout=subprocess.PIPE, text=True
)
worker, memory = core.stdout.readline().split()
if sys.argv[2] == "loaded":
    guard.loaded()
print(json.dumps([guard._process.pid, core.pid, int(worker), memory, str(guard._folder)]))
sys.stdout.flush()
signal.pause()
"""


class Owned:
    """A process that holds an engine of two processes."""

    def __init__(self, state: str) -> None:
        self.owner = subprocess.Popen(
            [sys.executable, "-c", OWNER, CORE, state],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.owner.stdout is not None
        guard, core, worker, memory, folder = json.loads(self.owner.stdout.readline())
        self.memory, self.folder = Path("/dev/shm", memory), Path(folder)
        self.guard, self.core, self.worker = map(psutil.Process, (guard, core, worker))
        marked = [psutil.Process(pid) for pid in processes(self.folder)]
        self.tracker = next(one for one in marked if one not in (self.core, self.worker))

    @property
    def every(self) -> list[psutil.Process]:
        return [self.guard, self.core, self.worker, self.tracker]


@pytest.fixture
def owned() -> Iterator[Callable[[str], Owned]]:
    made: list[Owned] = []

    def make(state: str) -> Owned:
        made.append(Owned(state))
        return made[-1]

    yield make
    for one in made:
        one.owner.kill()
        one.owner.wait()
        for process in one.every:
            if process.is_running():
                process.kill()


def _hung(owned: Owned) -> None:
    owned.core.suspend()
    owned.worker.suspend()
    # Ray kills an actor's whole process group, Python's tracker of shared memory with it.
    owned.tracker.kill()


def _untouched(_: Owned) -> None:
    """Nothing happens before the owner's death."""


@pytest.mark.parametrize(("state", "before"), [("loaded", _hung), ("loading", _untouched)])
def test_nothing_stays_behind_a_killed_owner(
    owned: Callable[[str], Owned], state: str, before: Callable[[Owned], Any]
) -> None:
    one = owned(state)
    assert one.memory.exists()
    assert one.folder.is_dir()
    before(one)
    one.owner.kill()
    one.owner.wait()
    _, alive = psutil.wait_procs(one.every, timeout=SECONDS)
    assert not alive
    assert not one.memory.exists()
    assert not one.folder.exists()


def test_the_owner_clears_up_at_once_and_touches_nothing_else() -> None:
    waiting = [sys.executable, "-c", "import signal; signal.pause()"]
    guard = Guard()
    given = guard.begin()
    folder = Path(given["VLLM_RPC_BASE_PATH"])
    left = subprocess.Popen(waiting, env=os.environ | given)
    other = subprocess.Popen([*waiting, str(folder)])
    try:
        assert guard._process is not None
        watching = psutil.Process(guard._process.pid)
        guard.end()
        guard.end()
        assert left.wait(SECONDS) < 0
        assert not watching.is_running()
        assert not folder.exists()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_no_room_for_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: Any) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(EngineError, match=r"No space left on device; TMPDIR names") as caught:
        Guard().begin()
    assert not caught.value.permanent
