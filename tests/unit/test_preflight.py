"""Whether a domain's prompts fit the windows is known before any engine is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from actors.cast import Cast
from actors.dry_run import Drawn
from actors.foresight import LetterTokenizer
from actors.preflight import PromptNeed, check_windows, measure_prompts
from actors.retrieval.sampled import SampledTools
from actors.seat import Seat
from specs.domain import SIDES, Side
from specs.engine import EngineInfo
from specs.engine_section import Profile
from specs.errors import InputError
from specs.plan import PlanSource
from tests.unit.kiosk import kiosk

NOBODY: Any = None
"""Stands for the engines' client: nobody is asked."""


def cast(windows: dict[Side, int]) -> Cast:
    def seat(side: Side) -> Seat:
        info = EngineInfo("small", "tokens", windows[side], 8)
        return Seat(NOBODY, info, Profile(max_tokens=60), LetterTokenizer())

    return Cast(
        domain=kiosk(),
        source=PlanSource(3),
        run="tea",
        seats={side: seat(side) for side in SIDES},
        caller=Drawn(SampledTools(kiosk())),
        max_turns=20,
    )


def refusal(needs: dict[Side, PromptNeed], of: Cast) -> str:
    with pytest.raises(InputError) as refused:
        check_windows(needs, of.seats, dict.fromkeys(SIDES, "cpu"))
    return str(refused.value)


async def test_a_window_that_is_too_small_is_refused_with_the_one_that_would_do() -> None:
    small = cast({"user": 4096, "agent": 70})
    needs = await measure_prompts(small)
    assert set(needs) == set(SIDES)
    assert all(0 < need.mean <= need.longest for need in needs.values())
    wanted = needs["agent"].longest + 60
    said = refusal(needs, small)
    assert "the window of 70 tokens is too small for the agent's prompts" in said
    assert f"set engines.cpu.window to {wanted} or more" in said
    assert "user" not in said
    check_windows(needs, cast({"user": 4096, "agent": wanted}).seats, dict.fromkeys(SIDES, "cpu"))
    refusal(needs, cast({"user": 4096, "agent": wanted - 1}))


async def test_history_needs_no_room() -> None:
    """It is left out as the window demands."""
    of = cast(dict.fromkeys(SIDES, 4096))
    long = {
        side: replace(seat, profile=Profile(max_tokens=60, history=50))
        for side, seat in of.seats.items()
    }
    assert await measure_prompts(of) == await measure_prompts(replace(of, seats=long))
