"""A mapping file: what a person says about a STAR task where its graph says nothing, or wrongly.

task: trip_directions
describe: "Gives directions."                             # the domain's description
slots: {trip_ask_departure_time: [DepartureTime]}         # what an answer carries; [] for nothing
choices: {TravelMode: [Walking, Driving]}                 # an answer each; [] for none such
optional: [DepartureTime]                                 # what a user may have nothing to say of
fields: {simple_instruction: [WalkingInstructions]}       # what a placeholder stands for
messages: {query_failure: [no route]}                     # words of a result that went so
conditions:
  yes: {after: trip_inform_simple_step_ask_proceed}       # the user says so, in that state
  query_success: {of: query}                              # a query goes so
  info_missing: {missing: [bank_ask_pin]}                 # the user has no such thing to say
  done: {over: trip_inform_simple_step_ask_proceed}       # what it tells step by step has ended
edges: [{from: trip_inform_detailed_step, as: yes, to: ...}]  # in the place of the graph's own
leave_out: [trip_inform_last_step_and_done]               # on purpose, so that nothing is said
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from specs import yaml_source as source
from specs.errors import Finding, InputError, Where, nearest
from specs.reading import Reader
from specs.star.files import Task, query
from specs.star.turns import Heard

SHIPPED = Path(__file__).parent / "mappings"

Kind = Literal["after", "of", "missing", "over"]
KINDS: tuple[Kind, ...] = ("after", "of", "missing", "over")
_KEYS = (
    "task",
    "describe",
    "slots",
    "choices",
    "optional",
    "fields",
    "messages",
    "conditions",
    "edges",
    "leave_out",
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a condition is: an answer `after` a state, how a query went (`of`), and the like."""

    kind: Kind
    at: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Added:
    """An edge that the graph lacks, or in the place of its own; `condition` is what it means.

    Several from one state are several ways on. One without a condition that leads right to the
    first query, from the start or, beside another way, from behind it, is that of a user who says
    at once all that the query needs.
    """

    from_: str
    to: str
    condition: str = ""


@dataclass(frozen=True, slots=True)
class MappingFile:
    """One mapping file, read; an empty one where nobody wrote any.

    Attributes:
        optional: None where it says nothing of that.
    """

    task: str
    file: str = ""
    describe: str = ""
    slots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    optional: frozenset[str] | None = None
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    messages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    conditions: Mapping[str, Meaning] = field(default_factory=dict)
    edges: tuple[Added, ...] = ()
    leave_out: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """How messages name it: the file, or the one that is still to be written."""
        return self.file or f"{self.task}.yaml"


def shipped(task: str) -> Path | None:
    """Return the mapping file that is shipped for a task."""
    path = SHIPPED / f"{task}.yaml"
    return path if path.is_file() else None


def task_of(path: Path) -> str:
    """Return the task that a mapping file is for.

    Raises:
        InputError: it cannot be read, or names none.
    """
    root, reader = _open(path)
    name = root.items.get("task")
    if not isinstance(name, source.Scalar) or not name.text.strip():
        hint = "its first line says whose it is: task: weather"
        reader.error(root.where, "a mapping file needs `task`", hint)
    if reader.findings:
        raise InputError(reader.findings)
    assert isinstance(name, source.Scalar)
    return name.text.strip()


def read_mapping(path: Path, task: Task, heard: Heard) -> MappingFile:
    """Read a mapping file and hold it against its task.

    Raises:
        InputError: with every name that is not there and every value that cannot be.
    """
    root, reader = _open(path)
    reader.mapping(root, "a mapping file", _KEYS)
    known = _Known.of(task, heard)
    items = root.items
    conditions = {
        name: meaning
        for name, meaning in _conditions(reader, items.get("conditions"), known)
        if meaning is not None
    }
    optional = _names(reader, items.get("optional"), "optional", known.parameters)
    found = MappingFile(
        task=reader.text(items.get("task"), "`task`"),
        file=str(path),
        describe=reader.text(items.get("describe"), "`describe`"),
        slots=_lists(reader, items.get("slots"), "slots", known.states, known.parameters),
        choices=_lists(reader, items.get("choices"), "choices", known.parameters, known.values),
        optional=frozenset(optional) if "optional" in items else None,
        fields=_lists(reader, items.get("fields"), "fields", known.placeholders, known.fields),
        messages=_lists(reader, items.get("messages"), "messages", known.conditions, None),
        conditions=conditions,
        edges=_edges(reader, items.get("edges"), known),
        leave_out=frozenset(_names(reader, items.get("leave_out"), "leave_out", known.labels)),
    )
    if reader.findings:
        raise InputError(reader.findings)
    return found


