"""Before the first dialogue: do the domain's prompts fit the windows of the engines?

A few plans are played with the domain's own references and drawn documents, through the same code
that plays the real ones, with the real tokenizers; what the prompts need without any history has
to fit, since history is left out as the window demands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from actors.cast import Cast
from actors.conversation import Conversation
from actors.dry_run import Drawn, DrySeat
from actors.retrieval.sampled import SampledTools
from actors.seat import Seat
from specs.domain import Side
from specs.errors import DuologueError, Finding, InputError, Where
from specs.plan import make_plan
from specs.records import StopReason

PLANS = 12


@dataclass(frozen=True, slots=True)
class PromptNeed:
    """What one side's prompts need: tokens of the longest without history, and the mean."""

    longest: int
    mean: float
    turns: int


_FINE = frozenset({StopReason.ENDED, StopReason.TURN_LIMIT, StopReason.GAVE_UP})


async def measure_prompts(cast: Cast, plans: int = PLANS) -> dict[Side, PromptNeed]:
    """Return what each side's prompts need, over a few plans (engines that take tokens only).

    Raises:
        InputError: when no dialogue of the domain comes to an end, with what stopped them.
    """
    seats = {side: _dry(seat) for side, seat in cast.seats.items()}
    rehearsal = Cast(
        domain=cast.domain,
        source=replace(cast.source, policy="walk"),
        run=cast.run,
        seats=seats,
        caller=Drawn(SampledTools(cast.domain)),
        max_turns=cast.max_turns,
    )
    errors: list[str] = []
    for index in range(plans):
        try:
            plan = make_plan(cast.domain, cast.source, index)
            dialogue = await Conversation(rehearsal, plan).play()
        except DuologueError as error:
            errors.append(str(error))
            continue
        if dialogue.stop_reason not in _FINE:
            errors.append(f"{dialogue.stop_reason}: {dialogue.error}")
    if len(errors) == plans:
        where = Where(str(cast.domain.folder / "domain.yaml"))
        unique = list(dict.fromkeys(errors))[:5]
        raise InputError([Finding(where, f"no dialogue comes to an end: {e}") for e in unique])
    return {
        side: PromptNeed(max(lengths), sum(lengths) / len(lengths), len(lengths))
        for side, seat in seats.items()
        if (lengths := seat.lengths)
    }


def _dry(seat: Seat) -> DrySeat:
    info = replace(seat.info, takes="references", window=0)
    profile = seat.profile.model_copy(update={"history": 0})
    dry = DrySeat.of(info, profile, seat.tokenizer)
    return replace(dry, adapter=seat.adapter, encoder=seat.encoder, alone=True)


def check_windows(
    needs: Mapping[Side, PromptNeed], seats: Mapping[Side, Seat], engines: Mapping[Side, str]
) -> None:
    """Raise InputError for every side whose window is too small for the domain's prompts."""
    findings = []
    for side, need in needs.items():
        seat = seats[side]
        wanted = need.longest + seat.profile.max_tokens
        if seat.info.window and wanted > seat.info.window:
            findings.append(
                Finding(
                    Where(f"engines.{engines[side]}"),
                    f"the window of {seat.info.window} tokens is too small for the {side}'s "
                    f"prompts: the longest needs {need.longest} tokens without any history, and "
                    f"max_tokens = {seat.profile.max_tokens} more",
                    f"set engines.{engines[side]}.window to {wanted} or more, or show fewer "
                    f"examples (profile.examples = {seat.profile.examples})",
                )
            )
    if findings:
        raise InputError(findings)
