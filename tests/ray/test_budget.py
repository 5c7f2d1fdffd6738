"""A budget ends a run in good order, and a larger one goes on; what was used is noted by start."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.usage import read_sessions
from specs.parts import Folder
from tests.ray.command import Command, in_process, rows, run_file

pytestmark = pytest.mark.usefixtures("module_ray")


def test_a_budget_stops_a_run_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    path = str(run_file(tmp_path, dialogues=12, latency=0.05))
    round_ = Folder.of(tmp_path / "out" / "tea" / "round-0")

    code, said = in_process("generate", path, "--set", "budget.dialogues=5")
    assert code == 0, said
    first = rows(tmp_path)
    assert set(first) == set(range(5))  # exactly, and the lowest
    [session] = read_sessions(round_)
    assert (session.number, session.end, session.walkers.dialogues) == (1, "budget", 5)
    turns = [turn for row in first.values() for turn in row["turns"]]
    assert session.walkers.all_turns == len(turns)
    assert session.tokens == sum(turn["completion_tokens"] for turn in turns)

    # Tokens count over all starts: it is used up before anything is started.
    used = session.tokens
    code, said = in_process("generate", path, "--set", f"budget.tokens={used}")
    assert code == 0, said
    assert "starting engine" not in said
    assert rows(tmp_path) == first

    # A larger one is used up on the way, and what was begun stays in the log.
    slow = "engines.ref.faults.latency_s=[0.5, 0.5]"
    code, said = in_process("generate", path, "--set", f"budget.tokens={used + 1}", "--set", slow)
    assert code == 0, said
    assert f"budget.tokens = {used + 1:,} is used up" in said
    assert "what is finished is being written" in said
    assert "Traceback" not in said
    again = rows(tmp_path)
    assert {index: again[index] for index in first} == first

    code, said = in_process("generate", path)
    assert code == 0, said
    whole = rows(tmp_path)
    assert set(whole) == set(range(12))
    assert {index: whole[index] for index in again} == again
    sessions = read_sessions(round_)
    assert [one.number for one in sessions] == [1, 3, 4]
    assert [one.end for one in sessions] == ["budget", "budget", "done"]
    assert sum(one.walkers.dialogues for one in sessions) == 12


def test_what_a_killed_start_used_is_known_to_the_next(tmp_path: Path) -> None:
    path = str(run_file(tmp_path, dialogues=400, latency=0.25))
    command = Command(("generate", path))
    assert command.says("playing"), command.said
    round_ = Folder.of(tmp_path / "out" / "tea" / "round-0")
    # It was noted while the engines came up, too.
    command.wait_until(lambda: any(one.playing_s for one in read_sessions(round_)))
    command.process.kill()
    command.process.wait()
    [session] = read_sessions(round_)
    assert session.end == ""
    assert session.playing_s > 0
    assert session.engines["ref"].total("placed_s") > 0
