"""Two intents in one utterance: what is answered before it is asked.

Invariants: pure. A user's turn whose `routing` has `then` takes two edges, its own and, from where
that one leads without a call, the one of that number: the agent speaks behind the second.
"""

from __future__ import annotations

import copy

from specs.domain import Domain, Edge
from specs.records import Turn
from specs.scene import Moves, Scene

THEN = "then"
"""The key of a turn's `routing`, and the slot of the agent's understanding."""


def then_of(domain: Domain, turn: Turn) -> Edge | None:
    """Return the second edge that a user's turn takes; None where it takes one or none."""
    number = (turn.routing or {}).get(THEN) if turn.role == "user" else None
    return None if number is None else domain.edges[number]


def behind(scene: Scene, edge: Edge) -> Scene | None:
    """Return a scene where an edge leads; None where a call or a silent move comes first.

    An edge with slots has none: what they will be is not known before the words.
    """
    if edge.speech.slots:
        return None
    ahead = copy.copy(scene)
    ahead.path, ahead.reached = list(scene.path), list(scene.reached)
    ahead.turn += 1
    if next(ahead.take(edge, {}), None) is not None or len(ahead.path) != len(scene.path) + 1:
        return None
    return None if ahead.ended or ahead.speaking != ahead.node else ahead


def open_ahead(scene: Scene | None) -> list[Edge]:
    """Return the open edges that may be said before they are asked for."""
    edges = scene.routable_edges() if scene is not None else []
    return [edge for edge in edges if edge.ahead and not edge.speech.slots]


def take_both(scene: Scene, edge: Edge, then: Edge | None) -> Moves:
    """Take an edge with the slots that were said, and the second one where there is one."""
    yield from scene.take(edge, scene.slots)
    if then is not None:
        yield from scene.take(then, {})
