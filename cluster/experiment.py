"""`duologue experiment`: arms of one comparison, each a run of its own, and one table of all.

Invariants: arms whose words would be the same have the same dialogues, played once; all are
measured on the same test dialogues and, unless they differ in these, by the same users; each stage
resumes, so that the same command goes on from wherever it was; an arm that leaves nothing to learn
from, or has learned from the test, is a row that says so, and costs no other.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click
from pyarrow import fs as pafs

from cluster import agent_adapter, rounds, whole_run
from cluster.agent_adapter import with_adapter
from cluster.curate import unfit as unfit_curation
from cluster.evaluation_plan import ADAPTER
from cluster.experiment_differences import ByDialogue, Outcomes
from cluster.experiment_table import TABLE, Row, write
from cluster.generate import open_run_domain
from cluster.held_out import amounts, leaks
from cluster.nodes import cluster_address
from cluster.progress import duration
from cluster.resume import SERVER, Change, engine_says
from cluster.run_folder import MANIFEST as RUN_MANIFEST
from cluster.run_folder import RunFolder, refuse_relative
from cluster.train import PLACEMENT as TRAIN_PLACEMENT
from cluster.train import unplaced
from cluster.trial import own_shares, own_trial, tried
from specs.errors import DuologueError, EngineError, Finding, InputError, Where
from specs.experiment_file import Case, Experiment
from specs.masking import without_secrets
from specs.parts import Folder, durable_indices, part_names
from specs.run_file import RunFile, resolved
from specs.settings import leaves
from trainer.adapter import published
from trainer.chat_file import ChatFile
from trainer.curated import TooFewKept
from trainer.training import NothingToLearn

if TYPE_CHECKING:
    from cluster.evaluate import Evaluated

MANIFEST = "experiment.json"
FORMAT = "duologue-experiment"

Say = Callable[[str], None]

_HARMLESS = ("run", "walkers", "cluster", "budget", "rounds", "evaluate")
"""Sections that do not decide what an arm learns from, or whose stage is gone through again."""

_BEHIND = ("train", "evaluate", "rounds")
"""Sections of what comes behind the dialogues."""

_ELSEWHERE = {"train": TRAIN_PLACEMENT, "retrieval": SERVER}
"""Keys that say only where, or how fast, something is done."""


def command(experiment: Experiment, fresh: bool) -> None:
    """Go through all arms, and print the table.

    Raises:
        InputError: for whatever cannot work, before anything is played where it can be known.
        DuologueError: a stage failed, or an arm has no figures; what is there stays.
    """
    began = time.monotonic()

    def say(text: str) -> None:
        click.echo(text, err=True)

    refuse_relative(experiment.file.out, os.environ, os.getcwd(), "out")
    if findings := list(dict.fromkeys(_unfit(experiment))):
        raise InputError(findings)
    place = Folder.of(experiment.place)
    _begin(experiment, place, fresh)
    if fresh:
        for case in experiment.cases:
            _emptied(case.run)
    anew = fresh or TABLE not in place.names()  # a table that is there stays until it is made again
    made: dict[str, Row] = {}
    for number, case in enumerate(_in_order(experiment)):
        count = f"{number + 1} of {len(experiment.cases)}"
        click.echo(f"\n== {case.name} ({count}, after {duration(time.monotonic() - began)})")
        made[case.name] = _row(experiment, case, not made, say)
        rows = [made[one.name] for one in experiment.cases if one.name in made]
        if anew or len(rows) == len(experiment.cases):
            table = write(experiment, rows, place)
    click.echo(f"\n{table}")
    click.echo(f"\n{place.path}\ndone in {duration(time.monotonic() - began)}")
    if failed := [row for row in rows if row.failed]:
        reasons = "\n    ".join(f"{row.name}: {row.failed}" for row in failed)
        raise DuologueError(f"{len(failed)} arms have no figures\n    {reasons}")


def _in_order(experiment: Experiment) -> list[Case]:
    """Return the cases, those of the arm that all are tested on first."""
    asked = experiment.file.test or experiment.cases[0].arm
    return sorted(experiment.cases, key=lambda case: case.arm != asked)


def _unfit(experiment: Experiment) -> Iterator[Finding]:
    of: dict[Finding, list[str]] = {}
    for case in experiment.cases:
        for finding in _unfit_case(experiment, case):
            of.setdefault(finding, []).append(case.name)
    for finding, names in of.items():
        cases = list(dict.fromkeys(names))
        if len(cases) == len(experiment.cases):
            yield finding
        else:
            yield replace(finding, message=f"in {', '.join(cases)}: {finding.message}")
    if "test" in experiment.file.measures:
        for key in ("seed", "test"):
            said = {getattr(case.run.curate, key) for case in experiment.cases}
            if len(said) > 1:
                message = f"arms differ in curate.{key}, and so in what they may not learn from"
                hint = "All are measured on one test split, which no arm may have learned from."
                yield Finding(Where(experiment.file.name), message, hint)


def _unfit_case(experiment: Experiment, case: Case) -> Iterator[Finding]:
    learns = experiment.file.learns
    yield from (whole_run.unfit if learns else unfit_curation)(case.run)
    yield from agent_adapter.unfit(case.run)
    if case.run.rounds.count > 1:
        message = "an arm is one round: it is its adapter that is compared"
        yield Finding(Where("rounds.count"), message, "Set rounds.count = 1.")
    if "test" in experiment.file.measures:
        yield from whole_run.untested(case.run)
    if "trial" in experiment.file.measures:
        yield from rounds.unfit(case.run)
    if learns:
        yield from unplaced(case.run)
    yield from _without_model(case.run)


def _without_model(run: RunFile) -> Iterator[Finding]:
    """Yield the engines whose model is not there: an arm behind hours of others may be the first.

    A cluster's nodes may have a model that this machine has not.
    """
    from actors.engines.models import resolve_model

    if cluster_address(run.cluster.address) is not None:
        return
    for name in run.speaking_engines:
        engine = run.engines[name]
        if engine.kind == "vllm":
            try:
                resolve_model(engine.model, engine.revision)
            except EngineError as error:
                hint = f"--set engines.{name}.model=MODEL names another."
                yield Finding(Where(f"engines.{name}.model"), str(error), hint)


# -- what is there already


def _begin(experiment: Experiment, place: Folder, fresh: bool) -> None:
    """Refuse a changed experiment, and note what this one is.

    An arm that has no dialogues yet binds nobody.

    Raises:
        InputError: with every setting of an arm that is not what it was.
    """
    now = {case.name: without_secrets(_decisive(case.run)) for case in experiment.cases}
    before = _noted(place)
    if before is None and RUN_MANIFEST in place.names():
        raise InputError([Finding(Where(place.path), "is a run's folder", _OTHER_NAME)])
    begun = {case.name: _begun(case) for case in experiment.cases}
    if before is not None and not fresh:
        findings = [
            _changed(place, name, key, old[key], now[name][key])
            for name, old in before.items()
            if name in begun
            for key in old
            if old[key] != now[name].get(key, old[key]) and _binds(key, begun[name])
        ]
        if findings:
            raise InputError(findings)
    place.create()
    known = {} if fresh else (before or {})
    content = {"format": FORMAT, "name": experiment.file.name, "arms": {**known, **now}}
    place.write_bytes(MANIFEST, (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())


@dataclass(frozen=True, slots=True)
class _Begun:
    """What an arm has made already, which binds it."""

    dialogues: bool
    adapter: bool


def _begun(case: Case) -> _Begun:
    folder = RunFolder.of(case.run)
    dialogues = part_names(folder.dialogues()) or folder.log().names("log-")
    return _Begun(bool(dialogues), published(folder.round().child("adapter")) is not None)


def _binds(key: str, begun: _Begun) -> bool:
    """Whether a setting may not change any more: nothing but training goes by how to train."""
    return begun.adapter if key.startswith("train.") else begun.dialogues


def _noted(place: Folder) -> Mapping[str, Mapping[str, Any]] | None:
    try:
        found = json.loads(place.read_bytes(MANIFEST))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        where = Where(place.file(MANIFEST))
        raise InputError([Finding(where, f"cannot be read: {error}", _WAYS)]) from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError([Finding(Where(place.file(MANIFEST)), "is no experiment's", _WAYS)])
    arms: Mapping[str, Mapping[str, Any]] = found["arms"]
    return arms


_OTHER_NAME = "Call the experiment otherwise: --set name=NAME"
_WAYS = "Go on under another name (--set name=NAME), or start over (--fresh)."


def _changed(place: Folder, name: str, key: str, old: Any, new: Any) -> Finding:
    message = f"the arm {name} was made otherwise: {Change(key, old, new)}"
    return Finding(Where(place.path), message, _WAYS)


def _decisive(run: RunFile) -> dict[str, Any]:
    """Return what decides what an arm comes to, by its key: settings, and the domain's digest."""
    settings = resolved(run)
    engines = settings.pop("engines")
    # Whole, as it may hold any keys: one that is gone is a change, too.
    trainer = {"train.trainer": settings["train"].pop("trainer")}
    found = trainer | {key: value for key, value in leaves(settings) if not _harmless(key)}
    for name, engine in engines.items():
        found |= engine_says(f"engines.{name}", engine)
    return {**found, "run.seed": run.run.seed, "domain.digest": open_run_domain(run).digest}


