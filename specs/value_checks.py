"""Values of the wrong type, where the text alone tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from specs.check_names import ARGUMENT_TYPES
from specs.domain import CheckCall, Domain, Slot, Speech
from specs.errors import ExpressionError, Finding, Where, nearest
from specs.expressions import Expression
from specs.reading import fits
from specs.values import typed

_FITTING: Mapping[str, frozenset[str]] = {
    "text": frozenset({"text", "integer", "number", "boolean"}),
    "id": frozenset({"text", "integer", "number"}),
    "integer": frozenset({"integer", "number"}),
    "number": frozenset({"integer", "number"}),
    "boolean": frozenset({"boolean"}),
    "list": frozenset({"list"}),
}
"""For each declared type, the types of expressions that can turn out right."""


def value_findings(domain: Domain) -> Iterator[Finding]:
    """Yield values that cannot be of their declared type."""
    assigned = [edge.set for edge in domain.edges]
    assigned += [state.set for state in domain.states.values()]
    for assignments in assigned:
        for name, expression in assignments.items():
            if name in domain.memory:
                kind = domain.memory[name].type
                yield from _expression(expression, kind, f"memory.{name}")
    for goal in domain.goals:
        for name, value in goal.with_.items():
            if name in domain.memory and not fits(value, domain.memory[name].type):
                kind = domain.memory[name].type
                yield Finding(goal.where, f"memory.{name} is of type {kind}, not {value!r}")
    speeches = [intent.speech for intent in domain.intents.values()]
    speeches += [edge.speech for edge in domain.edges]
    speeches += [state.speech for state in domain.states.values()]
    speeches += [speech for fact in domain.facts for speech in (fact.claim, fact.answer)]
    for speech in speeches:
        yield from _speech(speech)


def _expression(expression: Expression, kind: str, what: str) -> Iterator[Finding]:
    found = expression.static_type
    if found not in (None, "null") and found not in _FITTING[kind]:
        message = f"{what} is of type {kind}, and `{expression.source}` is always of type {found}"
        yield Finding(expression.where, message)


def _check(check: CheckCall) -> Iterator[Finding]:
    kinds = ARGUMENT_TYPES.get(check.name, ())
    for argument, kind in zip(check.arguments, kinds, strict=False):
        found = argument.static_type
        if found is not None and found not in _FITTING[kind]:
            wanted = f"`{check.name}` takes a value of the type {kind}"
            message = f"{wanted}, and `{argument.source}` is always {found}"
            yield Finding(argument.where, message)


def _value(slot: Slot, value: Any, where: Where) -> Iterator[Finding]:
    if not fits(value, slot.type):
        yield Finding(where, f"the slot {slot.name!r} is of type {slot.type}, not {value!r}")
    elif slot.one_of and value is not None and value not in slot.one_of:
        known = ", ".join(str(one) for one in slot.one_of)
        message = f"the slot {slot.name!r} cannot be {value!r}"
        yield Finding(where, message, f"it is one of {known}")


def _speech(speech: Speech) -> Iterator[Finding]:
    for slot in speech.slots.values():
        yield from _slot(slot)
    for check in speech.checks:
        yield from _check(check)
    for example in speech.examples:
        for name, value in example.slots.items():
            if name in speech.slots:
                yield from _value(speech.slots[name], value, example.where)
            else:
                near = nearest(name, speech.slots)
                yield Finding(example.where, f"an example fills {name!r}, which is no slot{near}")
    for reference in speech.references:
        for name, expression in reference.slots.items():
            if name in speech.slots:
                yield from _filled(speech.slots[name], expression)
            else:
                near = nearest(name, speech.slots)
                message = f"a reference fills {name!r}, which is no slot{near}"
                yield Finding(reference.where, message)


def _slot(slot: Slot) -> Iterator[Finding]:
    for value in slot.one_of:
        if not fits(value, slot.type):
            message = f"the slot {slot.name!r} is of type {slot.type}, not {value!r}"
            yield Finding(slot.where, message)
    for expression in (slot.value, slot.reference):
        if expression is not None:
            yield from _filled(slot, expression)


def _filled(slot: Slot, expression: Expression) -> Iterator[Finding]:
    """Check what fills a slot: by its type, and by its value where that is always the same."""
    wrong = list(_expression(expression, slot.type, f"the slot {slot.name!r}"))
    yield from wrong
    if slot.one_of and not wrong and not expression.paths:
        try:
            value = typed(slot.type, expression.evaluate({}))
        except (ExpressionError, TypeError, ValueError, OverflowError):
            return  # it is drawn, or it fails: the sampled walks say so
        yield from _value(slot, value, expression.where)
