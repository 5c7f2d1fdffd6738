"""Users who are not ideal: who has which trait, what it does, and how the record shows it."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.manager import RougeManager
from actors.manners import shortened
from actors.policies import CONVERSATIONS
from actors.reenact import exact_prompts
from cluster.domain_commands import rehearse as rehearse_command
from cluster.rehearsal import rehearse
from cluster.resume import changes
from cluster.show import render_dialogue
from cluster.summary import lines, summarize
from specs.agent_chat import agent_messages
from specs.errors import InputError
from specs.loader import load_domain, open_domain
from specs.plan import PlanSource, make_plan
from specs.records import (
    Dialogue,
    StopReason,
    Turn,
    dialogue_from_row,
    dialogue_row,
    dump_json,
)
from specs.replay import replay, source_of
from specs.run_file import PolicySection, RunFile, resolved, validate
from specs.seeds import digest
from specs.traits import CONTRARY, TRAITS, Shares, acted, drawn, told, trait_findings
from specs.words import words
from tests.unit.kiosk import kiosk
from tests.unit.scripted import make_cast
from tests.unit.test_routed import PROFILE, Talk
from tests.unit.tiny_domain import TEXT, tiny, write
from trainer.consistency import follow, inconsistencies

PLANS = 2000
SOME: Shares = (
    ("terse", 0.5),
    ("vague", 0.4),
    ("impatient", 0.5),
    ("gives_up", 0.3),
    ("changes_mind", 0.5),
    ("wrong_fact", 0.5),
    ("corrects_agent", 0.5),
    ("two_intents", 0.5),
)

LASTING: Shares = tuple(
    (name, 0.3 if name == "gives_up" else 1.0)
    for name in TRAITS
    if name not in ("impatient", "two_intents")
)


def ids(count: int = PLANS) -> list[str]:
    return [digest("walk", number) for number in range(count)]


# -- who has which


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("name", TRAITS)
def test_a_share_holds_over_many_plans(name: str, share: float) -> None:
    hits = sum(name in drawn(one, ((name, share),)) for one in ids())
    assert abs(hits / PLANS - share) < 4 * sqrt(share * (1 - share) / PLANS)


def test_none_and_all_are_none_and_all() -> None:
    for name in TRAITS:
        assert not any(drawn(one, ((name, 0.0),)) for one in ids(200))
        assert all(drawn(one, ((name, 1.0),)) == (name,) for one in ids(200))


@given(
    st.dictionaries(st.sampled_from(TRAITS), st.floats(0, 1)),
    st.sampled_from(TRAITS),
    st.floats(0, 1),
    st.integers(0, 10**6),
)
def test_a_share_leaves_the_other_traits_as_they_were(
    shares: dict[Any, float], name: str, share: float, number: int
) -> None:
    walk = digest(number)
    before = drawn(walk, tuple(shares.items()))
    after = drawn(walk, tuple({**shares, name: share}.items()))
    assert {one for one in before if one != name} == {one for one in after if one != name}
    assert drawn(walk, tuple(reversed(list(shares.items())))) == before


def test_what_contradicts_never_meets_and_the_rest_does() -> None:
    half = tuple((name, 0.5) for name in TRAITS)
    met = {pair for one in ids() for pair in combinations(drawn(one, half), 2)}
    contrary = {frozenset(pair) for pair in CONTRARY}
    every = {frozenset(pair) for pair in combinations(TRAITS, 2)}
    assert {frozenset(pair) for pair in met} == every - contrary


def test_traits_change_nothing_else_of_a_plan() -> None:
    domain = kiosk()
    for index in range(50):
        plain = make_plan(domain, PlanSource(4), index)
        plan = make_plan(domain, PlanSource(4, traits=SOME), index)
        assert replace(plan, traits=()) == plain
        assert plan == make_plan(domain, PlanSource(4, traits=SOME), index)


# -- what they do


def played(kind: Any, traits: Shares = SOME, count: int = 60) -> list[Dialogue]:
    policy = PolicySection(kind=kind, manager="rouge")
    return rehearse(open_domain("tavern"), count, 0, 1, policy, traits)


@pytest.mark.parametrize("kind", ["walk", "hybrid", "routed"])
def test_records_of_such_users_can_be_followed_and_learned_from(kind: str) -> None:
    domain, gone = open_domain("tavern"), 0
    for dialogue in played(kind):
        found = inconsistencies(follow(dialogue, domain, source_of(dialogue, 1)))
        kinds = {one.kind for one in found}
        messages = agent_messages(dialogue, domain, source_of(dialogue, 1))
        assert messages[-1].role == "assistant"
        if dialogue.stop_reason is StopReason.GAVE_UP:
            gone += 1
            assert kinds == {"not_ended", "ends_on_user"}
            assert not dialogue.ended
        else:
            assert (dialogue.stop_reason, kinds) == (StopReason.ENDED, set())
        assert dialogue_from_row(dialogue_row(dialogue)).traits == dialogue.traits
    assert gone


def users(dialogues: list[Dialogue]) -> list[Turn]:
    return [turn for one in dialogues for turn in one.turns if turn.role == "user"]


@pytest.mark.parametrize("kind", ["walk", "routed"])
def test_a_terse_user_says_the_shortest_that_a_person_would(kind: str) -> None:
    domain = open_domain("tavern")
    turns = users(played(kind, (("terse", 1.0),), 20))
    plain = users(played(kind, (), 20))
    assert all(("terse", True) in told(turn) for turn in turns)
    assert all(not list(told(turn)) for turn in plain)
    for turn in turns:
        references = domain.edges[turn.edge].speech.references
        if all("{" not in one.say.source for one in references):
            shortest = min(len(words(one.say.source)) for one in references)
            assert len(words(turn.text)) == shortest
    assert _mean(turns) < _mean(plain) - 0.5


def _mean(turns: list[Turn]) -> float:
    return sum(len(words(turn.text)) for turn in turns) / len(turns)


@pytest.mark.parametrize("kind", ["walk", "hybrid", "routed"])
def test_a_vague_user_is_asked_again(kind: str) -> None:
    dialogues = played(kind, (("vague", 1.0),), 20)
    assert {one.stop_reason for one in dialogues} == {StopReason.ENDED}
    vague = 0
    for dialogue in dialogues:
        for turn, after in zip(dialogue.turns, dialogue.turns[1:], strict=False):
            if ("vague", True) in told(turn):
                vague += 1
                assert (turn.edge, turn.intent, turn.slots) == (-1, "", {})
                assert (after.state, after.routing["stays"]) == (turn.state, 1)
        assert len(acted(dialogue)["vague"]) <= 2
    assert vague > 15


@pytest.mark.parametrize("kind", ["walk", "hybrid", "routed"])
def test_who_gives_up_leaves_with_a_closing_phrase(kind: str) -> None:
    domain = open_domain("tavern")
    dialogues = played(kind, (("gives_up", 1.0),), 30)
    gone = [one for one in dialogues if one.stop_reason is StopReason.GAVE_UP]
    assert len(gone) > 10
    for dialogue in gone:
        last = dialogue.turns[-1]
        assert (last.role, last.edge) == ("user", -1)
        assert acted(dialogue)["gives_up"] == [last.index]
        assert any(phrase.lower() in last.text.lower() for phrase in domain.closing)
        assert last.index > 1  # nobody comes in to leave at once
    assert all(not acted(one)["gives_up"] for one in dialogues if one not in gone)


@pytest.mark.parametrize("kind", ["walk", "hybrid", "routed"])
def test_who_changes_their_mind_takes_a_choice_back_once(kind: str) -> None:
    domain = open_domain("tavern")
    dialogues = played(kind, (("changes_mind", 1.0),), 30)
    assert not any(domain.edges[t.edge].revises for t in users(played(kind, (), 30)))
    changed = [one for one in dialogues if acted(one)["changes_mind"]]
    assert len(changed) > 10
    for dialogue in changed:
        [index] = acted(dialogue)["changes_mind"]
        assert domain.edges[dialogue.turns[index].edge].revises
        assert dialogue.ended


def test_an_impatient_user_presses_on_now_and_then() -> None:
    domain = open_domain("tavern")
    openings = [one.say.source for one in domain.trait_speeches["impatient"].references]
    turns = users(played("walk", (("impatient", 1.0),), 20))
    pressed = [turn for turn in turns if ("impatient", True) in told(turn)]
    assert 0.3 < len(pressed) / len(turns) < 0.7
    for turn in turns:
        assert (turn in pressed) == turn.text.startswith(tuple(openings))


async def test_an_impatient_user_bears_fewer_returns() -> None:
    domain = open_domain("tavern")
    nothing = {n: f"Tell me about herons, part {n}." for n in (1, 3, 5, 7)}
    lengths = []
    for traits in ((), (("impatient", 1.0),)):
        source = PlanSource(0, "routed", traits=traits)
        cast = make_cast(
            domain, Talk(nothing), source=source, profile=PROFILE, manager=RougeManager()
        )
        dialogue = await CONVERSATIONS["routed"](cast, make_plan(domain, source, 0)).play()
        assert dialogue.stop_reason is StopReason.LOOP
        lengths.append(len(dialogue.turns))
    assert lengths == [6, 4]


# -- with models that do not do as they are told


class Wordy(Talk):
    """Says too much, and never what a trait wants."""

    def __init__(self, said: str) -> None:
        super().__init__({})
        self.everything = said

    async def ask(self, request: Any, dialogue: str) -> Any:
        turn = int(request.id.split(":")[1])
        self.said = {turn: self.everything} if turn % 2 else {}
        return await super().ask(request, dialogue)


async def play_with(said: str, name: str, policy: str = "walk") -> tuple[Dialogue, Wordy]:
    domain, client = open_domain("tavern"), Wordy(said)
    source = PlanSource(0, policy, traits=((name, 1.0),))
    keys: dict[str, Any] = {"source": source, "profile": PROFILE, "max_turns": 8}
    keys["manager"] = None if policy == "walk" else RougeManager()
    cast = make_cast(domain, client, **keys)
    return await CONVERSATIONS[policy](cast, make_plan(domain, source, 0)).play(), client


async def test_a_models_words_are_cut_where_a_clause_ends() -> None:
    dialogue, client = await play_with("Well, yes please, if you must have an answer now.", "terse")
    turn = dialogue.turns[1]
    assert (turn.text, turn.source) == ("Well, yes please.", "model")
    assert ("terse", True) in told(turn)
    assert "in as few words as you can" in client.prompt(1)


async def test_words_that_cannot_be_cut_make_way_for_the_shortest_reference() -> None:
    dialogue, _ = await play_with("I would have thought that somebody might ask me", "terse")
    turn = dialogue.turns[1]
    assert turn.source == "reference"
    assert len(turn.rejected) == 3
    assert ("terse", True) in told(turn)


async def test_clear_words_are_not_taken_for_vague_ones() -> None:
    domain = open_domain("tavern")
    said = domain.intents["want_supper"].speech.references[0].say.source
    for policy in ("walk", "hybrid", "routed"):
        for seed in range(200):
            source = PlanSource(seed, policy, traits=(("vague", 1.0),))
            plan = make_plan(domain, source, 0)
            client = Talk({1: said})
            cast = make_cast(
                domain, client, source=source, profile=PROFILE, manager=RougeManager(), max_turns=4
            )
            dialogue = await CONVERSATIONS[policy](cast, plan).play()
            turn = dialogue.turns[1]
            if plan.memory["errand"] == "supper" and list(told(turn)):
                assert turn.text != said
                assert turn.rejected == (said,) * 3
                assert ("vague", True) in told(turn)
                break
        else:
            pytest.fail(f"nobody was vague under {policy}")


async def test_a_sentence_stands_before_what_an_impatient_users_model_says() -> None:
    dialogue, client = await play_with("Whatever the house has.", "impatient")
    for turn in (turn for turn in dialogue.turns if turn.role == "user" and list(told(turn))):
        assert turn.text.endswith(" Whatever the house has.") or turn.source == "reference"
        assert "You are in a hurry." in client.prompt(turn.index)


async def test_what_was_said_under_traits_is_resumed_and_its_prompts_are_shown() -> None:
    domain = open_domain("tavern")
    for policy in ("walk", "routed"):
        source = PlanSource(2, policy, traits=LASTING)
        keys: dict[str, Any] = {"source": source, "profile": PROFILE, "manager": RougeManager()}
        seen = set()
        for index in range(12):
            plan, client = make_plan(domain, source, index), Talk({})
            whole = await CONVERSATIONS[policy](make_cast(domain, client, **keys), plan).play()
            seen |= {name for turn in whole.turns for name, _ in told(turn)}
            profiles: Any = {"user": PROFILE, "agent": PROFILE}
            prompts = await exact_prompts(whole, domain, replace(source, traits=()), profiles)
            assert all(not text.startswith("(much like") for text in prompts.values())
            assert all(one.consistent for one in replay(whole, domain, source))
            for cut in range(1, len(whole.turns)):
                cast = make_cast(domain, Talk({}), **keys)
                again = await CONVERSATIONS[policy](cast, plan, 0, whole.turns[:cut]).play()
                assert [one.text for one in again.turns] == [one.text for one in whole.turns]
                assert (again.stop_reason, again.path) == (whole.stop_reason, whole.path)
        assert {"terse", "vague", "gives_up", "wrong_fact"} <= seen
        # What Talk says takes no edge in free talk, so that there is nothing to mishear.
        assert ("corrects_agent" in seen) == (policy == "walk")


@given(st.text(max_size=80), st.integers(1, 12))
@example("\U0001e5f1", 1)  # a digit that `regex` may know and Python not
def test_what_is_shortened_is_a_beginning(said: str, most: int) -> None:
    short = shortened(said, most)
    assert short == said or len(words(short)) <= most
    assert said.startswith((short, short[:-1]))


# -- what a run file and a domain may ask for


def run_file(**traits: Any) -> RunFile:
    return validate(
        {
            "run": {"name": "r"},
            "domain": {"path": "tavern"},
            "users": {"traits": traits},
            "engines": {"e": {"kind": "reference"}},
            "roles": {"user": "e", "agent": "e"},
        },
        "r.toml",
    )


def test_all_that_is_wrong_with_shares_is_said_at_once() -> None:
    with pytest.raises(InputError) as refused:
        run_file(ters=0.2, vague=-0.1, impatient=1.5, gives_up=0.1)
    said = str(refused.value)
    assert "users.traits.ters: unknown key; did you mean 'terse'?" in said
    assert "users.traits.vague" in said
    assert "users.traits.impatient" in said
    assert len(refused.value.findings) == 3
    with pytest.raises(InputError, match="impatient and vague contradict"):
        run_file(vague=0.6, impatient=0.6)
    assert run_file(vague=0.4, impatient=0.6).users.traits.asked == (
        ("vague", 0.4),
        ("impatient", 0.6),
    )


def test_one_prompt_has_no_turns_for_traits() -> None:
    data = resolved(run_file(terse=0.1))
    data["policy"]["kind"] = "single_prompt"
    with pytest.raises(InputError, match=r"users\.traits asks for terse"):
        validate(data, "r.toml")


def test_another_share_is_another_run() -> None:
    before, after = ({"run_file": resolved(run_file(terse=share))} for share in (0.1, 0.2))
    assert [change.key for change in changes(before, after)] == ["users.traits.terse"]
    assert changes(before, before) == []
    older = {"run_file": {key: v for key, v in before["run_file"].items() if key != "users"}}
    assert [change.key for change in changes(older, before)] == ["users.traits.terse"]
    assert changes(older, {"run_file": resolved(run_file())}) == []


def test_a_domain_says_which_traits_it_cannot_have(tmp_path: Path) -> None:
    text = f"{TEXT}traits: {{forbid: [terse], vague: {{say: 'Dither.', reference: ['Er.']}}}}\n"
    domain = tiny(tmp_path, text)
    assert domain.trait_speeches["vague"].references[0].say.source == "Er."
    asked = tuple((name, 0.1) for name in ("terse", "vague", "changes_mind", "gives_up"))
    found = {str(one.where): one.message for one in trait_findings(domain, asked)}
    assert found == {
        "users.traits.terse": "the domain 'kiosk' forbids the trait 'terse'",
        "users.traits.vague": "the agent of 'kiosk' has no words for what fits nothing",
        "users.traits.changes_mind": "the domain 'kiosk' has no edge on which a choice is taken "
        "back",
    }
    with pytest.raises(InputError, match="forbids the trait 'terse'"):
        rehearse_command(str(tmp_path), None, 1, 0, 0, traits=["terse"])


def test_the_domains_own_traits_are_checked(tmp_path: Path) -> None:
    traits = "{forbid: [tears, vagueness], terce: {}, vague: {checks: [max_word(3)]}}"
    domain, findings = load_domain(write(tmp_path, f"{TEXT}traits: {traits}\n"))
    said = "\n".join(map(str, findings))
    assert domain is None
    assert "no trait 'vagueness'; did you mean 'vague'?" in said
    assert "no trait 'tears'" in said
    assert "`traits` has no key 'terce'; did you mean 'terse'?" in said
    assert "there is no check 'max_word'; did you mean 'max_words'?" in said
    leaving = f"{TEXT}traits: {{gives_up: {{reference: ['Tschüss.']}}}}\n"
    _, findings = load_domain(write(tmp_path, leaving))
    assert any("no `closing`" in one.message for one in findings)


# -- what is shown of them


def test_shares_planned_and_acted_are_shown() -> None:
    dialogues = played("walk")
    summary = summarize(dialogues)
    for name, _ in SOME:
        count = summary.traits[name]
        assert count.planned == sum(name in one.traits for one in dialogues)
        assert count.dialogues == sum(bool(acted(one).get(name)) for one in dialogues)
        assert 0 < count.dialogues <= count.planned
        assert count.turns <= count.told
    text = "\n".join(lines(summary))
    share = summary.traits["gives_up"].planned / len(dialogues)
    assert f"trait gives_up: planned in {share:.1%} of dialogues, acted in" in text


def test_a_dialogue_shows_its_traits_and_where_they_acted() -> None:
    dialogue = next(one for one in played("walk") if acted(one).get("vague"))
    shown_ = "\n".join(render_dialogue(dialogue).lines())
    turns = ", ".join(map(str, acted(dialogue)["vague"]))
    assert f"vague (acted on turns {turns})" in shown_
    assert "acted: " in shown_
    assert dump_json(dialogue_row(dialogue)["traits"]) == dump_json(list(dialogue.traits))
