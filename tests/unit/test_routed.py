"""Free talk along a workflow: what is routed, what stays, how it stops, and what is recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from actors.cast import GO_ON, Cast
from actors.conversation import Conversation
from actors.manager import Question, RougeManager, Verdict
from actors.policies import CONVERSATIONS
from actors.reenact import exact_prompts
from cluster.rehearsal import rehearse
from cluster.summary import summarize
from specs.checks import literals
from specs.domain import Domain, Side
from specs.engine import Answer, Candidate, Request
from specs.engine_section import Profile
from specs.loader import open_domain
from specs.plan import PlanSource, make_plan
from specs.records import Dialogue, StopReason, Turn, dialogue_from_row, dialogue_row
from specs.replay import replay
from specs.run_file import PolicySection
from specs.traits import told
from tests.unit.scripted import Calls, make_cast, shown

PROFILE = Profile(form="script", candidates=(1, 2), examples=2, repair=False)


class Talk:
    """Says what a test wants at a turn; the keeper asks something else each time."""

    def __init__(self, said: Mapping[int, str | list[str]]) -> None:
        self.said = said
        self.requests: list[Request] = []

    async def ask(self, request: Request, dialogue: str) -> Answer:
        self.requests.append(request)
        _, turn, attempt = request.id.split(":")
        lines = self.said.get(int(turn), f"Word number {request.sampling.seed % 9973}, is it not?")
        text = lines if isinstance(lines, str) else lines[min(int(attempt), len(lines) - 1)]
        return Answer(
            request.id,
            (Candidate(f" {text}", "stop", 5),) * request.sampling.n,
            completion_tokens=5,
        )

    def release(self, dialogue: str) -> None:
        """Nothing sticks."""

    def prompt(self, turn: int) -> str:
        return next(shown(one) for one in self.requests if one.id.split(":")[1] == str(turn))


def supper(domain: Domain, policy: str) -> int:
    """Return the first index of a traveller who wants a supper."""
    source = PlanSource(0, policy)
    return next(n for n in range(50) if make_plan(domain, source, n).memory["errand"] == "supper")


async def talk(
    client: Talk, policy: str = "routed", logged: tuple[Turn, ...] = (), **keys: Any
) -> Dialogue:
    domain = open_domain("tavern")
    source = PlanSource(0, policy)
    keys = {"manager": RougeManager(), **keys}
    cast: Cast = make_cast(domain, client, source=source, profile=PROFILE, **keys)
    plan = make_plan(domain, source, supper(domain, policy))
    conversation: type[Conversation] = CONVERSATIONS[policy]
    return await conversation(cast, plan, 0, logged).play()


SUPPER: dict[int, str | list[str]] = {
    1: "A supper would be good, please, I'm starving.",
    3: "By the fire, I'm frozen.",
    5: "I'll have some of the eel stew.",
    7: "Bones don't bother me at all.",
    9: "A mug of your ale, please.",
}


async def test_free_replies_are_routed_along_the_workflow() -> None:
    client = Talk(SUPPER)
    dialogue = await talk(client)
    assert dialogue.stop_reason is StopReason.ENDED
    users = [turn for turn in dialogue.turns if turn.role == "user"]
    assert [turn.intent for turn in users] == [
        "want_supper",
        "take_fire",
        "take_stew",
        "bones_fine",
        "drink_ale",
    ]
    assert {turn.source for turn in dialogue.turns} == {"model"}
    assert all(turn.routing["manager"] == "rouge" for turn in users)
    assert users[0].routing["like"] == "A supper, please, I'm starving."
    assert dialogue.subgoals_reached == ("ask_seat", "ask_dish", "ask_drink", "supper_served")
    # The user is told what was heard, and nothing of the graph; the agent what to say next.
    assert f"The keeper says: {dialogue.turns[2].text}" in client.prompt(3)
    assert "seat" not in client.prompt(3).splitlines()[-2]
    assert "eel stew or leek pie" in client.prompt(4)


async def test_what_fits_no_edge_leaves_the_dialogue_where_it_is() -> None:
    client = Talk({**SUPPER, 1: "Is that a stuffed heron up there?", 3: str(SUPPER[1])})
    dialogue = await talk(client, max_turns=6)
    first, stay, back, again = dialogue.turns[:4]
    assert (stay.edge, stay.intent, stay.state) == (-1, "", "greet")
    assert stay.routing["score"] < 0.33
    assert (back.state, back.call, back.routing) == ("greet", None, {"stays": 1})
    told = client.prompt(2)
    heard = "The traveller says: Is that a stuffed heron up there? Answer in a few words, then: "
    point = "Welcome the traveller to the Salt Heron. Ask for their errand"
    assert heard + point in told
    assert "then: Ask whether they want herring or trout." in told  # an example's own point
    assert (again.intent, again.edge) == ("want_supper", 0)
    assert dialogue.stop_reason is StopReason.TURN_LIMIT
    assert first.role == "agent"


async def test_one_point_three_times_is_a_loop() -> None:
    nothing = {n: f"Tell me about herons, part {n}." for n in (1, 3, 5, 7)}
    dialogue = await talk(Talk(nothing))
    assert dialogue.stop_reason is StopReason.LOOP
    assert len(dialogue.turns) == 6
    longer = await talk(Talk(nothing), patience=4)
    assert len(longer.turns) == 8
    # What is routed in between begins the count anew.
    mixed = {**nothing, 5: SUPPER[1], 9: "And part nine?", 11: "And part eleven?"}
    assert len((await talk(Talk(mixed))).turns) > 10


async def test_whoever_takes_their_leave_is_gone() -> None:
    gone = await talk(Talk({1: "Nobody to be seen, so farewell to this place."}))
    assert gone.stop_reason is StopReason.CLOSED
    assert len(gone.turns) == 2
    # Where an edge stands for it, the agent has the last word.
    left = await talk(Talk({**SUPPER, 3: "I've changed my mind, goodbye."}))
    assert left.stop_reason is StopReason.ENDED
    assert left.turns[-1].state == "left"


async def test_what_a_closed_edge_stands_for_is_no_other_one() -> None:
    asked = Talk({**SUPPER, 1: "Do you have work for me?", 3: SUPPER[1]})
    dialogue = await talk(asked, manager=RougeManager(0.0), max_turns=6)
    assert dialogue.turns[1].edge == -1
    assert dialogue.turns[3].intent == "want_supper"


async def test_a_choice_is_taken_back_once() -> None:
    back, forth = "Actually, I'd rather have the leek pie.", "Wait, I'll take the stew after all."
    dialogue = await talk(Talk({**SUPPER, 7: back, 9: forth}), max_turns=12)
    assert dialogue.turns[7].intent == "take_pie"
    assert dialogue.turns[10].state == "ask_crust"
    assert "take_stew" not in [turn.intent for turn in dialogue.turns[8:]]


async def test_nobody_leaves_without_a_word_of_it() -> None:
    """To stay is as like to leave as can be, and a reply that is taken so ends the dialogue."""
    alike = Talk({**SUPPER, 3: "I've changed my mind, I'm not leaving.", 5: SUPPER[3]})
    stayed = await talk(alike, max_turns=8)
    assert stayed.turns[3].edge == -1
    assert stayed.turns[5].intent == "take_fire"
    left = await talk(Talk({**SUPPER, 3: "I've changed my mind, goodbye."}))
    assert left.turns[3].intent == "leave"


async def test_what_an_example_is_about_or_was_said_before_is_said_no_more() -> None:
    borrowed = "A supper, and I want to sell my two baskets of white salt here."
    again = "I'll have some of the eel stew. By the fire, I'm frozen."
    said = {1: [borrowed, str(SUPPER[1])], 5: [again, str(SUPPER[5])]}
    dialogue = await talk(Talk({**SUPPER, **said}))
    assert dialogue.turns[1].rejected == (borrowed,)
    assert dialogue.turns[5].rejected == (again,)
    same = await talk(Talk({**SUPPER, 3: [str(SUPPER[1]), str(SUPPER[3])]}))
    assert same.turns[3].rejected == (SUPPER[1],)
    assert dialogue.stop_reason is StopReason.ENDED


async def test_examples_and_the_goal_are_no_words_of_ones_own() -> None:
    domain = open_domain("tavern")
    example = domain.user.speech.examples[0].say.source
    goal = make_plan(domain, PlanSource(0, "routed"), supper(domain, "routed")).goal
    for copied in (example, goal):
        [_, turn, *_] = (await talk(Talk({**SUPPER, 1: [copied, str(SUPPER[1])]}))).turns
        assert turn.text == SUPPER[1]
        assert turn.rejected == (copied,)
    leaked = "Sleep. You answer the keeper in your own words, one or two short sentences at a time."
    [_, turn, *_] = (await talk(Talk({**SUPPER, 1: [leaked, str(SUPPER[1])]}))).turns
    assert turn.rejected == (leaked,)
    back = domain.agent.speech.examples[0].say.source
    client = Talk({1: "Are herons shy?", 2: [back, "They are. What can I do for you tonight?"]})
    turn = (await talk(client, max_turns=4)).turns[2]
    assert (turn.text, turn.rejected) == ("They are. What can I do for you tonight?", (back,))


class Ears(Calls):
    """Takes what one side says for the other's words."""

    def __init__(self, domain: Domain, side: Side) -> None:
        super().__init__(domain)
        said = domain.states.values() if side == "user" else domain.edges
        self.theirs = {line for one in said for line in literals(one.speech)}

    async def similarity(self, text: str, references: Sequence[str]) -> float:
        self.compared.append((text, tuple(references)))
        return 0.9 if self.theirs.issuperset(references) else 0.7


