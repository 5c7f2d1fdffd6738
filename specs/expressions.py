"""Expressions and templates of the domain language: compiled where they are read, bounded always.

The syntax is Jinja2's, cut to a whitelist (`specs.evaluator`); values are JSON. Look-up goes by
key and never finds a method; what is undefined is an error unless `is defined` or `default` asks
for it. Whatever the source and the scope, an evaluation ends within about a second and 100 MB.

    Expression("memory.page + 1", where).evaluate({"memory": {"page": 0}})   # 1
    Template("Ask for {{ doc.title }}.", where).render({"doc": {"title": "soup"}})
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, TypeVar

from jinja2 import nodes

from specs.errors import ExpressionError, Where
from specs.evaluator import Closure, compile_expression
from specs.frames import Fault, Frame, UndefinedFault
from specs.paths import Path, Usage, usage
from specs.statements import Writer, compile_body
from specs.syntax import SyntaxFault, parse_expression, parse_template, position

_Run = TypeVar("_Run")

_BLANKS = re.compile(r"(?<=\S)[ \t]{2,}")

_FAILURES = (
    Fault,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


class _Source:
    """What expressions and templates share: source, place, the names used, pickling by source."""

    def __init__(self, source: str, where: Where) -> None:
        self.source = source
        self.where = where

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[type[_Source], str, Where]]:
        return _restore, (type(self), self.source, self.where)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.source!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(self)["source"] == vars(other)["source"]

    def __hash__(self) -> int:
        return hash((type(self), self.source))

    def _roots(self) -> list[nodes.Node]:
        raise NotImplementedError

    @cached_property
    def usage(self) -> Usage:
        """What names it uses, and how."""
        return usage(self._roots())

    @property
    def paths(self) -> frozenset[Path]:
        """The dotted names used (`("doc", "title")`), without the loops' own variables."""
        return frozenset(self.usage.paths)

    def _compiled(self, build: Callable[[], _Run]) -> _Run:
        try:
            return build()
        except SyntaxFault as fault:
            place = position(self.source, fault.offset)
            place = f" ({place} of `{_short(self.source)}`)" if place else ""
            raise ExpressionError(f"{self.where}: {fault}{place}") from None
        except RecursionError:
            raise ExpressionError(f"{self.where}: is nested too deeply") from None

    def _failed(self, error: Exception) -> EvaluationError:
        if isinstance(error, Fault):
            return EvaluationError(self, str(error), isinstance(error, UndefinedFault))
        return EvaluationError(self, f"{type(error).__name__}: {error}", False)


def _restore(kind: type[_Source], source: str, where: Where) -> _Source:
    """Return what was pickled; it compiles at its first use, since a process may never use it."""
    made = kind.__new__(kind)
    _Source.__init__(made, source, where)
    return made


class EvaluationError(ExpressionError):
    """An expression or a template that failed on what it was given.

    Attributes:
        reason: the failure alone, without place and source.
        undefined: a name, a key or an item was not there.
    """

    def __init__(self, failed: _Source, reason: str, undefined: bool) -> None:
        super().__init__(f"{failed.where}: {reason} (in `{_short(failed.source)}`)")
        self.failed = failed
        self.reason = reason
        self.undefined = undefined

    def __reduce__(self) -> tuple[type[EvaluationError], tuple[_Source, str, bool]]:
        return EvaluationError, (self.failed, self.reason, self.undefined)


