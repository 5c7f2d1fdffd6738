"""Calls of tools that are not there, or with arguments that they do not take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any

from specs.domain import Call, Domain
from specs.errors import Finding, nearest

ENTRY_POINTS = "duologue.tools"
SEARCH_ARGUMENTS = ("query", "page", "limit", "min_score", "among")


def tool_findings(domain: Domain, has_corpus: bool) -> Iterator[Finding]:
    """Yield what is wrong with tools and calls; a corpus that could not be read is another's."""
    for state in domain.states.values():
        if state.call is not None:
            yield from _call(domain, state.call, has_corpus)
    called = {state.call.tool for state in domain.states.values() if state.call is not None}
    registered: set[str] | None = None
    for tool in domain.tools.values():
        if tool.name not in called:
            message = f"no state calls the tool {tool.name!r}"
            yield Finding(tool.where, message, "", "warning")
        if not tool.outcomes and tool.table is None:
            if registered is None:
                registered = {one.name for one in entry_points(group=ENTRY_POINTS)}
            if tool.name not in registered:
                message = f"the tool {tool.name!r} has no outcomes, no table and no installed code"
                hint = f"Python tools are registered by the entry-point group {ENTRY_POINTS!r}"
                yield Finding(tool.where, message, hint)


def _call(domain: Domain, call: Call, has_corpus: bool) -> Iterator[Finding]:
    known: Mapping[str, Any] = dict.fromkeys(SEARCH_ARGUMENTS)
    if call.tool == "search":
        if not domain.documents and not has_corpus:
            yield Finding(call.where, "`search` has nothing to search", "add `corpus`")
    elif call.tool in domain.tools:
        known = domain.tools[call.tool].input
        for name in known:
            if name not in call.arguments:
                yield Finding(call.where, f"the tool {call.tool!r} needs {name!r}")
    else:
        names = ["search", *domain.tools]
        message = f"there is no tool {call.tool!r}{nearest(call.tool, names)}"
        yield Finding(call.where, message, f"known tools: {', '.join(names)}")
        return
    for name, expression in call.arguments.items():
        if name not in known:
            message = f"the tool {call.tool!r} has no argument {name!r}{nearest(name, known)}"
            yield Finding(expression.where, message, f"it takes {', '.join(known) or 'none'}")
