"""What a run takes, foreseen: tokens by the domain's own dialogues, time by speeds."""

from __future__ import annotations

from typing import Any

import pytest

from actors.foresight import DIALOGUES, Foreseen, LetterTokenizer, foresee, total
from cluster.forecast import forecast
from cluster.nodes import Nodes
from cluster.sizes import sizes
from specs.domain import Side
from specs.engine_section import EngineSection
from specs.plan import PlanSource
from specs.run_file import RunFile, validate
from tests.unit.kiosk import kiosk

LOADS: dict[Side, Foreseen] = {
    "user": Foreseen(10, 1000, 100, True),
    "agent": Foreseen(10, 2000, 300, True),
}


def run_file(user: dict[str, Any], agent: dict[str, Any], **tables: Any) -> RunFile:
    data = {
        "run": {"name": "tea", "dialogues": 3600},
        "domain": {"path": "kiosk"},
        "engines": {"small": user, "big": agent},
        "roles": {"user": "small", "agent": "big"},
        **tables,
    }
    return validate(data, "run.toml")


def test_the_side_with_most_work_decides_how_long_it_takes() -> None:
    run = run_file(
        {"gpus": 1, "tokens_per_s": 1000},
        {"gpus": 2, "tokens_per_s": 1000, "replicas": 2, "gpu_hour_price": 5},
        cluster={"gpu_hour_price": 2},
    )
    made = forecast(run, LOADS, {}, Nodes([{"GPU": 8.0}]), 3600)
    user, agent = made.engines
    assert user.seconds == pytest.approx(360)
    assert agent.seconds == pytest.approx(540)
    assert made.seconds == pytest.approx(540)
    assert user.gpu_hours == pytest.approx(540 / 3600)  # it holds its GPU until the other is done
    assert agent.gpu_hours == pytest.approx(4 * 540 / 3600)
    assert user.cost == pytest.approx(0.3)
    assert agent.cost == pytest.approx(3.0)


def test_what_a_range_has_no_room_for_is_not_counted_on() -> None:
    ranged = {"gpus": 1, "tokens_per_s": 100, "replicas": [1, 4]}
    run = run_file(ranged, ranged)
    two, eight = Nodes([{"GPU": 1.0}, {"GPU": 1.0}]), Nodes([{"GPU": 8.0}])
    few, many = forecast(run, LOADS, {}, two, 400), forecast(run, LOADS, {}, eight, 400)
    assert [one.replicas for one in few.engines] == [1, 1]
    assert [one.replicas for one in many.engines] == [4, 4]
    assert few.seconds == pytest.approx(1200)
    assert many.seconds == pytest.approx(300)
    assert few.sizes == many.sizes  # more may come while it plays


def test_an_engine_of_which_nothing_is_foreseen_needs_no_speed() -> None:
    run = run_file(
        {"tokens_per_s": 100},
        {"tokens_per_s": 100},
        engines={
            "small": {"tokens_per_s": 100},
            "big": {"tokens_per_s": 100},
            "manager": {"gpus": 1},
        },
        roles={"user": "small", "agent": "big", "manager": "manager"},
        policy={"kind": "hybrid", "manager": "model"},
    )
    made = forecast(run, LOADS, {}, Nodes([{"GPU": 1.0}]), 100)
    assert [one.name for one in made.engines] == ["small", "big", "manager"]
    assert made.seconds == pytest.approx(300)


def test_auto_shares_the_gpus_by_the_work() -> None:
    auto = {"gpus": 1, "replicas": "auto", "max_running": 32}
    made = forecast(run_file(auto, auto), LOADS, {}, Nodes([{"GPU": 8.0}]), 3600)
    assert made.sizes.replicas == {"small": (1, 2), "big": (1, 6)}
    assert made.seconds is None  # nobody knows how fast they are
    slow = {**auto, "tokens_per_s": 100}
    fast = {**auto, "tokens_per_s": 900}
    made = forecast(run_file(slow, fast), LOADS, {}, Nodes([{"GPU": 8.0}]), 3600)
    assert made.sizes.replicas == {"small": (1, 6), "big": (1, 2)}
    few = forecast(run_file(auto, auto), LOADS, {}, Nodes([{"GPU": 8.0}]), 40)
    assert few.sizes.replicas == {"small": (1, 2), "big": (1, 2)}  # 40 dialogues fill no more


def test_a_measured_speed_stands_in_where_none_is_stated() -> None:
    run = run_file({"tokens_per_s": 50}, {})
    made = forecast(run, LOADS, {"small": 1.0, "big": 100.0}, Nodes([]), 100)
    assert [one.tokens_per_s for one in made.engines] == [50, 100]
    assert made.seconds == pytest.approx(300)


def test_one_engine_for_both_roles_does_the_work_of_both() -> None:
    run = run_file({"tokens_per_s": 400}, {}, roles={"user": "small", "agent": "small"})
    made = forecast(run, LOADS, {}, Nodes([]), 100)
    [one] = made.engines
    assert one.load == total(LOADS.values()) == Foreseen(20, 3000, 400, True)
    assert made.seconds == pytest.approx(100)


def test_walkers_grow_with_the_engines_places_and_stay_where_the_run_file_says() -> None:
    small = sizes(run_file({}, {}))
    assert (small.walkers, small.alive, small.sinks, small.retrievers) == (1, 144, 1, 1)
    large = run_file({"replicas": 32, "max_running": 128}, {"replicas": 32, "max_running": 128})
    data = large.model_dump()
    data["run"]["dialogues"] = 100_000
    grown = sizes(validate(data, "run.toml"))
    assert grown.walkers * grown.alive >= 1.5 * 64 * 128
    assert (grown.walkers, grown.sinks, grown.retrievers) == (13, 4, 7)
    data["walkers"] = {"count": 3, "alive": 50, "sinks": 2, "retrievers": 1}
    assert sizes(validate(data, "run.toml")).alive == 50
    few = run_file({}, {}, run={"name": "tea", "dialogues": 5})
    assert sizes(few).alive == 5


async def test_a_dialogue_is_foreseen_from_the_domains_own_words() -> None:
    engine = EngineSection(kind="reference")
    engines: Any = {"user": engine, "agent": engine}
    words: Any = {"user": None, "agent": None}
    found = await foresee(kiosk(), PlanSource(7), engines, words, 40)
    assert set(found) == {"user", "agent"}
    for one in found.values():
        assert 1 <= one.requests <= 40
        assert one.prompt_tokens > one.completion_tokens > one.requests
        assert not one.exact
    longer = engine.model_copy(
        update={"profile": engine.profile.model_copy(update={"examples": 0, "history": 0})}
    )
    less = await foresee(kiosk(), PlanSource(7), {"user": longer, "agent": longer}, words, 40)
    assert less["agent"].prompt_tokens < found["agent"].prompt_tokens
    assert less["agent"].completion_tokens == found["agent"].completion_tokens
    assert DIALOGUES > 1


def test_letters_stand_for_tokens() -> None:
    letters = LetterTokenizer()
    assert len(letters.encode("twelve words")) == 3
    assert len(letters.apply_chat_template([{"content": "1234"}, {"content": ""}])) == 9
