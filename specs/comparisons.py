"""Comparisons, tests (`is ...`) and addition: what works on two values of any type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any

from specs.frames import (
    LIST_LIMIT,
    Fault,
    Frame,
    bounded_number,
    bounded_text,
    is_list,
    is_number,
    kind,
)

Function = Callable[..., Any]


def compare(frame: Frame, operator: str, left: Any, right: Any) -> bool:
    """Compare two values; raises Fault where they have no order."""
    for side in (left, right):
        if type(side) is str:
            frame.spend(len(side) // 8)
        elif not isinstance(side, (int, float, NoneType)):
            weigh(frame, side)
    if operator == "eq":
        return bool(left == right)
    if operator == "ne":
        return bool(left != right)
    if operator in ("in", "notin"):
        return _contains(right, left) is (operator == "in")
    texts = isinstance(left, str) and isinstance(right, str)
    if not texts and not (is_number(left) and is_number(right)):
        raise Fault(f"{kind(left)} and {kind(right)} have no order")
    match operator:
        case "lt":
            return bool(left < right)
        case "lteq":
            return bool(left <= right)
        case "gt":
            return bool(left > right)
    return bool(left >= right)


def weigh(frame: Frame, value: Any) -> None:
    """Pay for everything inside a value, before it is compared or written out.

    A list that stands in itself many times over is paid for each time: so does whatever walks it.
    """
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, str):
            frame.spend(len(one) // 8)
        elif isinstance(one, (list, tuple)):
            frame.spend(len(one) + 1)
            stack.extend(one)
        elif isinstance(one, Mapping):
            frame.spend(len(one) + 1)
            stack.extend(one.values())


def _contains(container: Any, item: Any) -> bool:
    if isinstance(container, str):
        if not isinstance(item, str):
            raise Fault(f"{kind(item)} cannot be in a text")
        return item in container
    if is_list(container):
        return item in container
    if isinstance(container, Mapping):
        return isinstance(item, str) and item in container
    raise Fault(f"nothing can be in {kind(container)}")


def whole(value: Any) -> int:
    """Return a whole number; raises Fault for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise Fault(f"expected a whole number, got {kind(value)}")


def _divisible(frame: Frame, value: Any, by: Any) -> bool:
    if not whole(by):
        raise Fault("nothing is divisible by 0")
    return whole(value) % whole(by) == 0


def _comparison(operator: str) -> Function:
    def test(frame: Frame, value: Any, other: Any) -> bool:
        return compare(frame, operator, value, other)

    return test


TESTS: Mapping[str, Function] = {
    "boolean": lambda frame, value: isinstance(value, bool),
    "divisibleby": _divisible,
    "eq": _comparison("eq"),
    "equalto": _comparison("eq"),
    "==": _comparison("eq"),
    "even": lambda frame, value: whole(value) % 2 == 0,
    "false": lambda frame, value: value is False,
    "float": lambda frame, value: isinstance(value, float),
    "ge": _comparison("gteq"),
    "gt": _comparison("gt"),
    "in": _comparison("in"),
    "integer": lambda frame, value: isinstance(value, int) and not isinstance(value, bool),
    "iterable": lambda frame, value: is_list(value) or isinstance(value, Mapping),
    "le": _comparison("lteq"),
    "lt": _comparison("lt"),
    "mapping": lambda frame, value: isinstance(value, Mapping),
    "ne": _comparison("ne"),
    "none": lambda frame, value: value is None,
    "number": lambda frame, value: is_number(value),
    "odd": lambda frame, value: whole(value) % 2 == 1,
    "sequence": lambda frame, value: is_list(value),
    "string": lambda frame, value: isinstance(value, str),
    "true": lambda frame, value: value is True,
    "truthy": lambda frame, value: bool(value),
}
"""By name. `defined` and `undefined` are part of the evaluator."""


def add(frame: Frame, left: Any, right: Any) -> Any:
    """Add numbers, texts or lists, within bounds."""
    if is_number(left) and is_number(right):
        return bounded_number(left + right)
    if isinstance(left, str) and isinstance(right, str):
        frame.spend((len(left) + len(right)) // 32 + 1)
        return bounded_text(left + right)
    if is_list(left) and is_list(right):
        frame.spend(len(left) + len(right))
        if len(left) + len(right) > LIST_LIMIT:
            raise Fault("a list is too long")
        return [*left, *right]
    raise Fault(f"{kind(left)} and {kind(right)} cannot be added")
