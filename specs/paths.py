"""Which names an expression uses, as far as its text tells: what the checker goes by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import nodes

from specs.frames import DOCUMENTS

Path = tuple[str, ...]

ITEM = "*"
"""In a path: any item of a list."""

Names = Mapping[str, Path | None]
"""Loop variables, and the path of what each stands for, where that is known."""

_SAME_ITEMS = frozenset({"list", "reject", "rejectattr", "select", "selectattr", "sort", "unique"})
_ONE_ITEM = frozenset({"first", "last", "max", "min"})
_OF_LISTS = frozenset({"join", "map", "max", "min", "sum", *_SAME_ITEMS}) - {"list"}
"""Filters that go over a list's items, and fail on a text."""

_FUNCTIONS_OF_LISTS = frozenset({"documents", "nth", "pick", "position"})

_OF_DOCUMENTS: Mapping[str, Path] = {"document": (DOCUMENTS, ITEM), "documents": (DOCUMENTS,)}
"""Functions that take documents out of the corpus, and what they return."""


@dataclass(slots=True)
class Usage:
    """The dotted names that an expression or a template uses.

    Attributes:
        paths: from the scope's own names on; a path ends where an item of a list is taken.
        item_paths: paths that go through items of lists (`("results", "*", "title")`).
        optional: those of both that may be undefined (`is defined`, `default`).
        written: those that are written into the text without being tested: null and empty spoil it.
        listed: those whose items are taken without their being tested: only a list will do.
    """

    paths: set[Path] = field(default_factory=set)
    item_paths: set[Path] = field(default_factory=set)
    optional: set[Path] = field(default_factory=set)
    written: set[Path] = field(default_factory=set)
    listed: set[Path] = field(default_factory=set)


def usage(roots: Sequence[nodes.Node]) -> Usage:
    """Return the usage of a template's statements or of one expression."""
    found = Usage()
    walk = _Walk(found)
    for root in roots:
        walk.visit(root, {}, frozenset())
    return found


