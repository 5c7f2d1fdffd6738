"""What the placeholders of STAR's replies (`{doctor_name:s}`) stand for in results and answers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from specs.star.files import Task
from specs.star.mapping import MappingFile
from specs.star.turns import Heard, Query

PLACEHOLDER = re.compile(r"\{(\w+)(?::\w*)?\}")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def placeholders(*texts: str) -> tuple[str, ...]:
    """Return the names in braces, each once."""
    return tuple(dict.fromkeys(name for text in texts for name in PLACEHOLDER.findall(text)))


def parts(name: str) -> tuple[str, ...]:
    """Return a name's words in lower case: `DoctorName` and `doctor_name` have the same."""
    return tuple(word.lower() for word in _WORD.findall(name))


def snake(parameter: str) -> str:
    """Return a parameter's name as slots and inputs have it; `id` is the document's own."""
    name = "_".join(parts(parameter)) or parameter.lower()
    return "number" if name == "id" else name


@dataclass(frozen=True, slots=True)
class Field:
    """What a placeholder stands for: a field of a query's result, or an answer (`query` empty).

    Attributes:
        names: the fields of which a result has one.
        column: its name in the table of results.
        exact: its name is the placeholder's; else it is a guess.
        listed: its value is a list, which is told item by item.
    """

    query: str
    names: tuple[str, ...]
    column: str
    exact: bool = True
    listed: bool = False

    def value(self, item: Mapping[str, Any]) -> Any:
        """Return an item's value of it; None where it has none, or nothing in it."""
        found = next((item[name] for name in self.names if name in item), None)
        return None if found in ("", []) else found


def nearest_field(name: str, known: Iterable[str]) -> tuple[str, bool] | None:
    """Return the field that a placeholder's name means, and whether it is the very name.

    Next to the very name come names of which one has all the words of the other.
    """
    wanted = parts(name)
    names = sorted(known)
    for one in names:
        if parts(one) == wanted:
            return one, True
    inside = [
        one for one in names if set(parts(one)) <= set(wanted) or set(wanted) <= set(parts(one))
    ]
    if not inside:
        return None
    return min(inside, key=lambda one: (abs(len(parts(one)) - len(wanted)), one)), False


def is_listed(names: Iterable[str], queries: Iterable[Query]) -> bool:
    """Whether results have lists under one of these names."""
    wanted = tuple(names)
    return any(isinstance(one.item.get(name), list) for one in queries for name in wanted)


def telling(task: Task, heard: Heard, mapping: MappingFile) -> list[str]:
    """Return the states that tell a list item by item."""
    items = {name for one in heard.queries for name in one.item}
    found = []
    for state, texts in task.said.items():
        for name in placeholders(*texts):
            near = nearest_field(name, items)
            fields = mapping.fields.get(name) or ((near[0],) if near else ())
            if is_listed((one.rpartition(".")[2] for one in fields), heard.queries):
                found.append(state)
    return list(dict.fromkeys(found))


def resolve(
    name: str,
    mapping: MappingFile,
    results: Mapping[str, Sequence[Query]],
    parameters: Sequence[str],
) -> Field | None:
    """Return what a placeholder stands for; None where nothing is like it.

    Args:
        results: by query, the nearest before the reply first.
        parameters: what the user is asked for.
    """
    given = mapping.fields.get(name)
    if given:
        return _given(name, given, results, parameters)
    for exact in (True, False):
        for query, queries in results.items():
            near = nearest_field(name, _usual(queries))
            if near is not None and near[1] == exact:
                listed = is_listed([near[0]], queries)
                return Field(query, (near[0],), near[0], exact, listed)
        near = nearest_field(name, parameters)
        if near is not None and near[1] == exact:
            return Field("", (near[0],), snake(near[0]), exact)
    return None


def _given(
    name: str,
    given: tuple[str, ...],
    results: Mapping[str, Sequence[Query]],
    parameters: Sequence[str],
) -> Field | None:
    fields = tuple(one.rpartition(".")[2] for one in given)
    named = given[0].rpartition(".")[0]
    for query, queries in results.items():
        if named in ("", query) and any(one in item.item for item in queries for one in fields):
            column = fields[0] if len(fields) == 1 else name
            return Field(query, fields, column, True, is_listed(fields, queries))
    if fields[0] in parameters:
        return Field("", fields[:1], snake(fields[0]))
    return None


def _usual(queries: Sequence[Query]) -> list[str]:
    """Return the fields that results often have."""
    count = Counter(name for one in queries for name in one.item)
    return [name for name, times in count.items() if times * 5 >= len(queries)]
