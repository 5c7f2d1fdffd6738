"""An experiment's table, as text and JSON, and its plot: pure but for the files.

Beside the arms stands which characteristics of the training dialogues go with a better agent: rank
correlations over the arms, with their number, which is small.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cluster.evaluation_plan import ADAPTER
from cluster.experiment_differences import SHARE, TESTED, Difference, Figures, Outcomes, differences
from cluster.report_page import Plot
from cluster.round_note import Tried
from specs.experiment_file import Experiment
from specs.masking import without_secrets
from specs.parts import Folder
from trainer.comparison import NAMES
from trainer.success import wilson

TABLE, TEXT, PLOT = "table.json", "table.md", "plot.png"

LEAST = 5
"""Arms below which no correlation is told: two of the 24 orders of four arms are perfect ones."""

Correlations = tuple[str, list[tuple[str, float, int]]]
"""With which figure, and each measure with its correlation and the number of arms."""


@dataclass(slots=True)
class Row:
    """One arm, at one value of the sweep: what came of it.

    Attributes:
        failed: why it has no figures: it left nothing to learn from, say.
        dialogues: the curation's summary; test: the evaluation's comparison.
        learned: from how many dialogues the adapter has learned; None without one.
        outcomes: what it reached, dialogue by dialogue.
    """

    arm: str
    value: Any
    name: str
    failed: str = ""
    dialogues: Mapping[str, Any] | None = None
    test: Mapping[str, Any] | None = None
    trials: Sequence[Tried] = ()
    learned: int | None = None
    outcomes: Outcomes = field(default_factory=Outcomes)

    def figures(self) -> Figures:
        """Return its figures by name: `value`, and `low` and `high` where there is an interval."""
        found: dict[str, Mapping[str, float | None]] = {}
        if self.dialogues is not None:
            found |= _of_dialogues(self.dialogues)
        if self.learned is not None:
            found["learned from"] = {"value": self.learned}
        if self.test is not None:
            found |= {f"test: {NAMES[name]}": one for name, one in _tested(self.test).items()}
        for one in self.trials:
            found |= _of_trial(one, "" if one.own else f" ({one.domain})")
        return found


def _of_dialogues(summary: Mapping[str, Any]) -> dict[str, Mapping[str, float | None]]:
    kept, played = int(summary["kept"]), int(summary["played"])
    bounds: dict[str, float | None] = {"low": None, "high": None}
    filters = summary["settings"]["filters"]
    if not any(rule["kind"] in ("top", "random") for rule in filters):  # whose share is asked for
        bounds = dict(zip(("low", "high"), wilson(kept, played), strict=True))
    before = summary["measures"]["before"]
    found: dict[str, Mapping[str, float | None]] = {
        "played": {"value": played},
        "references": {"value": before.get("reference_share")},
        "kept": {"value": kept / played, **bounds},
    }
    for way, one in (summary.get("success") or {}).items():
        if one is not None:
            found[f"half of the subgoals {way}"] = {
                "value": one["share"], "low": one["low"], "high": one["high"],
            }  # fmt: skip
    varied = summary["corpus"]["after"].get("rouge_diversity")
    return {**found, "diversity": {"value": varied}}


def _tested(comparison: Mapping[str, Any]) -> dict[str, Mapping[str, float | None]]:
    rows = {row["measure"]: row["systems"].get(ADAPTER) for row in comparison["rows"]}
    return {name: rows[name] for name in TESTED if rows.get(name)}


def _of_trial(one: Tried, of: str) -> dict[str, Mapping[str, float | None]]:
    return {
        f"trial{of}: references": {"value": one.references},
        f"trial{of}: persona": {"value": one.persona},
        f"trial{of}: subgoals": {"value": one.absolute},
        f"trial{of}: subgoals, share": {"value": one.mean, "low": one.low, "high": one.high},
        f"trial{of}: ended": {"value": one.ended},
        f"trial{of}: diversity": {"value": one.diversity},
    }


# -- the table


def head(rows: Sequence[Row]) -> list[str]:
    """Return the names of all figures that a row has, in their order."""
    return list(dict.fromkeys(name for row in rows for name in row.figures()))


def _lines(
    experiment: Experiment,
    rows: Sequence[Row],
    found: Sequence[Difference],
    measured: Correlations,
) -> Iterator[str]:
    """Yield the table, the differences and the correlations, in Markdown."""
    names = head(rows)
    yield f"| {experiment.file.name} | " + " | ".join(names) + " |"
    yield "|---" * (len(names) + 1) + "|"
    for row in rows:
        figures = row.figures()
        cells = [_cell(figures.get(name)) for name in names]
        if row.failed:
            cells = [row.failed.replace("|", "/"), *cells[1:]]
        yield f"| {row.name} | " + " | ".join(cells) + " |"
    yield from _difference_lines(found)
    target, correlated = measured
    if correlated:
        yield ""
        yield f"| of the training dialogues | rank correlation with {target} | arms |"
        yield "|---|---|---|"
        for name, rho, count in correlated:
            yield f"| {name} | {rho:+.2f} | {count} |"
        yield ""
        yield (
            f"{len(correlated)} characteristics over so few arms: some go along by chance alone. "
            "These name what to look into, and prove nothing."
        )


def _difference_lines(found: Sequence[Difference]) -> Iterator[str]:
    if not found:
        return
    names = list(dict.fromkeys(name for one in found for name in one.figures))
    yield ""
    yield f"| {found[0].of} minus | " + " | ".join(names) + " |"
    yield "|---" * (len(names) + 1) + "|"
    for one in found:
        name = one.against if one.value is None else f"{one.against}, {one.value}"
        cells = [_cell(one.figures.get(figure), "+") for figure in names]
        yield f"| {name} | " + " | ".join(cells) + " |"


def _cell(one: Mapping[str, float | None] | None, sign: str = "") -> str:
    if one is None or one.get("value") is None:
        return "-"
    value = one["value"] or 0.0
    shown = f"{value:.0f}" if value == int(value) and value > 1 else f"{value:{sign}.2f}"
    low, high = one.get("low"), one.get("high")
    bounds = "" if low is None or high is None else f" [{low:{sign}.2f}, {high:{sign}.2f}]"
    return f"{shown}{bounds}"


def correlations(experiment: Experiment, rows: Sequence[Row]) -> Correlations:
    """Return which measures of the training dialogues go with a better agent.

    Spearman's (1904) rank correlation over the arms: with so few, whether it is linear cannot be
    seen. None over a sweep, in which the same dialogues come again and again.

    Returns:
        What is meant by better, and each measure with its correlation and the number of arms, the
        strongest first; nothing for fewer than LEAST arms.
    """
    if experiment.file.sweep is not None:
        return "", []
    for target in (SHARE, f"test: {NAMES['intent_accuracy']}"):
        points = [(row, row.figures().get(target)) for row in rows if row.dialogues is not None]
        known = [
            (row, float(one["value"])) for row, one in points if one and one["value"] is not None
        ]
        if len(known) >= LEAST:
            return target, _correlated(known)
    return "", []


def _correlated(known: Sequence[tuple[Row, float]]) -> list[tuple[str, float, int]]:
    from scipy.stats import spearmanr

    measures = [_characteristics(row) for row, _ in known]
    found = []
    for name in dict.fromkeys(name for one in measures for name in one):
        pairs = [
            (one[name], reached)
            for one, (_, reached) in zip(measures, known, strict=True)
            if one.get(name) is not None
        ]
        ours, theirs = (np.array(column, dtype=np.float64) for column in zip(*pairs, strict=True))
        if len(pairs) >= LEAST and np.ptp(ours) > 0 and np.ptp(theirs) > 0:
            found.append((name, float(spearmanr(ours, theirs).statistic), len(pairs)))
    return sorted(found, key=lambda one: (-abs(one[1]), one[0]))


def _characteristics(row: Row) -> dict[str, float]:
    """Return what is known of the dialogues that an arm learned from."""
    summary = row.dialogues or {}
    found = {**summary["measures"]["after"], **summary["corpus"]["after"]}
    found["learned from"] = row.learned
    return {name: float(value) for name, value in found.items() if value is not None}


# -- files


def write(experiment: Experiment, rows: Sequence[Row], place: Folder) -> str:
    """Write the table as JSON and Markdown, and the plot.

    Returns:
        The Markdown.

    Raises:
        DuologueError: the disk is full.
    """
    found = list(differences([(row.arm, row.value, row.outcomes) for row in rows]))
    target, correlated = measured = correlations(experiment, rows)
    content = {
        "experiment": without_secrets(experiment.file.model_dump(mode="json")),
        "rows": [
            {"arm": row.arm, "value": row.value, "run": row.name, "failed": row.failed or None,
             "figures": row.figures()}
            for row in rows
        ],
        "differences": [
            {"of": one.of, "against": one.against, "value": one.value, "figures": one.figures}
            for one in found
        ],
        "correlations": {
            "with": target,
            "rows": [{"measure": n, "rho": rho, "arms": count} for n, rho, count in correlated],
        },
    }  # fmt: skip
    text = json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False)
    place.write_bytes(TABLE, f"{text}\n".encode())
    table = "\n".join(_lines(experiment, rows, found, measured))
    place.write_bytes(TEXT, f"{table}\n".encode())
    if plot := plotted(experiment, rows):
        place.write_bytes(PLOT, plot.png)
    return table


def plotted(experiment: Experiment, rows: Sequence[Row]) -> Plot | None:
    """Return the figures that have intervals: by arm, or a panel each over the sweep's values."""
    from cluster.report_plots import intervals, swept

    found = {(row.arm, row.value): row.figures() for row in rows}
    arms = list(dict.fromkeys(arm for arm, _ in found))
    names = [
        name
        for name in head(rows)
        if any(one.get(name, {}).get("low") is not None for one in found.values())
    ]
    if not names:
        return None
    sweep = experiment.file.sweep
    if sweep is None:
        by_name = [(name, {arm: found[arm, None].get(name) for arm in arms}) for name in names]
        return intervals(by_name, arms, "plot")
    panels = {
        name: {arm: [found.get((arm, v), {}).get(name) for v in sweep.values] for arm in arms}
        for name in names
    }
    return swept([str(value) for value in sweep.values], panels, sweep.key)
