"""Whether replies can be routed along a domain's edges: each needs words to be known by."""

from __future__ import annotations

from specs.domain import Domain
from specs.errors import Finding
from specs.run_file import MANAGED


def routing_findings(domain: Domain, policy: str) -> list[Finding]:
    """Return why a policy cannot be played in a domain: what no reply could be taken for.

    One finding an intent, however many edges it has, and one for each edge with words of its own.
    """
    if policy not in MANAGED:
        return []
    found: dict[tuple[int, int], Finding] = {}
    back = domain.agent.speech
    if policy == "routed" and not back.references:
        assert back.say is not None
        message = "the agent has no `reference`, with which it comes back to the point"
        hint = 'give `roles.agent` three or more, such as "First I need your answer to this."'
        found[0, 0] = Finding(back.say.where, message, hint)
    for edge in domain.edges:
        if edge.speech.references:
            continue
        intent = domain.intents.get(edge.intent or "")
        shared = intent is not None and intent.speech == edge.speech
        what = f"the intent {edge.intent!r}" if shared else f"the edge from {edge.from_!r}"
        where = intent.where if intent is not None and shared else edge.where
        message = f"{what} has no `reference`, by which a {policy} dialogue would know it"
        hint = "give it three or more, unlike the others'"
        found[where.line, where.column] = Finding(where, message, hint)
    return list(found.values())
