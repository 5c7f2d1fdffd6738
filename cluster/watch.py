"""A run at work, seen from its driver: progress, what is away, and when it is over.

Invariants: the driver decides nothing about dialogues, so that it may die at any time; it waits for
no actor longer than a moment; a run in which nothing moves for `run.outage_s` seconds (longer,
where an engine may take longer to come up) ends with the reason, and with all that is durable.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from actors.walker import WalkerStats
from cluster.budget import Outcome
from cluster.crew import Crew, Sight
from cluster.outages import Deadlines, Outages, Silences, Standstill
from cluster.progress import Reporter, Snapshot, duration, load_of
from cluster.spending import Spending
from cluster.supervision import Walkers
from cluster.usage import End
from specs.errors import DuologueError
from specs.run_file import RunFile

STOP_S = 20.0
"""How long walkers may take to leave when the run is interrupted."""

LOOK_S = 2.0
"""From one look at all actors to the next."""


def watch(
    crew: Crew, reporter: Reporter, check: Callable[[], None], before: int, spending: Spending
) -> Outcome:
    """Show where a run is until it is over, interrupted, or out of its budget.

    Args:
        crew: started.
        check: raises when another run has taken the folder over.
        before: dialogues that were durable when it began.
        spending: that of this start.

    Raises:
        DuologueError: when the run failed; what was durable stays.
    """
    assert crew.walkers is not None
    began = time.monotonic()
    spending.begin_playing(crew.sizes, crew.run.run.dialogues, before)
    try:
        spent = _until_over(crew, crew.walkers, reporter, check, before, spending)
    except KeyboardInterrupt:
        reporter.say("stopping: what is finished is being written ...")
        _leave(crew, crew.walkers, spending, "interrupted")
        return Outcome(interrupted=True)
    if spent:
        reporter.say(f"{spent.splitlines()[0]}: what is finished is being written ...")
        _leave(crew, crew.walkers, spending, "budget")
        return Outcome(spent=spent)
    given_up = crew.given_up()
    made = crew.ledger_progress().done - before
    reporter.say(f"{made} dialogues in {duration(time.monotonic() - began)}")
    if given_up:
        index, why = next(iter(given_up.items()))
        raise DuologueError(
            f"{len(given_up)} dialogues could not be played, such as {index}: {why}\n"
            "    What is durable stays; the same command plays the rest."
        )
    spending.stop("done")
    return Outcome()


def _leave(crew: Crew, walkers: Walkers, spending: Spending, end: End) -> None:
    """Let the walkers leave, and note what they have done until then."""
    spending.stop(end)
    walkers.stop(STOP_S)
    with contextlib.suppress(DuologueError):  # of a walker that failed: it is over anyway
        walkers.look(0.0)
    spending.look(walkers.stats(), crew.engine_stats(), crew.fleet.placed())


def _until_over(
    crew: Crew,
    walkers: Walkers,
    reporter: Reporter,
    check: Callable[[], None],
    before: int,
    spending: Spending,
) -> str:
    """Watch until nothing is left to play, or until the budget that is returned is used up."""
    began = looked = time.monotonic()
    outages, silences, standstill = Outages(), Silences(), Standstill()
    deadlines = Deadlines({name: one.turn_deadline_s for name, one in crew.run.engines.items()})
    while not walkers.over:
        walkers.look(1.0)
        check()
        now = time.monotonic()
        if now - looked < LOOK_S and not walkers.over:
            continue
        looked = now
        stats = walkers.stats()
        sight = crew.look_around()
        spent = spending.look(stats, sight.all_engines, sight.placed)
        if spent and not walkers.over:
            return spent
        waiting = {name: one.waits_for for name, one in walkers.names().items() if one.waits_for}
        for text in outages.see({**sight.away, **waiting}):
            reporter.say(text)
        for text in deadlines.missed(sight.all_engines):
            reporter.say(text)
        for part in silences.too_long(sight.silent):
            reporter.say(
                f"{part} has told nothing for {sight.silent[part]:.0f} s: its process is ended"
            )
            crew.end(part)
        done = None if sight.progress is None else sight.progress.done
        seconds = standstill.lasts(sum(one.turns for one in stats), done)
        _unless_stuck(crew, seconds, {**sight.away, **waiting})
        if sight.progress is not None and reporter.due():
            reporter.show(_snapshot(crew.run, stats, sight, before, now - began, spending.cost))
    return ""


def _unless_stuck(crew: Crew, seconds: float, wrong: dict[str, str]) -> None:
    engines = [crew.run.engines[name] for name in crew.sizes.replicas]
    turn = max((engine.start_deadline_s + engine.turn_deadline_s for engine in engines), default=0)
    if seconds > max(crew.run.run.outage_s, turn):
        why = "; ".join(f"{part}: {what}" for part, what in wrong.items()) or "no reason is known"
        raise DuologueError(
            f"nothing has moved for {duration(seconds)} ({why})\n"
            "    What is durable stays; the same command plays the rest."
        )


def _snapshot(
    run: RunFile,
    walkers: Sequence[WalkerStats],
    sight: Sight,
    before: int,
    elapsed_s: float,
    cost: str,
) -> Snapshot:
    progress = sight.progress
    assert progress is not None
    return Snapshot(
        wanted=progress.wanted,
        done=progress.done,
        before=before,
        owed=progress.owed,
        given_up=progress.given_up,
        walkers=walkers,
        engines={
            name: load_of([*of.values()], run.engines[name].max_running, sight.wanted[name])
            for name, of in sight.engines.items()
        },
        elapsed_s=elapsed_s,
        cost=cost,
    )
