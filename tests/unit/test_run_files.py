"""The run files that are shipped: they load, and a comparison's two arms differ in their policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from specs.errors import InputError
from specs.experiment_file import load_experiment
from specs.run_file import RunFile, load

RUNS = Path(__file__).resolve().parents[2] / "specs" / "runs"


def alike(run: RunFile) -> dict[str, object]:
    """Return what both arms of a comparison must have in common."""
    kept = run.model_dump(exclude={"policy": True, "evaluate": {"arm"}, "run": {"name"}})
    return dict(kept)


@pytest.mark.parametrize("path", sorted(RUNS.glob("*.toml")), ids=lambda path: path.stem)
def test_a_shipped_run_file_loads(path: Path) -> None:
    run = load(str(path), [])
    assert run.run.name == path.stem


EXPERIMENTS = RUNS.parent / "experiments"


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.toml")), ids=lambda path: path.stem)
def test_a_shipped_experiment_loads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RUNS.parents[1])
    found = load_experiment(path)
    assert found.file.name == path.stem
    values = len(found.file.sweep.values) if found.file.sweep else 1
    assert len(found.cases) == values * len(found.file.arms)


@pytest.mark.parametrize("name", ["gate", "full"])
def test_the_arms_of_a_comparison_differ_in_their_policy_alone(name: str) -> None:
    one = load(str(RUNS / f"{name}.toml"), [])
    other = load(str(RUNS / f"{name}_single_prompt.toml"), [])
    assert alike(one) == alike(other)
    assert (one.policy.kind, other.policy.kind) == ("walk", "single_prompt")


DEMO = RUNS / "demo.toml"


def test_an_unsteered_agent_that_would_see_neither_workflow_nor_history_is_refused() -> None:
    tavern = RUNS / "tavern.toml"
    message = r"engines.cpu.profile.persona = true and engines.cpu.profile.history = 8"
    with pytest.raises(InputError, match=message):
        load(tavern, ["policy.workflow=unstructured"])
    seen = ["engines.cpu.profile.persona=true", "engines.cpu.profile.history=8"]
    assert load(tavern, ["policy.workflow=unstructured", *seen]).roles.agent == "cpu"


def test_an_engine_that_nothing_names_is_refused() -> None:
    message = r"engines.cpy is an engine that no role and no judge names; did you mean 'cpu'\?"
    with pytest.raises(InputError, match=message):
        load(DEMO, ["engines.cpy.model=/path/to/model.gguf"])
    run = load(DEMO, ["engines.j.model=/a.gguf", "engines.j.kind=vllm", "curate.judge=j"])
    assert run.engines["j"].model == "/a.gguf"


@pytest.mark.parametrize("name", ["2026", "inf", "nan", "true", "2026-11-21", "0x10", '"quoted"'])
def test_a_setting_is_text_where_the_run_file_takes_text(name: str) -> None:
    run = load(DEMO, [f"run.name={name}", "run.dialogues=7"])
    assert (run.run.name, run.run.dialogues) == (name.strip('"'), 7)


def test_the_last_of_two_settings_counts() -> None:
    assert load(DEMO, ["run.name=2026", "run.name=a"]).run.name == "a"
    assert load(DEMO, ["run.name=a", "run.name=2026"]).run.name == "2026"


@pytest.mark.parametrize(
    "setting",
    [
        "engines.small.start_deadline_s=inf",
        "engines.small.turn_deadline_s=nan",
        "engines.small.start_deadline_s=1e300",
        "engines.small.faults.latency_s=[inf, inf]",
        "engines.small.faults.latency_s=[2.0, 1.0]",
        "engines.small.faults.latency_s=[-1.0, 1.0]",
        "walkers.sinks=99999999999",
        "walkers.count=99999999999",
        "engines.small.url=user:password@host",
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_key(setting: str) -> None:
    key = setting.partition("=")[0]
    kind = ["engines.small.kind=openai"] if key.endswith("url") else []
    with pytest.raises(InputError) as caught:
        load(DEMO, [*kind, setting])
    assert key.removesuffix(".url") in str(caught.value)
    assert "password" not in str(caught.value)


def test_a_run_bounds_its_turns_as_a_domain_does() -> None:
    assert load(DEMO, ["policy.max_turns=1000"]).policy.max_turns == 1000
    with pytest.raises(InputError, match=r"policy\.max_turns: is too large: give at most 1,000"):
        load(DEMO, ["policy.max_turns=1001"])


def test_the_home_folder_is_meant_by_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/cook")
    places = ["run.out=~/runs", "domain.path=~/shop", "domain.corpus=~/c.jsonl"]
    run = load(DEMO, [*places, "retrieval.embedding=~/e", "evaluate.arm=~/runs/other"])
    assert run.run.out == "/home/cook/runs"
    assert (run.domain.path, run.domain.corpus) == ("/home/cook/shop", "/home/cook/c.jsonl")
    assert (run.retrieval.embedding, run.evaluate.arm) == ("/home/cook/e", "/home/cook/runs/other")
    assert load(DEMO, ["run.out=s3://bucket/~x"]).run.out == "s3://bucket/~x"
