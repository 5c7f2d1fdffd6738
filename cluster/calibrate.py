"""`duologue calibrate`: from which likeness on does an utterance speak for a subgoal?"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from cluster.report_plots import COLOURS, number, settings
from cluster.walked_labels import is_run, walked_labels
from specs.errors import InputError
from specs.parts import Folder
from trainer.calibration import Calibration, calibrate, likeness
from trainer.labelled import Labelled, read_labelled
from trainer.likeness import Alike, ByMeaning, ByWords

FIGURES, PLOT = "calibration.json", "calibration.png"

_LEAST = 2
"""Dialogues: one to choose a threshold on, and one to say what it is worth."""


def command(
    path: Path, out: Path, embedding: str, asked: Sequence[float], seed: int, resamples: int
) -> None:
    """Calibrate on labelled turns, print what came of it, and write it as JSON and as a plot.

    Args:
        path: a JSONL file, or the STAR data set's folder (`trainer.labelled`), or that of a run
            (`cluster.walked_labels`).
        embedding: what an embedder is called in a run file.
        asked: thresholds to be told of beside the best.

    Raises:
        InputError: with everything that is wrong with the turns.
        DuologueError: the embedder does not load, or the disk is full.
    """
    click.echo(f"reading the turns of {path}", err=True)
    turns = walked_labels(path) if is_run(path) else read_labelled(path)
    _require_enough(turns, path, seed)
    click.echo(f"loading the embedder {embedding}", err=True)
    from actors.retrieval.embedding import load_embedder

    embedder = load_embedder(embedding)
    measures: dict[str, Alike] = {"rouge": ByWords(), "embedding": ByMeaning(embedder.encode)}
    found = {}
    for name, alike in measures.items():
        click.echo(f"comparing {len(turns)} turns with their references by {name}", err=True)
        found[name] = likeness(turns, alike)
    click.echo(f"choosing thresholds, and {resamples} resamples of what they are worth", err=True)
    figures = calibrate(turns, found, sorted(set(asked)), seed, resamples)
    figures = {**figures, "data": str(path), "embedding": embedder.name}
    folder = Folder.of(out)
    folder.create()
    folder.write_bytes(PLOT, _drawn(figures))
    folder.write_bytes(FIGURES, (json.dumps(figures, indent=1) + "\n").encode())
    for line in lines(figures):
        click.echo(line)
    click.echo(f"\n{folder.file(FIGURES)}\n{folder.file(PLOT)}")


def _require_enough(turns: Sequence[Labelled], path: Path, seed: int) -> None:
    dialogues = len({turn.dialogue for turn in turns})
    if dialogues < _LEAST:
        raise InputError(
            f"{path}: its turns are of {dialogues} dialogue",
            f"Give at least {_LEAST}: a threshold is chosen on one half and measured on the other.",
        )
    choosing, held_out = Calibration(turns, seed, resamples=1).labelled()
    if not choosing and not held_out:
        raise InputError(f"{path}: no turn has a label", "Say in `label` what the turns stood for.")
    if not choosing or not held_out:
        what = "chosen" if held_out else "measured"
        raise InputError(
            f"{path}: no labelled turn (of {choosing + held_out}) is in the half of its "
            f"{dialogues} dialogues that a threshold is {what} on",
            "Label turns of more dialogues, or draw other halves with --seed.",
        )


def lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a calibration found as lines of text."""
    of = figures["dialogues"]
    yield (
        f"{figures['turns']:,} turns, {figures['labelled']:,} of them labelled; "
        f"{figures['edited']:,} edited, {figures['edited_and_labelled']:,} of them labelled"
    )
    yield (
        f"thresholds chosen on {of['chosen_on']:,} dialogues, figures of {of['held_out']:,} others,"
        " with 95% intervals"
    )
    yield ""
    yield f"{'turns':<8}{'measure':<11}{'at least':<17}" + "".join(
        f"{name:<22}" for name in ("precision", "recall", "F1")
    )
    for kind in ("all", "edited"):
        for name, by_kind in figures["measures"].items():
            tried = [(worth, "") for worth in by_kind[kind]["asked"]]
            for worth, note in (*tried, (by_kind[kind]["chosen"], "best F1")):
                told = (_interval(worth[key]) for key in ("precision", "recall", "f1"))
                at = f"{worth['threshold']:.2f} {note}"
                row = f"{kind:<8}{name:<11}{at:<17}" + "".join(f"{one:<22}" for one in told)
                yield row.rstrip()
    best = figures["best"]
    yield ""
    worth = figures["measures"][best["measure"]]["all"]["chosen"]["f1"]
    if not best["f1_where_chosen"] or not worth or not worth["value"]:
        yield "no threshold found that is worth anything: the best F1 is 0"
        return
    yield f"best over all turns: {best['measure']} at {best['threshold']:.2f}; its F1 is higher by"
    for name, difference in figures["better_by"].items():
        yield f"  {_interval(difference)} than {name}"
    yield ""
    yield "in a run file:"
    yield (
        f'  curate.subgoals = {{ measure = "{best["measure"]}", threshold = {best["threshold"]} }}'
    )


def _interval(found: Mapping[str, float | None] | None) -> str:
    if found is None:
        return "-"
    bounds = [found["low"], found["high"]]
    shown = [f"{one:.3f}" for one in (found["value"], *bounds) if one is not None]
    return f"{shown[0]} [{', '.join(shown[1:])}]" if shown[1:] else number(found["value"])


def _drawn(figures: Mapping[str, Any]) -> bytes:
    """Return the plot: precision, recall and F1 at each threshold, for each measure."""
    from matplotlib.figure import Figure

    with settings():
        figure = Figure(figsize=(10, 4))
        titles = {"all": "all turns", "edited": "turns that differ from the reference"}
        panels = figure.subplots(1, len(titles), sharey=True)
        for axes, (kind, title) in zip(panels, titles.items(), strict=True):
            for colour, (name, found) in zip(COLOURS, figures["measures"].items(), strict=False):
                tried, *curves = zip(*found[kind]["sweep"], strict=True)
                styles = (("precision", ":", 1.2), ("recall", "--", 1.2), ("F1", "-", 2.2))
                for (label, style, width), curve in zip(styles, curves, strict=True):
                    text = f"{name}: {label}" if kind == "all" else None
                    axes.plot(tried, curve, style, color=colour, linewidth=width, label=text)
            for worth in figures["measures"]["rouge"][kind]["asked"]:
                axes.axvline(worth["threshold"], color="#444444", linewidth=0.8)
            axes.set(title=title, xlabel="least likeness", ylim=(0, 1.02), xlim=(0, 1))
            axes.grid(alpha=0.3)
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
        image = io.BytesIO()
        figure.savefig(image, format="png", facecolor="white", dpi=150)
        return image.getvalue()
