"""The graph as networkx, as figures, and as Mermaid text; `specs.drawing` makes the SVG."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import networkx as nx

from specs.domain import Domain, Edge

CYCLE_LIMIT = 1_000


def to_networkx(domain: Domain) -> Any:
    """Return the states and how they follow each other, as a MultiDiGraph.

    Each edge has `kind` (`intent` or `next`), `label`, `weight` and `guarded`. Edges of weight 0
    are left out: no walk takes them.
    """
    graph = nx.MultiDiGraph()
    for state in domain.states.values():
        graph.add_node(
            state.name,
            silent=state.speech.say is None,
            digression=state.digression,
            start=state.name == domain.start,
            end=state.name in domain.end,
            subgoal=state.name in domain.subgoals,
        )
        for case in state.next:
            if case.to in domain.states:
                guarded = case.when is not None
                graph.add_edge(
                    state.name, case.to, kind="next", label="", weight=1.0, guarded=guarded
                )
    for edge in domain.edges:
        for case in edge.to:
            if edge.from_ in domain.states and case.to in domain.states and edge.weight > 0:
                graph.add_edge(
                    edge.from_,
                    case.to,
                    kind="intent",
                    label=label(edge),
                    weight=edge.weight,
                    guarded=edge.when is not None or case.when is not None,
                )
    return graph


def label(edge: Edge) -> str:
    """Return an edge's intent, or the beginning of what it says by itself."""
    if edge.intent:
        return edge.intent
    said = edge.speech.say.source if edge.speech.say is not None else ""
    words = said.split()
    return " ".join(words[:4]) + (" ..." if len(words) > 4 else "")


@dataclass(frozen=True, slots=True)
class Figures:
    """How large a graph is.

    Attributes:
        cycles: simple cycles, counted up to `CYCLE_LIMIT`.
        shortest: user turns on the shortest way from the start to an end; None without one.
    """

    states: int
    silent: int
    digressions: int
    intents: int
    edges: int
    guarded: int
    ends: int
    subgoals: int
    cycles: int
    shortest: int | None
    references: int
    examples: int


def figures(domain: Domain) -> Figures:
    """Return a domain's figures."""
    graph = to_networkx(domain)
    simple = nx.DiGraph(graph)
    cycles = sum(1 for _ in islice(nx.simple_cycles(simple), CYCLE_LIMIT))
    speeches = [state.speech for state in domain.states.values()]
    speeches += [intent.speech for intent in domain.intents.values()]
    return Figures(
        states=len(domain.states),
        silent=sum(1 for state in domain.states.values() if state.speech.say is None),
        digressions=sum(1 for state in domain.states.values() if state.digression),
        intents=len(domain.intents),
        edges=len(domain.edges),
        guarded=sum(1 for edge in domain.edges if edge.when is not None),
        ends=len(domain.end),
        subgoals=len(domain.subgoals),
        cycles=cycles,
        shortest=_shortest(domain, graph),
        references=sum(len(speech.references) for speech in speeches),
        examples=sum(len(speech.examples) for speech in speeches),
    )


def _shortest(domain: Domain, graph: Any) -> int | None:
    for one, other, data in graph.edges(data=True):
        data["turns"] = 1 if data["kind"] == "intent" else 0
        del one, other
    if domain.start not in graph:
        return None
    lengths = nx.single_source_dijkstra_path_length(graph, domain.start, weight="turns")
    return min((lengths[name] for name in domain.end if name in lengths), default=None)


def mermaid(domain: Domain) -> str:
    """Return the graph as a Mermaid flowchart; parallel edges share an arrow."""
    ids = {name: f"s{number}" for number, name in enumerate(domain.states)}
    lines = ["flowchart TD"]
    for name, state in domain.states.items():
        text = _escaped(name)
        if name in domain.end:
            shape = f'(["{text}"])'
        elif state.digression:
            shape = f'>"{text}"]'
        elif state.speech.say is None:
            shape = f'[/"{text}"/]'
        else:
            shape = f'("{text}")' if name == domain.start else f'["{text}"]'
        lines.append(f"    {ids[name]}{shape}")
    for (one, other), labels in merged(domain).items():
        text = "<br>".join(_escaped(part) for part in labels)
        arrow = f'-->|"{text}"|' if text else "-.->"
        lines.append(f"    {ids[one]} {arrow} {ids[other]}")
    return "\n".join(lines) + "\n"


def merged(domain: Domain) -> dict[tuple[str, str], list[str]]:
    """Return the labels between each two states; silent moves have none."""
    found: dict[tuple[str, str], list[str]] = {}
    for one, other, data in to_networkx(domain).edges(data=True):
        labels = found.setdefault((one, other), [])
        if data["label"] and data["label"] not in labels:
            labels.append(data["label"])
    return found


def _escaped(text: str) -> str:
    named = {'"': "#quot;", "<": "#lt;", ">": "#gt;", "#": "#35;", "&": "#amp;"}
    return "".join(named.get(mark, mark) for mark in " ".join(text.split()))
