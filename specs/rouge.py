"""ROUGE-L in any script: how much of one text stands in another, in the same order."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import LCSseq

from specs.words import words


def rouge_l(hypothesis: str, reference: str) -> float:
    """Return ROUGE-L's F1 in [0, 1]: of the longest common subsequence of words (Lin, 2004).

    Words are those of `specs.words`, normalized and not stemmed; 0 where either text has none.
    """
    return rouge_l_words(words(hypothesis), words(reference))


def recall_l(hypothesis: str, reference: str) -> float:
    """Return ROUGE-L's recall in [0, 1]: the share of the reference's words that are held."""
    held = words(reference)
    return LCSseq.similarity(words(hypothesis), held) / len(held) if held else 0.0


def rouge_l_words(hypothesis: Sequence[str], reference: Sequence[str]) -> float:
    """Return the same for texts that are words already."""
    if not hypothesis or not reference:
        return 0.0
    common = LCSseq.similarity(hypothesis, reference)
    return 2 * common / (len(hypothesis) + len(reference))
