"""What is wrong with a domain as a whole: names, types, the graph, what is said.

Everything here is decided from the text alone; what is not decidable (guards that never hold,
loops that rarely end) is measured on sampled walks elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from specs.domain import Domain
from specs.errors import Finding
from specs.graph_checks import graph_findings
from specs.graph_reader import Outline
from specs.name_checks import name_findings
from specs.speech_checks import speech_findings
from specs.tool_checks import tool_findings
from specs.value_checks import value_findings


def check_domain(domain: Domain, outline: Outline) -> list[Finding]:
    """Return what is wrong with a domain, each thing once, in the order of its file."""
    findings = dict.fromkeys(_all(domain, outline))
    return sorted(findings, key=lambda finding: finding.where)


def _all(domain: Domain, outline: Outline) -> Iterator[Finding]:
    yield from name_findings(domain, outline)
    yield from value_findings(domain)
    if not outline.too_large:
        yield from graph_findings(domain, outline)
    yield from speech_findings(domain)
    yield from tool_findings(domain, outline.has_corpus)