@pytest.mark.parametrize("side", ["user", "agent"])
async def test_a_side_that_keeps_speaking_the_others_lines_ends_the_talk(side: Side) -> None:
    domain = open_domain("tavern")
    talking = {n: f"Tell me about herons, part {n}." for n in range(1, 20, 2)}
    for patience in (1, 2):
        found = await talk(Talk(talking), caller=Ears(domain, side), patience=patience)
        assert found.stop_reason is StopReason.OUT_OF_ROLE
        own = [turn for turn in found.turns if turn.role == side]
        astray = [
            turn for turn in own if ("in_role", False) in {(c.name, c.passed) for c in turn.checks}
        ]
        assert len(astray) == patience
        assert {turn.source for turn in astray} == {"reference"}
        assert all(turn.rejected for turn in astray)


async def test_without_steering_the_agent_knows_the_whole_workflow() -> None:
    steered, alone = Talk(SUPPER), Talk(SUPPER)
    await talk(steered)
    dialogue = await talk(alone, structured=False)
    assert dialogue.stop_reason is StopReason.ENDED
    assert GO_ON in alone.prompt(4)
    assert "leek pie" not in alone.prompt(4).splitlines()[-2]
    assert GO_ON not in steered.prompt(4)


async def test_an_interrupted_talk_goes_on_from_its_log() -> None:
    said = {**SUPPER, 3: "How old is this house?", 5: SUPPER[3], 7: SUPPER[5], 9: SUPPER[7]}
    said[11] = SUPPER[9]
    whole = await talk(Talk(said))
    assert whole.stop_reason is StopReason.ENDED
    for cut in (2, 4, 5, 8):
        client = Talk(said)
        again = await talk(client, logged=whole.turns[:cut])
        assert [turn.text for turn in again.turns] == [turn.text for turn in whole.turns]
        assert again.path == whole.path
        assert min(int(one.id.split(":")[1]) for one in client.requests) == cut


