"""The turn log: what is known of dialogues in progress, kept in small immutable files.

Invariants: an entry is known by (index, epoch, turn), and a later entry of the same name replaces
an earlier one. A turn of a newer epoch says that what older epochs logged from that turn on is
void, so that a dialogue begun anew never continues with turns of its former self. Only turns
without a gap count. An end carries the number of turns in `turn`: what was logged beyond them is
void, and without all of them the dialogue is unfinished.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.json as pj

from specs.errors import InputError
from specs.parts import SUFFIX, Folder, check_file, read_batches, write_part
from specs.records import (
    Dialogue,
    Turn,
    dialogue_from_row,
    dialogue_row,
    dialogue_schema,
    dump_json,
    log_schema,
    turn_from_row,
    turn_row,
)

_TIMES = ("started_at", "ended_at")


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the log: a turn, or a dialogue's end."""

    index: int
    walk_id: str
    epoch: int
    turn: int
    kind: str
    body: str

    @property
    def size(self) -> int:
        """Roughly its bytes."""
        return len(self.body) + 128


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What the log knows of a dialogue in progress.

    Attributes:
        bodies: its turns, as the log holds them.
    """

    walk_id: str
    epoch: int
    bodies: tuple[str, ...]

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns."""
        return turns_of(self.bodies)


@dataclass(frozen=True, slots=True)
class Ended:
    """A dialogue that is over, as the log holds it: the bodies of its end and of its turns."""

    index: int
    epoch: int
    end: str
    turns: tuple[str, ...]

    @property
    def dialogue(self) -> Dialogue:
        """The record."""
        values: dict[str, Any] = {**json.loads(self.end), "turns": [*map(json.loads, self.turns)]}
        for name in _TIMES:
            values[name] = datetime.fromisoformat(values[name])
        return dialogue_from_row(values)