class _Walk:
    """One pass over a tree. `names` maps loop variables to the path of what they stand for."""

    def __init__(self, found: Usage) -> None:
        self.found = found
        self.lenient = 0

    def visit(self, node: nodes.Node, names: Names, tested: frozenset[Path]) -> None:
        if isinstance(node, (nodes.Name, nodes.Getattr, nodes.Getitem)):
            self._chain(node, names, tested)
        elif isinstance(node, nodes.For):
            self._for(node, names, tested)
        elif isinstance(node, nodes.If):
            self._if(node, names, tested)
        elif isinstance(node, nodes.CondExpr):
            self._branch(node.test, [node.expr1], [node.expr2], names, tested)
        elif isinstance(node, nodes.And):
            self._branch(node.left, [node.right], [], names, tested)
        elif isinstance(node, nodes.Output):
            for part in node.nodes:
                self._written(part, names, tested)
                self.visit(part, names, tested)
        elif isinstance(node, nodes.Call):
            if _called(node) in _OF_DOCUMENTS:
                self._record((DOCUMENTS,))
            self._listed(
                node.args[:1] if _called(node) in _FUNCTIONS_OF_LISTS else (), names, tested
            )
            for argument in (*node.args, *node.kwargs):
                self.visit(argument, names, tested)
        else:
            self._other(node, names, tested)

    def _other(self, node: nodes.Node, names: Names, tested: frozenset[Path]) -> None:
        lenient = isinstance(node, nodes.Filter) and node.name in ("default", "d")
        lenient |= isinstance(node, nodes.Test) and node.name in ("defined", "undefined")
        self.lenient += lenient
        if isinstance(node, nodes.Filter) and node.node is not None:
            self._attribute(node, names)
            self._listed([node.node] if node.name in _OF_LISTS else (), names, tested)
        for child in node.iter_child_nodes():
            self.visit(child, names, tested)
        self.lenient -= lenient

    def _record(self, path: Path) -> None:
        if ITEM in path:
            self.found.item_paths.add(path)
            self.found.paths.add(path[: path.index(ITEM)])
        else:
            self.found.paths.add(path)
        if self.lenient:
            self.found.optional.add(path)

    def _chain(self, node: Any, names: Names, tested: frozenset[Path]) -> None:
        path = _path(node, names)
        if path:
            self._record(path)
        here: Any = node
        while not isinstance(here, nodes.Name):
            if isinstance(here, nodes.Getitem):
                if _by_number(here.arg):
                    self._listed([here.node], names, tested)
                self.visit(here.arg, names, tested)
            if not isinstance(here, (nodes.Getattr, nodes.Getitem)):
                self.visit(here, names, tested)
                return
            here = here.node
        if path is None and here.name not in names and here.name != "null":
            self._record((here.name,))

    def _attribute(self, node: nodes.Filter, names: Names) -> None:
        """Record what `map(attribute='x')` and its like read of the items."""
        attribute: Any = None
        for keyword in node.kwargs:
            if keyword.key == "attribute":
                attribute = keyword.value
        if node.name in ("selectattr", "rejectattr") and node.args:
            attribute = node.args[0]
        path = _path(node.node, names) if node.node is not None else None
        if path and isinstance(attribute, nodes.Const) and isinstance(attribute.value, str):
            lenient = node.name == "map" and any(one.key == "default" for one in node.kwargs)
            self.lenient += lenient
            self._record((*path, ITEM, *attribute.value.split(".")))
            self.lenient -= lenient

    def _written(self, part: Any, names: Names, tested: frozenset[Path]) -> None:
        """Record what an output writes: the value itself, through filters that keep it a text."""
        if isinstance(part, nodes.Concat):
            for one in part.nodes:
                self._written(one, names, tested)
            return
        while isinstance(part, nodes.Filter) and part.name not in ("default", "d"):
            part = part.node
        path = _path(part, names)
        if path and path not in tested:
            self.found.written.add(path)

    def _listed(
        self, containers: Sequence[nodes.Node], names: Names, tested: frozenset[Path]
    ) -> None:
        paths = (_path(container, names) for container in containers)
        self.found.listed.update(path for path in paths if path and path not in tested)

    def _for(self, node: nodes.For, names: Names, tested: frozenset[Path]) -> None:
        self.visit(node.iter, names, tested)
        self._listed([node.iter], names, tested)
        over = _path(node.iter, names)
        inner: dict[str, Path | None] = {**names, "loop": None}
        if isinstance(node.target, nodes.Name):
            inner[node.target.name] = (*over, ITEM) if over else None
        else:
            inner.update((name.name, None) for name in node.target.find_all(nodes.Name))
        if node.test is not None:
            self.visit(node.test, inner, tested)
        for child in node.body:
            self.visit(child, inner, tested)
        for child in node.else_:
            self.visit(child, names, tested)

    def _if(self, node: nodes.If, names: Names, tested: frozenset[Path]) -> None:
        known = tested
        for one in (node, *node.elif_):
            known = self._branch(one.test, one.body, [], names, known)
        for child in node.else_:
            self.visit(child, names, known)

    def _branch(
        self,
        test: nodes.Node,
        yes: Sequence[nodes.Node],
        no: Sequence[Any],
        names: Names,
        tested: frozenset[Path],
    ) -> frozenset[Path]:
        """Visit a test and its branches, in which whatever the test looks at counts as tested."""
        self.visit(test, names, tested)
        looked = Usage()
        _Walk(looked).visit(test, names, frozenset())
        known = tested | looked.paths | looked.item_paths
        for child in (*yes, *no):
            if child is not None:
                self.visit(child, names, known)
        return known


def _called(node: nodes.Call) -> str:
    return node.node.name if isinstance(node.node, nodes.Name) else ""


def _by_number(key: Any) -> bool:
    """Whether what is in [ ] takes an item of a list, as far as it tells: no text, no slice."""
    text = isinstance(key, nodes.Const) and isinstance(key.value, str)
    return not text and not isinstance(key, nodes.Slice)


def _path(node: Any, names: Names) -> Path | None:
    """Return the dotted path of a chain of attributes, or None when it is no such chain."""
    if isinstance(node, nodes.Name):
        if node.name == "null":
            return None
        return names.get(node.name, (node.name,))
    if isinstance(node, nodes.Filter) and node.node is not None:
        base = _path(node.node, names)
        if base and node.name in _SAME_ITEMS:
            return base
        return (*base, ITEM) if base and node.name in _ONE_ITEM else None
    if isinstance(node, nodes.Getattr):
        base = _path(node.node, names)
        return (*base, node.attr) if base else None
    if isinstance(node, nodes.Getitem):
        base = _path(node.node, names)
        if not base:
            return None
        if isinstance(node.arg, nodes.Slice):
            return base
        key: Any = node.arg
        return (*base, ITEM if _by_number(key) else key.value)
    if isinstance(node, nodes.Call) and _called(node) in _OF_DOCUMENTS:
        return _OF_DOCUMENTS[_called(node)]
    if isinstance(node, nodes.Call) and _called(node) in ("nth", "pick") and node.args:
        base = _path(node.args[0], names)
        return (*base, ITEM) if base else None
    return None
