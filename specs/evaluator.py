"""Syntax trees into closures: the language's evaluator.

Invariants: only the node types named here exist, everything else is refused when it is compiled;
no Python code is generated and no attribute of a Python object is ever read; a closure holds no
state, so that threads share it; every loop pays from the frame's budget.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import nodes

from specs.comparisons import TESTS, add, compare
from specs.errors import nearest
from specs.filters import FILTERS, FUNCTIONS
from specs.frames import (
    TEXT_LIMIT,
    Fault,
    Frame,
    UndefinedFault,
    bounded_number,
    is_number,
    kind,
    member,
    text_of,
)
from specs.syntax import SyntaxFault

Closure = Callable[[Frame], Any]

CONSTANT_NAMES = frozenset({"null"})


def compile_expression(node: nodes.Node) -> Closure:
    """Compile an expression's tree; raises SyntaxFault for what the language does not have."""
    build = _EXPRESSIONS.get(type(node))
    if build is None:
        raise SyntaxFault(f"{words(node)} is not part of the language", node.lineno)
    return build(node)


def words(node: nodes.Node) -> str:
    """Name a node that the language does not have."""
    names = {"Pow": "`**`", "Assign": "`set`", "Call": "a call", "Mul": "`*`"}
    name = type(node).__name__
    return names.get(name, f"`{name.lower()}`")


def _const(node: Any) -> Closure:
    value = node.value
    if is_number(value):
        try:
            bounded_number(value)
        except Fault as fault:
            raise SyntaxFault(str(fault), node.lineno) from None
    elif not (value is None or isinstance(value, (str, bool))):
        raise SyntaxFault(f"{kind(value)} is no constant", node.lineno)
    return lambda frame: value


def _name(node: Any) -> Closure:
    name = node.name
    if node.ctx != "load" or name.startswith("_"):
        raise SyntaxFault(f"the name {name!r} cannot be used", node.lineno)
    if name in CONSTANT_NAMES:
        return lambda frame: None
    if name in FUNCTIONS:
        raise SyntaxFault(f"`{name}` is a function and needs its arguments", node.lineno)

    def run(frame: Frame) -> Any:
        if not frame.names and name in frame.scope:
            return frame.scope[name]
        return frame.look_up(name)

    return run


def _getattr(node: Any) -> Closure:
    base, key = compile_expression(node.node), node.attr

    def run(frame: Frame) -> Any:
        value = base(frame)
        if type(value) is dict and key in value:
            return value[key]
        return member(value, key)

    return run


def _getitem(node: Any) -> Closure:
    base = compile_expression(node.node)
    if isinstance(node.arg, nodes.Slice):
        return _slice(base, node.arg)
    key = compile_expression(node.arg)
    return lambda frame: member(base(frame), key(frame))


