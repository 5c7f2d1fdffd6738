"""Experiments: arms that differ in one setting, over shared dialogues, in one table."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cluster.experiment import command, same_words
from cluster.experiment_differences import ByDialogue, Outcomes, differences
from cluster.experiment_table import Row, correlations
from cluster.generate import Made
from cluster.held_out import Leak
from cluster.run_folder import RunFolder
from specs.errors import DuologueError, Finding, InputError, Where
from specs.experiment_file import Experiment, load_experiment
from specs.parts import read_dialogues
from specs.records import Dialogue
from specs.run_file import RunFile
from tests.unit.theatre import PLAYED, Stage, set_up
from trainer.bootstrap import Resamples
from trainer.chat_file import ChatFile
from trainer.figures import Key, Sums
from trainer.training import NothingToLearn

RUN = """
[run]
name = "tea"
dialogues = {dialogues}
[domain]
path = "{place}/kiosk"
[engines.references]
kind = "reference"
[roles]
user = "references"
agent = "references"
[retrieval]
embedding = "lexical"
[curate]
test = 0.15
validation = 0.15
"""

FILTERS = """
name = "filters"
run = "{place}/run.toml"
out = "{place}/runs"
measures = ["dialogues", "trial"]
set.rounds.trial = 6
[[arms]]
name = "none"
set.curate.filters = [{{ kind = "none" }}]
[[arms]]
name = "ended"
set.curate.filters = [{{ kind = "ended" }}]
[[arms]]
name = "random"
set.curate.filters = [{{ kind = "random", share = 0.5 }}]
[[arms]]
name = "top"
set.curate.filters = [{{ kind = "top", measure = "subgoals_said_relative", share = 0.7 }}]
"""

POLICIES = """
name = "policies"
run = "{place}/run.toml"
out = "{place}/runs"
measures = ["dialogues", "test"]
test = "seven"
[[arms]]
name = "seven"
set.run.seed = 7
[[arms]]
name = "eight"
set.run.seed = 8
[sweep]
key = "train.dialogues"
values = [4, 8]
"""


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    (tmp_path / "run.toml").write_text(RUN.format(place=tmp_path, dialogues=PLAYED))
    return set_up(tmp_path, monkeypatch)


def experiment(place: Path, text: str, *settings: str) -> Experiment:
    path = place / "experiment.toml"
    path.write_text(text.format(place=place))
    return load_experiment(path, settings)


def refusal(place: Path, text: str, *settings: str) -> str:
    with pytest.raises(InputError) as refused:
        experiment(place, text, *settings)
    return str(refused.value)


def table(place: Path, name: str) -> Any:
    return json.loads((place / "runs" / name / "table.json").read_text())


def evaluated(*rows: Any) -> Any:
    """Return what an evaluation leaves of these rows of its comparison."""
    sums = {"adapter": Sums({}, np.zeros((3, 0)))}
    resamples = Resamples.draw(3, 10, 0)
    comparison = {"rows": list(rows)}
    walk_ids = ("x", "y", "z")
    return SimpleNamespace(comparison=comparison, walk_ids=walk_ids, sums=sums, resamples=resamples)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the arms that are evaluated, as it goes on; nothing is asked."""
    names: list[str] = []

    def evaluate(run: RunFile, fresh: bool, say: Any, data: str | None = None) -> Any:
        names.append(run.run.name)
        return evaluated()

    monkeypatch.setattr("cluster.evaluate.evaluate", evaluate)
    return names


