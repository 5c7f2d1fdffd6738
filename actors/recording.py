"""What is recorded of a dialogue and of a turn, apart from its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from specs.plan import Plan
from specs.records import Dialogue, StopReason, Turn
from specs.replay import recorded_results
from specs.scene import Calling, CallResult, Scene

if TYPE_CHECKING:
    from actors.cast import Cast


def call_fields(scene: Scene) -> dict[str, Any]:
    """Return what an agent's turn records of the calls before it (see `recorded_results`)."""
    if not scene.calls:
        return {}
    calling, result = scene.calls[-1]
    fields: dict[str, Any] = {
        "call": {"tool": calling.tool, "arguments": calling.arguments},
        "result_ids": result.ids,
        "result_scores": result.scores,
        "result": result.value,
    }
    if len(scene.calls) > 1:
        fields["routing"] = {"calls": [_call_record(*pair) for pair in scene.calls]}
    return fields


def _call_record(calling: Calling, result: CallResult) -> dict[str, Any]:
    return {
        "tool": calling.tool,
        "arguments": calling.arguments,
        "ids": result.ids,
        "scores": result.scores,
        "value": result.value,
    }


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a dialogue has come."""

    scene: Scene
    turns: Sequence[Turn]
    attempt: int
    started: datetime


def make_record(
    cast: Cast, plan: Plan, progress: Progress, reason: StopReason, error: str
) -> Dialogue:
    """Return the record of a dialogue that has stopped."""
    scene, turns = progress.scene, progress.turns
    shown: set[str] = set()
    for turn in turns:
        for result in recorded_results(turn):
            shown.update(result.ids)
    seeds = [plan.document.id] if plan.document is not None else []
    ids = [*seeds, *sorted(shown.difference(seeds))]
    return Dialogue(
        run=cast.run,
        round=cast.source.round,
        arm=cast.source.arm,
        walk_id=plan.walk_id,
        index=plan.index,
        seed=plan.seed,
        domain=cast.domain.name,
        domain_digest=cast.domain.digest,
        policy=cast.source.policy,
        persona_id=plan.persona.id,
        persona=plan.persona.text,
        goal=plan.goal,
        doc_ids=tuple(ids),
        documents=tuple((id_, cast.document(id_)) for id_ in ids),
        path=tuple(scene.path),
        stop_reason=reason,
        error=error,
        attempt=progress.attempt,
        subgoals_reached=tuple(scene.reached),
        node=cast.node,
        started_at=progress.started,
        ended_at=cast.now(),
        turns=tuple(turns),
        traits=plan.traits,
    )
