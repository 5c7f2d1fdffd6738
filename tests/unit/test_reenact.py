"""Prompts rendered again from a record are those that were sent, letter by letter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from actors.cast import Cast
from actors.conversation import Conversation
from actors.reenact import UNSURE, exact_prompts
from specs.engine_section import Profile
from specs.plan import make_plan
from specs.records import Dialogue, dialogue_from_row, dialogue_row
from specs.scene import Scene
from tests.unit.kiosk import kiosk
from tests.unit.scripted import Letters, Scripted, make_cast, place, shown
from tests.unit.test_conversation import BAD, Telling, index_of, spaces


async def played(cast: Cast, index: int) -> Dialogue:
    dialogue = await Conversation(cast, make_plan(cast.domain, cast.source, index)).play()
    return dialogue_from_row(dialogue_row(dialogue))


async def rendered(cast: Cast, dialogue: Dialogue) -> dict[int, str]:
    profiles = {side: seat.profile for side, seat in cast.seats.items()}
    return await exact_prompts(dialogue, cast.domain, cast.source, profiles)


@pytest.mark.parametrize(
    "profile",
    [
        Profile(form="script", candidates=(1, 2)),
        Profile(form="chat", candidates=(1, 2)),
        Profile(form="script", history=1, examples=1, persona=False),
        Profile(form="chat", history=0, examples=0),
    ],
    ids=["script", "chat", "short script", "bare chat"],
)
async def test_every_prompt_is_the_one_that_was_sent(profile: Profile) -> None:
    for index in range(6):
        client = Scripted()
        cast = make_cast(kiosk(), client, profile=profile)
        dialogue = await played(cast, index)
        sent = {place(request)[0]: shown(request) for request in client.requests}
        assert len(sent) == len(dialogue.turns)
        assert await rendered(cast, dialogue) == sent


async def test_prompts_of_repairs_and_references() -> None:
    # In turn 1 the repair passes, in turn 2 nothing does and the reference speaks.
    answers: dict[tuple[int, int], list[str]] = {(1, 0): [BAD], (1, 1): [BAD, " ?"]}
    answers |= {(2, attempt): [" ..."] for attempt in range(3)}
    client = Scripted(answers)
    cast = make_cast(kiosk(), client)
    dialogue = await played(cast, index_of("ask"))
    assert [turn.source for turn in dialogue.turns[1:3]] == ["repair", "reference"]
    last = {place(request)[0]: shown(request) for request in client.requests}
    assert "(Mind: " in last[1]
    assert await rendered(cast, dialogue) == last


async def test_prompts_whose_history_and_examples_were_left_out() -> None:
    lengths: set[Any] = set()
    for window in (0, 380, 330, 260):
        client = Scripted()
        profile = Profile(form="script", max_tokens=20, examples=2)
        keys: dict[str, Any] = {"profile": profile, "window": window, "takes": "tokens"}
        cast = make_cast(kiosk(), Telling(client), tokenizer=Letters(), **keys)
        dialogue = await played(cast, 0)
        sent = {place(request)[0]: spaces(request) for request in client.requests}
        assert await rendered(cast, dialogue) == sent
        lengths.add(sum(map(len, sent.values())))
    assert len(lengths) == 4


async def test_a_prompt_that_cannot_be_rendered_again_is_not_passed_off_as_exact() -> None:
    cast = make_cast(kiosk(), Scripted())
    dialogue = await played(cast, 0)
    other = Profile(form="script", examples=0, history=1)
    profiles = dict.fromkeys(cast.seats, other)
    prompts = await exact_prompts(dialogue, cast.domain, cast.source, profiles)
    unsure = [index for index, prompt in prompts.items() if prompt.startswith(UNSURE)]
    assert len(unsure) > 1
    cut = replace(dialogue, turns=dialogue.turns[:2])
    assert set(await rendered(cast, cut)) == {0, 1}


async def test_a_record_is_followed_however_edges_are_drawn_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = Scripted()
    cast = make_cast(kiosk(), client)
    dialogue = await played(cast, 0)
    sent = {place(request)[0]: shown(request) for request in client.requests}
    monkeypatch.setattr(Scene, "draw_edge", lambda scene: None)
    assert await rendered(cast, dialogue) == sent
