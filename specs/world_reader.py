"""Reading what surrounds the graph: memory, goals, roles, tools and their tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from specs import yaml_source as source
from specs.corpus import read_rows
from specs.domain import SIDES, Goal, Json, Outcome, RoleCard, SlotType, Table, Tool, Variable
from specs.errors import Where, nearest
from specs.expressions import Template
from specs.reading import TYPES, Reader, fits
from specs.scopes import PLAYED
from specs.speech_reader import SPEECH_KEYS, read_speech
from specs.values import kind_of

TABLE_LIMIT = 64 * 1024 * 1024
_VARIABLE_KEYS = frozenset({"type", "of", "init", "draw"})
_FREELY = {
    "user": "Reply in your own words, in one or two sentences.",
    "agent": "Answer in a few words what was said, and come back to the point:",
}
"""What a side is told where the graph says nothing, and its role does not say it either."""

_TOOL_KEYS = ("description", "input", "outcomes", "table")


def read_memory(reader: Reader, node: source.Node | None) -> dict[str, Variable]:
    """Return the variables of memory by name."""
    mapping = reader.mapping(node, "`memory`")
    return {name: _variable(reader, name, value) for name, value in mapping.items.items()}


def _variable(reader: Reader, name: str, node: source.Node) -> Variable:
    if not isinstance(node, source.Mapping):
        init = reader.json(node)
        of = kind_of(init[0]) if isinstance(init, list) and init else "text"
        return Variable(name, kind_of(init), node.where, of, init)
    items = reader.mapping(node, f"the variable {name!r}", _VARIABLE_KEYS).items
    draw = _draw(reader, name, items["draw"]) if "draw" in items else ()
    init = reader.json(items.get("init"))
    sample = draw[0][0] if draw else init
    kind = reader.choice(items.get("type"), f"the type of {name!r}", TYPES, kind_of(sample))
    items_type = reader.choice(items.get("of"), f"the items' type of {name!r}", TYPES, "text")
    if kind == "list" and init is None and "init" not in items:
        init = []
    for value in (init, *(value for value, _ in draw)):
        if not fits(value, kind):
            reader.error(
                node.where, f"the variable {name!r} is of type {kind}, and {value!r} is none"
            )
        elif "of" in items and isinstance(value, list):
            for item in value:
                if not fits(item, items_type):
                    message = (
                        f"the items of {name!r} are of type {items_type}, and {item!r} is none"
                    )
                    reader.error(node.where, message)
    return Variable(name, cast(SlotType, kind), node.where, cast(SlotType, items_type), init, draw)


def _draw(reader: Reader, name: str, node: source.Node) -> tuple[tuple[Json, float], ...]:
    mapping = reader.mapping(node, f"`draw` of {name!r}")
    what = f"a probability of {name!r}"
    pairs = tuple(
        (mapping.keys[key].value, reader.number(p, what, 0.0)) for key, p in mapping.items.items()
    )
    _sums_to_one(reader, [p for _, p in pairs], mapping.where, f"the probabilities of {name!r}")
    return pairs


def _sums_to_one(reader: Reader, values: list[float], where: Where, what: str) -> None:
    total = sum(values)
    if abs(total - 1) > 1e-6:
        reader.error(where, f"{what} sum to {total:g}, not to 1")


def read_goals(reader: Reader, node: source.Node | None) -> tuple[Goal, ...]:
    """Return the goals."""
    goals = []
    for item in reader.items(node):
        if isinstance(item, source.Mapping) and "file" not in item.items:
            items = reader.mapping(item, "a goal", ("text", "with")).items
            if "text" not in items:
                reader.error(item.where, "a goal needs `text`")
                continue
            with_ = reader.json(reader.mapping(items.get("with"), "`with`"), {})
            goals.append(Goal(reader.template(items["text"], "a goal"), with_, item.where))
        else:
            goals.append(Goal(reader.template(item, "a goal"), {}, item.where))
    return tuple(goals)


def read_roles(reader: Reader, node: source.Node | None) -> tuple[RoleCard, RoleCard]:
    """Return the cards of the user and the agent."""
    roles = reader.mapping(node, "`roles`", SIDES).items
    cards = []
    for side in SIDES:
        given = roles.get(side)
        what = f"the role {side!r}"
        mapping = reader.mapping(given, what, SPEECH_KEYS | {"name", "system"})
        items = mapping.items
        where = given.where if given is not None else Where(reader.file)
        system = items.get("system")
        template = (
            reader.template(system, "`system`") if system is not None else Template("", where)
        )
        speech = read_speech(reader, mapping, "", what)
        if speech.say is None:
            speech = replace(speech, say=Template(_FREELY[side], where))
        name = reader.text(items.get("name"), "`name`", side) or side
        cards.append(RoleCard(name, template, speech))
    return cards[0], cards[1]


def read_tools(reader: Reader, node: source.Node | None) -> dict[str, Tool]:
    """Return the declared tools by name."""
    tools = {}
    for name, value in reader.mapping(node, "`tools`").items.items():
        if name == "search":
            reader.error(value.where, "`search` is built in and cannot be declared", "rename it")
            continue
        items = reader.mapping(value, f"the tool {name!r}", _TOOL_KEYS).items
        inputs = {
            key: cast(SlotType, reader.choice(kind, f"the type of {key!r}", TYPES, "text"))
            for key, kind in reader.mapping(items.get("input"), "`input`").items.items()
        }
        if "outcomes" in items and "table" in items:
            reader.error(value.where, f"the tool {name!r} has outcomes and a table", "keep one")
        table = items.get("table")
        tools[name] = Tool(
            name=name,
            description=reader.text(items.get("description"), "a description"),
            input=inputs,
            outcomes=_outcomes(reader, items.get("outcomes"), name, inputs),
            table=_table(reader, table, name, inputs) if table is not None else None,
            where=value.where,
        )
    return tools


def _outcomes(
    reader: Reader, node: source.Node | None, tool: str, inputs: dict[str, SlotType]
) -> tuple[Outcome, ...]:
    if node is None:
        return ()
    outcomes = []
    for item in reader.items(node):
        items = reader.mapping(item, "an outcome", ("p", "result")).items
        if "result" not in items:
            reader.error(item.where, "an outcome needs `result`")
        _check_texts(reader, _texts(items.get("result")), tool, inputs)
        p = reader.number(items.get("p"), "`p`", 1.0)
        outcomes.append(Outcome(p, reader.json(items.get("result"))))
    _sums_to_one(
        reader, [one.p for one in outcomes], node.where, f"the probabilities of {tool!r}'s outcomes"
    )
    return tuple(outcomes)


def _texts(node: source.Node | None) -> Iterator[tuple[str, Where]]:
    """Yield the strings of a result, each with its place."""
    if isinstance(node, source.Scalar) and isinstance(node.value, str):
        yield node.text, node.where
    elif isinstance(node, source.Sequence):
        for item in node.items:
            yield from _texts(item)
    elif isinstance(node, source.Mapping):
        for item in node.items.values():
            yield from _texts(item)


def _strings(value: Json, where: Where) -> Iterator[tuple[str, Where]]:
    """Yield the strings of a table's row, all of them at its line."""
    if isinstance(value, str):
        yield value, where
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item, where)