async def test_the_record_can_be_followed_and_its_prompts_shown() -> None:
    domain, source = open_domain("tavern"), PlanSource(0, "routed")
    client = Talk({**SUPPER, 3: "How old is this house?", 5: SUPPER[3], 7: SUPPER[5]})
    dialogue = await talk(client)
    followed = list(replay(dialogue, domain, source))
    assert len(followed) == len(dialogue.turns)
    assert [one.differences for one in followed if not one.consistent] == []
    profiles: Any = {"user": PROFILE, "agent": PROFILE}
    prompts = await exact_prompts(dialogue, domain, source, profiles)
    assert {turn: prompts[turn] for turn in (1, 3, 4, 6)} == {
        turn: client.prompt(turn) for turn in (1, 3, 4, 6)
    }


async def test_a_watched_walk_refuses_words_that_mean_another_intent() -> None:
    domain = open_domain("tavern")
    [drawn] = [t for t in (await talk(Talk({}), "hybrid", max_turns=4)).turns if t.index == 1]
    assert drawn.intent == "want_supper"
    said = ["I need a bed for the night.", "I'm hungry, what can you cook for me?"]
    dialogue = await talk(Talk({1: said}), "hybrid", max_turns=4)
    turn = dialogue.turns[1]
    assert (turn.text, turn.rejected) == (said[1], (said[0],))
    [means] = [check for check in turn.checks if check.name == "means"]
    assert means.passed
    assert means.value == 1
    assert domain.edges[turn.edge].intent == "want_supper"


class Paid:
    """A manager whose verdicts cost three tokens each."""

    kind = "model"

    def __init__(self) -> None:
        self.asked = 0

    async def route(self, question: Question) -> Verdict:
        self.asked += 1
        return replace(await RougeManager().route(question), tokens=3)


@pytest.mark.parametrize("trait", ["", "vague", "wrong_fact", "two_intents"])
@pytest.mark.parametrize("policy", ["routed", "hybrid"])
async def test_a_turn_tells_what_its_verdicts_cost(policy: str, trait: str) -> None:
    """Of candidates that were refused, and of halves that were held against edges, as well."""
    domain, count = open_domain("tavern"), 0
    source = PlanSource(0, policy, traits=((trait, 1.0),) if trait else ())
    client, total = Talk({1: ["I need a bed for the night.", "I'm hungry, what can you cook?"]}), 0
    for index in range(12):
        manager = Paid()
        cast = make_cast(domain, client, source=source, profile=PROFILE, manager=manager)
        played = await CONVERSATIONS[policy](cast, make_plan(domain, source, index)).play()
        assert sum(turn.managed_tokens for turn in played.turns) == 3 * manager.asked
        total += manager.asked
        assert not any(turn.managed_tokens for turn in played.turns if turn.role == "agent")
        count += sum(trait == one for turn in played.turns for one, _ in told(turn))
        told_of = summarize([dialogue_from_row(dialogue_row(played))])
        assert told_of.managed_tokens == 3 * manager.asked
    assert total
    assert bool(count) == bool(trait)


@pytest.mark.parametrize("manager", ["rouge", "embedding"])
@pytest.mark.parametrize("kind", ["routed", "hybrid"])
def test_perfect_speakers_reach_the_end(kind: Any, manager: Any) -> None:
    """The ceiling: whoever speaks the references is understood, but for what two intents share."""
    policy = PolicySection(kind=kind, manager=manager)
    dialogues = rehearse(open_domain("tavern"), 40, 0, 3, policy)
    assert Counter(one.stop_reason for one in dialogues) == {StopReason.ENDED: 40}
