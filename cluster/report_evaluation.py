"""The report's sections on how good the systems are: tables with intervals, confusion matrices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cluster.evaluation_plan import ADAPTER, BIGRAM, MAJORITY
from cluster.report_data import Evaluation
from cluster.report_page import Plot, Section, Table, Tile
from cluster.report_plots import Interval, by_turn, confusion, intervals
from cluster.show import plain
from trainer.comparison import NAMES, amount_rows, uneven

EVALUATE = "duologue evaluate RUN.toml"

_MISTAKES = 15

_OUTDATED = (
    "These figures are of another adapter than the one that is in the run's folder now: it has "
    f"been trained again since. {EVALUATE} measures the new one."
)


def accuracies(evaluation: Evaluation) -> Iterator[Tile]:
    """Yield the intent accuracies of the first two systems."""
    figures = {row["measure"]: row["systems"] for row in evaluation.comparison["rows"]}
    systems = figures.get("intent_accuracy", {})
    for system in list(systems)[:2]:
        found = systems[system]
        if found and found.get("value") is not None:
            other = evaluation.outdated and system == ADAPTER
            span = "of another adapter than is there now" if other else _span(found)
            yield Tile(f"intent accuracy: {plain(system)}", f"{found['value']:.3f}", span)


def evaluated(evaluation: Evaluation | None) -> Section:
    """Return an evaluation's tables."""
    if evaluation is None:
        missing = "Nothing has been evaluated yet."
        return Section("evaluation", "Evaluation", missing=missing, command=EVALUATE)
    name = _file("-".join(filter(None, ["evaluation", evaluation.name])))
    title = f"Evaluation on {evaluation.name}" if evaluation.name else "Evaluation"
    comparison = evaluation.comparison
    systems = [plain(one) for one in comparison["systems"]]
    rows = [
        (NAMES.get(row["measure"], row["measure"]), row["systems"]) for row in comparison["rows"]
    ]
    data = comparison.get("data", {})
    text = (
        f"On {data.get('dialogues', '?')} dialogues with {data.get('turns', '?')} turns of the "
        f"user, teacher-forced. In brackets: {comparison.get('level', 0.95):.0%} intervals from "
        "resampled dialogues. What does not parse, or names an unknown intent, counts as wrong."
    )
    tables = [
        Table(
            "All systems side by side", ["measure", *systems],
            [[title_, *(_cell(of.get(one)) for one in comparison["systems"])]
             for title_, of in rows],
        ),
        *_differences(comparison),
        *_amounts(comparison),
        *_by_turn_tables(evaluation),
        *_slot_tables(evaluation),
        *_intent_tables(evaluation),
        *_trouble(evaluation),
    ]  # fmt: skip
    shares = [row for row in rows if row[0] != NAMES["answer_rating"]]  # of another scale
    plots = [intervals(shares, comparison["systems"], name), *_by_turn_plot(evaluation, name)]
    apart = uneven(comparison)
    warnings = [_OUTDATED] if evaluation.outdated else []
    warnings += [f"{plain(apart)}."] if apart else []
    warning = " ".join(warnings)
    return Section(name, title, text, warning=warning, plots=plots, tables=tables)


def _cell(found: Interval | None, signed: bool = False) -> str:
    if not found or found.get("value") is None:
        return "–"
    value = f"{found['value']:+.3f}" if signed else f"{found['value']:.3f}"
    return f"{value} {_span(found, signed)}".rstrip()


def _span(found: Interval, signed: bool = False) -> str:
    low, high = found.get("low"), found.get("high")
    if low is None or high is None:
        return ""
    return f"[{low:+.3f}, {high:+.3f}]" if signed else f"[{low:.3f}, {high:.3f}]"


def _differences(comparison: Mapping[str, Any]) -> Iterator[Table]:
    against = comparison["differences"]["against"]
    rows = [
        [title, *(_cell(one.get(name), signed=True) for one in against.values())]
        for name, title in NAMES.items()
        if any(one.get(name) for one in against.values())
    ]
    if rows:
        first = plain(comparison["differences"]["of"])
        head = ["measure", *(f"over {plain(other)}" for other in against)]
        note = "Dialogues are paired; an interval without 0 is a difference."
        yield Table(f"How much greater the figures of {first} are", head, rows, note)


def _amounts(comparison: Mapping[str, Any]) -> Iterator[Table]:
    if found := amount_rows(comparison):
        (_, *names), *rows = found
        note = "Tokens learned are those of one epoch."
        yield Table("What the adapters were trained on", ["", *map(plain, names)], rows, note)


_BY_TURN = ("intent_accuracy", "slot_f1", "call_exact", "answer_rouge_l")


def _buckets(evaluation: Evaluation) -> list[str]:
    found = (bucket for one in evaluation.systems.values() for bucket in one["by_turn"])
    return list(dict.fromkeys(found))


