"""What a run was made from, read back from its own folder: the resolved run file and the domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.run_folder import MANIFEST, RunFolder
from specs.domain import Domain
from specs.errors import DuologueError, Finding, InputError, Where
from specs.loader import open_domain
from specs.run_file import RunFile, load, validate


@dataclass(frozen=True, slots=True)
class DomainPlace:
    """Where a run's domain lies; may be sent to another process, which opens it there.

    Attributes:
        digest: that the domain had when the dialogues were made; empty where that is not known.
    """

    folder: str
    corpus: Path | None
    personas: Path | None
    digest: str

    def open(self) -> Domain:
        """Return the domain.

        Raises:
            DuologueError: it is not what it was when the dialogues were made.
            InputError: it is not there any more.
        """
        domain = open_domain(self.folder, self.corpus, self.personas)
        if self.digest and domain.digest != self.digest:
            raise DuologueError(
                f"{self.folder}: the domain is not what it was when the dialogues were made"
            )
        return domain


@dataclass(frozen=True, slots=True)
class Made:
    """What `run.json` says of a run."""

    run: RunFile
    place: DomainPlace


def read_made(folder: RunFolder) -> Made:
    """Return what a run was made from, at the round that its folder is about.

    The run's own copy of the domain is taken where it lies on a disk; documents and personas that
    the run file gave in place of the domain's are taken from where they were.

    Raises:
        InputError: there is no run, or its `run.json` cannot be read.
    """
    manifest = folder.manifest()
    if manifest is None:
        hint = "Make it first: duologue generate RUN.toml"
        raise InputError([Finding(Where(folder.folder.path), "there is no run here", hint)])
    run = validate(manifest.get("run_file", {}), folder.folder.file(MANIFEST))
    run = run.model_copy(update={"run": run.run.model_copy(update={"round": folder.number})})
    inside = folder.folder.child("domain").path if folder.folder.local else run.domain.path
    corpus, personas = (Path(p) if p else None for p in (run.domain.corpus, run.domain.personas))
    digest = str((manifest.get("domain") or {}).get("digest", ""))
    return Made(run, DomainPlace(inside, corpus, personas, digest))


def find_run(run: str, settings: Sequence[str]) -> RunFolder:
    """Return the run that is named by its folder, or a round's, or by its run file.

    Raises:
        InputError: there is no such run.
    """
    if "://" not in run and Path(run).is_file():
        folder = RunFolder.of(load(run, settings))
    else:
        folder = RunFolder.at(run)
    if folder.manifest() is None:
        hint = "Give a run's folder, such as runs/demo, or its run file; `generate` makes the run."
        raise InputError([Finding(Where(folder.folder.path), "holds no run", hint)])
    return folder
