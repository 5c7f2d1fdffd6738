"""What walks through a domain's graph do, measured on plans walked without words.

What cannot be decided from the text (guards that never hold, loops that rarely end) is found here.
A state that is merely rare is no finding: it is one only when every way to it was shut.
"""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from actors.retrieval.sampled import SampledTools
from specs.domain import Case, Domain
from specs.errors import Finding, Where
from specs.expressions import Expression
from specs.frames import Meter, metered
from specs.plan import PlanSource, make_plan
from specs.records import StopReason
from specs.scene import Walked, sample_walk

LEAST_ASKED = 10
"""A guard asked fewer times than this may just have had no occasion to hold."""

LONG_SHARE = 0.01
"""Share of walks at the turn limit from which on it is worth a warning."""

SURE = 5
"""A way that one walk in a hundred takes is missed by 200 walks now and then, by 1,000 hardly."""

SHOWN_ERRORS = 5

WORK = 100_000_000
"""What all walks of `measured` may spend together, as evaluations count it: some seconds."""

TURN = 300
"""What a turn costs of it beside its evaluations."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Sampled walks, with what their plans were about (by the walks' places)."""

    walks: Sequence[Walked]
    documents: frozenset[str]
    personas: frozenset[str]

    def turns(self) -> list[int]:
        """Return the walks' lengths, sorted."""
        return sorted(walk.turns for walk in self.walks)

    def stops(self) -> Counter[str]:
        """Return how often each stop reason came up."""
        return Counter(walk.stop_reason.value for walk in self.walks)


def sample(domain: Domain, seed: int, count: int, meter: Meter | None = None) -> Sample:
    """Walk the plans of the first `count` indices.

    Args:
        meter: the budget in force; when it is spent, the walks are fewer.
    """
    source, tools = PlanSource(seed), SampledTools(domain)
    walks: list[Walked] = []
    documents: set[str] = set()
    personas: set[str] = set()
    for index in range(count):
        plan = make_plan(domain, source, index)
        walk = sample_walk(domain, plan, tools)
        if meter is not None:
            meter.pay(TURN * walk.turns)
            if meter.spent:  # the last walk may have ended for it
                break
        walks.append(walk)
        documents.update({plan.document.id} if plan.document is not None else ())
        personas.update({plan.persona.id} if plan.persona.id else ())
    return Sample(walks, frozenset(documents), frozenset(personas))


# -- figures


@dataclass(frozen=True, slots=True)
class Visits:
    """How often something was visited, and in how many walks."""

    name: str
    count: int
    walks: int


def state_visits(domain: Domain, walks: Sequence[Walked]) -> list[Visits]:
    """Return the states' visits, rarest first."""
    first = [domain.start] if domain.open == "agent" else []
    visited = [[*first, *(step.to for step in walk.path)] for walk in walks]
    return _counted(domain.states, visited)


def intent_visits(domain: Domain, walks: Sequence[Walked]) -> list[Visits]:
    """Return how often each intent (an edge without one: its states) was taken, rarest first."""
    unnamed = {
        (edge.from_, case.to): f"({edge.from_} to {case.to})"
        for edge in domain.edges
        if edge.intent is None
        for case in edge.to
    }
    taken = []
    for walk in walks:
        names = (step.intent or unnamed.get((step.from_, step.to), "") for step in walk.path)
        taken.append([name for name in names if name])
    return _counted([*domain.intents, *dict.fromkeys(unnamed.values())], taken)


def _counted(names: Mapping[str, Any] | Sequence[str], walks: Sequence[list[str]]) -> list[Visits]:
    counts, spread = Counter[str](), Counter[str]()
    for walk in walks:
        counts.update(walk)
        spread.update(set(walk))
    visits = [Visits(name, counts[name], spread[name]) for name in names]
    return sorted(visits, key=lambda one: (one.count, one.name))


def percentile(values: Sequence[int], share: float) -> int:
    """Return the nearest-rank percentile of sorted values."""
    return values[max(0, math.ceil(share * len(values)) - 1)]


def summary(turns: Sequence[int]) -> str:
    """Return the lengths of walks in a line."""
    low, high = percentile(turns, 0.05), percentile(turns, 0.95)
    return (
        f"mean {statistics.fmean(turns):.1f}, median {statistics.median(turns):g}, "
        f"min {turns[0]}, max {turns[-1]}, 5% up to {low}, 95% up to {high}"
    )


