"""The rounds of a run: who plays each one, what became of it, and all of them in one table.

Invariants: who plays a round is noted before its first dialogue and never changed; a round is
judged by what is on disk, so that a run that goes on comes to the same verdicts; an adapter that
was not promoted never plays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cluster import guards
from cluster.agent_adapter import played_in
from cluster.generate import open_run_domain
from cluster.kept import KeptEngines
from cluster.progress import duration
from cluster.round_note import Guard, Player, RoundNote, Tried, Verdict
from cluster.run_folder import RunFolder, now
from cluster.trial import domain_name, plays_elsewhere, trial_run, tried
from specs.errors import DuologueError, Finding, InputError, Where
from specs.parts import durable_indices, read_dialogues
from specs.run_file import RunFile
from specs.section import NAME
from trainer.adapter import published, trained_as
from trainer.curated import SUMMARY, Curated

Say = Callable[[str], None]


def at(run: RunFile, number: int) -> RunFile:
    """Return the run at one of its rounds."""
    return run.model_copy(update={"run": run.run.model_copy(update={"round": number})})


def unfit(run: RunFile) -> list[Finding]:
    """Return what keeps rounds and trials from working, before anything is played."""
    rounds = run.rounds
    if rounds.count == 1 and not rounds.trial:
        return []
    findings = []
    if not RunFolder.of(run).folder.local:
        hint = "Name a folder that every node sees (run.out)."
        message = "an adapter is served from a folder only, and the run lies elsewhere"
        findings.append(Finding(Where("rounds"), message, hint))
    if rounds.count > 1:
        findings += _other_model(run)
    findings += _whole_model(run)
    names = [domain_name(one) for one in (run.domain.path, *rounds.held_out)]
    for name in (one for one in names if not re.fullmatch(NAME, one)):
        message = f"a trial is called as its domain's folder, and {name!r} is no name for a run"
        findings.append(Finding(Where("rounds.held_out"), message, "Name the folder otherwise."))
    for name in sorted({one for one in names if names.count(one) > 1}):
        message = f"{name!r} is the name of two domains, the run's own among them"
        findings.append(Finding(Where("rounds.held_out"), message, "Name each once."))
    if not findings and rounds.trial:
        place = RunFolder.of(run).folder
        for domain in (run.domain.path, *rounds.held_out):
            try:
                open_run_domain(trial_run(run, place, domain, ""))
            except InputError as error:
                findings += error.findings
    return findings


def _whole_model(run: RunFile) -> list[Finding]:
    name = run.roles.agent
    shared = name in (run.roles.user, run.roles.manager)
    if run.train.method != "full" or plays_elsewhere(run) or not shared:
        return []
    if run.engines[name].kind != "vllm":
        return []
    message = (
        f"fully trained weights are a model of their own, and the engine {name} plays other roles"
    )
    hint = "Give the agent an engine of its own (roles.agent)."
    return [Finding(Where("train.method"), message, hint)]


def _other_model(run: RunFile) -> list[Finding]:
    from cluster.evaluation_plan import digest_of
    from cluster.train import base_model

    engine = run.engines[run.roles.agent]
    if run.train.model is None:
        return []
    if engine.kind != "vllm":
        message = f"the agent is played by an engine of the kind {engine.kind!r}, not by an adapter"
        hint = "Give the agent an engine of train.model (roles.agent)."
        return [Finding(Where("rounds"), message, hint)]
    name, revision = base_model(run)
    trained = engine.model_copy(update={"model": name, "revision": revision})
    if digest_of(trained) == digest_of(engine):
        return []
    message = (
        f"train.model is {name!r} and the agent is played by {engine.model!r}: an adapter of the "
        "one does not fit the other, so the next round could not be played"
    )
    return [Finding(Where("rounds"), message, "Leave train.model out, or give the agent that one.")]


# -- who plays


def last_promoted(folder: RunFolder, before: int) -> int | None:
    """Return the last round before this one whose adapter was promoted; None where none was."""
    for number in reversed(range(before)):
        verdict = folder.at_round(number).note().verdict
        if verdict is not None and verdict.promoted:
            return number
    return None


def begin(run: RunFile, say: Say) -> None:
    """Note who plays the round that a run is at, and say it.

    Raises:
        InputError: it was begun with another agent, or that one is not there any more.
    """
    folder = RunFolder.of(run)
    number = folder.number
    if not number:
        return
    best = last_promoted(folder, number)
    player = Player()
    if best is not None:
        verdict = folder.at_round(best).note().verdict
        training = verdict.training if verdict is not None else ""
        player = Player(adapter=f"round-{best}/adapter", training=training, of=best)
    note = folder.note()
    if note.player is None:
        with folder.hold():
            folder.round().create()
            folder.write_note(note.model_copy(update={"player": player}))
    elif note.player != player:
        message = (
            f"round {number} was begun with {_who(note.player)}, and would be played by "
            f"{_who(player)} now"
        )
        hint = "Go on under another name (run.name), or start over (--fresh)."
        raise InputError([Finding(Where(folder.round().path), message, hint)])
    played_in(run, folder)
    who = "the run file's own agent plays on" if best is None else f"{_who(player)} plays the agent"
    say(f"round {number}: {who}")


def is_over(run: RunFile) -> bool:
    """Return whether a round is over, and the next one was begun with what it left."""
    folder = RunFolder.of(run)
    try:
        if folder.manifest() is None:
            return False
    except InputError:  # half deleted, say: `generate` sees to that
        return False
    begun = folder.at_round(folder.number + 1).note().player is not None
    return begun and folder.note().verdict is not None


def refuse_successors(folder: RunFolder) -> None:
    """Refuse to train a round anew whose adapter plays a later one.

    Raises:
        InputError: naming that round.
    """
    later = folder.number + 1
    while (player := folder.at_round(later).note().player) is not None:
        if player.of == folder.number:
            message = f"the adapter plays round {later}, and would be another one"
            hint = "Train under another name (run.name), or start over (duologue run --fresh)."
            raise InputError([Finding(Where(folder.round().path), message, hint)])
        later += 1


def _who(player: Player) -> str:
    return "the run file's agent" if player.of is None else f"the adapter of round {player.of}"


# -- what becomes of a round


def diversity_of(folder: RunFolder) -> float | None:
    """Return how varied a round's kept dialogues are; None where that is not known."""
    summary = _summary(folder)
    found = (summary or {}).get("corpus", {}).get("after", {}).get("rouge_diversity")
    return float(found) if found is not None else None


