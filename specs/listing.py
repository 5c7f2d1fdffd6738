"""What a text says of a list: in which order it names the items, and which numbers it gives them.

Only items with a title are told apart, as results are, of which "the second one" chooses: each by
the words of its title that no other has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from specs.words import content_words, is_number, sentences, vocabulary, words


class Listing:
    """Items to be listed, as a check's argument or a record gives them."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items
        self._own = _own_words(items)
        self._known = [vocabulary(" ".join(own)) for own in self._own]

    def told(self, text: str) -> list[float]:
        """Return which share of an item's own words a text holds; 1 for one that has none.

        What two titles have in common may have been said of the other.
        """
        spoken = vocabulary(text)
        return [sum(word in spoken for word in own) / len(own) if own else 1.0 for own in self._own]

    def order(self, text: str) -> list[int]:
        """Return the numbers (from 0) of the items that a text names, as it names them.

        An item whose title has no word of its own is left out, and so is whatever has no title.
        """
        spoken = words(text)
        places = []
        for number, own in enumerate(self._known):
            place = next((i for i, word in enumerate(spoken) if word in own), None)
            if place is not None:
                places.append((place, number))
        return [number for _, number in sorted(places)]

    def misplaced_number(self, text: str) -> bool:
        """Whether a number behind an item's title, in its sentence, is neither its own nor a place.

        Grounding takes a number for known that belongs to another item of the material. A number
        of a title is no item's number.
        """
        for sentence in sentences(text):
            current: int | None = None
            for word in words(sentence):
                if is_number(word):
                    if current is not None and not self._may_follow(word, current):
                        return True
                    continue
                current = next((i for i, own in enumerate(self._known) if word in own), current)
        return False

    def _may_follow(self, number: str, index: int) -> bool:
        """Whether a number may stand behind an item: its own, its place, the next one's, a title's.

        Args:
            index: the item's, from 0.
        """
        if number in (str(index + 1), str(index + 2)):
            return True
        if any(number in words(str(value)) for value in self._items[index].values()):
            return True
        return any(number in words(title_of(item)) for item in self._items)


def title_of(item: Any) -> str:
    """Return what an item is called; nothing where it has no title."""
    return str(item.get("title", item.get("name", ""))) if isinstance(item, Mapping) else ""


def _own_words(items: Sequence[Any]) -> list[list[str]]:
    if not all(isinstance(item, Mapping) for item in items):
        return [[] for _ in items]
    titles = [content_words(title_of(item)) for item in items]
    own = []
    for number, title in enumerate(titles):
        others = vocabulary(*(" ".join(one) for i, one in enumerate(titles) if i != number))
        own.append([word for word in title if word not in others])
    return own
