"""Users who have something wrong: which facts come up, how they are set right, what is learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from actors.conversation import Conversation
from cluster.rehearsal import rehearse
from specs.agent_chat import UNNAMED, agent_card, agent_messages
from specs.checks import says
from specs.domain import Domain
from specs.facts import fact_of
from specs.loader import load_domain, open_domain
from specs.plan import PlanSource, make_plan
from specs.records import Dialogue, Turn
from specs.replay import replay, source_of
from specs.run_file import PolicySection
from specs.traits import told, trait_findings
from tests.unit.scripted import make_cast
from tests.unit.test_routed import PROFILE, Talk
from tests.unit.tiny_domain import TEXT, tiny, write
from trainer.consistency import follow, inconsistencies

LETTERS = """\
traits:
  wrong_fact:
    - when: turn > 2
      type: integer
      right: "doc.title | length"
      wrong: "[(doc.title | length) + 40, 4]"
      say: "Say that the name has {{ slots.wrong }} letters."
      reference: ["That name has {{ slots.wrong }} letters, I counted them.", "There are {{ slots.wrong }} letters in it."]
      answer: {say: "Say that it has {{ reply.right }} letters.", reference: ["No, {{ reply.right }}, not {{ slots.wrong }}."]}
"""  # noqa: E501


def played(name: str, kind: Any, count: int = 30) -> list[Dialogue]:
    policy = PolicySection(kind=kind, manager="rouge")
    return rehearse(open_domain(name), count, 0, 1, policy, (("wrong_fact", 1.0),))


def stated(domain: Domain, dialogue: Dialogue) -> list[tuple[Turn, Turn]]:
    """Return the turns on which something is said wrongly, each with its answer."""
    after = dialogue.turns[1:]
    pairs = zip(dialogue.turns, after, strict=False)
    return [(turn, answer) for turn, answer in pairs if fact_of(domain, turn)]


@pytest.mark.parametrize("name", ["tavern", "healer"])
@pytest.mark.parametrize("kind", ["walk", "hybrid", "routed"])
def test_what_is_said_wrongly_is_set_right_and_the_dialogue_goes_on(name: str, kind: str) -> None:
    domain, count = open_domain(name), 0
    for dialogue in played(name, kind):
        assert not inconsistencies(follow(dialogue, domain, source_of(dialogue, 1)))
        seen = [fact_of(domain, turn) for turn, _ in stated(domain, dialogue)]
        assert len(seen) == len({fact.number for fact in seen if fact})
        for turn, answer in stated(domain, dialogue):
            fact = fact_of(domain, turn)
            assert fact is not None
            right, wrong = fact.right.evaluate({}), turn.slots["wrong"]
            assert wrong in fact.wrong.evaluate({})
            assert wrong != right
            assert says(turn.text, wrong)
            assert not says(turn.text, right)
            assert says(answer.text, right)
            assert (turn.edge, turn.intent, answer.state) == (-1, "", turn.state)
            assert (answer.reply, answer.memory) == ({"right": right}, turn.memory)
            assert ("wrong_fact", True) in told(turn)
            assert turn.index > 1
            count += 1
    assert count > 15


@pytest.mark.parametrize("name", ["tavern", "healer"])
@pytest.mark.parametrize("kind", ["hybrid", "routed"])
def test_what_a_person_has_wrong_is_never_taken_for_an_answer(name: str, kind: Any) -> None:
    """However near it comes to an edge's words: "eight cups" to "a cup", "the cook" to a dish."""
    policy = PolicySection(kind=kind, manager="embedding", threshold=0.05)
    shares = (("wrong_fact", 1.0), ("vague", 1.0))
    dialogues = rehearse(open_domain(name), 30, 0, 1, policy, shares)
    found = [one for each in dialogues for turn in each.turns for one in told(turn)]
    assert len(found) > 40
    assert all(passed for _, passed in found)


def test_a_persons_words_have_to_say_what_is_wrong_and_what_is_right(tmp_path: Path) -> None:
    fact = LETTERS.replace("turn > 2", "true")
    silent = fact.replace("There are {{ slots.wrong }} letters in it.", "It is a long name.")
    silent = silent.replace('"No, {{ reply.right }}, not', '"No, and not')
    domain, findings = load_domain(write(tmp_path, TEXT + silent))
    assert domain is None
    claim, answer = sorted(findings, key=lambda one: one.where.line)
    assert claim.hint == "put {{ slots.wrong }} into it"
    assert answer.hint == "put {{ reply.right }} into it"
    same = fact.replace("{{ reply.right }}, not", "{{ doc.title | length }}, not")
    assert load_domain(write(tmp_path, TEXT + same))[0] is not None


