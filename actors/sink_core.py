"""What a sink decides. It is the only writer of the indices that are its number modulo the sinks'.

Invariants: an index becomes a row at most once, whatever crashes (it is refused once it is in a
part, in the log with its end, or waiting for either); a lease of an older epoch than one seen for
that index changes nothing; what was answered `stored` is on disk; a log file is deleted only after
a part holds all that it still said; nothing appears or goes once a successor has opened
(`actors.fence`). `SinkCore` decides and does no waiting: what is to be written
is taken from it, written by `write_batch` or `write_rows` in any thread, and reported back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from actors.fence import Fence
from actors.sink_messages import (
    Begun,
    LogBatch,
    LoggedTurn,
    PartBatch,
    Recovered,
    SinkLimits,
    SinkStats,
    Stored,
)
from actors.turn_log import (
    Ended,
    Entry,
    LogContents,
    end_entry,
    log_name,
    log_prefix,
    read_log,
    rows_of,
    turn_entry,
    turns_of,
    write_log,
)
from specs.index_set import IndexSet
from specs.parts import SUFFIX, TEMPORARY, Folder, durable_indices, part_names, write_part
from specs.records import Dialogue, dialogue_schema

_NAME = re.compile(r"(?:log|part)-\d+of(\d+)-(\d+)-")


@dataclass(slots=True)
class _Open:
    """A dialogue in progress.

    Attributes:
        shared: how many of `bodies` a walker that has begun goes on from, whatever its epoch: what
            was there when somebody began here, or when the log was read.
    """

    walk_id: str
    epoch: int
    bodies: list[str] = field(default_factory=list)
    shared: int = 0


def _sinks_of(name: str) -> int:
    """Return how many sinks there were when a file was written; 0 for a foreign name."""
    match = _NAME.match(name)
    return int(match[1]) if match else 0


def _after(names: Iterable[str]) -> int:
    """Return the sequence number that follows those of the names."""
    matches = (_NAME.match(name) for name in names)
    return 1 + max((int(match[2]) for match in matches if match), default=0)


class SinkCore:
    """A sink's decisions and state; not safe for threads, except for its two `write_` methods."""

    def __init__(
        self,
        folder: Folder,
        number: int,
        sinks: int,
        limits: SinkLimits,
        token: str,
        start: int = 0,
    ) -> None:
        """Take the round's folder.

        Args:
            token: tells this incarnation's files from all others'.
            start: counts the starts of the run (`actors.fence`).
        """
        self.limits = limits
        self._parts, self._log = folder.child("dialogues"), folder.child("log")
        self._number, self._sinks, self._token = number, sinks, token
        self._fence = Fence(self._log, number, sinks, token, start)
        self._stored, self._ending = IndexSet(), set[int]()
        self._open: dict[int, _Open] = {}
        self._entries: list[Entry] = []
        self._ended: list[Ended] = []
        self._rows: list[pa.RecordBatch] = []
        self._row_count = self._row_bytes = self._log_size = 0
        self._live: dict[str, set[int]] = {}
        self._files_of: dict[int, set[str]] = {}
        self._foreign: dict[str, set[int]] = {}
        self._next_log = self._next_part = self._parts_written = 0
        self._rows_written = self._bytes_written = 0
        self.ticket, self.flushed = 1, 0

    # --- what was there -------------------------------------------------------------------------

    def open(self) -> Recovered:
        """Read back what is on disk; finished dialogues that are in no part yet go into the next.

        What failed may be called again.

        Raises:
            InputError: for files that are no parts, or of another version.
            Fenced: a later start of the run writes here.
        """
        prefix = log_prefix(self._number, self._sinks)
        for folder in (self._parts, self._log):
            folder.create()
        self._fence.take()
        self._clear_temporaries()
        for index in durable_indices(self._parts):
            if self._is_mine(index):
                self._stored.add(index // self._sinks)
        contents = read_log(
            self._log,
            lambda index: self._is_mine(index) and not self._has(index),
            lambda name: not name.startswith(prefix) and _sinks_of(name) == self._sinks,
        )
        self._next_log = _after(contents.files)
        self._next_part = _after(part_names(self._parts))
        self._take_over(contents, prefix)
        return self.recovered(contents.warnings)

    def _clear_temporaries(self) -> None:
        """Delete what is half written by earlier incarnations, of any number of sinks."""
        for folder in (self._parts, self._log):
            for name in folder.names(TEMPORARY, SUFFIX):
                final = name.removeprefix(TEMPORARY)
                mine = final.startswith(
                    (self._part_prefix(), log_prefix(self._number, self._sinks))
                )
                if mine or _sinks_of(final) not in (0, self._sinks):
                    folder.delete(name)

    def _take_over(self, contents: LogContents, prefix: str) -> None:
        for name, indices in contents.files.items():
            if not name.startswith(prefix):
                self._foreign[name] = indices
                continue
            alive = {index for index in indices if not self._has(index)}
            if not alive:
                self._log.delete(name)
                continue
            self._live[name] = alive
            for index in alive:
                self._files_of.setdefault(index, set()).add(name)
        for index, known in contents.unfinished.items():
            bodies = list(known.bodies)
            self._open[index] = _Open(known.walk_id, known.epoch, bodies, len(bodies))
        finished = list(contents.finished.values())
        if finished:
            self._hold(rows_of(finished), finished)

    def recovered(self, warnings: Sequence[str] = ()) -> Recovered:
        """Return what is durable now."""
        durable = IndexSet(place * self._sinks + self._number for place in self._stored)
        return Recovered(durable, tuple(warnings))

    # --- what walkers say -----------------------------------------------------------------------

    def begin(self, index: int, walk_id: str, epoch: int) -> Begun:
        """Start or take over a dialogue: older epochs are refused from now on. Idempotent."""
        if self._has(index) or index in self._ending:
            return Begun("stored")
        open_ = self._claim(index, walk_id, epoch, begins=True)
        if open_ is None:
            return Begun("stale", epoch=self._open[index].epoch)
        open_.shared = len(open_.bodies)
        return Begun("play", turns_of(open_.bodies), epoch)

    def turns(self, turns: Iterable[LoggedTurn]) -> tuple[int, ...]:
        """Take turns for the log; returns the indices refused (stored, or an older epoch)."""
        refused = []
        for given in turns:
            open_ = None
            if not self._has(given.index) and given.index not in self._ending:
                open_ = self._claim(given.index, given.walk_id, given.epoch)
            if open_ is None:
                refused.append(given.index)
                continue
            entry = turn_entry(given.index, given.walk_id, given.epoch, given.turn)
            self._log_turn(open_, entry)
        return tuple(dict.fromkeys(refused))

    def finish(self, dialogue: Dialogue, epoch: int, told: int = 0) -> Stored:
        """Take a finished dialogue; it is durable once `flushed` has reached today's `ticket`.

        Args:
            told: how many turns it has, where all went ahead and `dialogue` comes without them.
        """
        index = dialogue.index
        if self._has(index) or index in self._ending:
            return "duplicate"
        open_ = self._claim(index, dialogue.walk_id, epoch)
        if open_ is None:
            return "stale"
        if not told:
            told = self._log_all(open_, dialogue, epoch)
        elif len(open_.bodies) != told:
            return "incomplete"
        end = end_entry(dialogue, epoch, told)
        self._append(end)
        self._ended.append(Ended(index, epoch, end.body, tuple(open_.bodies[:told])))
        self._ending.add(index)
        del self._open[index]
        return "stored"

    def _log_all(self, open_: _Open, dialogue: Dialogue, epoch: int) -> int:
        """Log what is not logged yet of a dialogue's turns; returns how many there are."""
        entries = [turn_entry(dialogue.index, dialogue.walk_id, epoch, t) for t in dialogue.turns]
        if any(entry.turn != place for place, entry in enumerate(entries)):
            raise ValueError(f"dialogue {dialogue.index}: its turns are not numbered 0, 1, 2, ...")
        for entry in entries:
            self._log_turn(open_, entry)
        return len(entries)

    def _claim(self, index: int, walk_id: str, epoch: int, begins: bool = False) -> _Open | None:
        if not self._is_mine(index):
            raise ValueError(f"index {index} is not of sink {self._number} of {self._sinks}")
        open_ = self._open.setdefault(index, _Open(walk_id, epoch))
        if epoch < open_.epoch:
            return None
        if walk_id != open_.walk_id:
            open_.bodies.clear()
        elif epoch > open_.epoch and not begins:
            # It began before this sink died; what a late one has said since, it never heard of.
            del open_.bodies[open_.shared :]
        open_.walk_id, open_.epoch = walk_id, epoch
        return open_

    def _log_turn(self, open_: _Open, entry: Entry) -> None:
        turn, bodies = entry.turn, open_.bodies
        if turn < len(bodies) and bodies[turn] == entry.body:
            return
        if turn <= len(bodies):  # else a gap is before it, and its dialogue's end brings all
            bodies[turn:] = [entry.body]
            self._append(entry)

    def _append(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._log_size += entry.size

    # --- what is to be written ------------------------------------------------------------------

    @property
    def log_size(self) -> int:
        """Roughly the bytes that wait for the log."""
        return self._log_size

    def has(self, index: int) -> bool:
        """Whether a dialogue is durable."""
        return self._has(index)

    def take_log(self) -> LogBatch | None:
        """Return what waits for the log, to be written; one batch at a time."""
        if not self._entries:
            return None
        name = log_name(self._number, self._sinks, self._next_log, self._token)
        batch = LogBatch(self.ticket, name, tuple(self._entries), tuple(self._ended))
        self._next_log += 1
        self.ticket += 1
        self._entries, self._ended, self._log_size = [], [], 0
        return batch

    def write_batch(self, batch: LogBatch) -> pa.RecordBatch:
        """Write a log batch (in any thread); again after an error, under the same name."""
        rows = rows_of(batch.ended)
        write_log(self._log, batch.name, batch.entries, self._fence.check)
        return rows

    def log_written(self, batch: LogBatch, rows: pa.RecordBatch) -> None:
        """Note that a log batch is durable."""
        self._bytes_written += sum(entry.size for entry in batch.entries)
        self._live[batch.name] = {entry.index for entry in batch.entries}
        for index in self._live[batch.name]:
            self._files_of.setdefault(index, set()).add(batch.name)
        self._hold(rows, batch.ended)
        self.flushed = batch.ticket

    def _hold(self, rows: pa.RecordBatch, dialogues: Iterable[Ended]) -> None:
        for ended in dialogues:
            self._stored.add(ended.index // self._sinks)
            self._ending.discard(ended.index)
        if rows.num_rows:
            self._rows.append(rows)
            self._row_count += rows.num_rows
            self._row_bytes += rows.nbytes

    @property
    def part_due(self) -> bool:
        """Whether a part is to be cut."""
        rows, bytes_ = self._row_count, self._row_bytes
        return rows >= self.limits.part_rows or bytes_ >= self.limits.part_bytes

    def take_part(self) -> PartBatch | None:
        """Return all finished rows, to be written as one part; one part at a time."""
        if not self._rows:
            return None
        name = f"{self._part_prefix()}{self._next_part:06}-{self._token}.parquet"
        indices = [index for rows in self._rows for index in rows.column("index").to_pylist()]
        batch = PartBatch(name, tuple(self._rows), tuple(indices))
        self._next_part += 1
        self._rows, self._row_count, self._row_bytes = [], 0, 0
        return batch

    def write_rows(self, batch: PartBatch) -> None:
        """Write a part (in any thread); again after an error, under the same name."""
        table = pa.Table.from_batches(batch.rows, dialogue_schema()).sort_by("index")
        write_part(self._parts, batch.name, table, self._fence.check)

    def part_written(self, batch: PartBatch) -> list[str]:
        """Note that a part is durable; returns the log files that hold nothing else any more."""
        self._parts_written += 1
        self._rows_written += len(batch.indices)
        self._bytes_written += sum(rows.nbytes for rows in batch.rows)
        for index in batch.indices:
            for name in self._files_of.pop(index, ()):
                self._live[name].discard(index)
        empty = [name for name, alive in self._live.items() if not alive]
        for name in empty:
            del self._live[name]
        return empty

    def delete_logs(self, names: Iterable[str]) -> None:
        """Delete log files (in any thread)."""
        self._fence.check()
        for name in names:
            self._log.delete(name)

    def leave(self) -> None:
        """End in good order (in any thread); a successor may open, and nothing is written."""
        self._delete_foreign()
        self._fence.leave()

    def _delete_foreign(self) -> None:
        """Delete log files that another number of sinks left, once parts hold all they speak of."""
        if self._foreign:
            durable = durable_indices(self._parts)
            self.delete_logs(name for name, held in self._foreign.items() if held <= durable)

    def stats(self) -> SinkStats:
        """Return what the sink holds now."""
        return SinkStats(
            stored=len(self._stored),
            parts=self._parts_written,
            waiting_rows=self._row_count,
            waiting_bytes=self._row_bytes,
            log_files=len(self._live),
            open_dialogues=len(self._open),
            rows=self._rows_written,
            bytes=self._bytes_written,
        )

    def _is_mine(self, index: int) -> bool:
        return index % self._sinks == self._number

    def _has(self, index: int) -> bool:
        return self._is_mine(index) and index // self._sinks in self._stored

    def _part_prefix(self) -> str:
        return f"part-{self._number:03}of{self._sinks:03}-"
