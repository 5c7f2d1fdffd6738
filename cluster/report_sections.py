"""The report's sections: each takes what there is and makes figures, tables and a few words of it.

What a stage has not made yet is a section that says which command makes it. The words say how a
figure is to be read, never what it means for somebody's purpose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cluster.report_data import Material, Played, Step, mean, quantile
from cluster.report_evaluation import accuracies
from cluster.report_graph import labelled, png, traffic_svg
from cluster.report_page import Plot, Section, Table, Tile
from cluster.report_plots import (
    coverage,
    diversity,
    frontier,
    funnel,
    lengths,
    losses,
    number,
    points,
)
from cluster.show import plain
from cluster.summary import Share, Summary
from specs.domain import Domain
from specs.errors import DuologueError
from trainer.diversity import COLUMNS

CURATE, TRAIN = "duologue curate RUN.toml", "duologue train RUN.toml"

KINDS = {
    "not_ended": "stopped for another reason than an end state",
    "ends_on_user": "the last words are the user's",
    "off_path": "state, edge or memory are not what the domain makes of it",
    "unshown_selection": "the user chooses what was not shown, or not there",
    "slot_unsaid": "a slot's value is not in the words",
    "list_opening": "begins like a list, or announces one",
    "boilerplate": "a set phrase, a placeholder, a loop",
    "role_label": "a speaker's name stands in the words",
    "repeats": "a side says the same again",
}
"""The kinds of `trainer.consistency`, in words."""

FRONTIER = (
    "groundedness",
    "subgoals_relative",
    "subgoals_said_relative",
    "reference_share",
    "distinct_2",
    "repetition",
    "inconsistencies",
)
"""Measures that the frontier's figure shows; its table has all."""

_STEPS = 200


def at_a_glance(material: Material) -> list[Tile]:
    """Return the figures that stand above everything else."""
    summary = material.played.summary
    own = f"{summary.own.turns - summary.own.own:,} turns are references"
    tiles = [
        Tile("dialogues played", f"{summary.dialogues:,}", f"{summary.ended:.0%} ended"),
        Tile("turns", f"{summary.turns:,}", f"{_a_dialogue(summary.turns, summary)} a dialogue"),
        Tile("turns in the model's own words", f"{summary.own.share:.0%}", own),
    ]
    if material.curated is not None:
        kept, played = material.curated["kept"], material.curated["played"]
        train = material.curated["splits"]["train"]["rows"]
        share = f"{kept / played:.0%} of those curated" if played else ""
        tiles.append(Tile("dialogues kept", f"{kept:,}", share))
        tiles.append(Tile("training examples", f"{train:,}", "one a dialogue"))
    lowest = min((loss for _, loss in points(material.log or (), "eval_loss")), default=None)
    if lowest is not None:
        tiles.append(Tile("validation loss", number(lowest), "lowest"))
    if material.evaluations:
        tiles += accuracies(material.evaluations[0])
    return tiles


def _a_dialogue(count: int, summary: Any) -> str:
    return f"{count / summary.dialogues:.1f}" if summary.dialogues else "0"


# -- what was played


def plan_to_example(material: Material) -> Section:
    """Return the funnel."""
    text = "From what was planned to what is learned from."
    curated = material.curated
    if curated is None:
        summary = material.played.summary
        steps = [("played", summary.dialogues), ("ended", summary.stops["ended"])]
        return Section(
            "funnel", "From plan to training example", text, _NOT_CURATED, CURATE,
            plots=[funnel(steps)], tables=[_stops(material.played)],
        )  # fmt: skip
    steps = [(plain(step["name"]), int(step["count"])) for step in curated["funnel"]]
    rows = [[name, f"{count:,}"] for name, count in steps]
    played = material.played.summary.dialogues
    warning = ""
    if curated["played"] != played:
        warning = (
            f"{played:,} dialogues are there, {curated['played']:,} were curated; "
            "what follows from the curation is of those."
        )
    return Section(
        "funnel", "From plan to training example", text, warning=warning, plots=[funnel(steps)],
        tables=[Table("Dialogues left after each step", ["step", "dialogues"], rows),
                _stops(material.played)],
    )  # fmt: skip


_NOT_CURATED = "The dialogues have not been curated yet."


def _stops(played: Played) -> Table:
    total = played.summary.dialogues
    rows = [
        [reason, f"{count:,}", f"{count / total:.1%}"]
        for reason, count in played.summary.stops.most_common()
    ]
    return Table("Why dialogues stopped", ["reason", "dialogues", "share"], rows)


