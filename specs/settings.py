"""`--set key.path=value`: what the command line puts over a run file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from specs.errors import InputError

Location = tuple[str, ...]


def apply(data: dict[str, Any], settings: Sequence[str], model: type[BaseModel]) -> None:
    """Put settings into a run file's data.

    Args:
        settings: the value is TOML where it parses as such and the model does not want text.

    Raises:
        InputError: for a setting of another form.
    """
    typed: dict[Location, str] = {}
    for setting in settings:
        location, text = _parsed(setting)
        typed[location] = text
        _put(data, location, _value(text), setting)
    for location in _wanting_text(data, model) if typed else ():
        if location in typed:  # a name such as 2026 is a number, a date or `inf` in TOML
            _put(data, location, typed[location], "")


def _parsed(setting: str) -> tuple[Location, str]:
    key, found, text = setting.partition("=")
    location = tuple(key.strip().split("."))
    if not found or not all(location):
        raise InputError(f"--set {setting}: is not of the form key.path=value")
    return location, text.strip()


def _put(data: dict[str, Any], location: Location, value: Any, setting: str) -> None:
    *parents, last = location
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise InputError(f"--set {setting}: {parent!r} is a value and has no keys")
    data[last] = value


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _wanting_text(data: dict[str, Any], model: type[BaseModel]) -> list[Location]:
    try:
        model.model_validate(data)
    except ValidationError as error:
        found = [detail for detail in error.errors() if detail["type"] == "string_type"]
        return [tuple(map(str, detail["loc"])) for detail in found]
    return []


def leaves(data: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings of a run file, by their whole keys; a list is one."""
    for name, value in data.items():
        key = f"{above}.{name}" if above else name
        if isinstance(value, Mapping) and value:
            yield from leaves(value, key)
        else:
            yield key, value
