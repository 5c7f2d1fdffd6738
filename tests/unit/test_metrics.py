"""What is told to Ray of an actor: totals by what has come to them, and nothing without Ray."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from actors.laps import Lap
from actors.metrics import (
    METRICS,
    WHO,
    Reading,
    Recorder,
    begin_recording,
    engine_readings,
    retriever_readings,
    sink_readings,
    walker_readings,
)
from actors.retrieval.retriever import RetrieverStats
from actors.sink_messages import SinkStats
from actors.walker import WalkerStats
from specs.engine import EngineStats


@dataclass
class Told:
    """One of Ray's metrics, which adds up or keeps the last."""

    name: str
    values: dict[tuple[str, ...], float] = field(default_factory=dict)
    calls: int = 0

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert METRICS[self.name].kind == "total"
        assert value > 0  # else Ray raises
        self._put(tags, self.values.get(tuple(tags.values()), 0.0) + value)

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert METRICS[self.name].kind == "now"
        self._put(tags, value)

    def _put(self, tags: dict[str, str], value: float) -> None:
        assert tuple(tags) == (*WHO, *METRICS[self.name].tags)
        self.values[tuple(tags.values())] = value
        self.calls += 1


def recorder() -> tuple[Recorder, dict[str, Told]]:
    made: dict[str, Told] = {}

    def make(name: str) -> Any:
        made[name] = Told(name)
        return made[name]

    return Recorder(("01", "walker-0.1"), make), made


def test_a_walker_s_figures_are_told_once_each() -> None:
    stats = WalkerStats(alive=7, played_s=10.0, loop_s=4.0)
    stats.said = Counter({("user", "model"): 5, ("agent", "reference"): 2})
    stats.stops = Counter({"ended": 2})
    stats.retries = Counter({"repair": 1})
    lap = Lap(since=0.0)
    lap.seconds[:3] = [0.25, 3.0, 0.5]
    stats.laps["user"].add(lap)
    told, made = recorder()
    told.record(walker_readings(stats))
    told.record(walker_readings(stats))
    who = ("01", "walker-0.1")
    assert made["duologue_turns_total"].values == {
        (*who, "user", "model"): 5,
        (*who, "agent", "reference"): 2,
    }
    assert made["duologue_turns_total"].calls == 2  # nothing has come to them since
    assert made["duologue_dialogues_total"].values == {(*who, "ended"): 2}
    assert made["duologue_dialogues_alive"].values == {who: 7}
    assert made["duologue_retries_total"].values == {(*who, "repair"): 1}
    assert made["duologue_walker_core_share"].values == {who: 0.4}
    phases = made["duologue_turn_seconds_total"].values
    assert (phases[*who, "user", "prompt"], phases[*who, "user", "queue"]) == (0.25, 3.0)
    counts = made["duologue_turn_seconds_bucket_total"].values
    queue = {key[4]: value for key, value in counts.items() if key[2:4] == ("user", "queue")}
    assert queue == {"5.0": 1, "10.0": 1, "30.0": 1, "60.0": 1, "120.0": 1, "+Inf": 1}

    stats.said["user", "model"] += 3
    stats.alive = 0
    told.record(walker_readings(stats))
    assert made["duologue_turns_total"].values[*who, "user", "model"] == 8
    assert made["duologue_dialogues_alive"].values == {who: 0}


def test_a_total_that_begins_anew_goes_on_from_where_it_was() -> None:
    told, made = recorder()
    for tokens in (100, 250, 40, 60):
        told.record(engine_readings("agent", EngineStats(completion_tokens=tokens)))
    values = made["duologue_completion_tokens_total"].values
    assert values == {("01", "walker-0.1", "agent"): 310}
    assert "duologue_admission_limit" not in made  # of an engine that tells none


def test_every_metric_is_told_by_somebody_and_every_reading_is_a_metric() -> None:
    walker = WalkerStats(played_s=1.0, said=Counter({("user", "model"): 1}))
    walker.stops["ended"] += 1
    walker.retries["sent"] += 1
    readings = [
        *walker_readings(walker),
        *engine_readings("e", EngineStats(limit=3)),
        *retriever_readings(RetrieverStats()),
        *sink_readings(SinkStats(0, 0, 0, 0, 0, 0)),
    ]
    assert {reading.name for reading in readings} == set(METRICS)
    for reading in readings:
        assert len(reading.tags) == len(METRICS[reading.name].tags), reading
    keys = [(reading.name, reading.tags) for reading in readings]
    assert len(set(keys)) == len(keys)


async def test_outside_of_rays_actors_nothing_is_recorded() -> None:
    async def stats() -> int:
        raise AssertionError("nobody asks")

    assert begin_recording(stats, lambda _: [Reading("duologue_dialogues_alive", 1)]) is None
