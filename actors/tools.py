"""Tools that a dialogue calls: declared outcomes, tables, and Python tools by entry point.

Invariants: a declared tool is a function of its arguments, the scope and its generator; what a
tool returns is JSON; whatever goes wrong in a tool is a `ToolError` that names it, and ends the
dialogue as a row, never the run.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from specs.domain import Json, SlotType, Table, Tool
from specs.errors import DuologueError, ExpressionError, Where, nearest
from specs.expressions import Expression, Template
from specs.frames import DOCUMENTS

ENTRY_POINTS = "duologue.tools"

DEADLINE_S = 60.0
"""For one call of a Python tool."""


class ToolError(DuologueError):
    """A call that makes no sense, or a tool that failed on it."""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a Python tool gets beside its arguments.

    Attributes:
        tool: the name it was called by.
        scope: a copy of the names that the domain's expressions see (memory, doc, persona, ...),
            without the whole corpus.
        generator: for its draws; the same call of the same dialogue draws the same.
    """

    tool: str
    scope: Mapping[str, Json]
    generator: random.Random


PythonTool: TypeAlias = Callable[[dict[str, Json], ToolContext], Json]
"""`tool(arguments, context)` returns JSON; it runs in a thread and may block for a minute."""


def registered_tools() -> frozenset[str]:
    """Return the names of the Python tools that installed packages register."""
    from importlib.metadata import entry_points

    return frozenset(entry_points(group=ENTRY_POINTS).names)


def declared(tool: Tool) -> bool:
    """Return whether the domain says what comes of it; else a package must register it."""
    return bool(tool.outcomes) or tool.table is not None


async def call_tool(
    tool: Tool,
    arguments: Mapping[str, Json],
    scope: Mapping[str, Json],
    generator: random.Random,
    deadline_s: float = DEADLINE_S,
) -> Json:
    """Run a tool off the event loop where it may block; see `run_tool`."""
    if declared(tool):
        return run_tool(tool, arguments, scope, generator)
    try:
        async with asyncio.timeout(deadline_s):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(
                _threads(), run_tool, tool, arguments, scope, generator
            )
    except TimeoutError:
        raise ToolError(f"tool {tool.name!r} has not answered for {deadline_s:g} s") from None


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    """Threads of their own: a tool that hangs must not stop what else runs in threads."""
    return ThreadPoolExecutor(max_workers=32, thread_name_prefix="tool")


def run_tool(
    tool: Tool,
    arguments: Mapping[str, Json],
    scope: Mapping[str, Json],
    generator: random.Random,
) -> Json:
    """Return what a tool's call brings.

    Args:
        arguments: the inputs, evaluated; each declared input, of its type.
        scope: what templates in results see, beside `input`.
        generator: draws the outcome, and what templates and Python tools draw.

    Raises:
        ToolError: naming the tool, when an input is missing, unknown or of the wrong type, or the
            tool fails or returns what is no JSON.
    """
    _check_inputs(tool, arguments)
    given = dict(arguments)
    if tool.outcomes:
        weights = [outcome.p for outcome in tool.outcomes]
        result = generator.choices(tool.outcomes, weights)[0].result
    elif tool.table is not None:
        result = _looked_up(tool.table, given)
    else:
        seen = {name: value for name, value in scope.items() if name != DOCUMENTS}
        return _call_python(tool, given, ToolContext(tool.name, copy.deepcopy(seen), generator))
    try:
        return _rendered(result, {**scope, "input": given}, generator, tool.where)
    except ExpressionError as error:
        raise ToolError(f"tool {tool.name!r}: {error}") from error


_TYPES: Mapping[SlotType, tuple[type, ...]] = {
    "text": (str,),
    "id": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "list": (list, tuple),
}


def _check_inputs(tool: Tool, arguments: Mapping[str, Json]) -> None:
    known = ", ".join(tool.input) or "none"
    for name in arguments:
        if name not in tool.input:
            raise ToolError(
                f"tool {tool.name!r} has no input {name!r}{nearest(name, list(tool.input))} "
                f"(its inputs: {known})"
            )
    for name, kind in tool.input.items():
        if name not in arguments:
            raise ToolError(f"tool {tool.name!r} is called without its input {name!r}")
        value = arguments[name]
        boolean = isinstance(value, bool)
        if not isinstance(value, _TYPES[kind]) or (boolean and kind != "boolean"):
            raise ToolError(
                f"tool {tool.name!r}: the input {name!r} is {_short(value)}, which is no {kind}"
            )


def _looked_up(table: Table, given: Mapping[str, Json]) -> Json:
    for row in table.rows:
        if all(_same(row.get(column), given.get(column)) for column in table.match):
            return dict(row)
    return table.otherwise


def _same(one: Json, other: Json) -> bool:
    """Equal as JSON: `true` is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _rendered(
    value: Json, scope: Mapping[str, Json], generator: random.Random, where: Where
) -> Json:
    if isinstance(value, str):
        return _leaf(value, where)(scope, generator)
    if isinstance(value, Mapping):
        return {key: _rendered(item, scope, generator, where) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rendered(item, scope, generator, where) for item in value]
    return value


_SINGLE = re.compile(r"\{\{[^-+{][^{]*[^-+]\}\}", re.DOTALL)


@lru_cache(maxsize=4096)
def _leaf(source: str, where: Where) -> Callable[[Mapping[str, Json], random.Random], Json]:
    """Compile a string of a result; one that is a single expression keeps the value's type."""
    text = source.strip()
    if _SINGLE.fullmatch(text):
        try:
            return Expression(text[2:-2].strip(), where).evaluate
        except ExpressionError:
            pass  # several expressions in a row, or an error that the template names better
    return Template(source, where).render


@lru_cache(maxsize=64)
def _load(name: str) -> PythonTool:
    from importlib.metadata import entry_points

    found = list(entry_points(group=ENTRY_POINTS, name=name))
    if not found:
        near = nearest(name, sorted(registered_tools()))
        raise ToolError(
            f"tool {name!r} has neither outcomes nor a table, and no installed package registers "
            f"it under the entry-point group {ENTRY_POINTS!r}{near}"
        )
    try:
        tool = found[0].load()
    except Exception as error:
        raise ToolError(
            f"tool {name!r} ({found[0].value}) does not import: {type(error).__name__}: {error}"
        ) from error
    if not callable(tool):
        raise ToolError(f"tool {name!r} ({found[0].value}) is no callable(arguments, context)")
    loaded: PythonTool = tool
    return loaded


def _call_python(tool: Tool, arguments: dict[str, Json], context: ToolContext) -> Json:
    function = _load(tool.name)
    try:
        result = function(copy.deepcopy(arguments), context)
    except Exception as error:
        raise ToolError(f"tool {tool.name!r} failed: {type(error).__name__}: {error}") from error
    return _as_json(tool.name, result)


def _as_json(name: str, value: Any) -> Json:
    """Return the value as it comes back from JSON, which also makes it the dialogue's own copy."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ToolError(
            f"tool {name!r} returned what is no JSON ({error}): {_short(value)}"
        ) from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
