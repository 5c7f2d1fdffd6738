"""Users who correct the agent: what it mishears, how that is put right, what nobody learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.manager import RougeManager
from actors.policies import CONVERSATIONS
from actors.reenact import exact_prompts
from cluster.rehearsal import rehearse
from specs.agent_chat import agent_messages
from specs.agent_format import learned, pieces, read_understanding
from specs.domain import Domain
from specs.loader import load_domain, open_domain
from specs.mishearing import misheard
from specs.plan import PlanSource, make_plan
from specs.records import Dialogue
from specs.replay import replay, source_of
from specs.run_file import PolicySection
from specs.traits import acted, told, trait_findings
from tests.unit.scripted import make_cast
from tests.unit.test_routed import PROFILE, Talk
from tests.unit.tiny_domain import TEXT, tiny, write
from trainer.baselines import Habits
from trainer.consistency import follow, inconsistencies
from trainer.evaluation import ChatDialogue, tasks
from trainer.export import plain
from trainer.preference import Answered, preferences


def played(name: str, kind: Any, count: int = 30) -> list[Dialogue]:
    policy = PolicySection(kind=kind, manager="rouge")
    return rehearse(open_domain(name), count, 0, 1, policy, (("corrects_agent", 1.0),))


def places(domain: Domain, dialogue: Dialogue) -> list[int]:
    return [turn.index for turn in dialogue.turns if misheard(domain, turn)]


@pytest.mark.parametrize("name", ["tavern", "healer"])
@pytest.mark.parametrize("kind", ["walk", "hybrid", "routed"])
def test_what_is_misheard_is_corrected_and_then_understood(name: str, kind: str) -> None:
    domain, count = open_domain(name), 0
    for dialogue in played(name, kind):
        assert not inconsistencies(follow(dialogue, domain, source_of(dialogue, 1)))
        assert len(places(domain, dialogue)) == len(acted(dialogue)["corrects_agent"]) <= 1
        for index in places(domain, dialogue):
            said, back, again, after = dialogue.turns[index : index + 4]
            unheard = misheard(domain, said)
            assert unheard is not None
            meant, heard = unheard
            assert meant.from_ == heard.from_ == said.state == back.state
            assert (said.edge, said.intent) == (-1, meant.intent)
            assert heard.echo is not None
            assert meant.echo is not None
            assert heard.echo.evaluate({}) in back.text
            assert meant.echo.source != heard.echo.source
            assert (again.edge, again.intent) == (meant.number, meant.intent)
            assert again.text != said.text
            assert again.text.endswith(said.text)  # to say another thing is no correction
            assert heard.echo.evaluate({}) in again.text  # denied
            assert after.state in [case.to for case in meant.to]
            assert said.memory == back.memory == again.memory
            assert acted(dialogue)["corrects_agent"] == [again.index]
            count += 1
        steps = [(step.from_, step.intent) for step in dialogue.path]
        assert len(steps) == len(set(steps))  # what was misheard is no step
    assert count > 15


def messages_of(kind: str) -> tuple[Dialogue, int, list[Any]]:
    domain = open_domain("tavern")
    dialogue = next(one for one in played("tavern", kind) if places(domain, one))
    [index] = places(domain, dialogue)
    messages = agent_messages(dialogue, domain, source_of(dialogue, 1))
    place = next(n for n, one in enumerate(messages) if one.content == dialogue.turns[index].text)
    return dialogue, place, messages


@pytest.mark.parametrize("kind", ["walk", "routed"])
def test_nobody_learns_to_mishear_and_nobody_is_asked_to(kind: str) -> None:
    dialogue, place, messages = messages_of(kind)
    mistake, correction = messages[place + 1], messages[place + 3]
    wrong, right = (read_understanding(one.content.split("\n")[0]) for one in (mistake, correction))
    assert wrong is not None
    assert right is not None
    assert wrong.intent != right.intent == dialogue.turns[place + 1].intent
    assert [one.content for one in messages if one.role == "assistant" and not one.train] == [
        mistake.content
    ]
    assert {one.message for one in pieces(messages)} - {
        one.message for one in learned(messages)
    } == {place + 1}
    chat = ChatDialogue("w", tuple(messages))
    assert place + 1 not in {task.piece.message for task in tasks([chat])}
    assert any(mistake in task.before for task in tasks([chat]))  # and yet it is seen
    assert Habits.of([chat]).overall[wrong.intent] == 0
    answers = [
        Answered(turn.index, turn.text, "model", ["Never mind."])
        for turn in dialogue.turns
        if turn.role == "agent"
    ]
    pairs = list(preferences(messages, answers))
    assert len(pairs) == len(answers) - 1
    assert not any(mistake.content == one.chosen for one in pairs)


def test_forms_that_cannot_leave_loss_out_leave_the_mishearing_out() -> None:
    _, place, messages = messages_of("walk")
    rows = [{"role": m.role, "content": m.content, "train": m.train} for m in messages]
    found = [one["content"] for one in plain(rows)]
    assert messages[place].content not in found
    assert messages[place + 1].content not in found
    assert {messages[place + 2].content, messages[place + 3].content} <= set(found)


async def test_who_says_what_was_misheard_has_not_corrected_it() -> None:
    domain = open_domain("tavern")
    source = PlanSource(1, "routed", traits=(("corrects_agent", 1.0),))
    said = {1: "A supper, please, I'm starving.", 3: "I'd rather look out, so the window."}
    for index in range(60):
        plan = make_plan(domain, source, index)
        if plan.memory["errand"] != "supper":
            continue
        # Says the window both times; where it was taken for the fire, by way of correction as well.
        client = Talk({**said, 5: "By the fire, please, I'm frozen."})
        keys: dict[str, Any] = {"source": source, "profile": PROFILE, "max_turns": 8}
        keys["manager"] = RougeManager()
        dialogue = await CONVERSATIONS["routed"](make_cast(domain, client, **keys), plan).play()
        if not places(domain, dialogue) or places(domain, dialogue)[0] != 3:
            continue
        turn = dialogue.turns[5]
        assert turn.intent == "take_fire"
        assert list(told(turn)) == [("corrects_agent", False)]
        assert acted(dialogue)["corrects_agent"] == []
        assert all(one.consistent for one in replay(dialogue, domain, source))
        prompts = await exact_prompts(dialogue, domain, source, {"user": PROFILE, "agent": PROFILE})
        assert all(not text.startswith("(much like") for text in prompts.values())
        assert "You were misunderstood" in prompts[5]
        assert "Ask whether they really mean the seat by the fire" in prompts[4]
        for cut in range(1, len(dialogue.turns)):
            cast = make_cast(domain, client, **keys)
            again = await CONVERSATIONS["routed"](cast, plan, 0, dialogue.turns[:cut]).play()
            assert [one.text for one in again.turns] == [one.text for one in dialogue.turns]
            assert again.path == dialogue.path
        return
    pytest.fail("nobody was misheard at the second turn")


# -- what a domain may say


def test_a_domain_in_which_nothing_can_be_misheard_refuses_the_trait(tmp_path: Path) -> None:
    [found] = trait_findings(tiny(tmp_path), (("corrects_agent", 0.1),))
    assert found.message == "nothing in 'kiosk' can be misheard"


def test_what_has_slots_cannot_be_said_back(tmp_path: Path) -> None:
    text = TEXT.replace("  ask:\n", "  ask:\n    echo: tea\n")
    domain, findings = load_domain(write(tmp_path, text))
    assert domain is None
    assert "`echo` of what has slots" in "\n".join(map(str, findings))


def test_an_echo_is_no_template_and_a_mishearing_says_it(tmp_path: Path) -> None:
    text = TEXT.replace("  ask:\n", '  plain: {say: "Say yes.", echo: "{{ doc.title }}"}\n  ask:\n')
    _, findings = load_domain(write(tmp_path, text))
    assert "`echo` is no template" in [one.message for one in findings]
    own = "traits: {corrects_agent: {misheard: {reference: ['What?']}}}\n"
    _, findings = load_domain(write(tmp_path, f"{TEXT}{own}"))
    [found] = [one for one in findings if one.severity == "error"]
    assert found.hint == "put {{ reply.misheard }} into it"


def test_a_domain_says_how_it_mishears(tmp_path: Path) -> None:
    own = '{misheard: {reference: ["{{ reply.misheard }}, oder?"]}, reference: ["Nein!"]}'
    domain = tiny(tmp_path, f"{TEXT}traits: {{corrects_agent: {own}}}\n")
    assert [one.say.source for one in domain.mishearing.references] == [
        "{{ reply.misheard }}, oder?"
    ]
    assert domain.mishearing.examples  # what it does not say is built in
    wrong = '{misheard: {say: "{{ reply.mishead }}"}, reference: ["{{ reply.misheart }}"]}'
    _, findings = load_domain(write(tmp_path, f"{TEXT}traits: {{corrects_agent: {wrong}}}\n"))
    assert len([one for one in findings if "did you mean 'misheard'?" in one.message]) == 2