def _check_texts(
    reader: Reader, texts: Iterable[tuple[str, Where]], tool: str, inputs: dict[str, SlotType]
) -> None:
    """Report strings of a result that are no templates, or that use what is not there.

    They see the tool's inputs under `input`, and the scope.
    """
    names = PLAYED | {"input"}
    for text, where in texts:
        if "{" not in text:
            continue
        for path in sorted(reader.template(source.Scalar(text, where), "a result's text").paths):
            if path[0] == "input" and len(path) > 1 and path[1] not in inputs:
                near = nearest(path[1], inputs)
                reader.error(where, f"the tool {tool!r} has no input {path[1]!r}{near}")
            elif path[0] not in names:
                near = nearest(path[0], names)
                message = f"a result of the tool {tool!r}: there is no name {path[0]!r}{near}"
                reader.error(where, message)


def _table(
    reader: Reader, node: source.Node, tool: str, inputs: dict[str, SlotType]
) -> Table | None:
    items = reader.mapping(node, f"the table of {tool!r}", ("path", "match", "otherwise")).items
    if "path" not in items:
        reader.error(node.where, "a table needs `path`, a JSONL file in the domain's folder")
        return None
    match = reader.names(items.get("match"), "`match`")
    for name in match:
        if name.text not in inputs:
            reader.error(name.where, f"`match` names {name.text!r}, which is no input of {tool!r}")
    path = reader.inside(items["path"], "the table")
    placed = _rows(reader, path) if path is not None else []
    rows = tuple(row for _, row in placed)
    for where, row in placed:
        _check_texts(reader, _strings(row, where), tool, inputs)
    _check_texts(reader, _texts(items.get("otherwise")), tool, inputs)
    for name in match:
        if rows and not any(name.text in row for row in rows):
            reader.error(name.where, f"no row of the table has the column {name.text!r}")
    return Table(rows, tuple(name.text for name in match), reader.json(items.get("otherwise")))


def _rows(reader: Reader, path: Path) -> list[tuple[Where, dict[str, Any]]]:
    """Return a table's rows with their places."""
    name = str(path.relative_to(reader.folder))
    file = str(Path(reader.file).parent / name)
    try:
        data = path.read_bytes() if path.stat().st_size <= TABLE_LIMIT else None
    except OSError as error:
        reader.error(Where(file), f"cannot be read: {error}")
        return []
    if data is None:
        reader.error(Where(file), f"is larger than {TABLE_LIMIT >> 20} MiB")
        return []
    reader.files[name] = data
    rows, findings = read_rows(data, path, file)
    reader.findings += findings
    return [(Where(file, number), row) for number, row in rows]
