"""The engines' replicas, from their places to their end; neither Ray nor an engine is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import fleet as module
from cluster.fleet import LATE_S, Fleet
from specs.engine import EngineInfo
from specs.engine_section import EngineSection
from specs.errors import DuologueError, EngineError

INFO = EngineInfo("reference", "references", 0, 8)


@dataclass
class World:
    """A cluster with so many GPUs, where engines come up when they are told to."""

    gpus: int = 0
    now: float = 0.0
    loaded: set[str] = field(default_factory=set)
    broken: dict[str, DuologueError] = field(default_factory=dict)
    groups: list[Any] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    draining: set[str] = field(default_factory=set)
    nodeless: set[str] = field(default_factory=set)
    said: list[str] = field(default_factory=list)

    def group(self, bundles: Any, strategy: str, name: str) -> Any:
        assert strategy == "STRICT_PACK"
        made = SimpleNamespace(name=name, removed=False)
        made.wait = lambda timeout_seconds: made in self.living()[: self.gpus]
        self.groups.append(made)
        return made

    def living(self) -> list[Any]:
        return [group for group in self.groups if not group.removed]

    def fleet(self, **engines: EngineSection) -> Fleet:
        counts = {name: (engine.least, engine.most) for name, engine in engines.items()}

        def make(engine: str, number: int, group: Any) -> Any:
            name = f"{engine}-{number}"
            return SimpleNamespace(name=name, start=SimpleNamespace(remote=lambda: name))

        return Fleet(engines, counts, make, self.said.append, lambda: self.now)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()

    class Asking:
        def __init__(self, call: Any, what: str) -> None:
            self.name, self.answer = call(), INFO

        def look(self) -> bool:
            if self.name in made.broken:
                raise made.broken[self.name]
            return self.name in made.loaded

    def remove(group: Any) -> None:
        group.removed = True

    monkeypatch.setattr(module, "Asking", Asking)
    monkeypatch.setattr("ray.util.placement_group", made.group)
    monkeypatch.setattr("ray.util.remove_placement_group", remove)
    monkeypatch.setattr("ray.kill", lambda handle: made.ended.append(handle.name))
    monkeypatch.setattr(module, "_draining_nodes", lambda: frozenset(made.draining))

    def nodes_of(group: Any) -> frozenset[str]:
        return frozenset() if group.name in made.nodeless else frozenset({f"node of {group.name}"})

    monkeypatch.setattr(module, "_nodes_of", nodes_of)
    return made


GPU = EngineSection(gpus=1, start_deadline_s=100)


def names(fleet: Fleet) -> list[str]:
    return [name for replicas in fleet.up().values() for name in replicas]


def test_dialogues_may_begin_when_one_replica_of_each_engine_is_up(world: World) -> None:
    world.gpus = 9
    fleet = world.fleet(user=GPU.model_copy(update={"replicas": 2}), agent=GPU)
    assert not fleet.look()
    world.loaded = {"user-1"}
    assert fleet.look()
    assert not fleet.ready
    world.loaded |= {"agent-0"}
    assert fleet.look()
    assert fleet.ready
    assert not fleet.complete
    assert fleet.infos == {"user": INFO, "agent": INFO}
    assert not fleet.look()  # nothing has changed
    world.loaded |= {"user-0"}
    assert fleet.look()
    assert fleet.complete
    assert names(fleet) == ["user-0", "user-1", "agent-0"]


def test_what_is_not_needed_waits_until_all_that_is_has_its_place(world: World) -> None:
    world.gpus = 1
    user = GPU.model_copy(update={"replicas": (1, 2)})
    fleet = world.fleet(user=user, agent=GPU)
    fleet.look()
    assert [group.name for group in world.groups] == ["user-0", "agent-0"]
    world.gpus = 2
    fleet.look()
    fleet.look()
    assert [group.name for group in world.groups] == ["user-0", "agent-0", "user-1"]
    world.loaded = {"user-0", "agent-0"}
    fleet.look()
    world.now = 10_000.0  # and it may wait for ever
    fleet.look()
    assert fleet.wanted() == {"user": 2, "agent": 1}
    assert names(fleet) == ["user-0", "agent-0"]


def _late(world: World) -> None:
    world.gpus = 0
    fleet = world.fleet(user=GPU)
    fleet.look()
    world.now += GPU.start_deadline_s + LATE_S + 1
    fleet.look()


def test_an_engine_without_a_place_ends_the_run_and_says_what_it_asks_for(world: World) -> None:
    with pytest.raises(EngineError, match=r"user-0 has found no place within 100 s.* GPU 1"):
        _late(world)


def test_an_engine_that_cannot_load_ends_the_run_with_its_own_error(world: World) -> None:
    world.gpus = 9
    world.broken = {"user-0": EngineError("there is no model at x")}
    fleet = world.fleet(user=GPU)
    with pytest.raises(EngineError, match="there is no model at x"):
        fleet.look()


def test_one_that_is_not_needed_is_given_up_and_gives_its_place_back(world: World) -> None:
    world.gpus = 9
    world.loaded = {"user-0"}
    world.broken = {"user-1": EngineError("out of memory")}
    fleet = world.fleet(user=GPU.model_copy(update={"replicas": (1, 2)}))
    for _ in range(3):
        fleet.look()
    assert names(fleet) == ["user-0"]
    assert fleet.wanted() == {"user": 1}
    assert world.said == ["user-1 does not come up, and the run goes on without it: out of memory"]
    assert [group.name for group in world.living()] == ["user-0"]
    assert world.ended == ["user-1"]
    world.now = 30.0
    assert fleet.placed() == {"user-0": 30.0}  # the other's GPU is given back


def test_a_replica_whose_node_is_to_go_takes_no_turns_until_it_has_another(world: World) -> None:
    world.gpus = 9
    world.loaded = {"user-0", "user-1"}
    fleet = world.fleet(user=GPU.model_copy(update={"replicas": 2}))
    fleet.look()
    world.draining = {"node of user-1"}
    world.now += 60
    assert fleet.look()
    assert names(fleet) == ["user-0"]
    assert set(fleet.made()) == {"user-0", "user-1"}
    world.nodeless = {"user-1"}  # it has gone
    world.draining = set()
    world.now += 60
    assert not fleet.look()
    world.now += 1000
    assert fleet.placed() == {"user-0": 1120.0, "user-1": 120.0}
    world.nodeless = set()
    assert fleet.look()
    assert names(fleet) == ["user-0", "user-1"]
    world.now += 10
    assert fleet.placed() == {"user-0": 1130.0, "user-1": 130.0}


def test_close_ends_everything_once(world: World) -> None:
    world.gpus = 9
    fleet = world.fleet(user=GPU, cpu=EngineSection())
    fleet.look()
    world.now = 30.0
    assert fleet.placed() == {"user-0": 30.0, "cpu-0": 30.0}
    fleet.close()
    fleet.close()
    assert sorted(world.ended) == ["cpu-0", "user-0"]
    assert world.living() == []
