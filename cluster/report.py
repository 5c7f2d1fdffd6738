"""`duologue report`: what a run has made, on one page that needs no network, and as PNGs.

Invariants: the dialogues are read once, in bounded memory; the files appear whole, and the page
last, so that an old report stays until the new one is complete; nothing else is touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click

from cluster.made import Made, read_made
from cluster.report_data import Material, gather
from cluster.report_evaluation import confusions, evaluated
from cluster.report_page import Page, Section, render
from cluster.report_readings import readings
from cluster.report_rounds import rounds_section
from cluster.report_sections import (
    at_a_glance,
    consistency,
    covered,
    filters,
    graph,
    length,
    plan_to_example,
    training,
    variety,
)
from cluster.report_usage import usage
from cluster.rounds import are_judged, rows_of
from cluster.run_folder import RunFolder
from cluster.show import plain, role_names
from specs.run_file import RunFile

PAGE, PLOTS = "report.html", "report"

_OURS = re.compile(
    r"(funnel|graph|lengths|coverage|frontier|diversity|losses|evaluation.*|confusion-.*)\.png"
)
"""The names of the figures, so that one which is not made any more goes."""


def report(run: RunFile, say: Callable[[str], None]) -> Path:
    """Write a run's report, and return where its page is.

    Args:
        say: is told what goes on.

    Raises:
        InputError: there is no run or no dialogue, or a file that is there cannot be read.
        DuologueError: the disk is full, and the like; the old report stays.
    """
    folder = RunFolder.of(run)
    made = read_made(folder)
    with folder.hold():
        say("reading the dialogues")
        material = gather(folder, made.run.run.seed)
        say(f"drawing the report of {material.played.summary.dialogues} dialogues")
        page = _page(folder, made, material)
        return _written(folder, page)


def command(run: RunFile) -> None:
    """Write a run's report and print where it is; raises what `report` raises."""
    click.echo(report(run, lambda text: click.echo(text, err=True)))


def _page(folder: RunFolder, made: Made, material: Material) -> Page:
    first = material.evaluations[0] if material.evaluations else None
    sections: list[Section] = [
        plan_to_example(material),
        usage(material.sessions, material.unread),
        graph(material.played, made.place.open),
        length(material.played),
        covered(material.played),
        consistency(material),
        filters(material),
        variety(material),
        training(material),
        evaluated(first),
        confusions(first),
        *map(evaluated, material.evaluations[1:]),
        *([rounds_section(rows_of(folder))] if are_judged(folder) else []),
    ]
    policy, domain = made.run.policy.kind, plain(made.run.domain.path)
    about = f"Domain {domain}, policy {policy}, seed {made.run.run.seed}, round {folder.number}."
    return Page(
        title=f"Duologue: {plain(folder.name)}",
        subtitle=about,
        made=datetime.now(UTC).isoformat(sep=" ", timespec="minutes"),
        tiles=at_a_glance(material),
        sections=sections,
        readings=readings(material, role_names(folder)),
    )


def _written(folder: RunFolder, page: Page) -> Path:
    round_ = folder.round()
    text = render(page)
    plots = round_.child(PLOTS)
    plots.create()
    drawn = {f"{plot.name}.png": plot.png for one in page.sections for plot in one.plots}
    for name, data in drawn.items():
        plots.write_bytes(name, data)
    round_.write_bytes(PAGE, text.encode("utf-8"))
    for name in plots.names("", ".png"):
        if name not in drawn and _OURS.fullmatch(name):
            plots.delete(name)
    return Path(round_.file(PAGE))
