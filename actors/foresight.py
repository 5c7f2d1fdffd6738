"""What a run will ask of its engines, foreseen from a few dialogues played with references.

The dialogues are played through the same code as real ones, with the real prompts and, where the
model's tokenizer is at hand, its tokens; nothing is asked of a model. What a model does worse than
the references (more candidates, longer answers) is not foreseen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from actors.cast import Cast
from actors.conversation import Conversation
from actors.preflight import Drawn
from actors.retrieval.sampled import SampledTools
from actors.seat import Seat
from actors.single_prompt import SinglePrompt
from specs.domain import Domain, Side
from specs.engine import Answer, Candidate, EngineInfo, Request
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


@dataclass(slots=True)
class _Counts:
    requests: int = 0
    prompt: int = 0
    completion: int = 0


class _Counting:
    """A client that answers with a reference, and counts its tokens."""

    def __init__(self, tokenizer: Any, counts: _Counts) -> None:
        self._tokenizer, self._counts = tokenizer, counts

    async def ask(self, request: Request, dialogue: Any) -> Answer:
        if not request.references:
            return Answer(request.id)
        text = request.references[0]
        self._counts.requests += 1
        tokens = len(self._tokenizer.encode(text, add_special_tokens=False))
        self._counts.completion += tokens
        return Answer(request.id, (Candidate(text, "stop", tokens),))

    def release(self, dialogue: Any) -> None:
        """There is nothing to forget."""


@dataclass(frozen=True, slots=True)
class _CountingSeat(Seat):
    """A seat that counts the tokens of each prompt it encodes."""

    counts: _Counts = field(default_factory=_Counts)

    def encode(self, prompt: Any) -> list[int]:
        tokens = Seat.encode(self, prompt)
        self.counts.prompt += len(tokens)
        return tokens


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
    counts: dict[Side, _Counts] = {side: _Counts() for side in engines}
    seats: dict[Side, Seat] = {
        side: _seat(engine, tokenizers.get(side), counts[side]) for side, engine in engines.items()
    }
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
    return {side: _mean(counts[side], played, exact[side]) for side in engines}


def _seat(engine: EngineSection, tokenizer: Any, counts: _Counts) -> Seat:
    tokenizer = tokenizer if tokenizer is not None else LetterTokenizer()
    return _CountingSeat(
        client=_Counting(tokenizer, counts),
        info=EngineInfo(engine.model, "references", 0, engine.max_running),
        profile=engine.profile,
        tokenizer=tokenizer,
        counts=counts,
    )


def _mean(counts: _Counts, dialogues: int, exact: bool) -> Foreseen:
    return Foreseen(
        counts.requests / dialogues, counts.prompt / dialogues, counts.completion / dialogues, exact
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
