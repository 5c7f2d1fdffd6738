"""The command line in a process of its own, as a user runs it, with real models."""

import subprocess
import sys

from tests.ray.command import HANG_S, ROOT, environment


def duologue(*arguments: str, seconds: float = HANG_S) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, on a Ray of its own and without asking a hub."""
    return subprocess.run(
        [sys.executable, "-m", "cluster.cli", *arguments],
        cwd=ROOT,
        env=environment({"HF_HUB_OFFLINE": "1"}),
        capture_output=True,
        text=True,
        timeout=seconds,
    )
