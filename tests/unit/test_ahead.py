"""Users who say two things at once: which, how both are understood, and what is learned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.manager import RougeManager
from actors.manners import cuts
from actors.policies import CONVERSATIONS
from actors.reenact import exact_prompts
from cluster.rehearsal import rehearse
from specs.agent_chat import agent_card, agent_messages
from specs.ahead import behind, open_ahead, then_of
from specs.loader import open_domain
from specs.plan import PlanSource, make_plan
from specs.records import Dialogue, Turn, dialogue_from_row, dialogue_row
from specs.replay import replay, source_of
from specs.run_file import PolicySection
from specs.scene import Scene
from specs.traits import acted, drawn, told, trait_findings
from tests.unit.kiosk import kiosk
from tests.unit.scripted import make_cast
from tests.unit.test_routed import PROFILE, Talk
from tests.unit.tiny_domain import tiny
from trainer.consistency import follow, inconsistencies
from trainer.scoring import Card, heard

ALL = (("two_intents", 1.0),)


def played(name: str, kind: Any, count: int = 30) -> list[Dialogue]:
    policy = PolicySection(kind=kind, manager="rouge")
    return rehearse(open_domain(name), count, 0, 1, policy, ALL)


def doubles(dialogue: Dialogue) -> list[Turn]:
    return [turn for turn in dialogue.turns if "then" in (turn.routing or {})]


@pytest.mark.parametrize("name", ["tavern", "healer"])
@pytest.mark.parametrize("kind", ["walk", "hybrid", "routed"])
def test_both_intents_are_taken_and_the_agent_speaks_behind_the_second(
    name: str, kind: str
) -> None:
    domain, count = open_domain(name), 0
    for dialogue in played(name, kind):
        assert dialogue.ended
        assert not inconsistencies(follow(dialogue, domain, source_of(dialogue, 1)))
        assert acted(dialogue)["two_intents"] == [turn.index for turn in doubles(dialogue)]
        steps = [(step.from_, step.intent) for step in dialogue.path]
        for turn in doubles(dialogue):
            first, then = domain.edges[turn.edge], then_of(domain, turn)
            assert then is not None
            assert then.ahead
            assert then.from_ in [case.to for case in first.to]
            place = steps.index((first.from_, turn.intent))
            assert steps[place + 1] == (then.from_, then.intent)
            assert dialogue.turns[turn.index + 1].state in [case.to for case in then.to]
            halves = ([one.say.source for one in edge.speech.references] for edge in (first, then))
            assert all(any(said in turn.text for said in some) for some in halves)
            assert then.from_ not in [one.state for one in dialogue.turns if one.role == "agent"]
            count += 1
        assert len(doubles(dialogue)) <= 2
    assert count > 15


def test_a_second_edge_that_was_not_open_shows() -> None:
    domain = open_domain("tavern")
    dialogue = next(one for one in played("tavern", "walk") if doubles(one))
    [turn, *_] = doubles(dialogue)
    wrong = replace(turn, routing={"then": domain.edges_from("greet")[0].number})
    turns = tuple(wrong if one is turn else one for one in dialogue.turns)
    row = dialogue_row(replace(dialogue, turns=turns))
    found = follow(dialogue_from_row(row), domain, source_of(dialogue, 1))
    kinds = [one.kind for one in inconsistencies(found)]
    assert kinds
    assert set(kinds) == {"off_path"}
    assert any("was not open behind" in one for r in found.turns for one in r.differences)


def test_the_agent_learns_to_hear_both_and_is_scored_on_both() -> None:
    domain = open_domain("tavern")
    card = agent_card(domain)
    scored = Card.read(json.dumps(card))
    assert card["intents"]["take_fire"]["slots"] == {"then": "id"}
    assert "then" not in card["intents"]["leave"]["slots"]
    for dialogue in played("tavern", "routed"):
        messages = agent_messages(dialogue, domain, source_of(dialogue, 1))
        for turn in doubles(dialogue):
            then = then_of(domain, turn)
            assert then is not None
            place = next(n for n, one in enumerate(messages) if one.content == turn.text)
            line, answer = messages[place + 1].content.split("\n")
            assert json.loads(line) == {"intent": turn.intent, "slots": {"then": then.intent}}
            assert answer == dialogue.turns[turn.index + 1].text
            [slot] = heard(scored, line, line).slots.values()
            assert (slot.credit, slot.gold) == (1, 1)
            missed = heard(scored, line, json.dumps({"intent": turn.intent, "slots": {}}))
            assert [one.credit for one in missed.slots.values()] == [0]


@pytest.mark.parametrize("policy", ["walk", "hybrid", "routed"])
async def test_two_intents_are_resumed_and_their_prompts_are_shown(policy: str) -> None:
    domain, seen = open_domain("tavern"), 0
    source = PlanSource(2, policy, traits=ALL)
    keys: dict[str, Any] = {"source": source, "profile": PROFILE, "manager": RougeManager()}
    profiles: Any = {"user": PROFILE, "agent": PROFILE}
    for index in range(6):
        plan = make_plan(domain, source, index)
        # What Talk says stands for nothing: a person's words for both stand in.
        keys["max_turns"] = 12
        whole = await CONVERSATIONS[policy](make_cast(domain, Talk({}), **keys), plan).play()
        seen += len(doubles(whole))
        assert all(one.consistent for one in replay(whole, domain, source))
        prompts = await exact_prompts(whole, domain, replace(source, traits=()), profiles)
        assert all(not text.startswith("(much like") for text in prompts.values())
        for turn in doubles(whole):
            assert "Say both at once." in prompts[turn.index]
        for cut in range(1, len(whole.turns)):
            cast = make_cast(domain, Talk({}), **keys)
            again = await CONVERSATIONS[policy](cast, plan, 0, whole.turns[:cut]).play()
            assert [one.text for one in again.turns] == [one.text for one in whole.turns]
            assert (again.stop_reason, again.path) == (whole.stop_reason, whole.path)
    assert seen


async def test_free_words_count_as_two_where_the_manager_finds_two() -> None:
    domain = open_domain("tavern")
    source = PlanSource(1, "routed", traits=ALL)
    said = {1: "A supper, please, I'm starving.", 3: "The window table, please. Stew, I love eel."}
    for index in range(60):
        plan = make_plan(domain, source, index)
        if plan.memory["errand"] != "supper":
            continue
        keys: dict[str, Any] = {"source": source, "profile": PROFILE, "max_turns": 6}
        cast = make_cast(domain, Talk(said), manager=RougeManager(), **keys)
        dialogue = await CONVERSATIONS["routed"](cast, plan).play()
        turn = dialogue.turns[3]
        if not list(told(turn)) or turn.source == "reference":
            continue
        then = then_of(domain, turn)
        assert then is not None
        assert (turn.intent, then.intent) == ("take_window", "take_stew")
        assert dialogue.turns[4].state == "ask_bones"
        return
    pytest.fail("nobody was to say two things there")


def test_what_calls_a_tool_first_or_carries_slots_cannot_be_foreseen() -> None:
    domain = kiosk()
    scene = Scene(domain, make_plan(domain, PlanSource(1), 0))
    list(scene.begin())
    asked = next(edge for edge in domain.edges_from(scene.node) if edge.speech.slots)
    assert behind(scene, asked) is None
    before = (scene.node, list(scene.path), scene.memory, scene.turn)
    assert open_ahead(None) == []
    for edge in domain.edges_from(scene.node):
        assert open_ahead(behind(scene, edge)) == []
    assert (scene.node, scene.path, scene.memory, scene.turn) == before


def test_who_says_little_does_not_say_two_things() -> None:
    half = (("terse", 0.5), ("two_intents", 0.5))
    assert all(len(drawn(str(number), half)) == 1 for number in range(300))


def test_a_domain_without_anything_to_say_ahead_refuses_the_trait(tmp_path: Path) -> None:
    [found] = trait_findings(tiny(tmp_path), (("two_intents", 0.1),))
    assert found.message == "nothing in 'kiosk' may be said before it is asked for"


def test_words_are_cut_where_clauses_end() -> None:
    assert cuts("By the fire. Stew, please!") == [
        ("By the fire", "Stew, please!"),
        ("By the fire. Stew", "please!"),
    ]
    assert cuts("By the fire") == []
