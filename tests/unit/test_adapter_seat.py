"""A person talks to an adapter, whose words a test writes; calls are answered from a record."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

import specs
from cluster.adapter_seat import AdapterDialogue
from cluster.cli import main
from cluster.person import Noted
from cluster.play_adapter import Talk, Writer
from cluster.rehearsal import rehearse
from specs.agent_chat import agent_messages
from specs.agent_format import ChatMessage, PieceKind, pieces
from specs.domain import Domain
from specs.engine import Answer, Failure, Request
from specs.errors import DuologueError, Unavailable
from specs.loader import open_domain
from specs.plan import PlanSource, make_plan
from specs.records import Dialogue
from specs.replay import recorded_results
from specs.scene import Calling, CallResult, Scene
from tests.unit.tiny_domain import changed, tiny

SOURCE = PlanSource(0)


class Recorded:
    """Answers calls with the results of a record; notes the calls."""

    def __init__(self, dialogue: Dialogue) -> None:
        self.results = [result for turn in dialogue.turns for result in recorded_results(turn)]
        self.calls: list[Calling] = []
        self.failure: DuologueError | None = None

    async def call(self, calling: Calling, scene: Scene) -> CallResult:
        if self.failure is not None:
            raise self.failure
        self.calls.append(calling)
        return self.results.pop(0)


class Learned:
    """Writes the pieces of a chat in their order, or what the test puts in their place."""

    def __init__(self, messages: Sequence[ChatMessage]) -> None:
        self.pieces = pieces(messages)
        self.instead: dict[PieceKind, str] = {}

    async def __call__(self, messages: Sequence[ChatMessage], prefix: str, kind: PieceKind) -> str:
        if kind in self.instead:
            return self.instead.pop(kind)
        piece = self.pieces.pop(0)
        assert (piece.kind, piece.message, piece.prefix) == (kind, len(messages), prefix)
        return piece.text


Seated = tuple[AdapterDialogue, Learned, Recorded]

TEMPLATE = Path(specs.__file__).parent / "template"


@pytest.fixture(params=["kiosk", "bike_desk"])
def domain(request: pytest.FixtureRequest, tmp_path: Path) -> Domain:
    return open_domain(TEMPLATE) if request.param == "bike_desk" else tiny(tmp_path)


def seated(domain: Domain, dialogue: Dialogue) -> Seated:
    learned = Learned(agent_messages(dialogue, domain, SOURCE))
    caller = Recorded(dialogue)
    plan = make_plan(domain, SOURCE, dialogue.index)
    return AdapterDialogue(domain, plan, caller, learned), learned, caller


async def played(talk: AdapterDialogue, dialogue: Dialogue) -> None:
    assert (await talk.open()).answer
    for turn in dialogue.turns:
        if turn.role == "user":
            said = await talk.hear(turn.text)
            assert said.answer, said.thoughts


def test_the_adapter_sees_what_it_was_trained_on(domain: Domain) -> None:
    for dialogue in rehearse(domain, 12, 0, 0):
        talk, learned, _ = seated(domain, dialogue)
        asyncio.run(played(talk, dialogue))
        assert talk.ended == dialogue.ended
        trained = agent_messages(dialogue, domain, SOURCE)
        assert [(one.role, one.content) for one in talk.messages] == [
            (one.role, one.content) for one in trained
        ]
        assert not learned.pieces


def test_the_adapter_sees_users_who_dither_and_change_their_mind() -> None:
    tavern, traits = open_domain("tavern"), (("vague", 1.0), ("changes_mind", 1.0))
    dialogues = rehearse(tavern, 12, 0, 0, traits=traits)
    users = [turn for one in dialogues for turn in one.turns if turn.role == "user"]
    assert any(turn.edge < 0 for turn in users)
    assert any(turn.edge >= 0 and tavern.edges[turn.edge].revises for turn in users)
    assert "(other)" in agent_messages(dialogues[0], tavern, SOURCE)[0].content
    for dialogue in dialogues:
        talk, learned, _ = seated(tavern, dialogue)
        asyncio.run(played(talk, dialogue))
        assert talk.ended
        trained = agent_messages(dialogue, tavern, SOURCE)
        assert [one.content for one in talk.messages] == [one.content for one in trained]
        assert not learned.pieces


def test_a_reference_that_does_not_suit_the_document_is_passed_over(tmp_path: Path) -> None:
    first = """      - {say: "I have {{ results"""
    unsuited = """      - {say: "This.", slots: {shown: "[results[99].id]"}}\n"""
    domain = tiny(tmp_path, changed((first, unsuited + first)))
    for dialogue in rehearse(domain, 12, 0, 0):
        talk, _, _ = seated(domain, dialogue)
        asyncio.run(played(talk, dialogue))


async def to_the_offer(
    domain: Domain, dialogue: Dialogue
) -> tuple[AdapterDialogue, Learned, Recorded]:
    """Play a dialogue up to where documents are offered."""
    talk, learned, caller = seated(domain, dialogue)
    await talk.open()
    for turn in dialogue.turns:
        if turn.role == "user":
            if len(talk.scene.results) > 1 and talk.scene.node == "offer":
                break
            await talk.hear(turn.text)
    return talk, learned, caller


@pytest.fixture
def kiosk(tmp_path: Path) -> Domain:
    return tiny(tmp_path)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("I do not know", "no understanding"),
        ('{"intent":"fly","slots":{}}', "no edge with the intent 'fly'"),
        ('{"intent":"choose","slots":{"option":1}}', "the agent read no cups"),
        ('{"intent":"choose","slots":{"option":1,"cups":"many"}}', "the agent read no cups"),
    ],
)
def test_what_is_not_understood_leaves_everything_as_it_was(
    kiosk: Domain, line: str, why: str
) -> None:
    async def check() -> None:
        talk, learned, caller = await to_the_offer(kiosk, dialogue)
        before = (talk.scene.node, talk.scene.turn, list(talk.messages), talk.scene.memory)
        calls = len(caller.calls)
        learned.instead["understanding"] = line
        said = await talk.hear("hm")
        assert not said.answer
        assert said.thoughts[0] == line
        assert why in said.thoughts[-1]
        assert (talk.scene.node, talk.scene.turn, talk.messages, talk.scene.memory) == before
        assert len(caller.calls) == calls
        assert "choose" in talk.possible()

    dialogue = choosing(kiosk)
    asyncio.run(check())


