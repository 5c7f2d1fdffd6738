"""How people put it: a user's references from STAR's dialogues, their values made slots.

Invariants: a reference holds no value of its own (no name, number or place of another dialogue):
what it says beside its slots is true of every document. Where people left too few, stock words of
ours stand in, and that is told.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from specs.star.asking import Slot, found, says_no, without
from specs.star.flow import MISSING, MORE, START, Flow, Move
from specs.star.turns import BEGIN, LEAVING, Exchange, Heard

LEAST = 3
"""References an edge needs for free talk."""

MOST = 10
ENOUGH = 4
"""Where more than one person said as many things, what one alone said is left out."""

_SINGLE = 7
"""Words up to which what one person alone said is likely to fit another dialogue."""

_LONGEST = 16
_HOLES = 0xE000
"""The first of the characters that stand for slots: for private use, so that no value is one."""

_PER_SLOT = 4
_STOCK: Mapping[str, tuple[str, ...]] = {
    "yes": ("Yes, please.", "Sure, go ahead.", "That sounds good, yes.", "Okay, please do."),
    "no": ("No, thank you.", "No, I'd rather not.", "No, not that one.", "I don't think so, no."),
    "missing": ("I don't have one.", "No, I can't tell you that.", "No, nothing comes to mind."),
    "leave": ("No, that's all, thank you.", "Nothing else, goodbye!", "That was it, thanks. Bye."),
    "thanks": ("Okay.", "All right, I see.", "Okay, thanks for telling me."),
    "open": ("Hello, I need your help.", "Hi there, can you help me?", "Good day, I have a wish."),
    "plain": ("Nothing in particular.", "That's fine with me.", "I leave that to you."),
}
_PROPER = re.compile(r"(?<=[a-z,;:] )(?!I\b|I['’]|OK\b|RSVP\b|PIN\b|ID\b)[A-Z]\w*")
_ODD = re.compile(r"\d|[{}%<>#*]|https?:")


@dataclass(frozen=True, slots=True)
class Wording:
    """References of an edge.

    Attributes:
        heard: how many of them are people's; the others are stock.
    """

    texts: tuple[str, ...]
    heard: int


class Listener:
    """Finds how people put what an edge stands for."""

    def __init__(self, heard: Heard, flow: Flow, said_first: Callable[[str], str]) -> None:
        self._heard = heard
        self._flow = flow
        self._said_first = said_first
        values = {value for value in heard.vocabulary() if len(value) > 2}
        values |= {word for value in values for word in value.split() if len(word) > 3}
        values = {value for value in values if len(value.split()) < 4}
        self._values = re.compile(
            r"(?<!\w)("
            + "|".join(map(re.escape, sorted(values, key=len, reverse=True)))
            + r")(?!\w)"
            if values
            else r"(?!)",
            re.IGNORECASE,
        )

    def answer(self, state: str, slots: Sequence[Slot]) -> Wording:
        """Return answers that say the values of all these slots."""
        exchanges = (one for one in self._heard.exchanges if one.after == state)
        return self._wording(exchanges, _filled(slots), slots, lambda text: "?" not in text)

    def whole(self, state: str, slots: Sequence[Slot]) -> Wording:
        """Return what says the values of all these slots unasked, as a question or not."""
        after = (BEGIN, state) if state == START else (state,)
        exchanges = (one for one in self._heard.exchanges if one.after in after)
        return self._wording(exchanges, _filled(slots), slots, bool)

    def choice(self, state: str, slot: Slot, value: str) -> Wording:
        """Return answers of people whose query then had one of few values."""
        others = [one for one in slot.choices if one != value]

        def fits(text: str) -> bool:
            if value.lower() in ("yes", "no"):
                return says_no(text) == (value.lower() == "no") and "?" not in text
            return _hints(text, value) and not any(_hints(text, other) for other in others)

        exchanges = [
            one
            for one in self._heard.exchanges
            if one.after == state and value in one.values.get(slot.parameter, ())
        ]
        stock = _STOCK.get(value.lower(), (f"{value}.", f"{value}, please.", f"I'd say {value}."))
        return self._wording(exchanges, stock, (), fits, (value,))

    def nothing(self, state: str, slot: Slot) -> Wording:
        """Return answers of people who had no value to say."""
        exchanges = without(self._heard, state, slot.parameter)
        return self._wording(exchanges, _STOCK["missing"], (), says_no)

    def other(self, move: Move) -> Wording:
        """Return what people said on the way from one state to the next."""
        to = self._said_first(move.to)
        leaves = to == LEAVING and not move.means
        answers = {"yes": "yes", "no": "no"}.get(move.means, "")
        asks = "ask" in move.from_.split("_")
        opening = move.from_ == START
        kinds = {"leave": leaves, "open": opening, "plain": asks, "thanks": True}
        kind = (
            move.means if move.means in _STOCK else next(one for one, is_ in kinds.items() if is_)
        )

        def fits(text: str) -> bool:
            if answers:
                return _affirms(text) == (answers == "yes") and "?" not in text
            if leaves:
                said = text.lower()
                parting = says_no(text) or "bye" in said or "all" in said.split()
                return parting or (move.from_ != MORE and "?" not in text)  # thanks are enough
            if move.means:
                return says_no(text) or move.means != MISSING
            return opening or ("?" not in text and not says_no(text))

        free = (opening or asks) and not move.means
        exact = [
            one
            for one in self._heard.exchanges
            if one.after == move.from_ and (free or one.before == to)
        ]
        elsewhere = {
            self._said_first(one.to) for one in self._flow.moves if one.from_ == move.from_
        }
        rivals = Counter(
            _key(one.text)
            for one in self._heard.exchanges
            if one.after == move.from_ and one.before in elsewhere - {to}
        )
        return self._wording(exact, _STOCK[kind], (), fits, rivals=rivals)

    def _wording(
        self,
        exchanges: Iterable[Exchange],
        stock: Sequence[str],
        slots: Sequence[Slot],
        fits: Callable[[str], bool],
        allowed: Collection[str] = (),
        rivals: Mapping[str, int] = MappingProxyType({}),
    ) -> Wording:
        """Return what was said, most often first; what one person said alone only if need be.

        Args:
            rivals: how often the same was said to go elsewhere.
        """
        count: Counter[str] = Counter()
        spelt: dict[str, str] = {}
        for one in exchanges:
            text = self._slotted(one, slots, allowed)
            if text and fits(text):
                key = _key(text)
                count[key] += 1
                spelt.setdefault(key, text)
        count = Counter(
            {
                key: times
                for key, times in count.items()
                if times > rivals.get(key, 0) and (times > 1 or len(key.split()) <= _SINGLE)
            }
        )
        best = sorted(count, key=lambda key: (-count[key], len(key), key))[:MOST]
        often = [key for key in best if count[key] > 1]
        best = best[: max(len(often), ENOUGH)]
        texts = [spelt[key] for key in best]
        own = len(texts)
        for text in stock if own < LEAST else ():
            if len(texts) < LEAST and text not in texts:
                texts.append(text)
        return Wording(tuple(texts), own)

    def _slotted(self, one: Exchange, slots: Sequence[Slot], allowed: Collection[str]) -> str:
        """Return an utterance with slots for its values; empty where it says more than these."""
        text = one.text.strip()
        holes: dict[str, str] = {}
        for number, slot in enumerate(slots):
            place = next(
                (m for value in one.values.get(slot.parameter, ()) if (m := found(text, value))),
                None,
            )
            if place is None or (slot.phrase and not _alone(text, place)):
                return ""
            hole = chr(_HOLES + number)
            holes[hole] = f"{{{{ slots.{slot.name} }}}}"
            text = f"{text[: place.start()]}{hole}{text[place.end() :]}"
        rest = "".join(one for one in text if one not in holes)
        words = rest.split()
        longest = min(_LONGEST, _PER_SLOT * (1 + len(slots))) if slots else _LONGEST
        if len(words) > longest or not (words or slots):
            return ""
        if _ODD.search(rest) or _PROPER.search(rest):
            return ""
        if any(m[0].lower() not in map(str.lower, allowed) for m in self._values.finditer(rest)):
            return ""
        for hole, template in holes.items():
            text = text.replace(hole, template)
        return text


def _key(text: str) -> str:
    """Return what utterances that differ in case and punctuation have in common."""
    return re.sub(r"\W+", " ", text.lower()).strip()


def _affirms(text: str) -> bool:
    """Whether an utterance is a yes: it denies nothing, and asks for nothing else."""
    return not says_no(text) and "more" not in text.lower().split()


def _alone(text: str, place: re.Match[str]) -> bool:
    """Whether a phrase stands by itself, with no word that it has to agree with."""
    before, after = text[: place.start()].rstrip(), text[place.end() :].lstrip()
    return before[-1:] in ("", ":") and after in ("", ".", "!")


def _hints(text: str, value: str) -> bool:
    """Whether a text has a word that begins like a value's: `walk` for `Walking`."""
    return any(
        word[:4] == other[:4]
        for word in re.findall(r"\w{4,}", text.lower())
        for other in re.findall(r"\w{4,}", value.lower())
    )


def _filled(slots: Sequence[Slot]) -> tuple[str, ...]:
    if not slots:
        return _STOCK["plain"]
    said = " and ".join(f"{{{{ slots.{slot.name} }}}}" for slot in slots)
    return (f"{said}.", f"{said}, please.", f"It's {said}.", f"I'd say {said}.")
