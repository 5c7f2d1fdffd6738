"""What is wrong with a dialogue, as far as it can be told without a model: strict, deterministic.

Published sets of simulated dialogues choose items that were never shown or stood elsewhere, open
utterances like lists, and end on the user's turn. Invariants: every finding follows from the record
and the domain alone; a model's words and a person's references are judged alike, but for what tells
that a model has lost its way; nothing depends on a script, or on a language but for the set phrases
and number words that `specs.checks` knows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from specs.checks import CHECKS, values_of
from specs.domain import Domain, Slot, Speech
from specs.listing import Listing
from specs.plan import PlanSource
from specs.records import Dialogue
from specs.replay import OtherSource, Replayed, ReplayError, replay
from specs.seeds import later
from specs.utterance import Utterance, boilerplate
from specs.words import normalize, words

Kind = Literal[
    "not_ended",
    "ends_on_user",
    "off_path",
    "unshown_selection",
    "slot_unsaid",
    "list_opening",
    "boilerplate",
    "role_label",
    "repeats",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

REPEATED_WORDS = 4
"""Words from which on a side's utterance must not be an earlier one again: "Okay." may."""

WHOLE = -1
"""The turn of an inconsistency that is of the whole dialogue."""


@dataclass(frozen=True, slots=True)
class Inconsistency:
    """One thing that is wrong.

    Attributes:
        kind: not_ended, it stopped for another reason than an end state; ends_on_user, the last
            words are the user's; off_path, state, edge, memory, settled slots, calls or path are
            not what the domain makes of the record; unshown_selection, the user chooses what was
            not shown, or not at that place, or not named; slot_unsaid, a slot's value is not in
            the words; list_opening, it begins like a list or announces one; boilerplate, another
            set phrase, a placeholder, a loop or a text behind the end; role_label, a speaker's
            name stands as a label in the words; repeats, a side says the same again.
        turn: the index of its turn, or WHOLE.
    """

    kind: Kind
    turn: int
    detail: str


@dataclass(frozen=True, slots=True)
class Followed:
    """A dialogue played again as far as that goes; `lost` says why no farther."""

    dialogue: Dialogue
    domain: Domain
    turns: tuple[Replayed, ...]
    lost: str = ""


def follow(dialogue: Dialogue, domain: Domain, source: PlanSource) -> Followed:
    """Play a dialogue again, for `inconsistencies` and `trainer.measures`.

    Args:
        domain: as it was when the dialogue was made (the run's own copy of it).
        source: of the dialogue's plan (`specs.replay.source_of`).

    Raises:
        OtherSource: when the dialogue is of another domain or run seed.
    """
    turns: list[Replayed] = []
    try:
        for replayed in replay(dialogue, domain, source):
            turns.append(replayed)
    except OtherSource:
        raise
    except ReplayError as error:
        return Followed(dialogue, domain, tuple(turns), str(error))
    return Followed(dialogue, domain, tuple(turns))


def inconsistencies(followed: Followed) -> list[Inconsistency]:
    """Return all that is wrong with a dialogue, by kind and turn."""
    found = [
        *_end(followed.dialogue),
        *_off_path(followed),
        *_selections(followed),
        *_slots(followed),
        *_words(followed),
    ]
    return sorted(found, key=lambda one: (KINDS.index(one.kind), one.turn))


@dataclass(slots=True)
class Tally:
    """How many dialogues have an inconsistency, and how many have one of each kind."""

    dialogues: int = 0
    inconsistent: int = 0
    by_kind: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))

    def add(self, kinds: Iterable[str]) -> None:
        """Count one dialogue by the kinds of its inconsistencies, each once."""
        found = set(kinds)
        self.dialogues += 1
        self.inconsistent += bool(found)
        for kind in found:
            self.by_kind[kind] = self.by_kind.get(kind, 0) + 1


# -- how it ends, and where it goes


def _end(dialogue: Dialogue) -> Iterator[Inconsistency]:
    if not dialogue.ended:
        reason = f"{dialogue.stop_reason}{': ' if dialogue.error else ''}{dialogue.error}"
        yield Inconsistency("not_ended", WHOLE, reason)
    if dialogue.turns and dialogue.turns[-1].role == "user":
        yield Inconsistency("ends_on_user", dialogue.turns[-1].index, "nobody answers")


