"""Parsing of expressions and templates: Jinja2's grammar, with the place of every node.

Jinja2's tokens know their line alone. Here each token carries its offset in the source in the
line's stead, so that every node, and every error of the parser, names the very character.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jinja2 import TemplateSyntaxError, nodes
from jinja2.lexer import TokenStream
from jinja2.parser import Parser
from jinja2.sandbox import SandboxedEnvironment

EXPRESSION_LIMIT = 2_000
TEMPLATE_LIMIT = 20_000
DEPTH_LIMIT = 80
"""Nodes within nodes; what people write stays below twenty."""

_ENVIRONMENT = SandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, cache_size=0)


class SyntaxFault(Exception):
    """Source that cannot be parsed, or that uses what the language does not have."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


def parse_expression(source: str) -> nodes.Expr:
    """Parse a bare expression; raises SyntaxFault."""
    _measure(source, EXPRESSION_LIMIT)
    if not source.strip():
        raise SyntaxFault("the expression is empty")
    if source.lstrip().startswith(("{{", "{%")):
        raise SyntaxFault("a bare expression stands here: leave out the `{{ }}`")
    try:
        parser = _parser(source, "variable")
        node = parser.parse_expression()
        if not parser.stream.eos:
            token = parser.stream.current
            found = "the end" if token.type == "eof" else repr(token.value)
            raise SyntaxFault(f"unexpected {found}", token.lineno)
    except TemplateSyntaxError as error:
        raise SyntaxFault(_message(error), error.lineno) from None
    except RecursionError:
        raise SyntaxFault("the expression is nested too deeply") from None
    _bound_depth(node)
    return node


def parse_template(source: str) -> nodes.Template:
    """Parse a template; raises SyntaxFault."""
    _measure(source, TEMPLATE_LIMIT)
    try:
        node = _parser(source, None).parse()
    except TemplateSyntaxError as error:
        raise SyntaxFault(_message(error), error.lineno) from None
    except RecursionError:
        raise SyntaxFault("the template is nested too deeply") from None
    _bound_depth(node)
    return node


def split_call(source: str) -> tuple[str, list[str]]:
    """Split `name(a, b)` or `name` into the name and the sources of its arguments.

    Raises SyntaxFault when it is neither, or when an argument is named.
    """
    source = source.strip()
    node = parse_expression(source)
    if isinstance(node, nodes.Name):
        return node.name, []
    if not isinstance(node, nodes.Call) or not isinstance(node.node, nodes.Name):
        raise SyntaxFault("is no call", node.lineno)
    if node.kwargs or node.dyn_args is not None or node.dyn_kwargs is not None:
        raise SyntaxFault("has named arguments", node.lineno)
    inside = source[source.index("(") + 1 : source.rindex(")")]
    return node.node.name, _split_arguments(inside)


def _split_arguments(source: str) -> list[str]:
    """Split at the commas that stand in no bracket and in no quotes."""
    parts, start, depth = [], 0, 0
    for offset, kind, value in _tokens(source, "variable"):
        if kind == "operator" and value in "([{":
            depth += 1
        elif kind == "operator" and value in ")]}":
            depth -= 1
        elif kind == "operator" and value == "," and not depth:
            parts.append(source[start:offset])
            start = offset + 1
    return [part.strip() for part in (*parts, source[start:]) if part.strip()]


def position(source: str, offset: int | None) -> str:
    """Say in words where an offset stands: `at character 7`, or `in line 2, at character 7`."""
    if offset is None:
        return ""
    before = source[:offset]
    character = offset - (before.rfind("\n") + 1) + 1
    if "\n" not in source:
        return f"at character {character}"
    return f"in line {before.count(chr(10)) + 1}, at character {character}"


def _measure(source: str, limit: int) -> None:
    if len(source) > limit:
        raise SyntaxFault(f"{len(source):,} characters are too many; {limit:,} are allowed")


def _message(error: TemplateSyntaxError) -> str:
    message = (error.message or "cannot be parsed").rstrip(".")
    return message.replace("'end of template'", "the end").replace("end of template", "end")


def _parser(source: str, state: str | None) -> Parser:
    parser = Parser(_ENVIRONMENT, "", state=state)
    tokens: Iterator[Any] = _ENVIRONMENT.lexer.wrap(_tokens(source, state), None, None)
    parser.stream = TokenStream(tokens, None, None)
    return parser


def _tokens(source: str, state: str | None) -> list[tuple[int, str, str]]:
    """Return the tokens with the offset of each in the place of its line."""
    raw: list[tuple[int, str, str]] = []
    try:
        raw.extend(_ENVIRONMENT.lexer.tokeniter(source, None, None, state))
    except TemplateSyntaxError as error:
        # The lexer names the line alone; it stopped behind the last token that it gave.
        read = [offset + len(value) for offset, _, value in _locate(raw, source)]
        rest = source[read[-1] :] if read else source
        offset = len(source) - len(rest.lstrip())
        raise SyntaxFault(_message(error), offset) from None
    return list(_locate(raw, source))


def _locate(raw: list[tuple[int, str, str]], source: str) -> Iterator[tuple[int, str, str]]:
    """Put offsets in the place of lines. Only white space is ever missing between two tokens."""
    offset = 0
    for _, kind, value in raw:
        found = source.find(value, offset) if value else offset
        offset = found if found >= 0 else offset
        yield offset, kind, value
        offset += len(value)


def _bound_depth(root: nodes.Node) -> None:
    stack: list[tuple[nodes.Node, int]] = [(root, 1)]
    while stack:
        node, depth = stack.pop()
        if depth > DEPTH_LIMIT:
            raise SyntaxFault(f"is nested more than {DEPTH_LIMIT} deep", node.lineno)
        stack.extend((child, depth + 1) for child in node.iter_child_nodes())
