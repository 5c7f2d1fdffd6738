"""What an agent can do: it plays for the same users as every other agent of its run.

A trial is a run of its own, in `trial/<domain>` of a round's folder (of the run's, for the agent
that no round has trained), and resumes as one. What counts are the subgoals that the agent speaks
for in its own words: nobody tells it what comes next, as far as the policy allows that.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cluster.agent_adapter import playing, with_adapter
from cluster.curate import curate
from cluster.evaluation_plan import serving_engine
from cluster.generate import generate
from cluster.kept import KeptEngines
from cluster.round_note import Tried
from cluster.run_folder import RunFolder, trained
from specs.engine_section import EngineSection
from specs.errors import DuologueError, InputError
from specs.parts import Folder, read_dialogues, read_rows
from specs.records import quality_schema
from specs.run_file import CurateSection, Filter, RoundsSection, RunFile
from trainer.bootstrap import Resamples, counted, counted_mean
from trainer.curated import NothingKept
from trainer.diversity import CorpusMeasures
from trainer.measures import OWN
from trainer.success import HALF

RESAMPLES = 2000

LEARNER = "learner"
"""The engine of a trained model that is not the one which plays the run's agent."""

HISTORY = 8
"""Turns that a script shows an agent who is told the workflow only once."""

_SAID, _SHARE = "subgoals_said", "subgoals_said_relative"
_COLUMNS = (_SAID, _SHARE, "ended", "persona_coverage")

Say = Callable[[str], None]


def domain_name(path: str) -> str:
    """Return what the trial in a domain is called: its folder's name."""
    place = Path(path).resolve()
    return place.parent.name if place.name == "domain.yaml" else place.name


def trial_run(run: RunFile, place: Folder, domain: str, adapter: str) -> RunFile:
    """Return the run file of a trial.

    Args:
        place: the round's folder, or the run's.
        domain: its path; traits of users are asked of the run's own domain only.
        adapter: folder of the adapter that plays; empty for the run file's own agent.
    """
    section = run.run.model_copy(
        update={
            "name": domain_name(domain),
            "dialogues": run.rounds.trial,
            "round": 0,
            "out": place.child("trial").path,
        }
    )
    domain_section = run.domain.model_copy(update={"path": domain})
    update: dict[str, Any] = {
        "run": section,
        "curate": CurateSection(
            filters=(Filter(kind="none"),),
            validation=0,
            test=0,
            embedding=run.curate.embedding,
            subgoals=run.curate.subgoals,
        ),
        "rounds": RoundsSection(),
        "budget": type(run.budget)(),
    }
    if domain != run.domain.path:
        domain_section = domain_section.model_copy(update={"corpus": None, "personas": None})
        update["users"] = type(run.users)()
    # Plans of its own: no agent is tried on what it has learned from.
    policy: dict[str, Any] = {"arm": f"{run.policy.arm}-trial"}
    if run.policy.kind == "routed":
        policy["workflow"] = "unstructured"
        update["engines"] = _seeing_what_was_said(run)
    update["policy"] = run.policy.model_copy(update=policy)
    asked = run.model_copy(update={**update, "domain": domain_section})
    return playing(_with_learner(asked), adapter) if adapter else asked


def own_trial(run: RunFile) -> RunFile:
    """Return the run file of a round's trial in its own domain, of the adapter that it trains."""
    place = RunFolder.of(run).round()
    return trial_run(run, place, run.domain.path, place.child("adapter").path)


def plays_elsewhere(run: RunFile) -> bool:
    """Whether the model that is trained is another than the agent's, and needs its own engine."""
    engine = run.engines[run.roles.agent]
    return run.train.model is not None and (
        engine.kind != "vllm" or engine.model != run.train.model
    )


def _with_learner(run: RunFile) -> RunFile:
    """Return the run with the agent on an engine of the trained model, if it is another."""
    if not plays_elsewhere(run):
        return run
    name = LEARNER
    while name in run.engines:
        name += "_"
    return run.model_copy(
        update={
            "engines": {**run.engines, name: serving_engine(run)},
            "roles": run.roles.model_copy(update={"agent": name}),
        }
    )


def _seeing_what_was_said(run: RunFile) -> dict[str, EngineSection]:
    """Return the engines, the agent's with the profile that an unstructured workflow needs.

    In every trial, so that a user who speaks on the same engine is the same in all.
    """
    engine = run.engines[run.roles.agent]
    profile = engine.profile
    if profile.form == "script":
        profile = profile.model_copy(update={"persona": True})
    profile = profile.model_copy(update={"history": profile.history or HISTORY})
    return {**run.engines, run.roles.agent: engine.model_copy(update={"profile": profile})}


