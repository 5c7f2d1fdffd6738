"""Was it right? One piece that the agent wrote, held against the piece that it should have written.

Invariants: what does not parse, or names an unknown intent or tool, is wrong and is counted; text
is compared by its words in any script (`specs.words`), without special tokens; ids, numbers and
truth values are compared exactly, in their declared types; lists are compared as sets. A slot or
argument that is null is the same as one that is left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from specs.agent_format import (
    ChatMessage,
    PieceKind,
    Understanding,
    pieces,
    read_call,
    read_understanding,
)
from specs.domain import SlotType
from specs.records import dump_json
from specs.values import kind_of, typed
from specs.words import content_words, is_number, normalize, number_forms, vocabulary, words

UNPARSED = "(unparsed)"
UNKNOWN = "(unknown)"

_SMALL = {form: str(number) for number in range(21) for form in number_forms(number)}


@dataclass(frozen=True, slots=True)
class Card:
    """What the agent may write: intents with their slots' types, tools with their inputs' types."""

    intents: Mapping[str, Mapping[str, SlotType]] = field(default_factory=dict)
    tools: Mapping[str, Mapping[str, SlotType]] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str | bytes | None) -> Card:
        """Return the card in a curated file's metadata (`duologue.agent`); else an empty one."""
        data = json.loads(text) if text else {}
        intents = {name: one.get("slots", {}) for name, one in data.get("intents", {}).items()}
        tools = {name: one.get("input", {}) for name, one in data.get("tools", {}).items()}
        return cls(intents, tools)

    def seen(self, dialogues: Iterable[Sequence[ChatMessage]]) -> Card:
        """Return the card with what these dialogues hold besides, typed by its values."""
        intents = {name: dict(slots) for name, slots in self.intents.items()}
        tools = {name: dict(inputs) for name, inputs in self.tools.items()}
        for messages in dialogues:
            for piece in pieces(messages):
                if (heard := read_understanding(piece.text)) and piece.kind == "understanding":
                    _add(intents.setdefault(heard.intent, {}), heard.slots)
                elif (call := read_call(piece.text)) and piece.kind == "call":
                    _add(tools.setdefault(call.tool, {}), call.arguments)
        return Card(intents, tools)

    def slot(self, intent: str, name: str, value: Any) -> SlotType:
        """Return the type of an intent's slot; of its value where the card does not know it."""
        return self.intents.get(intent, {}).get(name) or json_type(value)

    def argument(self, tool: str, name: str, value: Any) -> SlotType:
        """Return the type of a tool's input; of its value where the card does not know it."""
        return self.tools.get(tool, {}).get(name) or json_type(value)


