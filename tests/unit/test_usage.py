"""What a generation uses: added up from looks, kept in files, and how fast engines are by that."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from actors.laps import Lap
from actors.walker import WalkerStats
from cluster.sizes import Sizes
from cluster.usage import (
    EngineUse,
    ReplicaUse,
    Session,
    Speed,
    UsageFile,
    measured_speed,
    read_sessions,
)
from cluster.usage_meter import WINDOW_S, Meter
from specs.engine import EngineStats
from specs.errors import DuologueError
from specs.parts import Folder
from tests.unit.usage_samples import run_of, session_of

SIZES = Sizes({"user": (1, 1), "agent": (1, 2)}, walkers=2, alive=50, sinks=1, retrievers=1)


class Clock:
    """Seconds, as a test says."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def meter(clock: Clock, **engines: dict[str, Any]) -> Meter:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Meter(run_of(**engines), 3, clock, lambda: now)


def test_looks_are_added_up_over_time_and_over_restarts() -> None:
    clock = Clock()
    one = meter(clock, user={"gpus": 1}, agent={"gpus": 2, "gpu_hour_price": 4.0})
    clock.seconds = 60.0
    one.begin_playing(SIZES, 100, 20)
    looks = [
        EngineStats(
            running=24,
            finished=10,
            prompt_tokens=500,
            cached_tokens=200,
            completion_tokens=100,
            queue_s=5.0,
        ),
        EngineStats(
            finished=20, prompt_tokens=900, cached_tokens=300, completion_tokens=250, queue_s=7.0
        ),
        EngineStats(away="it is loading"),
        EngineStats(running=48, waiting=6, completion_tokens=40, finished=4, kv_cache_use=0.5),
    ]
    for look in looks:
        clock.seconds += 10.0
        one.look([], {"agent": {"agent-0": look}, "user": {}})
    one.hold({"agent-0": 95.0, "agent-1": 30.0, "user-0": 100.0})
    one.enter("stopping")
    clock.seconds += 5.0
    session = one.session("interrupted")
    assert (session.number, session.end, session.wanted, session.before) == (
        3,
        "interrupted",
        100,
        20,
    )
    assert (session.starting_s, session.playing_s, session.stopping_s) == (60.0, 40.0, 5.0)
    agent = session.engines["agent"].replicas["agent-0"]
    # It died behind the second look: what the new process has done comes on top.
    assert (agent.completion_tokens, agent.finished, agent.queue_s) == (290, 24, 7.0)
    assert (agent.prompt_tokens, agent.cached_tokens) == (900, 300)
    assert (agent.up_s, agent.busy_s, agent.full_s) == (30.0, 20.0, 10.0)
    assert agent.load_s == 10.0 * 24 / 48 + 10.0
    assert (agent.waiting_s, agent.kv_s) == (60.0, 5.0)
    assert session.engines["agent"].gpu_hours == pytest.approx(2 * 125 / 3600)
    assert session.engines["agent"].cost == pytest.approx(4.0 * 2 * 125 / 3600)
    assert session.engines["user"].cost == pytest.approx(2.5 * 100 / 3600)
    assert session.cost == pytest.approx(4.0 * 250 / 3600 + 250 / 3600)
    assert session.tokens == 290 + 900
    assert session.roles == {"user": "user", "agent": "agent"}


def test_a_place_that_is_lost_and_found_again_counts_twice() -> None:
    one = meter(Clock())
    for seconds in (50.0, 90.0, 10.0, 25.0):
        one.hold({"agent-0": seconds})
    assert one.session().engines["agent"].total("placed_s") == 90.0 + 25.0


def test_places_are_those_that_the_engine_admits_to() -> None:
    clock = Clock()
    one = meter(clock)
    one.begin_playing(SIZES, 10, 0)
    clock.seconds = 10.0
    one.look([], {"user": {"user-0": EngineStats(running=12, limit=16)}})
    assert one.session().engines["user"].mean("load_s") == 0.75


