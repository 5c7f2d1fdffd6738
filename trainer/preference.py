"""Preference pairs from rejected candidates: what the agent wrote, beside what a check refused.

Only the agent's turns count (the trained agent never writes the user's), and of them only those
whose chosen words are the model's own: a reference beats a candidate by its author, not by its
worth. Pairs stand in the format of `specs.agent_format`: where an understanding stands before the
answer in one message, both sides of the pair begin with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from specs.agent_format import ChatMessage, pieces
from trainer.measures import OWN


@dataclass(frozen=True, slots=True)
class Answered:
    """One turn of the agent: its number, its words, where they came from, what was refused."""

    turn: int
    text: str
    source: str
    rejected: Sequence[str]


@dataclass(frozen=True, slots=True)
class Preference:
    """One pair, behind the messages before it."""

    turn: int
    prompt: Sequence[ChatMessage]
    chosen: str
    rejected: str


def preferences(
    messages: Sequence[ChatMessage], answers: Sequence[Answered]
) -> Iterator[Preference]:
    """Yield the pairs of one dialogue.

    Args:
        messages: of the dialogue, as the agent is trained on them.
        answers: the agent's turns in order. Several in a row may stand in one message, line by
            line; from the first on that the messages do not hold, none is used.
    """
    rest = list(answers)
    for piece in pieces(messages):
        if piece.kind != "answer":
            continue
        said, left = piece.prefix, piece.text
        while left and rest and left.startswith(rest[0].text) and rest[0].text:
            answer = rest.pop(0)
            for refused in _worth(answer) if messages[piece.message].train else ():
                yield Preference(
                    answer.turn, messages[: piece.message], said + answer.text, said + refused
                )
            said += answer.text + "\n"
            left = left[len(answer.text) :].removeprefix("\n")
        if left:
            return


def _worth(answer: Answered) -> Iterator[str]:
    """Yield the refused candidates that say something else than the chosen one, each once."""
    if answer.source not in OWN:
        return
    seen = {_plain(answer.text), ""}
    for refused in answer.rejected:
        if _plain(refused) not in seen:
            seen.add(_plain(refused))
            yield refused.strip()


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
