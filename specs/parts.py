"""Immutable Parquet parts on any `pyarrow.fs` filesystem.

Invariants: a part appears whole or not at all (a temporary name beginning with `_`, then a rename;
on a local disk file and folder are synchronised); writing the same part again under its name
replaces it; every reading passes the declared schema, and a file of another schema or version is
refused by name, never half understood.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from specs.errors import DuologueError, Finding, InputError, Where
from specs.index_set import IndexSet
from specs.records import SCHEMA_VERSION, Dialogue, dialogue_from_row, dialogue_schema

TEMPORARY = "_"
SUFFIX = ".parquet"

_BATCH_ROWS = 64
_PLACES = "Give a local path or a URI such as s3://bucket/runs or gs://bucket/runs."
_EMPTY = {pa.string(): "", pa.int32(): 0, pa.int64(): 0}


@dataclass(frozen=True)
class Folder:
    """A folder on a filesystem; nothing says that it is there already."""

    fs: pafs.FileSystem
    path: str

    @classmethod
    def of(cls, place: str | Path) -> Folder:
        """Return the folder of a local path or of a URI that `pyarrow.fs` knows.

        Raises:
            InputError: when the URI cannot be understood.
        """
        text = str(place)
        if "://" not in text:
            return cls(pafs.LocalFileSystem(), os.path.abspath(text))
        try:
            fs, path = pafs.FileSystem.from_uri(text)
        except (pa.ArrowException, OSError, ValueError) as error:
            shown = text.rpartition("@")[2]  # what stands before the @ may be a key
            raise InputError(
                f"{shown!r} is not a place to write to: {str(error).replace(text, shown)}",
                _PLACES,
            ) from None
        if fs.type_name == "mock":
            message = f"{text!r} is in this process's memory and would be gone with it"
            raise InputError(message, _PLACES)
        return cls(_impatient(fs) if fs.type_name == "s3" else fs, path.rstrip("/"))

    def child(self, *names: str) -> Folder:
        """Return the folder of that name inside this one."""
        return replace(self, path="/".join((self.path, *names)))

    def file(self, name: str) -> str:
        """Return the path of a file in this folder."""
        return f"{self.path}/{name}"

    @property
    def local(self) -> bool:
        """Whether it lies on a disk of this machine (or on one mounted into it)."""
        return isinstance(self.fs, pafs.LocalFileSystem)

    def create(self) -> None:
        """Make the folder and those above it; no error when it is there."""
        try:
            self.fs.create_dir(self.path, recursive=True)
        except OSError as error:
            raise storage_error(error, self.path) from error

    def names(self, prefix: str = "", suffix: str = "") -> list[str]:
        """Return the names of its files, sorted; none when there is no such folder."""
        selector = pafs.FileSelector(self.path, allow_not_found=True)
        try:
            found = self.fs.get_file_info(selector)
        except OSError as error:
            raise storage_error(error, self.path, "read") from error
        return sorted(
            info.base_name
            for info in found
            if info.type == pafs.FileType.File
            and info.base_name.startswith(prefix)
            and info.base_name.endswith(suffix)
        )

    def delete(self, name: str) -> None:
        """Delete a file; no error when it is gone already."""
        try:
            self.fs.delete_file(self.file(name))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise storage_error(error, self.file(name)) from error

    def read_bytes(self, name: str) -> bytes:
        """Return a file's content; raises FileNotFoundError."""
        with self.fs.open_input_stream(self.file(name)) as stream:
            return bytes(stream.read())

    def write_bytes(
        self, name: str, data: bytes | pa.Buffer, may: Callable[[], None] | None = None
    ) -> None:
        """Write a file that appears whole.

        Args:
            may: called when all is written, right before it appears; what it raises keeps it away.

        Raises:
            DuologueError: the disk is full, the folder cannot be written, and the like.
        """
        temporary, final = self.file(f"{TEMPORARY}{name}"), self.file(name)
        try:
            with self.fs.open_output_stream(temporary) as stream:
                stream.write(data)
            if self.local:
                synchronise(temporary)
            if may is not None:
                may()
            self.fs.move(temporary, final)
            if self.local:
                synchronise(self.path)
        except OSError as error:
            raise storage_error(error, final) from error


