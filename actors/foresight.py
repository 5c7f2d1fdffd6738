"""What a run will ask of its engines, foreseen from a few dialogues played with references.

The dialogues are played through the same code as real ones, with the real prompts and, where the
model's tokenizer is at hand, its tokens; nothing is asked of a model. What a model does worse than
the references (more candidates, longer answers) is not foreseen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from actors.cast import Cast
from actors.conversation import Conversation
from actors.dry_run import Drawn, DrySeat
from actors.retrieval.sampled import SampledTools
from actors.single_prompt import SinglePrompt
from specs.domain import Domain, Side
from specs.engine import EngineInfo
from specs.engine_section import EngineSection
from specs.errors import DuologueError
from specs.plan import PlanSource, make_plan

LETTERS = 4.0
"""Letters a token, of English under the usual vocabularies; for models whose tokenizer is away."""

DIALOGUES = 24


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What one side asks of its engine in a dialogue, on average.

    Attributes:
        exact: counted by the model's own tokenizer, not by letters.
    """

    requests: float
    prompt_tokens: float
    completion_tokens: float
    exact: bool


class LetterTokenizer:
    """Stands for a tokenizer that cannot be loaded here: so many letters a token."""

    def encode(self, text: str, **options: Any) -> list[int]:
        """Return as many ids as the text may have tokens."""
        return [0] * math.ceil(len(text) / LETTERS)

    def apply_chat_template(self, conversation: Any, **options: Any) -> list[int]:
        """Return as many ids as the messages, each with its marks, may have tokens."""
        return [0] * sum(4 + len(self.encode(one["content"])) for one in conversation)


async def foresee(
    domain: Domain,
    source: PlanSource,
    engines: Mapping[Side, EngineSection],
    tokenizers: Mapping[Side, Any],
    max_turns: int,
    dialogues: int = DIALOGUES,
) -> dict[Side, Foreseen]:
    """Return what each side asks of its engine in a dialogue of this run.

    Dialogues of free talk are foreseen as walks.

    Args:
        engines: of each side.
        tokenizers: of each side; None where it cannot be loaded.
        max_turns: of a dialogue.
        dialogues: played, from the first index on.

    Raises:
        DuologueError: none of them could be played.
    """
    seats = {side: _seat(engine, tokenizers.get(side)) for side, engine in engines.items()}
    alone = source.policy == "single_prompt"
    cast = Cast(
        domain=domain,
        source=source if alone else replace(source, policy="walk"),
        run="plan",
        seats=seats,
        caller=Drawn(SampledTools(domain)),
        max_turns=max_turns,
    )
    played = 0
    errors: list[DuologueError] = []
    for index in range(dialogues):
        try:
            plan = make_plan(domain, source, index)
            await (SinglePrompt(cast, plan, 1) if alone else Conversation(cast, plan)).play()
            played += 1
        except DuologueError as error:
            errors.append(error)
    if not played:
        raise errors[0]
    exact = {side: tokenizers.get(side) is not None for side in engines}
    return {side: _mean(seat, played, exact[side]) for side, seat in seats.items()}


def _seat(engine: EngineSection, tokenizer: Any) -> DrySeat:
    info = EngineInfo(engine.model, "references", 0, engine.max_running)
    return DrySeat.of(info, engine.profile, tokenizer or LetterTokenizer())


def _mean(seat: DrySeat, dialogues: int, exact: bool) -> Foreseen:
    assert seat.tokenizer is not None
    written = sum(len(seat.tokenizer.encode(one, add_special_tokens=False)) for one in seat.said)
    return Foreseen(
        len(seat.said) / dialogues, sum(seat.lengths) / dialogues, written / dialogues, exact
    )


def total(foreseen: Iterable[Foreseen]) -> Foreseen:
    """Return the sum of what several sides ask of one engine."""
    all_ = list(foreseen)
    return Foreseen(
        sum(one.requests for one in all_),
        sum(one.prompt_tokens for one in all_),
        sum(one.completion_tokens for one in all_),
        all(one.exact for one in all_),
    )
