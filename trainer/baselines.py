"""Opponents that need no model: the most frequent intent, and what mostly follows the last one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from specs.agent_format import Understanding, learned, read_understanding
from trainer.evaluation import ChatDialogue, Prediction, predicted, tasks


@dataclass(frozen=True, slots=True)
class Habits:
    """How often each intent follows which, in the training dialogues.

    Attributes:
        after: counts by the intent of the user's turn before; None before the first.
    """

    overall: Counter[str]
    after: Mapping[str | None, Counter[str]]

    @classmethod
    def of(cls, dialogues: Iterable[ChatDialogue]) -> Habits:
        """Count the understandings of dialogues."""
        overall: Counter[str] = Counter()
        after: dict[str | None, Counter[str]] = {}
        for dialogue in dialogues:
            before: str | None = None
            for piece in learned(dialogue.messages):
                heard = read_understanding(piece.text) if piece.kind == "understanding" else None
                if heard is not None:
                    overall[heard.intent] += 1
                    after.setdefault(before, Counter())[heard.intent] += 1
                    before = heard.intent
        return cls(overall, after)

    def majority(self, before: str | None) -> str:
        """Return the most frequent intent; of equally frequent ones the first by name."""
        return _most(self.overall)

    def bigram(self, before: str | None) -> str:
        """Return the intent that most often follows `before`; the majority after a new one."""
        return _most(self.after.get(before) or self.overall)


def _most(counts: Counter[str]) -> str:
    return min(counts, key=lambda intent: (-counts[intent], intent), default="")


def guesses(
    dialogues: Iterable[ChatDialogue], guess: Callable[[str | None], str]
) -> list[Prediction]:
    """Return a guess for each understanding, given the gold intent of the user's turn before."""
    found: list[Prediction] = []
    walk_id, before = "", None
    for task in tasks(dialogues):
        if task.piece.kind != "understanding":
            continue
        if task.dialogue.walk_id != walk_id:
            walk_id, before = task.dialogue.walk_id, None
        found.append(predicted(task, Understanding(guess(before)).written()))
        heard = read_understanding(task.piece.text)
        before = heard.intent if heard else None
    return found
