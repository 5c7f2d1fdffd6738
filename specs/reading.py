"""Reading a domain's YAML nodes into its small parts: texts, expressions, numbers, names.

Invariants: nothing here raises for bad input; what is wrong becomes a finding and a stand-in takes
its place, so that one pass finds everything; no file outside the domain's folder is opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, get_args

from specs import yaml_source as source
from specs.domain import Case, SlotType
from specs.errors import ExpressionError, Finding, Where, nearest
from specs.expressions import Expression, Template
from specs.values import kind_of

PROMPT_LIMIT = 100_000
FINDING_LIMIT = 500
TYPES = frozenset(get_args(SlotType))

_Kind = TypeVar("_Kind", Expression, Template)


class Reader:
    """Reads the parts of one domain and keeps what it found wrong.

    Attributes:
        folder: the domain's folder, resolved.
        file: how the findings name the domain's file.
        files: what else was read, by path inside the folder: the digest covers it.
    """

    def __init__(self, folder: Path, file: str) -> None:
        self.folder = folder
        self.file = file
        self.files: dict[str, bytes] = {}
        self.findings: list[Finding] = []

    def error(self, where: Where, message: str, hint: str = "") -> None:
        """Keep an error."""
        if len(self.findings) < FINDING_LIMIT:
            self.findings.append(Finding(where, message, hint))

    # -- structure

    def mapping(
        self, node: source.Node | None, what: str, known: Iterable[str] | None = None
    ) -> source.Mapping:
        """Return the mapping; an empty one, with a finding, when it is something else.

        Args:
            known: the keys that it may have; None for any.
        """
        if node is None or (isinstance(node, source.Scalar) and node.plain and not node.text):
            return source.Mapping(node.where if node else Where(self.file))
        if not isinstance(node, source.Mapping):
            self.error(node.where, f"{what} must be a mapping (`key: value`)")
            return source.Mapping(node.where)
        if known is not None:
            self._known_keys(node, what, sorted(known))
        return node

    def _known_keys(self, node: source.Mapping, what: str, known: list[str]) -> None:
        unknown = (key for key in node.items if key not in known)
        for key in islice(unknown, FINDING_LIMIT):
            hint = f"known keys: {', '.join(known)}"
            if any(mark in key for mark in "()<>"):
                hint = "inside { } and [ ], put a value that contains a comma in quotes"
            message = f"{what} has no key {key!r}{nearest(key, known)}"
            self.error(node.keys[key].where, message, hint)

    def items(self, node: source.Node | None) -> list[source.Node]:
        """Return a list's items; anything else is a list of one, nothing is an empty list."""
        if node is None or (isinstance(node, source.Scalar) and node.plain and not node.text):
            return []
        return node.items if isinstance(node, source.Sequence) else [node]

    # -- scalars

    def text(self, node: source.Node | None, what: str, default: str = "") -> str:
        """Return a scalar's text."""
        if node is None:
            return default
        if not isinstance(node, source.Scalar):
            self.error(node.where, f"{what} must be text")
            return default
        return node.text.strip()

    def names(self, node: source.Node | None, what: str) -> list[source.Scalar]:
        """Return names, each with its place: a list of them, or a single one."""
        names = []
        for item in self.items(node):
            if isinstance(item, source.Scalar) and item.text.strip():
                names.append(item)
            else:
                self.error(item.where, f"{what} must be names")
        return names

    def flag(self, node: source.Node | None, what: str) -> bool:
        """Return a boolean, false by default."""
        if node is None:
            return False
        value = node.value if isinstance(node, source.Scalar) else None
        if not isinstance(value, bool):
            self.error(node.where, f"{what} must be true or false")
            return False
        return value

    def number(self, node: source.Node | None, what: str, default: float, hint: str = "") -> float:
        """Return a number of at least 0."""
        if node is None:
            return default
        value = node.value if isinstance(node, source.Scalar) else None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.error(node.where, f"{what} must be a number")
            return default
        if value < 0:
            self.error(node.where, f"{what} is below zero", hint or "use 0 to switch it off")
            return default
        return value

    def choice(
        self, node: source.Node | None, what: str, known: Iterable[str], default: str
    ) -> str:
        """Return one of the known words."""
        value = self.text(node, what, default)
        options = sorted(known)
        if value not in options and node is not None:
            hint = f"one of {', '.join(options)}"
            self.error(node.where, f"{what} cannot be {value!r}{nearest(value, options)}", hint)
            return default
        return value

    def json(self, node: source.Node | None, default: Any = None) -> Any:
        """Return a node as JSON data."""
        return default if node is None else source.plain(node)

    # -- expressions and templates

    def expression(self, node: source.Node) -> Expression | None:
        """Return a bare expression; lists and mappings are made of expressions."""
        return self._compiled(Expression, _expression_source(node), node.where)

    def assignments(self, node: source.Node | None, what: str) -> dict[str, Expression]:
        """Return expressions by name."""
        found = {}
        for name, value in self.mapping(node, what).items.items():
            expression = self.expression(value)
            if expression is not None:
                found[name] = expression
        return found

    def template(self, node: source.Node, what: str) -> Template:
        """Return a template, from the scalar or from the file that `{file: ...}` names."""
        if isinstance(node, source.Mapping) and set(node.items) == {"file"}:
            text, where = self._prompt(node)
        elif isinstance(node, source.Scalar):
            text, where = node.text, node.where
        else:
            hint = 'put a template in quotes, as in "{{ doc.title }}", or name a file: {file: ...}'
            self.error(node.where, f"{what} must be text", hint)
            text, where = "?", node.where
        if not text.strip():
            self.error(where, f"{what} is empty")
        return self._compiled(Template, text, where) or Template("?", where)

    def _compiled(self, kind: type[_Kind], text: str, where: Where) -> _Kind | None:
        try:
            return kind(text, where)
        except ExpressionError as error:
            message = str(error).removeprefix(f"{where}: ")
            hint = ""
            if text.count("(") > text.count(")"):
                hint = "inside { } and [ ], put a value that contains a comma in quotes"
            self.error(where, message, hint)
            return None

    def cases(self, node: source.Node | None, what: str) -> tuple[Case, ...]:
        """Return the cases of a `to` or a `next`: a name, or a list of `{when, to}`."""
        cases = []
        for item in self.items(node):
            if isinstance(item, source.Scalar):
                cases.append(Case(item.text.strip(), None, item.where))
                continue
            mapping = self.mapping(item, f"a case of {what}", ("when", "to"))
            target = mapping.items.get("to")
            if not isinstance(target, source.Scalar):
                self.error(item.where, f"a case of {what} needs `to`, a state's name")
                continue
            when = mapping.items.get("when")
            expression = None
            if when is not None:  # one that cannot be read is still no case that always holds
                expression = self.expression(when) or Expression("null", when.where)
            cases.append(Case(target.text.strip(), expression, target.where))
        return tuple(cases)

    # -- files

    def inside(self, node: source.Node, what: str) -> Path | None:
        """Return the path of a file in the domain's folder; a finding when it leaves the folder."""
        name = self.text(node, what)
        if not name or "\0" in name:
            self.error(node.where, f"{what} must be a path inside the domain's folder")
            return None
        try:
            path = (self.folder / name).resolve()
            if not path.is_relative_to(self.folder):
                hint = "copy it into the folder: a domain reads nothing else"
                self.error(node.where, f"{what} {name!r} lies outside the domain's folder", hint)
                return None
            if path.is_file():
                return path
        except (OSError, RuntimeError, ValueError) as error:
            self.error(node.where, f"{what} {name!r} cannot be read: {error}")
            return None
        if path.is_dir():
            self.error(node.where, f"{what} {name!r} is a folder, not a file")
            return None
        if path.exists():
            self.error(node.where, f"{what} {name!r} is no regular file")
            return None
        near = nearest(name, self._listing(path.parent))
        self.error(node.where, f"{what} {name!r} is not there{near}")
        return None

    def _listing(self, folder: Path) -> list[str]:
        if not folder.is_dir():
            return []
        return [str(path.relative_to(self.folder)) for path in sorted(folder.iterdir())[:500]]

    def _prompt(self, node: source.Mapping) -> tuple[str, Where]:
        path = self.inside(node.items["file"], "the prompt file")
        if path is None:
            return "?", node.where
        name = str(path.relative_to(self.folder))
        where = Where(str(Path(self.file).parent / name), 1, 1)
        try:
            with path.open("rb") as stream:
                data = stream.read(PROMPT_LIMIT)
            self.files[name] = data
            return data.decode("utf-8-sig"), where
        except UnicodeDecodeError:
            self.error(where, "the prompt file is not UTF-8", "save the file as UTF-8")
        except OSError as error:
            self.error(where, f"the prompt file cannot be read: {error.strerror}")
        return "?", where


def _expression_source(node: source.Node) -> str:
    """Return a node as the source of an expression: `[doc.id, 3]` reads as a list of the two."""
    if isinstance(node, source.Scalar):
        return "null" if node.plain and not node.text else node.text
    if isinstance(node, source.Sequence):
        return "[" + ", ".join(_expression_source(item) for item in node.items) + "]"
    pairs = (f"{json.dumps(key)}: {_expression_source(one)}" for key, one in node.items.items())
    return "{" + ", ".join(pairs) + "}"


def fits(value: Any, kind: str) -> bool:
    """Whether a value is of a type; null is of every type."""
    if value is None:
        return True
    found = kind_of(value)
    if isinstance(value, dict):
        return False
    if kind in ("text", "id"):
        return found != "list"
    return found == kind or (kind, found) == ("number", "integer")