def test_the_agent_is_shown_what_is_right_before_it_learns_to_say_it() -> None:
    domain = open_domain("tavern")
    for dialogue in played("tavern", "walk"):
        messages = agent_messages(dialogue, domain, source_of(dialogue, 1))
        for turn, answer in stated(domain, dialogue):
            place = next(n for n, one in enumerate(messages) if one.content == turn.text)
            understood, known, said = messages[place + 1 : place + 4]
            assert json.loads(understood.content) == {"intent": UNNAMED, "slots": {}}
            assert json.loads(known.content) == {"facts": [answer.reply["right"]]}
            assert (said.content, said.train, known.role) == (answer.text, True, "tool")


def test_facts_of_a_document_come_up_where_they_can_be_wrong(tmp_path: Path) -> None:
    domain = tiny(tmp_path, TEXT + LETTERS)
    assert UNNAMED in agent_card(domain)["intents"]
    dialogues = rehearse(domain, 40, 0, 1, None, (("wrong_fact", 1.0),))
    pairs = [(one, pair) for one in dialogues for pair in stated(domain, one)]
    assert len(pairs) > 5
    for dialogue, (turn, answer) in pairs:
        document = make_plan(domain, source_of(dialogue, 1), dialogue.index).document
        assert document is not None
        letters = len(document.fields["title"])
        assert turn.slots["wrong"] in (letters + 40, 4)
        assert answer.reply == {"right": letters}
        assert letters != 4  # where a value is not wrong, the fact does not come up
    for dialogue in dialogues:
        assert all(one.consistent for one in replay(dialogue, domain, source_of(dialogue, 1)))


async def test_a_model_that_says_what_is_right_makes_way_for_a_person() -> None:
    domain = open_domain("tavern")
    for index in range(40):
        source = PlanSource(0, traits=(("wrong_fact", 1.0),))
        right = "A bed is two coppers a night, we cook until midnight."
        said = dict.fromkeys(range(1, 9, 2), right)
        cast = make_cast(domain, Talk(said), source=source, profile=PROFILE, max_turns=10)
        dialogue = await Conversation(cast, make_plan(domain, source, index)).play()
        for turn, answer in stated(domain, dialogue):
            assert turn.source == answer.source == "reference"
            assert ("wrong_fact", True) in told(turn)
            assert any(check.name == "says" and check.passed for check in answer.checks)
            return
    pytest.fail("nobody had anything wrong")


async def test_what_a_terse_user_has_wrong_is_not_cut_in_half() -> None:
    domain = open_domain("tavern")
    shares = (("terse", 1.0), ("wrong_fact", 1.0))
    source, found = PlanSource(0, traits=shares), 0
    said = "Four coppers, that is what you charge each night here, as my aunt has told me."
    for index in range(12):
        cast = make_cast(domain, Talk(dict.fromkeys(range(1, 9, 2), said)), source=source)
        played = await Conversation(cast, make_plan(domain, source, index)).play()
        for turn, _ in stated(domain, played):
            assert "Four coppers." not in (turn.text, *turn.rejected)
            assert len(turn.text.split()) > 3
            found += 1
    assert found


def test_a_domain_without_facts_refuses_the_trait(tmp_path: Path) -> None:
    [found] = trait_findings(tiny(tmp_path), (("wrong_fact", 0.1),))
    assert found.message == "the domain 'kiosk' has no facts that a user may have wrong"
    forbidding = f"{TEXT}{LETTERS}  forbid: [wrong_fact]\n"
    [found] = trait_findings(tiny(tmp_path, forbidding), (("wrong_fact", 0.1),))
    assert "forbids the trait 'wrong_fact'" in found.message


@pytest.mark.parametrize(
    ("fact", "said"),
    [
        ("{right: doc.title}", "a fact needs `wrong`, `say`, `reference`, `answer`"),
        ("{wright: 1}", "a fact has no key 'wright'; did you mean 'right'?"),
        (
            "{right: \"'two'\", wrong: \"['two hundred', 'six']\", say: A, reference: A, "
            "answer: {say: B, reference: B}}",
            "must be a list of values in which 'two' is not said",
        ),
        (
            "{right: 2, wrong: [3], say: A, reference: A, answer: {say: B}}",
            "the answer that sets it right needs `reference`",
        ),
        (
            '{right: 2, wrong: [3], say: "{{ slots.rong }}", reference: A, '
            "answer: {say: B, reference: B}}",
            "`slots` has no 'rong'; did you mean 'wrong'?",
        ),
        (
            "{right: memory.pige, wrong: [3], say: A, reference: A, "
            'answer: {say: "{{ point }}", reference: "{{ reply.write }}"}}',
            "`memory` has no 'pige'; did you mean 'page'?",
        ),
    ],
)
def test_what_is_wrong_with_a_fact_is_said(tmp_path: Path, fact: str, said: str) -> None:
    text = f"{TEXT}traits: {{wrong_fact: [{fact}]}}\n"
    domain, findings = load_domain(write(tmp_path, text))
    assert domain is None
    assert said in "\n".join(map(str, findings))
