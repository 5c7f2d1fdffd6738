"""A Ray of one's own, and the signal that a scheduler ends a command with."""

from __future__ import annotations

import subprocess
import sys

from tests.ray.command import HANG_S, ROOT, environment

SCRIPT = """
import os, signal, time
from cluster.session import ray_session

with ray_session(None):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_sigterm_is_an_interruption_and_ends_no_session_by_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
