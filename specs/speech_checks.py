"""What is said: references, examples, checks, slots that nothing fills."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from specs.check_names import ANY, KNOWN_CHECKS
from specs.domain import Case, Domain, Example, Fact, Speech
from specs.errors import ExpressionError, Finding, Where, nearest
from specs.expressions import EvaluationError, Template
from specs.facts import differs


def speech_findings(domain: Domain) -> Iterator[Finding]:
    """Yield what is wrong with the speeches of intents, edges and states."""
    for intent in domain.intents.values():
        yield from _speech(intent.speech, f"the intent {intent.name!r}", intent.where)
    for edge in domain.edges:
        if edge.speech.say is None:
            continue  # reported by the loader
        declared = domain.intents.get(edge.intent or "")
        if declared is None or edge.speech != declared.speech:
            yield from _speech(edge.speech, "the edge", edge.where)
    for side, card in (("user", domain.user), ("agent", domain.agent)):
        # Their words stand in for nobody's: in free talk it is an open edge's references that do.
        assert card.speech.say is not None
        findings = _speech(card.speech, f"the role {side!r}", card.speech.say.where)
        yield from (one for one in findings if one.severity == "error")
    yield from _manners(domain)
    for state in domain.states.values():
        unspoken = domain.open == "user" and state.name == domain.start
        if state.speech.say is None:
            if state.speech.slots or state.speech.references or state.speech.examples:
                message = f"the state {state.name!r} has words but no `say`"
                yield Finding(state.where, message, "add `say`, the instruction")
        elif not unspoken or any(True for edge in domain.edges if _leads(edge.to, state.name)):
            yield from _speech(state.speech, f"the state {state.name!r}", state.where)


def _manners(domain: Domain) -> Iterator[Finding]:
    """Yield what is wrong with the speeches of users who are not ideal, and what answers them."""
    spoken = {f"the trait {name!r}": speech for name, speech in domain.trait_speeches.items()}
    for what, speech in {**spoken, "what the agent mishears": domain.mishearing}.items():
        if speech.say is not None:
            findings = _speech(speech, what, speech.say.where)
            yield from (one for one in findings if one.severity == "error")
    for fact in domain.facts:
        yield from _speech(fact.claim, "what the user has wrong", fact.where)
        yield from _speech(fact.answer, "the answer that sets it right", fact.where)
        yield from _values(fact)


def _values(fact: Fact) -> Iterator[Finding]:
    """Check what is right and what is wrong, where both are always the same."""
    if fact.right.paths or fact.wrong.paths:
        return  # they may differ in some dialogues: the fact comes up in these
    try:
        right, wrong = fact.right.evaluate({}), fact.wrong.evaluate({})
    except ExpressionError as error:
        yield Finding(fact.where, str(error), "`right` and `wrong` must not draw: `wrong` is drawn")
        return
    if not differs(right, wrong):
        message = f"`wrong` must be a list of values in which {right!r} is not said"
        yield Finding(fact.wrong.where, message, "such as \"['four coppers', 'five coppers']\"")


def _leads(cases: Iterable[Case], name: str) -> bool:
    return any(case.to == name for case in cases)


def _speech(speech: Speech, what: str, where: Where) -> Iterator[Finding]:
    yield from _slots(speech, what)
    for check in speech.checks:
        bounds = KNOWN_CHECKS.get(check.name)
        if bounds is None:
            known = ", ".join(sorted(KNOWN_CHECKS))
            message = f"there is no check {check.name!r}{nearest(check.name, KNOWN_CHECKS)}"
            yield Finding(check.where, message, f"known checks: {known}")
        elif not bounds[0] <= len(check.arguments) <= bounds[1]:
            message = f"`{check.source}`: the check takes {_count(*bounds)}"
            yield Finding(check.where, f"{message}, not {len(check.arguments)}")
    for example in speech.examples:
        yield from _example(speech, example)
    if not speech.references:
        message = f"{what} has no `reference`"
        hint = "words that a person wrote: self-talk routes by them, and they stand in for a model"
        yield Finding(where, message, hint, "warning")


def _count(least: int, most: int) -> str:
    if least == most:
        return "no arguments" if not most else f"{most} argument{'s' * (most > 1)}"
    return f"at least {least} argument" if most >= ANY else f"at most {most} argument"


def _slots(speech: Speech, what: str) -> Iterator[Finding]:
    for slot in speech.slots.values():
        if slot.value is not None:
            continue
        shown = any(slot.name in example.slots for example in speech.examples)
        given = [reference for reference in speech.references if slot.name in reference.slots]
        if slot.reference is None and not given and not shown:
            message = f"the slot {slot.name!r} of {what} is never filled"
            hint = "give it a `value`, or a `reference`, or examples that fill it"
            yield Finding(slot.where, message, hint)
        elif slot.reference is None and len(given) < len(speech.references):
            message = f"the slot {slot.name!r} of {what} has no `reference` value"
            hint = "without one, a reference cannot stand in and sampled walks do not know it"
            yield Finding(slot.where, message, hint, "warning")


def _example(speech: Speech, example: Example) -> Iterator[Finding]:
    scope = {"slots": example.slots, **example.with_}
    texts: list[tuple[Template | None, str]] = [
        (speech.say, "the instruction"),
        (example.say, "the example's words"),
    ]
    for template, what in texts:
        if template is None:
            continue
        try:
            template.render(scope, random.Random(0))
        except EvaluationError as error:
            message = f"`with` does not suffice to render {what}: {error.reason}"
            hint = f"it reads `{template.source.strip()[:100]}`"
            yield Finding(example.where, message, hint)
        except ExpressionError as error:
            yield Finding(example.where, str(error))
