"""Rounds on a local cluster: the engines of the first are those of the next."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from cluster.rounds import rows_of
from cluster.run_folder import RunFolder
from cluster.usage import read_sessions
from cluster.whole_run import run_all
from tests.unit.theatre import run_file, set_up


def test_engines_stay_up_from_round_to_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(tmp_path, monkeypatch, plays=False)
    run = run_file(tmp_path, run={"dialogues": 16}, rounds={"trial": 4})
    run_all(run, False)
    assert not ray.is_initialized()
    said = capsys.readouterr()
    assert said.err.count("starting engine references") == 1
    assert said.err.count("engine references (the domain's references, 1 x) is up already") == 4

    rows = rows_of(RunFolder.of(run))
    assert [row.played for row in rows] == [16, 16]
    assert all(row.note.verdict is not None and row.note.verdict.promoted for row in rows)
    answered = []
    for number in (0, 1):
        (session,) = read_sessions(RunFolder.of(run).at_round(number).round())
        (use,) = session.engines["references"].replicas.values()
        turns = session.walkers.turns
        answered.append((use.finished, sum(turns.values())))
    # Each session counts its own turns, not those of the one before.
    assert all(0.9 * turns <= finished <= 1.6 * turns for finished, turns in answered)
