"""Engines that stay up between rounds: when they may, who gets them, and that nobody pays twice."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.kept import KeptEngines, Taken, ready_for_adapters, why_not
from cluster.sizes import sizes
from cluster.usage_meter import Meter
from specs.engine import EngineStats
from specs.run_file import RunFile, validate


class Fleet:
    """Remembers whether it was ended."""

    closed = False

    def made(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        self.closed = True


def run_file(**settings: Any) -> RunFile:
    sections: dict[str, Any] = {
        "run": {"name": "tea"},
        "domain": {"path": "recipe"},
        "engines": {"cpu": {"model": "smollm2-135m"}, "spare": {"kind": "reference"}},
        "roles": {"user": "cpu", "agent": "cpu"},
        "rounds": {"count": 2},
    }
    for name, section in settings.items():
        sections[name] = {**sections.get(name, {}), **section}
    return validate(sections, "test")


def taken(fleet: Fleet) -> Taken:
    return Taken(fleet, {"cpu-0": 100.0}, {})  # type: ignore[arg-type]


def test_who_would_start_the_same_engines_gets_them() -> None:
    kept, fleet, run = KeptEngines(), Fleet(), run_file()
    assert kept.take(run, sizes(run)) is None
    kept.keep(run, sizes(run), taken(fleet))
    said_otherwise = run_file(
        engines={
            "cpu": {"model": "smollm2-135m", "profile": {"history": 3}},
            "spare": {"kind": "reference", "max_running": 3},
        },
        run={"dialogues": 3},
    )
    found = kept.take(said_otherwise, sizes(said_otherwise))
    assert found is not None
    assert found.fleet is fleet  # type: ignore[comparison-overlap]
    assert kept.take(run, sizes(run)) is None  # they are lent
    kept.close()
    assert not fleet.closed


@pytest.mark.parametrize(
    "settings",
    [
        {"engines": {"cpu": {"model": "smollm2-135m", "window": 512}}},
        {"engines": {"cpu": {"model": "smollm2-135m", "replicas": 2}}},
        {"roles": {"user": "spare"}},
    ],
)
def test_whoever_needs_others_ends_them(settings: dict[str, Any]) -> None:
    kept, fleet, run = KeptEngines(), Fleet(), run_file()
    kept.keep(run, sizes(run), taken(fleet))
    other = run_file(**settings)
    assert kept.take(other, sizes(other)) is None
    assert fleet.closed


def test_what_is_kept_at_the_end_is_ended() -> None:
    kept, first, second, run = KeptEngines(), Fleet(), Fleet(), run_file()
    kept.keep(run, sizes(run), taken(first))
    kept.keep(run, sizes(run), taken(second))
    assert (first.closed, second.closed) == (True, False)
    kept.close()
    kept.close()
    assert second.closed


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, ""),
        ({"train": {"method": "full"}}, "another model"),
        ({"roles": {"adapter": "runs/x"}}, "own adapter decides"),
        ({"engines": {"cpu": {"model": "m", "gpus": 1}}}, "training takes over their GPUs"),
    ],
)
def test_they_stay_where_nobody_waits_for_their_place(settings: dict[str, Any], said: str) -> None:
    reason = why_not(run_file(**settings))
    assert said in reason
    assert bool(said) == bool(reason)


def test_an_engine_that_stays_has_room_for_every_rounds_adapter() -> None:
    run = ready_for_adapters(run_file(train={"rank": 24}))
    assert run.engines["cpu"].vllm == {"enable_lora": True, "max_loras": 2, "max_lora_rank": 32}
    own = {"model": "smollm2-135m", "vllm": {"max_lora_rank": 64, "block_size": 16}}
    chosen = ready_for_adapters(run_file(engines={"cpu": own}))
    assert chosen.engines["cpu"].vllm["max_lora_rank"] == 64
    people = run_file(roles={"user": "spare", "agent": "spare"})
    assert ready_for_adapters(people) is people


def test_a_generation_pays_for_its_own_and_for_what_stood_idle_before_it() -> None:
    clock = [1000.0]
    meter = Meter(run_file(), 2, clock=lambda: clock[0])
    before = EngineStats(finished=50, completion_tokens=900, prompt_tokens=4000)
    meter.take_over({"cpu": {"cpu-0": before}}, {"cpu-0": 100.0})
    meter.look((), {"cpu": {"cpu-0": before}})
    meter.hold({"cpu-0": 130.0})  # 30 s went by while the adapter was trained
    clock[0] += 10
    now = EngineStats(finished=60, completion_tokens=1000, prompt_tokens=4500)
    meter.look((), {"cpu": {"cpu-0": now}})
    meter.hold({"cpu-0": 140.0})
    use = meter.session().engines["cpu"].replicas["cpu-0"]
    assert (use.finished, use.completion_tokens, use.prompt_tokens) == (10, 100, 500)
    assert use.placed_s == 40.0
    meter.hold({"cpu-0": 5.0})  # its node went, and it has another place
    assert meter.session().engines["cpu"].replicas["cpu-0"].placed_s == 45.0
