"""What is settled before a dialogue starts: a pure function of the run's seed and the index.

Invariants: an index always means the same plan, whatever was played before it; documents and
personas are dealt in shuffled passes (each once before any comes twice), and what memory draws is
stratified over blocks of `BLOCK` indices, so that few dialogues already cover what there is.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from specs.domain import Document, Domain, Persona, Variable
from specs.errors import ExpressionError
from specs.frames import DOCUMENTS
from specs.seeds import digest, generator, identity, seed
from specs.traits import Shares, drawn

BLOCK = 64
"""Indices over which draws are stratified."""

NOBODY = Persona(id="", name="", text="")


@dataclass(frozen=True, slots=True)
class PlanSource:
    """What all plans of a run have in common.

    Attributes:
        traits: the shares of users who have each of them. They are no part of a dialogue's
            identity, so that runs with and without them play the same plans otherwise.
    """

    run_seed: int
    policy: str = "walk"
    arm: str = "main"
    round: int = 0
    traits: Shares = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """One dialogue's plan.

    Attributes:
        walk_id: the dialogue's identity, 64 hex digits.
        document: the seed document; None where the domain has no corpus.
        memory: every declared variable's value at the start.
        error: why there is no goal: its template fails on the document, or empty. The dialogue is
            then a row with this error, and costs no other.
        traits: what the user is like (`specs.traits`).
    """

    index: int
    walk_id: str
    seed: int
    persona: Persona
    goal: str
    document: Document | None
    memory: Mapping[str, Any]
    error: str = ""
    traits: tuple[str, ...] = ()


def walk_id_of(domain: Domain, source: PlanSource, index: int) -> str:
    """Return a dialogue's identity, 64 hex digits."""
    return identity(source.run_seed, domain.digest, source.policy, source.arm, source.round, index)


def make_plan(domain: Domain, source: PlanSource, index: int) -> Plan:
    """Return the plan of an index."""
    walk_id = walk_id_of(domain, source, index)
    deck = digest(source.run_seed, domain.digest, source.arm, source.round)
    document = _dealt(domain.documents, deck, "document", index)
    persona = _dealt(domain.personas, deck, "persona", index) or NOBODY
    memory = {name: _initial(v, deck, index) for name, v in domain.memory.items()}
    goal = error = ""
    if domain.goals:
        chosen = generator(walk_id, "goal").choice(domain.goals)
        memory |= chosen.with_
        scope = goal_scope(domain, memory, persona, document)
        try:
            goal = chosen.text.render(scope, generator(walk_id, "goal text"))
        except ExpressionError as problem:
            error = str(problem)
    traits = drawn(walk_id, source.traits)
    return Plan(index, walk_id, seed(walk_id), persona, goal, document, memory, error, traits)


def goal_scope(
    domain: Domain, memory: Mapping[str, Any], persona: Persona, document: Document | None
) -> dict[str, Any]:
    """Return the names that a goal's text sees."""
    scope: dict[str, Any] = {"memory": memory, "persona": persona_scope(persona)}
    if document is not None:
        scope |= {"doc": document_scope(document), DOCUMENTS: domain.scopes}
    return scope


def document_scope(document: Document) -> Mapping[str, Any]:
    """Return a document as expressions see it; its id is a string under `id`."""
    return document.scope


def persona_scope(persona: Persona) -> dict[str, Any]:
    """Return a persona as expressions see it."""
    return {
        "id": persona.id,
        "name": persona.name,
        "text": persona.text,
        "traits": list(persona.traits),
    }


def _dealt(cards: tuple[Any, ...], deck: str, name: str, index: int) -> Any:
    if not cards:
        return None
    round_, place = divmod(index, len(cards))
    return cards[_shuffled(len(cards), deck, name, round_)[place]]


@lru_cache(maxsize=64)
def _shuffled(count: int, deck: str, name: str, round_: int) -> tuple[int, ...]:
    order = list(range(count))
    random.Random(seed(deck, name, round_)).shuffle(order)
    return tuple(order)


def _initial(variable: Variable, deck: str, index: int) -> Any:
    if not variable.draw:
        # A fresh list each time: expressions cannot change it, but records must not share it.
        return list(variable.init) if isinstance(variable.init, list) else variable.init
    block, place = divmod(index, BLOCK)
    stratum = _shuffled(BLOCK, deck, f"memory.{variable.name}", block)[place]
    jitter = generator(deck, "memory", variable.name, index).random()
    point = (stratum + jitter) / BLOCK * sum(p for _, p in variable.draw)
    for value, p in variable.draw:
        point -= p
        if point < 0:
            return value
    return variable.draw[-1][0]
