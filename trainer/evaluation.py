"""The agent asked, piece by piece, what it would have written: teacher-forced over test dialogues.

Invariants: every piece of every dialogue (understanding, call, answer) is one task, whose prompt is
all that stands before it in the gold dialogue, earlier pieces of the same message among it; every
task gets exactly one prediction, an empty one where the engine cannot answer; decoding is greedy.
Predictions come in the order of the tasks, whatever order the answers come in.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from specs.agent_format import (
    ChatMessage,
    Piece,
    PieceKind,
    learned,
    split_turns,
)
from specs.chat_template import OPENING
from specs.engine import Answer, Request, Sampling
from specs.errors import Unavailable
from specs.seeds import digest

Ask = Callable[[Request, str], Awaitable[Answer]]
"""Answers a request of a dialogue (`actors.engines.client.EngineClient.ask`)."""

LINE_KINDS = ("understanding", "call")
"""Pieces that end with their line."""

EXAMPLES_NOTE = (
    "The first {count} turns below are examples from other conversations; the conversation itself "
    "begins after them."
)


class Encoder(Protocol):
    """What is used of `specs.chat_template.ChatEncoder`."""

    def prompt(self, messages: Sequence[ChatMessage], prefix: str = "") -> list[int]:
        """Return the token ids before the agent writes on behind `prefix`."""


@dataclass(frozen=True, slots=True)
class ChatDialogue:
    """A row of a curated file."""

    walk_id: str
    messages: tuple[ChatMessage, ...]

    @property
    def user_turns(self) -> int:
        """How often the user speaks."""
        return sum(message.role == "user" for message in self.messages)


@dataclass(frozen=True, slots=True)
class Task:
    """One piece to be written.

    Attributes:
        turn: which of the user's turns it answers, from 1; 0 for an opening.
    """

    dialogue: ChatDialogue
    piece: Piece
    turn: int

    @property
    def id(self) -> str:
        """Its name, unique among the tasks of a test split."""
        return f"{self.dialogue.walk_id}:{self.piece.message}:{self.piece.kind}"

    @property
    def before(self) -> tuple[ChatMessage, ...]:
        """The messages before the piece's own."""
        return self.dialogue.messages[: self.piece.message]


def tasks(dialogues: Iterable[ChatDialogue]) -> Iterator[Task]:
    """Yield every piece of the dialogues in order that the agent is to write by itself."""
    for dialogue in dialogues:
        for piece in learned(dialogue.messages):
            before = dialogue.messages[: piece.message]
            yield Task(dialogue, piece, sum(message.role == "user" for message in before))


def chosen(dialogues: Sequence[ChatDialogue], turns: int | None, seed: int) -> list[ChatDialogue]:
    """Return whole dialogues with at most `turns` of the user's turns, drawn by `seed`.

    They are drawn until the next one would be too much (to look for one that fits would favour
    short dialogues), one at least; all for None. The order is that of the file.
    """
    if turns is None:
        return list(dialogues)
    drawn = sorted(range(len(dialogues)), key=lambda i: digest(seed, dialogues[i].walk_id))
    taken: list[int] = []
    count = 0
    for place in drawn:
        if taken and count + dialogues[place].user_turns > turns:
            break
        taken.append(place)
        count += dialogues[place].user_turns
    return [dialogues[place] for place in sorted(taken)]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a system wrote for a task.

    Attributes:
        finish_reason: `stop`, `length`, or why there is none: `overflow`, `refused`.
    """

    walk_id: str
    message: int
    turn: int
    kind: PieceKind
    gold: str
    predicted: str
    finish_reason: str = "stop"


def predicted(task: Task, text: str, finish_reason: str = "stop") -> Prediction:
    """Return a prediction for a task."""
    piece = task.piece
    walk_id = task.dialogue.walk_id
    return Prediction(
        walk_id, piece.message, task.turn, piece.kind, piece.text.strip(), text, finish_reason
    )


# -- prompts


@dataclass(frozen=True, slots=True)
class System:
    """Who is asked, and how.

    Attributes:
        adapter: the folder that requests name; empty for the base model.
        examples: turns of training dialogues that are shown before each dialogue.
        schemas: JSON schemas by kind of piece, for a model that does not know the format.
    """

    name: str
    adapter: str = ""
    examples: tuple[tuple[ChatMessage, ...], ...] = ()
    schemas: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Prompts:
    """Prompts that fit the window: the oldest turns go first, then the examples.

    Attributes:
        cut: how many prompts have lost turns; `dropped`: how many turns.
    """

    encoder: Encoder
    window: int
    examples: Sequence[Sequence[ChatMessage]] = ()
    cut: int = 0
    dropped: int = 0

    def tokens(
        self, before: Sequence[ChatMessage], prefix: str, max_tokens: int
    ) -> list[int] | None:
        """Return a prompt; None when not even the last turn fits beside `max_tokens`.

        Args:
            before: the messages before the agent's.
            prefix: what the agent has written of its message.
        """
        head, turns = split_turns(before)
        fewer = len(self.examples)
        while True:
            found = self._fitting(head, turns, prefix, self.examples[:fewer], max_tokens)
            if found is not None or not fewer:
                return found
            fewer //= 2

    def _fitting(
        self,
        head: Sequence[ChatMessage],
        turns: Sequence[Sequence[ChatMessage]],
        prefix: str,
        examples: Sequence[Sequence[ChatMessage]],
        max_tokens: int,
    ) -> list[int] | None:
        def ids(drop: int) -> list[int]:
            messages = [*with_examples(head, examples), *_joined(turns[drop:], bool(examples))]
            return self.encoder.prompt(messages, prefix)

        def fits(drop: int) -> bool:
            return len(ids(drop)) + max_tokens <= self.window

        most = max(1, len(turns))
        drop = 0 if fits(0) else bisect_left(range(most), True, lo=1, key=fits)
        if drop == most:
            return None
        self.cut += drop > 0
        self.dropped += drop
        return ids(drop)


def with_examples(
    system: Sequence[ChatMessage], examples: Sequence[Sequence[ChatMessage]]
) -> list[ChatMessage]:
    """Return the head of a prompt: the system message, saying so, and the examples' turns."""
    if not examples:
        return list(system)
    note = EXAMPLES_NOTE.format(count=len(examples))
    head = [replace(one, content=f"{one.content}\n{note}") for one in system]
    return [*(head or [ChatMessage("system", note)]), *(m for one in examples for m in one)]