@dataclass(frozen=True, slots=True)
class _Known:
    """The names that a task and its dialogues have, by kind."""

    labels: tuple[str, ...]
    states: tuple[str, ...]
    queries: tuple[str, ...]
    conditions: tuple[str, ...]
    parameters: tuple[str, ...]
    values: tuple[str, ...]
    placeholders: tuple[str, ...]
    fields: tuple[str, ...]

    @classmethod
    def of(cls, task: Task, heard: Heard) -> _Known:
        from specs.star.fields import placeholders

        labels = tuple(task.known())
        queries = tuple(one for one in labels if one not in task.said and query(one))
        parameters = {name for one in heard.queries for name in one.asked}
        items = {name for one in heard.queries for name in one.item}
        slots = {slot for texts in task.said.values() for slot in placeholders(*texts)}
        return cls(
            labels=labels,
            states=tuple(task.said),
            queries=queries,
            conditions=tuple(one for one in labels if one not in task.said and one not in queries),
            parameters=tuple(sorted(parameters)),
            values=tuple(sorted(heard.vocabulary())),
            placeholders=tuple(sorted(slots)),
            fields=(
                *sorted(items | parameters),
                *(f"{q}.{i}" for q in queries for i in sorted(items)),
            ),
        )


def _open(path: Path) -> tuple[source.Mapping, Reader]:
    try:
        data = path.read_bytes()
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise InputError([Finding(Where(str(path)), message)]) from None
    root, findings = source.read_yaml(data, str(path))
    if findings or root is None:
        raise InputError(findings or [Finding(Where(str(path)), "the file is empty")])
    reader = Reader(path.parent, str(path))
    return reader.mapping(root, "a mapping file"), reader


def _names(
    reader: Reader, node: source.Node | None, what: str, known: Iterable[str] | None
) -> tuple[str, ...]:
    """Return names, each of which must be known; None for any."""
    names = []
    for name in reader.names(node, f"`{what}`"):
        if known is None or _known(reader, name, what, known):
            names.append(name.text.strip())
    return tuple(names)


def _known(reader: Reader, name: source.Scalar, what: str, known: Iterable[str]) -> bool:
    text, names = name.text.strip(), list(known)
    if text in names:
        return True
    hint = f"there are: {', '.join(names)}" if names else "there is none"
    message = f"`{what}`: there is no {text!r} here{nearest(text, names)}"
    reader.error(name.where, message, hint if len(hint) < 400 else "")
    return False


def _lists(
    reader: Reader,
    node: source.Node | None,
    what: str,
    keys: Iterable[str],
    values: Iterable[str] | None,
) -> dict[str, tuple[str, ...]]:
    """Return lists by name; both must be known, the lists' items only where `values` are given."""
    mapping = reader.mapping(node, f"`{what}`")
    return {
        key: _names(reader, value, what, values)
        for key, value in mapping.items.items()
        if _known(reader, mapping.keys[key], what, keys)
    }


def _conditions(
    reader: Reader, node: source.Node | None, known: _Known
) -> Iterable[tuple[str, Meaning | None]]:
    mapping = reader.mapping(node, "`conditions`")
    for name, value in mapping.items.items():
        if _known(reader, mapping.keys[name], "conditions", known.conditions):
            yield name, _meaning(reader, value, name, known)


def _meaning(reader: Reader, node: source.Node, name: str, known: _Known) -> Meaning | None:
    items = reader.mapping(node, f"the condition {name!r}", KINDS).items
    given: list[Kind] = [kind for kind in KINDS if kind in items]
    if len(given) != 1:
        hint = "after: STATE, of: QUERY, missing: STATES, or over: STATE"
        reader.error(node.where, f"the condition {name!r} needs one of {', '.join(KINDS)}", hint)
        return None
    kind = given[0]
    at = _names(reader, items[kind], kind, known.queries if kind == "of" else known.states)
    return Meaning(kind, at) if at else None


def _edges(reader: Reader, node: source.Node | None, known: _Known) -> tuple[Added, ...]:
    edges = []
    for item in reader.items(node):
        items = reader.mapping(item, "an edge", ("from", "to", "as")).items
        for key in ("from", "to"):
            if key not in items:
                reader.error(item.where, f"an edge needs `{key}`")
        from_ = _names(reader, items.get("from"), "from", known.states)
        to = _names(reader, items.get("to"), "to", (*known.states, *known.queries))
        as_ = _names(reader, items.get("as"), "as", known.conditions)
        edges += [Added(one, to[0], as_[0] if as_ else "") for one in from_ if to]
    return tuple(edges)