def _harmless(key: str) -> bool:
    section, _, rest = key.partition(".")
    return section in _HARMLESS or rest.partition(".")[0] in _ELSEWHERE.get(section, ())


# -- an arm


def _emptied(run: RunFile) -> None:
    """Delete what an arm has made, if there is any."""
    folder, asked = RunFolder.of(run), with_adapter(run)
    if folder.folder.fs.get_file_info(folder.folder.path).type != pafs.FileType.NotFound:
        with folder:
            folder.open(asked, open_run_domain(asked), fresh=True)


def _row(experiment: Experiment, case: Case, first: bool, say: Say) -> Row:
    """Go through one arm.

    Args:
        first: it is the one on whose test dialogues all are measured.

    Raises:
        OutOfBudget: its dialogues are not all there.
    """
    measures = experiment.file.measures
    run, folder = case.run, RunFolder.of(case.run)
    row = Row(case.arm, case.value, case.name)
    if (donor := _donor(experiment, case)) is not None:
        _adopt(donor, run, say)
    try:
        later = _later(experiment)
        curated = whole_run.make_dialogues(run, False, say, whole=True, later=later)
    except TooFewKept as few:
        row.dialogues = few.summary
        if not experiment.file.learns:
            return row  # that nothing can be used is a figure as any other
        row.failed = few.findings[0].message
        if "test" in measures and first:
            hint = "All arms were to be measured on its test dialogues."
            found = Finding(Where(case.name), f"is what is measured on: {row.failed}", hint)
            raise InputError([found]) from None
        return row
    row.dialogues = curated.summary
    if experiment.file.learns:
        try:
            whole_run.train_stage(run, False, say)
        except NothingToLearn as nothing:
            row.failed = nothing.findings[0].message
            return row
        row.learned = learned_from(folder)
    test, reached = None, dict[str, float]()
    if "test" in measures:
        row.failed = _not_held_out(experiment, case)
        if row.failed:
            return row
        done = _tested(experiment, case, say)
        row.test = done.comparison
        test = ByDialogue(done.walk_ids, done.sums[ADAPTER], done.resamples)
    if "trial" in measures:
        place = folder.round()
        row.trials = tried(run, place, place.child("adapter").path, say)
        reached = own_shares(run)
    row.outcomes = Outcomes(test, reached, _users(run))
    return row


