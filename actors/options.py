"""The options that all actors of a run have in common."""

from __future__ import annotations

from typing import Any

ACTOR_OPTIONS: dict[str, Any] = {
    "num_cpus": 0,
    # Each call would be told to Ray's head, where nothing shows them and memory grows with them.
    "enable_task_events": False,
}
