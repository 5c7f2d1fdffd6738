"""Engines that ask for GPUs, before any is started: Ray itself is not."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cluster import play, play_adapter
from cluster.crew import Crew
from cluster.person import Noted
from cluster.placement import shortage
from cluster.single_engine import started
from cluster.sizes import sizes
from specs.engine_section import EngineSection
from specs.errors import InputError
from specs.parts import Folder
from specs.plan import PlanSource
from specs.run_file import RunFile, TrainSection, validate
from tests.unit.kiosk import kiosk


class Made(Exception):
    """An actor was to be made."""


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand for a cluster with one GPU, on which no actor comes to be."""

    def remote(kind: type) -> Any:
        raise Made

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    nodes = [
        {"Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}},
        {"Alive": True, "Resources": {"CPU": 2.0}},
        {"Alive": False, "Resources": {"GPU": 8.0}},
    ]
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    monkeypatch.setattr("ray.remote", remote)


def run_file(small: dict[str, Any], big: dict[str, Any], address: str | None = None) -> RunFile:
    data = {
        "run": {"name": "tea"},
        "domain": {"path": "kiosk"},
        "engines": {"small": small, "big": big, "spare": {"gpus": 64}},
        "roles": {"user": "small", "agent": "big"},
        "cluster": {"address": address} if address else {},
    }
    return validate(data, "run.toml")


def start(run: RunFile, tmp_path: Path) -> list[str]:
    """Start a crew until its first engine is to be made; returns what was said."""
    said: list[str] = []
    crew = Crew(run, kiosk(), PlanSource(7), Folder.of(tmp_path), said.append, sizes(run))
    with pytest.raises(Made):
        crew.start()
    return said


def test_what_engines_ask_for_is_added_up() -> None:
    engines = {
        "a": EngineSection(gpus=0.3, replicas=3),
        "b": EngineSection(gpus=1),
        "c": EngineSection(replicas=9),
    }
    assert shortage(engines, [2.0]) is None
    found = shortage(engines, [1.0])
    assert found is not None
    assert found.where.file == "engines.a.gpus, engines.b.gpus"
    assert found.message == "the engines need 1.9 GPUs (a: 3 x 0.3, b: 1 x 1), and Ray finds 1"
    assert "engines.b.replicas" in found.hint


@pytest.mark.parametrize(
    ("engine", "nodes", "room"),
    [
        (EngineSection(gpus=0.6, replicas=3), [2.0], "2 of 3"),  # 1.8 of 2, one on each GPU
        (EngineSection(gpus=0.5, replicas=4), [2.0], None),
        (EngineSection(gpus=0.2, replicas=5), [1.0], None),
        (EngineSection(gpus=2), [1.0, 1.0], "0 of 1"),
        (EngineSection(gpus=2, replicas=3), [4.0, 3.0, 0.0], None),
        (EngineSection(gpus=2, replicas=4), [4.0, 3.0, 1.0], "3 of 4"),
    ],
)
def test_a_replica_lies_on_one_gpu_or_on_one_node(
    engine: EngineSection, nodes: list[float], room: str | None
) -> None:
    found = shortage({"spare": EngineSection(), "big": engine}, nodes)
    if room is None:
        assert found is None
        return
    assert found is not None
    assert found.where.file == "engines.big.gpus"
    assert found.message.startswith(f"only {room} of big find room")


@pytest.mark.usefixtures("one_gpu")
def test_a_run_with_too_few_gpus_is_refused_before_an_engine_is_made(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        start(run_file({"gpus": 0.5}, {"gpus": 1, "replicas": 2}), tmp_path)
    assert "engines.small.gpus, engines.big.gpus: error: the engines need 2.5" in str(caught.value)
    assert "engines.big.replicas" in str(caught.value)
    assert start(run_file({}, {"gpus": 1}), tmp_path) == []


@pytest.mark.usefixtures("one_gpu")
def test_a_cluster_that_may_grow_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [said] = start(run_file({}, {"gpus": 2}, "ray://head:10001"), tmp_path)
    assert said.startswith("warning: engines.big.gpus: the engines need 2 GPUs")
    with pytest.raises(InputError):
        start(run_file({}, {"gpus": 2}, "local"), tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert len(start(run_file({}, {"gpus": 2}), tmp_path)) == 1


@pytest.mark.usefixtures("one_gpu")
async def test_a_single_engine_is_refused_alike(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"engines\.big\.gpus.* need 2 GPUs"):
        async with started(EngineSection(gpus=2), "big"):
            pass
    with pytest.raises(Made):
        async with started(EngineSection(gpus=2), "big", address="auto"):
            pass
    assert "warning: engines.big.gpus" in capsys.readouterr().err
    with pytest.raises(Made):
        async with started(EngineSection(gpus=1), "big"):
            pass


async def test_a_person_plays_with_one_copy_of_an_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    @contextlib.asynccontextmanager
    async def start_none(
        config: EngineSection, name: str, *_: Any, **__: Any
    ) -> AsyncIterator[Any]:
        asked.append((name, config.least))
        raise Made
        yield

    monkeypatch.setattr(play, "started", start_none)
    monkeypatch.setattr(play_adapter, "started", start_none)
    monkeypatch.setattr(play_adapter, "load_manifest", lambda folder: {})
    run = run_file({}, {"replicas": 8})
    with pytest.raises(Made):
        async with play._seat(run, "agent", Noted()):
            pass
    with pytest.raises(Made):
        await play_adapter._play(run, EngineSection(replicas=8), kiosk(), tmp_path, 0)
    assert asked == [("big", 1), ("big", 1)]


@pytest.mark.parametrize("gpus", [1.5, 2.25, 0.00005, 0.12345])
def test_an_amount_that_ray_cannot_count_is_refused_with_the_run_file(gpus: float) -> None:
    for make in (lambda: EngineSection(gpus=gpus), lambda: TrainSection(gpus_per_worker=gpus)):
        with pytest.raises(ValidationError, match=r"of a GPU|of several GPUs"):
            make()


@pytest.mark.parametrize("gpus", [0, 0.0001, 0.3, 0.3333, 1, 2, 8])
def test_an_amount_that_ray_counts_is_taken(gpus: float) -> None:
    assert EngineSection(gpus=gpus).gpus == TrainSection(gpus_per_worker=gpus).gpus_per_worker