def graph(played: Played, open_domain: Callable[[], Domain]) -> Section:
    """Return the graph with its traffic."""
    title = "The graph and its traffic"
    try:
        domain = open_domain()
    except DuologueError as error:
        missing = f"The graph cannot be drawn: {plain(error, newlines=True)}"
        return Section("graph", title, missing=missing, tables=[_traffic(played.traffic)])
    traffic = labelled(domain, played.traffic)
    drawing = traffic_svg(domain, traffic)
    alt = (
        f"The states of the domain {domain.name} as boxes, each with the intents that the user "
        f"may have there; {len(traffic)} ways were taken. The table below has the numbers."
    )
    caption = "The domain's graph: an arrow is as wide as it was walked; pale is what nobody took."
    text = (
        "Each box is a state with what the user may want there; the number beside a line says how "
        "often it was taken. Digressions (↩) return to where they came from."
    )
    return Section(
        "graph", title, text,
        plots=[Plot("graph", caption, alt, png(drawing), drawing, wide=True)],
        tables=[_traffic(traffic)],
    )  # fmt: skip


def _traffic(traffic: Counter[Step]) -> Table:
    rows = [
        [f"{plain(from_)} → {plain(to)}", plain(intent) or "(moves on)", f"{count:,}"]
        for (from_, intent, to), count in traffic.most_common(_STEPS)
    ]
    note = f"The {_STEPS} most frequent of {len(traffic)}." if len(traffic) > _STEPS else ""
    return Table("Traffic of each edge", ["way", "intent", "steps"], rows, note, folded=True)


def length(played: Played) -> Section:
    """Return how long dialogues and turns are."""
    counted = {"turns of a dialogue": played.lengths}
    counted |= {f"words of a turn, {side}": one for side, one in played.words.items()}
    rows = [
        [name, f"{mean(one):.1f}", *(str(quantile(one, share)) for share in (0.05, 0.5, 0.95, 1.0))]
        for name, one in counted.items()
    ]
    head = ["", "mean", "5%", "median", "95%", "longest"]
    return Section(
        "lengths", "Lengths", plots=[lengths(played.lengths, played.words)],
        tables=[Table("How long", head, rows)],
    )  # fmt: skip


def covered(played: Played) -> Section:
    """Return which intents and states came, and who worded them."""
    summary = played.summary
    text = (
        "A reference is an utterance that a person wrote into the domain; it stands in where every "
        "candidate of the model failed its checks."
    )
    sources = [[name, f"{count:,}"] for name, count in played.sources.most_common()]
    failed = [[plain(name), f"{count:,}"] for name, count in summary.failed_checks.most_common()]
    models = [[plain(name) or "(unnamed)", f"{n:,}"] for name, n in played.models.most_common()]
    tables = [
        _shares("Intents of the user", "intent", summary.intents),
        _shares("States that the agent spoke in", "state", summary.states),
        Table("Who worded the turns", ["source", "turns"], sources),
        Table("Models that spoke", ["model", "turns"], models),
    ]
    if summary.traits:
        tables.append(_traits(summary))
    if failed:
        caption = "Checks that the shown utterance failed"
        tables.append(Table(caption, ["check", "turns"], failed, folded=True))
    return Section(
        "coverage", "Coverage", text, plots=[coverage(summary.intents, summary.states)],
        tables=[one for one in tables if one.rows],
    )  # fmt: skip


def _traits(summary: Summary) -> Table:
    rows = [
        [
            plain(name), f"{one.planned:,}", _percent(one.planned, summary.dialogues),
            f"{one.dialogues:,}", _percent(one.dialogues, summary.dialogues),
            f"{one.turns:,}", f"{one.told:,}",
        ]
        for name, one in sorted(summary.traits.items())
    ]  # fmt: skip
    head = ["trait", "planned", "share", "acted", "share", "turns acted on", "turns told"]
    note = "A trait acted on a turn where the check of its name passed."
    return Table("What the users are like: dialogues with each trait", head, rows, note)


def _shares(caption: str, name: str, table: Mapping[str, Share]) -> Table:
    rows = [
        [plain(key), f"{one.turns:,}", f"{one.share:.0%}"]
        for key, one in sorted(table.items(), key=lambda item: -item[1].turns)
    ]
    return Table(caption, [name, "turns", "own words"], rows, folded=True)


# -- what was kept


def consistency(material: Material) -> Section:
    """Return what was inconsistent, before and after curation."""
    title = "Consistency"
    if material.curated is None:
        return Section("consistency", title, missing=_NOT_CURATED, command=CURATE)
    before, after = (material.curated["findings"][when] for when in ("before", "after"))
    played, kept = material.curated["played"], material.curated["kept"]
    rows = [
        [
            plain(KINDS.get(kind, kind)), f"{count:,}", _percent(count, played),
            f"{after.get(kind, 0):,}", _percent(after.get(kind, 0), kept),
        ]
        for kind, count in sorted(before.items(), key=lambda item: -item[1])
    ]  # fmt: skip
    text = "Dialogues with each kind of inconsistency, found by rules alone, references included."
    if not rows:
        return Section("consistency", title, f"{text} There was none in what was played.")
    head = ["what", "played", "share", "kept", "share"]
    table = Table("Dialogues with inconsistencies, before and after curation", head, rows)
    return Section("consistency", title, text, tables=[table])


