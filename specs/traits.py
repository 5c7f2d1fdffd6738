"""What users are like who are not ideal: their traits, who has which, and how a record shows it.

Invariants: each trait is drawn from a dialogue's identity alone, so the same index always has the
same traits, and asking for more of one leaves the others as they were; contrary traits share one
draw from its two ends, so that they never meet and both have their whole share. A turn on which a
trait was told holds a check of its name, and it acted where that check passed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, get_args

from specs.domain import Domain
from specs.errors import Finding, Where, nearest
from specs.records import Dialogue, Turn
from specs.seeds import uniform

Trait = Literal[
    "terse",
    "vague",
    "impatient",
    "gives_up",
    "changes_mind",
    "wrong_fact",
    "corrects_agent",
    "two_intents",
]
TRAITS: Final[tuple[Trait, ...]] = get_args(Trait)

CONTRARY: Final[tuple[tuple[Trait, Trait], ...]] = (
    ("impatient", "vague"),
    ("terse", "two_intents"),
)
"""Whoever presses on does not dither, and whoever says little does not say two things at once."""

WITHOUT_EDGE: Final = frozenset({"vague", "gives_up", "wrong_fact"})
"""Traits that act by words which take no edge."""

ACTING: Final = WITHOUT_EDGE | {"changes_mind", "corrects_agent"}
"""Traits that make a turn another than a plain one; at most one of them acts on a turn."""

ASIDES: Final = frozenset({"vague", "wrong_fact"})
"""Those of them that the agent answers, and comes back to the point; never two of them running."""

Shares = Sequence[tuple[str, float]]
"""The traits that a run asks for, each with its share of the dialogues."""


def drawn(walk_id: str, shares: Shares) -> tuple[str, ...]:
    """Return the traits of a dialogue's user, in the order of TRAITS."""
    wanted = dict(shares)
    return tuple(name for name in TRAITS if wanted.get(name) and _has(walk_id, name, wanted[name]))


def _has(walk_id: str, name: str, share: float) -> bool:
    for low, high in CONTRARY:
        if name in (low, high):
            point = uniform(walk_id, "trait", low, high)
            return point < share if name == low else point >= 1 - share
    return uniform(walk_id, "trait", name) < share


def contradictions(shares: Mapping[str, float]) -> Iterator[str]:
    """Yield what is wrong with shares of traits that no user has both of."""
    for low, high in CONTRARY:
        total = shares.get(low, 0.0) + shares.get(high, 0.0)
        if total > 1:
            yield f"{low} and {high} contradict each other: their shares sum to {total:g}, above 1"


def trait_findings(domain: Domain, shares: Shares) -> list[Finding]:
    """Return why a domain cannot be played with these traits, one finding a trait."""
    found = []
    for name, share in shares:
        if share and (problem := _problem(domain, name)):
            found.append(Finding(Where(f"users.traits.{name}"), *problem))
    return found


def _problem(domain: Domain, name: str) -> tuple[str, str] | None:
    if name not in TRAITS:
        return f"there is no such trait{nearest(name, TRAITS)}", f"traits: {', '.join(TRAITS)}"
    if name in domain.forbidden_traits:
        return f"the domain {domain.name!r} forbids the trait {name!r}", "leave its share out"
    if name == "vague" and not domain.agent.speech.references:
        message = f"the agent of {domain.name!r} has no words for what fits nothing"
        return message, "give `roles.agent` a `say` and `reference`, or leave the share out"
    if name == "changes_mind" and not any(edge.revises for edge in domain.edges):
        message = f"the domain {domain.name!r} has no edge on which a choice is taken back"
        return message, "mark one with `revises: true`, or leave the share out"
    if name == "wrong_fact" and not domain.facts:
        message = f"the domain {domain.name!r} has no facts that a user may have wrong"
        return message, "give them under `traits.wrong_fact`, or leave the share out"
    if name == "two_intents" and not any(edge.ahead for edge in domain.edges):
        message = f"nothing in {domain.name!r} may be said before it is asked for"
        return message, "mark an intent or an edge with `ahead: true`, or leave the share out"
    if name == "corrects_agent" and not _mishearable(domain):
        message = f"nothing in {domain.name!r} can be misheard"
        return message, "give two intents that start at one state an `echo`, or leave the share out"
    return None


def _mishearable(domain: Domain) -> bool:
    """Whether two edges of a state can be said back, each otherwise."""
    said: dict[str, set[str]] = {}
    for edge in domain.edges:
        if edge.echo is not None and edge.weight:
            said.setdefault(edge.from_, set()).add(edge.echo.source)
    return any(len(echoes) > 1 for echoes in said.values())


# -- what a record shows


def told(turn: Turn) -> Iterator[tuple[str, bool]]:
    """Yield the traits that bore on a turn, and whether each acted."""
    if turn.role == "user":
        for check in turn.checks:
            if check.name in TRAITS:
                yield check.name, check.passed


def edgeless(turn: Turn) -> str:
    """Return the trait by which a user's turn takes no edge, if it is one."""
    names = (name for name, _ in told(turn) if name in WITHOUT_EDGE)
    return next(names, "") if turn.edge < 0 else ""


def acted(dialogue: Dialogue) -> dict[str, list[int]]:
    """Return the turns on which each of a dialogue's traits acted, by trait."""
    turns: dict[str, list[int]] = {name: [] for name in dialogue.traits}
    for turn in dialogue.turns:
        for name, passed in told(turn):
            if passed and name in turns:
                turns[name].append(turn.index)
    return turns
