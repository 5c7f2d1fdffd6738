"""Which cores a CPU engine runs on: no two engines of one machine share a core unless they must.

A claim is a set of file locks that last until it is released, or as long as its process, so a dead
engine's cores are free at once.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path


class Claim:
    """The cores of one engine, in order; none before the first `take`."""

    def __init__(self) -> None:
        self.cores: tuple[int, ...] = ()
        self._locks: list[int] = []

    def take(self, count: int) -> None:
        """Take cores, preferring those that no other engine has; what was held is released first.

        Args:
            count: how many; 0 for all that this process may use (which locks none).
        """
        self.release()
        allowed = sorted(os.sched_getaffinity(0))
        if not 0 < count < len(allowed):
            self.cores = tuple(allowed)
            return
        free = [core for core in allowed if len(self._locks) < count and self._lock(core)]
        rest = [core for core in allowed if core not in free]
        self.cores = tuple(sorted((free + rest)[:count]))

    def release(self) -> None:
        """Let other engines have the cores; safe to call twice."""
        while self._locks:
            descriptor = self._locks.pop()
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked child may hold the descriptor, too
            os.close(descriptor)
        self.cores = ()

    def _lock(self, core: int) -> bool:
        path = Path(tempfile.gettempdir()) / f"duologue-{os.getuid()}-core-{core}.lock"
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._locks.append(descriptor)
        return True
