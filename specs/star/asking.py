"""Which parameters of a query each of STAR's questions asks for, and what the answers are like."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from specs.star.fields import nearest_field, parts, snake
from specs.star.flow import MISSING, MORE, START, Flow, Guess, of_query
from specs.star.mapping import MappingFile
from specs.star.turns import Exchange, Heard

LEAST_SHARE = 0.3
"""Of the answers to a question, how many must say a parameter's value, to guess that it asks it."""

LEAST_TIMES = 3
ABSENT = 0.15
"""A parameter that more requests lack is one that the user may have nothing to say about."""

_CHOICES = 4
_SAID = 0.6
_ALWAYS = frozenset({"yes", "no"})


@dataclass(frozen=True, slots=True)
class Slot:
    """A parameter that a state asks for.

    Attributes:
        choices: its values, where users hardly ever say them as they stand (`Yes`, `Walking`): each
            is an answer of its own.
        optional: the user may have nothing to say.
        phrase: its values are people's own phrases, which fit in no sentence but their own.
    """

    parameter: str
    state: str
    choices: tuple[str, ...] = ()
    optional: bool = False
    phrase: bool = False

    @property
    def label(self) -> str:
        """What it is called in instructions: as the question has it."""
        asked = _words(self.state) if "ask" in self.state.split("_") else self.name
        return asked.replace("_", " ")

    @property
    def name(self) -> str:
        """The name in the domain."""
        return snake(self.parameter)


@dataclass(frozen=True, slots=True)
class Asking:
    """The slots of a flow, and the guesses made about them."""

    slots: tuple[Slot, ...]
    guesses: tuple[Guess, ...]

    def of(self, state: str) -> list[Slot]:
        """Return what a state asks for."""
        return [slot for slot in self.slots if slot.state == state]

    def parameters(self) -> list[str]:
        """Return all that is asked for."""
        return [slot.parameter for slot in self.slots]


def says(text: str, value: str) -> bool:
    """Whether an utterance has a value as it stands."""
    return found(text, value) is not None


def found(text: str, value: str) -> re.Match[str] | None:
    """Return where an utterance has a value."""
    return re.search(rf"(?<![\w']){re.escape(value)}(?![\w])", text, re.IGNORECASE)


def asking(heard: Heard, flow: Flow, mapping: MappingFile) -> Asking:
    """Return what a flow's states ask for: as told, by their names, or as the answers say."""
    first = flow.first_query()
    queries = of_query(heard, first, flow.queries) if first else []
    known = Counter(name for one in queries for name in one.asked)
    front = flow.front()
    states = [
        one.from_
        for one in flow.moves
        if one.from_ in front and one.means == "" and one.from_ not in (START, MORE, *flow.end)
    ]
    states = list(dict.fromkeys(states))
    guesses: list[Guess] = []
    chosen: dict[str, tuple[str, ...]] = {
        state: mapping.slots[state] for state in states if state in mapping.slots
    }
    for match in (_by_name, _by_answers, _by_like_name):
        taken = {name for names in chosen.values() for name in names}
        left = [one for one in states if one not in chosen]
        for state, name, why in match(heard, left, [one for one in known if one not in taken]):
            chosen[state] = (name,)
            if why:
                over = f"slots: {{{state}: [PARAMETER]}}"
                guesses.append(Guess(f"{state} asks for {name}", why, over))
    guesses += _unasked(states, chosen, known, len(queries))
    total = max(1, len(queries))
    slots = tuple(
        slot if len(chosen[state]) == 1 else replace(slot, choices=())  # several at once are said
        for state in chosen
        for name in chosen[state]
        for slot in [_slot(heard, flow, state, name, 1 - known[name] / total, mapping)]
    )
    for slot in slots:
        guesses += _manner(slot, flow, mapping)
    return Asking(slots, tuple(guesses))


def _told_missing(flow: Flow, state: str) -> bool:
    return any(move.from_ == state and move.means == MISSING for move in flow.moves)


def _manner(slot: Slot, flow: Flow, mapping: MappingFile) -> Iterator[Guess]:
    """Yield what is guessed about how a question is answered."""
    name = slot.parameter
    if slot.choices and name not in mapping.choices:
        yield Guess(
            f"{slot.state} has an answer for each of {', '.join(slot.choices)}",
            f"{name} has few values, which people put in words of their own",
            f"choices: {{{name}: [VALUE, ...]}}, or [] for said as it stands",
        )
    if slot.optional and mapping.optional is None and not _told_missing(flow, slot.state):
        yield Guess(
            f"a user may have no {name} to tell",
            f"more than {ABSENT:.0%} of the queries do without it",
            "optional: [PARAMETER, ...], or [] for none",
        )


