"""`duologue generate`: play the dialogues that a run file asks for and that are not there yet."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cluster.agent_adapter import played_in, with_adapter
from cluster.budget import Outcome, OutOfBudget, played_out, within
from cluster.mend import drop_copies, retry_failed
from cluster.progress import Reporter, duration
from cluster.run_folder import RunFolder
from cluster.spending import Spending
from cluster.summary import lines, summarize
from specs.domain import Domain
from specs.errors import DuologueError, Finding, InputError, Where
from specs.index_set import IndexSet
from specs.loader import open_domain
from specs.parts import Folder, durable_indices, part_names, read_batches, read_dialogues
from specs.plan import PlanSource, walk_id_of
from specs.records import dialogue_schema
from specs.routing import routing_findings
from specs.run_file import RunFile
from specs.traits import trait_findings

if TYPE_CHECKING:
    from cluster.crew import Crew
    from cluster.kept import KeptEngines


@dataclass(frozen=True, slots=True)
class Made:
    """What one generation has come to.

    Attributes:
        whole: every dialogue that is wanted is there; else a budget has stopped it.
        dialogues: that it played.
    """

    whole: bool
    dialogues: int = 0
    hours: float = 0.0


def generate(
    run: RunFile,
    fresh: bool,
    retry: bool = False,
    kept: KeptEngines | None = None,
    later: Mapping[str, RunFile] | None = None,
    told: bool = False,
) -> Made:
    """Play what is missing, show progress, and print what came of it.

    Args:
        retry: play again what failed and may go otherwise (`StopReason.may_go_otherwise`).
        kept: lends its engines, and takes them when it is over.
        later: what is to be played when this run is over, by what it is: its engines have to
            find places, too.
        told: what came of dialogues that are there was printed when they were played: nothing is
            printed again unless some were missing.

    Raises:
        InputError: for a domain, a folder or a setting that cannot be used.
        DuologueError: when the run failed; what was durable stays.
    """
    from cluster.curate import unfit

    reporter = Reporter()
    if wrong := unfit(run):  # said before hours of playing, not behind them
        raise InputError(wrong)
    folder = RunFolder.of(run)
    if folder.number and fresh:
        raise InputError(_FRESH_ROUND)
    played = played_in(run, folder)
    asked, run = with_adapter(run) if folder.number else played, played
    domain = open_run_domain(run)
    with folder:
        opened = folder.open(asked, domain, fresh=fresh)
        for change in opened.changed:
            reporter.say(f"resuming with {change}")
        there = _mend(run, domain, folder, reporter)
        if retry:
            reporter.say(_retried(retry_failed(folder, run.run.dialogues, opened.start)))
            there = IndexSet(durable_indices(folder.dialogues()))
        before = [folder.at_round(number).round() for number in range(folder.number)]
        spending = Spending(run, folder.round(), opened.start, reporter.say, before)
        outcome = _play(run, domain, folder, opened.start, there, spending, reporter, kept, later)
        summary = summarize(read_dialogues(folder.dialogues()))
        try:
            folder.note_durable(summary.dialogues)
        except DuologueError as error:  # the note is worth no failure
            reporter.say(f"warning: {error}")
    if not told or spending.dialogues or outcome != Outcome():
        click.echo(f"\n{folder.folder.path}")
        for text in [*lines(summary), *spending.lines(), *outcome.spent.splitlines()]:
            click.echo(text)
    if outcome.interrupted:
        raise KeyboardInterrupt
    if not outcome.spent:
        _refuse_missing(run, folder)
    return Made(not outcome.spent, spending.dialogues, spending.hours)


_FRESH_ROUND = [
    Finding(
        Where("--fresh"),
        "deletes all rounds of a run, and what a later round is played with",
        "Leave run.round out.",
    )
]


def _refuse_missing(run: RunFile, folder: RunFolder) -> None:
    """Take nobody's word for it that a run is complete: what the next stage reads are the parts.

    Raises:
        DuologueError: they lack dialogues (the sinks could not write them in the end, say).
    """
    there = durable_indices(folder.dialogues())
    if missing := sum(index not in there for index in range(run.run.dialogues)):
        raise DuologueError(
            f"{folder.dialogues().path}: {missing} of {run.run.dialogues} dialogues are not in "
            "parts\n    What was said is in the turn log; the same command goes on from there."
        )


def open_run_domain(run: RunFile) -> Domain:
    """Return the domain of a run, with its own documents or those that the run gives.

    Raises:
        InputError: when the domain cannot be used, or not as the run asks for it (policy, traits).
    """
    corpus = Path(run.domain.corpus) if run.domain.corpus else None
    personas = Path(run.domain.personas) if run.domain.personas else None
    domain = open_domain(run.domain.path, corpus, personas)
    wrong = trait_findings(domain, run.users.traits.asked)
    wrong += routing_findings(domain, run.policy.kind)
    if wrong:
        raise InputError(wrong)
    return domain


def source_of(run: RunFile) -> PlanSource:
    """Return what all plans of a run's round have in common."""
    asked = run.users.traits.asked
    return PlanSource(run.run.seed, run.policy.kind, run.policy.arm, run.run.round, asked)


