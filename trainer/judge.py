"""A judge's rating of an answer: what it is asked, and how its word is read."""

from __future__ import annotations

import json
from collections.abc import Sequence

from specs.agent_format import ChatMessage, pieces
from specs.engine import Message

RATINGS = (1, 2, 3, 4, 5)

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"rating": {"enum": list(RATINGS)}},
        "required": ["rating"],
        "additionalProperties": False,
    }
)
"""The form of its answer, as JSON text."""

MAX_TOKENS = 16

_TASK = """\
You rate the answers of an assistant, from 1 (useless or wrong) to 5 (just right). A good answer \
fits what the user wants, is true to the results shown, and reads naturally. \
Write {"rating": NUMBER} and nothing else."""

_SHOWN = 8
"""Messages before the answer that the judge sees."""

_NAMES = {"user": "User", "assistant": "Assistant", "tool": "Results"}


def rating_messages(before: Sequence[ChatMessage], answer: str) -> tuple[Message, ...]:
    """Return the chat that asks a judge to rate an answer behind these messages."""
    lines = [
        f"{_NAMES[message.role]}: {text}"
        for message in before[-_SHOWN:]
        if message.role != "system" and (text := _said(message))
    ]
    shown = "\n".join([*lines, f"Answer to rate: {answer}"])
    return (Message("system", _TASK), Message("user", shown))


def _said(message: ChatMessage) -> str:
    """Return a message without what the agent wrote for itself."""
    if message.role != "assistant":
        return message.content
    user = ChatMessage("user", "")  # so that an understanding is known for one
    return "\n".join(one.text for one in pieces([user, message]) if one.kind == "answer")


def read_rating(text: str) -> float | None:
    """Return the rating that a judge wrote; None where it wrote none."""
    try:
        rating = json.loads(text)["rating"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if isinstance(rating, bool) or rating not in RATINGS:
        return None
    return float(rating)
