"""How many subgoals a dialogue could reach, and how far along a path it came.

A graph with branches or several workflows has subgoals that exclude each other: what counts is the
best path that the dialogue's own memory leaves open. Guards that only ask for what nothing ever
sets are decided; every other guard may hold.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any

import networkx as nx

from specs.domain import Domain
from specs.errors import ExpressionError
from specs.expressions import Expression


def constants(domain: Domain) -> frozenset[str]:
    """Return the variables that nothing sets once a dialogue has begun."""
    assigned = {name for edge in domain.edges for name in edge.set}
    assigned |= {name for state in domain.states.values() for name in state.set}
    return frozenset(domain.memory) - assigned


def possible(domain: Domain, memory: Mapping[str, Any]) -> int:
    """Return the most subgoals of any path from the start that a dialogue's memory leaves open.

    Args:
        memory: as it is at any time of the dialogue.
    """
    return furthest(domain, memory, domain.subgoals)


def furthest(domain: Domain, memory: Mapping[str, Any], reached: Collection[str]) -> int:
    """Return the most of these subgoals that lie on one path: the furthest path, counted.

    States of a cycle, which a path can pass in any order, count together.
    """
    known = constants(domain)
    fixed = tuple((name, _key(memory.get(name))) for name in sorted(known))
    order, components, leading = _paths(_Held(domain), fixed, _Memory(memory, known))
    wanted = set(reached)
    best: dict[int, int] = {}
    for number in reversed(order):
        behind = max((best[one] for one in leading[number]), default=0)
        best[number] = len(wanted & components[number]) + behind
    return best[order[0]] if order else 0


class _Held:
    """A domain as a cache's key: the same one, by its digest."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain

    def __hash__(self) -> int:
        return hash(self.domain.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and other.domain.digest == self.domain.digest


class _Memory:
    """The variables that guards are decided by; the cache's key has their values already."""

    def __init__(self, memory: Mapping[str, Any], names: frozenset[str]) -> None:
        self.values = {name: memory.get(name) for name in names}
        self.names = names

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Memory)


_Paths = tuple[list[int], list[frozenset[str]], list[list[int]]]
"""The components in topological order, the start's first; their states; where each leads."""


@lru_cache(maxsize=256)
def _paths(held: _Held, fixed: tuple[tuple[str, str], ...], memory: _Memory) -> _Paths:
    domain = held.domain
    graph = nx.DiGraph()
    graph.add_node(domain.start)
    graph.add_edges_from(_moves(domain, memory))
    reachable = {domain.start} | nx.descendants(graph, domain.start)
    condensed = nx.condensation(graph.subgraph(reachable))
    order = list(nx.topological_sort(condensed))
    components = [frozenset(condensed.nodes[n]["members"]) for n in range(len(order))]
    leading = [list(condensed.successors(n)) for n in range(len(order))]
    return order, components, leading


def _moves(domain: Domain, memory: _Memory) -> Iterator[tuple[str, str]]:
    for edge in domain.edges:
        # A choice taken back is no part of the best path: most users never do so.
        if edge.revises or not _may_hold(edge.when, memory):
            continue
        for case in edge.to:
            if _may_hold(case.when, memory):
                yield edge.from_, case.to
                if domain.states[case.to].digression:  # afterwards the interrupted state applies
                    yield case.to, edge.from_
    for state in domain.states.values():
        for case in state.next:
            if _may_hold(case.when, memory):
                yield state.name, case.to


def _may_hold(when: Expression | None, memory: _Memory) -> bool:
    if when is None:
        return True
    decided = all(
        len(path) > 1 and path[0] == "memory" and path[1] in memory.names for path in when.paths
    )
    if not decided:
        return True
    try:
        return bool(when.evaluate({"memory": memory.values}))
    except ExpressionError:
        return True


def _key(value: Any) -> str:
    return repr(value)