def _off_path(followed: Followed) -> Iterator[Inconsistency]:
    for replayed in followed.turns:
        for difference in replayed.differences:
            yield Inconsistency("off_path", replayed.turn.index, difference)
    if followed.lost:
        yield Inconsistency("off_path", len(followed.turns), followed.lost)


# -- what is chosen

_AMONG_RESULTS = re.compile(r"\bposition\s*\(\s*results\b")
_OF_DOCUMENT = re.compile(r"\s*doc\s*\.")


def _selections(followed: Followed) -> Iterator[Inconsistency]:
    """Hold each choice of the user against what the agent had shown by then."""
    shown = _Shown()
    for replayed in followed.turns:
        if replayed.turn.role == "agent":
            shown.see(replayed, followed.domain)
            continue
        for slot in replayed.speech.slots.values():
            problem = _selected(slot, replayed, shown, followed.domain)
            if problem:
                yield Inconsistency("unshown_selection", replayed.turn.index, problem)


class _Shown:
    """What the agent has shown: results as recorded and as said, and its words about them."""

    def __init__(self) -> None:
        self.listed: list[str] | None = None
        self.said: list[str] | None = None
        self.ids: set[str] = set()
        self.texts: list[str] = []

    def see(self, replayed: Replayed, domain: Domain) -> None:
        turn = replayed.turn
        if any(calling.tool == "search" for calling, _ in replayed.calls):
            self.texts = []
        self.texts.append(turn.text)
        for _, result in replayed.calls:
            self.ids.update(result.ids)
        listed = said = None
        for name, slot in replayed.speech.slots.items():
            value = turn.reply.get(name)
            if slot.type == "list" and slot.of == "id" and isinstance(value, list | tuple):
                listed = [str(id_) for id_ in value]
                said = _as_said(listed, replayed)
                self.ids.update(listed)
            elif slot.type == "id" and value is not None:
                self.ids.add(str(value))
        if not domain.states[turn.state].digression:
            self.listed, self.said = listed, said


def _as_said(listed: list[str], replayed: Replayed) -> list[str]:
    """Return the ids that a turn lists in the order in which its words name them, if they do."""
    items = {str(item["id"]): item for item in replayed.scope["results"]}
    order = Listing([items.get(id_, {}) for id_ in listed]).order(replayed.turn.text)
    return [listed[number] for number in order] if len(order) == len(listed) else listed


def _selected(slot: Slot, replayed: Replayed, shown: _Shown, domain: Domain) -> str:
    """Return what is wrong with a slot's choice; nothing where it chooses nothing."""
    value = replayed.turn.slots.get(slot.name)
    results: Sequence[Mapping[str, Any]] = replayed.scope["results"]
    if _numbers_results(slot):
        return _chosen_number(value, results, shown)
    if slot.type == "id":
        never = results and value is not None and str(value) not in shown.ids
        return f"{value!r} was never shown" if never else ""
    if _names_document(slot) and _selects(replayed.turn.intent, domain):
        wanted = replayed.scope["doc"]["id"]
        place = (
            [str(item["id"]) for item in results].index(wanted) + 1
            if any(str(item["id"]) == wanted for item in results)
            else 0
        )
        return _chosen_number(place, results, shown)
    return ""


def _numbers_results(slot: Slot) -> bool:
    settled = slot.value is not None and _AMONG_RESULTS.search(slot.value.source)
    return slot.type == "integer" and bool(settled)


def _names_document(slot: Slot) -> bool:
    settled = slot.value is not None and _OF_DOCUMENT.match(slot.value.source)
    return slot.type == "text" and bool(settled)


def _selects(intent: str, domain: Domain) -> bool:
    """Whether an intent is elsewhere settled as a number among the results."""
    speeches = [domain.intents[intent].speech] if intent in domain.intents else []
    speeches += [edge.speech for edge in domain.edges if edge.intent == intent]
    return any(_numbers_results(slot) for speech in speeches for slot in speech.slots.values())


