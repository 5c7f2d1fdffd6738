"""How like a text is to references: by its words, or by its meaning.

Invariants: a likeness lies in [0, 1] and depends on the two texts and the model alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from specs.rouge import rouge_l_words
from specs.run_file import Subgoals
from specs.words import words
from trainer.vectors import Embed, Vectors

PUBLISHED = 0.33
"""ROUGE-L from which on an utterance counts for a subgoal in Ulmer et al. (2024)."""

THRESHOLDS: Mapping[str, float] = {"rouge": PUBLISHED, "embedding": 0.77}
"""The least likeness by which a reference names what was said, by measure (`duologue calibrate`).

Chosen on half of the human dialogues of STAR, measured on the others: cosine (all-MiniLM-L6-v2) is
best at 0.77, with F1 0.89 behind ROUGE-L's 0.94 at 0.33. ROUGE-L at 0.55 has 0.96 there, where most
turns are replies that were clicked; in the words of two models, whose states are known, it has 0.59
and 0.79, and 0.33 has 0.77 and 0.85. Hence the published threshold stays.
"""

EQUAL = 1e-6
"""Likenesses that differ by less are one."""

KEPT = 20_000
"""Texts whose vectors are kept, 1.5 KB each."""


class Alike(Protocol):
    """Compares a text with references."""

    def __call__(self, text: str, references: Sequence[str]) -> Sequence[float]:
        """Return how like it is to each."""

    def expect(self, texts: Sequence[str]) -> None:
        """Say which texts will come, so that they can be prepared together."""


class ByWords:
    """ROUGE-L."""

    def __call__(self, text: str, references: Sequence[str]) -> Sequence[float]:
        """Return how like it is to each."""
        spoken = words(text)
        return [rouge_l_words(spoken, words(one)) for one in references]

    def expect(self, texts: Sequence[str]) -> None:
        """Need no preparation."""


class ByMeaning:
    """Cosine of embeddings; what points away is no more unlike than what has nothing in common."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._known: dict[str, Vectors] = {}

    def __call__(self, text: str, references: Sequence[str]) -> Sequence[float]:
        """Return how like it is to each."""
        self.expect([text, *references])
        spoken = self._known[text]
        return [min(1.0, max(0.0, float(self._known[one] @ spoken))) for one in references]

    def expect(self, texts: Sequence[str]) -> None:
        """Embed those that are not known yet, at once."""
        if len(self._known) > KEPT:
            self._known.clear()
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self._embed(new), strict=True))


class SubgoalGauge:
    """What tells that an utterance speaks for a subgoal: a measure and its threshold."""

    def __init__(self, section: Subgoals, embed: Embed) -> None:
        self.alike: Alike = ByMeaning(embed) if section.measure == "embedding" else ByWords()
        given = section.threshold
        self.threshold = THRESHOLDS[section.measure] if given is None else given

    def named(
        self, text: str, references: Sequence[tuple[str, str]], others: Iterable[str] = ()
    ) -> set[str]:
        """Return whose reference a text is most like, where that is like enough.

        Args:
            references: names with a text each. Those that are equally near are all returned.
            others: what stands for no name; what is more like one of these has none. They are not
                looked at where no name is near enough.
        """
        scores = self.alike(text, [reference for _, reference in references])
        best = max(scores, default=0.0)
        if best < self.threshold or best <= 0:
            return set()
        nearer = best + EQUAL  # nothing is nearer than what is said word for word
        if nearer < 1 and max(self.alike(text, list(others)), default=0.0) > nearer:
            return set()
        pairs = zip(references, scores, strict=True)
        return {name for (name, _), score in pairs if score >= best - EQUAL}
