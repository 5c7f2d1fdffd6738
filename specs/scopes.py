"""Which names each expression and template of a domain may use, and which it does use.

The rules are those of the walk (`specs.scene`): slots and replies are there from the utterance
that carries them until the next one of that side, and before the words only those with a `value`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from specs.corpus import Need
from specs.domain import Assignments, Case, Domain, Edge, Fact, Speech, State
from specs.errors import Where
from specs.expressions import Expression, Template
from specs.frames import DOCUMENTS
from specs.paths import ITEM

Code = Expression | Template
Slots = frozenset[str]

PLANNED = frozenset({"doc", DOCUMENTS, "persona", "memory"})
SYSTEM = PLANNED | {"goal"}
PLAYED = SYSTEM | {"slots", "reply", "results", "result", "tools", "heard", "turn"}


@dataclass(frozen=True, slots=True)
class Carried:
    """Slots (or replies) that one way of getting here brings along.

    Attributes:
        names: what is there.
        way: the way, in words, such as `the edge in line 12`.
    """

    names: Slots
    way: str


@dataclass(frozen=True, slots=True)
class Use:
    """An expression or a template, and what it may see.

    Attributes:
        names: the scope's own names.
        slots, reply: what each way of getting here brings; empty when nothing is known of it.
        early: it is evaluated before the words, so that slots without a `value` are missing.
    """

    code: Code
    names: frozenset[str]
    slots: tuple[Carried, ...] = ()
    reply: tuple[Carried, ...] = ()
    early: bool = False


_MISHEARD = (Carried(frozenset({"misheard"}), "what the agent misheard"),)


def settled(speech: Speech) -> Slots:
    """Return the names of the slots that are there before the words."""
    return frozenset(name for name, slot in speech.slots.items() if slot.value is not None)


def arrivals(domain: Domain) -> Mapping[str, tuple[Edge | None, ...]]:
    """Return, for each state, the edges that lead to it, silent moves included.

    None among them stands for the dialogue's opening by the agent.
    """
    found: dict[str, dict[int, Edge | None]] = {name: {} for name in domain.states}
    ways: list[tuple[Edge | None, list[str]]] = [
        (edge, [case.to for case in edge.to]) for edge in domain.edges
    ]
    if domain.open == "agent":
        ways.append((None, [domain.start]))
    for edge, targets in ways:
        number = -1 if edge is None else edge.number
        stack = list(targets)
        while stack:
            name = stack.pop()
            if name in found and number not in found[name]:
                found[name][number] = edge
                stack += [case.to for case in domain.states[name].next]
    return {name: tuple(edges.values()) for name, edges in found.items()}


def uses(domain: Domain) -> Iterator[Use]:
    """Yield every expression and template of a domain with what it may see."""
    for goal in domain.goals:
        yield Use(goal.text, PLANNED)
    for card in (domain.user, domain.agent):
        yield Use(card.system, SYSTEM)
    yield from _speech(domain.user.speech, (), (), "user", "the role 'user'")
    for use in _speech(domain.agent.speech, (), (), "agent", "the role 'agent'"):
        steers = use.code is domain.agent.speech.say
        yield replace(use, names=use.names | {"point"}) if steers else use
    for name, speech in domain.trait_speeches.items():
        heard = _MISHEARD if name == "corrects_agent" else ()
        yield from _speech(speech, (), heard, "user", f"the trait {name!r}")
    for use in _speech(domain.mishearing, (), (), "agent", "what the agent mishears"):
        yield replace(use, reply=_MISHEARD)
    for fact in domain.facts:
        yield from _fact(fact)
    for edge in domain.edges:
        yield from _edge(domain, edge)
    used = {edge.intent for edge in domain.edges}
    for intent in domain.intents.values():
        if intent.name not in used:
            yield from _speech(intent.speech, (), (), "user", f"the intent {intent.name!r}")
    arriving = arrivals(domain)
    for state in domain.states.values():
        yield from _state(domain, state, arriving[state.name])


def _fact(fact: Fact) -> Iterator[Use]:
    for code in (fact.when, fact.right, fact.wrong):
        if code is not None:
            yield Use(code, SYSTEM | {"turn"})
    what = "what the user has wrong"
    yield from _speech(fact.claim, (), (), "user", what)
    claimed = (Carried(frozenset(fact.claim.slots), what),)
    for use in _speech(fact.answer, claimed, (), "agent", "the answer that sets it right"):
        steers = use.code is fact.answer.say
        yield replace(use, names=use.names | {"point"}) if steers else use


def _line(where: Where) -> str:
    return f"line {where.line}"


def _edge(domain: Domain, edge: Edge) -> Iterator[Use]:
    reply = _replies(domain, edge)
    way = f"the edge in {_line(edge.where)}"
    if edge.when is not None:
        yield Use(edge.when, PLAYED - {"slots"}, (), reply)
    yield from _speech(edge.speech, (), reply, "user", way)
    slots = (Carried(frozenset(edge.speech.slots), way),)
    yield from _after(edge.set, edge.to, slots, reply)


def _after(
    assignments: Assignments,
    cases: tuple[Case, ...],
    slots: tuple[Carried, ...],
    reply: tuple[Carried, ...],
) -> Iterator[Use]:
    for expression in assignments.values():
        yield Use(expression, PLAYED, slots, reply)
    for case in cases:
        if case.when is not None:
            yield Use(case.when, PLAYED, slots, reply)


def _replies(domain: Domain, edge: Edge | None) -> tuple[Carried, ...]:
    """Return what the agent said last where an edge starts."""
    if edge is None or edge.from_ not in domain.states:
        return ()
    reply = frozenset(domain.states[edge.from_].speech.slots)
    return (Carried(reply, f"the state {edge.from_!r}"),)


def _speech(
    speech: Speech,
    slots: tuple[Carried, ...],
    reply: tuple[Carried, ...],
    side: str,
    way: str,
) -> Iterator[Use]:
    """Yield the parts of a speech. Its own slots replace the side's last ones."""

    def use(code: Code, own: Slots, early: bool = False) -> Use:
        here = (Carried(own, way),)
        if side == "user":
            return Use(code, PLAYED, here, reply, early)
        return Use(code, PLAYED, slots, here, early)

    before: set[str] = set()
    for slot in speech.slots.values():
        if slot.value is not None:
            yield use(slot.value, frozenset(before), early=True)
            before.add(slot.name)
    known = set(before)
    for slot in speech.slots.values():
        if slot.reference is not None:
            yield use(slot.reference, frozenset(known), early=True)
        known.add(slot.name)
    every = frozenset(speech.slots)
    if speech.say is not None:
        yield use(speech.say, settled(speech), early=True)
    for reference in speech.references:
        yield use(reference.say, every)
        for expression in reference.slots.values():
            yield use(expression, every)
    for check in speech.checks:
        for argument in check.arguments:
            yield use(argument, every)


