"""Prompts: what a model is shown in both forms, and how its answers are read."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.prompts import (
    Ask,
    Line,
    Prompt,
    Shot,
    Unparsed,
    clean,
    complete,
    parse,
    render,
    render_shots,
    schema_of,
)
from specs.domain import Example, RoleCard, Side, Slot, Speech
from specs.engine import Message
from specs.engine_section import Profile
from specs.errors import Where
from specs.expressions import Template

HERE = Where("test.yaml", 1, 1)
CARDS: dict[Side, RoleCard] = {
    "user": RoleCard("guest", Template("", HERE)),
    "agent": RoleCard("keeper", Template("", HERE)),
}
QUERY = Slot("query", "text", HERE)
CUPS = Slot("cups", "integer", HERE)
TAGS = Slot("tags", "list", HERE)
SHOTS = (
    Shot("Ask for mint.", {"query": "mint", "cups": 2}, "Any mint?"),
    Shot("Ask for\nfennel.", {"query": "fennel", "cups": 1}, "Fennel, please."),
)
SAID = (
    Line("agent", "Good day."),
    Line("user", "Hello, I am\ncold."),
    Line("agent", "Then have some tea."),
)


def ask(side: Side = "user", *written: Slot, history: tuple[Line, ...] = SAID, **keys: Any) -> Ask:
    return Ask(
        side=side,
        cards=CARDS,
        system=keys.pop("system", "You are Ada."),
        speech=Speech(),
        instruction="Ask for oolong.",
        written=written,
        history=history,
        **keys,
    )


# -- renderings


def test_a_script_is_examples_system_history_and_the_line_to_be_continued() -> None:
    prompt = render(ask(), Profile(form="script"), SHOTS)
    assert prompt == Prompt(
        text=(
            "Intention: Ask for mint.\nguest: Any mint?\n\n"
            "Intention: Ask for fennel.\nguest: Fennel, please.\n\n"
            "You are Ada.\n\n"
            "keeper: Good day.\nguest: Hello, I am cold.\nkeeper: Then have some tea.\n\n"
            "Intention: Ask for oolong.\nguest:"
        ),
        stop=("\n",),
    )
    assert prompt.exact() == prompt.text


def test_a_script_with_slots_asks_for_them_first() -> None:
    profile = Profile(form="script", persona=False, history=1)
    prompt = render(ask("user", QUERY, CUPS, repair=("mentions", "asks")), profile, SHOTS[:1])
    assert prompt.text == (
        "Intention: Ask for mint.\nquery: mint\ncups: 2\nguest: Any mint?\n\n"
        "keeper: Then have some tea.\n\n"
        "Intention: Ask for oolong.\n(Mind: mentions, asks.)\nquery:"
    )
    assert prompt.stop == ("\n\n",)
    assert prompt.schema is None


def test_the_agent_is_instructed_and_named() -> None:
    text = render(ask("agent"), Profile(form="script", history=0), ()).text
    assert text == "You are Ada.\n\nInstruction: Ask for oolong.\nkeeper:"


def test_a_chat_flips_the_roles_and_ends_with_the_instruction() -> None:
    prompt = render(ask(), Profile(), SHOTS[:1])
    [system, *rest] = prompt.messages
    assert system.role == "system"
    assert system.content.startswith("You are Ada.\n\nYou speak as the guest.")
    assert system.content.endswith("utterances:\n\n[Ask for mint.]\nAny mint?")
    assert rest == [
        Message("user", "Good day."),
        Message("assistant", "Hello, I am\ncold."),
        Message("user", "Then have some tea.\n\n[Ask for oolong.]"),
    ]
    other = render(ask("agent"), Profile(), ()).messages[1:]
    assert [(m.role, m.content) for m in other] == [
        ("user", "[You speak first.]"),
        ("assistant", "Good day."),
        ("user", "Hello, I am\ncold."),
        ("assistant", "Then have some tea."),
        ("user", "[Ask for oolong.]"),
    ]


def test_a_chat_with_slots_wants_one_json_object_as_its_examples_are() -> None:
    prompt = render(ask("user", QUERY, CUPS, repair=("says",)), Profile(), SHOTS[:1])
    assert '{"query":"mint","cups":2,"text":"Any mint?"}' in prompt.messages[0].content
    assert prompt.messages[-1].content.endswith("failed these checks: says. Mind them.]")
    assert prompt.schema is not None
    schema = json.loads(prompt.schema)
    assert schema == schema_of((QUERY, CUPS))
    assert schema["required"] == ["query", "cups", "text"]
    assert "maxLength" in schema["properties"]["text"]


def test_schemas_hold_choices_and_lists() -> None:
    mood = Slot("mood", "text", HERE, one_of=("calm", "hurried"))
    properties = schema_of((mood, Slot("ids", "list", HERE, of="id")))["properties"]
    assert properties["mood"] == {"enum": ["calm", "hurried"]}
    assert properties["ids"]["items"]["type"] == "string"


@pytest.mark.parametrize("form", ["script", "chat"])
@pytest.mark.parametrize("window", [0, 1, 2, 9])
def test_the_history_is_a_window_of_the_last_turns(form: Any, window: int) -> None:
    shown = render(ask(), Profile(form=form, history=window), ()).exact()
    texts = ["Good day.", "Hello, I am", "Then have some tea."]
    assert [text in shown for text in texts] == [n < window for n in (2, 1, 0)]


@given(st.lists(st.sampled_from(["user", "agent"]), max_size=8), st.sampled_from(["user", "agent"]))
def test_a_chat_alternates_whatever_was_said(sides: list[Side], side: Side) -> None:
    history = tuple(Line(one, f"turn {n}.") for n, one in enumerate(sides))
    messages = render(ask(side, history=history), Profile(), SHOTS).messages
    assert [m.role for m in messages[:2]] == ["system", "user"]
    assert all(one.role != two.role for one, two in pairwise(messages))
    assert messages[-1].role == "user"
    text = "\n".join(message.content for message in messages)
    assert [text.find(line.text) for line in history] == sorted(text.find(x.text) for x in history)


def test_shots_are_rendered_in_their_own_scope() -> None:
    example = Example(
        {"doc": {"title": "Mint"}}, Template("{{ doc.title }}?", HERE), {"query": "mint"}, HERE
    )
    speech = Speech(say=Template("Ask for {{ doc.title }}.", HERE), examples=(example, example))
    assert render_shots(speech, 1) == (Shot("Ask for Mint.", {"query": "mint"}, "Mint?"),)
    assert render_shots(speech, 0) == ()


# -- answers

LETTERS = st.characters(exclude_categories=("Cc", "Cs"), include_characters="\n\t")
"""What people say; the rest is left out of every answer (`sound`)."""

WORDS = (
    st.text(LETTERS, min_size=1, max_size=80)
    .map(clean)
    .filter(lambda text: clean(text) == text != "")
)


def values(slot: Slot) -> st.SearchStrategy[Any]:
    if slot.type == "integer":
        return st.integers()
    if slot.type == "number":
        return st.floats(allow_nan=False, allow_infinity=False)
    if slot.type == "boolean":
        return st.booleans()
    if slot.type == "list":
        return st.lists(st.text(LETTERS, max_size=20))
    return st.text(LETTERS, min_size=1, max_size=40).map(lambda t: " ".join(t.split())).filter(bool)


SLOTS = [
    QUERY,
    CUPS,
    TAGS,
    Slot("text", "text", HERE),
    Slot("price", "number", HERE),
    Slot("hot", "boolean", HERE),
]


@given(st.data(), st.sampled_from(["script", "chat"]))
def test_parse_is_the_inverse_of_complete(data: st.DataObject, form: str) -> None:
    written = data.draw(st.lists(st.sampled_from(SLOTS), unique=True, max_size=4))
    asked = ask("user", *written)
    said = data.draw(WORDS)
    slots = {slot.name: data.draw(values(slot)) for slot in written}
    assert parse(asked, form, complete(asked, form, said, slots)) == (said, slots)


@given(st.text(max_size=200), st.sampled_from(["script", "chat"]), st.sampled_from(SLOTS))
def test_no_answer_does_worse_than_not_to_parse(text: str, form: str, slot: Slot) -> None:
    for asked in (ask(), ask("agent", slot), ask("user", slot, QUERY)):
        try:
            said, slots = parse(asked, form, text)
        except Unparsed:
            continue
        json.dumps([said, slots], allow_nan=False).encode()
        said.encode()


@pytest.mark.parametrize(
    "text",
    [
        "Any mint?",
        '{"query": "mint", "cups": 2}',
        '{"query": "mint", "cups": "two", "text": "Any mint?"}',
        '{"query": "", "cups": 2, "text": "Any mint?"}',
        '{"query": "mint", "cups": 1e999, "text": "Any mint?"}',
        '{"query": "mint", "cups": 2, "text": null}',
        '["query", "mint"]',
        '{"query": "mint", "cups": 2, "text": "Any mi',
        "[" * 100_000,
    ],
)
def test_json_that_is_not_what_was_asked_for(text: str) -> None:
    with pytest.raises(Unparsed):
        parse(ask("user", QUERY, CUPS), "chat", text)


@pytest.mark.parametrize(
    "text",
    [
        " mint",
        " mint\nguest: Any mint?",
        " mint\ncups: two\nguest: Any mint?",
        " mint\nguest: Any mint?\ncups: 2",
        "\ncups: 2\nguest: Any mint?",
        "",
    ],
)
def test_a_script_that_is_not_what_was_asked_for(text: str) -> None:
    with pytest.raises(Unparsed):
        parse(ask("user", QUERY, CUPS), "script", text)


def test_a_script_answer_is_read_leniently_where_nothing_is_lost() -> None:
    asked = ask("user", QUERY, TAGS)
    text = " mint \n\ntags: 12\nguest:  Any mint?\nkeeper: No."
    assert parse(asked, "script", text) == ("Any mint?", {"query": "mint", "tags": ["12"]})
    text = " mint\ntags: hot, sweet,\nguest: Any?"
    assert parse(asked, "script", text)[1]["tags"] == ["hot", "sweet"]
    assert parse(ask(), "script", " Any mint?\nkeeper: No.") == ("Any mint?", {})


def test_half_a_surrogate_pair_never_leaves() -> None:
    answer = '{"query": "mint \\ud83d", "text": "Any \\udc00mint? \\ud83c\\udf31"}'
    said, slots = parse(ask("user", QUERY), "chat", answer)
    assert (said, slots) == ("Any ?mint? \U0001f331", {"query": "mint ?"})


@pytest.mark.parametrize("form", ["script", "chat"])
def test_what_a_terminal_obeys_is_nothing_that_was_said(form: str) -> None:
    said, _ = parse(ask(), form, " Any\x1b[31m\tmint\x07 or\u009b tea?\x00")
    assert said == "Any[31m mint or tea?"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('  "Any mint?" ', "Any mint?"),
        ("“Any mint?”", "Any mint?"),
        ("Any\n  mint?", "Any mint?"),
        ('"Mint," she said, "please"', '"Mint," she said, "please"'),
        ("'tis cold", "'tis cold"),
        ("「緑茶をください」", "緑茶をください"),
        ('""', '""'),
        ("", ""),
    ],
)
def test_clean(text: str, wanted: str) -> None:
    assert clean(text) == wanted
