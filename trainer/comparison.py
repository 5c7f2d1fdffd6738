"""The systems side by side: the comparison's JSON, and the table that a person reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.bootstrap import LEVEL, Resamples
from trainer.figures import Sums, compare, result

NAMES = {
    "intent_accuracy": "intent accuracy",
    "intent_macro_f1": "intent macro-F1",
    "intent_weighted_f1": "intent weighted F1",
    "slot_precision": "slot precision",
    "slot_recall": "slot recall",
    "slot_f1": "slot F1",
    "call_tool": "right tool",
    "call_exact": "call exact",
    "answer_rouge_l": "answer ROUGE-L",
    "answer_similarity": "answer similarity",
    "answer_groundedness": "answer groundedness",
    "answer_rating": "answer rating",
}
"""The figures of the table in their order, as a person reads them."""


AMOUNTS = {
    "dialogues": "dialogues",
    "examples": "examples",
    "trained_tokens": "tokens learned",
    "steps": "steps",
}
"""On how much an adapter was trained, as a person reads it; the tokens are those of one epoch."""

UNEVEN = 0.1
"""The share by which adapters' amounts may differ before a comparison of them says so."""


def results(systems: Mapping[str, Sums], resamples: Resamples) -> dict[str, dict[str, Any]]:
    """Return every system's figures by name (`trainer.figures.result`)."""
    return {name: result(sums, resamples) for name, sums in systems.items()}


def comparison(
    systems: Mapping[str, Sums],
    found: Mapping[str, Mapping[str, Any]],
    resamples: Resamples,
    adapters: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the systems side by side, and how much better the first is than each other.

    Args:
        found: their figures (`results`).
        adapters: what is known of those systems that are adapters, `trained_on` among it: the
            AMOUNTS by name, each None where it is not known.
    """
    first = next(iter(systems))
    rows = [
        {
            "measure": name,
            "systems": {system: found[system]["figures"].get(name) for system in systems},
        }
        for name in NAMES
    ]
    made: dict[str, Any] = {
        "systems": list(systems),
        "level": LEVEL,
        "rows": [row for row in rows if any(row["systems"].values())],  # type: ignore[attr-defined]
        "adapters": dict(adapters or {}),
        "differences": {"of": first, "against": compare(systems, first, resamples)},
    }
    return {**made, "table": "\n".join(table(made))}


def table(comparison: Mapping[str, Any]) -> list[str]:
    """Return the comparison as lines of text: each figure with its interval."""
    systems: Sequence[str] = comparison["systems"]
    rows = [["", *systems]]
    for row in comparison["rows"]:
        rows.append([NAMES[row["measure"]], *(_cell(row["systems"][one]) for one in systems)])
    lines = _aligned(rows)
    lines += ["", f"{comparison['differences']['of']} minus"]
    against = comparison["differences"]["against"]
    rows = [["", *against]]
    for name, title in NAMES.items():
        cells = [_cell(one.get(name), signed=True) for one in against.values()]
        if any(cell != _NONE for cell in cells):
            rows.append([title, *cells])
    percent = f"{comparison['level']:.0%}"
    note = f"[{percent} interval, from resampled dialogues]"
    lines = [*lines, *_aligned(rows), note] if against else [*lines[:-2], note]
    trained = amount_rows(comparison)
    return [*lines, "", *_aligned(trained)] if trained else lines


def amount_rows(comparison: Mapping[str, Any]) -> list[list[str]]:
    """Return on how much each adapter was trained as a table's rows; none where nothing is known.

    The first row names the adapters.
    """
    found = _amounts(comparison)
    rows = [
        [title, *(_NONE if one.get(key) is None else f"{one[key]:,}" for one in found.values())]
        for key, title in AMOUNTS.items()
        if any(one.get(key) is not None for one in found.values())
    ]
    return [["trained on", *found], *rows] if rows else []


def uneven(comparison: Mapping[str, Any]) -> str:
    """Return, in one line, where adapters were not trained on as much; empty where they were."""
    found = _amounts(comparison)
    differ = {}
    for key, title in AMOUNTS.items():
        values = [one[key] for one in found.values() if one.get(key) is not None]
        if len(values) > 1 and max(values) - min(values) > UNEVEN * max(values):
            differ[key] = f"{' and '.join(f'{value:,}' for value in values)} {title}"
    if not differ:
        return ""
    said = f"{' and '.join(found)} were not trained on as much: {', '.join(differ.values())}"
    if differ.keys() & {"dialogues", "examples"}:  # it does not hold tokens or steps
        said += " (train.dialogues holds both runs to the same number)"
    return said


def _amounts(comparison: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    adapters = comparison.get("adapters", {})
    return {name: one.get("trained_on", {}) for name, one in adapters.items()}


_NONE = "-"


def _cell(interval: Mapping[str, float | None] | None, signed: bool = False) -> str:
    if not interval:
        return _NONE
    form = "{:+.3f}" if signed else "{:.3f}"
    value, low, high = interval["value"], interval["low"], interval["high"]
    if low is None or high is None:
        return form.format(value)
    return f"{form.format(value)} [{form.format(low)}, {form.format(high)}]"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
