"""How much better an experiment's first arm is than each other: the same test, the same users.

Arms are measured on one test split and by one set of users, so that what is hard for one is hard
for all: differences are taken dialogue by dialogue, and their intervals are narrower than two
intervals side by side would suggest. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cluster.trial import RESAMPLES
from trainer.bootstrap import Resamples, counted, counted_mean
from trainer.comparison import NAMES
from trainer.figures import Sums, compare

TESTED = ("intent_accuracy", "slot_f1", "call_exact", "answer_rouge_l")
"""Figures of the test, in an experiment's table."""

SHARE = "trial: subgoals, share"

Figures = Mapping[str, Mapping[str, float | None]]
"""Figures by name: `value`, and `low` and `high` where there is an interval."""


@dataclass(frozen=True, slots=True)
class ByDialogue:
    """The sums of an adapter's figures by dialogue, whose `walk_ids` these are, and resamples."""

    walk_ids: tuple[str, ...]
    sums: Sums
    resamples: Resamples


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What one arm reached, dialogue by dialogue.

    Attributes:
        test: what its figures on the test split are made of.
        shares: of the subgoals, in its trial, by `walk_id`: the same in two trials is the same
            document, goal and persona.
        users: what else decides who spoke to its agent there. Of different ones no difference is
            taken: it would be theirs as well.
    """

    test: ByDialogue | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    users: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """The first arm minus another, at one value of the sweep (None without one)."""

    of: str
    against: str
    value: Any
    figures: Figures


def differences(reached: Sequence[tuple[str, Any, Outcomes]]) -> Iterator[Difference]:
    """Yield what the first arm has over each other, where both were measured alike.

    Args:
        reached: arm, value of the sweep and outcomes, in the table's order.
    """
    first = reached[0][0] if reached else ""
    ours = {value: outcomes for arm, value, outcomes in reached if arm == first}
    for arm, value, theirs in reached:
        if arm != first and value in ours:
            found = {**_tested(ours[value], theirs), **_tried(ours[value], theirs)}
            if found:
                yield Difference(first, arm, value, found)


def _tested(ours: Outcomes, theirs: Outcomes) -> Figures:
    if ours.test is None or theirs.test is None:
        return {}
    if ours.test.walk_ids != theirs.test.walk_ids:
        return {}  # each has a test of its own
    systems = {"ours": ours.test.sums, "theirs": theirs.test.sums}
    found = compare(systems, "ours", ours.test.resamples)["theirs"]
    return {f"test: {NAMES[name]}": found[name] for name in TESTED if found.get(name)}


def _tried(ours: Outcomes, theirs: Outcomes) -> Figures:
    both = sorted(ours.shares.keys() & theirs.shares.keys())
    if not both or ours.users != theirs.users:
        return {}
    one, other = (
        counted([shares[walk_id] for walk_id in both]) for shares in (ours.shares, theirs.shares)
    )
    found = Resamples.draw(len(both), RESAMPLES, 0).difference(counted_mean, one, other)
    return {} if found is None else {SHARE: asdict(found)}