def _state(domain: Domain, state: State, edges: tuple[Edge | None, ...]) -> Iterator[Use]:
    slots = tuple(
        Carried(frozenset(), "the opening")
        if edge is None
        else Carried(frozenset(edge.speech.slots), f"the edge in {_line(edge.where)}")
        for edge in edges
    )
    replies = tuple(dict.fromkeys(one for edge in edges for one in _replies(domain, edge)))
    if state.call is not None:
        plant = state.call.plant
        planted = (plant.id, plant.page, plant.when) if plant is not None else ()
        for expression in (*state.call.arguments.values(), *planted):
            if expression is not None:
                yield Use(expression, PLAYED, slots, replies)
    yield from _after(state.set, state.next, slots, replies)
    yield from _speech(state.speech, slots, (), "agent", f"the state {state.name!r}")


def document_needs(domain: Domain, embed: Template | None) -> list[Need]:
    """Return the fields of a document that the domain uses, each once, where it first does."""
    codes: list[Code] = [use.code for use in uses(domain)]
    if embed is not None:
        codes.insert(0, embed)
    needs: dict[tuple[str, ...], Need] = {}
    for code in dict.fromkeys(codes):
        found = code.usage
        written = found.written if isinstance(code, Template) else set()
        listed = {_field(path) for path in found.listed}
        for path in sorted((found.paths | found.item_paths) - found.optional):
            field = _field(path)
            if not field:
                continue
            known = needs.get(field, Need(field, False, False, code.where))
            need = Need(
                field, known.written or path in written, known.listed or field in listed, code.where
            )
            if field not in needs or (need.written, need.listed) != (known.written, known.listed):
                needs[field] = need
    return list(needs.values())


def _field(path: tuple[str, ...]) -> tuple[str, ...]:
    """Return the path inside a document, up to where an item of a list is taken."""
    if path[0] == "doc":
        inside = path[1:]
    elif path[:2] in (("results", ITEM), (DOCUMENTS, ITEM)):
        inside = path[2:]
    else:
        return ()
    return inside[: inside.index(ITEM)] if ITEM in inside else inside
