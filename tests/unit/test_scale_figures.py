"""The arithmetic of the benches of scale: as good as the perfect scheduler is a share of 1."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from specs.records import Dialogue
from tests.bench.perfect_scheduler import schedule, work_of
from tests.bench.process_costs import Costs, Sample
from tests.bench.scale_figures import figures, full_turns_s, places_of, projection, row
from tests.bench.scaled_run import Note, Played, Setting, faults_of
from tests.unit.durable_samples import START, make_dialogue, make_turn

SETTING = Setting(
    replicas={"user": 1, "agent": 2},
    places=2,
    dialogues=60,
    faults={"latency_s": [0.5, 0.5], "token_s": 0.1},
    alive=8,
)
CPU = {"walkers": 0.4, "ledger": 0.01, "driver": 0.02}
"""Seconds of CPU a second."""


def dialogues(seconds: float) -> list[Dialogue]:
    turns = tuple(replace(make_turn(n), completion_tokens=10 * (n % 2)) for n in range(6))
    over = START + timedelta(seconds=seconds)
    return [
        replace(make_dialogue(index), turns=turns, started_at=START, ended_at=over)
        for index in range(SETTING.dialogues)
    ]


def perfectly(setting: Setting = SETTING, slower: float = 1.0) -> Played:
    """Return a run that keeps the perfect schedule, or one that takes so many times as long."""
    work = [work_of(one, setting.roles(), faults_of(setting)) for one in dialogues(0.0)]
    perfect = schedule(work, places_of(setting), 8)
    ends = [slower * end for end in perfect.ends]
    seconds = ends[-1]
    notes = [_note(ends, perfect.used, at, slower) for at in range(int(seconds) + 2)]
    samples = [
        Sample(note.at, {kind: much * note.at for kind, much in CPU.items()}, {}, {})
        for note in notes
    ]
    return Played(setting, notes, Costs(samples), dialogues(seconds), 8, 1)


def _note(
    ends: Sequence[float], used: Mapping[str, Sequence[tuple[float, float]]], at: float, slow: float
) -> Note:
    seconds = {
        name: sum(min(slow * to, at) - slow * of for of, to in turns if slow * of < at)
        for name, turns in used.items()
    }
    turns = bisect.bisect_right(ends, at)
    return Note(at, turns, 0, seconds, {name: s / slow for name, s in seconds.items()})


def test_a_run_that_keeps_the_perfect_schedule_has_a_share_of_one() -> None:
    found = figures(perfectly())
    assert found.share == pytest.approx(1.0, abs=0.05)
    assert found.whole == pytest.approx(1.0)
    assert found.steady.busy["agent"] == pytest.approx(found.perfect_busy["agent"], abs=0.05)
    assert found.steady.stretch == pytest.approx(1.0)


def test_a_run_that_takes_twice_as_long_has_half_of_it() -> None:
    found = figures(perfectly(slower=2.0))
    assert found.share == pytest.approx(0.5, abs=0.02)
    assert found.whole == pytest.approx(0.5)
    assert found.steady.stretch == pytest.approx(2.0)


def test_cpu_is_told_a_turn() -> None:
    found = figures(perfectly())
    assert found.steady.cpu_ms["walkers"] == pytest.approx(400 / found.steady.turns_s)
    assert "3 x" not in row(found)
    assert "1+2 x 2" in row(found)


def test_what_was_interrupted_is_held_against_full_engines() -> None:
    played = perfectly()
    cut = replace(played, dialogues=played.dialogues[:30])
    found = figures(cut)
    assert found.whole is None
    # Both sides say three turns: users of 0.5 s on 2 places, agents of 1.5 s on 4.
    assert found.perfect_turns_s == pytest.approx(6 / (3 * 1.5 / 4))


def test_full_engines_go_at_the_pace_of_the_slower_side() -> None:
    work = [work_of(one, SETTING.roles(), faults_of(SETTING)) for one in dialogues(0.0)]
    half = replace(SETTING, speeds={"agent": [1.0, 0.5]})
    assert full_turns_s(work, half) == pytest.approx(0.75 * full_turns_s(work, SETTING))


def test_the_projection_tells_what_is_full_first() -> None:
    found = figures(perfectly())
    said = "\n".join(projection(found, found))
    assert "256 GPUs" in said
    assert "10000 GPUs" in said
    assert "ledger (one process)" in said