class Expression(_Source):
    """A bare expression, such as `memory.page < 2`.

    Raises ExpressionError when it cannot be parsed, with the place in words.
    """

    def __init__(self, source: str, where: Where) -> None:
        super().__init__(source, where)
        _ = self._run

    @cached_property
    def _run(self) -> Closure:
        return self._compiled(lambda: compile_expression(parse_expression(self.source)))

    @cached_property
    def _fixed(self) -> tuple[Any] | None:
        """The value of a constant, which need not be run: many arguments and settings are one."""
        node = parse_expression(self.source)
        return (node.value,) if isinstance(node, nodes.Const) else None

    def _roots(self) -> list[nodes.Node]:
        return [parse_expression(self.source)]

    def evaluate(self, scope: Mapping[str, Any], draws: random.Random | None = None) -> Any:
        """Return the value, as JSON.

        Args:
            scope: the names that it sees.
            draws: what `pick` draws by; without it, `pick` is an error.

        Raises:
            ExpressionError: when something is undefined, of the wrong type or too large.
        """
        if self._fixed is not None:
            return self._fixed[0]
        try:
            value = self._run(Frame(scope, draws))
        except _FAILURES as error:
            raise self._failed(error) from None
        return list(value) if type(value) is tuple else value

    @cached_property
    def static_type(self) -> str | None:
        """The type that it always has (`text`, `integer`, `number`, ...), if that is known."""
        return _static_type(parse_expression(self.source))


class Template(_Source):
    """A text with `{{ expressions }}` and `{% for %}`, `{% if %}`.

    Raises ExpressionError when it cannot be parsed, with the place in words.
    """

    def __init__(self, source: str, where: Where) -> None:
        super().__init__(source.replace("\r\n", "\n").replace("\r", "\n"), where)
        _ = self._run

    @cached_property
    def _run(self) -> Writer:
        return self._compiled(lambda: compile_body(parse_template(self.source).body))

    @cached_property
    def _constant(self) -> str | None:
        return None if "{" in self.source else _tidy(self.source)

    def _roots(self) -> list[nodes.Node]:
        return list(parse_template(self.source).body)

    @property
    def constant(self) -> bool:
        """Whether it reads the same in every scope."""
        return self._constant is not None or not self.usage.paths

    def render(self, scope: Mapping[str, Any], draws: random.Random | None = None) -> str:
        """Return the text: its ends trimmed, blanks inside a line never doubled, lines kept.

        Args:
            scope: the names that it sees.
            draws: what `pick` draws by; without it, `pick` is an error.

        Raises:
            ExpressionError: when something is undefined, of the wrong type or too large.
        """
        if self._constant is not None:
            return self._constant
        out: list[str] = []
        try:
            self._run(Frame(scope, draws), out)
        except _FAILURES as error:
            raise self._failed(error) from None
        return _tidy("".join(out))


def _tidy(text: str) -> str:
    text = text.strip()
    if "\n" not in text and "  " not in text and "\t" not in text:
        return text
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    return _BLANKS.sub(" ", text)


def _short(source: str) -> str:
    line = " ".join(source[:200].split())
    return line if len(line) <= 80 else line[:77] + "..."


_TYPES: Mapping[type[nodes.Node], str] = {
    nodes.And: "",
    nodes.Compare: "boolean",
    nodes.Concat: "text",
    nodes.Dict: "mapping",
    nodes.Div: "number",
    nodes.FloorDiv: "number",
    nodes.List: "list",
    nodes.Mod: "number",
    nodes.Mul: "number",
    nodes.Neg: "number",
    nodes.Not: "boolean",
    nodes.Sub: "number",
    nodes.Test: "boolean",
    nodes.Tuple: "list",
}

_FILTER_TYPES = {
    **dict.fromkeys(("length", "count", "int"), "integer"),
    **dict.fromkeys(
        ("list", "map", "reject", "rejectattr", "select", "selectattr", "sort", "split", "unique"),
        "list",
    ),
    **dict.fromkeys(
        ("join", "lower", "upper", "title", "capitalize", "sentence", "lower_first", "trim"), "text"
    ),
}


def _static_type(node: nodes.Node) -> str | None:
    if isinstance(node, nodes.Const):
        if node.value is None:
            return "null"
        names = {bool: "boolean", int: "integer", float: "number", str: "text"}
        return names.get(type(node.value))
    if isinstance(node, nodes.Name):
        return "null" if node.name == "null" else None
    if isinstance(node, nodes.Filter):
        return _FILTER_TYPES.get(node.name)
    if isinstance(node, nodes.Call):
        called = node.node.name if isinstance(node.node, nodes.Name) else ""
        return "integer" if called == "position" else None
    return _TYPES.get(type(node)) or None
