"""Which dialogues are kept: the filters of a run file as pure decisions with their reasons.

Invariants: filters apply in their order, each to what the one before kept; a decision depends on
the figures of the dialogues, the seed and their order alone; only numbers are held, never the
dialogues. A filter that looks at one dialogue at a time (`none`, `ended`, `consistent`,
`threshold`, `judge`) judges every dialogue; one that looks at all (`top`, `random`, `balance`,
`near_duplicates`) those that the filters before it kept.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from specs.errors import Finding, Where, nearest
from specs.records import StopReason
from specs.run_file import Filter
from specs.seeds import seed

Mask: TypeAlias = npt.NDArray[np.bool_]
"""One boolean a dialogue."""

JUDGE = "judge"
"""The measure that holds a judge's rating."""

UNTRUSTED: Mapping[str, str] = {
    "persona_rank": (
        "does not tell a persona's own utterances from another's (tests/bench/test_personas.py), "
        "so that a filter would keep by chance; it is there for reading"
    ),
}
"""Measures that no filter may use, and why."""

_SINGLE = ("none", "ended", "consistent", "threshold", "judge")

_NEEDS: Mapping[str, tuple[str, ...]] = {
    "threshold": ("measure",),
    "top": ("measure", "share"),
    "random": ("share",),
    "balance": ("most",),
    "judge": ("min",),
}
_MAY: Mapping[str, tuple[str, ...]] = {
    "threshold": ("min", "max"),
    "near_duplicates": ("words", "cosine"),
    "judge": ("max",),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one dialogue.

    Attributes:
        kinds: of its inconsistencies, one entry for each.
        measures: by name; None or NaN where it has no such figure.
    """

    stop_reason: str
    kinds: Sequence[str]
    measures: Mapping[str, float | None]


@dataclass(slots=True)
class Table:
    """The figures of all dialogues, column by column: about 1 KB a dialogue."""

    names: tuple[str, ...]
    walk_ids: list[str] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    kinds: list[tuple[str, ...]] = field(default_factory=list)
    intents: list[tuple[str, ...]] = field(default_factory=list)
    _columns: dict[str, array[float]] = field(default_factory=dict)
    _same: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._columns = {name: array("d") for name in self.names}

    def __len__(self) -> int:
        return len(self.walk_ids)

    def add(self, walk_id: str, document: str, intents: Iterable[str], facts: Facts) -> None:
        """Take one dialogue; `document` is its seed document's id, empty where there is none."""
        self.walk_ids.append(walk_id)
        self.documents.append(document)
        self.stops.append(StopReason(facts.stop_reason).value)
        self.kinds.append(self._shared(tuple(facts.kinds)))
        self.intents.append(self._shared(tuple(sorted(set(intents)))))
        for name, column in self._columns.items():
            value = facts.measures.get(name)
            column.append(math.nan if value is None else float(value))

    def _shared(self, names: tuple[str, ...]) -> tuple[str, ...]:
        # The same few combinations come again and again: one object for each.
        return self._same.setdefault(names, names)

    def facts(self, row: int) -> Facts:
        """Return what is known of one dialogue."""
        measures = {name: column[row] for name, column in self._columns.items()}
        return Facts(self.stops[row], self.kinds[row], measures)

    def column(self, name: str) -> npt.NDArray[np.float64]:
        """Return a measure of all dialogues, NaN where one has no such figure."""
        return np.array(self._columns[name], dtype=np.float64)

    def ended(self) -> Mask:
        """Return which dialogues ended in an end state."""
        return np.array([stop == StopReason.ENDED for stop in self.stops], dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class Decision:
    """What one filter says of all dialogues.

    Attributes:
        asked: whom it judged.
        kept: whom it kept, of those asked.
        reason: why the dialogue of a row was dropped, or what it was kept for; may be empty.
    """

    name: str
    asked: Mask
    kept: Mask
    reason: Callable[[int], str]


Duplicates: TypeAlias = Callable[[Filter, Mask], Mapping[int, str]]
"""Which of these dialogues repeat an earlier one of them: row and reason."""


def label(rule: Filter) -> str:
    """Return a filter's name for people: its kind and its bounds."""
    if rule.kind in ("threshold", "judge"):
        name = rule.measure or "judge"
        low = "" if rule.min is None else f"{rule.min:g} <= "
        return f"{low}{name}" + ("" if rule.max is None else f" <= {rule.max:g}")
    if rule.kind == "top":
        return f"top {rule.share:.0%} by {rule.measure}"
    if rule.kind == "random":
        return f"random {rule.share:.0%}"
    if rule.kind == "balance":
        return f"balance {rule.most:g}"
    return rule.kind.replace("_", " ")


# -- the run file's list


def findings(rules: Sequence[Filter], names: Iterable[str], judged: bool) -> list[Finding]:
    """Return what is wrong with a run file's filters.

    Args:
        names: of the measures that there are.
        judged: whether an engine plays the judge.
    """
    known = sorted(set(names) - {JUDGE, *UNTRUSTED})
    found: list[Finding] = []
    for number, rule in enumerate(rules):
        where = Where(f"curate.filters[{number}]")
        found += [Finding(where, message) for message in _wrong(rule, known, judged)]
    return found


def _wrong(rule: Filter, known: Sequence[str], judged: bool) -> Iterable[str]:
    # A resolved run file names every key: what counts is what differs from the default.
    blank = Filter(kind=rule.kind)
    given = {key for key in Filter.model_fields if getattr(rule, key) != getattr(blank, key)}
    needed = _NEEDS.get(rule.kind, ())
    for key in needed:
        if getattr(rule, key) is None:
            yield f"a filter of the kind {rule.kind!r} needs `{key}`"
    allowed = {*needed, *_MAY.get(rule.kind, ())}
    for key in sorted(given - allowed):
        uses = ", ".join(sorted(allowed)) or "no other key"
        yield f"`{key}` means nothing to a filter of the kind {rule.kind!r}, which takes {uses}"
    if rule.kind == "threshold" and rule.min is None and rule.max is None:
        yield "a filter of the kind 'threshold' needs `min`, `max` or both"
    if rule.min is not None and rule.max is not None and rule.min > rule.max:
        yield f"min = {rule.min:g} is above max = {rule.max:g}: nothing would be kept"
    name = (rule.measure or "").removeprefix("-" if rule.kind == "top" else "")
    if rule.measure is not None and name not in known and name not in UNTRUSTED:
        yield f"there is no measure {name!r}{nearest(name, known) or _some(known)}"
    if name in UNTRUSTED:
        yield f"{name!r} {UNTRUSTED[name]}"
    if rule.kind == "judge" and not judged:
        yield "a filter of the kind 'judge' needs `curate.judge`, the engine that rates"


def _some(known: Sequence[str]) -> str:
    return "; there are " + ", ".join(known)


# -- one dialogue at a time


def dropped(rule: Filter, facts: Facts) -> str:
    """Return why a filter that looks at one dialogue drops this one; empty when it keeps it."""
    if rule.kind == "none":
        return ""
    if rule.kind == "ended":
        stopped = facts.stop_reason
        return "" if stopped == StopReason.ENDED else f"stopped: {stopped}"
    if rule.kind == "consistent":
        counts = Counter(facts.kinds)
        return ", ".join(
            kind if count == 1 else f"{kind} ({count} times)" for kind, count in counts.items()
        )
    name = JUDGE if rule.kind == "judge" else str(rule.measure)
    value = facts.measures.get(name)
    if value is None or math.isnan(value):
        return f"{name} has no value"
    if rule.min is not None and value < rule.min:
        return f"{name} is {value:.3g}"
    if rule.max is not None and value > rule.max:
        return f"{name} is {value:.3g}"
    return ""


def never_kept(rules: Sequence[Filter], facts: Facts) -> bool:
    """Whether a dialogue is dropped whatever the others are like (a judge is not asked)."""
    return any(
        rule.kind in _SINGLE and rule.kind != "judge" and bool(dropped(rule, facts))
        for rule in rules
    )


# -- all dialogues


def decide(
    rule: Filter, number: int, table: Table, eligible: Mask, seed_: int, duplicates: Duplicates
) -> Decision:
    """Return what a filter says.

    Args:
        number: the filter's place in the list, so that two random ones draw apart.
        eligible: what the filters before it kept.
        seed_: of the curation.
        duplicates: finds near-duplicates among some dialogues.
    """
    if rule.kind in _SINGLE:
        kept = np.array([not dropped(rule, table.facts(i)) for i in range(len(table))], np.bool_)
        everyone = np.ones(len(table), np.bool_)
        return Decision(label(rule), everyone, kept, lambda row: dropped(rule, table.facts(row)))
    if rule.kind == "near_duplicates":
        like = duplicates(rule, eligible)
        reasons: Mapping[int, str] = like
        kept = eligible.copy()
        kept[list(like)] = False
    elif rule.kind == "balance":
        kept, reasons = _balanced(rule, number, table, eligible, seed_)
    else:
        kept, reasons = _best(rule, number, table, eligible, seed_), {}
    return Decision(
        label(rule),
        eligible.copy(),
        kept,
        lambda row: "" if kept[row] else _why(rule, reasons, row),
    )


def _why(rule: Filter, reasons: Mapping[int, str], row: int) -> str:
    return reasons.get(row, f"not among the {label(rule)}")


def _drawn(rows: Iterable[int], table: Table, *parts: object) -> dict[int, int]:
    """Return a number for each row, drawn from its dialogue's identity."""
    return {row: seed(*parts, table.walk_ids[row]) for row in rows}


def _best(rule: Filter, number: int, table: Table, eligible: Mask, seed_: int) -> Mask:
    rows = np.flatnonzero(eligible).tolist()
    order = _drawn(rows, table, seed_, "random", number)
    count = math.ceil(float(rule.share or 1) * len(rows) - 1e-9)
    if rule.kind == "top":
        lowest = str(rule.measure).startswith("-")
        values = table.column(str(rule.measure).removeprefix("-"))
        worth = np.nan_to_num(values if lowest else -values, nan=np.inf)
        rows = [row for row in rows if not math.isnan(values[row])]
        rows.sort(key=lambda row: (worth[row], order[row]))
    else:
        rows.sort(key=order.__getitem__)
    kept = np.zeros(len(table), np.bool_)
    kept[rows[:count]] = True
    return kept


def _balanced(
    rule: Filter, number: int, table: Table, eligible: Mask, seed_: int
) -> tuple[Mask, dict[int, str]]:
    """Keep dialogues until an intent of theirs stands in `most` times the median's dialogues.

    Those with the rarest intents come first, so that what is rare is not lost to what is common.
    """
    rows = np.flatnonzero(eligible).tolist()
    counts = Counter(intent for row in rows for intent in table.intents[row])
    kept, reasons = np.zeros(len(table), np.bool_), {}
    middle = float(np.median(list(counts.values()))) if counts else 0.0
    most = max(1, math.floor(float(rule.most or 1) * middle))
    order = _drawn(rows, table, seed_, "balance", number)

    def rarity(row: int) -> tuple[int, int]:
        return min((counts[intent] for intent in table.intents[row]), default=0), order[row]

    taken: Counter[str] = Counter()
    for row in sorted(rows, key=rarity):
        full = [intent for intent in table.intents[row] if taken[intent] >= most]
        if full:
            reasons[row] = f"{full[0]!r} is in {most} dialogues already"
            continue
        kept[row] = True
        taken.update(table.intents[row])
    return kept, reasons


def chain(
    rules: Sequence[Filter], table: Table, seed_: int, duplicates: Duplicates
) -> tuple[list[Decision], Mask]:
    """Return what each filter says of what the ones before it kept, and what all of them keep."""
    eligible = np.ones(len(table), np.bool_)
    decisions = []
    for number, rule in enumerate(rules):
        decision = decide(rule, number, table, eligible, seed_, duplicates)
        decisions.append(decision)
        eligible = eligible & decision.kept
    return decisions, eligible