def _by_turn_tables(evaluation: Evaluation) -> Iterator[Table]:
    buckets, systems = _buckets(evaluation), evaluation.systems
    for measure in _BY_TURN:
        found = {name: one["by_turn"] for name, one in systems.items()}
        there = [n for n, one in found.items() if any(b.get(measure) for b in one.values())]
        rows = [
            [bucket, *(_cell(found[name].get(bucket, {}).get(measure)) for name in there)]
            for bucket in buckets
        ]
        if there:
            turns = _turns(systems.values())
            rows = [[f"{row[0]} ({turns.get(row[0], 0)})", *row[1:]] for row in rows]
            caption = f"By position: {NAMES[measure]}"
            head = ["user turn (how many)", *map(plain, there)]
            yield Table(caption, head, rows, folded=measure != _BY_TURN[0])


def _turns(systems: Any) -> dict[str, int]:
    return {bucket: b["turns"] for one in systems for bucket, b in one["by_turn"].items()}


def _by_turn_plot(evaluation: Evaluation, name: str) -> Iterator[Plot]:
    found = {
        plain(system): {bucket: b.get("intent_accuracy") for bucket, b in one["by_turn"].items()}
        for system, one in evaluation.systems.items()
    }
    buckets = _buckets(evaluation)
    if len(buckets) > 1:
        yield by_turn(buckets, found, f"{name}-by-turn")


def _slot_tables(evaluation: Evaluation) -> Iterator[Table]:
    systems = {name: one for name, one in evaluation.systems.items() if one["slots"]}
    kinds = list(dict.fromkeys(kind for one in systems.values() for kind in one["slots"]))
    if not kinds:
        return
    rows = []
    for kind in kinds:
        gold = max(one["slots"].get(kind, {}).get("gold", 0) for one in systems.values())
        cells = (_cell(one["slots"].get(kind, {}).get("f1")) for one in systems.values())
        rows.append([f"{plain(kind)} ({gold})", *cells])
    head = ["type (how many)", *map(plain, systems)]
    yield Table("Slot F1 by type", head, rows)


def _intent_tables(evaluation: Evaluation) -> Iterator[Table]:
    figures = ("precision", "recall", "f1")
    for name, one in _learners(evaluation):
        rows = [
            [plain(intent), f"{of['gold']:.0f}", *(f"{of[figure]:.3f}" for figure in figures)]
            for intent, of in sorted(one["intents"].items(), key=lambda item: -item[1]["gold"])
        ]  # fmt: skip
        head = ["intent", "turns", "precision", "recall", "F1"]
        yield Table(f"Intents one by one: {plain(name)}", head, rows, folded=True)


def _learners(evaluation: Evaluation) -> list[tuple[str, Mapping[str, Any]]]:
    return [
        (name, one) for name, one in evaluation.systems.items() if name not in (MAJORITY, BIGRAM)
    ]


def _trouble(evaluation: Evaluation) -> Iterator[Table]:
    rows = []
    for name, one in _learners(evaluation):
        counts = [
            sum(one.get(key, {}).values()) for key in ("pieces", "ran_to_limit", "unanswered")
        ]
        rows.append([plain(name), *map(str, counts), str(one.get("cut_prompts", 0))])
    head = ["system", "pieces", "cut at the limit", "did not fit", "prompts that lost turns"]
    if rows:
        yield Table("What was asked", head, rows, folded=True)


def confusions(evaluation: Evaluation | None) -> Section:
    """Return the confusion matrices of what a model wrote."""
    if evaluation is None:
        missing = "Nothing has been evaluated yet."
        return Section("confusion", "Confusion matrix", missing=missing, command=EVALUATE)
    plots, tables = [], []
    for name, one in _learners(evaluation):
        matrix, shown = one["confusion"], plain(name)
        rows, columns = ([plain(x) for x in matrix[key]] for key in ("rows", "columns"))
        if not rows:
            continue
        counts: Sequence[Sequence[int]] = matrix["counts"]
        plots.append(confusion(rows, columns, counts, f"confusion-{_file(name)}", shown))
        tables.append(_mistakes(rows, columns, counts, shown))
    text = "Rows are what the user wanted, columns what the system took it for."
    warning = _OUTDATED if evaluation.outdated else ""
    return Section(
        "confusion", "Confusion matrix", text, warning=warning, plots=plots, tables=tables
    )


def _mistakes(
    rows: Sequence[str], columns: Sequence[str], counts: Sequence[Sequence[int]], system: str
) -> Table:
    wrong = [
        (count, row, column)
        for row, line in zip(rows, counts, strict=True)
        for column, count in zip(columns, line, strict=True)
        if count and row != column
    ]
    wrong.sort(key=lambda one: -one[0])
    shown = [[f"{row} taken for {column}", str(n)] for n, row, column in wrong[:_MISTAKES]]
    caption = f"Most frequent mistakes of {system}"
    return Table(caption, ["mistake", "turns"], shown or [["none", "0"]], folded=True)


def _file(name: str) -> str:
    """Return a system's name as a part of a file's."""
    return "".join(one if one.isalnum() or one in "-_" else "-" for one in name)[:60]
