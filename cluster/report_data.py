"""What a report is made from: one pass over the dialogues, and what the stages after have left.

Invariants: the dialogues go by one after the other, only counts and the few to read are held; what
is not there is None, what is there and cannot be read is said, all at once.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pyarrow import fs as pafs

from cluster.evaluate import COMPARISON
from cluster.evaluation_plan import ADAPTER
from cluster.held_out import identity
from cluster.run_folder import RunFolder
from cluster.summary import Summary
from cluster.usage import Session, read_sessions
from specs.errors import Finding, InputError, Where
from specs.parts import Folder, part_findings, part_names, read_dialogues, read_rows
from specs.records import Dialogue, dialogue_schema, quality_schema
from specs.words import words
from trainer.adapter import MANIFEST
from trainer.curated import FORMAT as CURATED_FORMAT
from trainer.curated import SUMMARY
from trainer.training import LOG

READ = 20
"""Dialogues to read."""

LEAST = 5
"""Of the kept and of the dropped ones, as far as there are that many."""

Step = tuple[str, str, str]
"""A step of a path: from, intent, to."""

T = TypeVar("T")


class Reservoir(Generic[T]):
    """A uniform sample of a stream of unknown length (Vitter's algorithm R), seeded."""

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._random = size, random.Random(seed)
        self.seen = 0
        self.items: list[T] = []

    def add(self, item: T) -> None:
        """Look at one more."""
        self.seen += 1
        if len(self.items) < self._size:
            self.items.append(item)
            return
        place = self._random.randrange(self.seen)
        if place < self._size:
            self.items[place] = item

    def sample(self, count: int) -> list[T]:
        """Return some of the sample; the places in it are not equally likely, so it is shuffled."""
        return self._random.sample(self.items, min(count, len(self.items)))


def drawn(rows: Iterable[tuple[str, bool | None]], seed: int, count: int = READ) -> frozenset[str]:
    """Return which dialogues to read: kept and dropped ones by their shares, LEAST of each.

    Args:
        rows: walk ids with what curation decided; None where it has not.
    """
    kept: Reservoir[str] = Reservoir(count, seed)
    dropped: Reservoir[str] = Reservoir(count, seed + 1)
    for walk_id, verdict in rows:
        (dropped if verdict is False else kept).add(walk_id)
    seen = kept.seen + dropped.seen
    few = round(count * dropped.seen / seen) if seen else 0
    few = max(few, LEAST, count - len(kept.items))
    few = min(few, max(count - LEAST, count - len(kept.items)), len(dropped.items))
    return frozenset(kept.sample(count - few) + dropped.sample(few))


@dataclass(slots=True)
class Played:
    """What the dialogues hold.

    Attributes:
        traffic: how often each step of a path was taken.
        lengths: dialogues by their number of turns.
        words: turns by their number of words, by side.
        sources: turns by who worded them.
        read: the dialogues to read, by walk id.
    """

    summary: Summary = field(default_factory=Summary)
    traffic: Counter[Step] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    words: dict[str, Counter[int]] = field(
        default_factory=lambda: {"user": Counter(), "agent": Counter()}
    )
    sources: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    read: dict[str, Dialogue] = field(default_factory=dict)

    def add(self, dialogue: Dialogue) -> None:
        """Count one dialogue in."""
        self.summary.add(dialogue)
        self.traffic.update((step.from_, step.intent, step.to) for step in dialogue.path)
        self.lengths[len(dialogue.turns)] += 1
        for turn in dialogue.turns:
            self.words[turn.role][len(words(turn.text))] += 1
            self.sources[turn.source] += 1
            if turn.source in ("model", "repair"):
                self.models[turn.model] += 1


def quantile(counts: Counter[int], share: float) -> int:
    """Return the smallest number that at least this share of counted numbers does not exceed."""
    wanted, seen = share * counts.total(), 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= wanted:
            return value
    return 0


def mean(counts: Counter[int]) -> float:
    """Return the mean of counted numbers; 0 of none."""
    total = counts.total()
    return sum(value * count for value, count in counts.items()) / total if total else 0.0


@dataclass(frozen=True, slots=True)
class Quality:
    """What curation found in a dialogue, and what it decided."""

    kept: bool
    split: str
    verdicts: Sequence[Mapping[str, Any]]
    findings: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation's `comparison.json`, with each system's own figures.

    Attributes:
        name: empty for the test split, else the folder of what `--data` named.
        outdated: it is of another adapter than the one that is in the run's folder now.
    """

    name: str
    comparison: Mapping[str, Any]
    systems: Mapping[str, Mapping[str, Any]]
    outdated: bool = False


@dataclass(frozen=True, slots=True)
class Material:
    """All that a report is made from.

    Attributes:
        quality: of the dialogues to read, by walk id.
        sessions: what the starts of the generation used, as far as it can be read; `unread` says
            what cannot.
        curated: the curation's summary; log: the training's rows; manifest: the adapter's.
    """

    played: Played
    quality: Mapping[str, Quality]
    curated: Mapping[str, Any] | None
    log: Sequence[Mapping[str, Any]] | None
    manifest: Mapping[str, Any] | None
    evaluations: Sequence[Evaluation]
    sessions: Sequence[Session] = ()
    unread: Sequence[str] = ()


def gather(folder: RunFolder, seed: int) -> Material:
    """Read a run's round.

    Raises:
        InputError: there is no dialogue, or a file that is there cannot be read.
    """
    stages = _Stages(folder.round())
    curated, log, manifest = stages.curated(), stages.log(), stages.manifest()
    evaluations = stages.evaluations(manifest)
    dialogues = folder.dialogues()
    names = part_names(dialogues)
    wrong = stages.findings + part_findings(dialogues, names, dialogue_schema())
    quality = folder.round().child("quality") if curated is not None else None
    if quality is not None:
        measured = part_names(quality)
        wrong += part_findings(quality, measured, quality_schema())
        quality = quality if measured else None
    if wrong:
        raise InputError(wrong)
    if not names:
        hint = "Play some first: duologue generate RUN.toml"
        message = "there are no finished dialogues to report on"
        raise InputError([Finding(Where(dialogues.path), message, hint)])
    chosen = drawn(_verdicts(dialogues, quality), seed)
    unread: list[str] = []
    return Material(
        _played(dialogues, chosen),
        _quality(quality, chosen),
        curated,
        log,
        manifest,
        evaluations,
        read_sessions(folder.round(), unread.append),
        unread,
    )


def _verdicts(dialogues: Folder, quality: Folder | None) -> Iterable[tuple[str, bool | None]]:
    if quality is None:
        return ((one.walk_id, None) for one in read_dialogues(dialogues, ["walk_id"]))
    rows = read_rows(quality, quality_schema(), ["walk_id", "kept"])
    return ((row["walk_id"], row["kept"]) for row in rows)


def _played(dialogues: Folder, chosen: frozenset[str]) -> Played:
    played = Played()
    for dialogue in read_dialogues(dialogues):
        played.add(dialogue)
        if dialogue.walk_id in chosen:
            played.read[dialogue.walk_id] = dialogue
    return played


def _quality(folder: Folder | None, chosen: frozenset[str]) -> dict[str, Quality]:
    if folder is None:
        return {}
    columns = ["walk_id", "kept", "split", "verdicts", "findings"]
    return {
        row["walk_id"]: Quality(row["kept"], row["split"], row["verdicts"], row["findings"])
        for row in read_rows(folder, quality_schema(), columns)
        if row["walk_id"] in chosen
    }


class _Stages:
    """Reads what the stages have left, and gathers what is wrong with it."""

    def __init__(self, round_: Folder) -> None:
        self._round = round_
        self.findings: list[Finding] = []

    def curated(self) -> Mapping[str, Any] | None:
        """Return the curation's summary."""
        folder = self._round.child("curated")
        found = self._object(folder, SUMMARY, "duologue curate RUN.toml --fresh")
        if found is not None and found.get("format") != CURATED_FORMAT:
            message = "is no summary of a curation"
            self.findings.append(Finding(Where(folder.file(SUMMARY)), message, _AGAIN))
            return None
        return found

    def log(self) -> Sequence[Mapping[str, Any]] | None:
        """Return the rows of the training's log."""
        folder, name = self._round.child("training"), LOG
        data = self._read(folder, name)
        if data is None:
            return None
        lines = [line for line in data.decode(errors="replace").splitlines() if line.strip()]
        rows = [self._parsed(line, folder.file(name), _AGAIN) for line in lines]
        return [row for row in rows if row is not None]

    def manifest(self) -> Mapping[str, Any] | None:
        """Return the adapter's manifest."""
        return self._object(self._round.child("adapter"), MANIFEST, "duologue train RUN.toml")

    def evaluations(self, manifest: Mapping[str, Any] | None) -> list[Evaluation]:
        """Return the evaluations: of the test split, then those of other data.

        Args:
            manifest: of the adapter that is there now.
        """
        folder = self._round.child("evaluation")
        places = [(folder, ""), *((folder.child(name), name) for name in _folders(folder))]
        found = [self._evaluation(*place, manifest) for place in places]
        return [one for one in found if one is not None]

    def _evaluation(
        self, folder: Folder, name: str, manifest: Mapping[str, Any] | None
    ) -> Evaluation | None:
        comparison = self._shaped(folder, COMPARISON, _COMPARISON)
        if comparison is None:
            return None
        systems = {
            system: self._shaped(folder, f"{system}.json", _FIGURES)
            for system in comparison["systems"]
        }
        there = {system: one for system, one in systems.items() if one is not None}
        return Evaluation(name, comparison, there, _outdated(comparison, manifest))

    def _shaped(
        self, folder: Folder, name: str, shape: Mapping[str, type]
    ) -> Mapping[str, Any] | None:
        """Return an evaluation's object, which has all that belongs into it."""
        hint = "duologue evaluate RUN.toml --fresh"
        found = self._object(folder, name, hint)
        if found is None:
            return None
        lacking = [key for key, kind in shape.items() if not isinstance(found.get(key), kind)]
        if lacking:
            message = f"is no file of an evaluation: it lacks {', '.join(lacking)}"
            self.findings.append(
                Finding(Where(folder.file(name)), message, f"Make it again: {hint}")
            )
            return None
        return found

    def _object(self, folder: Folder, name: str, command: str) -> Mapping[str, Any] | None:
        data = self._read(folder, name)
        if data is None:
            return None
        hint = f"Make it again: {command}"
        return self._parsed(data.decode(errors="replace"), folder.file(name), hint)

    def _parsed(self, text: str, path: str, hint: str) -> Mapping[str, Any] | None:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            self.findings.append(Finding(Where(path), f"is not readable JSON: {error}", hint))
            return None
        if not isinstance(found, dict):
            self.findings.append(Finding(Where(path), "holds no JSON object", hint))
            return None
        return found

    def _read(self, folder: Folder, name: str) -> bytes | None:
        try:
            return folder.read_bytes(name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self.findings.append(Finding(Where(folder.file(name)), f"cannot be read: {error}"))
            return None


def _outdated(comparison: Mapping[str, Any], manifest: Mapping[str, Any] | None) -> bool:
    """Return whether it is known that an evaluation asked another adapter than this one."""
    asked = comparison.get("adapters", {}).get(ADAPTER)
    if asked is None or manifest is None:
        return False
    return any(asked.get(key) != value for key, value in identity(manifest).items())


_COMPARISON: Mapping[str, type] = {"systems": list, "rows": list, "differences": dict}
_FIGURES: Mapping[str, type] = {"by_turn": dict, "slots": dict, "intents": dict, "confusion": dict}

_AGAIN = "Move it out of the run's folder, and run the command that makes it again."


def _folders(folder: Folder) -> list[str]:
    selector = pafs.FileSelector(folder.path, allow_not_found=True)
    infos = folder.fs.get_file_info(selector)
    return sorted(one.base_name for one in infos if one.type == pafs.FileType.Directory)