def _users(run: RunFile) -> dict[str, Any]:
    """Return what decides who speaks to an arm's agent in its trial, beside plan and persona."""
    found = resolved(own_trial(run))
    engine = engine_says("engine", found["engines"][run.roles.user])
    return {**engine, **dict(leaves(found["users"], "users"))}


def _later(experiment: Experiment) -> dict[str, RunFile]:
    """Return what an experiment plays behind any of its arms, by what it is."""
    found = {f"the arm {case.name}": case.run for case in experiment.cases}
    if "trial" in experiment.file.measures:
        found |= {f"the trial of {one.name}": own_trial(one.run) for one in experiment.cases}
    return found


def learned_from(folder: RunFolder) -> int | None:
    """Return from how many dialogues a run's adapter has learned; None where it is not known."""
    manifest = published(folder.round().child("adapter")) or {}
    found = amounts(manifest)["dialogues"]
    return int(found) if found is not None else None


def same_words(one: RunFile, other: RunFile) -> bool:
    """Return whether two arms play the same dialogues, and in the same way.

    Where one asks for more attempts, say, that is what they are compared in.
    """
    return _played_as(one) == _played_as(other)


def _played_as(run: RunFile) -> dict[str, Any]:
    found = resolved(run)
    found["run"] = {key: value for key, value in found["run"].items() if key not in ("name", "out")}
    found["engines"] = {name: found["engines"].get(name) for name in run.speaking_engines}
    if run.curate.kept is None:  # else it decides how many are played
        del found["curate"]
    return {key: value for key, value in found.items() if key not in _BEHIND}