def _chosen_number(number: Any, results: Sequence[Mapping[str, Any]], shown: _Shown) -> str:
    if not isinstance(number, int) or not 0 < number <= len(results):
        return f"number {number} of {len(results)} results"
    chosen = results[number - 1]
    id_ = chosen["id"]
    for listed in (shown.listed, shown.said):
        if listed is not None and listed[number - 1 : number] != [id_]:
            place = listed.index(id_) + 1 if id_ in listed else None
            stands = f"was shown as number {place}" if place else "was not among those shown"
            return f"number {number}, {id_!r}, {stands}"
    utterance = Utterance("\n".join(shown.texts))
    if not CHECKS["mentions"](utterance, Speech(), [chosen])[1]:
        return f"number {number}, {id_!r}, was not named"
    return ""


# -- what the words hold

_DEMANDING = frozenset({"mentions", "says", "picks"})


def _slots(followed: Followed) -> Iterator[Inconsistency]:
    """Hold the user's slots against the user's words."""
    for replayed in followed.turns:
        if replayed.turn.role == "user" and replayed.speech.slots:
            for name in _unsaid(followed.dialogue.walk_id, replayed):
                value = replayed.turn.slots.get(name)
                yield Inconsistency("slot_unsaid", replayed.turn.index, f"{name}: {value!r}")


def _unsaid(walk_id: str, replayed: Replayed) -> list[str]:
    """Return the slots that are not said: by the speech's own checks where these demand one.

    Elsewhere the words must hold what was written by a model as text or number. What is settled and
    demanded by no check may well be left to the context ("the one before").
    """
    spoken = Utterance(replayed.turn.text)
    unsaid: list[str] = []
    demanded: set[str] = set()
    draws = later(walk_id, replayed.turn.index, "check")
    for call in replayed.speech.checks:
        if call.name not in CHECKS:
            continue
        values = values_of(call, replayed.scope, draws)
        if call.name in _DEMANDING:
            paths = {path for argument in call.arguments for path in argument.paths}
            names = {path[1] for path in paths if path[0] == "slots" and len(path) > 1}
            demanded |= names
            if not CHECKS[call.name](spoken, replayed.speech, values)[1]:
                unsaid += names
    for slot in replayed.speech.slots.values():
        if slot.name not in demanded and not _said(slot, replayed, spoken):
            unsaid.append(slot.name)
    return sorted(set(unsaid).intersection(replayed.speech.slots))


def _said(slot: Slot, replayed: Replayed, spoken: Utterance) -> bool:
    value = replayed.turn.slots.get(slot.name)
    if _numbers_results(slot) and isinstance(value, int):
        items = replayed.scope["results"]  # by its number or by its name
        return CHECKS["picks"](spoken, replayed.speech, [items, value])[1]
    kind = slot.of if slot.type == "list" else slot.type
    if slot.value is not None or slot.one_of or kind not in ("text", "integer", "number"):
        return True
    values = value if isinstance(value, list | tuple) else [value]
    whole = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    return CHECKS["mentions"](spoken, replayed.speech, whole)[1]


_ANNOUNCES = re.compile(r"\s*(?:(?:sure|certainly|of course|absolutely)[,!.:]*\s+)?here\b")


_MODELS_FAILURES = frozenset({"loop", "run on"})
"""What a model does that loses its way; a document may well hold it, in a person's sentence."""


def _words(followed: Followed) -> Iterator[Inconsistency]:
    """Look for what no person says, and for what was said before."""
    domain = followed.domain
    names = (domain.user.name, domain.agent.name)
    said: Counter[tuple[str, tuple[str, ...]]] = Counter()
    for turn in followed.dialogue.turns:
        cause = boilerplate(Utterance(turn.text, names=names))
        if cause and not (turn.source == "reference" and cause in _MODELS_FAILURES):
            yield Inconsistency(
                _kind_of(cause, turn.text), turn.index, f"{cause}: {turn.text[:60]}"
            )
        spoken = words(turn.text)
        if len(spoken) >= REPEATED_WORDS and said[turn.role, spoken]:
            yield Inconsistency("repeats", turn.index, turn.text[:60])
        said[turn.role, spoken] += 1


def _kind_of(cause: str, text: str) -> Kind:
    if cause == "role label":
        return "role_label"
    opens = cause == "set phrase" and _ANNOUNCES.match(normalize(text))
    return "list_opening" if cause == "list mark" or opens else "boilerplate"
