"""An agent that was trained plays the agent: it is shown what it was trained on, and no more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from actors.cast import Cast
from actors.dry_run import Drawn, DrySeat
from actors.manager import RougeManager
from actors.policies import CONVERSATIONS
from actors.prompts import Ask, Learned, less
from actors.reenact import UNSURE, exact_prompts
from actors.retrieval.sampled import SampledTools
from specs.agent_chat import agent_messages
from specs.agent_format import ChatMessage, pieces
from specs.domain import Domain, RoleCard, Side
from specs.engine import EngineInfo
from specs.engine_section import Profile
from specs.loader import open_domain
from specs.plan import PlanSource, make_plan
from specs.records import Dialogue
from tests.unit.kiosk import kiosk

INFO = EngineInfo("refs", "references", 0, 8)
ADAPTER = "/runs/tea/round-0/adapter"


def cast_of(domain: Domain, source: PlanSource, adapter: str = ADAPTER) -> Cast:
    seat = DrySeat.of(INFO, Profile(), None)
    return Cast(
        domain=domain,
        source=source,
        run="tea",
        seats={"user": seat, "agent": replace(seat, adapter=adapter)},
        caller=Drawn(SampledTools(domain)),
        max_turns=60,
        manager=None if source.policy == "walk" else RougeManager(),
    )


async def played(cast: Cast, index: int) -> Dialogue:
    plan = make_plan(cast.domain, cast.source, index)
    return await CONVERSATIONS[cast.source.policy](cast, plan).play()


def shown(messages: list[ChatMessage], piece: Any) -> str:
    """Return what stands before a piece, as `show --prompts` shows it."""
    before = [(one.role, one.content) for one in messages[: piece.message]]
    return "\n".join(f"[{role}]\n{said}" for role, said in [*before, ("assistant", piece.prefix)])


@pytest.mark.parametrize(
    ("name", "policy", "traits"),
    [
        ("kiosk", "walk", ()),
        ("recipe", "walk", (("vague", 0.4), ("two_intents", 0.5))),
        ("shop", "walk", (("wrong_fact", 0.5), ("corrects_agent", 0.5))),
        ("tavern", "routed", (("vague", 0.5), ("changes_mind", 0.5))),
        ("healer", "hybrid", ()),
    ],
)
async def test_it_is_shown_what_it_learned_from_up_to_its_words(
    name: str, policy: str, traits: tuple[tuple[str, float], ...]
) -> None:
    domain = kiosk() if name == "kiosk" else open_domain(name)
    source = PlanSource(3, policy, "", 0, traits)
    cast = cast_of(domain, source)
    answers = 0
    for index in range(6):
        dialogue = await played(cast, index)
        told = await exact_prompts(
            dialogue, domain, source, dict.fromkeys(("user", "agent"), Profile())
        )
        messages = agent_messages(dialogue, domain, replace(source, traits=()))
        spoken = [piece for piece in pieces(messages) if piece.kind == "answer"]
        agents = [turn for turn in dialogue.turns if turn.role == "agent"]
        assert len(spoken) == len(agents) > 1
        for turn, piece in zip(agents, spoken, strict=True):
            assert told[turn.index] == shown(messages, piece)
            assert piece.text == turn.text
            answers += 1
        assert {turn.adapter for turn in agents} == {ADAPTER}
        assert {turn.sampling["form"] for turn in agents} == {"learned"}
        users = [turn for turn in dialogue.turns if turn.role == "user"]
        assert {turn.adapter for turn in users} == {""}
        assert all(UNSURE not in told[turn.index] for turn in dialogue.turns)
    assert answers > 20


async def test_one_that_goes_on_from_its_log_knows_what_was_said() -> None:
    cast = cast_of(kiosk(), PlanSource(3))
    plan = make_plan(cast.domain, cast.source, 1)
    whole = await CONVERSATIONS["walk"](cast, plan).play()
    for cut in range(len(whole.turns)):
        again = CONVERSATIONS["walk"](cast, plan, logged=whole.turns[:cut])
        resumed = await again.play()
        assert [turn.prompt_digest for turn in resumed.turns] == [
            turn.prompt_digest for turn in whole.turns
        ]


def test_what_does_not_fit_loses_the_oldest_turns_and_never_the_last() -> None:
    head = ChatMessage("system", "You sell tea.")
    turns = [
        message
        for n in range(6)
        for message in (ChatMessage("user", f"{n}"), ChatMessage("assistant", f"{n}!"))
    ]
    last = ChatMessage("user", "and now?")
    ask: Any = replace(_ask(), learned=Learned((head, *turns, last), "{}\n"))
    seen = []
    while True:
        told = ask.learned.messages
        seen.append([message.content for message in told if message.role == "user"])
        assert told[0] == head
        assert [one.role for one in told[1:]] == [
            *["user", "assistant"] * (len(seen[-1]) - 1),
            "user",
        ]
        fewer = less(ask, Profile(), ())
        if fewer is None:
            break
        ask = fewer[0]
    assert seen == [
        ["0", "1", "2", "3", "4", "5", "and now?"],
        ["3", "4", "5", "and now?"],
        ["5", "and now?"],
        ["and now?"],
    ]
    opening: Any = replace(_ask(), learned=Learned((head,), ""))
    assert less(opening, Profile(), ()) is None


def _ask() -> Ask:
    domain = kiosk()
    speech = next(iter(domain.states.values())).speech
    cards: dict[Side, RoleCard] = {"user": domain.user, "agent": domain.agent}
    return Ask("agent", cards, "", speech, "", (), ())
