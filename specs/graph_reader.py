"""Reading the graph: states, groups, edges, start and ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from specs import yaml_source as source
from specs.domain import Call, Edge, Intent, Plant, Speech, State
from specs.errors import Where, nearest
from specs.expressions import Expression
from specs.reading import Reader
from specs.speech_reader import SPEECH_KEYS, override, read_echo, read_speech

_STATE_KEYS = SPEECH_KEYS | {"description", "call", "set", "next", "reply", "digression"}
EDGE_LIMIT = 20_000
"""Edges that a domain may have once groups are spelled out: a short file can mean millions."""

_EDGE_KEYS = SPEECH_KEYS | {
    "from", "intent", "to", "weight", "when", "set", "slots", "revises", "echo", "ahead",
}  # fmt: skip


@dataclass(slots=True)
class Outline:
    """Where the names stand that the graph is held together by; the checker reports on them."""

    start: source.Scalar
    end: list[source.Scalar] = field(default_factory=list)
    subgoals: list[source.Scalar] = field(default_factory=list)
    groups: Mapping[str, list[source.Scalar]] = field(default_factory=dict)
    has_corpus: bool = False
    sources: dict[int, source.Scalar] = field(default_factory=dict)
    """By the number of an edge: the name in `from` that it comes of."""
    too_large: bool = False
    """Whether edges were left out, so that what they lead to says nothing."""


def read_outline(reader: Reader, root: source.Mapping) -> Outline:
    """Return start, ends, subgoals and groups, with their places."""
    start = root.items.get("start")
    if not isinstance(start, source.Scalar) or not start.text.strip():
        where = start.where if start else Where(reader.file)
        reader.error(where, "the domain needs `start`, the name of a state")
        start = source.Scalar("", where)
    if "end" not in root.items:
        reader.error(Where(reader.file), "the domain needs `end`, a list of states")
    groups = reader.mapping(root.items.get("groups"), "`groups`")
    return Outline(
        start=source.Scalar(start.text.strip(), start.where),
        end=reader.names(root.items.get("end"), "`end`"),
        subgoals=reader.names(root.items.get("subgoals"), "`subgoals`"),
        groups={
            name: reader.names(node, f"the group {name!r}") for name, node in groups.items.items()
        },
    )


def _call(reader: Reader, node: source.Node, state: str) -> Call | None:
    mapping = reader.mapping(node, f"`call` of the state {state!r}")
    tool = reader.text(mapping.items.get("tool"), "`tool`")
    if not tool:
        reader.error(node.where, "a call needs `tool`, the tool's name")
        return None
    arguments = {}
    for name, value in mapping.items.items():
        expression = reader.expression(value) if name not in ("tool", "plant") else None
        if expression is not None:
            arguments[name] = expression
    plant = mapping.items.get("plant")
    if plant is not None and tool != "search":
        reader.error(plant.where, f"`plant` belongs to `search`, not to {tool!r}")
        plant = None
    planted = _plant(reader, plant) if plant is not None else None
    return Call(tool, arguments, planted, mapping.where)


def _plant(reader: Reader, node: source.Node) -> Plant | None:
    made = reader.mapping(node, "`plant`", ("id", "page", "when")).items
    expressions = {name: reader.expression(value) for name, value in made.items()}
    id_ = expressions.get("id")
    if id_ is None:
        if "id" not in made:
            reader.error(node.where, "`plant` needs `id`, such as `doc.id`")
        return None
    return Plant(id_, expressions.get("page"), expressions.get("when"))


def read_states(reader: Reader, node: source.Node | None) -> dict[str, State]:
    """Return the states by name."""
    states = {}
    for name, value in reader.mapping(node, "`states`").items.items():
        what = f"the state {name!r}"
        mapping = reader.mapping(value, what, _STATE_KEYS)
        items = mapping.items
        call = items.get("call")
        states[name] = State(
            name=name,
            description=reader.text(items.get("description"), "a description"),
            call=_call(reader, call, name) if call is not None else None,
            set=reader.assignments(items.get("set"), f"`set` of {what}"),
            next=reader.cases(items.get("next"), f"`next` of {what}"),
            speech=read_speech(reader, mapping, "reply", what),
            digression=reader.flag(items.get("digression"), "`digression`"),
            where=_key_where(node, name),
        )
    return states


def _key_where(node: source.Node | None, name: str) -> Where:
    assert isinstance(node, source.Mapping)
    return node.keys[name].where


def read_edges(
    reader: Reader, node: source.Node | None, intents: Mapping[str, Intent], outline: Outline
) -> tuple[Edge, ...]:
    """Return the edges, one a state where `from` names several states or a group."""
    edges: list[Edge] = []
    for item in reader.items(node):
        mapping = reader.mapping(item, "an edge", _EDGE_KEYS)
        model = _edge(reader, mapping, intents)
        if model is None:
            continue
        sources = _sources(reader, mapping, outline)
        if len(edges) + len(sources) > EDGE_LIMIT:
            message = f"this makes more than {EDGE_LIMIT:,} edges: there is one a state of `from`"
            reader.error(mapping.where, message, "use smaller groups, or fewer edges from them")
            outline.too_large = True
            break
        for from_, name in sources:
            number = len(edges)
            outline.sources[number] = name
            edges.append(
                Edge(
                    number,
                    from_,
                    model.intent,
                    model.to,
                    model.weight,
                    model.when,
                    model.set,
                    model.speech,
                    model.where,
                    model.revises,
                    model.echo,
                    model.ahead,
                )
            )
    return tuple(edges)


def _echo(reader: Reader, mapping: source.Mapping, intent: Intent | None) -> Expression | None:
    """Return how an edge is said back: as it says, or as its intent; not where it has slots."""
    if "echo" in mapping.items or "slots" in mapping.items or intent is None:
        return read_echo(reader, mapping)
    return intent.echo


def _ahead(reader: Reader, mapping: source.Mapping, intent: Intent | None) -> bool:
    """Return whether an edge may be said before it is asked for: as it says, or as its intent."""
    if "ahead" in mapping.items or intent is None:
        return reader.flag(mapping.items.get("ahead"), "`ahead`")
    return intent.ahead


def _sources(
    reader: Reader, mapping: source.Mapping, outline: Outline
) -> list[tuple[str, source.Scalar]]:
    """Return the states that `from` names, each with the name (its own or its group's) there."""
    states: dict[str, source.Scalar] = {}
    for name in reader.names(mapping.items.get("from"), "`from`"):
        text = name.text.strip()
        members = outline.groups.get(text)
        for state in [text] if members is None else [one.text.strip() for one in members]:
            states.setdefault(state, name)
    if not states:
        reader.error(mapping.where, "an edge needs `from`: a state, a list of states or a group")
    return list(states.items())


def _edge(reader: Reader, mapping: source.Mapping, intents: Mapping[str, Intent]) -> Edge | None:
    items = mapping.items
    if not items:
        return None
    name = reader.text(items.get("intent"), "`intent`") or None
    own = read_speech(reader, mapping, "slots", "the edge")
    speech = Speech()
    if name is not None and name in intents:
        speech = intents[name].speech
    elif name is not None:
        hint = "declare it under `intents`, or give the edge its own `say` and no intent"
        near = nearest(name, intents)
        reader.error(items["intent"].where, f"there is no intent {name!r}{near}", hint)
        speech = Speech(say=own.say) if own.say else speech
    elif own.say is None:
        reader.error(mapping.where, "an edge needs an `intent`, or its own `say`")
    to = reader.cases(items.get("to"), "`to`")
    if not to:
        reader.error(mapping.where, "an edge needs `to`: a state, or cases with `when` and `to`")
    when = items.get("when")
    return Edge(
        number=0,
        from_="",
        intent=name,
        to=to,
        weight=reader.number(items.get("weight"), "`weight`", 1.0),
        when=reader.expression(when) if when is not None else None,
        set=reader.assignments(items.get("set"), "`set` of the edge"),
        speech=override(speech, own, mapping),
        where=mapping.where,
        revises=reader.flag(items.get("revises"), "`revises`"),
        echo=_echo(reader, mapping, intents.get(name or "")),
        ahead=_ahead(reader, mapping, intents.get(name or "")),
    )
