"""Parts of a run die at random; nothing is lost. The long form: `python -m tests.ray.chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ray.chaos import Chaos, Schedule


@pytest.mark.slow
def test_nothing_is_lost_whatever_dies(tmp_path: Path) -> None:
    schedule = Schedule(
        dialogues=80,
        seed=3,
        alive=16,
        actor_s=2.0,
        raylet_s=15.0,
        logged=4,
        drivers=1,
    )
    outcome = Chaos(tmp_path, schedule).run()
    assert not outcome.wrong, f"{outcome}\n{outcome.said}"
    assert outcome.rows == 80
    assert outcome.killed["driver"] == 1
    assert outcome.killed.total() > 3
