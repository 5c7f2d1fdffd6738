"""`duologue run`: every stage of a run, each on what the stage before left.

Each stage resumes by itself: what is there and was made from the same is not made again. Engines
are gone before training begins, and training before evaluation, so nobody waits for another's GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from cluster.budget import left
from cluster.curate import curate
from cluster.generate import generate
from cluster.progress import duration
from specs.errors import Finding, InputError
from specs.run_file import RunFile
from trainer.curated import NothingKept, further, more_needed

Say = Callable[[str], None]


def run_all(run: RunFile, fresh: bool) -> None:
    """Generate, curate, train, evaluate and report.

    Args:
        fresh: delete what the run has made, and start over.

    Raises:
        InputError: for whatever cannot work, before anything is played where it can be known.
        DuologueError: a stage failed; what the stages before left stays.
    """
    began = time.monotonic()

    def say(text: str) -> None:
        click.echo(text, err=True)

    def stage(name: str) -> None:
        click.echo(f"\n== {name} (after {duration(time.monotonic() - began)})")

    from cluster.train import unplaced

    if findings := [*unfit(run), *unplaced(run)]:
        raise InputError(findings)
    stage("generate and curate")
    make_dialogues(run, fresh, say)
    stage("train")
    _train(run, fresh, say)
    stage("evaluate")
    _evaluate(run, fresh, say)
    stage("report")
    _report(run, say)
    click.echo(f"done in {duration(time.monotonic() - began)}")


def make_dialogues(run: RunFile, fresh: bool, say: Say) -> None:
    """Generate and curate until `curate.kept` dialogues are kept or a budget is used up."""
    while True:
        made = generate(run, fresh)
        rest = left(run.budget, made.dialogues, made.hours) if made.whole else None
        try:
            curated = curate(run, fresh, say)
        except NothingKept as nothing:
            played, more = nothing.played, further(run, nothing.played, 0)
            if more is None or rest is None:
                raise
        else:
            played, more = curated.played, more_needed(run, curated)
            say(f"{curated.kept} of {played} dialogues are kept")
        if more is None or rest is None:
            return
        wanted = played + more
        say(f"playing {more} more: curate.kept asks for {run.curate.kept}")
        # The budget goes by what the run file asks for, not by what was added.
        budget = run.curate.budget * run.run.dialogues / wanted
        run = run.model_copy(
            update={
                "run": run.run.model_copy(update={"dialogues": wanted}),
                "curate": run.curate.model_copy(update={"budget": budget}),
                "budget": rest,
            }
        )
        fresh = False


def unfit(run: RunFile) -> list[Finding]:
    """Return what needs neither dialogues nor a cluster: nobody wants to hear of it hours later."""
    from cluster.curate import unfit as unfit_curation
    from cluster.evaluation_plan import unfit as unfit_evaluation
    from cluster.train import unfit as unfit_training

    found = [*unfit_curation(run), *unfit_training(run), *unfit_evaluation(run)]
    return list(dict.fromkeys(found))  # a model is looked for by more than one stage


def _train(run: RunFile, fresh: bool, say: Say) -> None:
    from cluster.train import summary, train

    for line in summary(train(run, fresh, say).manifest):
        click.echo(line)


def _evaluate(run: RunFile, fresh: bool, say: Say) -> None:
    from cluster.evaluate import evaluate

    click.echo(evaluate(run, fresh, say).comparison["table"])


def _report(run: RunFile, say: Say) -> None:
    from cluster.report import report

    click.echo(report(run, say))
