"""Which cores a CPU engine runs on: no two engines of one machine share a core unless they must.

A claim is a file lock that lasts as long as its process, so a dead engine's cores are free at once.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

_held: list[int] = []
"""Descriptors of the locks; closed, and so released, when the process ends."""


def claim_cores(count: int) -> list[int]:
    """Return cores for an engine, preferring those that no other engine has claimed.

    Args:
        count: how many; 0 for all that this process may use (which claims none).
    """
    allowed = sorted(os.sched_getaffinity(0))
    if not 0 < count < len(allowed):
        return allowed
    claimed = [core for core in allowed if len(_held) < count and _claim(core)]
    rest = [core for core in allowed if core not in claimed]
    return sorted((claimed + rest)[:count])


def _claim(core: int) -> bool:
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
    _held.append(descriptor)
    return True
