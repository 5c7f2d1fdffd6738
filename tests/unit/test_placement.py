"""Engines that ask for GPUs, before any is started: Ray itself is not."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cluster import play, play_adapter
from cluster.crew import Crew
from cluster.nodes import Nodes, NodeType, cpu_seats, nodes_of
from cluster.person import Noted
from cluster.placement import check_places, misfits, places, shares
from cluster.plan import TRIAL, unplaced_later, wanted
from cluster.single_engine import started
from cluster.sizes import sizes
from cluster.trial import own_trial
from specs.engine_section import EngineSection
from specs.errors import InputError
from specs.parts import Folder
from specs.plan import PlanSource
from specs.run_file import RunFile, TrainSection, validate
from tests.unit.kiosk import kiosk

ROOT = Path(__file__).resolve().parents[2]


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
    group = SimpleNamespace(wait=lambda **_: True)
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    monkeypatch.setattr("ray.remote", remote)
    monkeypatch.setattr("ray.util.placement_group", lambda *_, **__: group)
    monkeypatch.setattr("ray.util.remove_placement_group", lambda group: None)


def run_file(small: dict[str, Any], big: dict[str, Any], **cluster: Any) -> RunFile:
    data = {
        "run": {"name": "tea"},
        "domain": {"path": "kiosk"},
        "engines": {"small": small, "big": big, "spare": {"gpus": 64}},
        "roles": {"user": "small", "agent": "big"},
        "cluster": cluster,
    }
    return validate(data, "run.toml")


def said_of(*gpus: float, **engines: EngineSection) -> list[str]:
    """Return what is said of engines on nodes with so many GPUs each."""
    nodes = Nodes([{"CPU": 8.0, "GPU": count} for count in gpus])
    return [str(one) for one in misfits({k: (e, e.least) for k, e in engines.items()}, nodes)]


def test_what_engines_ask_for_is_added_up() -> None:
    engines = {
        "a": EngineSection(gpus=0.3, replicas=3),
        "b": EngineSection(gpus=1),
        "c": EngineSection(replicas=9),
    }
    assert said_of(2.0, **engines) == []
    [said] = said_of(1.0, **engines)
    assert said.startswith("engines.a, engines.b: error: only 0 of 3 of a find room")
    assert "1.9 GPUs (a: 3 x 0.3 GPU, b: 1 x 1 GPU), and the cluster has 1 GPUs" in said
    assert "engines.a.replicas" in said


@pytest.mark.parametrize(
    ("engine", "nodes", "room"),
    [
        (EngineSection(gpus=0.6, replicas=3), [2.0], "2 of 3"),  # 1.8 of 2, one on each GPU
        (EngineSection(gpus=0.5, replicas=4), [2.0], None),
        (EngineSection(gpus=0.2, replicas=5), [1.0], None),
        (EngineSection(gpus=2, replicas=3), [4.0, 3.0, 0.0], None),
        (EngineSection(gpus=2, replicas=4), [4.0, 3.0, 1.0], "3 of 4"),
        (EngineSection(gpus=2, replicas=(3, 9)), [4.0, 3.0], None),
        (EngineSection(gpus=1, replicas="auto"), [1.0], None),
    ],
)
def test_a_replica_lies_on_one_gpu_or_on_one_node(
    engine: EngineSection, nodes: list[float], room: str | None
) -> None:
    said = said_of(*nodes, spare=EngineSection(), big=engine)
    if room is None:
        assert said == []
        return
    assert f"only {room} of big find room" in said[0]


def test_what_no_single_node_has_is_said_of_each_engine() -> None:
    said = said_of(1.0, 1.0, big=EngineSection(gpus=2), odd=EngineSection(resources={"tpu": 1}))
    assert said[0].startswith("engines.big.gpus: error: one replica asks for 2 GPUs, and no node")
    assert said[1].startswith("engines.odd.resources.tpu: error: asks for tpu 1, and no node has")
    nodes = Nodes([{"GPU": 1.0, "accelerator_type:T4": 1.0}])
    fast = EngineSection(gpus=1, accelerator="H100")
    [finding] = misfits({"fast": (fast, 1)}, nodes)
    assert finding.message == "asks for H100, and no node has one"
    assert finding.hint == "The nodes have T4."
    assert misfits({"slow": (EngineSection(gpus=1, accelerator="T4"), 1)}, nodes) == []


def test_roles_with_a_gpu_each_do_not_fit_one_gpu_and_hear_that_they_may_share() -> None:
    one = EngineSection(gpus=1)
    [said] = said_of(1.0, user=one, agent=one)
    assert "let two engines share a GPU (gpus = 0.5 each), or both roles one engine" in said
    half = EngineSection(gpus=0.5)
    assert said_of(1.0, user=half, agent=half) == []


def test_nodes_that_may_come_count_by_their_types() -> None:
    kinds = [
        NodeType("head", {"CPU": 16.0}, 1, head=True),
        NodeType("user", {"CPU": 8.0, "GPU": 1.0, "user_engine": 1.0}, 2),
        NodeType("agent", {"CPU": 8.0, "GPU": 1.0, "agent_engine": 1.0}, 3),
    ]
    there = [{"CPU": 16.0, "memory": 1e9, "node:__internal_head__": 1.0}]
    nodes = Nodes(there, kinds, 6)
    user = EngineSection(gpus=1, resources={"user_engine": 1}, replicas=2)
    agent = EngineSection(gpus=1, resources={"agent_engine": 1}, replicas=3)
    assert misfits({"user": (user, 2), "agent": (agent, 3)}, nodes) == []
    [finding] = misfits({"user": (user, 3), "agent": (agent, 3)}, nodes)
    assert "only 2 of 3 of user find room" in finding.message
    assert "0 (at most 5) GPUs, 0 (at most 2) user_engine" in finding.message
    few = Nodes(there, kinds, 4)  # the head and three
    assert misfits({"user": (user, 2), "agent": (agent, 3)}, few)
    up = [*there, {"CPU": 8.0, "GPU": 1.0, "user_engine": 1.0, "node:1": 1.0}]
    assert len(Nodes(up, kinds, 6).to_come()) == 4


def test_what_may_come_in_all_is_left_to_what_is_wanted_of_it() -> None:
    # Each kind may use the whole number up, as Ray has it where a kind says nothing.
    kinds = [NodeType("cpu", {"CPU": 8.0}, 10), NodeType("gpu", {"CPU": 8.0, "GPU": 1.0}, 4)]
    nodes = Nodes([{"CPU": 4.0}], kinds, 11)
    engine = EngineSection(gpus=1)
    assert misfits({"user": (engine, 2), "agent": (engine, 2)}, nodes) == []
    assert misfits({"user": (engine, 2), "agent": (engine, 3)}, nodes)
    assert nodes.most_of("GPU") == 4.0
    assert nodes.most_of("CPU") == 84.0
    assert misfits({"user": (engine, 2)}, Nodes([{"CPU": 4.0}], kinds, 2))  # one more


def test_a_head_that_is_like_a_worker_is_none() -> None:
    like = {"CPU": 8.0, "GPU": 1.0}
    kinds = [NodeType("head", like, 1, head=True), NodeType("worker", like, 3)]
    head = {**like, "node:__internal_head__": 1.0}
    engine = EngineSection(gpus=1)
    assert misfits({"user": (engine, 4)}, Nodes([head], kinds, 4)) == []
    assert Nodes([head, like], kinds, 4).more == 2
    assert misfits({"user": (engine, 5)}, Nodes([head], kinds, 9))


@given(
    st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0]), max_size=6),
    st.lists(st.integers(0, 4), min_size=1, max_size=4),
)
def test_no_more_is_placed_than_there_is(asked: list[float], gpus: list[int]) -> None:
    engines = {f"e{n}": (EngineSection(gpus=each), 1) for n, each in enumerate(asked)}
    found = places(engines, Nodes([{"GPU": float(count)} for count in gpus]))
    assert sum(found[name] * (e.gpus or 0) for name, (e, _) in engines.items()) <= sum(gpus)
    if all(each <= 1 for each in asked) and sum(math.ceil(each) for each in asked) <= sum(gpus):
        assert found.total() == len(asked)


def test_gpus_are_shared_out_by_the_work() -> None:
    auto = EngineSection(gpus=1, replicas="auto")
    engines = {"user": auto, "agent": auto}
    eight = Nodes([{"GPU": 4.0}, {"GPU": 4.0}])
    assert shares(engines, {"user": 1.0, "agent": 3.0}, {"user": 99, "agent": 99}, eight) == {
        "user": 2,
        "agent": 6,
    }
    # No more than the dialogues can keep busy; and what is not `auto` stays as it is.
    assert shares(engines, {"user": 1.0, "agent": 3.0}, {"user": 1, "agent": 2}, eight) == {
        "user": 1,
        "agent": 2,
    }
    fixed = {"user": EngineSection(gpus=1, replicas=3), "agent": auto}
    assert shares(fixed, {"user": 9.0, "agent": 1.0}, {"user": 9, "agent": 9}, eight) == {
        "user": 3,
        "agent": 5,
    }
    assert shares({"cpu": EngineSection(replicas="auto")}, {"cpu": 1.0}, {"cpu": 9}, eight) == {
        "cpu": 1
    }


@pytest.mark.usefixtures("one_gpu")
def test_a_run_with_too_few_gpus_is_refused_before_an_engine_is_made(tmp_path: Path) -> None:
    run = run_file({"gpus": 0.5}, {"gpus": 1, "replicas": 2})
    nodes = nodes_of(None, None)
    with pytest.raises(InputError, match=r"only 0 of 2 of big find room|only .* find room"):
        check_places(wanted(run, sizes(run)), nodes)
    fitting = run_file({}, {"gpus": 1})
    check_places(wanted(fitting, sizes(fitting)), nodes)
    place = Folder.of(tmp_path)
    crew = Crew(fitting, kiosk(), PlanSource(7), place, lambda text: None, sizes(fitting))
    with pytest.raises(Made):
        crew.start()


@pytest.mark.usefixtures("one_gpu")
def test_a_launcher_tells_what_a_cluster_may_grow_by(tmp_path: Path) -> None:
    launcher = str(ROOT / "ray_cluster.yaml")
    nodes = nodes_of(launcher, "head:6379")
    assert {kind.name for kind in nodes.types} == {"head", "user", "agent"}
    assert nodes.largest("GPU") == 1
    with pytest.raises(InputError, match="one replica asks for 2 GPUs, and no node has or could"):
        check_places({"big": (EngineSection(gpus=2), 1)}, nodes)
    for text, why in (("a: [", "cannot be read"), ("a: 1", "has no available_node_types")):
        broken = tmp_path / "broken.yaml"
        broken.write_text(text)
        with pytest.raises(InputError, match=why):
            nodes_of(str(broken), "head:6379")
    bad = tmp_path / "bad.yaml"
    bad.write_text("available_node_types: {a: {resources: {GPU: many}}, b: 3}")
    with pytest.raises(InputError) as caught:
        nodes_of(str(bad), "head:6379")
    assert len(caught.value.findings) == 2


def test_what_needs_no_gpu_goes_where_none_is_by_the_cores() -> None:
    nodes = [
        {"NodeID": "a", "Resources": {"CPU": 2.0}},
        {"NodeID": "g", "Resources": {"CPU": 64.0, "GPU": 8.0}},
        {"NodeID": "b", "Resources": {"CPU": 4.0}},
    ]
    assert cpu_seats(nodes) == ["a", "b", "a", "b", "b", "b"]
    assert cpu_seats([]) == []


@pytest.mark.usefixtures("one_gpu")
async def test_a_single_engine_is_refused_alike() -> None:
    with pytest.raises(InputError, match=r"engines\.big\.gpus.* asks for 2 GPUs"):
        async with started(EngineSection(gpus=2), "big"):
            pass
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


def test_a_trial_needs_a_place_for_the_model_that_was_trained() -> None:
    def said(gpus: float, there: float) -> list[str]:
        data = {
            "run": {"name": "tea"},
            "domain": {"path": "kiosk"},
            "engines": {"writer": {"kind": "vllm", "model": "large", "gpus": gpus}},
            "roles": {"user": "writer", "agent": "writer"},
            "train": {"model": "small"},
            "rounds": {"trial": 4},
        }
        run = validate(data, "run.toml")
        nodes = Nodes([{"CPU": 8.0, "GPU": there}])
        return list(map(str, unplaced_later({TRIAL: own_trial(run)}, nodes)))

    (found,) = said(1.0, 1.0)
    assert "engines.writer, engines.learner" in found
    assert "in the trial of what was learned, only 0 of 1 of learner find room" in found
    assert said(0.5, 1.0) == said(1.0, 2.0) == []