@dataclass(frozen=True, slots=True)
class LogContents:
    """What a log holds.

    Attributes:
        unfinished, finished: by index.
        files: the indices that each readable file speaks of.
        warnings: what could not be read and was skipped, in words for the user.
    """

    unfinished: dict[int, Unfinished] = field(default_factory=dict)
    finished: dict[int, Ended] = field(default_factory=dict)
    files: dict[str, set[int]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def turn_entry(index: int, walk_id: str, epoch: int, turn: Turn) -> Entry:
    """Return the log's entry for one turn."""
    return Entry(index, walk_id, epoch, turn.index, "turn", _encodable(dump_json(turn_row(turn))))


def _encodable(text: str) -> str:
    """Return the text with `?` for lone surrogates: models write them, Parquet cannot hold them."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def end_entry(dialogue: Dialogue, epoch: int, turns: int) -> Entry:
    """Return the log's entry for the end of a dialogue of so many turns."""
    row = dialogue_row(dialogue)
    del row["turns"]
    for name in _TIMES:
        row[name] = row[name].isoformat()
    body = _encodable(dump_json(row))
    return Entry(dialogue.index, dialogue.walk_id, epoch, turns, "end", body)


def log_name(number: int, sinks: int, sequence: int, token: str) -> str:
    """Return the name of a micro-part; names of one sink sort in the order of writing."""
    return f"log-{number:03}of{sinks:03}-{sequence:09}-{token}{SUFFIX}"


def log_prefix(number: int, sinks: int) -> str:
    """Return how the names of one sink's micro-parts begin."""
    return f"log-{number:03}of{sinks:03}-"


def log_table(entries: Iterable[Entry]) -> pa.Table:
    """Return the Arrow table of entries."""
    rows = [{name: getattr(entry, name) for name in Entry.__slots__} for entry in entries]
    return pa.Table.from_pylist(rows, schema=log_schema())


def write_log(
    folder: Folder,
    name: str,
    entries: Iterable[Entry],
    may: Callable[[], None] | None = None,
) -> None:
    """Write one micro-part; `may` as of `Folder.write_bytes`."""
    write_part(folder, name, log_table(entries), may)


def read_log(
    folder: Folder,
    keep: Callable[[int], bool] = lambda index: True,
    skip_file: Callable[[str], bool] = lambda name: False,
) -> LogContents:
    """Read a log back.

    Files that cannot be read (a crash of the machine cut them short) are said and skipped; files
    that another sink deletes meanwhile hold nothing of interest any more.

    Args:
        keep: which indices to read.
        skip_file: which files not to open.

    Raises:
        InputError: for a file of another schema version.
    """
    entries: list[Entry] = []
    files: dict[str, set[int]] = {}
    warnings: list[str] = []
    for name, found in _files(folder, skip_file, warnings):
        files[name] = {entry.index for entry in found}
        entries += [entry for entry in found if keep(entry.index)]
    return _replay(entries, files, tuple(warnings))


def drop_from_log(folder: Folder, indices: Container[int]) -> None:
    """Take all that a log says of these dialogues out of it, file by file, each replaced at once.

    Nobody else may write to it meanwhile. Files that cannot be read stay as they are.
    """
    for name, entries in _files(folder):
        kept = [entry for entry in entries if entry.index not in indices]
        if not kept:
            folder.delete(name)
        elif len(kept) < len(entries):
            write_log(folder, name, kept)


def _files(
    folder: Folder,
    skip_file: Callable[[str], bool] = lambda name: False,
    warnings: list[str] | None = None,
) -> Iterator[tuple[str, list[Entry]]]:
    """Yield a log's readable files; what cannot be read goes into `warnings`."""
    for name in folder.names("log-", SUFFIX):
        if skip_file(name):
            continue
        try:
            yield name, _read_file(folder, name)
        except FileNotFoundError:
            continue
        except InputError as error:
            if not _cut_short(error):
                raise
            if warnings is not None:
                message = f"{folder.file(name)}: skipped: {error.findings[0].message}"
                warnings.append(message)


def _read_file(folder: Folder, name: str) -> list[Entry]:
    check_file(folder, name, log_schema())
    batches = read_batches(folder, name, log_schema())
    return [Entry(**row) for batch in batches for row in batch.to_pylist()]


def _replay(
    entries: Iterable[Entry], files: dict[str, set[int]], warnings: tuple[str, ...]
) -> LogContents:
    by_index: dict[int, list[Entry]] = {}
    for entry in entries:
        by_index.setdefault(entry.index, []).append(entry)
    contents = LogContents(files=files, warnings=warnings)
    for index, found in sorted(by_index.items()):
        last, bodies, end = _latest(found)
        if end is not None:
            turns = tuple(bodies[: end.turn])
            contents.finished[index] = Ended(index, end.epoch, end.body, turns)
        elif bodies:
            contents.unfinished[index] = Unfinished(last.walk_id, last.epoch, tuple(bodies))
    return contents


def _latest(found: Sequence[Entry]) -> tuple[Entry, list[str], Entry | None]:
    """Return a dialogue's latest entry, the bodies of its turns that count, and its end."""
    last = max(found, key=lambda entry: entry.epoch)
    found = [entry for entry in found if entry.walk_id == last.walk_id]
    bodies = replay_bodies(found)
    ends = [entry for entry in found if entry.kind == "end" and entry.turn <= len(bodies)]
    return last, bodies, ends[-1] if ends else None


def ended_in_log(folder: Folder) -> tuple[set[int], int]:
    """Return which dialogues a log holds to their end, and its highest epoch (-1 if empty).

    What was said is not read, so this costs little however much the log holds. Files that are
    gone meanwhile, or cut short, hold nothing here: the sinks say so.

    Raises:
        InputError: for a file of another schema version.
    """
    columns = [name for name in Entry.__slots__ if name != "body"]
    by_index: dict[int, list[Entry]] = {}
    for name in folder.names("log-", SUFFIX):
        try:
            for batch in read_batches(folder, name, log_schema(), columns):
                for row in batch.to_pylist():
                    by_index.setdefault(row["index"], []).append(Entry(**row, body=""))
        except FileNotFoundError:
            continue
        except InputError as error:
            if not _cut_short(error):
                raise
    ended = {index for index, found in by_index.items() if _latest(found)[2] is not None}
    return ended, max((e.epoch for found in by_index.values() for e in found), default=-1)


def _cut_short(error: InputError) -> bool:
    return error.findings[0].message.startswith("is not a readable")


def replay_bodies(entries: Iterable[Entry]) -> list[str]:
    """Return the bodies of one dialogue's turns that count; entries in the order of writing."""
    latest = {(entry.epoch, entry.turn): entry for entry in entries if entry.kind == "turn"}
    bodies: list[str] = []
    for (_, turn), entry in sorted(latest.items(), key=lambda item: item[0]):
        if turn <= len(bodies):
            bodies[turn:] = [entry.body]
    return bodies


def turns_of(bodies: Iterable[str]) -> tuple[Turn, ...]:
    """Return the turns of logged bodies."""
    return tuple(turn_from_row(json.loads(body)) for body in bodies)


def rows_of(ended: Sequence[Ended]) -> pa.RecordBatch:
    """Return dialogues as rows of `dialogue_schema()`; Arrow reads their bodies as they are."""
    schema = dialogue_schema()
    if not ended:
        return pa.RecordBatch.from_pylist([], schema=schema)
    lines = (f'{one.end[:-1]},"turns":[{",".join(one.turns)}]}}' for one in ended)
    data = "\n".join(lines).encode()
    table = pj.read_json(
        pa.BufferReader(data),
        read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
    )
    (batch,) = table.combine_chunks().to_batches()
    return batch.replace_schema_metadata(schema.metadata)
