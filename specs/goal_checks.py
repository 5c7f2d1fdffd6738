"""Goals that cannot be written for some document: no dialogue about it could be planned."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from specs.corpus import capped
from specs.domain import Document, Domain, Goal
from specs.errors import Finding, Where
from specs.expressions import EvaluationError
from specs.frames import metered
from specs.plan import NOBODY, goal_scope

WORK = 50_000_000
"""What all goals together may spend, as evaluations count it; the rest is left to the walks."""


def goal_findings(domain: Domain, known: Iterable[Finding], file: str) -> Iterator[Finding]:
    """Yield goals that fail, by the line of the document that they fail for.

    Args:
        known: what was found before; it is not said twice.
        file: how findings name the corpus.
    """
    wrong = {finding.where for finding in known if finding.severity == "error"}
    wrong = {Where(where.file, where.line) for where in wrong} | wrong
    with metered(WORK) as meter:
        for goal in domain.goals:
            if goal.text.constant or goal.text.where in wrong:
                continue
            findings = []
            for document in domain.documents or (None,):
                where = goal.text.where if document is None else Where(file, document.line)
                reason = "" if where in wrong else _reason(domain, goal, document)
                if meter.spent:
                    return
                if reason:
                    place = "" if document is None else f" of {goal.text.where}"
                    findings.append(Finding(where, f"the goal{place} cannot be written: {reason}"))
            yield from capped(findings, file)


def _reason(domain: Domain, goal: Goal, document: Document | None) -> str:
    """Return why a goal fails for a document, or an empty text."""
    memory = {
        name: variable.draw[0][0] if variable.draw else variable.init
        for name, variable in domain.memory.items()
    }
    persona = domain.personas[0] if domain.personas else NOBODY
    scope = goal_scope(domain, {**memory, **goal.with_}, persona, document)
    try:
        goal.text.render(scope, random.Random(0))
    except EvaluationError as error:
        return error.reason
    return ""
