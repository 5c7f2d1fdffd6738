"""What a free utterance says of a slot: its number, its option, or the value that it mentions.

Invariants: nothing is invented; a slot that nothing was said about keeps what was meant.
"""

from __future__ import annotations

from typing import Any

from specs.checks import mentions
from specs.domain import Slot
from specs.words import figures, find, words


def fill(slot: Slot, said: str, meant: Any) -> Any:
    """Return a slot's value as it was said.

    Args:
        meant: its value where the utterance says nothing of it; None where nobody knows. A text
            that was not said is not kept: what was said instead is all that there is.
    """
    spoken = words(said)
    if slot.one_of:
        named = [one for one in slot.one_of if find(words(str(one)), spoken) >= 0]
        return meant if not named or meant in named else named[0]
    if slot.type in ("integer", "number"):
        kind = int if slot.type == "integer" else float
        numbers = [kind(one) for one in figures(said) if _is(kind, one)]
        return meant if not numbers or meant in numbers else numbers[0]
    if slot.type == "text" and not (meant and mentions(said, meant)):
        return said
    return meant


def _is(kind: type[int] | type[float], text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True
