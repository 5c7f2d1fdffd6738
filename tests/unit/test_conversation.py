"""Conversations with a scripted engine: what is asked, when, and what is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors import single_prompt, speaking
from actors.cast import Cast
from actors.conversation import Conversation
from actors.single_prompt import SinglePrompt
from specs.checks import run_checks
from specs.domain import Domain
from specs.engine import Failure
from specs.engine_section import Profile
from specs.errors import Unavailable
from specs.plan import PlanSource, make_plan
from specs.records import Dialogue, StopReason, Turn, turn_from_row, turn_row
from specs.utterance import Utterance
from specs.words import Vocabulary
from tests.unit.kiosk import kiosk
from tests.unit.scripted import Calls, Letters, Scripted, make_cast, shown
from tests.unit.test_single_prompt import Writer
from tests.unit.tiny_domain import changed, tiny

BAD = " mint\nguest: As an AI language model, I like mint."
JUNK = " no label here"
FORMS = [Profile(form="script", candidates=(1, 2)), Profile(form="chat", candidates=(1, 2))]


def index_of(*intents: str, domain: Domain | None = None, seed: int = 0) -> int:
    """Return the first index whose walk begins with these intents and comes to its end."""
    from actors.retrieval.sampled import SampledTools
    from specs.scene import sample_walk

    domain = domain or kiosk()
    for index in range(500):
        plan = make_plan(domain, PlanSource(seed), index)
        walked = sample_walk(domain, plan, SampledTools(domain))
        taken = [step.intent for step in walked.path if step.intent or step.to == "farewell"]
        if walked.stop_reason is StopReason.ENDED and tuple(taken[: len(intents)]) == intents:
            return index
    raise AssertionError(f"no walk begins with {intents}")


async def play(cast: Cast, index: int, logged: tuple[Turn, ...] = (), **keys: Any) -> Dialogue:
    return await Conversation(
        cast, make_plan(cast.domain, cast.source, index), 0, logged, **keys
    ).play()


@pytest.mark.parametrize("profile", FORMS, ids=["script", "chat"])
async def test_a_dialogue_of_first_candidates(profile: Profile) -> None:
    client, caller = Scripted(), Calls(kiosk())
    dialogue = await play(
        make_cast(kiosk(), client, profile=profile, caller=caller), index_of("ask")
    )
    assert dialogue.stop_reason is StopReason.ENDED
    assert [turn.role for turn in dialogue.turns[:3]] == ["agent", "user", "agent"]
    assert client.places() == [(turn.index, 0) for turn in dialogue.turns]
    assert {turn.source for turn in dialogue.turns} == {"model"}
    assert all(check.passed for turn in dialogue.turns for check in turn.checks)
    first, ask = dialogue.turns[:2]
    assert (first.state, first.role, first.memory["page"]) == ("hello", "agent", 0)
    wanted = make_plan(kiosk(), PlanSource(0), dialogue.index).document
    assert wanted is not None
    title = wanted.fields["title"]
    assert (ask.intent, ask.state, ask.slots["query"]) == ("ask", "hello", title)
    assert kiosk().edges[ask.edge].intent == "ask"
    assert ask.memory["asked"] == ""  # what the edge and the state set comes after the words
    look_up = dialogue.turns[2]
    assert look_up.call == {"tool": "search", "arguments": {"query": ask.slots["query"], "page": 0}}
    assert look_up.memory["asked"] == ask.slots["query"]
    assert len(look_up.result_ids) == len(look_up.result_scores) > 0
    assert set(look_up.result_ids) <= set(dialogue.doc_ids)
    assert dialogue.doc_ids[0] == wanted.id
    assert (first.model, first.replica, first.prompt_tokens, first.cached_tokens) == (
        "tiny-model",
        "r-1",
        50,
        20,
    )
    assert dialogue.subgoals_reached[-1] in ("bye", "offer")
    assert len({turn.seed for turn in dialogue.turns}) == len(dialogue.turns)


async def test_several_calls_of_one_turn_are_all_recorded() -> None:
    dialogue = await play(make_cast(kiosk(), Scripted()), index_of("ask", "choose"))
    last = dialogue.turns[-1]
    assert last.routing is not None
    assert [call["tool"] for call in last.routing["calls"]] == ["pay", "weather"]
    assert (last.call or {})["tool"] == "weather"
    assert last.result == {"sky": "grey"}


async def test_a_second_batch_is_asked_for_at_once_when_the_first_fails() -> None:
    good = " mint\nguest: Some mint, please."
    client = Scripted({(1, 0): [BAD], (1, 1): [JUNK, good]})
    dialogue = await play(make_cast(kiosk(), client), index_of("ask"))
    turn = dialogue.turns[1]
    assert client.places()[:4] == [(0, 0), (1, 0), (1, 1), (2, 0)]
    assert [request.sampling.n for request in client.requests[1:3]] == [1, 2]
    assert (turn.text, turn.source, turn.slots) == (
        "Some mint, please.",
        "model",
        {"query": "mint"},
    )
    assert turn.rejected == ("As an AI language model, I like mint.", "no label here")
    assert turn.completion_tokens == 21  # all three candidates were paid for
    assert turn.seed == client.requests[2].sampling.seed + 1  # the second of its batch
    assert (turn.sampling["attempt"], turn.sampling["candidate"]) == (1, 1)
    assert client.requests[1].sampling.seed != client.requests[2].sampling.seed


async def test_what_was_cut_off_is_rejected() -> None:
    client = Scripted({(0, 0): [" Good day, what may..."]})
    dialogue = await play(make_cast(kiosk(), client), index_of("ask"))
    assert dialogue.turns[0].rejected == ("Good day, what may",)
    assert dialogue.turns[0].text != "Good day, what may"


@pytest.mark.parametrize("profile", FORMS, ids=["script", "chat"])
async def test_a_repair_names_the_failed_checks(profile: Profile) -> None:
    bad = BAD if profile.form == "script" else '{"query":"mint","text":"As an AI language model."}'
    client = Scripted({(1, 0): [bad], (1, 1): ["?", bad]})
    dialogue = await play(make_cast(kiosk(), client, profile=profile), index_of("ask"))
    assert client.places()[1:4] == [(1, 0), (1, 1), (1, 2)]
    before, repair = shown(client.requests[2]), shown(client.requests[3])
    failed = "not_boilerplate, form: "
    assert failed not in before
    assert failed in repair
    assert dialogue.turns[1].source == "repair"
    assert len(dialogue.turns[1].rejected) == 3


async def test_the_reference_is_the_last_resort_and_marked() -> None:
    client = Scripted({(1, 0): [BAD], (1, 1): [BAD, BAD], (1, 2): [BAD]})
    index = index_of("ask")
    dialogue = await play(make_cast(kiosk(), client), index)
    turn, title = dialogue.turns[1], kiosk().document(dialogue.doc_ids[0]).fields["title"]
    wanted = {
        f"Do you have {title} today?": title,
        f"Some {title.lower()}, if there is any.": title.lower(),
    }
    assert turn.source == "reference"
    assert turn.slots == {"query": wanted[turn.text]}
    assert len(turn.rejected) == 4
    assert all(check.passed for check in turn.checks)
    assert (turn.completion_tokens, turn.model) == (28, "tiny-model")
    assert dialogue.turns[2].call is not None
    assert dialogue.turns[2].call["arguments"]["query"] == wanted[turn.text]
    assert dialogue.stop_reason is StopReason.ENDED


async def test_without_repair_and_second_batch_the_reference_comes_at_once() -> None:
    client = Scripted({(1, 0): [BAD]})
    profile = Profile(form="script", candidates=(1, 0), repair=False)
    dialogue = await play(make_cast(kiosk(), client, profile=profile), index_of("ask"))
    assert client.places()[:3] == [(0, 0), (1, 0), (2, 0)]
    assert dialogue.turns[1].source == "reference"


async def test_without_a_reference_the_dialogue_stops_and_says_why(tmp_path: Path) -> None:
    greeting = 'reference: ["Good day, what may it be?", "Hello there, some tea?"]'
    domain = tiny(tmp_path, changed((f"    {greeting}\n", "")))
    client = Scripted({(0, attempt): [""] for attempt in range(3)})
    dialogue = await play(make_cast(domain, client), 0)
    assert (dialogue.stop_reason, dialogue.turns) == (StopReason.NO_WORDS, ())
    assert "finished" in dialogue.error
    assert dialogue.path == ()


# -- the window


def spaces(request: Any) -> str:
    return "".join(map(chr, request.tokens))


async def test_history_makes_room_before_anything_else_does() -> None:
    index = index_of("ask", "other")
    whole, tight = Scripted(), Scripted()
    # Tokens are letters here, which the scripted client cannot read; it is given references.
    profile = Profile(form="script", max_tokens=20)
    for client, window in ((whole, 0), (tight, 330)):
        await play(
            make_cast(
                kiosk(),
                Telling(client),
                profile=profile,
                tokenizer=Letters(),
                window=window,
                takes="tokens",
            ),
            index,
        )
    assert len(whole.requests) == len(tight.requests)
    trimmed = 0
    for full, short in zip(whole.requests, tight.requests, strict=True):
        assert len(short.tokens) <= 310
        assert full.sampling == short.sampling
        text, less = spaces(full), spaces(short)
        assert less.split("\n\n")[-1] == text.split("\n\n")[-1]  # the instruction stays
        if text != less:
            assert len(less) < len(text)
            trimmed += 1
    assert trimmed


async def test_a_prompt_that_never_fits_is_an_overflow() -> None:
    client = Scripted()
    profile = Profile(form="script", max_tokens=20)
    dialogue = await play(
        make_cast(kiosk(), client, profile=profile, tokenizer=Letters(), window=60, takes="tokens"),
        0,
    )
    assert dialogue.stop_reason is StopReason.OVERFLOW
    assert "the window of 60 leaves room for 40" in dialogue.error
    assert client.requests == []


class Telling:
    """Hands requests of letters on as the text that they spell."""

    def __init__(self, client: Scripted) -> None:
        self.client = client

    async def ask(self, request: Any, dialogue: str) -> Any:
        answer = await self.client.ask(replace(request, text=spaces(request)), dialogue)
        self.client.requests[-1] = request
        return answer

    def release(self, dialogue: str) -> None:
        self.client.release(dialogue)


# -- failures


@pytest.mark.parametrize(
    ("kind", "reason"), [("overflow", StopReason.OVERFLOW), ("refused", StopReason.REFUSED)]
)
async def test_what_can_never_succeed_ends_the_dialogue(kind: Any, reason: StopReason) -> None:
    client = Scripted({(2, 0): Failure(kind, "too long")})
    dialogue = await play(make_cast(kiosk(), client), index_of("ask"))
    assert (dialogue.stop_reason, dialogue.error, len(dialogue.turns)) == (reason, "too long", 2)
    assert client.places() == [(0, 0), (1, 0), (2, 0)]


@pytest.mark.parametrize("kind", ["unavailable", "deadline", "aborted"])
async def test_a_failure_of_the_engine_is_no_record_and_seats_are_released(kind: Any) -> None:
    user, agent = Scripted({(1, 0): Failure(kind, "gone")}), Scripted()
    turns: list[Turn] = []

    async def note(turn: Turn) -> None:
        turns.append(turn)

    index = index_of("ask")
    with pytest.raises(Unavailable, match="user's engine tiny-model: gone"):
        await play(make_cast(kiosk(), user, agent), index, on_turn=note)
    assert [turn.index for turn in turns] == [0]
    walk = make_plan(kiosk(), PlanSource(0), index).walk_id
    assert (user.released, agent.released) == ([walk], [walk])


async def test_a_dialogue_without_its_goal_is_its_own_error() -> None:
    cast = make_cast(kiosk(), Scripted())
    plan = replace(make_plan(kiosk(), PlanSource(0), 0), error="the goal fails")
    for play in (Conversation(cast, plan).play, SinglePrompt(cast, plan).play):
        dialogue = await play()
        assert (dialogue.stop_reason, dialogue.error) == (StopReason.ERROR, "the goal fails")
        assert dialogue.turns == ()


async def test_every_seat_is_released_at_the_end() -> None:
    user, agent = Scripted(), Scripted()
    dialogue = await play(make_cast(kiosk(), user, agent), 0)
    assert (user.released, agent.released) == ([dialogue.walk_id], [dialogue.walk_id])
    assert all(turn % 2 for turn, _ in user.places())
    assert not any(turn % 2 for turn, _ in agent.places())


async def test_a_tool_that_fails_is_the_dialogues_own_error(tmp_path: Path) -> None:
    domain = tiny(tmp_path, changed(("cups: slots.cups}", "cups: \"'many'\"}")))
    dialogue = await play(make_cast(domain, Scripted()), index_of("ask"))
    assert dialogue.stop_reason is StopReason.ERROR
    assert "pay" in dialogue.error
    assert dialogue.turns[-1].role == "user"


async def test_the_limit_of_turns() -> None:
    dialogue = await play(make_cast(kiosk(), Scripted(), max_turns=4), index_of("ask"))
    assert dialogue.stop_reason is StopReason.TURN_LIMIT
    assert [turn.role for turn in dialogue.turns] == ["agent", "user", "agent"]


# -- going on


@pytest.mark.parametrize("intents", [("ask", "other"), ("gossip", "ask"), ("ask", "choose")])
async def test_a_dialogue_that_was_cut_goes_on_as_if_it_had_not_been(
    intents: tuple[str, ...],
) -> None:
    index = index_of(*intents)
    whole = await play(make_cast(kiosk(), Scripted()), index)
    for k in range(len(whole.turns) + 1):
        client, caller = Scripted(), Calls(kiosk())
        logged = tuple(turn_from_row(turn_row(turn)) for turn in whole.turns[:k])
        new: list[int] = []

        async def note(turn: Turn, new: list[int] = new) -> None:
            new.append(turn.index)

        again = await play(make_cast(kiosk(), client, caller=caller), index, logged, on_turn=note)
        assert replace(again, turns=()) == replace(whole, turns=())
        rows = [[turn_row(turn) for turn in one.turns] for one in (again, whole)]
        assert rows[0] == rows[1]
        assert new == list(range(k, len(whole.turns)))
        assert {turn for turn, _ in client.places()} == set(new)
        made = sum(_calls(turn) for turn in whole.turns[k:])
        assert len(caller.calls) == made


def _calls(turn: Turn) -> int:
    return len(turn.routing["calls"]) if turn.routing else int(turn.call is not None)


async def test_what_is_played_beside_it_changes_nothing() -> None:
    cast = make_cast(kiosk(), Scripted())
    alone = await play(make_cast(kiosk(), Scripted()), 3)
    for index in (9, 4, 3, 8):
        beside = await play(cast, index)
        if index == 3:
            assert beside == alone


# -- similar


async def test_similar_asks_the_caller_with_the_turns_references() -> None:
    said = " what a wind"
    caller = Calls(kiosk(), lambda text: 0.9 if text == "what a wind" else 0.1)
    client = Scripted({(1, 0): [" stones"], (1, 1): [" bricks", said]})
    dialogue = await play(make_cast(kiosk(), client, caller=caller), index_of("gossip"))
    turn = dialogue.turns[1]
    assert turn.text == "what a wind"
    # What is similar enough is then held against what the other side said last.
    texts = [text for text, _ in caller.compared[:4]]
    assert texts == ["stones", "bricks", "what a wind", "what a wind"]
    references = {"What weather!", "It never stops, does it?", "I forgot my hat again."}
    assert set(caller.compared[0][1]) == references
    assert caller.compared[3][1]
    assert not references.intersection(caller.compared[3][1])
    assert [(c.name, c.value, c.passed) for c in turn.checks][-1] == ("similar", 0.9, True)
    assert turn.rejected == ("stones", "bricks")


async def test_what_is_more_like_the_other_side_is_out_of_role() -> None:
    own = {"What weather!", "It never stops, does it?", "I forgot my hat again."}
    client = Scripted({(1, 0): [" may I help you"], (1, 1): [" what a wind"]})
    cast = make_cast(kiosk(), client)

    async def similarity(text: str, references: Sequence[str]) -> float:
        like_own = text == "what a wind"
        return 0.8 if like_own == bool(own.intersection(references)) else 0.7

    cast.caller.similarity = similarity  # type: ignore[method-assign]
    turn = (await play(cast, index_of("gossip"))).turns[1]
    assert (turn.text, turn.rejected) == ("what a wind", ("may I help you",))


async def test_a_reference_that_was_said_is_not_said_again() -> None:
    index = index_of("gossip", "gossip")
    failing = {(turn, attempt): [" x..."] * 2 for turn in (1, 3) for attempt in range(3)}
    dialogue = await play(make_cast(kiosk(), Scripted(failing)), index)
    assert dialogue.turns[1].source == dialogue.turns[3].source == "reference"
    assert dialogue.turns[1].text != dialogue.turns[3].text


async def test_what_is_said_is_held_against_the_domains_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Utterance] = []

    def noting(speech: Any, utterance: Utterance, *rest: Any) -> Any:
        seen.append(utterance)
        return run_checks(speech, utterance, *rest)

    monkeypatch.setattr(speaking, "run_checks", noting)
    monkeypatch.setattr(single_prompt, "run_checks", noting)
    for policy, client in ((Conversation, Scripted()), (SinglePrompt, Writer())):
        seen.clear()
        cast = make_cast(kiosk(), client)
        cast.common = Vocabulary(["mint"])
        await policy(cast, make_plan(cast.domain, cast.source, 0)).play()
        assert seen
        assert {id(one.common) for one in seen} == {id(cast.common)}
        assert {id(one.phrases) for one in seen} == {id(cast.phrases)}
