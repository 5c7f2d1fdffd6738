"""The report's section about the rounds of a run: who played, what was judged, what came of it."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.report_page import Section, Table
from cluster.rounds import HEAD, Row, cells
from cluster.show import plain


def rounds_section(rows: Sequence[Row]) -> Section:
    """Return the section."""
    guards = [
        (str(row.number), guard.name, "yes" if guard.passed else "no", plain(guard.line))
        for row in rows
        if row.note.verdict is not None
        for guard in row.note.verdict.guards
    ]
    swaps = [
        (str(row.number), f"{row.swap_s:.0f}", f"{row.idle_s or 0:.0f}")
        for row in rows
        if row.swap_s is not None
    ]
    tables = [
        Table(
            "Rounds of the run",
            HEAD,
            [tuple(map(plain, row)) for row in cells(rows)],
            "Of a trial: the mean share of the best path's subgoals that the agent speaks for in "
            "its own words, with its interval over dialogues.",
            words=True,
        ),
        Table(
            "What was looked at before a round was promoted",
            ("round", "guard", "passed", "what was seen"),
            guards,
            words=True,
        ),
    ]
    if swaps:
        head = ("round", "after training, s", "after the verdict, s")
        tables.append(Table("When a round's first dialogue began", head, swaps))
    return Section(
        id="rounds",
        title="Rounds",
        text="Each round's agent is played by the adapter of the last round that was promoted; "
        "the users stay as they are.",
        tables=tables,
    )