def _slice(base: Closure, node: nodes.Slice) -> Closure:
    if node.step is not None:
        raise SyntaxFault("a slice has no step here", node.lineno)
    start = compile_expression(node.start) if node.start is not None else None
    stop = compile_expression(node.stop) if node.stop is not None else None

    def bound(part: Closure | None, frame: Frame) -> int | None:
        value = part(frame) if part else None
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise Fault(f"a slice goes by whole numbers, not by {kind(value)}")
        return value

    def run(frame: Frame) -> Any:
        value = base(frame)
        if not isinstance(value, (str, list, tuple)):
            raise Fault(f"{kind(value)} cannot be sliced")
        frame.spend(len(value) // 32 + 1 if isinstance(value, str) else len(value) + 1)
        return value[bound(start, frame) : bound(stop, frame)]

    return run


def _items(node: Any) -> Closure:
    parts = [compile_expression(item) for item in node.items]
    return lambda frame: [part(frame) for part in parts]


def _dict(node: Any) -> Closure:
    pairs = [(compile_expression(one.key), compile_expression(one.value)) for one in node.items]

    def run(frame: Frame) -> Any:
        return {text_of(key(frame)): value(frame) for key, value in pairs}

    return run


def _arithmetic(symbol: str, apply: Callable[[Any, Any], Any]) -> Callable[[Any], Closure]:
    def build(node: Any) -> Closure:
        left, right = compile_expression(node.left), compile_expression(node.right)

        def run(frame: Frame) -> Any:
            one, other = left(frame), right(frame)
            if not (is_number(one) and is_number(other)):
                raise Fault(f"`{symbol}` takes numbers, not {kind(one)} and {kind(other)}")
            try:
                return bounded_number(apply(one, other))
            except ZeroDivisionError:
                raise Fault("division by zero") from None

        return run

    return build


def _add(node: Any) -> Closure:
    left, right = compile_expression(node.left), compile_expression(node.right)

    def run(frame: Frame) -> Any:
        one, other = left(frame), right(frame)
        if type(one) is int and type(other) is int:
            return bounded_number(one + other)
        return add(frame, one, other)

    return run


def _sign(negative: bool) -> Callable[[Any], Closure]:
    def build(node: Any) -> Closure:
        part = compile_expression(node.node)

        def run(frame: Frame) -> Any:
            value = part(frame)
            if not is_number(value):
                raise Fault(f"{kind(value)} has no sign")
            return -value if negative else value

        return run

    return build


def _concat(node: Any) -> Closure:
    parts = [compile_expression(part) for part in node.nodes]

    def run(frame: Frame) -> str:
        texts = [text_of(part(frame)) for part in parts]
        size = sum(map(len, texts))
        if size > TEXT_LIMIT:
            raise Fault("a text is too long")
        frame.spend(size // 32 + 1)
        return "".join(texts)

    return run


def _and(node: Any) -> Closure:
    left, right = compile_expression(node.left), compile_expression(node.right)
    return lambda frame: left(frame) and right(frame)


def _or(node: Any) -> Closure:
    left, right = compile_expression(node.left), compile_expression(node.right)
    return lambda frame: left(frame) or right(frame)


def _not(node: Any) -> Closure:
    part = compile_expression(node.node)
    return lambda frame: not part(frame)


def _compare(node: Any) -> Closure:
    first = compile_expression(node.expr)
    rest = [(operand.op, compile_expression(operand.expr)) for operand in node.ops]
    if len(rest) == 1 and rest[0][0] in _OF_NUMBERS:
        return _compare_one(first, *rest[0])

    def run(frame: Frame) -> bool:
        left = first(frame)
        for op, part in rest:
            right = part(frame)
            if not compare(frame, op, left, right):
                return False
            left = right
        return True

    return run


_OF_NUMBERS: Mapping[str, Callable[[int, int], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
}


def _compare_one(first: Closure, op: str, second: Closure) -> Closure:
    """Compile the comparison of two values: of two whole numbers, nearly always."""
    of_numbers = _OF_NUMBERS[op]

    def run(frame: Frame) -> bool:
        left, right = first(frame), second(frame)
        if type(left) is int and type(right) is int:
            return of_numbers(left, right)
        return compare(frame, op, left, right)

    return run


def _conditional(node: Any) -> Closure:
    if node.expr2 is None:
        raise SyntaxFault("an `if` inside an expression needs an `else`", node.lineno)
    test = compile_expression(node.test)
    yes, no = compile_expression(node.expr1), compile_expression(node.expr2)
    return lambda frame: yes(frame) if test(frame) else no(frame)


def _arguments(
    node: Any, function: Callable[..., Any], extra: int
) -> tuple[list[Closure], dict[str, Closure]]:
    """Compile a call's arguments; raises SyntaxFault when they do not fit the function."""
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        raise SyntaxFault("`*` and `**` are not allowed in arguments", node.lineno)
    keywords = {one.key: compile_expression(one.value) for one in node.kwargs}
    try:
        inspect.signature(function).bind(*[None] * (extra + len(node.args)), **keywords)
    except TypeError as error:
        name = getattr(node, "name", None) or node.node.name
        raise SyntaxFault(f"wrong arguments for `{name}`: {error}", node.lineno) from None
    return [compile_expression(argument) for argument in node.args], keywords


def _filter(node: Any) -> Closure:
    if node.node is None:
        raise SyntaxFault("filter blocks are not part of the language", node.lineno)
    value = compile_expression(node.node)
    if node.name in ("default", "d"):
        return _default(node, value)
    function = FILTERS.get(node.name)
    if function is None:
        near = nearest(node.name, [*FILTERS, "default"])
        raise SyntaxFault(f"there is no filter {node.name!r}{near}", node.lineno)
    arguments, keywords = _arguments(node, function, 2)
    return _applied(function, [value, *arguments], keywords)


def _applied(
    function: Callable[..., Any], arguments: list[Closure], keywords: dict[str, Closure]
) -> Closure:
    """Compile a function's call on the frame and its arguments; most have one or two."""
    if len(arguments) == 1 and not keywords:
        (only,) = arguments
        return lambda frame: function(frame, only(frame))
    if len(arguments) == 2 and not keywords:
        first, second = arguments
        return lambda frame: function(frame, first(frame), second(frame))

    def run(frame: Frame) -> Any:
        return function(
            frame,
            *[argument(frame) for argument in arguments],
            **{key: argument(frame) for key, argument in keywords.items()},
        )

    return run


def _default(node: Any, value: Closure) -> Closure:
    def signature(frame: Any, value: Any, default_value: Any = "", boolean: Any = False) -> None:
        """Mirror Jinja2's own."""

    arguments, keywords = _arguments(node, signature, 2)
    default = arguments[0] if arguments else keywords.get("default_value")
    boolean = arguments[1] if len(arguments) > 1 else keywords.get("boolean")

    def run(frame: Frame) -> Any:
        try:
            found = value(frame)
        except UndefinedFault:
            pass
        else:
            if found or boolean is None or not boolean(frame):
                return found
        return default(frame) if default else ""

    return run


def _defined(value: Closure, wanted: bool) -> Closure:
    def run(frame: Frame) -> bool:
        try:
            value(frame)
        except UndefinedFault:
            return not wanted
        return wanted

    return run


def _test(node: Any) -> Closure:
    value = compile_expression(node.node)
    if node.name in ("defined", "undefined"):
        return _defined(value, node.name == "defined")
    function = TESTS.get(node.name)
    if function is None:
        near = nearest(node.name, [*TESTS, "defined"])
        raise SyntaxFault(f"there is no test {node.name!r}{near}", node.lineno)
    arguments, keywords = _arguments(node, function, 2)
    if keywords:
        raise SyntaxFault("a test has no named arguments", node.lineno)
    return lambda frame: function(frame, value(frame), *[part(frame) for part in arguments])


def _call(node: Any) -> Closure:
    if not isinstance(node.node, nodes.Name) or node.node.name not in FUNCTIONS:
        called = node.node.name if isinstance(node.node, nodes.Name) else "this"
        known = ", ".join(FUNCTIONS)
        raise SyntaxFault(f"`{called}` cannot be called; the functions are {known}", node.lineno)
    function = FUNCTIONS[node.node.name]
    return _applied(function, *_arguments(node, function, 1))


_EXPRESSIONS: Mapping[type, Callable[[Any], Closure]] = {
    nodes.Add: _add,
    nodes.And: _and,
    nodes.Compare: _compare,
    nodes.Concat: _concat,
    nodes.CondExpr: _conditional,
    nodes.Const: _const,
    nodes.Call: _call,
    nodes.Dict: _dict,
    nodes.Div: _arithmetic("/", operator.truediv),
    nodes.Filter: _filter,
    nodes.FloorDiv: _arithmetic("//", operator.floordiv),
    nodes.Getattr: _getattr,
    nodes.Getitem: _getitem,
    nodes.List: _items,
    nodes.Mod: _arithmetic("%", operator.mod),
    nodes.Mul: _arithmetic("*", operator.mul),
    nodes.Name: _name,
    nodes.Neg: _sign(True),
    nodes.Not: _not,
    nodes.Or: _or,
    nodes.Pos: _sign(False),
    nodes.Sub: _arithmetic("-", operator.sub),
    nodes.Test: _test,
    nodes.Tuple: _items,
}