def _first_diversity(folder: RunFolder) -> float | None:
    """Return the diversity of the first round of which something was kept."""
    for number in range(folder.number):
        verdict = folder.at_round(number).note().verdict
        if verdict is not None and verdict.kept:
            return diversity_of(folder.at_round(number))
    return diversity_of(folder)


def _summary(folder: RunFolder) -> dict[str, Any] | None:
    try:
        found = json.loads(folder.round().child("curated").read_bytes(SUMMARY))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def worth_learning(run: RunFile, curated: Curated | InputError) -> list[Guard]:
    """Judge a round's dialogues, before anything is trained on them.

    Args:
        curated: what is there to learn from, or why there is nothing.
    """
    rounds, folder = run.rounds, RunFolder.of(run)
    if isinstance(curated, InputError):
        why = curated.findings[0].message
        return [guards.survivors(0, rounds.least, why)]
    examples = int(curated.summary["splits"]["train"]["rows"])
    first, this = _first_diversity(folder), diversity_of(folder)
    return [
        guards.survivors(examples, rounds.least),
        guards.diversity(this, first, rounds.diversity),
    ]


def trials_before(run: RunFile, say: Say, kept: KeptEngines | None) -> tuple[Tried, ...]:
    """Return what the agent reaches that the round's own has to be no worse than."""
    folder = RunFolder.of(run)
    best = last_promoted(folder, folder.number)
    if best is not None:
        verdict = folder.at_round(best).note().verdict
        there = verdict.trials if verdict is not None else ()
        asked = {domain_name(one) for one in (run.domain.path, *run.rounds.held_out)}
        if {one.domain for one in there} == asked:
            return there
        return trials_of(at(run, best), say, kept)  # more is tried now than was then
    say("trying the run file's own agent")
    found = tried(at(run, 0), folder.folder, "", say, kept)
    first = folder.at_round(0)
    with first.hold():
        first.write_note(first.note().model_copy(update={"trials": found}))
    return found


def trials_of(run: RunFile, say: Say, kept: KeptEngines | None) -> tuple[Tried, ...]:
    """Try the adapter that the round has left."""
    folder = RunFolder.of(run)
    say(f"trying the adapter of round {folder.number}")
    place = folder.round()
    return tried(run, place, place.child("adapter").path, say, kept)


def close(
    run: RunFile, kept: int, found: Sequence[Guard], trials: Sequence[Tried], say: Say
) -> Verdict:
    """Note what became of a round, and say it.

    Args:
        kept: dialogues that curation left.
    """
    folder = RunFolder.of(run)
    passed = all(guard.passed for guard in found)
    manifest = published(folder.round().child("adapter")) if passed or trials else None
    training = trained_as(manifest) if manifest is not None else ""
    note = folder.note()
    verdict = Verdict(
        promoted=passed and bool(training),
        training=training,
        at=now(),
        kept=kept,
        guards=tuple(found),
        trials=tuple(trials),
    )
    before = note.verdict
    if before is not None and before.model_copy(update={"at": verdict.at}) == verdict:
        verdict = before  # when it was first known
    else:
        with folder.hold():
            folder.round().create()
            folder.write_note(note.model_copy(update={"verdict": verdict}))
    for guard in found:
        say(f"{'passed' if guard.passed else 'NOT passed'}: {guard.line}")
    say(f"round {folder.number} is {'' if verdict.promoted else 'not '}promoted")
    return verdict


