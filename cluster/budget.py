"""When a generation has used up its budget: pure.

What costs money counts over all starts of a run: the tokens and the GPU-hours that it has used
since it began (or began afresh, which deletes the count with the dialogues). What bounds one go
counts for one start: the dialogues that it plays, and its hours of wall time, start-up included. So
the same command goes on after the latter, and only with a larger budget after the former.

Dialogues are met exactly: no more are begun. The others are looked at every two seconds; what is in
flight then is left to the turn log, and nothing of it is lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from cluster.usage import Session
from specs.errors import DuologueError
from specs.index_set import IndexSet
from specs.run_file import BudgetSection, RunFile

STAYS = "What is finished is durable, and what was begun is in the turn log."


class OutOfBudget(DuologueError):
    """A budget is used up while the engines still come up; says which, and how to go on."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run left its watch without an error.

    Attributes:
        interrupted: somebody stopped it.
        spent: which budget stopped it, and how to go on, in words.
    """

    interrupted: bool = False
    spent: str = ""


@dataclass(frozen=True, slots=True)
class Used:
    """What counts against a budget.

    Attributes:
        tokens, gpu_hours: of all starts.
        hours: of this one.
    """

    tokens: int = 0
    gpu_hours: float = 0.0
    hours: float = 0.0


def used(sessions: Iterable[Session], now: Session | None = None) -> Used:
    """Return what earlier starts have used together with this one."""
    all_ = [*sessions, *([now] if now is not None else [])]
    return Used(
        tokens=sum(session.tokens for session in all_),
        gpu_hours=sum(session.gpu_hours for session in all_),
        hours=now.wall_s / 3600 if now is not None else 0.0,
    )


def used_up(budget: BudgetSection, spent: Used) -> str:
    """Return which budget is used up and how to go on, in words; empty while none is."""
    if budget.tokens is not None and spent.tokens >= budget.tokens:
        return _stopped(
            "tokens", f"{budget.tokens:,}", f"{spent.tokens:,} tokens, counted over all starts"
        )
    if budget.gpu_hours is not None and spent.gpu_hours >= budget.gpu_hours:
        hours = f"{spent.gpu_hours:.4g} GPU-hours, counted over all starts"
        return _stopped("gpu_hours", f"{budget.gpu_hours:g}", hours)
    if budget.hours is not None and spent.hours >= budget.hours:
        return _stopped("hours", f"{budget.hours:g}", f"{spent.hours:.4g} hours of this start")
    return ""


def _stopped(key: str, most: str, what: str) -> str:
    again = "The same command goes on from there."
    if key != "hours":
        again = f"The same command goes on with a larger one (--set budget.{key}=...)."
    return f"budget.{key} = {most} is used up ({what})\n    {STAYS} {again}"


def within(run: RunFile, durable: IndexSet) -> RunFile:
    """Return the run with no more dialogues wanted than `budget.dialogues` lets it play now.

    Args:
        durable: indices that are there; the lowest of the others are played first.

    Returns:
        The run itself where there is no such budget, or all that is missing is within it.
    """
    if (most := run.budget.dialogues) is None:
        return run
    missing = (index for index in range(run.run.dialogues) if index not in durable)
    if (beyond := next(islice(missing, most, None), None)) is None:
        return run
    section = run.run.model_copy(update={"dialogues": beyond})
    return run.model_copy(update={"run": section})


def played_out(run: RunFile, before: int) -> str:
    """Return that `budget.dialogues` are played and others still missing, in words.

    Args:
        before: dialogues that were there already.
    """
    most = run.budget.dialogues or 0
    missing = run.run.dialogues - before - most
    return (
        f"budget.dialogues = {most:,} is used up ({missing:,} dialogues are still to be played)\n"
        f"    {STAYS} The same command goes on from there."
    )


def left(budget: BudgetSection, dialogues: int, hours: float) -> BudgetSection | None:
    """Return what a budget leaves to a further generation of the same command.

    Args:
        dialogues: that were played already, in so many hours.

    Returns:
        None when nothing is left.
    """
    rest = {
        "dialogues": None if budget.dialogues is None else budget.dialogues - dialogues,
        "hours": None if budget.hours is None else budget.hours - hours,
    }
    if any(value is not None and value <= 0 for value in rest.values()):
        return None
    return budget.model_copy(update=rest)
