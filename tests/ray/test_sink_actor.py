"""The sink as a Ray actor: killed in the middle of its work, it makes no second row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError

from actors.fence import Fenced
from actors.sink import SINK_OPTIONS, LoggedTurn, SinkActor, SinkLimits
from specs.parts import Folder
from tests.ray.command import HANG_S
from tests.unit.durable_samples import indices_in, make_dialogue, make_turn


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def finish(actor: Any, index: int, epoch: int) -> str:
    """Finish a dialogue as a walker does: an actor that is away is asked again."""
    for _ in range(600):
        try:
            return str(ray.get(actor.finish.remote(make_dialogue(index), epoch), timeout=HANG_S))
        except RayActorError:
            continue
    raise AssertionError("the actor stays away")


@pytest.mark.usefixtures("cluster")
def test_a_killed_sink_comes_back_with_what_it_answered(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path / "round-0")
    limits = SinkLimits(part_rows=4, log_interval_s=0.05)
    actor: Any = ray.remote(SinkActor).options(**SINK_OPTIONS).remote(folder, 0, 1, limits)
    assert not list(ray.get(actor.open.remote(), timeout=HANG_S).durable)
    assert [finish(actor, index, 1) for index in range(6)] == ["stored"] * 6
    ray.get(actor.turns.remote([LoggedTurn(7, "walk-7", 1, make_turn(0))]), timeout=HANG_S)
    assert finish(actor, 6, 1) == "stored"  # and with it, the turn is on disk
    pending = [actor.finish.remote(make_dialogue(index), 1) for index in range(8, 20)]
    ray.kill(actor, no_restart=False)
    assert finish(actor, 0, 2) == "duplicate"
    assert {finish(actor, index, 2) for index in range(8, 20)} <= {"stored", "duplicate"}
    begun = ray.get(actor.begin.remote(7, "walk-7", 2), timeout=HANG_S)
    assert (begun.status, len(begun.turns)) == ("play", 1)
    assert finish(actor, 7, 1) == "stale"
    assert finish(actor, 7, 2) == "stored"
    ray.get(actor.close.remote(), timeout=HANG_S)
    assert sorted(indices_in(folder.child("dialogues"))) == list(range(20))
    assert folder.child("log").names() == []
    ray.kill(actor)
    del pending


@pytest.mark.usefixtures("cluster")
def test_a_sink_of_an_earlier_start_of_the_run_is_fenced_off_for_good(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path / "round-0")
    limits = SinkLimits(log_interval_s=0.05)
    make = ray.remote(SinkActor).options(**SINK_OPTIONS)
    old: Any = make.remote(folder, 0, 1, limits, 1)
    assert finish(old, 0, 1) == "stored"
    new: Any = make.remote(folder, 0, 1, limits, 2)
    assert list(ray.get(new.open.remote(), timeout=HANG_S).durable) == [0]
    with pytest.raises(Fenced, match="a later start of this run"):
        finish(old, 1, 1)
    ray.kill(old, no_restart=False)  # and when Ray has brought it back, too
    with pytest.raises(Fenced, match="a later start of this run"):
        finish(old, 1, 1)
    assert finish(new, 1, 1) == "stored"
    ray.get(new.close.remote(), timeout=HANG_S)
    assert sorted(indices_in(folder.child("dialogues"))) == [0, 1]
    ray.kill(old)
    ray.kill(new)