# -- all of them


@dataclass(frozen=True, slots=True)
class Row:
    """One round.

    Attributes:
        played, kept: dialogues.
        diversity: of the kept ones.
        swap_s: from the end of the training that left its agent to its first dialogue; `idle_s`:
            of that, from the verdict on. None where it was not played by an adapter.
    """

    number: int
    note: RoundNote
    played: int
    kept: int | None
    diversity: float | None
    swap_s: float | None = None
    idle_s: float | None = None


def are_judged(folder: RunFolder) -> bool:
    """Return whether a run's rounds are judged; of others nothing is to be told."""
    return folder.number > 0 or folder.at_round(0).note().verdict is not None


def rows_of(folder: RunFolder) -> list[Row]:
    """Return the rounds of a run that have begun.

    Raises:
        InputError: a note or a part cannot be read.
    """
    rows: list[Row] = []
    number = 0
    while True:
        there = folder.at_round(number)
        played = len(durable_indices(there.dialogues()))
        if not played:
            return rows
        note = there.note()
        # Where nothing was kept, the summary of a curation before may lie there still.
        nothing = note.verdict is not None and not note.verdict.kept
        summary = None if nothing else _summary(there)
        kept = int(summary["kept"]) if summary is not None else 0 if nothing else None
        varied = None if nothing else diversity_of(there)
        rows.append(Row(number, note, played, kept, varied, *_swap(there, note)))
        number += 1


def _swap(folder: RunFolder, note: RoundNote) -> tuple[float | None, float | None]:
    if note.player is None or note.player.of is None:
        return None, None
    before = folder.at_round(note.player.of)
    manifest, verdict = published(before.round().child("adapter")), before.note().verdict
    if manifest is None or verdict is None or trained_as(manifest) != note.player.training:
        return None, None
    first = min(one.started_at for one in read_dialogues(folder.dialogues(), ["started_at"]))
    trained, judged = (datetime.fromisoformat(one) for one in (manifest["made"], verdict.at))
    return (first - trained).total_seconds(), (first - judged).total_seconds()


HEAD = ("round", "agent", "played", "kept", "diversity", "it left")


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return the table of rounds, as text: see HEAD."""
    found: list[tuple[str, ...]] = []
    if rows and (before := rows[0].note.trials):
        found.append(("-", "", "", "", "", f"the run file's agent: {_reached(before)}"))
    for row in rows:
        player = row.note.player
        who = "run file's" if player is None or player.of is None else f"round {player.of}'s"
        kept = "-" if row.kept is None else str(row.kept)
        varied = "-" if row.diversity is None else f"{row.diversity:.3f}"
        found.append((str(row.number), who, str(row.played), kept, varied, _left(row)))
    return found


def _left(row: Row) -> str:
    verdict = row.note.verdict
    if verdict is None:
        return "not over yet"
    parts = [_reached(verdict.trials)] if verdict.trials else []
    failed = [guard.line for guard in verdict.guards if not guard.passed]
    parts.append("promoted" if verdict.promoted else "not promoted: " + "; ".join(failed))
    return ", ".join(parts)


def _reached(trials: Sequence[Tried]) -> str:
    return ", ".join(
        f"{one.domain} {one.mean:.2f} [{one.low:.2f}, {one.high:.2f}]" for one in trials
    )


def lines(rows: Sequence[Row]) -> list[str]:
    """Return the table of rounds as lines, with what the agents' change took."""
    table = [HEAD, *cells(rows)]
    widths = [max(len(row[place]) for row in table) for place in range(len(HEAD) - 1)]
    found = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in table
    ]
    return [*found, *(_swapped(row) for row in rows if row.swap_s is not None)]


def _swapped(row: Row) -> str:
    player = row.note.player
    of = player.of if player is not None else None
    whole, idle = duration(row.swap_s or 0.0), duration(row.idle_s or 0.0)
    return (
        f"round {row.number} began {whole} after the training of round {of} ended, "
        f"{idle} after that round was judged"
    )


def refuse_untrained(rows: Sequence[Row]) -> None:
    """Raise DuologueError when no round of a run has left an adapter that may play."""
    if any(row.note.verdict is not None and row.note.verdict.promoted for row in rows):
        return
    raise DuologueError(
        "no round was promoted: the table says why\n"
        "    Loosen curate.filters or rounds, or play more dialogues (run.dialogues)."
    )