def _donor(experiment: Experiment, case: Case) -> Case | None:
    """Return the case of the same words that has most dialogues; None where none has more."""
    alike = [one for one in experiment.cases if one is case or same_words(one.run, case.run)]
    counts = [len(durable_indices(RunFolder.of(one.run).dialogues())) for one in alike]
    most = max(range(len(alike)), key=lambda place: counts[place])
    return alike[most] if counts[most] > counts[alike.index(case)] else None


def _adopt(donor: Case, run: RunFile, say: Say) -> None:
    """Give a run the dialogues of another that would have played the same.

    One that has dialogues which the other has not goes on with its own: nothing is deleted.
    """
    asked = with_adapter(run)
    domain = open_run_domain(asked)
    theirs, ours = RunFolder.of(donor.run).dialogues(), RunFolder.of(run)
    names, there = part_names(theirs), part_names(ours.dialogues())
    if not all(one in names and _alike(theirs, ours.dialogues(), one) for one in there):
        say(f"it has dialogues of its own, and goes on with them, not with those of {donor.name}")
        return
    with ours:
        ours.open(asked, domain)
        say(f"the dialogues of {donor.name}: their words are the same")
        for name in sorted(set(names) - set(there)):
            ours.dialogues().write_bytes(name, theirs.read_bytes(name))


def _alike(one: Folder, other: Folder, name: str) -> bool:
    sizes = [folder.fs.get_file_info(folder.file(name)).size for folder in (one, other)]
    return bool(sizes[0] == sizes[1])


def _not_held_out(experiment: Experiment, case: Case) -> str:
    """Return what an arm has learned from although all are tested on it; empty for nothing.

    A test side that no document fell to by its place is lent one, which another arm has kept to
    learn from.
    """
    folder = RunFolder.of(case.run).round()
    train = ChatFile.open(folder.child("curated"), "train.parquet")
    manifest = published(folder.child("adapter")) or {}
    found = leaks(manifest, train, ChatFile.open(_curated_for_all(experiment), _TEST))
    return found.message if found is not None and found.sure else ""


def _tested(experiment: Experiment, case: Case, say: Say) -> Evaluated:
    from cluster.evaluate import evaluate

    own = _in_order(experiment)[0].name == case.name
    test = None if own else _curated_for_all(experiment).file(_TEST)
    return evaluate(case.run, False, say, test)


_TEST = "test.parquet"


def _curated_for_all(experiment: Experiment) -> Folder:
    """Return where the test split lies that all are measured on: the first case's."""
    return RunFolder.of(_in_order(experiment)[0].run).round().child("curated")