def _joined(turns: Sequence[Sequence[ChatMessage]], examples: bool) -> list[ChatMessage]:
    messages = [message for turn in turns for message in turn]
    if examples and messages and messages[0].role == "assistant":
        messages.insert(0, ChatMessage("user", OPENING))
    return messages


# -- asking


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the asking.

    Attributes:
        max_tokens: by kind of piece.
        at_once: requests under way at any time.
    """

    max_tokens: Mapping[str, int]
    at_once: int
    deadline_s: float = 120.0


PATIENCE = (2, 4)
"""How much longer a late answer is waited for, asked again: one of them would cost all others."""


def greedy(kind: PieceKind, max_tokens: int, schema: str | None = None) -> Sampling:
    """Return how a piece is decoded: the likeliest words, to the line's end where it is a line."""
    stop = ("\n",) if kind in LINE_KINDS else ()
    return Sampling(max_tokens=max_tokens, seed=0, temperature=0.0, stop=stop, schema=schema)


async def ask_all(
    todo: Iterable[Task],
    system: System,
    prompts: Prompts,
    ask: Ask,
    limits: Limits,
    progress: Callable[[int], None] = lambda count: None,
) -> list[Prediction]:
    """Return a system's predictions for tasks, in their order.

    Args:
        progress: told how many tasks are done, after each.

    Raises:
        Unavailable: when the engine does not answer, or is late again and again; figures with holes
            would mean nothing.
    """
    source = enumerate(todo)
    found: dict[int, Prediction] = {}

    async def work() -> None:
        for number, task in source:
            found[number] = await _ask(task, system, prompts, ask, limits)
            progress(len(found))

    workers = [asyncio.ensure_future(work()) for _ in range(max(1, limits.at_once))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [found[number] for number in sorted(found)]


async def ask_patiently(ask: Ask, request: Request, dialogue: str) -> Answer:
    """Return the answer to a request, asked again with longer deadlines while it is late."""
    answer = await ask(request, dialogue)
    for patience in PATIENCE:
        if answer.failure is None or answer.failure.kind != "deadline":
            break
        deadline_s = patience * request.deadline_s
        longer = replace(request, id=f"{request.id}:{patience}", deadline_s=deadline_s)
        answer = await ask(longer, dialogue)
    return answer


async def _ask(
    task: Task, system: System, prompts: Prompts, ask: Ask, limits: Limits
) -> Prediction:
    kind = task.piece.kind
    most = limits.max_tokens[kind]
    tokens = prompts.tokens(task.before, task.piece.prefix, most)
    if tokens is None:
        return predicted(task, "", "overflow")
    sampling = greedy(kind, most, system.schemas.get(kind))
    request = Request(
        id=f"{system.name}:{task.id}",
        sampling=sampling,
        tokens=tuple(tokens),
        deadline_s=limits.deadline_s,
        adapter=system.adapter,
    )
    answer = await ask_patiently(ask, request, task.dialogue.walk_id)
    if answer.failure is not None:
        if not answer.failure.permanent:
            raise Unavailable(f"{system.name}: {task.id}: {answer.failure.message}")
        return predicted(task, "", answer.failure.kind)
    best = answer.candidates[0]
    return predicted(task, best.text.strip(), best.finish_reason)
