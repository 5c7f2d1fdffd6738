from __future__ import annotations

import random
import threading
from collections import Counter
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any, ClassVar

import pytest

from actors import tools
from actors.tools import ToolContext, ToolError, call_tool, run_tool
from specs.domain import Json, Outcome, SlotType, Table, Tool
from specs.errors import Where

WHERE = Where("domain.yaml", 3, 1)


def tool(
    *outcomes: Outcome, table: Table | None = None, name: str = "t", **input_: SlotType
) -> Tool:
    return Tool(name, "", input_, outcomes, table, WHERE)


def run(tool_: Tool, scope: dict[str, Json] | None = None, seed: int = 0, **given: Json) -> Json:
    return run_tool(tool_, given, scope or {}, random.Random(seed))


def test_outcomes_come_as_often_as_declared_and_the_same_for_the_same_seed() -> None:
    flaky = tool(Outcome(0.75, {"ok": True}), Outcome(0.25, {"ok": False}))
    results = [run(flaky, seed=seed)["ok"] for seed in range(400)]
    assert 260 < Counter(results)[True] < 340
    assert results == [run(flaky, seed=seed)["ok"] for seed in range(400)]


def test_strings_in_a_result_are_templates_over_scope_and_input() -> None:
    timer = tool(
        Outcome(
            1,
            {
                "text": "{{ input.minutes }} min for {{ doc.title }}",
                "list": ["{{ input.minutes }}"],
            },
        ),
        minutes="integer",
    )
    result = run(timer, {"doc": {"title": "soup"}}, minutes=5)
    assert result == {"text": "5 min for soup", "list": [5]}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ input.n }}", 3),
        ("{{- input.n }}", "3"),
        ("{{ input.n }}{{ input.n }}", "33"),
        ("{{ input.n + 1 }}", 4),
        (" plain ", "plain"),
        ("{{ [1, 2] }}", [1, 2]),
    ],
)
def test_a_single_expression_keeps_its_type(source: str, expected: Json) -> None:
    assert run(tool(Outcome(1, source), n="integer"), n=3) == expected


def test_an_undefined_name_in_a_result_names_tool_and_place() -> None:
    with pytest.raises(ToolError, match=r"'t'.*domain\.yaml:3:1"):
        run(tool(Outcome(1, "{{ memory.nothing }}")), {"memory": {}})


def test_a_table_gives_the_first_row_that_matches_or_otherwise() -> None:
    rows = (
        {"city": "Bern", "open": True, "at": "{{ input.city }} 9"},
        {"city": "Bern", "open": False},
        {"city": 1, "open": False},
    )
    table = Table(rows, ("city",), {"open": None})
    assert run(tool(table=table, city="text"), city="Bern") == {
        "city": "Bern",
        "open": True,
        "at": "Bern 9",
    }
    assert run(tool(table=table, city="text"), city="Rome") == {"open": None}
    assert run(tool(table=table, city="boolean"), city=True) == {"open": None}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "without its input 'n'"),
        ({"n": "3"}, "no integer"),
        ({"n": True}, "no integer"),
        ({"n": None}, "no integer"),
        ({"n": 3, "m": 1}, "no input 'm'"),
    ],
)
def test_inputs_are_checked(given: dict[str, Json], words: str) -> None:
    with pytest.raises(ToolError, match=words):
        run(tool(Outcome(1, None), n="integer"), **given)


def doubled(arguments: dict[str, Json], context: ToolContext) -> Json:
    assert context.scope == {"memory": {"step": 1}}
    return {"twice": arguments["n"] * 2, "draw": context.generator.random()}


def failing(arguments: dict[str, Json], context: ToolContext) -> Json:
    raise LookupError("no such account")


def no_json(arguments: dict[str, Json], context: ToolContext) -> Json:
    return {"path": Path()}


def not_a_number(arguments: dict[str, Json], context: ToolContext) -> Json:
    return float("nan")


def meddling(arguments: dict[str, Json], context: ToolContext) -> Json:
    context.scope["memory"]["step"] = 99
    arguments["n"] = 99
    return threading.current_thread().name


answer_now = threading.Event()


def hanging(arguments: dict[str, Json], context: ToolContext) -> Json:
    return answer_now.wait(30)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = (doubled, failing, no_json, not_a_number, meddling, hanging)
    found = [EntryPoint(f.__name__, f"m:{f.__name__}", tools.ENTRY_POINTS) for f in functions]
    by_name: dict[str, Any] = {f.__name__: f for f in functions}
    monkeypatch.setattr(EntryPoint, "load", lambda self: by_name[self.name])
    monkeypatch.setattr(
        "importlib.metadata.entry_points", lambda **given: EntryPoints(found).select(**given)
    )
    tools._load.cache_clear()


@pytest.mark.usefixtures("registered")
class TestPythonTools:
    scope: ClassVar[dict[str, Json]] = {"memory": {"step": 1}, "documents": {"a": {"id": "a"}}}

    def test_it_is_called_and_draws_by_its_generator(self) -> None:
        first = run(tool(name="doubled", n="integer"), self.scope, n=4)
        assert first["twice"] == 8
        assert first == run(tool(name="doubled", n="integer"), self.scope, n=4)

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("failing", "'failing' failed: LookupError: no such account"),
            ("no_json", "'no_json' returned what is no JSON"),
            ("not_a_number", "'not_a_number' returned what is no JSON"),
            ("doubles", "did you mean 'doubled'"),
        ],
    )
    def test_what_goes_wrong_names_the_tool(self, name: str, words: str) -> None:
        with pytest.raises(ToolError, match=words):
            run(tool(name=name), self.scope)

    async def test_it_runs_in_a_thread_and_cannot_change_the_dialogue(self) -> None:
        given = {"n": 1}
        meddler = tool(name="meddling", n="integer")
        thread = await call_tool(meddler, given, self.scope, random.Random(0))
        assert thread != threading.current_thread().name
        assert (given, self.scope["memory"]) == ({"n": 1}, {"step": 1})

    async def test_it_has_a_deadline(self) -> None:
        with pytest.raises(ToolError, match="has not answered"):
            await call_tool(tool(name="hanging"), {}, {}, random.Random(0), deadline_s=0.01)
        answer_now.set()
