"""A Ray to work in: the cluster that was named, this job's, or one on this machine.

Raises nothing of Ray's own: what keeps one from being had is told in one message.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.address import check_address
from cluster.interrupt import sigterm_as_interrupt
from cluster.nodes import cluster_address
from specs.errors import DuologueError

STARTS = 2
"""How often a Ray of one's own is tried: it gives up after 30 s, fewer than a busy machine may take
while all that it loads comes from a cold disk."""


@contextlib.contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Join the cluster at `address`, or of the job that this is, or start a local one.

    Inside another session it is that one.

    Raises:
        InputError: no cluster answers at the address, or it asks for a token.
        DuologueError: it cannot be joined (another version of Ray, say), or does not come up.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A call that is made again leaves its first answer unread, which is no error to print.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    inside = cluster_address(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if inside:
        check_address(inside)
        _join(f"at {inside}", 1, options | {"address": inside})
    else:
        # Ray's workers start in the working directory; the packages need not be installed there.
        root = str(Path(__file__).resolve().parents[1])
        path = os.environ.get("PYTHONPATH", "")
        if root not in path.split(os.pathsep):
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, path]))
        local = {"address": "local", "include_dashboard": False}
        _join("on this machine", STARTS, options | local)
    try:
        with sigterm_as_interrupt():  # Ray has put its own handlers there, which end at once
            yield
    finally:
        ray.shutdown()


def _join(where: str, tries: int, options: dict[str, Any]) -> None:
    for left in reversed(range(tries)):
        try:
            ray.init(**options)
            return
        except SystemExit:  # what Ray does on SIGTERM while it starts
            raise KeyboardInterrupt from None
        except (OSError, RayError, RuntimeError, ValueError) as error:
            raise DuologueError(f"no Ray cluster can be used {where}: {error}") from error
        except Exception as error:
            # A node that was not up in time is a bare Exception; it ends with this process.
            if type(error) is not Exception:
                raise
            if not left:
                hint = "A machine that is too busy does that: try again, or see what its processes"
                hint = f"{hint} say in session_latest/logs of /tmp/ray."
                message = f"no Ray could be started {where}, {tries} times: {error}\n    {hint}"
                raise DuologueError(message) from error