def test_walkers_are_put_together() -> None:
    busy, idle, past = (WalkerStats(played_s=100.0) for _ in range(3))
    busy.loop_s, idle.loop_s, past.loop_s = 90.0, 10.0, 20.0
    busy.late_s = 50.0
    busy.longest_lag_s = 3.0
    busy.said = Counter({("user", "model"): 7, ("agent", "model"): 5, ("agent", "reference"): 1})
    past.said = Counter({("user", "model"): 2})
    past.stops = Counter({"ended": 1, "error": 1})
    lap = Lap()
    lap.seconds[1] = 2.5
    busy.laps["user"].add(lap)
    one = meter(Clock())
    one.look([busy, idle, past], {})
    walkers = one.session().walkers
    assert walkers.said == {"model": 14, "reference": 1}
    assert (walkers.turns["user"], walkers.phases["user"]["queue"]) == (1, 2.5)
    assert (walkers.dialogues, walkers.stops["error"]) == (2, 1)
    assert (walkers.core_share, walkers.most_core_share) == (0.4, 0.9)
    assert (walkers.lag_s, walkers.longest_lag_s) == (0.5 * 50 / 250, 3.0)


# -- speed


def test_a_speed_is_that_of_the_fullest_windows_without_the_first() -> None:
    clock = Clock()
    one = meter(clock)
    one.begin_playing(SIZES, 100, 0)
    tokens = 0
    # It fills up; then it is full for two minutes, half full for two, and nearly idle at the end.
    for running, speed, windows in ((48, 10, 1), (48, 100, 6), (24, 70, 6), (4, 30, 6)):
        for _ in range(int(windows * WINDOW_S / 2)):
            clock.seconds += 2.0
            tokens += 2 * speed
            stats = EngineStats(running=running, completion_tokens=tokens, finished=tokens)
            one.look([], {"user": {"user-0": stats}})
    session = one.session()
    assert measured_speed([session]) == {"user": 100.0}
    speeds = session.engines["user"].replicas["user-0"].speeds
    assert {load: speed.seconds for load, speed in speeds.items()} == {9: 120, 5: 120, 0: 120}


def speedy(number: int, speeds: dict[int, Speed], **fields: object) -> Session:
    use = {"kind": "vllm", "model": "m", "max_running": 48, **fields}
    engine = EngineUse.model_validate({**use, "replicas": {"e-0": ReplicaUse(speeds=speeds)}})
    return session_of({"e": engine}, number=number)


def test_speeds_of_sessions_come_together_while_the_engine_is_the_same() -> None:
    full, half = Speed(seconds=40, tokens=4000), Speed(seconds=40, tokens=2000)
    two = [speedy(1, {9: full}), speedy(2, {9: full, 5: half})]
    assert measured_speed(two) == {"e": 100.0}
    # A minute of the fullest windows there are, down to half full.
    assert measured_speed(two[1:]) == {"e": 75.0}
    assert measured_speed([speedy(1, {9: full}, gpus=4), two[1]]) == {"e": 75.0}
    assert measured_speed(two[:1]) == {}
    assert measured_speed([speedy(1, {4: Speed(seconds=900, tokens=9)})]) == {}
    assert measured_speed([]) == {}


# -- files


def test_sessions_come_back_as_they_were_and_bad_files_are_told(tmp_path: Path) -> None:
    round_ = Folder.of(tmp_path)
    told: list[str] = []
    assert read_sessions(round_, told.append) == []
    sessions = [session_of(number=number) for number in (1, 2, 11)]
    for session in reversed(sessions):
        UsageFile(round_, session.number, told.append).close(session)
    assert read_sessions(round_, told.append) == sessions
    assert told == []
    usage = tmp_path / "usage"
    names = sorted(path.name for path in usage.iterdir())
    (usage / names[0]).write_text((usage / names[0]).read_text()[:200])  # half of it
    (usage / "session-0003.json").write_text('{"format": "other", "number": 3}')
    (usage / "_session-0012.json").write_text("{")  # a crash left it behind
    assert read_sessions(round_, told.append) == sessions[1:]
    assert [names[0] in told[0], "session-0003.json" in told[1]] == [True, True]
    assert all(text.startswith("warning: ") and "\n" not in text for text in told)


def test_what_cannot_be_noted_is_told_once_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    file = UsageFile(Folder.of(tmp_path), 1, told.append)

    def full(*arguments: object) -> None:
        raise DuologueError("the disk is full\n    Make room.")

    with monkeypatch.context() as broken:
        broken.setattr(Folder, "write_bytes", full)
        for _ in range(3):
            file.close(session_of())
    assert told == ["warning: what is used cannot be noted: the disk is full"]
    file.close(session_of(number=1))
    assert len(read_sessions(Folder.of(tmp_path))) == 1
