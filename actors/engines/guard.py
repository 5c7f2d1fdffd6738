"""What vLLM leaves behind when the process that holds its engine dies, and who clears it away.

vLLM's engine is several processes. In a Ray actor they mostly end with it, in the driver they do
not: kill -9 of a command whose engine is its own child left all of them, and killed ones leave
sockets and shared memory. So whoever holds an engine (its owner) starts a guard, a small process
that clears up when the owner has gone, however it went.

Invariants: a process belongs to an engine by the environment that it inherited at the engine's
start, and nothing else is ever touched; the guard ends by itself, after its owner.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from specs.errors import EngineError

MARK = "VLLM_RPC_BASE_PATH"
"""Where vLLM puts its sockets: a folder of each engine's own, by which its processes are known."""

LOOK_S = 0.5
"""How often the guard looks for its owner."""

CLEAR_S = 30.0
"""How long killed processes may take to be gone."""

TRACKER_S = 5.0
"""How long Python's tracker of shared memory may take to release what the dead have left."""

_SHARED = "shared"
_LONGEST = 45
"""A socket's path has 107 bytes at most; the folder's name takes 24 of them, vLLM's names 37."""


class Guard:
    """The guard of one engine, as its owner holds it."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> dict[str, str]:
        """Start it; returns what the environment of the engine's processes has to hold.

        Raises:
            EngineError: when there is no room for its folder, or for a process.
        """
        self.end()
        place = tempfile.gettempdir()
        place = place if len(place) <= _LONGEST else "/tmp"
        try:
            folder = self._folder = Path(tempfile.mkdtemp(prefix="duologue-engine-", dir=place))
            self._process = _watching(os.getpid(), folder)
        except OSError as error:
            raise EngineError(
                f"the engine's processes cannot be watched over: {error}; TMPDIR names another "
                f"place than {place}"
            ) from error
        # A process that names itself would write over the environment that it is known by.
        return {MARK: str(folder), "SPT_NOENV": "1"}

    def loaded(self) -> None:
        """Note the shared memory of the engine that has started."""
        if self._folder is not None:
            names = {name for pid in processes(self._folder) for name in _shared_memory(pid)}
            (self._folder / _SHARED).write_text("\n".join(sorted(names)), encoding="utf-8")

    def end(self) -> None:
        """Clear up what is left of the engine, and end the guard; safe to call twice."""
        process, self._process = self._process, None
        folder, self._folder = self._folder, None
        if process is not None:
            process.kill()
            process.wait()
        if folder is not None:
            _kill(folder, spared=_is_tracker)  # it serves the owner, too
            _remove(folder)


def _watching(owner: int, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", __name__, str(owner), born(owner), str(folder)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(part for part in sys.path if part)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # the owner's group may be killed as a whole
    )


def processes(folder: Path) -> list[int]:
    """Return the processes of the engine whose sockets lie in a folder."""
    mark = f"{MARK}={folder}".encode()
    pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())
    return [pid for pid in pids if mark in _read(pid, "environ").split(b"\0")]


def born(pid: int) -> str:
    """Return when a process started, in the kernel's ticks; empty when it has gone."""
    state, *rest = _read(pid, "stat").rpartition(b")")[2].split() or [b"X"]
    return "" if state in b"ZX" else rest[18].decode()


def watch(owner: int, started: str, folder: Path) -> None:
    """Wait until a process has gone, then clear up what is left of its engine."""
    while born(owner) == started:
        time.sleep(LOOK_S)
    _kill(folder, spared=_is_tracker)
    ends = time.monotonic() + TRACKER_S
    while processes(folder) and time.monotonic() < ends:
        time.sleep(0.1)
    _kill(folder, spared=lambda pid: False)
    _remove(folder)


def _kill(folder: Path, spared: Callable[[int], bool]) -> None:
    ends = time.monotonic() + CLEAR_S
    # Over again: what has been found may have started another one meanwhile.
    while time.monotonic() < ends:
        found = [pid for pid in processes(folder) if not spared(pid)]
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for name in (folder / _SHARED).read_text(encoding="utf-8").split():
            with contextlib.suppress(OSError):
                os.unlink(f"/dev/shm/{name}")
    shutil.rmtree(folder, ignore_errors=True)


def _is_tracker(pid: int) -> bool:
    return b"multiprocessing.resource_tracker" in _read(pid, "cmdline")


def _shared_memory(pid: int) -> Iterator[str]:
    """Yield the names of Python's shared memory and loky's semaphores that a process maps."""
    for line in _read(pid, "maps").decode(errors="replace").splitlines():
        place, _, name = line.rpartition("/dev/shm/")
        if place and name.startswith(("psm_", "sem.loky-")) and " " not in name:
            yield name


def _read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:  # it has gone, or is somebody else's
        return b""


if __name__ == "__main__":
    watch(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
