"""`duologue curate`: measure and filter a run's dialogues, and make training examples of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import click

from cluster.made import DomainPlace, Made, read_made
from cluster.rating import judge_findings, rater
from cluster.run_folder import RunFolder
from specs.agent_chat import agent_card, replayed_messages
from specs.agent_format import ChatMessage
from specs.domain import Domain
from specs.errors import DuologueError, Finding, InputError
from specs.parts import Folder
from specs.records import Dialogue
from specs.replay import ReplayError, source_of
from specs.run_file import CurateSection, RunFile
from trainer.consistency import follow, inconsistencies
from trainer.curated import Curated, Task, existing, state
from trainer.curation import curate as curate_round
from trainer.curation import setting_findings
from trainer.diversity import CorpusMeasures
from trainer.duplicates import NearDuplicates
from trainer.likeness import SubgoalGauge
from trainer.measured import Instruments
from trainer.measures import NAMES, measure
from trainer.measuring import Examined, Gauges, measure_part
from trainer.vectors import Vectors

PROCESSES = 16
"""The most that measure side by side."""

SMALL_BYTES = 4 * 1024 * 1024
"""Parts that together are no larger are measured here: a process takes seconds to start."""


def gauges(domain: Domain, run_seed: int, subgoals: SubgoalGauge) -> Gauges:
    """Return what is asked of each dialogue of a domain."""

    def examine(dialogue: Dialogue) -> Examined:
        followed = follow(dialogue, domain, source_of(dialogue, run_seed))
        found = inconsistencies(followed)

        def messages() -> list[ChatMessage]:
            if followed.lost:
                raise ReplayError(followed.lost)
            return replayed_messages(dialogue, domain, followed.turns)

        return Examined(found, measure(followed, found, subgoals).columns(), messages)

    return Gauges(NAMES, examine)


def unfit(run: RunFile) -> list[Finding]:
    """Return what keeps a run's curation from working, as far as no dialogues tell."""
    return [*setting_findings(run.curate, NAMES), *judge_findings(run)]


def curate(run: RunFile, fresh: bool, say: Callable[[str], None]) -> Curated:
    """Curate the dialogues of a run, unless that is done already.

    Args:
        fresh: do it again in any case.
        say: is told what goes on.

    Raises:
        TooFewKept: all were filtered out, or all but too few to split; nothing is written.
        InputError: no dialogues, or settings that cannot be.
        DuologueError: the disk is full, and the like; what was there stays.
    """
    wrong = unfit(run)
    if wrong:
        raise InputError(wrong)
    folder = RunFolder.of(run)
    made = read_made(folder)
    task = _task(run, made, folder)
    state(task)  # refuses a run without dialogues, before anything is loaded
    with folder.hold():
        done = None if fresh else existing(task)
        if done is not None:
            say("curated already, from the same dialogues and settings (--fresh does it again)")
            return done
        domain = made.place.open()

        def told(text: str) -> None:
            folder.check()
            say(text)

        embed = _embed(_embedding(run))
        with rater(run) as rate:
            tools = Instruments(
                gauges(domain, made.run.run.seed, SubgoalGauge(run.curate.subgoals, embed)),
                CorpusMeasures,
                lambda rule: NearDuplicates(words=rule.words, cosine=rule.cosine),
                agent_card(domain),
                embed,
                rate,
            )
            return curate_round(task, tools, told, _beside(task, made, _embedding(run)))


def _embedding(run: RunFile) -> str:
    return run.curate.embedding or run.retrieval.embedding


def _task(run: RunFile, made: Made, folder: RunFolder) -> Task:
    judge = run.engines[run.curate.judge] if run.curate.judge else None
    return Task(
        folder.round(),
        run.curate,
        run.run.dialogues,
        {"run": run.run.name, "domain": made.run.domain.path, "policy": made.run.policy.kind},
        (
            made.place.digest,
            _embedding(run),
            judge.model_dump_json(include={"kind", "model", "revision"}) if judge else "",
        ),
    )


def _embed(name: str) -> Callable[[Sequence[str]], Vectors]:
    loaded: list[Any] = []

    def embed(texts: Sequence[str]) -> Vectors:
        if not loaded:
            from actors.retrieval.embedding import load_embedder

            loaded.append(load_embedder(name))
        vectors: Vectors = loaded[0].encode(texts)
        return vectors

    return embed


