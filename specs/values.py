"""JSON values in the types that slots and memory have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from specs.domain import SlotType

LARGEST = 100_000
"""Items that a value may hold, those of its items counted in."""


def oversized(value: Any) -> bool:
    """Whether a value holds more than `LARGEST` items; what is in it twice counts twice."""
    if not isinstance(value, list | tuple | Mapping):
        return False
    stack, held = [value], 0
    while stack and held <= LARGEST:
        one = stack.pop()
        if isinstance(one, list | tuple | Mapping):
            held += len(one)
            stack.extend(one.values() if isinstance(one, Mapping) else one)
    return held > LARGEST


def typed(kind: SlotType, value: Any) -> Any:
    """Return a value in a type; None stays None.

    Raises:
        TypeError, ValueError, OverflowError: when it is of another type.
    """
    if value is None:
        return None
    if kind in ("text", "id"):
        if isinstance(value, list | dict):
            raise TypeError
        return str(value)
    if kind == "integer":
        return _integer(value)
    if kind == "number":
        return _number(value)
    if kind == "boolean":
        return _boolean(value)
    if not isinstance(value, list | tuple):
        raise TypeError
    return list(value)


def _integer(value: Any) -> int:
    if isinstance(value, str):
        with suppress(ValueError):  # "3.0" is none, and yet whole
            return int(value)
    number = _number(value)
    if number != int(number):
        raise ValueError
    return int(number)


def _number(value: Any) -> int | float:
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, int):
        return value  # as it is: a float holds 53 bits of it
    number = float(value)
    if not math.isfinite(number):
        raise ValueError  # JSON has no such number
    return number


def _boolean(value: Any) -> bool:
    if isinstance(value, str):
        if value.strip().lower() not in ("true", "false"):
            raise ValueError
        return value.strip().lower() == "true"
    return bool(value)


def kind_of(value: Any) -> SlotType:
    """Return the type that a value is written in."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "list" if isinstance(value, list) else "text"