def histogram(turns: Sequence[int], bins: int = 12, width: int = 50) -> list[str]:
    """Return a histogram of sorted lengths as lines of text."""
    low, high = turns[0], turns[-1]
    step = max(1, -(-(high - low + 1) // bins))
    counts = Counter((value - low) // step for value in turns)
    top = max(counts.values())
    lines = []
    for bin_ in range((high - low) // step + 1):
        first = low + bin_ * step
        label = f"{first}" if step == 1 else f"{first}-{first + step - 1}"
        bar = "#" * -(-counts[bin_] * width // top)
        lines.append(f"{label:>9}  {counts[bin_]:>6}  {bar}".rstrip())
    return lines


# -- what is not decidable from the text


class _Watched(Expression):
    """A guard that counts how often it was asked, and how often it held."""

    def __init__(self, guard: Expression) -> None:
        super().__init__(guard.source, guard.where)
        self.asked = 0
        self.held = 0

    def evaluate(self, scope: Mapping[str, Any], draws: random.Random | None = None) -> Any:
        """Return the guard's value, and count."""
        value = super().evaluate(scope, draws)  # one that fails is reported as an error
        self.asked += 1
        self.held += bool(value)
        return value

    @property
    def shut(self) -> bool:
        return self.asked > 0 and not self.held


def measured(domain: Domain, seed: int, count: int) -> list[Finding]:
    """Return what goes wrong on sampled walks, in the order of the file.

    What never happens on `count` walks is looked for on SURE times as many before it is reported.
    """
    with metered(WORK) as meter:
        for number in (count, SURE * count):
            guards: dict[Where, _Watched] = {}
            watched = _watch(domain, guards)
            walks = sample(watched, seed, number, meter).walks
            never = [*_never_held(guards.values(), len(walks)), *_never_reached(watched, walks)]
            if not never or meter.spent:
                break
    found = [*never, *_stopped(domain, walks), *_cut_short(domain, len(walks), number)]
    return sorted(found, key=lambda finding: finding.where)


def _cut_short(domain: Domain, walked: int, number: int) -> Iterator[Finding]:
    if walked < number:
        message = (
            f"sampling was cut short after {walked} of {number} walks: they take too much work"
        )
        hint = "lower `max_turns`, or spare guards and values the work on long lists"
        yield Finding(domain.states[domain.start].where, message, hint, "warning")


def _watch(domain: Domain, guards: dict[Where, _Watched]) -> Domain:
    """Return the domain with counting guards; a guard of a group's edges is counted as one."""

    def guard(when: Expression | None) -> Expression | None:
        if when is None:
            return None
        if when.where not in guards:
            guards[when.where] = _Watched(when)
        return guards[when.where]

    def cases(given: Sequence[Case]) -> tuple[Case, ...]:
        return tuple(replace(case, when=guard(case.when)) for case in given)

    edges = (replace(edge, when=guard(edge.when), to=cases(edge.to)) for edge in domain.edges)
    states = {name: replace(one, next=cases(one.next)) for name, one in domain.states.items()}
    return replace(domain, edges=tuple(edges), states=states)


def _never_held(guards: Iterable[_Watched], count: int) -> Iterator[Finding]:
    for guard in guards:
        if guard.shut and guard.asked >= LEAST_ASKED:
            message = f"the guard `{guard.source}` never held on {count} sampled walks"
            hint = f"it was asked {guard.asked} times; is it what you mean?"
            yield Finding(guard.where, message, hint, "warning")


def _open(when: Expression | None) -> bool:
    return not (isinstance(when, _Watched) and when.shut)


def _never_reached(domain: Domain, walks: Sequence[Walked]) -> Iterator[Finding]:
    """Yield the states to which every way was shut, not those that are merely rare."""
    possible = {domain.start, *(step.to for walk in walks for step in walk.path)}
    before = 0
    while len(possible) > before:
        before = len(possible)
        for edge in domain.edges:
            if edge.from_ in possible and edge.weight > 0 and _open(edge.when):
                possible.update(case.to for case in edge.to if _open(case.when))
        for name, state in domain.states.items():
            if name in possible:
                possible.update(case.to for case in state.next if _open(case.when))
    for name, state in domain.states.items():
        if name not in possible:
            message = f"no way led to the state {name!r} on {len(walks)} sampled walks"
            yield Finding(state.where, message, "look at the guards before it", "warning")


def _stopped(domain: Domain, walks: Sequence[Walked]) -> Iterator[Finding]:
    total, start = len(walks), domain.states[domain.start].where
    long = sum(walk.stop_reason is StopReason.TURN_LIMIT for walk in walks)
    if long > LONG_SHARE * total:
        message = f"{long} of {total} sampled walks reach the limit of {domain.max_turns} turns"
        hint = "raise `max_turns`, or give more weight to the ways that lead to an end"
        yield Finding(start, message, hint, "warning")
    stuck = Counter(
        walk.path[-1].to if walk.path else domain.start
        for walk in walks
        if walk.stop_reason is StopReason.NO_EDGE
    )
    for name, times in stuck.items():
        message = f"{times} of {total} sampled walks are stuck in {name!r}: no guard holds there"
        hint = "add an edge without `when`, or widen a guard"
        yield Finding(domain.states[name].where, message, hint, "warning")
    errors = Counter(w.error for w in walks if w.stop_reason is StopReason.ERROR)
    for error, times in errors.most_common(SHOWN_ERRORS):
        message = f"{times} of {total} sampled walks stop with an error: {error}"
        # One that none gets past is no bad luck: no dialogue of this domain can be played.
        yield Finding(start, message, "", "error" if times == total else "warning")