def choosing(domain: Domain) -> Dialogue:
    """Return a rehearsed dialogue in which something is chosen."""
    for dialogue in rehearse(domain, 20, 0, 0):
        if any(turn.intent == "choose" for turn in dialogue.turns):
            return dialogue
    raise AssertionError("none chooses")


def test_a_failing_call_leaves_everything_as_it_was(kiosk: Domain) -> None:
    async def check() -> None:
        talk, learned, caller = await to_the_offer(kiosk, dialogue)
        before = (talk.scene.node, talk.scene.turn, list(talk.messages))
        caller.failure = DuologueError("the till is stuck")
        learned.instead["understanding"] = '{"intent":"choose","slots":{"option":1,"cups":2}}'
        learned.instead["call"] = "I will"
        said = await talk.hear("the first, twice")
        assert not said.answer
        assert said.thoughts[-1] == "the till is stuck"
        assert (talk.scene.node, talk.scene.turn, talk.messages) == before

    dialogue = choosing(kiosk)
    asyncio.run(check())


def test_the_person_chooses_what_it_is_about_and_the_adapter_what_is_called(kiosk: Domain) -> None:
    async def check() -> None:
        talk, learned, caller = await to_the_offer(kiosk, dialogue)
        planned = talk.scene.plan.document
        assert planned is not None
        ids = [str(document["id"]) for document in talk.scene.results]
        other = next(place for place, id_ in enumerate(ids, start=1) if id_ != planned.id)
        caller.results = [CallResult(value={"ok": False, "bill": ""})]
        learned.instead = {
            "understanding": f'{{"intent":"choose","slots":{{"option":{other},"cups":2}}}}',
            "call": f'{{"call":"pay","arguments":{{"id":"{ids[other - 1]}","cups":3,"tip":1}}}}',
            "answer": "It did not work.",
        }
        said = await talk.hear("that one")
        assert said.answer == "It did not work."
        call = caller.calls[-1]
        assert call.arguments == {"id": ids[other - 1], "cups": 3}  # no tip: the tool has none
        assert call.planting is None
        assert talk.scene.node == "nothing"  # what the tool brought decides
        assert ids[other - 1] in talk.scene.memory["cart"]
        assert talk.scene.plan.document == kiosk.document(ids[other - 1])

    dialogue = choosing(kiosk)
    asyncio.run(check())