def _impatient(fs: pafs.FileSystem) -> pafs.FileSystem:
    """Return an S3 filesystem that says within a minute that the store does not answer.

    By itself it tries for 100 s (measured), in which nobody knows of the outage; a URI cannot say
    otherwise, and what it said is found where pickle finds it.
    """
    options = dict(fs.__reduce__()[1][0])
    options["retry_strategy"] = pafs.AwsStandardS3RetryStrategy(max_attempts=3)
    return pafs.S3FileSystem(**{**options, "connect_timeout": 5.0, "request_timeout": 15.0})


def synchronise(path: str) -> None:
    """Wait until a local file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def storage_error(error: OSError, path: str, done: str = "written") -> DuologueError:
    """Return what to tell the user about a file that could not be `done`: written, or read.

    Whoever raises it names `error` as its cause, by which an outage of the store is known.
    """
    reasons = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EROFS: "the disk is read-only",
        errno.EACCES: "permission denied",
        errno.EPERM: "permission denied",
        errno.ENOTDIR: "something on the way there is a file, not a folder",
        errno.EEXIST: "a file stands where a folder should be",
    }
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "What is durable stays; make room and run the same command again."
        return DuologueError(f"{path}: cannot be {done}: {reasons[error.errno]}\n    {hint}")
    reason = reasons.get(error.errno or 0)
    if reason is None:
        return DuologueError(f"{path}: cannot be read or written: {error}")
    hint = "Name another place with --set run.out=FOLDER."
    return InputError([Finding(Where(path), f"cannot be {done}: {reason}", hint)])


def clear_temporaries(folder: Folder, prefix: str = "") -> None:
    """Delete what a crash left half written. `prefix` is of the final names."""
    for name in folder.names(TEMPORARY + prefix, SUFFIX):
        folder.delete(name)


def part_names(folder: Folder) -> list[str]:
    """Return the names of a folder's parts in their stable order."""
    return folder.names("part-", SUFFIX)


def write_part(
    folder: Folder, name: str, table: pa.Table, may: Callable[[], None] | None = None
) -> None:
    """Write one part; the table's schema carries the version (`specs.records`)."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    folder.write_bytes(name, sink.getvalue(), may)


def check_file(folder: Folder, name: str, schema: pa.Schema) -> None:
    """Refuse a file that is no readable Parquet of this schema and version.

    Raises:
        InputError: naming the file.
        FileNotFoundError: when it is gone.
    """
    path = folder.file(name)
    try:
        with folder.fs.open_input_file(path) as source:
            found = pq.read_schema(source).metadata or {}
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        _refuse(folder, name, error, schema)
    wanted = schema.metadata or {}
    kind, version = b"duologue.schema", b"duologue.schema_version"
    if found.get(kind) != wanted[kind]:
        message = f"holds no {wanted[kind].decode()} of Duologue"
        raise InputError([Finding(Where(path), message, "Move it out of the run's folder.")])
    if found.get(version) != wanted[version]:
        other = found.get(version, b"?").decode(errors="replace")
        message = f"has schema version {other}, and this Duologue reads version {SCHEMA_VERSION}"
        hint = "Read it with the Duologue that wrote it, or start another run (run.name)."
        raise InputError([Finding(Where(path), message, hint)])


def part_findings(folder: Folder, names: Sequence[str], schema: pa.Schema) -> list[Finding]:
    """Return what `check_file` says against each of these parts, so that all is said at once."""
    findings: list[Finding] = []
    for name in names:
        try:
            check_file(folder, name, schema)
        except InputError as error:
            findings += error.findings
    return findings


_AGAIN = {
    b"curated": "Curate again: duologue curate RUN.toml --fresh",
    b"preference": "Curate again: duologue curate RUN.toml --fresh",
    b"quality": "Curate again: duologue curate RUN.toml --fresh",
    b"predictions": "Evaluate again: duologue evaluate RUN.toml --fresh",
}
"""How a file that cannot be read is made again, by the kind of its schema."""


def _refuse(folder: Folder, name: str, error: Exception, schema: pa.Schema) -> NoReturn:
    """Raise why a file could not be read: Arrow says a broken file and a broken store alike."""
    path = folder.file(name)
    try:
        data = folder.read_bytes(name)
    except FileNotFoundError:
        raise
    except OSError as failure:
        raise storage_error(failure, path, "read") from failure
    try:
        pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as broken:
        raise _unreadable(path, broken, schema) from None
    if isinstance(error, OSError):
        raise storage_error(error, path, "read") from error
    raise _unreadable(path, error, schema) from None


def _unreadable(path: str, error: Exception, schema: pa.Schema) -> InputError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    message = f"is not a readable Parquet file (truncated?): {reason}"
    played = "Move it out of the folder; running again plays what it held once more."
    hint = _AGAIN.get((schema.metadata or {}).get(b"duologue.schema", b""), played)
    return InputError([Finding(Where(path), message, hint)])


def read_batches(
    folder: Folder, name: str, schema: pa.Schema, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield a part's rows in small batches, in order; refuses what `check_file` refuses."""
    import pyarrow.dataset as ds  # brings pandas along: a third of a second, for each process

    check_file(folder, name, schema)
    path = folder.file(name)
    part = ds.dataset(path, schema=schema, format="parquet", filesystem=folder.fs)
    chosen = None if columns is None else list(columns)
    try:
        yield from part.to_batches(
            columns=chosen, batch_size=_BATCH_ROWS, batch_readahead=1, fragment_readahead=0
        )
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        _refuse(folder, name, error, schema)


