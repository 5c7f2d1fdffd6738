"""One evaluation: what it sees, and the work that it may still do.

Every loop, filter and comparison pays from one budget in proportion to what it touches, so that no
expression takes more than about a second, whatever it is and whatever it is given.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

TEXT_LIMIT = 100_000
"""Characters that any text made by an expression may have, and a rendered template too."""
LIST_LIMIT = 100_000
NUMBER_LIMIT = 10**15
"""The greatest magnitude: whole numbers up to here survive JSON readers that know floats alone."""
WORK_LIMIT = 500_000
LOOP_LIMIT = 10_000
DOCUMENTS = "documents"
"""The name in a scope under which all documents stand, by id; `document(id)` looks there."""
EVALUATION = 20
"""What an evaluation costs a meter beside its work, so that millions of cheap ones cost too."""


class Fault(Exception):
    """Why an evaluation failed, in words; the place is added where it is reported."""


class UndefinedFault(Fault):
    """A name, key or item that is not there; `default` and `is defined` catch it."""


_NO_NAMES: dict[str, Any] = {}
"""Outside of loops there are none; a loop gives its frame names of its own, and takes them back."""


class Meter:
    """A budget of work that many evaluations share: what bounds sampling as a whole."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._last: Frame | None = None

    @property
    def spent(self) -> bool:
        """Whether nothing is left; from then on every evaluation fails."""
        return self._left - self._used() < 0

    def pay(self, amount: int) -> None:
        """Take work off the budget."""
        self._left -= amount

    def admit(self, frame: Frame) -> None:
        """Have the evaluation before this one paid for; raises Fault when nothing is left."""
        self.pay(self._used() + EVALUATION)
        self._last = frame
        if self._left < 0:
            raise Fault("the budget that all evaluations share is spent")

    def _used(self) -> int:
        return 0 if self._last is None else WORK_LIMIT - self._last.work


_METER: ContextVar[Meter | None] = ContextVar("meter", default=None)
"""The meter in force; there is none where dialogues are played, each evaluation bounded alone."""


@contextmanager
def metered(limit: int) -> Iterator[Meter]:
    """Have all evaluations in the body share one budget of work."""
    meter = Meter(limit)
    token = _METER.set(meter)
    try:
        yield meter
    finally:
        _METER.reset(token)


class Frame:
    """What one evaluation sees: the caller's scope, the loops' own names, and its budget."""

    __slots__ = ("draws", "loops", "names", "room", "scope", "work")

    def __init__(self, scope: Mapping[str, Any], draws: random.Random | None) -> None:
        self.scope = scope
        self.names = _NO_NAMES
        self.draws = draws
        self.work = WORK_LIMIT
        self.loops = LOOP_LIMIT
        self.room = TEXT_LIMIT
        meter = _METER.get()
        if meter is not None:
            meter.admit(self)

    def turn(self) -> None:
        """Count one turn of a loop; raises Fault after too many."""
        self.loops -= 1
        if self.loops < 0:
            raise Fault(f"loops more than {LOOP_LIMIT:,} times")

    def write(self, characters: int) -> None:
        """Count characters of output; raises Fault when there are too many."""
        self.room -= characters
        if self.room < 0:
            raise Fault(f"writes more than {TEXT_LIMIT:,} characters")

    def spend(self, amount: int) -> None:
        """Pay for work, in list items or 32 characters each; raises Fault when nothing is left."""
        self.work -= amount
        if self.work < 0:
            raise Fault("takes too much work")

    def look_up(self, name: str) -> Any:
        """Return what a name stands for; raises UndefinedFault."""
        if name in self.names:
            return self.names[name]
        try:
            return self.scope[name]
        except KeyError:
            raise UndefinedFault(f"`{name}` is not defined") from None


class Loop:
    """What `loop` offers inside a `for`."""

    __slots__ = ("index0", "length")

    def __init__(self, length: int) -> None:
        self.index0 = 0
        self.length = length

    def attribute(self, name: str) -> Any:
        """Return `loop.<name>`; raises UndefinedFault."""
        match name:
            case "index":
                return self.index0 + 1
            case "index0":
                return self.index0
            case "length":
                return self.length
            case "first":
                return self.index0 == 0
            case "last":
                return self.index0 == self.length - 1
        raise UndefinedFault(f"`loop` has no {name!r}; it has index, index0, first, last, length")


def is_number(value: Any) -> bool:
    """Whether it is a number; a boolean is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_list(value: Any) -> bool:
    """Whether it is a list, in the sense of the language."""
    return isinstance(value, (list, tuple))


def kind(value: Any) -> str:
    """Name a value's type for a message: `a list`, `text`, `null`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "text"
    if is_number(value):
        return "a number"
    if is_list(value):
        return "a list"
    return "a mapping" if isinstance(value, Mapping) else f"a {type(value).__name__}"


def text_of(value: Any) -> str:
    """Return how a value reads in a text; null, lists and mappings are no text and raise Fault."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if value is None:
        raise Fault(
            "null cannot be written as text; give it a `default(..., true)` or test it first"
        )
    hint = "; use `join(', ')`" if is_list(value) else ""
    raise Fault(f"{kind(value)} cannot be written as text{hint}")


def bounded_text(value: str) -> str:
    """Return the text; raises Fault when it is too long."""
    if len(value) > TEXT_LIMIT:
        raise Fault(f"a text of {len(value):,} characters is too long")
    return value


def bounded_number(value: float) -> float:
    """Return the number; raises Fault when it is too large or none (infinity)."""
    if not abs(value) <= NUMBER_LIMIT:
        raise Fault("a number is out of bounds")
    return value


def items_of(value: Any, frame: Frame) -> Sequence[Any]:
    """Return what a `for` or a filter on lists goes over: a list's items, a mapping's keys."""
    if is_list(value):
        items: Sequence[Any] = value
    elif isinstance(value, Mapping):
        items = list(value)
    else:
        raise Fault(f"expected a list, got {kind(value)}")
    frame.spend(len(items) + 1)
    return items


def member(value: Any, key: Any) -> Any:
    """Return a mapping's value by key, or a list's item by index; raises UndefinedFault."""
    if isinstance(value, Mapping):
        try:
            return value[key]
        except (KeyError, TypeError):
            raise UndefinedFault(f"there is no {key!r}{_nearby(value)}") from None
    if isinstance(value, Loop) and isinstance(key, str):
        return value.attribute(key)
    if isinstance(key, int) and not isinstance(key, bool) and isinstance(value, str):
        # A letter is never meant: the document has a text where a list of texts belongs.
        raise Fault(f"text has no items to take by number: is {value[:20]!r} to be a list?")
    if isinstance(key, int) and not isinstance(key, bool) and isinstance(value, (list, tuple)):
        try:
            return value[key]
        except IndexError:
            raise UndefinedFault(f"there is no item {key} among {len(value)}") from None
    raise UndefinedFault(f"{kind(value)} has no {key!r}")


def _nearby(value: Mapping[Any, Any]) -> str:
    keys = [str(key) for key in list(value)[:12]]
    return f" (there is {', '.join(keys)})" if keys else " (it is empty)"
