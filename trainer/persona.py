"""Does somebody speak as this persona, and not as another? Measured by words, with chance at 0.5.

What it is worth (`tests/bench/test_personas.py`): it cannot tell yet, and neither can embeddings;
hence no filter may use it (`trainer.filters`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from specs.words import Vocabulary, content_words


def coverage(persona: str, texts: Sequence[str]) -> float | None:
    """Return the share of a persona's content words that texts hold.

    None where there is no text, or the persona has no such words.
    """
    return _share(persona, Vocabulary(texts)) if texts else None


def rank(persona: str, others: Iterable[str], texts: Sequence[str]) -> float | None:
    """Return the share of other personas of whose words texts hold less; equals count half.

    None where there is no text, or no other persona with words.
    """
    said = Vocabulary(texts)
    own = _share(persona, said) if texts else None
    if own is None:
        return None
    found = (_share(other, said) for other in others if other != persona)
    beside = [other for other in found if other is not None]
    if not beside:
        return None
    return sum((own > other) + 0.5 * (own == other) for other in beside) / len(beside)


def _share(persona: str, said: Vocabulary) -> float | None:
    wanted = _words(persona)
    return sum(word in said for word in wanted) / len(wanted) if wanted else None


@lru_cache(maxsize=4096)
def _words(persona: str) -> frozenset[str]:
    return frozenset(content_words(persona))
