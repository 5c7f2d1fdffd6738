"""Which edge did a free reply take? Three managers answer, behind one interface.

Invariants: a verdict depends on the reply, the open edges' references and the manager alone; what
is less like every reference than the manager's threshold takes no edge, and of equals the first
wins. Nothing is asked of a model but a number.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Protocol

from actors.laps import answered
from actors.prompts import Prompt, flat
from actors.seat import Seat, request
from specs.engine import Message
from specs.errors import RetrievalError, Unavailable
from specs.records import dump_json
from specs.rouge import rouge_l
from specs.run_file import PolicySection

ROUGE = 0.33
"""Least ROUGE-L of a reply and a reference: the threshold of Ulmer et al. (2024)."""

COSINE = 0.25
"""Least cosine of a reply and a reference (all-MiniLM-L6-v2; `tests/bench/test_managers.py`)."""

_NONE = "something else"
_MAX_TOKENS = 8

KEPT = 20_000
"""References whose vectors are kept, 1.5 KB each."""

Embed = Callable[[tuple[str, ...]], Awaitable[Any]]
"""From texts to one normalized row each."""


@dataclass(frozen=True, slots=True)
class Option:
    """An open edge, by its number, and how people put what it stands for.

    Attributes:
        edge: None for what is known to take none.
    """

    edge: int | None
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """A free reply and what it may mean.

    Attributes:
        id: of the request, where a model is asked.
        priority: of its dialogue: lower goes first.
        heard: what was said before it.
        names: of the side that was heard and of the one that replied.
    """

    id: str
    priority: int
    reply: str
    heard: str
    names: tuple[str, str]
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reply means.

    Attributes:
        edge: the number of the edge; None when it fits none.
        text: the reference that it is most like; empty where a model chose, or nothing fits.
        score: how much, in [0, 1]; of a model's choice None.
        tokens: that it cost.
    """

    edge: int | None
    text: str = ""
    score: float | None = None
    tokens: int = 0


class Manager(Protocol):
    """Finds the edge that a reply takes."""

    @property
    def kind(self) -> str:
        """Its name in a run file."""

    async def route(self, question: Question) -> Verdict:
        """Return the verdict on a reply; raises Unavailable when it cannot be had."""


@dataclass(frozen=True, slots=True)
class RougeManager:
    """Compares words in their order."""

    threshold: float = ROUGE
    kind: str = "rouge"

    async def route(self, question: Question) -> Verdict:
        """Return the edge of the reference with the greatest ROUGE-L."""
        scores = [rouge_l(question.reply, text) for _, text in _pairs(question)]
        return _best(question, scores, self.threshold)


@dataclass(slots=True)
class EmbeddingManager:
    """Compares meanings. References come again and again: their vectors are kept."""

    embed: Embed
    threshold: float = COSINE
    kind: str = "embedding"
    _known: dict[str, Any] = field(default_factory=dict)

    async def route(self, question: Question) -> Verdict:
        """Return the edge of the reference with the greatest cosine; raises Unavailable."""
        texts = [text for _, text in _pairs(question)]
        if not texts:
            return Verdict(None)
        new = tuple(dict.fromkeys(text for text in texts if text not in self._known))
        vectors = await self._vectors((question.reply, *new))
        if len(self._known) + len(new) > KEPT:
            self._known.clear()
        self._known.update(zip(new, vectors[1:], strict=True))
        missing = tuple(text for text in texts if text not in self._known)
        if missing:
            self._known.update(zip(missing, await self._vectors(missing), strict=True))
        scores = [float(self._known[text] @ vectors[0]) for text in texts]
        return _best(question, scores, self.threshold)

    async def _vectors(self, texts: tuple[str, ...]) -> Any:
        try:
            return await self.embed(texts)
        except RetrievalError as error:  # the store's failure, and not the dialogue's
            raise Unavailable(str(error)) from error


@dataclass(frozen=True, slots=True)
class ModelManager:
    """Lets a model choose among the edges' first references and none of them, greedily."""

    seat: Seat
    kind: str = "model"

    async def route(self, question: Question) -> Verdict:
        """Return the edge that the model names; raises Unavailable."""
        if not question.options:
            return Verdict(None)
        seat = self.seat
        prompt = choice_prompt(question, seat.profile.form)
        sampling = replace(
            seat.sampling(prompt, 0, 1, max_tokens=_MAX_TOKENS), temperature=0.0, min_p=0.0
        )
        tokens: Sequence[int] = ()
        if seat.tokenizer is not None:
            tokens = await asyncio.to_thread(seat.encode, prompt)
        asked = request(seat, question.id, prompt, sampling, tokens, (), question.priority)
        began = perf_counter()
        try:
            answer = await seat.client.ask(asked, question.id)
        finally:  # no two questions begin alike: there is no cache to come back to
            seat.client.release(question.id)
        answered(answer, began)
        if answer.failure is not None:
            if answer.failure.permanent:
                return Verdict(None)
            late = answer.failure.kind == "deadline"
            raise Unavailable(f"the manager {seat.info.model}: {answer.failure.message}", late)
        place = _number(answer.candidates[0].text)
        edge = question.options[place - 1].edge if 0 < place <= len(question.options) else None
        return Verdict(edge, tokens=answer.completion_tokens)


def choice_prompt(question: Question, form: str) -> Prompt:
    """Return the prompt that asks for the number of what a reply means; 0 is none of it."""
    before, speaker = question.names
    lines = [f"{before}: {flat(question.heard)}"] if question.heard else []
    lines += [f"{speaker}: {flat(question.reply)}", "", f"What does the {speaker} mean?"]
    lines += [f"{n}. {flat(one.texts[0])}" for n, one in enumerate(question.options, start=1)]
    lines.append(f"0. {_NONE}")
    schema = dump_json({"type": "integer", "enum": list(range(len(question.options) + 1))})
    if form == "script":
        return Prompt(text="\n".join([*lines, "The number is"]), schema=schema, stop=("\n",))
    told = "Answer with the number of what is meant, and nothing else."
    return Prompt(messages=(Message("user", "\n".join([*lines, "", told])),), schema=schema)


def _number(text: str) -> int:
    try:
        found = json.loads(text.strip())
    except (ValueError, RecursionError):
        return 0
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def _pairs(question: Question) -> list[tuple[int | None, str]]:
    return [(option.edge, text) for option in question.options for text in option.texts]


def _best(question: Question, scores: Sequence[float], threshold: float) -> Verdict:
    pairs = _pairs(question)
    if not pairs:
        return Verdict(None)
    place = max(range(len(pairs)), key=lambda one: (scores[one], -one))
    edge, text = pairs[place]
    score = round(min(max(scores[place], 0.0), 1.0), 4)
    if score < threshold:
        return Verdict(None, score=score)
    return Verdict(edge, text, score)


def make_manager(section: PolicySection, embed: Embed, seat: Seat | None) -> Manager:
    """Return the manager that a run file names.

    Args:
        seat: of `roles.manager`; needed where a model manages.
    """
    if section.manager == "model":
        assert seat is not None
        return ModelManager(seat)
    if section.manager == "rouge":
        return RougeManager(ROUGE if section.threshold is None else section.threshold)
    return EmbeddingManager(embed, COSINE if section.threshold is None else section.threshold)
