"""What a curation is made from and what it leaves: is it there already, and is it enough?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from specs.errors import Finding, InputError, Where
from specs.parts import SUFFIX, Folder, part_names
from specs.records import SCHEMA_VERSION, dump_json
from specs.run_file import CurateSection, RunFile
from specs.seeds import digest
from trainer.split import SPLITS

SUMMARY = "summary.json"
FORMAT = "duologue-curated"
WAY = "3"
"""Goes up when the same dialogues and settings would be curated otherwise than before."""

HINT = "Play some first: duologue generate RUN.toml"


@dataclass(frozen=True, slots=True)
class Task:
    """One curation: from where, to where, under which settings.

    Attributes:
        round: the round's folder, with `dialogues`; `quality` and `curated` come beside it.
        planned: dialogues that the run was to play.
        about: what else the summary says: the run's and the domain's name, and the like.
        made_from: what decides the result beside parts and settings (the domain's digest, the
            names of the models).
    """

    round: Folder
    section: CurateSection
    planned: int
    about: Mapping[str, Any]
    made_from: Sequence[str] = ()

    @property
    def dialogues(self) -> Folder:
        """Where the dialogues are."""
        return self.round.child("dialogues")

    @property
    def quality(self) -> Folder:
        """Where one row a dialogue goes."""
        return self.round.child("quality")

    @property
    def curated(self) -> Folder:
        """Where the examples go."""
        return self.round.child("curated")


@dataclass(frozen=True, slots=True)
class Curated:
    """What a curation left.

    Attributes:
        folder: that holds the files.
        summary: the content of `summary.json`.
        again: nothing was done: it was there already.
    """

    folder: Folder
    summary: Mapping[str, Any]
    again: bool = False

    @property
    def played(self) -> int:
        """Dialogues that were looked at."""
        return int(self.summary["played"])

    @property
    def kept(self) -> int:
        """Dialogues that were kept."""
        return int(self.summary["kept"])


class TooFewKept(InputError):
    """What was kept is not enough to learn from: it cannot stand on all sides of the split.

    Attributes:
        summary: what `summary.json` would have said of them (`trainer.curation_files.figures`).
    """

    def __init__(self, found: Iterable[Finding], summary: Mapping[str, Any]) -> None:
        super().__init__(found)
        self.summary = summary

    @property
    def played(self) -> int:
        """How many there were."""
        return int(self.summary["played"])

    @property
    def kept(self) -> int:
        """How many were kept."""
        return int(self.summary["kept"])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self.findings), self.summary)


class NothingKept(TooFewKept):
    """All dialogues were filtered out."""


def state(task: Task) -> tuple[str, list[dict[str, Any]]]:
    """Return the digest of all that decides a curation, and the parts it is made from.

    Raises:
        InputError: there are no dialogues.
    """
    parts = sizes(task.dialogues, part_names(task.dialogues))
    if not parts:
        raise InputError(
            [Finding(Where(task.dialogues.path), "there are no finished dialogues", HINT)]
        )
    settings = task.section.model_dump_json(exclude={"kept", "budget"})
    made_from = dump_json([parts, settings, list(task.made_from), SCHEMA_VERSION, WAY])
    return digest(made_from), parts


def sizes(folder: Folder, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the names of files with their sizes in bytes; None for one that is not there."""
    infos = folder.fs.get_file_info([folder.file(name) for name in names]) if names else []
    return [{"name": name, "bytes": info.size} for name, info in zip(names, infos, strict=True)]


def existing(task: Task) -> Curated | None:
    """Return the curation that is there, if it is whole and was made from the same."""
    try:
        summary = json.loads(task.curated.read_bytes(SUMMARY))
    except (OSError, ValueError):
        return None
    if not isinstance(summary, dict) or summary.get("format") != FORMAT:
        return None
    names = [*(f"{side}{SUFFIX}" for side in SPLITS), f"preference{SUFFIX}"]
    whole = summary.get("files") == sizes(task.curated, names)
    if not whole or summary.get("curation") != state(task)[0]:
        return None
    return Curated(task.curated, summary, again=True)


def more_needed(run: RunFile, curated: Curated) -> int | None:
    """Return how many more dialogues to play for `curate.kept`; None when there are enough.

    See `further`.
    """
    return further(run, curated.played, curated.kept)


def further(run: RunFile, played: int, kept: int) -> int | None:
    """Return how many more dialogues to play; None when none is needed or the budget is spent.

    As many as the share kept so far lets expect, and a tenth more; when nothing was kept, as many
    as there are already.
    """
    wanted = run.curate.kept
    if wanted is None or kept >= wanted:
        return None
    left = int(run.run.dialogues * run.curate.budget) - played
    if left <= 0:
        return None
    expected = -((kept - wanted) * played * 11 // (kept * 10)) if kept else max(1, played)
    return min(left, max(1, expected))