def check_parts(
    dialogues: Folder, domain: Domain, source: PlanSource
) -> tuple[IndexSet, list[str]]:
    """Refuse parts of another run before an index of theirs is taken for played.

    Returns:
        The indices that are there, and warnings: the parts with dialogues that an earlier part
        holds, too.

    Raises:
        InputError: naming every part that is another run's, or that cannot be read.
    """
    seen = IndexSet()
    warnings: list[str] = []
    wrong: list[Finding] = []
    for name in part_names(dialogues):
        again = 0
        try:
            for index, walk_id in _identities(dialogues, name):
                if walk_id != walk_id_of(domain, source, index):
                    message = f"holds dialogue {index} of another run (seed, domain or policy)"
                    hint = "Move it out of the run's folder."
                    wrong.append(Finding(Where(dialogues.file(name)), message, hint))
                    break
                again += not seen.add(index)
        except InputError as error:
            wrong += error.findings
        if again:
            warnings.append(f"{dialogues.file(name)}: {again} of its dialogues are there twice")
    if wrong:
        raise InputError(wrong)
    return seen, warnings


def _mend(run: RunFile, domain: Domain, folder: RunFolder, reporter: Reporter) -> IndexSet:
    """Say what is not as it was left, and mend what can be mended; returns what is there."""
    dialogues = folder.dialogues()
    there, twice = check_parts(dialogues, domain, source_of(run))
    for warning in twice:
        reporter.say(f"warning: {warning}")
    if twice:
        reporter.say(f"{drop_copies(dialogues)} second copies were taken out")
    if gone := folder.gone(len(there)):
        reporter.say(f"warning: {gone}")
    return there


def _retried(failed: Counter[str]) -> str:
    if not failed:
        return "no dialogue has failed in a way that another attempt may mend"
    reasons = ", ".join(f"{count} {reason}" for reason, count in failed.most_common())
    return f"{failed.total()} dialogues that failed are played again ({reasons})"


def _identities(dialogues: Folder, name: str) -> Iterator[tuple[int, str]]:
    for batch in read_batches(dialogues, name, dialogue_schema(), ["index", "walk_id"]):
        yield from zip(*(column.to_pylist() for column in batch), strict=True)


def _play(
    run: RunFile,
    domain: Domain,
    folder: RunFolder,
    start: int,
    there: IndexSet,
    spending: Spending,
    reporter: Reporter,
    kept: KeptEngines | None,
    later: Mapping[str, RunFile] | None,
) -> Outcome:
    from cluster.crew import Crew
    from cluster.nodes import nodes_of
    from cluster.placement import check_places
    from cluster.plan import settled, unplaced_later, wanted
    from cluster.probe import check_nodes
    from cluster.session import ray_session

    owed = sum(index not in there for index in range(run.run.dialogues))
    if not owed and not folder.log().names("log-"):  # else sinks have to look at the log
        reporter.say(f"{run.run.dialogues} of {run.run.dialogues} dialogues are there already")
        return Outcome()
    if spent := spending.used_up:
        return Outcome(spent=spent)
    with ray_session(run.cluster.address):
        check_nodes(folder.folder)
        attempts = folder.attempts()
        nodes = nodes_of(run.cluster.launcher, run.cluster.address)
        found = settled(run, domain, nodes, owed)
        check_places(wanted(run, found), nodes)
        if wrong := unplaced_later(later or {}, nodes):
            raise InputError(wrong)
        source, round_ = source_of(run), folder.round()
        crew = Crew(run, domain, source, round_, reporter.say, found, start, attempts, kept)
        if crew.before is not None:
            spending.take_over(crew.before.stats, crew.before.placed)
        try:
            return _played(crew, folder, spending, reporter)
        except KeyboardInterrupt:
            spending.stop("interrupted")
            return Outcome(interrupted=True)
        finally:
            crew.close()
            spending.close(crew.fleet.placed())


def _played(crew: Crew, folder: RunFolder, spending: Spending, reporter: Reporter) -> Outcome:
    from cluster.watch import watch

    run = crew.run
    recovered = crew.open_sinks()
    for warning in recovered.warnings:
        reporter.say(f"warning: {warning}")
    before = sum(index < run.run.dialogues for index in recovered.durable)
    if before:
        reporter.say(f"{before} of {run.run.dialogues} dialogues are there already")
    if before >= run.run.dialogues:
        spending.stop("done")
        return Outcome()
    crew.run = within(run, recovered.durable)
    began = time.monotonic()

    def within_budget() -> None:
        if spent := spending.look((), {}, crew.fleet.placed()):
            raise OutOfBudget(spent)

    try:
        done = crew.start(within_budget).done
    except OutOfBudget as out:
        spending.stop("budget")
        return Outcome(spent=str(out))
    folder.check()
    reporter.say(f"playing (started in {duration(time.monotonic() - began)})")
    outcome = watch(crew, reporter, folder.check, done, spending)
    if outcome == Outcome() and crew.run is not run:
        spending.stop("budget")
        return Outcome(spent=played_out(run, before))
    return outcome
