"""What is taken out of a run's folder before it goes on: second copies, and what is played again.

Invariants: the run's lock is held; each file is replaced whole, and the same command after a crash
ends what was begun; of two copies the one that all readers take stays; a dialogue that is played
again has its next attempt on disk before its row goes, and goes from the log before it goes from
its part, so that no sink can find it again.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from actors.sink import SinkCore, SinkLimits
from actors.turn_log import drop_from_log
from cluster.run_folder import RunFolder
from specs.index_set import IndexSet
from specs.parts import Folder, part_names, read_batches, thin_part
from specs.records import StopReason, dialogue_schema


@dataclass(frozen=True, slots=True)
class _Failed:
    index: int
    attempt: int
    reason: StopReason


def drop_copies(dialogues: Folder) -> int:
    """Take the later copies of dialogues that are there twice out of the parts; return how many."""
    seen = IndexSet()
    return sum(thin_part(dialogues, name, seen.add) for name in part_names(dialogues))


def retry_failed(folder: RunFolder, wanted: int, start: int) -> Counter[str]:
    """Take out the dialogues that failed and may go otherwise, so that they are owed again.

    Args:
        wanted: only indices below it: what is not wanted would not be played again.
        start: of the run, as `RunFolder.open` returned it.

    Returns:
        How many, by the reason why they had stopped.
    """
    _into_parts(folder.round(), start)
    found = [one for one in _failed(folder.dialogues()) if one.index < wanted]
    if found:
        failed = {one.index: one.attempt for one in found}
        folder.note_retried(failed)
        drop_from_log(folder.log(), failed)
        for name in part_names(folder.dialogues()):
            thin_part(folder.dialogues(), name, lambda index: index not in failed)
    return Counter(one.reason.value for one in found)


def _into_parts(round_: Folder, start: int) -> None:
    """Put what only the log holds of finished dialogues into a part."""
    sink = SinkCore(round_, 0, 1, SinkLimits(), uuid.uuid4().hex[:8], start)
    sink.open()
    part = sink.take_part()
    if part is not None:
        sink.write_rows(part)
        sink.delete_logs(sink.part_written(part))
    sink.leave()


def _failed(dialogues: Folder) -> Iterator[_Failed]:
    columns = ["index", "attempt", "stop_reason"]
    for name in part_names(dialogues):
        for batch in read_batches(dialogues, name, dialogue_schema(), columns):
            for row in batch.to_pylist():
                reason = StopReason(row["stop_reason"])
                if reason.may_go_otherwise:
                    yield _Failed(row["index"], row["attempt"], reason)
