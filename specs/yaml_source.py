"""YAML with positions: a light tree of nodes, from the parser's events alone.

Invariants: no constructor of YAML ever runs; scalars are those of YAML 1.2's core schema without
octal and hexadecimal numbers (`yes`, `on` and `2024-01-01` are text, `true` is a boolean); keys are
text and unique; anchors, aliases and tags are findings; size and depth are capped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from specs.errors import Finding, Where

SIZE_LIMIT = 2_000_000
DEPTH_LIMIT = 30
NODE_LIMIT = 200_000

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,14})")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,20}|[0-9]{1,20}(\.[0-9]{0,20})?)([eE][-+]?[0-9]{1,3})?")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(slots=True)
class Scalar:
    """A scalar: `text` as it stands there, `value` with its type; quoted scalars are text."""

    text: str
    where: Where
    plain: bool = False

    @property
    def value(self) -> Any:
        """The typed value: text, integer, float, boolean or None."""
        if not self.plain:
            return self.text
        if self.text in _WORDS:
            return _WORDS[self.text]
        if _INTEGER.fullmatch(self.text):
            return int(self.text)
        if _FLOAT.fullmatch(self.text) and not re.match(r"[-+]?0[0-9]", self.text):
            number = float(self.text)
            return number if abs(number) < 1e300 else self.text
        return self.text


@dataclass(slots=True)
class Sequence:
    """A list of nodes."""

    where: Where
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Mapping:
    """Nodes by key, in the order of the file, and where each key stands."""

    where: Where
    items: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, Scalar] = field(default_factory=dict)


Node = Scalar | Sequence | Mapping


def plain(node: Node) -> Any:
    """Return a node as JSON data; keys are text."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return {key: plain(value) for key, value in node.items.items()}


def read_yaml(data: bytes, file: str) -> tuple[Node | None, list[Finding]]:
    """Read one YAML document.

    Args:
        data: the file's bytes, UTF-8.
        file: how the findings name the file.

    Returns:
        The tree, and what is wrong; no tree when it was cut off by what is not YAML, since
        what stands behind that would seem to be missing.
    """
    if len(data) > SIZE_LIMIT:
        message = f"{len(data):,} bytes are too many; {SIZE_LIMIT:,} are allowed"
        return None, [Finding(Where(file), message)]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        return None, [Finding(Where(file, line), "is not UTF-8", "save the file as UTF-8")]
    builder, whole = _Builder(file), False
    try:
        whole = all(builder.take(event) for event in _events(text)) or builder.ended
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Where(file, mark.line + 1, mark.column + 1) if mark else Where(file)
        context = f"{error.context}: " if error.context else ""
        builder.findings.append(
            Finding(where, f"is not YAML: {context}{error.problem}", _hint(error))
        )
    except yaml.YAMLError as error:
        builder.findings.append(
            Finding(Where(file), f"is not YAML: {' '.join(str(error).split())}")
        )
    except (RecursionError, ValueError) as error:
        builder.findings.append(Finding(Where(file), f"is not YAML: {type(error).__name__}"))
    return builder.root if whole else None, builder.findings


def _events(text: str) -> Iterator[Any]:
    yield from yaml.parse(text, Loader=_Loader)


def _hint(error: yaml.MarkedYAMLError) -> str:
    if "mapping values are not allowed" in str(error.problem):
        return "put a text that contains `: ` in quotes"
    if "cannot start any token" in str(error.problem):
        return "put a text that starts so in quotes, or indent with spaces in place of tabs"
    if "flow" in str(error.context):
        return 'put a text with `{`, `[`, `,` or `%` in quotes, as in "{{ doc.title }}"'
    return ""


class _Builder:
    """Builds the tree from events, with a stack of its own, so that depth costs no recursion."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.root: Node | None = None
        self.findings: list[Finding] = []
        self._stack: list[tuple[Sequence | Mapping, list[Scalar | None]]] = []
        self._nodes = 0
        self._documents = 0

    @property
    def ended(self) -> bool:
        """Whether the first document was read to its end."""
        return self._documents > 1

    def take(self, event: Any) -> bool:
        """Take one event; returns False when reading on makes no sense."""
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._find(event, "a second document (`---`) is not read", "use one file each")
                return False
        elif isinstance(event, yaml.AliasEvent):
            self._find(event, f"aliases (`*{event.anchor}`) are not allowed", "write it out")
            self._put(Scalar("", self._where(event), plain=True))
        elif isinstance(event, yaml.ScalarEvent):
            self._check(event)
            plainly = event.style is None or event.style == ""
            self._put(Scalar(event.value, self._where(event), plainly and event.implicit[0]))
        elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            return self._open(event)
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            self._stack.pop()
        self._nodes += 1
        if self._nodes > NODE_LIMIT:
            self._find(event, f"more than {NODE_LIMIT:,} values are too many")
            return False
        return True

    def _open(self, event: Any) -> bool:
        self._check(event)
        where = self._where(event)
        node = Sequence(where) if isinstance(event, yaml.SequenceStartEvent) else Mapping(where)
        self._put(node)
        self._stack.append((node, [None]))
        if len(self._stack) > DEPTH_LIMIT:
            self._find(event, f"is nested more than {DEPTH_LIMIT} deep")
            return False
        return True

    def _where(self, event: Any) -> Where:
        mark = event.start_mark
        return Where(self.file, mark.line + 1, mark.column + 1)

    def _find(self, event: Any, message: str, hint: str = "") -> None:
        if len(self.findings) < 100:
            self.findings.append(Finding(self._where(event), message, hint))

    def _check(self, event: Any) -> None:
        if event.anchor is not None:
            self._find(event, f"anchors (`&{event.anchor}`) are not allowed", "write it out")
        if event.tag is not None and event.tag != "!":
            hint = "put a text that starts with `!` in quotes"
            self._find(event, f"tags (`{event.tag}`) are not allowed", hint)

    def _put(self, node: Node) -> None:
        if not self._stack:
            self.root = node
            return
        parent, pending = self._stack[-1]
        if isinstance(parent, Sequence):
            parent.items.append(node)
        elif pending[0] is None:
            pending[0] = self._key(node)
        else:
            key, pending[0] = pending[0], None
            if key.text in parent.items:
                first = parent.keys[key.text].where.line
                message = f"the key {key.text!r} stands here twice (first in line {first})"
                self.findings.append(Finding(key.where, message, "keep one of the two"))
                return
            parent.items[key.text] = node
            parent.keys[key.text] = key

    def _key(self, node: Node) -> Scalar:
        if isinstance(node, Scalar):
            return node
        self.findings.append(Finding(node.where, "a list or a mapping cannot be a key", _KEY_HINT))
        return Scalar(f"(key in line {node.where.line})", node.where)


_KEY_HINT = 'put a template in quotes: say: "{{ doc.title }}"'