def _add(known: dict[str, SlotType], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if value is not None:
            known.setdefault(name, json_type(value))


def json_type(value: Any) -> SlotType:
    """Return the type that a JSON value looks like; whatever is none of them counts as an id."""
    kind = kind_of(value)
    return "id" if kind == "text" and not isinstance(value, str) else kind


# -- values


def agreement(kind: SlotType, gold: Any, predicted: Any) -> float:
    """Return how far two values agree, in [0, 1].

    Text by the F1 of its words, counted with their repetitions (Rajpurkar et al. 2016); lists by
    the F1 of their items as sets; everything else is 1 or 0.
    """
    if kind == "text" and isinstance(gold, str) and isinstance(predicted, str | int | float):
        return overlap(gold, str(predicted))
    if kind == "list" and isinstance(gold, list | tuple):
        return _items(gold, predicted) if isinstance(predicted, list | tuple) else 0.0
    return float(_same(kind, gold, predicted))


def overlap(gold: str, predicted: str) -> float:
    """Return the F1 of two texts' words; of texts without words, whether they are the same."""
    one, other = Counter(words(gold)), Counter(words(predicted))
    if not one or not other:
        return float(normalize(gold).strip() == normalize(predicted).strip())
    return 2 * (one & other).total() / (one.total() + other.total())


def _items(gold: Sequence[Any], predicted: Sequence[Any]) -> float:
    one, other = {_plain(item) for item in gold}, {_plain(item) for item in predicted}
    return 2 * len(one & other) / (len(one) + len(other)) if one or other else 1.0


def _plain(value: Any) -> str:
    """Return a value for comparison: text normalised, without double blanks; the rest as JSON."""
    return " ".join(normalize(value).split()) if isinstance(value, str) else dump_json(value)


def _same(kind: SlotType, gold: Any, predicted: Any) -> bool:
    try:
        one, other = typed(kind, gold), typed(kind, predicted)
    except (TypeError, ValueError, OverflowError):
        return dump_json(gold) == dump_json(predicted)
    if kind == "boolean" and not isinstance(predicted, bool | str):
        return False  # `typed` takes anything for a truth value
    return bool(one == other)


def exact(kind: SlotType, gold: Any, predicted: Any) -> bool:
    """Whether two arguments are the same: text but for case and blanks, lists as sets."""
    if kind == "list" and isinstance(gold, list | tuple):
        return isinstance(predicted, list | tuple) and _items(gold, predicted) == 1.0
    if kind == "text" and isinstance(gold, str) and isinstance(predicted, str):
        return _plain(gold) == _plain(predicted)
    return _same(kind, gold, predicted)


# -- pieces


@dataclass(slots=True)
class SlotCount:
    """Slots of one type: the credit given, and how many were predicted and wanted."""

    credit: float = 0.0
    predicted: int = 0
    gold: int = 0


@dataclass(frozen=True, slots=True)
class Heard:
    """An understanding's verdict.

    Attributes:
        predicted: the intent, or `UNPARSED`, `UNKNOWN`.
        slots: by type. A slot is credited by its name, whatever the intent; the intent has figures
            of its own.
    """

    gold: str
    predicted: str
    slots: Mapping[str, SlotCount]


def heard(card: Card, gold: str, predicted: str) -> Heard:
    """Return what an understanding got right.

    Raises:
        ValueError: when the gold piece is no understanding.
    """
    wanted, given = read_understanding(gold.strip()), read_understanding(predicted)
    if wanted is None:
        raise ValueError(f"no understanding: {gold!r}")
    known = given is not None and (given.intent in card.intents or given.intent == wanted.intent)
    intent = UNPARSED if given is None else given.intent if known else UNKNOWN
    return Heard(wanted.intent, intent, _slots(card, wanted, given or Understanding("")))


def _slots(card: Card, wanted: Understanding, given: Understanding) -> dict[str, SlotCount]:
    counts: dict[str, SlotCount] = {}
    said = {name: value for name, value in given.slots.items() if value is not None}
    for name, value in wanted.slots.items():
        if value is None:
            continue
        kind = card.slot(wanted.intent, name, value)
        count = counts.setdefault(kind, SlotCount())
        count.gold += 1
        if name in said:
            count.predicted += 1
            count.credit += agreement(kind, value, said.pop(name))
    for name, value in said.items():
        counts.setdefault(card.slot(given.intent, name, value), SlotCount()).predicted += 1
    return counts


@dataclass(frozen=True, slots=True)
class Called:
    """A call's verdict: the right tool, and with it all arguments right and none too many."""

    tool: bool
    exact: bool


def called(card: Card, gold: str, predicted: str) -> Called:
    """Return what a call got right.

    Raises:
        ValueError: when the gold piece is no call.
    """
    wanted, given = read_call(gold.strip()), read_call(predicted)
    if wanted is None:
        raise ValueError(f"no call: {gold!r}")
    if given is None or given.tool != wanted.tool:
        return Called(tool=False, exact=False)
    one, other = (
        {name: value for name, value in call.arguments.items() if value is not None}
        for call in (wanted, given)
    )
    right = one.keys() == other.keys() and all(
        exact(card.argument(wanted.tool, name, value), value, other[name])
        for name, value in one.items()
    )
    return Called(tool=True, exact=right)


def correct(card: Card, kind: PieceKind, gold: str, predicted: str) -> bool | None:
    """Whether a piece is right: the intent, or the whole call; None for an answer."""
    if kind == "understanding":
        verdict = heard(card, gold, predicted)
        return verdict.gold == verdict.predicted
    return called(card, gold, predicted).exact if kind == "call" else None


# -- groundedness


def material(messages: Iterable[ChatMessage]) -> list[str]:
    """Return what an answer may be made from: the user's words and the tools' results before it."""
    return [message.content for message in messages if message.role in ("user", "tool")]


def phrase_words(dialogues: Iterable[Sequence[ChatMessage]], least: int = 2) -> frozenset[str]:
    """Return the words that this domain's agents answer with whatever the matter is.

    A phrase word is no number and stands in answers of at least `least` training dialogues without
    standing in those dialogues' results or user's words before it. So a dish that training answers
    named because it was found stays a thing that must be found.
    """
    counts: Counter[str] = Counter()
    for messages in dialogues:
        counts.update(set(_unfounded(messages)))
    return frozenset(word for word, count in counts.items() if count >= least)


def _unfounded(messages: Sequence[ChatMessage]) -> Iterator[str]:
    for piece in pieces(messages):
        if piece.kind == "answer":
            known = vocabulary(*material(messages[: piece.message]))
            for word in content_words(piece.text):
                if not is_number(word) and word not in known:
                    yield word


def groundedness(answer: str, texts: Sequence[str], phrases: frozenset[str]) -> float | None:
    """Return the share of an answer's content words that its material holds.

    Phrase words (`phrase_words`) are left out of the count unless the material holds them, as the
    check `grounded` does; numbers are held against the material in digits and in English words.

    Returns:
        In [0, 1]; None for an answer that says nothing of the matter.
    """
    known = vocabulary(*texts)
    numbers = {_SMALL.get(word, word) for text in texts for word in words(text)}
    found = missed = 0
    for word in content_words(answer):
        if word in known or _SMALL.get(word, word) in numbers:
            found += 1
        elif word not in phrases:
            missed += 1
    return found / (found + missed) if found or missed else None