def test_arms_of_the_same_words_share_dialogues_and_each_learns_from_its_own(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = experiment(tmp_path, FILTERS)
    command(asked, False)
    # One generation for all, and a trial for each: the same users.
    assert [name for name, _, _ in stage.played] == ["none", *["kiosk"] * 4]
    cases = [RunFolder.of(case.run) for case in asked.cases]
    ids = [[one.walk_id for one in read_dialogues(folder.dialogues())] for folder in cases]
    assert len(ids[0]) == PLAYED
    assert all(one == ids[0] for one in ids)

    found = table(tmp_path, "filters")
    rows = {row["arm"]: row["figures"] for row in found["rows"]}
    assert list(rows) == ["none", "ended", "random", "top"]
    assert rows["none"]["kept"]["value"] == 1.0
    # The share that a filter was told to leave has no interval; one that came about has.
    assert rows["random"]["kept"] == {"value": 0.5, "low": None, "high": None}
    assert rows["ended"]["kept"]["low"] < 1.0
    assert {rows[arm]["references"]["value"] for arm in rows} == {0.0}
    for figures in rows.values():
        trial = figures["trial: subgoals, share"]
        assert trial["low"] <= trial["value"] <= trial["high"]
        assert {"trial: persona", "trial: ended", "trial: diversity"} <= set(figures)
        assert figures["trial: references"]["value"] == 0.0
    said = capsys.readouterr().out
    assert "| none |" in said
    assert (tmp_path / "runs" / "filters" / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert said.count("| filters |") == 1
    assert [one["against"] for one in found["differences"]] == ["ended", "random", "top"]
    for one in found["differences"]:
        share = one["figures"]["trial: subgoals, share"]
        assert share["low"] <= share["value"] <= share["high"]
    assert "| none minus | trial: subgoals, share |" in said
    assert (tmp_path / "runs" / "filters" / "table.md").read_text() in said


def test_a_sweep_measures_every_arm_at_every_value_on_one_test_split(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_of: list[tuple[str, str | None]] = []

    def evaluate(run: RunFile, fresh: bool, say: Any, data: str | None = None) -> Any:
        asked_of.append((run.run.name, data))
        value = 0.1 * (run.train.dialogues or 0)
        figure = {"value": value, "low": value - 0.1, "high": value + 0.1}
        return evaluated({"measure": "intent_accuracy", "systems": {"adapter": figure}})

    monkeypatch.setattr("cluster.evaluate.evaluate", evaluate)
    command(experiment(tmp_path, POLICIES), False)
    test = f"{tmp_path}/runs/policies/seven-4/round-0/curated/test.parquet"
    assert asked_of == [("seven-4", None), ("seven-8", test), ("eight-4", test), ("eight-8", test)]
    assert [name for name, _, _ in stage.played] == ["seven-4", "eight-4"]
    rows = table(tmp_path, "policies")["rows"]
    assert [(row["arm"], row["value"]) for row in rows] == [
        ("seven", 4),
        ("seven", 8),
        ("eight", 4),
        ("eight", 8),
    ]
    assert rows[1]["figures"]["test: intent accuracy"]["value"] == 0.8
    assert (tmp_path / "runs" / "policies" / "plot.png").exists()


def test_the_same_command_goes_on_and_a_changed_experiment_is_refused(
    stage: Stage, tmp_path: Path
) -> None:
    command(experiment(tmp_path, FILTERS), False)
    played, trained = len(stage.played), len(stage.trained)
    more = FILTERS + '[[arms]]\nname = "some"\nset.curate.filters = [{{ kind = "consistent" }}]\n'
    command(experiment(tmp_path, more), False)  # one more arm is no change of the others
    assert (len(stage.played), len(stage.trained)) == (played + 1, trained + 1)

    with pytest.raises(InputError) as refused:
        command(experiment(tmp_path, more.replace("0.5", "0.4")), False)
    assert "the arm random was made otherwise: curate.filters was" in str(refused.value)
    assert "--fresh" in str(refused.value)
    with pytest.raises(InputError, match=r"train\.rank was 16 and is now 4"):
        command(experiment(tmp_path, more, "train.rank=4"), False)
    with pytest.raises(InputError, match=r"train\.model was null"):
        command(experiment(tmp_path, more, "train.model=smollm2-135m"), False)
    assert len(stage.played) == played + 1
    command(experiment(tmp_path, more, "walkers.alive=3"), False)
    assert len(stage.played) == played + 1
    command(experiment(tmp_path, more.replace("0.5", "0.4")), True)
    assert len(stage.played) == 2 * played + 2


def test_who_has_played_nothing_is_bound_to_nothing(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(*_: Any, **__: Any) -> Made:
        raise DuologueError("the engine does not start")

    with monkeypatch.context() as broken:
        broken.setattr("cluster.whole_run.generate", dead)
        with pytest.raises(DuologueError, match="does not start"):
            command(experiment(tmp_path, FILTERS), False)
    command(experiment(tmp_path, FILTERS, "train.rank=4"), False)
    with pytest.raises(InputError, match=r"train\.rank was 4 and is now 16"):
        command(experiment(tmp_path, FILTERS), False)


def test_a_trial_of_more_dialogues_goes_on(stage: Stage, tmp_path: Path) -> None:
    command(experiment(tmp_path, FILTERS), False)
    stage.played.clear()
    command(experiment(tmp_path, FILTERS.replace("trial = 6", "trial = 9")), False)
    assert [name for name, _, _ in stage.played] == ["kiosk"] * 4


def test_a_model_that_a_later_arm_lacks_is_missed_at_once(stage: Stage, tmp_path: Path) -> None:
    text = FILTERS + (
        '[set.engines.writer]\nkind = "vllm"\nmodel = "no.gguf"\n'
        '[[arms]]\nname = "large"\nset.roles = {{ user = "writer", agent = "writer" }}\n'
    )
    asked = experiment(tmp_path, f'differ = ["roles", "curate"]\n{text}')
    with pytest.raises(InputError, match=r"no\.gguf") as refused:
        command(asked, False)
    assert "engines.writer.model" in str(refused.value)
    assert stage.played == []


def test_an_arm_that_keeps_nothing_is_a_row_and_costs_no_other(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stage.spoken

    def cut(dialogue: Dialogue, who: int | None) -> Dialogue:
        spoken = real(dialogue, who)
        return replace(spoken, turns=spoken.turns[:-1])

    monkeypatch.setattr(stage, "spoken", cut)
    text = FILTERS.replace('{{ kind = "ended" }}', '{{ kind = "consistent" }}')
    with pytest.raises(DuologueError, match="1 arms have no figures"):
        command(experiment(tmp_path, text), False)
    rows = {row["arm"]: row for row in table(tmp_path, "filters")["rows"]}
    assert "were filtered out" in rows["ended"]["failed"]
    assert [name for name, row in rows.items() if not row["failed"]] == ["none", "random", "top"]
    assert f"all {PLAYED} dialogues" in (tmp_path / "runs" / "filters" / "table.md").read_text()


def test_an_arm_that_cannot_be_learned_from_costs_no_other(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stage.train

    def train(run: RunFile, fresh: bool, say: Any) -> None:
        if run.run.name == "ended":
            raise NothingToLearn([Finding(Where("train.parquet"), "none of its 9 dialogues can")])
        real(run, fresh, say)

    monkeypatch.setattr("cluster.whole_run.train_stage", train)
    with pytest.raises(DuologueError, match=r"1 arms have no figures\n    ended: none of its 9"):
        command(experiment(tmp_path, FILTERS), False)
    failed = {row["arm"]: row["failed"] for row in table(tmp_path, "filters")["rows"]}
    assert [name for name, why in failed.items() if not why] == ["none", "random", "top"]


def test_an_arm_that_has_learned_from_the_test_has_no_figures(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    def leaks(manifest: Any, train: ChatFile, test: ChatFile) -> Leak | None:
        return Leak("was trained on 1 of the 1 seed documents") if "eight-8" in train.path else None

    monkeypatch.setattr("cluster.experiment.leaks", leaks)
    with pytest.raises(DuologueError, match="eight-8: was trained on 1 of the 1 seed documents"):
        command(experiment(tmp_path, POLICIES), False)
    assert asked == ["seven-4", "seven-8", "eight-4"]


def test_arms_that_differ_in_more_than_one_setting_say_so(tmp_path: Path, stage: Stage) -> None:
    two = POLICIES.replace("set.run.seed = 8", "set.run.seed = 8\nset.train.rank = 4")
    said = refusal(tmp_path, two)
    assert "arms differ in more than one setting: run.seed, train.rank" in said
    assert 'differ = ["run.seed", "train.rank"]' in said
    for declared in ('["run.seed", "train.rank"]', '["run", "train"]'):
        meant = two.replace('test = "seven"', f'test = "seven"\ndiffer = {declared}')
        assert len(experiment(tmp_path, meant).cases) == 4
    assert "all arms are the same" in refusal(tmp_path, POLICIES.replace("seed = 8", "seed = 7"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "eight"', 'name = "seven"', "two arms are called 'seven'"),
        ('test = "seven"', 'test = "nine"', "test names the arm 'nine', which is not there"),
        ('["dialogues", "test"]', '["trial"]', "Say of how many: set.rounds.trial = 20"),
        ("values = [4, 8]", "values = [4, 4]", "sweep.values has 4 more than once"),
        ('["dialogues", "test"]', '["taste"]', "measures.0: Input should be"),
        ("set.run.seed = 8", "set.run.sead = 8", "arm eight: error: run.sead: unknown key"),
        ("run.toml", "walk.toml", "there is no such run file"),
        ('key = "train.dialogues"', 'key = "train"', "sweep.key"),
        (
            'name = "policies"',
            'name = "policies"\nrune = 3',
            "rune: unknown key; did you mean 'run'?",
        ),
        ("set.run.seed = 8", "sett.run.seed = 8", "arms.1.sett: unknown key; did you mean 'set'?"),
        ("set.run.seed = 8", 'set.run.name = "x"', "arms: eight: set: run.name is every arm's own"),
        ('key = "train.dialogues"', 'key = "run.round"', "sweep.key: run.round is every arm's own"),
        ("values = [4, 8]", "values = [4, 0]", "train.dialogues"),
    ],
)
def test_what_cannot_be_compared_is_told_at_once(
    old: str, new: str, said: str, tmp_path: Path, stage: Stage
) -> None:
    assert old in POLICIES
    assert said in refusal(tmp_path, POLICIES.replace(old, new))


def test_all_that_is_wrong_with_arms_is_told_and_nothing_else(tmp_path: Path, stage: Stage) -> None:
    text = POLICIES.replace('name = "seven"', 'name = "../seven"\nsed = 3', 1)
    text = text.replace('test = "seven"', "")
    said = refusal(tmp_path, text)
    assert "arms.0.name" in said
    assert "arms.0.sed: unknown key; did you mean 'set'?" in said
    assert "at least 2" not in said


def test_a_mistyped_setting_is_told_once_and_beside_what_else_is_wrong(
    tmp_path: Path, stage: Stage
) -> None:
    said = refusal(tmp_path, POLICIES, "run.sed=3", "run.seed=9")
    assert said.count("unknown key") == 1
    assert "t.toml: all arms: error: run.sed: unknown key; did you mean 'seed'?" in said
    assert "--set run.seed=9: error: would be the same in all arms" in said
    one = refusal(tmp_path, POLICIES.replace("set.run.seed = 8", "set.run.sed = 8"))
    assert "t.toml: arm eight: error: run.sed: unknown key" in one


def test_a_value_of_the_sweep_may_be_a_models_id(tmp_path: Path, stage: Stage) -> None:
    text = POLICIES.replace("train.dialogues", "train.model").replace("[4, 8]", '["a/b", "a/c"]')
    names = [case.name for case in experiment(tmp_path, text).cases]
    assert names == ["seven-a-b", "seven-a-c", "eight-a-b", "eight-a-c"]
    twice = text.replace('name = "eight"', 'name = "seven-a"').replace('"a/c"', '"b"')
    assert "two runs would be called seven-a-b" in refusal(tmp_path, twice)


def test_a_table_that_one_arm_leaves_empty_is_no_setting_of_its_own(
    tmp_path: Path, stage: Stage
) -> None:
    text = POLICIES.replace("set.run.seed = 8", "set.train.trainer.max_grad_norm = 0.5")
    assert len(experiment(tmp_path, text.replace("set.run.seed = 7", "")).cases) == 4


def test_what_arms_differ_in_is_not_set_for_all(tmp_path: Path, stage: Stage) -> None:
    for setting, key in [
        ("run.seed=9", "run.seed"),
        ("train.dialogues=5", "train.dialogues"),
        ("train={dialogues=5}", "train.dialogues"),
    ]:
        said = refusal(tmp_path, POLICIES, setting)
        assert f"--set {setting}: error: would be the same in all arms" in said
        assert f"differ in {key}" in said
    # The sweep itself is the experiment's, and so is what all arms set alike.
    swept = experiment(tmp_path, POLICIES, "sweep.values=[2, 3, 5]")
    assert [case.run.train.dialogues for case in swept.cases] == [2, 3, 5] * 2
    alike = POLICIES.replace("seed = 7", "seed = 7\nset.train.rank = 4")
    alike = alike.replace("seed = 8", "seed = 8\nset.train.rank = 4")
    ranks = {case.run.train.rank for case in experiment(tmp_path, alike, "train.rank=8").cases}
    assert ranks == {8}


def test_what_a_later_arm_cannot_do_is_told_before_anything_is_made_or_deleted(
    stage: Stage, tmp_path: Path
) -> None:
    command(experiment(tmp_path, FILTERS), False)
    played = list(stage.played)
    there = sorted((tmp_path / "runs" / "filters").rglob("*.parquet"))
    late = FILTERS + '[[arms]]\nname = "late"\nset.roles.adapter = "/no/adapter"\n'
    asked = experiment(tmp_path, f'differ = ["roles", "curate"]\n{late}')
    for fresh in (False, True):
        with pytest.raises(InputError, match="in late: holds no adapter"):
            command(asked, fresh)
    assert stage.played == played
    assert sorted((tmp_path / "runs" / "filters").rglob("*.parquet")) == there


def test_how_a_stage_is_gone_through_may_change(stage: Stage, tmp_path: Path) -> None:
    command(experiment(tmp_path, FILTERS), False)
    played, trained = list(stage.played), list(stage.trained)
    for setting in (
        "train.retries=5",
        "evaluate.turns=10",
        "engines.references.max_running=3",
        "engines.references.vllm={gpu_memory_utilization=0.7}",
    ):
        command(experiment(tmp_path, FILTERS, setting), False)
    assert (stage.played, stage.trained) == (played, trained)
    clipped = experiment(tmp_path, FILTERS, "train.trainer={max_grad_norm=0.5}")
    with pytest.raises(InputError, match=r"train\.trainer was \{\} and is now .*max_grad_norm"):
        command(clipped, False)
    changed = experiment(tmp_path, FILTERS, "engines.references.vllm={quantization='fp8'}")
    with pytest.raises(InputError, match=r"vllm\.quantization was null"):
        command(changed, False)


def test_an_arm_is_bound_by_what_it_has_begun(stage: Stage, tmp_path: Path) -> None:
    asked = experiment(tmp_path, FILTERS)
    command(asked, False)
    for case in asked.cases:
        shutil.rmtree(RunFolder.of(case.run).round().child("adapter").path)
    command(experiment(tmp_path, FILTERS, "train.rank=4"), False)  # nothing was learned any more
    for case in asked.cases:  # a walker's turn log is all that is left
        folder = RunFolder.of(case.run)
        shutil.rmtree(folder.dialogues().path)
        folder.log().create()
        folder.log().write_bytes("log-w0-1.arrow", b"")
    with pytest.raises(InputError, match=r"made otherwise: run\.seed was 0 and is now 9"):
        command(experiment(tmp_path, FILTERS, "train.rank=4", "run.seed=9"), False)


def test_all_are_tested_on_what_none_has_learned_from(stage: Stage, tmp_path: Path) -> None:
    text = POLICIES.replace("run.seed", "curate.seed").replace("seed = 7", "seed = 3")
    with pytest.raises(InputError, match=r"differ in curate\.seed"):
        command(experiment(tmp_path, text), False)
    assert stage.played == []


def test_where_nothing_is_learned_to_keep_nothing_is_a_figure(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = FILTERS.replace(', "trial"]', "]")
    text = text.replace("share = 0.5", "share = 0.05").replace(
        '{{ kind = "ended" }}', '{{ kind = "threshold", measure = "subgoals_said", min = 99 }}'
    )
    command(experiment(tmp_path, text), False)
    rows = {row["arm"]: row for row in table(tmp_path, "filters")["rows"]}
    assert not any(row["failed"] for row in rows.values())
    none, few = rows["ended"]["figures"], rows["random"]["figures"]
    assert none["kept"]["value"] == 0.0 < none["kept"]["high"]
    assert none["half of the subgoals said"] == rows["none"]["figures"]["half of the subgoals said"]
    assert few["kept"]["value"] == 2 / PLAYED  # too few for a split, and none is made
    assert "kept 0 of" not in capsys.readouterr().err
    assert stage.trained == []


def test_what_is_said_on_the_command_line_is_every_arms_but_its_place(
    stage: Stage, tmp_path: Path
) -> None:
    for setting in ("run.name=x", "run.out=/x", "run.round=1"):
        assert "would put all arms into one folder" in refusal(tmp_path, POLICIES, setting)
    said = refusal(tmp_path, POLICIES, "engines.reference.kind=vllm", "engines.reference.model=m")
    assert "engines.reference is an engine that nothing names; did you mean 'references'?" in said
    (tmp_path / "more.toml").write_text(RUN.format(place=tmp_path, dialogues=33))
    found = experiment(tmp_path, POLICIES, f"run={tmp_path}/more.toml")
    assert {case.run.run.dialogues for case in found.cases} == {33}
    found = experiment(tmp_path, POLICIES, "run.dialogues=7", "out=s3://b/runs?region=eu")
    assert {case.run.run.dialogues for case in found.cases} == {7}
    assert {case.run.run.out for case in found.cases} == {"s3://b/runs/policies?region=eu"}
    assert found.place == "s3://b/runs/policies?region=eu"


def test_more_dialogues_are_played_once_and_shared_again(stage: Stage, tmp_path: Path) -> None:
    command(experiment(tmp_path, FILTERS), False)
    before = len(stage.played)
    more = experiment(tmp_path, FILTERS, f"run.dialogues={PLAYED + 6}")
    command(more, False)
    assert [name for name, _, _ in stage.played[before:]].count("none") == 1
    assert {name for name, _, _ in stage.played[before:]} <= {"none", "kiosk"}
    ids = [
        {one.walk_id for one in read_dialogues(RunFolder.of(case.run).dialogues())}
        for case in more.cases
    ]
    assert len(ids[0]) == PLAYED + 6
    assert all(one == ids[0] for one in ids)


def test_dialogues_that_are_there_are_lent_and_never_deleted(stage: Stage, tmp_path: Path) -> None:
    asked = experiment(tmp_path, FILTERS)
    command(asked, False)
    before = len(stage.played)
    first = Path(RunFolder.of(asked.cases[0].run).folder.path)
    shutil.rmtree(first)  # by hand: the others have the same dialogues still
    command(asked, False)
    assert [name for name, _, _ in stage.played[before:]] == ["kiosk"]  # its adapter's trial
    ids = [
        {one.walk_id for one in read_dialogues(RunFolder.of(case.run).dialogues())}
        for case in asked.cases
    ]
    assert all(one == ids[0] for one in ids)


def test_an_arm_that_a_budget_has_stopped_is_not_learned_from(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.whole_run.generate", lambda run, fresh, **_: Made(False, 3, 0.1))
    with pytest.raises(DuologueError, match="none: stopped by its budget"):
        command(experiment(tmp_path, FILTERS), False)
    assert stage.trained == []


def test_what_no_arm_needs_is_not_asked_for(stage: Stage, tmp_path: Path) -> None:
    several = experiment(tmp_path, FILTERS, "rounds.count=2")
    with pytest.raises(InputError, match="an arm is one round"):
        command(several, False)


def test_the_arm_that_all_are_tested_on_comes_first(
    stage: Stage, tmp_path: Path, asked: list[str]
) -> None:
    command(experiment(tmp_path, POLICIES.replace('test = "seven"', 'test = "eight"')), False)
    assert asked == ["eight-4", "eight-8", "seven-4", "seven-8"]
    rows = table(tmp_path, "policies")["rows"]
    assert [row["run"] for row in rows] == ["seven-4", "seven-8", "eight-4", "eight-8"]


def test_a_folder_that_is_no_experiments_is_left_alone(stage: Stage, tmp_path: Path) -> None:
    place = tmp_path / "runs" / "filters"
    place.mkdir(parents=True)
    (place / "experiment.json").write_text('{"mine": true}')
    with pytest.raises(InputError, match="is no experiment's"):
        command(experiment(tmp_path, FILTERS), False)
    assert (place / "experiment.json").read_text() == '{"mine": true}'
    command(experiment(tmp_path, FILTERS, "name=other"), False)
    assert (tmp_path / "runs" / "other" / "table.json").exists()


def test_a_runs_folder_is_left_alone(stage: Stage, tmp_path: Path) -> None:
    place = tmp_path / "runs" / "filters"
    place.mkdir(parents=True)
    (place / "run.json").write_text("{}")
    with pytest.raises(InputError, match="is a run's folder"):
        command(experiment(tmp_path, FILTERS), False)
    assert [one.name for one in place.iterdir()] == ["run.json"]


def test_words_are_the_same_whatever_is_learned_from_them(stage: Stage, tmp_path: Path) -> None:
    none, ended, *_ = (case.run for case in experiment(tmp_path, FILTERS).cases)
    assert same_words(none, ended)
    seven, eight = (case.run for case in experiment(tmp_path, POLICIES).cases if case.value == 4)
    assert not same_words(seven, eight)
    longer = none.model_copy(update={"run": none.run.model_copy(update={"dialogues": 99})})
    assert not same_words(none, longer)
    loose, strict = (
        run.model_copy(update={"curate": run.curate.model_copy(update={"kept": 5})})
        for run in (none, ended)
    )
    assert not same_words(loose, strict)  # the filters decide how many are played
    patient = none.model_copy(update={"run": none.run.model_copy(update={"attempts": 5})})
    assert not same_words(none, patient)  # or the two would be alike in what they are compared in


def test_arms_are_compared_dialogue_by_dialogue() -> None:
    def outcomes(right: list[float], shares: dict[int, float], test: str = "t") -> Outcomes:
        keys: dict[Key, int] = {("heard right", ""): 0, ("heard", ""): 1}
        values = np.column_stack([right, np.full(len(right), 10.0)])
        walk_ids = tuple(f"{test}-{number}" for number in range(len(right)))
        tested = ByDialogue(walk_ids, Sums(keys, values), Resamples.draw(len(right), 200, 0))
        return Outcomes(tested, {f"walk-{index}": share for index, share in shares.items()})

    hard = [0.0, 0.1, 0.2, 0.8, 0.9, 1.0]  # what is hard for one is hard for all
    ours = outcomes([1, 2, 3, 8, 9, 10], dict(enumerate(hard)))
    less = {index: share - 0.05 for index, share in enumerate(hard) if index}
    theirs = outcomes([0, 1, 2, 7, 8, 9], less)
    (one, other) = differences(
        [("a", 4, ours), ("a", 8, ours), ("b", 4, theirs), ("b", 8, ours), ("b", 12, theirs)]
    )
    assert (one.of, one.against, one.value) == ("a", "b", 4)
    share = one.figures["trial: subgoals, share"]
    assert [share[key] for key in ("value", "low", "high")] == pytest.approx([0.05] * 3)
    assert other.figures["trial: subgoals, share"]["value"] == 0.0
    accuracy = one.figures["test: intent accuracy"]
    assert [accuracy[key] for key in ("value", "low", "high")] == pytest.approx([0.1] * 3)
    (unpaired,) = differences(
        [("a", 4, ours), ("b", 4, replace(theirs, users={"users.traits.vague": 0.5}))]
    )
    assert unpaired.figures.keys() == one.figures.keys() - {"trial: subgoals, share"}
    alone = outcomes([1, 2, 3, 8, 9, 10], {9: 0.5}, "another")
    assert list(differences([("a", None, alone), ("b", None, ours)])) == []


def test_correlations_are_of_ranks_over_enough_arms(stage: Stage, tmp_path: Path) -> None:
    def row(name: str, distinct: float, reached: float) -> Row:
        summary = {
            "settings": {"filters": []},
            "kept": 5,
            "played": 10,
            "measures": {
                "before": {},
                "after": {"distinct_1": distinct, "ended": 1.0, "persona_rank": None},
            },
            "corpus": {"after": {"self_bleu": -distinct}},
        }
        figure = {"value": reached, "low": None, "high": None}
        test = {"rows": [{"measure": "intent_accuracy", "systems": {"adapter": figure}}]}
        return Row(name, None, name, dialogues=summary, test=test, learned=5)

    arms = experiment(tmp_path, FILTERS)
    rows = [row("a", 0.1, 0.2), row("b", 0.2, 0.3), row("c", 0.4, 0.35), row("d", 0.8, 0.9)]
    assert correlations(arms, rows) == ("", [])
    rows.append(row("e", 0.9, 0.95))
    target, found = correlations(arms, rows)
    assert target == "test: intent accuracy"
    # What never differs is out.
    assert [(name, round(rho, 9), count) for name, rho, count in found] == [
        ("distinct_1", 1.0, 5),
        ("self_bleu", -1.0, 5),
    ]
    assert correlations(experiment(tmp_path, POLICIES), rows) == ("", [])
