"""A record played again: what its speakers knew, and what a tampered record says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from actors.single_prompt import SinglePrompt
from specs.plan import PlanSource, make_plan
from specs.records import Dialogue, PathStep
from specs.replay import Replayed, ReplayError, replay, source_of
from tests.unit.kiosk import SEED, kiosk, played
from tests.unit.scripted import make_cast
from tests.unit.test_single_prompt import Writer


def again(dialogue: Dialogue) -> list[Replayed]:
    return list(replay(dialogue, kiosk(), source_of(dialogue, SEED)))


def changed(dialogue: Dialogue, place: int, **values: Any) -> Dialogue:
    turns = list(dialogue.turns)
    turns[place] = replace(turns[place], **values)
    return replace(dialogue, turns=tuple(turns))


def with_(holds: Callable[[Dialogue, int], bool]) -> tuple[Dialogue, int]:
    """Return the first dialogue and turn of which something holds."""
    return next((d, i) for d in played() for i in range(len(d.turns)) if holds(d, i))


def test_what_was_played_is_consistent() -> None:
    for dialogue in played():
        turns = again(dialogue)
        assert [done.turn for done in turns] == list(dialogue.turns)
        assert [done.differences for done in turns] == [()] * len(turns)


def test_a_speaker_knows_what_it_knew() -> None:
    dialogue, index = with_(lambda d, i: d.turns[i].state == "bye")
    bought, bye = again(dialogue)[index - 1 : index + 1]
    assert bought.speech is kiosk().edges[bought.turn.edge].speech
    assert bought.scope["slots"] == bought.turn.slots
    assert [item["id"] for item in bought.scope["results"]] == bought.scope["reply"]["shown"]
    assert bought.calls == ()
    assert [calling.tool for calling, _ in bye.calls] == ["pay", "weather"]
    assert bye.scope["tools"]["weather"] == {"sky": "grey"}
    assert bye.scope["heard"] == bought.turn.text
    said = [
        reference.say.render(bye.scope) for reference in bye.speech.references
    ]  # the reference engine has no other words
    assert bye.turn.text in said


async def test_a_dialogue_of_one_prompt() -> None:
    for index in range(10):
        source = PlanSource(SEED, "single_prompt")
        plan = make_plan(kiosk(), source, index)
        written = await SinglePrompt(make_cast(kiosk(), Writer(), source=source), plan).play()
        assert source_of(written, SEED) == source
        assert written.turns
        assert all(done.consistent for done in again(written))


def test_another_domain_or_run_is_refused() -> None:
    dialogue = played()[0]
    with pytest.raises(ReplayError, match="another run seed"):
        list(replay(dialogue, kiosk(), source_of(dialogue, SEED + 1)))
    other = replace(kiosk(), digest="0" * 64)
    with pytest.raises(ReplayError, match="another domain"):
        list(replay(dialogue, other, source_of(dialogue, SEED)))


def test_a_choice_of_what_stands_elsewhere_shows() -> None:
    dialogue, index = with_(lambda d, i: d.turns[i].intent == "choose")
    slots = dialogue.turns[index].slots
    other = changed(dialogue, index, slots={**slots, "option": slots["option"] + 1})
    assert again(other)[index].differences == (
        f"slot 'option': {slots['option'] + 1} in the record, {slots['option']} here",
    )


def test_memory_state_and_call_that_differ_show() -> None:
    dialogue, index = with_(lambda d, i: d.turns[i].call is not None)
    for values in (
        {"memory": {**dialogue.turns[index].memory, "page": 9}},
        {"state": "farewell"},
        {"call": {"tool": "search", "arguments": {"query": "coffee", "page": 0}}},
    ):
        assert len(again(changed(dialogue, index, **values))[index].differences) == 1


def test_another_path_and_an_end_too_soon_show() -> None:
    dialogue = next(d for d in played() if len(d.turns) > 3)
    path = (replace(dialogue.path[0], to="farewell"), *dialogue.path[1:])
    assert "the path goes elsewhere" in again(replace(dialogue, path=path))[-1].differences
    longer = (*dialogue.path, PathStep("bye", "", "hello"))
    assert "the path goes on after the end" in again(replace(dialogue, path=longer))[-1].differences
    shorter = again(replace(dialogue, turns=dialogue.turns[:3]))
    assert "it is said to have ended, and has not" in shorter[-1].differences


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"edge": 999}, "no edge 999"),
        ({"edge": -1}, "no edge -1"),
        ({"role": "agent"}, "the agent speaks where the user should"),
        ({"index": 7}, "turn 1 should come here"),
    ],
)
def test_a_record_that_cannot_be_followed(values: dict[str, Any], message: str) -> None:
    dialogue = next(d for d in played() if d.turns[1].intent == "ask")
    source = source_of(dialogue, SEED)
    turns = replay(changed(dialogue, 1, **values), kiosk(), source)
    assert next(turns).consistent
    with pytest.raises(ReplayError, match=message):
        list(turns)


@pytest.mark.parametrize("values", [{"result_ids": ("nothing",)}, {"call": None}])
def test_results_that_nothing_can_be_made_of(values: dict[str, Any]) -> None:
    dialogue, index = with_(lambda d, i: d.turns[i].state == "offer" and d.turns[i].role == "agent")
    with pytest.raises(ReplayError, match=r"no 'nothing'|no result of the call of 'search'"):
        again(changed(dialogue, index, **values))
