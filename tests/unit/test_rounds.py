"""A run of several rounds: who plays each one, what is judged, and that it goes on where it was.

Played without Ray, by the reference engine, and without training; all else is what a run does.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import guards, rounds, trial
from cluster.agent_adapter import adapter_folder, played_in
from cluster.generate import Made
from cluster.made import find_run, read_made
from cluster.report import report
from cluster.round_note import NOTE, Player, Tried
from cluster.rounds import at, rows_of
from cluster.run_folder import RunFolder
from cluster.whole_run import run_all
from specs.errors import DuologueError, InputError
from specs.parts import Folder, read_dialogues
from specs.records import Dialogue
from specs.run_file import RunFile, validate
from tests.unit import tiny_domain
from tests.unit.theatre import PLAYED, Stage, run_file, set_up
from tests.unit.tiny_model import write_adapter
from trainer.chat_file import ChatFile
from trainer.mixture import mix


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return set_up(tmp_path, monkeypatch)


def verdicts(run: RunFile) -> list[tuple[bool, list[str]]]:
    """Return of each round whether it was promoted, and the guards that did not let it through."""
    found = [row.note.verdict for row in rows_of(RunFolder.of(run))]
    return [
        (one.promoted, [guard.name for guard in one.guards if not guard.passed])
        for one in found
        if one is not None
    ]


def test_each_rounds_adapter_plays_the_next_and_all_are_tried_by_the_same_users(
    stage: Stage, tmp_path: Path
) -> None:
    run = run_file(tmp_path, rounds={"count": 3})
    stage.mute = {None}
    run_all(run, False)
    assert stage.played == [
        ("tea", 0, None),
        ("kiosk", 0, None),
        ("kiosk", 0, 0),
        ("tea", 1, 0),
        ("kiosk", 0, 1),
        ("tea", 2, 1),
        ("kiosk", 0, 2),
    ]
    assert stage.trained == [0, 1, 2]
    assert verdicts(run) == [(True, [])] * 3
    folder = RunFolder.of(run)
    places = [folder.folder, *(folder.at_round(number).round() for number in range(3))]
    plans = []
    for place in places:
        tried = read_dialogues(RunFolder.at(f"{place.path}/trial/kiosk").dialogues())
        plans.append([(one.walk_id, one.persona, one.goal) for one in tried])
    assert len(plans[0]) == 12
    assert all(plan == plans[0] for plan in plans)
    ids = [
        {one.walk_id for one in read_dialogues(folder.at_round(number).dialogues())}
        for number in range(3)
    ]
    assert len(ids[0] | ids[1] | ids[2]) == 3 * PLAYED  # a round's plans are its own
    assert not {walk_id for walk_id, _, _ in plans[0]} & (ids[0] | ids[1] | ids[2])

    before = folder.at_round(0).note().trials
    after = rows_of(folder)[0].note.verdict
    assert after is not None
    assert before[0].mean == 0 < after.trials[0].low <= after.trials[0].mean
    assert adapter_folder(folder.folder.path) == Path(folder.at_round(2).round().path) / "adapter"


def test_what_is_there_is_not_made_again_and_the_verdicts_stay(
    stage: Stage, tmp_path: Path
) -> None:
    run = run_file(tmp_path)
    run_all(run, False)
    done, notes = len(stage.played), [row.note for row in rows_of(RunFolder.of(run))]
    run_all(run, False)
    assert (len(stage.played), stage.trained) == (done, [0, 1])
    assert [row.note for row in rows_of(RunFolder.of(run))] == notes
    run_all(run_file(tmp_path, rounds={"count": 3}), False)  # one more is a change of a number
    assert stage.trained == [0, 1, 2]
    run_all(run, True)
    assert len(rows_of(RunFolder.of(run))) == 2
    assert stage.trained == [0, 1, 2, 0, 1]


def test_a_round_is_left_alone_once_its_adapter_plays(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_file(tmp_path, rounds={"trial": 0})
    run_all(run, False)
    adapter = Path(RunFolder.of(run).round().path) / "adapter" / "manifest.json"
    before = adapter.read_bytes()
    run_all(run_file(tmp_path, rounds={"trial": 0}, run={"dialogues": PLAYED + 8}), False)
    assert "round 0 is over, and stays as it is" in capsys.readouterr().err
    assert [row.played for row in rows_of(RunFolder.of(run))] == [PLAYED, PLAYED + 8]
    assert adapter.read_bytes() == before
    with pytest.raises(InputError, match="the adapter plays round 1, and would be another one"):
        rounds.refuse_successors(RunFolder.of(run))
    rounds.refuse_successors(RunFolder.of(at(run, 1)))


def test_a_round_that_a_budget_has_stopped_is_not_over(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    real, run = stage.generate, run_file(tmp_path, rounds={"trial": 0})

    def stopped(run: RunFile, fresh: bool, **given: Any) -> Made:
        fewer = run.model_copy(update={"run": run.run.model_copy(update={"dialogues": 10})})
        return replace(real(fewer, fresh), whole=False)

    monkeypatch.setattr("cluster.whole_run.generate", stopped)
    run_all(run, False)
    assert "tea: stopped by its budget" in capsys.readouterr().err
    assert stage.trained == []
    monkeypatch.setattr("cluster.whole_run.generate", real)
    run_all(run, False)
    assert [row.played for row in rows_of(RunFolder.of(run))] == [PLAYED, PLAYED]
    assert stage.trained == [0, 1]


def test_a_domain_that_is_held_out_later_is_tried_for_the_one_before_as_well(
    stage: Stage, tmp_path: Path
) -> None:
    run_all(run_file(tmp_path, rounds={"trial": 4, "count": 2}), False)
    more = run_file(
        tmp_path, rounds={"trial": 4, "count": 3, "held_out": [str(tmp_path / "booth")]}
    )
    run_all(more, False)
    verdict = rows_of(RunFolder.of(more))[2].note.verdict
    assert verdict is not None
    assert "booth" in next(one.line for one in verdict.guards if one.name == "success")
    assert ("booth", 0, 1) in stage.played
    assert ("booth", 0, 2) in stage.played


def test_an_agent_that_has_got_worse_does_not_play(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_file(tmp_path, rounds={"count": 3})
    stage.mute = {1}
    run_all(run, False)
    assert [name for name in stage.played if name[0] == "tea"] == [
        ("tea", 0, None),
        ("tea", 1, 0),
        ("tea", 2, 0),
    ]
    assert verdicts(run) == [(True, []), (False, ["success"]), (True, [])]
    said = capsys.readouterr()
    assert "NOT passed: kiosk: 0.00 of the subgoals said, after" in said.err
    assert "round 2: the adapter of round 0 plays the agent" in said.err
    assert "not promoted: kiosk: 0.00" in said.out
    page = report(at(run, 1), print).read_text()
    assert "What was looked at before a round was promoted" in page
    assert "kiosk: 0.00 of the subgoals said, after" in page


def test_the_domains_held_out_decide_where_there_are_any(stage: Stage, tmp_path: Path) -> None:
    held_out = [str(tmp_path / "booth")]
    run = run_file(tmp_path, rounds={"count": 1, "trial": 6, "held_out": held_out})
    run_all(run, False)
    (row,) = rows_of(RunFolder.of(run))
    assert row.note.verdict is not None
    assert [(one.domain, one.own, one.dialogues) for one in row.note.verdict.trials] == [
        ("kiosk", True, 6),
        ("booth", False, 6),
    ]

    def reached(own: float, other: float) -> list[Tried]:
        return [
            Tried(
                domain=name, own=name == "own", dialogues=9, mean=mean, low=mean - 0.1,
                high=mean + 0.1, absolute=1.0, halfway=0.5, ended=1.0,
            )
            for name, mean in (("own", own), ("other", other))
        ]  # fmt: skip

    before = reached(0.5, 0.5)
    for now, passed in (((0.9, 0.39), False), ((0.1, 0.41), True)):
        judged = guards.success(reached(*now), before)
        assert judged is not None
        assert judged.passed is passed
    worse = guards.success(reached(0.39, 0.0)[:1], before[:1])
    assert worse is not None
    assert not worse.passed
    assert guards.success([], before) is None


def test_a_round_that_keeps_nothing_is_not_trained_and_the_agent_plays_on(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_file(tmp_path, rounds={"trial": 0, "count": 3})
    real = stage.spoken

    def silent(dialogue: Dialogue, who: int | None) -> Dialogue:
        spoken = real(dialogue, who)
        return replace(spoken, turns=spoken.turns[:-1]) if dialogue.round == 1 else spoken

    monkeypatch.setattr(stage, "spoken", silent)
    run_all(run, False)
    assert stage.trained == [0, 2]
    assert [one[1:] for one in stage.played] == [(0, None), (1, 0), (2, 0)]
    assert verdicts(run) == [(True, []), (False, ["survivors"]), (True, [])]
    line = rows_of(RunFolder.of(run))[1].note.verdict
    assert line is not None
    assert f"all {PLAYED} dialogues were filtered out" in line.guards[0].line


def test_a_run_of_which_nothing_can_be_learned_fails_and_says_why(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_file(tmp_path, rounds={"least": 1000, "trial": 0})
    with pytest.raises(DuologueError, match="no round was promoted"):
        run_all(run, False)
    assert stage.trained == []
    assert [one[1:] for one in stage.played] == [(0, None), (1, None)]
    said = capsys.readouterr()
    assert "of 1000 at least (rounds.least)" in said.out
    assert "round 1: the run file's own agent plays on" in said.err


def test_diversity_below_its_floor_keeps_an_agent_from_learning(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stage.spoken

    def alike(dialogue: Dialogue, who: int | None) -> Dialogue:
        spoken = real(dialogue, who)
        if dialogue.round != 1:
            return spoken
        turns = (replace(turn, text="All right, then, that is it.") for turn in spoken.turns)
        return replace(spoken, turns=tuple(turns))

    monkeypatch.setattr(stage, "spoken", alike)
    run = run_file(tmp_path, rounds={"trial": 0}, curate={"filters": [{"kind": "none"}]})
    run_all(run, False)
    assert verdicts(run) == [(True, []), (False, ["diversity"])]
    assert guards.diversity(0.79, 1.0, 0.8).passed is False
    assert guards.diversity(0.8, 1.0, 0.8).passed is True
    assert guards.diversity(None, 1.0, 0.8).passed is True


def test_an_adapter_trained_anew_does_not_play_what_it_has_not_begun(
    stage: Stage, tmp_path: Path
) -> None:
    run = run_file(tmp_path, rounds={"trial": 0})
    run_all(run, False)
    adapter = Path(RunFolder.of(run).round().path) / "adapter"
    write_adapter(adapter, method="lora", training="another", made="2026-01-01T00:00:00+00:00")
    with pytest.raises(InputError, match="has been trained anew since"):
        played_in(at(run, 1), RunFolder.of(at(run, 1)))
    (adapter.parent / "adapter" / "manifest.json").unlink()
    with pytest.raises(InputError, match="holds no trained adapter"):
        played_in(at(run, 1), RunFolder.of(at(run, 1)))
    with pytest.raises(InputError, match="round 5 has not begun"):
        played_in(at(run, 5), RunFolder.of(at(run, 5)))

    folder = RunFolder.of(at(run, 1))
    note = folder.note()
    folder.write_note(note.model_copy(update={"player": Player()}))
    with pytest.raises(InputError, match="was begun with the run file's agent, and would be"):
        rounds.begin(at(run, 1), print)


def test_a_rounds_own_folder_names_it(stage: Stage, tmp_path: Path) -> None:
    run = run_file(tmp_path, rounds={"trial": 0})
    run_all(run, False)
    place = RunFolder.of(run).folder.path
    assert find_run(f"{place}/round-1", ()).number == 1
    made = read_made(find_run(f"{place}/round-1", ()))
    assert (made.run.run.round, made.run.run.name) == (1, "tea")
    assert find_run(place, ()).number == 0
    found = list(read_dialogues(find_run(f"{place}/round-1/", ()).dialogues()))
    assert {one.round for one in found} == {1}
    assert adapter_folder(f"{place}/round-0") == Path(place) / "round-0" / "adapter"
    content = json.loads((Path(place) / "run.json").read_text())
    assert "round" not in content["run_file"]["run"]


def test_a_note_that_cannot_be_read_is_told(stage: Stage, tmp_path: Path) -> None:
    run = run_file(tmp_path, rounds={"trial": 0})
    run_all(run, False)
    (Path(RunFolder.of(run).round().path) / NOTE).write_text('{"verdict": 3}')
    with pytest.raises(InputError, match="is not readable: verdict: Input should be"):
        rows_of(RunFolder.of(run))


def test_earlier_rounds_are_a_share_and_never_about_what_is_held_back(
    stage: Stage, tmp_path: Path
) -> None:
    run = run_file(tmp_path, rounds={"trial": 0}, run={"dialogues": 60})
    run_all(run, False)
    folder = RunFolder.of(run)

    def split(number: int, side: str) -> ChatFile:
        return ChatFile.open(folder.at_round(number).round().child("curated"), f"{side}.parquet")

    own, earlier = split(1, "train"), split(0, "train")
    held = [split(1, "test"), split(1, "validation")]
    back = {one.document for file in held for one in file.origins()}
    count = len(list(own.origins()))
    for share in (0.2, 0.5, 0.9):
        mixed = mix(own, [earlier], held, share, 3)
        taken = [one for one in mixed.origins() if one.walk_id in mixed.taken]
        fit = [one for one in earlier.origins() if one.document not in back]
        assert len(taken) == min(int(share / (1 - share) * count + 1e-9), len(fit))
        assert not {one.document for one in taken} & back
        read = [one.walk_id for one in mixed.dialogues()]
        assert read == [one.walk_id for one in mixed.origins()]
        assert len(set(read)) == count + len(taken)
        assert set(mixed.digests()) == {"train", "earlier"}
    assert mix(own, [earlier], held, 0.0, 3).digests() == {"train": own.digest()}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"policy": {"kind": "single_prompt"}}, "an adapter (rounds) plays turn by turn"),
        ({"rounds": {"trial": 0, "held_out": ["x"]}}, "rounds.trial is 0"),
        ({"rounds": {"count": 0}}, "rounds.count"),
    ],
)
def test_rounds_that_cannot_be_are_refused_by_the_run_file(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    data = run_file(tmp_path).model_dump(mode="json", exclude={"run": {"round"}})
    for name, section in settings.items():
        data[name] = {**data[name], **section}
    with pytest.raises(InputError) as refused:
        validate(data, "test")
    assert said in str(refused.value)


def test_what_would_fail_after_hours_is_told_at_once(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    tiny_domain.write(tmp_path / "other" / "kiosk")
    held_out = [str(tmp_path / "other" / "kiosk"), str(tmp_path / "nowhere")]
    run = run_file(tmp_path, rounds={"held_out": held_out[:1]})
    (found,) = rounds.unfit(run)
    assert "'kiosk' is the name of two domains" in found.message
    (found,) = rounds.unfit(run_file(tmp_path, rounds={"held_out": held_out[1:]}))
    assert "nowhere" in str(found)
    with pytest.raises(InputError, match="goes through all rounds"):
        run_all(at(run, 1), False)

    monkeypatch.setattr("cluster.evaluation_plan.digest_of", lambda engine: engine.model)
    data = run_file(tmp_path).model_dump(mode="json", exclude={"run": {"round"}})
    data["engines"]["small"] = {"kind": "vllm", "model": "small"}
    data["roles"]["agent"] = "small"
    data["train"] = {"model": "large"}
    (found,) = rounds.unfit(validate(data, "test"))
    assert "train.model is 'large' and the agent is played by 'small'" in found.message
    data["roles"]["agent"] = "references"
    (found,) = rounds.unfit(validate(data, "test"))
    assert "played by an engine of the kind 'reference', not by an adapter" in found.message


def test_a_trial_shows_a_script_what_an_unstructured_workflow_needs(tmp_path: Path) -> None:
    data = run_file(tmp_path).model_dump(mode="json", exclude={"run": {"round"}})
    data["policy"] = {"kind": "routed"}
    data["engines"]["small"] = {
        "kind": "vllm",
        "model": "small",
        "profile": {"form": "script", "persona": False, "history": 0},
    }
    data["roles"] = {"user": "small", "agent": "small"}
    run = validate(data, "test")
    own = trial.trial_run(run, Folder.of(tmp_path), run.domain.path, "")
    assert (own.policy.workflow, own.roles.adapter) == ("unstructured", None)
    assert own.engines["small"].profile.persona
    assert own.engines["small"].profile.history == trial.HISTORY
    learned = trial.trial_run(run, Folder.of(tmp_path), run.domain.path, "/a")
    assert learned.roles.adapter == "/a"
    assert learned.engines == own.engines  # or the users would not be the same
    validate(learned.model_dump(mode="json", exclude={"run": {"round"}}), "test")
