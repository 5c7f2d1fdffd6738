"""The command line in a process of its own, as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def duologue(*arguments: str, seconds: float = 400) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, on a Ray of its own and without asking a hub."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-m", "cluster.cli", *arguments],
        cwd=ROOT,
        env={**kept, "RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
