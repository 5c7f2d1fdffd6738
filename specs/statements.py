"""A template's statements as closures: output, `if` and `for`; there are no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import nodes

from specs.evaluator import CONSTANT_NAMES, Closure, compile_expression, words
from specs.filters import FUNCTIONS
from specs.frames import Fault, Frame, Loop, items_of, kind, text_of
from specs.syntax import SyntaxFault

Writer = Callable[[Frame, list[str]], None]
"""A statement of a template: it appends text."""


def compile_body(body: Sequence[nodes.Node]) -> Writer:
    """Compile a template's statements; raises SyntaxFault for what the language does not have."""
    writers = []
    for node in body:
        build = _STATEMENTS.get(type(node))
        if build is None:
            raise SyntaxFault(f"{words(node)} is not part of the language", node.lineno)
        writers.append(build(node))
    if len(writers) == 1:
        return writers[0]

    def write(frame: Frame, out: list[str]) -> None:
        for writer in writers:
            writer(frame, out)

    return write


def _output(node: Any) -> Writer:
    parts: list[str | Closure] = [
        part.data if isinstance(part, nodes.TemplateData) else compile_expression(part)
        for part in node.nodes
    ]

    fixed = [len(part) for part in parts if isinstance(part, str)]
    size, cost = sum(fixed), sum(length // 32 + 1 for length in fixed)

    def write(frame: Frame, out: list[str]) -> None:
        frame.spend(cost)
        frame.write(size)
        for part in parts:
            if isinstance(part, str):
                out.append(part)
                continue
            text = text_of(part(frame))
            frame.spend(len(text) // 32 + 1)
            frame.write(len(text))
            out.append(text)

    return write


def _if(node: Any) -> Writer:
    branches = [
        (compile_expression(one.test), compile_body(one.body)) for one in (node, *node.elif_)
    ]
    otherwise = compile_body(node.else_)

    def write(frame: Frame, out: list[str]) -> None:
        for test, body in branches:
            if test(frame):
                body(frame, out)
                return
        otherwise(frame, out)

    return write


def _targets(target: Any) -> list[str]:
    names: list[Any] = target.items if isinstance(target, nodes.Tuple) else [target]
    if not all(isinstance(name, nodes.Name) for name in names):
        raise SyntaxFault("a `for` needs a plain name", target.lineno)
    for name in names:
        if name.name.startswith("_") or name.name in ("loop", *CONSTANT_NAMES, *FUNCTIONS):
            raise SyntaxFault(f"the name {name.name!r} cannot be used", name.lineno)
    return [name.name for name in names]


def _bind(names: list[str], item: Any, frame: Frame) -> None:
    if len(names) == 1:
        frame.names[names[0]] = item
        return
    if not isinstance(item, (list, tuple)) or len(item) != len(names):
        raise Fault(f"{kind(item)} cannot be taken apart into {len(names)} names")
    frame.names.update(zip(names, item, strict=True))


def _for(node: Any) -> Writer:
    if node.recursive:
        raise SyntaxFault("recursive loops are not part of the language", node.lineno)
    names, over = _targets(node.target), compile_expression(node.iter)
    test = compile_expression(node.test) if node.test is not None else None
    body, otherwise = compile_body(node.body), compile_body(node.else_)
    cost = 1 + sum(1 for _ in node.find_all(nodes.Node))

    def admitted(frame: Frame, items: Sequence[Any]) -> Sequence[Any]:
        if test is None:
            return items
        kept = []
        for item in items:
            frame.spend(cost)
            _bind(names, item, frame)
            if test(frame):
                kept.append(item)
        return kept

    def write(frame: Frame, out: list[str]) -> None:
        outer = frame.names
        items = items_of(over(frame), frame)
        frame.names = dict(outer)
        items = admitted(frame, items)
        loop = Loop(len(items))
        for index, item in enumerate(items):
            frame.spend(cost)
            frame.turn()
            loop.index0 = index
            frame.names["loop"] = loop
            _bind(names, item, frame)
            body(frame, out)
        frame.names = outer
        if not items:
            otherwise(frame, out)

    return write


_STATEMENTS: Mapping[type, Callable[[Any], Writer]] = {
    nodes.For: _for,
    nodes.If: _if,
    nodes.Output: _output,
}