# -- side by side


@dataclass(frozen=True, slots=True)
class _Work:
    """What a process needs to measure parts."""

    dialogues: Folder
    quality: Folder
    place: DomainPlace
    run_seed: int
    section: CurateSection
    embedding: str


_working: list[tuple[_Work, Gauges]] = []
"""In a measuring process: its work, with the domain opened once."""


def _begin(work: _Work) -> None:
    subgoals = SubgoalGauge(work.section.subgoals, _embed(work.embedding))
    _working[:] = [(work, gauges(work.place.open(), work.run_seed, subgoals))]


def _measure_one(part: str) -> int:
    work, asked = _working[0]
    return measure_part(work.dialogues, part, work.quality, asked, work.section.filters)


def _beside(
    task: Task, made: Made, embedding: str
) -> Callable[[Sequence[str]], Iterator[int]] | None:
    """Return what measures parts in several processes, where that is worth their start."""
    parts = state(task)[1]
    processes = min(len(os.sched_getaffinity(0)), len(parts), PROCESSES)
    if processes < 2 or sum(part["bytes"] for part in parts) < SMALL_BYTES:
        return None
    seed = made.run.run.seed
    work = _Work(task.dialogues, task.quality, made.place, seed, task.section, embedding)

    def measure_all(names: Sequence[str]) -> Iterator[int]:
        with ProcessPoolExecutor(processes, get_context("spawn"), _begin, (work,)) as pool:
            try:
                yield from pool.map(_measure_one, names)
            except BrokenProcessPool:
                raise DuologueError(
                    "a measuring process was killed (out of memory?); the same command tries again"
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)

    return measure_all


# -- the command


def command(run: RunFile, fresh: bool) -> None:
    """Curate a run's dialogues and print what came of it; raises what `curate` raises."""
    curated = curate(run, fresh, lambda text: click.echo(text, err=True))
    click.echo(curated.folder.path)
    for line in lines(curated.summary, run.curate):
        click.echo(line)


SHOWN = (
    "reference_share",
    "subgoals_relative",
    "subgoals_said_relative",
    "groundedness",
    "inconsistencies",
    "turns",
)
"""Measures that the frontier's table shows; `summary.json` has all."""


def lines(summary: Mapping[str, Any], section: CurateSection) -> Iterator[str]:
    """Yield a curation's summary as lines of text: funnel, findings, frontier."""
    yield ""
    for step in summary["funnel"]:
        yield f"{step['count']:>8}  {step['name']}"
    yield f"{summary['preference']['rows']:>8}  preference pairs (train)"
    yield ""
    before, after = summary["findings"]["before"], summary["findings"]["after"]
    yield (
        "dialogues with inconsistencies, before and after:"
        if before
        else ("no inconsistencies in what was played")
    )
    for kind, count in sorted(before.items(), key=lambda item: -item[1]):
        yield f"{count:>8} {after.get(kind, 0):>6}  {kind}"
    yield from _success(summary.get("success", {}))
    yield ""
    shown = [name for name in SHOWN if name in summary["measures"]["before"]]
    width = max(len(row["name"]) for row in summary["frontier"])
    yield f"{'':<{width}}  {'kept':>6} {'share':>6}  " + "  ".join(shown)
    for row in summary["frontier"]:
        means = (_figure(row["means"].get(name)).rjust(len(name)) for name in shown)
        yield f"{row['name']:<{width}}  {row['kept']:>6} {row['share']:>6.0%}  " + "  ".join(means)
    if section.kept is not None and summary["kept"] < section.kept:
        yield f"\n{section.kept} were to be kept (curate.kept); `duologue run` plays on for them"


def _success(success: Mapping[str, Mapping[str, Any] | None]) -> Iterator[str]:
    words = {"walked": "by the walk", "said": "in the agent's own words"}
    for way, of in success.items():
        if of is not None:
            interval = f"{of['share']:.2f} [{of['low']:.2f}, {of['high']:.2f}]"
            counts = f"{of['halfway']} of {of['dialogues']}"
            yield f"half of the subgoals reached {words[way]}: {interval}, {counts} dialogues"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
