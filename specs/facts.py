"""What a user may have wrong: which facts can come up, and what words say of them.

Invariants: pure. A user's turn whose `routing` has `fact` states that fact of the domain wrongly:
it takes no edge, the agent's next turn sets it right, and the dialogue stands where it stood.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from specs.checks import says
from specs.domain import Domain, Fact
from specs.errors import ExpressionError
from specs.records import Turn
from specs.scene import Scene, SceneError


def fact_told(domain: Domain, turn: Turn) -> Fact | None:
    """Return the fact that the user was told to have wrong on a turn; None where there was none."""
    number = (turn.routing or {}).get("fact")
    return None if number is None else domain.facts[number]


def fact_of(domain: Domain, turn: Turn) -> Fact | None:
    """Return the fact that the agent has to set right after a turn; None where there is none."""
    return fact_told(domain, turn) if turn.edge < 0 else None


def mistakable(scene: Scene) -> Iterator[Fact]:
    """Yield the facts that a user may have wrong here: they suit the document, and can be wrong."""
    scope = scene.scope()
    for fact in scene.domain.facts:
        if fact.when is not None and not fact.when.evaluate(scope):
            continue
        try:
            right, wrong = fact.right.evaluate(scope), fact.wrong.evaluate(scope)
            scene.settle(fact.claim, "user")
            scene.settle(fact.answer, "agent")
        except (ExpressionError, SceneError):
            continue
        if differs(right, wrong):
            yield fact


def differs(right: Any, wrong: Any) -> bool:
    """Whether there is something wrong to say, and nothing of it says what is right."""
    if right is None or not isinstance(wrong, list) or not wrong:
        return False
    return not any(one is None or says(str(one), right) for one in wrong)
