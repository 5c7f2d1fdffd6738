"""A run whose agent is played by a trained one: which adapter that is, and whether it fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.engines.models import resolve_model
from cluster.agent_adapter import carried, with_adapter
from cluster.resume import Change, changes
from specs.errors import InputError
from specs.run_file import RunFile, validate
from tests.unit.tiny_model import write_adapter
from trainer.weights import base_digest

MODEL = "smollm2-135m"


def adapter(folder: Path, method: str = "qlora", **manifest: Any) -> Path:
    base = {"base_model": MODEL, "base_digest": base_digest(resolve_model(MODEL))}
    return write_adapter(folder, method=method, **{**base, **manifest})


def run_of(place: Path, user: str = "cpu", **settings: Any) -> RunFile:
    data: dict[str, Any] = {
        "run": {"name": "tea"},
        "domain": {"path": "recipe"},
        "engines": {"cpu": {"model": MODEL}, "people": {"kind": "reference"}},
        "roles": {"user": user, "agent": "cpu", "adapter": str(place)},
    }
    for name, value in settings.items():
        data[name] = {**data.get(name, {}), **value}
    return validate(data, "run.toml")


def refusal(run: RunFile) -> str:
    with pytest.raises(InputError) as refused:
        with_adapter(run)
    return "\n".join(map(str, refused.value.findings))


def test_an_adapter_is_found_by_its_run_and_carried_by_the_agents_engine_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = adapter(tmp_path / "runs" / "tea" / "round-0" / "adapter")
    monkeypatch.chdir(tmp_path)
    run = with_adapter(run_of(Path("runs/tea"), user="people"))
    assert run.roles.adapter == str(folder)
    assert carried(run, "cpu") == str(folder)
    assert carried(run, "people") == ""
    assert run.engines["cpu"].model == MODEL
    plain = run_of(folder).model_copy(
        update={"roles": run.roles.model_copy(update={"adapter": None})}
    )
    assert with_adapter(plain) is plain
    assert carried(plain, "cpu") == ""


def test_a_fully_trained_model_takes_the_engines_place_and_shares_it_with_nobody(
    tmp_path: Path,
) -> None:
    folder = adapter(tmp_path / "adapter", "full")
    run = with_adapter(run_of(folder, user="people"))
    assert run.engines["cpu"].model == str(folder)
    assert carried(run, "cpu") == ""
    assert "Give the agent an engine of its own" in refusal(run_of(folder))


def test_what_is_none_or_does_not_fit_is_refused(tmp_path: Path) -> None:
    assert "holds no adapter" in refusal(run_of(tmp_path))
    other = adapter(tmp_path / "other", base_model="huge", base_digest="abc")
    assert "this adapter was trained on huge" in refusal(run_of(other))
    (adapter(tmp_path / "half") / "adapter_config.json").unlink()
    assert "is not whole" in refusal(run_of(tmp_path / "half"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"policy": {"kind": "single_prompt"}}, "roles.adapter plays turn by turn"),
        (
            {"engines": {"cpu": {"kind": "openai", "url": "http://127.0.0.1:1/v1"}}},
            "roles.adapter is shown tokens",
        ),
    ],
)
def test_who_cannot_be_played_by_one_is_told_before(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        run_of(tmp_path, **settings)


def test_another_adapter_is_another_run() -> None:
    def content(adapter: str | None, trained: str) -> dict[str, Any]:
        roles = {"user": "cpu", "agent": "cpu", "adapter": adapter}
        return {"run_file": {"roles": roles, "engines": {"cpu": {}}}, "adapter": trained}

    before = content(None, "")
    del before["adapter"], before["run_file"]["roles"]["adapter"]  # of a run without the key
    assert changes(before, content(None, "")) == []
    assert [one.key for one in changes(before, content("/a", "x"))] == [
        "roles.adapter",
        "roles.adapter's training",
    ]
    (again,) = changes(content("/a", "x"), content("/a", "y"))
    assert str(again) == 'roles.adapter\'s training was "x" and is now "y"'
    assert changes(content("/a", "x"), content("/moved/a", "x")) == []
    other = changes(content("/a", "x"), content("/b", "y"))
    assert 'roles.adapter was "/a" and is now "/b"' in map(str, other)


def test_weights_of_a_folder_that_was_moved_are_the_same_weights() -> None:
    def content(place: str, model: str, trained: str = "x") -> dict[str, Any]:
        roles = {"user": "cpu", "agent": "own", "adapter": place}
        engines = {"cpu": {"model": "m"}, "own": {"model": model}}
        return {"run_file": {"roles": roles, "engines": engines}, "adapter": trained}

    assert changes(content("/a", "/a"), content("/moved/a", "/moved/a")) == []
    (changed,) = changes(content("/a", "/a"), content("/a", "m"))
    assert changed.key == "engines.own.model"


def test_long_values_are_shown_from_where_they_differ() -> None:
    many = [{"kind": "ended", "measure": None, "share": None}] * 4
    told = str(Change("curate.filters", many, [*many, {"kind": "consistent"}]))
    assert len(told) < 220
    assert told.endswith('{"kind": "consistent"}]')
    assert str(Change("train.rank", 16, 4)) == "train.rank was 16 and is now 4"