_Match = Iterator[tuple[str, str, str]]


def _words(state: str) -> str:
    """Return what a state's name says it is about: `doctor_ask_day` is about the day."""
    return state.rpartition("ask_")[2]


def _by_name(heard: Heard, states: Sequence[str], names: Sequence[str]) -> _Match:
    """Yield what has the very name, unless the answers say another parameter's values."""
    for state in states:
        shares = {name: _share(heard, state, name) for name in names}
        enough = [said / of for said, of in shares.values() if said >= LEAST_TIMES]
        most = max([LEAST_SHARE, *enough])
        for name, (said, of) in shares.items():
            same = parts(_words(state)) == parts(name)
            if same and (most == LEAST_SHARE or said >= most * of):
                yield state, name, ""


def _by_answers(heard: Heard, states: Sequence[str], names: Sequence[str]) -> _Match:
    shares = [(*_share(heard, state, name), state, name) for state in states for name in names]
    left, free = set(states), set(names)
    for said, answers, state, name in sorted(shares, key=lambda one: -one[0] / max(1, one[1])):
        enough = said >= LEAST_TIMES and said >= LEAST_SHARE * answers
        if enough and state in left and name in free:
            left.discard(state)
            free.discard(name)
            yield state, name, f"{said} of {answers} answers to it say the value"


def _by_like_name(heard: Heard, states: Sequence[str], names: Sequence[str]) -> _Match:
    free = list(names)
    for state in states:
        near = nearest_field(_words(state), free) or _alike(_words(state), free)
        if near is not None:
            free.remove(near[0])
            yield state, near[0], "their names are alike, and no other is left"


def _alike(words: str, names: Sequence[str]) -> tuple[str, bool] | None:
    """Return a name of whose words one begins like one of these: `needed` and `NeedParking`."""
    wanted = parts(words)
    for name in names:
        if any(a[:4] == b[:4] and len(a) > 3 for a in wanted for b in parts(name)):
            return name, False
    return None


def _share(heard: Heard, state: str, name: str) -> tuple[int, int]:
    """Return how many answers to a state say a parameter's value, of how many; -1 for unknown."""
    answers = [one for one in heard.exchanges if one.after == state and name in one.values]
    said = sum(any(says(one.text, value) for value in one.values[name]) for one in answers)
    return (said, len(answers)) if answers else (-1, 0)


def _unasked(
    states: Sequence[str],
    chosen: Mapping[str, tuple[str, ...]],
    known: Mapping[str, int],
    queries: int,
) -> Iterator[Guess]:
    taken = {name for names in chosen.values() for name in names}
    for name, times in known.items():
        if name not in taken and times * 10 >= queries:
            yield Guess(
                f"the parameter {name} is left out",
                f"no state asks for it, though {times} of {queries} queries have it",
                f"slots: {{STATE: [{name}]}}",
            )
    for state in states:
        if state not in chosen and "ask" in parts(state):
            over = f"slots: {{{state}: [PARAMETER]}}"
            yield Guess(f"the answer to {state} carries nothing", "no parameter fits it", over)


def _slot(
    heard: Heard, flow: Flow, state: str, name: str, absent: float, mapping: MappingFile
) -> Slot:
    answers = [one for one in heard.exchanges if one.after == state and name in one.values]
    values = Counter(value for one in heard.queries for value in [one.asked.get(name, "")] if value)
    common = [value for value, times in values.most_common() if times * 50 >= values.total()]
    said, of = _share(heard, state, name)
    mute = said < _SAID * of or {value.lower() for value in common} <= _ALWAYS
    choices = tuple(common) if len(common) <= _CHOICES and mute and answers else ()
    told = _told_missing(flow, state)
    lacking = absent >= ABSENT and len(without(heard, state, name)) >= LEAST_TIMES
    optional = lacking if mapping.optional is None else name in mapping.optional
    phrases = sum(times for value, times in values.items() if len(value.split()) > 1)
    phrase = len(values) * 5 > values.total() and phrases * 3 > values.total()
    return Slot(name, state, mapping.choices.get(name, choices), told or optional, phrase)


def without(heard: Heard, state: str, name: str) -> list[Exchange]:
    """Return the answers to a state in dialogues whose queries do without its parameter."""
    return [
        one
        for one in heard.exchanges
        if one.after == state and one.values and name not in one.values and says_no(one.text)
    ]


_NEGATIVE = re.compile(
    r"\b(no|not|none|nope|nah|never|nothing|without|forgot|forget|lost|\w+n't|dont|cant)\b", re.I
)


def says_no(text: str) -> bool:
    """Whether an utterance has a word that denies."""
    return _NEGATIVE.search(text) is not None