def test_where_the_adapter_makes_no_call_the_graph_does(kiosk: Domain) -> None:
    async def check() -> None:
        talk, learned, caller = await to_the_offer(kiosk, dialogue)
        caller.results = [CallResult(value={"ok": False, "bill": ""})]
        learned.instead = {
            "understanding": '{"intent":"choose","slots":{"option":1,"cups":2}}',
            "call": "Certainly!",
            "answer": "It did not work.",
        }
        said = await talk.hear("the first, twice")
        assert caller.calls[-1].arguments["cups"] == 2
        assert "(no call of pay: the graph's own is made)" in said.thoughts
        assert '{"call":"pay","arguments":{' in talk.messages[-3].content

    dialogue = choosing(kiosk)
    asyncio.run(check())


def test_a_person_talks_to_it_in_a_terminal(
    kiosk: Domain, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dialogue = choosing(kiosk)
    said = [turn.text for turn in dialogue.turns if turn.role == "user"]
    lines = iter(["/help", "/intents", "/prompt", "/what", *said[:1], "/think", *said[1:]])
    monkeypatch.setattr(builtins, "input", lambda prompt="": next(lines))
    talk, _, _ = seated(kiosk, dialogue)
    asyncio.run(Talk(talk, Noted("the prompt")).play())
    out = capsys.readouterr().out
    assert "/think     show, or hide" in out
    assert "\n  ask, gossip\n" in out
    assert "    | the prompt" in out
    assert "there is no command /what" in out
    assert out.index("thoughts are shown") < out.index('{"intent":"ask"')
    assert '{"call":"search"' in out
    assert all(f"keeper: {turn.text}" in out for turn in dialogue.turns if turn.role == "agent")
    assert out.endswith("(ended)\n")


def test_an_answer_without_words_is_said(kiosk: Domain, capsys: pytest.CaptureFixture[str]) -> None:
    async def check() -> None:
        talk, learned, _ = await to_the_offer(kiosk, dialogue)
        before = (talk.scene.node, talk.scene.turn, list(talk.messages))
        learned.instead["understanding"] = '{"intent":"choose","slots":{"option":1,"cups":2}}'
        learned.instead["call"] = "(none)"
        learned.instead["answer"] = ""
        Talk(talk, Noted())._show(await talk.hear("the first, twice"))
        assert (talk.scene.node, talk.scene.turn, talk.messages) == before

    dialogue = choosing(kiosk)
    asyncio.run(check())
    assert capsys.readouterr().out == "  (it wrote no answer)\n"


class Bytes:
    """A tokenizer and prompts in one: a prompt is a few tokens."""

    def tokens(self, *_: object) -> list[int]:
        return [1, 2]

    def decode(self, tokens: Sequence[int]) -> str:
        return str(tokens)


@pytest.mark.parametrize("kind", ["overflow", "refused", "deadline", "aborted", "unavailable"])
def test_an_engine_that_does_not_answer_is_not_taken_for_words_not_understood(
    kiosk: Domain, kind: Any
) -> None:
    async def ask(request: Request, dialogue: str) -> Answer:
        return Answer(request.id, failure=Failure(kind, "no luck"))

    plan = make_plan(kiosk, SOURCE, 0)
    writer = Writer(ask, cast(Any, Bytes()), Bytes(), "", 1.0)
    talk = AdapterDialogue(kiosk, plan, Recorded(choosing(kiosk)), writer)
    if kind in ("overflow", "refused"):
        assert asyncio.run(talk.hear("hello")).thoughts == ["no luck"]
    else:
        with pytest.raises(Unavailable, match="engine does not answer: no luck"):
            asyncio.run(talk.hear("hello"))


def test_what_holds_no_adapter_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.toml").write_text(
        '[run]\nname = "r"\n[domain]\npath = "recipe"\n'
        '[engines.e]\n[roles]\nuser = "e"\nagent = "e"\n'
    )
    for arguments, message in (
        (["--adapter", str(tmp_path)], "holds no adapter: no manifest.json"),
        (["--adapter", str(tmp_path), "--as", "agent"], "an adapter plays the agent"),
    ):
        with pytest.raises(SystemExit) as done:
            main(["play", "recipe", "--run", str(tmp_path / "run.toml"), *arguments])
        assert done.value.code == 2
        assert message in capsys.readouterr().err