def tried(
    run: RunFile, place: Folder, adapter: str, say: Say, kept: KeptEngines | None = None
) -> tuple[Tried, ...]:
    """Play the trials of an agent that are not there yet, and return what it reached.

    Args:
        place, adapter: as of `trial_run`.
        kept: as of `generate`.

    Raises:
        InputError: a domain cannot be used.
        DuologueError: a trial failed; what is durable stays.
    """
    domains = (run.domain.path, *run.rounds.held_out)
    return tuple(
        _tried(trial_run(run, place, one, adapter), say, one == domains[0], kept) for one in domains
    )


def own_shares(run: RunFile) -> dict[str, float]:
    """Return, by `walk_id`, each dialogue's share of the subgoals in the own domain's trial.

    Empty where nothing could be measured.
    """
    asked = own_trial(run)
    quality = RunFolder.of(asked).round().child("quality")
    return {one["walk_id"]: one[_SHARE] or 0.0 for one in _rows(quality, asked.run.dialogues)}


def _rows(quality: Folder, most: int) -> list[dict[str, Any]]:
    found = read_rows(quality, quality_schema(_COLUMNS), ("walk_id", "index", *_COLUMNS))
    return [row for row in found if row["index"] < most]


def _tried(run: RunFile, say: Say, own: bool, kept: KeptEngines | None) -> Tried:
    folder = RunFolder.of(run)
    say(f"trial in {run.run.name}: {run.run.dialogues} dialogues")
    generate(run, _stale(run, folder), kept=kept, told=True)
    try:
        curate(run, False, say)
    except NothingKept:  # nothing was said that could be learned from, or measured
        nothing = dict.fromkeys(("mean", "low", "high", "absolute", "halfway", "ended"), 0.0)
        reached = Tried(domain=run.run.name, own=own, dialogues=run.run.dialogues, **nothing)
    else:
        reached = figures(folder.round().child("quality"), run.run.name, own, run.run.dialogues)
    return reached.model_copy(update=_of_agent(folder.dialogues(), run.run.dialogues))


def _of_agent(dialogues: Folder, most: int) -> dict[str, float | None]:
    """Return how varied an agent's own words are, and how many of its words were a person's."""
    corpus, count, referred = CorpusMeasures(), 0, 0
    for dialogue in read_dialogues(dialogues):
        if dialogue.index < most:
            spoken = [turn for turn in dialogue.turns if turn.role == "agent"]
            corpus.add([turn.text for turn in spoken if turn.source in OWN])
            count += len(spoken)
            referred += sum(turn.source == "reference" for turn in spoken)
    varied = corpus.result()["rouge_diversity"]
    return {"diversity": varied, "references": referred / count if count else None}


def _stale(run: RunFile, folder: RunFolder) -> bool:
    """Return whether what a trial's folder holds are another adapter's words, or half deleted."""
    try:
        manifest = folder.manifest()
    except InputError:
        return True  # opening it anew refuses what is not a trial's
    return manifest is not None and manifest.get("adapter") != trained(with_adapter(run))


def figures(quality: Folder, domain: str, own: bool, most: int) -> Tried:
    """Return what subgoals were reached in a trial's dialogues.

    One in which the agent found no words of its own has reached nothing.

    Args:
        most: dialogues that count, of the first indices.

    Raises:
        DuologueError: there is no dialogue.
    """
    rows = _rows(quality, most)
    if not rows:
        raise DuologueError(f"{quality.path}: no dialogue of the trial could be measured")
    shares = [row[_SHARE] or 0.0 for row in rows]
    resamples = Resamples.draw(len(rows), RESAMPLES, 0)
    interval = resamples.interval(counted_mean, counted(shares))
    low, high = (interval.low, interval.high) if interval is not None else (None, None)
    mean = float(np.mean(shares))
    used = [row["persona_coverage"] for row in rows if row["persona_coverage"] is not None]
    return Tried(
        domain=domain,
        own=own,
        dialogues=len(rows),
        mean=mean,
        low=mean if low is None else low,
        high=mean if high is None else high,
        absolute=float(np.mean([row[_SAID] or 0.0 for row in rows])),
        halfway=float(np.mean([share >= HALF for share in shares])),
        ended=float(np.mean([row["ended"] for row in rows])),
        persona=float(np.mean(used)) if used else None,
    )
