"""Dry runs: dialogues played with references, by the code that plays real ones; no engine is there.

What is said in one tells what prompts will be like and how many there will be, before any engine is
there; what models say is another matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from actors.prompts import Prompt
from actors.retrieval.sampled import SampledTools
from actors.seat import Seat
from specs.engine import Answer, Candidate, EngineInfo, Request
from specs.engine_section import Profile
from specs.scene import Calling, CallResult, Scene


class References:
    """A client that answers with a request's first reference.

    Args:
        said: takes what it answers.
    """

    def __init__(self, said: list[str]) -> None:
        self._said = said

    async def ask(self, request: Request, dialogue: str) -> Answer:
        """Return the reference; no candidate where there is none."""
        if not request.references:
            return Answer(request.id)
        self._said.append(request.references[0])
        return Answer(request.id, (Candidate(request.references[0], "stop", 0),))

    def release(self, dialogue: str) -> None:
        """There is nothing to forget."""


class Drawn:
    """Answers calls without a store."""

    def __init__(self, tools: SampledTools) -> None:
        self._tools = tools

    async def call(self, calling: Calling, scene: Scene) -> CallResult:
        """Return drawn documents, or the tool's drawn outcome."""
        return self._tools(calling, scene.scope())

    async def similarity(self, text: str, references: Sequence[str]) -> float:
        """Take everything for similar."""
        return 1.0


@dataclass(frozen=True, slots=True)
class DrySeat(Seat):
    """A seat whose engine says references.

    Attributes:
        lengths: tokens of each prompt that it has encoded.
        said: its answers.
        alone: of a conversation that a trained agent knows, only the last turn is shown.
    """

    lengths: list[int] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    alone: bool = False

    @classmethod
    def of(cls, info: EngineInfo, profile: Profile, tokenizer: Any) -> DrySeat:
        """Return the seat that stands for an engine's."""
        said: list[str] = []
        return cls(References(said), info, profile, tokenizer, said=said)

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the token ids of a prompt, and note how many they are."""
        if self.alone and prompt.learned is not None:
            prompt = replace(prompt, learned=prompt.learned.last())
        tokens = Seat.encode(self, prompt)
        self.lengths.append(len(tokens))
        return tokens
