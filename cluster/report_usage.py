"""The report's section about what the generation took: time, tokens, GPUs, money."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.advice import advise, bottleneck
from cluster.progress import duration
from cluster.report_page import Section, Table
from cluster.show import plain
from cluster.usage import Session
from cluster.usage_table import (
    REPLICA_HEAD,
    TIME_HEAD,
    all_together,
    cost,
    engine_head,
    engine_rows,
    figure,
    replica_rows,
    role_speeds,
    time_rows,
    trouble,
)

TITLE = "What it took"

ENDS = {
    "": "was killed, or goes on",
    "done": "all was played",
    "interrupted": "interrupted",
    "budget": "out of its budget",
    "failed": "failed",
}

TEXT = (
    "In use: the share of an engine's places that were taken, on average; full: of the time in "
    "which none was free. Tokens a second count what was written; those of a replica, only while "
    "it was up. GPU-hours count from getting a GPU to giving it back."
)


def usage(sessions: Sequence[Session], unread: Sequence[str] = ()) -> Section:
    """Return what all starts of the generation took, and the longest of them in detail.

    Args:
        unread: what was wrong with files that are left out.
    """
    warning = plain(" ".join(unread))
    if not sessions:
        missing = "There is no note of how long it took, and on what."
        return Section("usage", TITLE, missing=missing, warning=warning)
    longest = max(sessions, key=lambda session: session.playing_s)
    which = f" (start {longest.number})" if len(sessions) > 1 else ""
    tables = [
        Table(
            "Starts of the generation", _head(sessions), [_row(one, sessions) for one in sessions]
        ),
        Table(f"Engines{which}", engine_head(longest), _plain(engine_rows(longest))),
        Table(f"Where the time of a turn went{which}", TIME_HEAD, time_rows(longest)),
        Table(f"Replicas{which}", REPLICA_HEAD, _plain(replica_rows(longest)), folded=True),
    ]
    return Section(
        "usage", TITLE, f"{_said(longest, sessions)} {TEXT}", warning=warning,
        tables=[table for table in tables if table.rows],
    )  # fmt: skip


def _said(session: Session, sessions: Sequence[Session]) -> str:
    """Return in sentences what held it up, and what to change."""
    told = [all_together(sessions)] if len(sessions) > 1 else []
    if held := bottleneck(session):
        told.append(f"what held it up: {held}")
    told += [str(advice) for advice in advise(session)]
    told += [*role_speeds(session), *trouble(session)]
    return plain(" ".join(f"{text[0].upper()}{text[1:]}." for text in told))


def _plain(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[plain(cell) for cell in row] for row in rows]


def _head(sessions: Sequence[Session]) -> list[str]:
    head = ["start", "began", "took", "starting", "playing", "dialogues", "turns", "turns/s"]
    head += ["tokens read", "tokens written"]
    if any(session.gpu_hours for session in sessions):
        head += ["GPU-hours", "cost"]
    return [*head, "end"]


def _row(session: Session, sessions: Sequence[Session]) -> list[str]:
    walkers, engines = session.walkers, session.engines.values()
    speed = walkers.all_turns / session.playing_s if session.playing_s else 0.0
    row = [
        f"{session.number}",
        plain(session.began.replace("T", " ")),
        *(duration(seconds) for seconds in (session.wall_s, session.starting_s, session.playing_s)),
        f"{walkers.dialogues:,}",
        f"{walkers.all_turns:,}",
        figure(speed),
        *(
            f"{sum(one.total(name) for one in engines):,.0f}"
            for name in ("prompt_tokens", "completion_tokens")
        ),
    ]
    if any(one.gpu_hours for one in sessions):
        row += [figure(session.gpu_hours), plain(cost([session])) or "-"]
    return [*row, ENDS[session.end]]
