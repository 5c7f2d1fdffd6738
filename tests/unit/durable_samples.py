"""Dialogues, folders and a filesystem that fails on request, for the tests of the durable side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs as pafs

from actors.sink import SinkCore, SinkLimits
from actors.turn_log import Ended, end_entry, rows_of, turn_entry
from specs.parts import Folder, read_rows
from specs.records import CheckResult, Dialogue, PathStep, StopReason, Turn, dialogue_schema

START = datetime(2024, 5, 1, 12, tzinfo=UTC)


def make_turn(number: int, text: str = "") -> Turn:
    return Turn(
        index=number,
        role="user" if number % 2 == 0 else "agent",
        text=text or f"utterance {number}",
        state="show_results" if number % 2 else "",
        intent="" if number % 2 else "search_recipe",
        edge=3,
        slots={"query": "tomato soup"},
        call={"tool": "search", "arguments": {"query": "tomato soup"}} if number % 2 else None,
        result_ids=("r1", "r2") if number % 2 else (),
        result_scores=(0.75, 0.5) if number % 2 else (),
        memory={"step": number},
        checks=(CheckResult("max_words", 4.0, True), CheckResult("mentions", None, number != 2)),
        rejected=("no",),
        seed=2**61 + number,
        sampling={"temperature": 0.7},
        prompt_digest="abcd",
        model="m",
    )


def make_dialogue(index: int, turns: int = 4, **changes: Any) -> Dialogue:
    dialogue = Dialogue(
        run="demo",
        round=0,
        arm="main",
        walk_id=f"walk-{index}",
        index=index,
        seed=2**60 + index,
        domain="recipe",
        domain_digest="d" * 64,
        policy="walk",
        persona_id="p1",
        persona="A hurried cook.",
        goal="Cook tomato soup tonight.",
        doc_ids=("r1",),
        documents=(("r1", '{"id":"r1","title":"Tomato Soup"}'),),
        path=(PathStep("start", "search_recipe", "look_up"),),
        stop_reason=StopReason.ENDED,
        error="",
        attempt=0,
        subgoals_reached=("show_results",),
        node="n1",
        started_at=START,
        ended_at=START + timedelta(seconds=9, microseconds=5),
        turns=tuple(make_turn(number) for number in range(turns)),
    )
    return replace(dialogue, **changes)


class Crash(BaseException):
    """The process ends here: nothing catches it."""


class FaultyFiles(pafs.FileSystemHandler):  # type: ignore[misc]
    """The local filesystem, with a word before and after each write's step.

    `fault(step, path)` is called with the steps `created` (a folder), `open`, `written`, `moved`,
    `deleted`, and `read`.
    """

    def __init__(self, fault: Callable[[str, str], None] = lambda step, path: None) -> None:
        self.local = pafs.LocalFileSystem()
        self.fault = fault

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        self.fault("open", path)
        return self.local.open_output_stream(path)

    def move(self, source: str, target: str) -> None:
        self.fault("written", target)
        self.local.move(source, target)
        self.fault("moved", target)

    def delete_file(self, path: str) -> None:
        self.local.delete_file(path)
        self.fault("deleted", path)

    def get_type_name(self) -> str:
        return "faulty"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> Any:
        return self.local.get_file_info(paths)

    def get_file_info_selector(self, selector: Any) -> Any:
        return self.local.get_file_info(selector)

    def create_dir(self, path: str, recursive: bool) -> None:
        self.fault("created", path)
        self.local.create_dir(path, recursive=recursive)

    def delete_dir(self, path: str) -> None:
        self.local.delete_dir(path)
        self.fault("deleted", path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self.local.delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError

    def copy_file(self, source: str, target: str) -> None:
        self.local.copy_file(source, target)

    def open_input_stream(self, path: str) -> Any:
        self.fault("read", path)
        return self.local.open_input_stream(path, compression=None)

    def open_input_file(self, path: str) -> Any:
        self.fault("read", path)
        return self.local.open_input_file(path)

    def open_append_stream(self, path: str, metadata: Any) -> Any:
        return self.local.open_append_stream(path)


def faulty_folder(
    path: Path, fault: Callable[[str, str], None] = lambda step, path: None
) -> Folder:
    return Folder(pafs.PyFileSystem(FaultyFiles(fault)), str(path))


def arrow_rows(dialogues: Iterable[Dialogue]) -> pa.RecordBatch:
    """Return dialogues as the rows that a sink makes of them."""
    return rows_of([ended(dialogue, 1) for dialogue in dialogues])


def ended(dialogue: Dialogue, epoch: int) -> Ended:
    """Return a dialogue as the log holds it."""
    walk_id = dialogue.walk_id
    turns = (turn_entry(dialogue.index, walk_id, epoch, turn).body for turn in dialogue.turns)
    end = end_entry(dialogue, epoch, len(dialogue.turns))
    return Ended(dialogue.index, epoch, end.body, tuple(turns))


def indices_in(dialogues: Folder) -> list[int]:
    """Return the index of every row of the parts, of second copies, too: readers pass over those.

    Whoever wants to know that there is no second row has to count here.
    """
    return [row["index"] for row in read_rows(dialogues, dialogue_schema(), ["index"])]


_tokens: Iterator[str] = (f"t{number:05}" for number in range(10**5))


def sink(
    folder: Folder, number: int = 0, sinks: int = 1, rows: int = 100, start: int = 0
) -> SinkCore:
    """Return an open sink of a round's folder."""
    core = SinkCore(folder, number, sinks, SinkLimits(part_rows=rows), next(_tokens), start)
    core.open()
    return core


def log(core: SinkCore) -> None:
    """Let a sink write what waits for the log."""
    batch = core.take_log()
    if batch is not None:
        core.log_written(batch, core.write_batch(batch))


def cut(core: SinkCore) -> None:
    """Let a sink write its log, and a part of what is finished."""
    log(core)
    part = core.take_part()
    if part is not None:
        core.write_rows(part)
        core.delete_logs(core.part_written(part))
