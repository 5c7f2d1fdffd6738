"""What the trained agent reads and writes: the one format of training, evaluation and serving.

A dialogue is a chat. The system message says what the agent is for, which intents and tools there
are, and how it answers. For each of the user's turns the agent writes, in this order, the *pieces*

1. its understanding, one line of JSON: `{"intent": "select", "slots": {"option": 2}}`,
2. where the state calls a tool, the call, one line of JSON: `{"call": "search", "arguments": {}}`,
3. its answer, plain words.

What comes back of a call, and the facts that a state speaks from, stand in a message of the role
`tool` (one object of JSON) between the pieces, so that messages alternate. An understanding that
nothing comes back to stands in one message with the answer. An agent that opens the dialogue
answers without an understanding. What the agent has misheard, and the user then corrects, is a
message on which no loss falls: it is context, and neither learned nor asked for in an evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from specs.records import dump_json

ChatRole = Literal["system", "user", "assistant", "tool"]
PieceKind = Literal["understanding", "call", "answer"]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message; `train`: whether loss falls on it (on all that the agent writes)."""

    role: ChatRole
    content: str
    train: bool = False


@dataclass(frozen=True, slots=True)
class Understanding:
    """What the agent takes the user's words for."""

    intent: str
    slots: Mapping[str, Any] = field(default_factory=dict)

    def written(self) -> str:
        """Return it as the agent writes it."""
        return dump_json({"intent": self.intent, "slots": dict(self.slots)})


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool."""

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def written(self) -> str:
        """Return it as the agent writes it."""
        return dump_json({"call": self.tool, "arguments": dict(self.arguments)})


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of what the agent wrote.

    Attributes:
        message: the index of its message.
        prefix: what stands before it in the same message, with the line's end.
    """

    kind: PieceKind
    message: int
    prefix: str
    text: str


def read_understanding(line: str) -> Understanding | None:
    """Return the understanding that a line holds; None when it is none."""
    data = _object(line)
    if data is None or not isinstance(data.get("intent"), str):
        return None
    slots = data.get("slots", {})
    return Understanding(data["intent"], slots) if isinstance(slots, dict) else None


def read_call(line: str) -> ToolCall | None:
    """Return the call that a line holds; None when it is none."""
    data = _object(line)
    if data is None or not isinstance(data.get("call"), str):
        return None
    arguments = data.get("arguments", {})
    return ToolCall(data["call"], arguments) if isinstance(arguments, dict) else None


def _object(line: str) -> dict[str, Any] | None:
    line = line.strip()
    if not (line.startswith("{") and line.endswith("}")):
        return None
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def pieces(messages: Sequence[ChatMessage]) -> list[Piece]:
    """Return all that the agent wrote, piece by piece, in order.

    An understanding is looked for behind a user's message, a call in any of the agent's, each on
    a line of its own; the rest is the answer.
    """
    found: list[Piece] = []
    for number, message in enumerate(messages):
        if message.role != "assistant":
            continue
        heard = number > 0 and messages[number - 1].role == "user"
        found += _pieces(number, message.content, heard)
    return found


def split_turns(
    messages: Sequence[ChatMessage],
) -> tuple[list[ChatMessage], list[list[ChatMessage]]]:
    """Return the system message and the turns; all but perhaps the first begin with the user."""
    system = [message for message in messages[:1] if message.role == "system"]
    turns: list[list[ChatMessage]] = []
    for message in messages[len(system) :]:
        if message.role == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return system, turns


def learned(messages: Sequence[ChatMessage]) -> list[Piece]:
    """Return the pieces that the agent is to write by itself: those that loss falls on."""
    return [piece for piece in pieces(messages) if messages[piece.message].train]


def _pieces(number: int, content: str, heard: bool) -> list[Piece]:
    found: list[Piece] = []
    prefix, rest = "", content
    kinds: list[PieceKind] = ["understanding", "call"] if heard else ["call"]
    for kind in kinds:
        line, end, after = rest.partition("\n")
        read = read_understanding if kind == "understanding" else read_call
        if read(line) is None:
            continue
        found.append(Piece(kind, number, prefix, line))
        prefix, rest = prefix + line + end, after
    if rest.strip():
        found.append(Piece("answer", number, prefix, rest))
    return found