def _percent(count: int, of: int) -> str:
    return f"{count / of:.1%}" if of else "–"


def filters(material: Material) -> Section:
    """Return the frontier of the filters."""
    title = "Filter frontier"
    if material.curated is None:
        return Section("frontier", title, missing=_NOT_CURATED, command=CURATE)
    rows: Sequence[Mapping[str, Any]] = material.curated["frontier"]
    names = list(dict.fromkeys(name for row in rows for name in row["means"]))
    shown = [n for n in FRONTIER if any(row["means"].get(n) is not None for row in rows)]
    text = (
        "Each filter by itself, and the run file's list: how much it keeps, and the means over "
        "what it keeps. Quality is measured on the model's own turns; reference_share stands "
        "beside it."
    )
    succeeded = _succeeded(material.curated.get("success") or {})
    brief = Table(
        "What each filter keeps", ["filter", "kept", "share", *map(_title, shown)],
        [_kept_row(row, shown) for row in rows],
    )  # fmt: skip
    columns = [plain(row["name"]) for row in rows]
    all_ = Table(
        "All measures: means over what each filter keeps", ["measure", *columns],
        [[_title(name), *(number(row["means"].get(name)) for row in rows)] for name in names],
        folded=True,
    )  # fmt: skip
    plots = [frontier(rows, shown)] if shown else []
    return Section("frontier", title, text, plots=plots, tables=[brief, *succeeded, all_])


def _succeeded(success: Mapping[str, Mapping[str, Any] | None]) -> list[Table]:
    """Return the table of how many dialogues reached half of their subgoals, where any has some."""
    ways = {"walked": "entered by the walk", "said": "said in the agent's own words"}
    rows = [
        [
            ways.get(way, plain(way)), f"{of['halfway']} of {of['dialogues']}",
            f"{of['share']:.2f} [{of['low']:.2f}, {of['high']:.2f}]", number(of["mean"]),
        ]
        for way, of in success.items()
        if of is not None
    ]  # fmt: skip
    head = ["subgoals", "dialogues at half or more", "share", "mean share of subgoals"]
    return [Table("Partial success, before any filter", head, rows)] if rows else []


def _kept_row(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    figures = (number(row["means"].get(name)) for name in names)
    return [plain(row["name"]), f"{row['kept']:,}", f"{row['share']:.0%}", *figures]


def _title(name: str) -> str:
    return plain(name).replace("_", " ")


def variety(material: Material) -> Section:
    """Return how varied the corpus is."""
    title = "Diversity"
    if material.curated is None:
        return Section("diversity", title, missing=_NOT_CURATED, command=CURATE)
    before, after = (material.curated["corpus"][when] for when in ("before", "after"))
    names = [name for name in COLUMNS if name != "dialogues" and name in {**before, **after}]
    rows = [[_title(name), number(before.get(name)), number(after.get(name))] for name in names]
    text = (
        "Over the model's own words. More unique words and a higher distinct-n, ROUGE diversity "
        "and dispersion mean more variety; a higher compression ratio, long repetition and "
        "self-BLEU mean less."
    )
    there = [name for name in names if before.get(name) is not None or after.get(name) is not None]
    if not there:
        text += " No turn here is the model's own, so that there is nothing to measure."
    head = ["measure", "played", "kept"]
    return Section(
        "diversity", title, text, plots=[diversity(before, after, there)] if there else [],
        tables=[Table("Corpus measures before and after curation", head, rows)],
    )  # fmt: skip


# -- what was learned


def training(material: Material) -> Section:
    """Return the losses and what the adapter is."""
    title = "Training"
    if material.log is None and material.manifest is None:
        missing = "Nothing has been trained yet."
        return Section("training", title, missing=missing, command=TRAIN)
    plot = losses(material.log or ())
    tables = []
    if material.manifest is not None:
        rows = [[name, value] for name, value in _flat(material.manifest)]
        caption = "The adapter's manifest"
        tables.append(Table(caption, ["key", "value"], rows, folded=True, words=True))
    missing = "" if material.manifest else "The training has not come to its end: no adapter yet."
    evaluated = [row for row in material.log or () if "eval_loss" in row]
    if evaluated:
        head = ["step", "validation loss", "train loss", "tokens a second"]
        rows = [
            [f"{row['step']}", *(number(row.get(key)) for key in ("eval_loss", "loss", "tokens_s"))]
            for row in evaluated
        ]
        tables.insert(0, Table("Losses at each validation", head, rows, folded=len(rows) > 12))
    return Section(
        "training", title, missing=missing, command=TRAIN if missing else "",
        plots=[plot] if plot else [], tables=tables,
    )  # fmt: skip


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values of nested JSON data with their dotted names."""
    if isinstance(value, Mapping) and value:
        for key, one in value.items():
            yield from _flat(one, f"{name}.{key}".lstrip("."))
    else:
        yield plain(name), plain(value)