def thin_part(folder: Folder, name: str, keep: Callable[[int], bool]) -> int:
    """Take dialogues out of a part, which is replaced at once, or deleted when nothing is left.

    Args:
        keep: whether the dialogue of an index stays; asked once a row, in their order.

    Returns:
        How many rows went.
    """
    schema = dialogue_schema()
    table = pa.Table.from_batches(read_batches(folder, name, schema), schema)
    kept = table.filter(pa.array([keep(index) for index in table["index"].to_pylist()]))
    if kept.num_rows == 0:
        folder.delete(name)
    elif kept.num_rows < table.num_rows:
        write_part(folder, name, kept)
    return int(table.num_rows - kept.num_rows)


def read_rows(
    folder: Folder, schema: pa.Schema, columns: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield every part's rows, part by part in their stable order."""
    for name in part_names(folder):
        for batch in read_batches(folder, name, schema, columns):
            yield from batch.to_pylist()


def read_dialogues(folder: Folder, columns: Sequence[str] | None = None) -> Iterator[Dialogue]:
    """Yield the dialogues of a folder's parts, without holding more than a batch.

    An index that is there twice (`actors.fence` says how that may come) is yielded once, from the
    first part in order that has it.

    With `columns` only these are read, and the dialogues' other fields are empty, except for
    `index` and `stop_reason`, which are always there.
    """
    schema = dialogue_schema()
    chosen, empty = None, {}
    if columns is not None:
        chosen = list(dict.fromkeys([*columns, "index", "stop_reason"]))
        empty = {field.name: _empty(field.type) for field in schema if field.name not in chosen}
    seen = IndexSet()
    for row in read_rows(folder, schema, chosen):
        if seen.add(row["index"]):
            yield dialogue_from_row({**empty, **row})


def _empty(kind: pa.DataType) -> Any:
    if pa.types.is_timestamp(kind):
        return datetime.fromtimestamp(0, UTC)
    return _EMPTY.get(kind, ())


def durable_indices(folder: Folder) -> set[int]:
    """Return the indices of all dialogues in a folder's parts, reading that column alone."""
    found: set[int] = set()
    for name in part_names(folder):
        for batch in read_batches(folder, name, dialogue_schema(), ["index"]):
            found.update(batch.column(0).to_pylist())
    return found
