"""What an agent mishears: the edge that a user meant, and the one that it was taken for.

Invariants: pure. A user's turn that was misheard has the intent that was meant, and in its
`routing` the numbers of both edges (`meant`, `heard`); it takes no edge, the agent's next turn says
the wrong one back, and the dialogue stands where it stood until the user has corrected it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from specs.domain import CheckCall, Domain, Edge, Slot, Speech
from specs.expressions import Expression
from specs.records import Turn
from specs.scene import Scene

Misheard = tuple[Edge, Edge]
"""The edge that was meant, and the one that the agent took it for."""


def misheard(domain: Domain, turn: Turn) -> Misheard | None:
    """Return what a user's turn meant and what it was taken for; None where it was understood."""
    routing = turn.routing or {}
    if turn.edge >= 0 or "heard" not in routing:
        return None
    return domain.edges[routing["meant"]], domain.edges[routing["heard"]]


def to_correct(domain: Domain, turns: Sequence[Turn]) -> Misheard | None:
    """Return what the user has to correct now, if the agent has just misheard them."""
    return misheard(domain, turns[-2]) if len(turns) > 1 and turns[-1].role == "agent" else None


def rivals(scene: Scene, edge: Edge) -> list[Edge]:
    """Return the open edges that one may be taken for: both can be said back, each otherwise."""
    said = _said_back(edge)
    if not said:
        return []
    return [one for one in scene.open_edges() if _said_back(one) not in ("", said)]


def _said_back(edge: Edge) -> str:
    return str(edge.echo.evaluate({})) if edge.echo is not None and not edge.speech.slots else ""


def saying_back(domain: Domain, edge: Edge) -> Speech:
    """Return how the agent says back that it has heard an edge."""
    speech = domain.mishearing
    if edge.echo is None or speech.say is None:
        return speech
    where = edge.echo.where
    said = Expression("reply.misheard", where)
    return replace(
        speech,
        slots={"misheard": Slot("misheard", "text", where, value=edge.echo)},
        checks=(*speech.checks, CheckCall("says", (said,), "says(reply.misheard)", where)),
    )
