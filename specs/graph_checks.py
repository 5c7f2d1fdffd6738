"""The graph as a graph: states that are unknown, unreachable, or lead nowhere."""

from __future__ import annotations

from collections.abc import Iterator

import networkx as nx

from specs.domain import Domain, State
from specs.errors import Finding, nearest
from specs.graph import to_networkx
from specs.graph_reader import Outline
from specs.scopes import arrivals
from specs.yaml_source import Scalar


def graph_findings(domain: Domain, outline: Outline) -> Iterator[Finding]:
    """Yield what is wrong with states and edges."""
    yield from _names(domain, outline)
    for state in domain.states.values():
        yield from _state(domain, state)
    yield from _edges(domain, outline)
    if domain.start in domain.states:
        yield from _reach(domain)


def _names(domain: Domain, outline: Outline) -> Iterator[Finding]:
    named: list[tuple[Scalar, str]] = [(outline.start, "`start`")]
    named += [(name, "`end`") for name in outline.end]
    named += [(name, "`subgoals`") for name in outline.subgoals]
    for group, members in outline.groups.items():
        named += [(name, f"the group {group!r}") for name in members]
        if group in domain.states:
            where = domain.states[group].where
            yield Finding(where, f"{group!r} is a group and a state", "rename one of the two")
    for name, what in named:
        text = name.text.strip()
        if text and text not in domain.states:
            near = nearest(text, domain.states)
            yield Finding(name.where, f"{what}: there is no state {text!r}{near}")
    for number, name in outline.sources.items():
        state = domain.edges[number].from_
        if state not in domain.states and name.text.strip() == state:
            near = nearest(state, [*domain.states, *outline.groups])
            yield Finding(name.where, f"`from`: there is no state and no group {state!r}{near}")
        elif state in domain.end:
            hint = "the dialogue is over there; take it out of `end`, or out of the group"
            yield Finding(name.where, f"an edge leaves the end state {state!r}", hint)
    for cases in (
        *(edge.to for edge in domain.edges),
        *(state.next for state in domain.states.values()),
    ):
        for index, case in enumerate(cases):
            if case.to not in domain.states:
                near = nearest(case.to, domain.states)
                yield Finding(case.where, f"there is no state {case.to!r}{near}")
            if case.when is None and index < len(cases) - 1:
                hint = "the case above it has no `when` and always holds"
                yield Finding(cases[index + 1].where, "this case is never reached", hint)


def _state(domain: Domain, state: State) -> Iterator[Finding]:
    name = state.name
    leaving = domain.edges_from(name)
    opening = domain.open == "user" and name == domain.start
    unspoken = opening and not arrivals(domain)[name]
    if state.speech.say is None and not unspoken:
        if not state.next:
            hint = "give it `say`, or `next` with the states that follow"
            yield Finding(state.where, f"the state {name!r} neither speaks nor moves on", hint)
        elif all(case.when is not None for case in state.next):
            hint = "a silent state needs a last case without `when`: {to: ...}"
            yield Finding(state.where, f"`next` of the silent state {name!r} may not hold", hint)
        if leaving and not opening:
            hint = "the user answers only to what is said; give it `say`, or leave the edges out"
            yield Finding(leaving[0].where, f"an edge leaves the silent state {name!r}", hint)
    elif state.speech.say is not None and any(case.when is None for case in state.next):
        hint = "its `next` has a case without `when`, which always holds"
        yield Finding(state.where, f"the state {name!r} never speaks", hint)
    if state.digression:
        if leaving:
            hint = "after a digression the interrupted state's edges apply"
            yield Finding(leaving[0].where, f"an edge leaves the digression {name!r}", hint)
        if name == domain.start or name in domain.end:
            yield Finding(state.where, f"the digression {name!r} cannot be the start or an end")
    elif not leaving and name not in domain.end and _stays(domain, state):
        hint = "add edges from it, or put it under `end`"
        yield Finding(state.where, f"no edge leaves the state {name!r}: a dead end", hint)


def _speaks(state: State) -> bool:
    """Whether the agent may speak in a state; a dialogue ends only where it does."""
    return state.speech.say is not None and all(case.when is not None for case in state.next)


def _stays(domain: Domain, state: State) -> bool:
    """Whether the user's turn can come while this state is the current one."""
    return _speaks(state) or (
        state.speech.say is None and domain.open == "user" and state.name == domain.start
    )


def _edges(domain: Domain, outline: Outline) -> Iterator[Finding]:
    for name in domain.states:
        edges = domain.edges_from(name)
        if edges and not any(edge.weight > 0 for edge in edges):
            message = f"all edges from {name!r} have the weight 0"
            yield Finding(edges[0].where, message, "give one of them a weight above 0")
    for edge in domain.edges:
        if edge.to and edge.to[-1].when is not None:
            hint = "add a last case without `when`: {to: ...}"
            yield Finding(edge.where, "it may be that no case of `to` holds", hint, "warning")
    used = {edge.intent for edge in domain.edges}
    for intent in domain.intents.values():
        if intent.name not in used:
            message = f"no edge has the intent {intent.name!r}"
            yield Finding(intent.where, message, "add an edge, or delete it", "warning")


def _reach(domain: Domain) -> Iterator[Finding]:
    graph = to_networkx(domain)
    for name, edges in arrivals(domain).items():
        if domain.states[name].digression:  # afterwards the interrupted state's edges apply
            graph.add_edges_from(
                (name, edge.from_) for edge in edges if edge and edge.from_ in domain.states
            )
    reached = nx.descendants(graph, domain.start) | {domain.start}
    for name, state in domain.states.items():
        if name not in reached:
            hint = f"no edge or `next` leads to it from {domain.start!r}"
            yield Finding(state.where, f"the state {name!r} cannot be reached", hint)
    known = [domain.states[name] for name in sorted(domain.end) if name in graph]
    ends = [state.name for state in known if _speaks(state)]
    leading = set(ends).union(*(nx.ancestors(graph, name) for name in ends))
    for name, state in domain.states.items():
        if known and name in reached and name not in leading and not state.digression:
            hint = f"ends are {', '.join(ends)}" if ends else "no end speaks: give one `say`"
            yield Finding(state.where, f"no end can be reached from the state {name!r}", hint)
