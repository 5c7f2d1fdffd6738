"""`duologue run`: every stage of a run, each on what the stage before left.

Each stage resumes by itself: what is there and was made from the same is not made again. Engines
are gone before training begins, unless they are in nobody's way (`cluster.kept`), and training
before evaluation, so nobody waits for another's GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import click

from cluster.budget import STAYS, OutOfBudget, left
from cluster.curate import curate
from cluster.generate import generate
from cluster.kept import KeptEngines, kept_engines, ready_for_adapters, why_not
from cluster.progress import duration
from cluster.round_note import Tried
from cluster.run_folder import RunFolder
from specs.errors import Finding, InputError, Where
from specs.run_file import RunFile
from trainer.curated import Curated, TooFewKept, further, more_needed

Say = Callable[[str], None]


def run_all(run: RunFile, fresh: bool) -> None:
    """Generate, curate, train, evaluate and report, once for each of the run's rounds.

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

    from cluster import rounds
    from cluster.train import unplaced

    if run.run.round:
        raise InputError([Finding(Where("run.round"), "`run` goes through all rounds", _ALL)])
    if findings := [*unfit(run), *untested(run), *rounds.unfit(run), *unplaced(run)]:
        raise InputError(findings)
    several = run.rounds.count > 1 or run.rounds.trial > 0
    with _engines(run, say) as kept:
        played = run if kept is None else ready_for_adapters(run)
        for number in range(run.rounds.count):
            asked = rounds.at(played, number)
            if run.rounds.count > 1:
                stage(f"round {number}")
            if rounds.is_over(asked) and not fresh:
                say(f"round {number} is over, and stays as it is: the next one was begun with it")
                continue
            rounds.begin(asked, say)
            try:
                _round(asked, fresh and not number, several, say, stage, kept)
            except OutOfBudget as out:
                say(f"{out} The same command goes on, with a larger budget where it counts in all.")
                return
    if several:
        rows = rounds.rows_of(RunFolder.of(run))
        click.echo("\n" + "\n".join(rounds.lines(rows)))
        rounds.refuse_untrained(rows)
    click.echo(f"done in {duration(time.monotonic() - began)}")


_ALL = "Leave run.round out; generate, curate, train, evaluate and report take one."


def _engines(run: RunFile, say: Say) -> AbstractContextManager[KeptEngines | None]:
    """Return what holds the engines between the rounds; None where they are started anew."""
    if run.rounds.count == 1:
        return nullcontext(None)
    if reason := why_not(run):
        say(f"engines are started anew in each round: {reason}")
        return nullcontext(None)
    say("engines stay up between the rounds: only the adapter is loaded")
    return kept_engines(run)


def _round(
    run: RunFile,
    fresh: bool,
    several: bool,
    say: Say,
    stage: Say,
    kept: KeptEngines | None,
) -> None:
    """Go through one round.

    Args:
        several: it is judged whether its adapter is to play, instead of failing where it cannot be
            trained.
        kept: as of `generate`.
    """
    from cluster import guards, rounds
    from cluster.plan import TRIAL
    from cluster.trial import own_trial

    stage("generate and curate")
    curated: Curated | InputError
    try:
        later = {TRIAL: own_trial(run)} if run.rounds.trial else {}
        curated = make_dialogues(run, fresh, say, kept, run.rounds.count > 1, later)
    except TooFewKept as few:
        if not several:
            raise
        curated = few
    found = rounds.worth_learning(run, curated) if several else []
    trials: tuple[Tried, ...] = ()
    if all(guard.passed for guard in found):
        stage("train")
        train_stage(run, fresh, say)
        stage("evaluate")
        _evaluate(run, fresh, say)
        if run.rounds.trial:
            stage("trial")
            before = rounds.trials_before(run, say, kept)
            trials = rounds.trials_of(run, say, kept)
            verdict = guards.success(trials, before)
            found += [verdict] if verdict is not None else []
    if several:
        kept_dialogues = curated.kept if isinstance(curated, Curated) else 0
        rounds.close(run, kept_dialogues, found, trials, say)
    stage("report")
    _report(run, say)


def make_dialogues(
    run: RunFile,
    fresh: bool,
    say: Say,
    kept: KeptEngines | None = None,
    whole: bool = False,
    later: Mapping[str, RunFile] | None = None,
) -> Curated:
    """Generate and curate until `curate.kept` dialogues are kept or a budget is used up.

    Args:
        kept, later: as of `generate`.
        whole: what a budget has left unfinished is not to be gone on with.

    Raises:
        TooFewKept: there is too little to learn from, and no more may be played.
        OutOfBudget: a budget has stopped the generation, and `whole` is asked for.
    """
    while True:
        made = generate(run, fresh, kept=kept, later=later, told=True)
        if whole and not made.whole:
            raise OutOfBudget(f"{run.run.name}: stopped by its budget; {STAYS}")
        rest = left(run.budget, made.dialogues, made.hours) if made.whole else None
        try:
            curated = curate(run, fresh, say)
        except TooFewKept as few:
            played, more = few.played, further(run, few.played, few.kept)
            if more is None or rest is None:
                raise
        else:
            played, more = curated.played, more_needed(run, curated)
            say(f"{curated.kept} of {played} dialogues are kept")
        if more is None or rest is None:
            return curated
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


def untested(run: RunFile) -> list[Finding]:
    """Return that no dialogues are held back for an evaluation, where that is so."""
    if run.curate.test:
        return []
    message = "no dialogues are held back, and the evaluation would have none to ask about"
    return [Finding(Where("curate.test"), message, "Give it a share of the documents, say 0.1.")]


def train_stage(run: RunFile, fresh: bool, say: Say) -> None:
    """Train, and print what came of it; raises what `cluster.train.train` raises."""
    from cluster.train import summary, train

    for line in summary(train(run, fresh, say).manifest):
        click.echo(line)


def _evaluate(run: RunFile, fresh: bool, say: Say) -> None:
    from cluster.evaluate import evaluate

    click.echo(evaluate(run, fresh, say).comparison["table"])


def _report(run: RunFile, say: Say) -> None:
    from cluster.report import report

    click.echo(report(run, say))
