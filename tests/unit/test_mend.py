from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from actors.sink import SinkCore
from actors.sink_messages import LoggedTurn
from cluster.mend import drop_copies, retry_failed
from cluster.run_folder import FORMAT, MANIFEST, RunFolder
from specs.parts import Folder, part_names, read_dialogues, write_part
from specs.records import SCHEMA_VERSION, Dialogue, StopReason
from tests.unit.durable_samples import (
    Crash,
    arrow_rows,
    cut,
    faulty_folder,
    log,
    make_dialogue,
    make_turn,
)
from tests.unit.durable_samples import sink as opened

FAILED = {1: StopReason.NO_WORDS, 4: StopReason.ERROR, 6: StopReason.REFUSED, 9: StopReason.ERROR}
AGAIN = (1, 4, 6)
"""Those of the failed that are wanted (`WANTED`)."""

WANTED = 9
STAYS = {2: StopReason.TURN_LIMIT, 3: StopReason.OVERFLOW, 5: StopReason.GAVE_UP}


def played(index: int) -> Dialogue:
    stop = {**FAILED, **STAYS}.get(index, StopReason.ENDED)
    return make_dialogue(index, stop_reason=stop, attempt=index + 1)


def sinks(folder: Folder) -> list[SinkCore]:
    return [opened(folder, number, 2, start=1) for number in range(2)]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Two parts, a log file that speaks of what is in one, and ends that are in the log alone."""
    folder = RunFolder(tmp_path, "demo")
    folder.folder.create()
    manifest = {"format": FORMAT, "schema_version": SCHEMA_VERSION}
    folder.folder.write_bytes(MANIFEST, json.dumps(manifest).encode())
    even, odd = sinks(folder.round())
    even.turns([LoggedTurn(10, "walk-10", 1, make_turn(number)) for number in range(3)])
    for sink, ended, logged in ((even, (0, 2, 4, 8), 6), (odd, (1, 3, 5, 9), 7)):
        for index in ended:
            sink.finish(played(index), 1)
        cut(sink)
        sink.finish(played(logged), 1)
        log(sink)
    assert len(part_names(folder.dialogues())) == 2
    return folder


def rows(folder: RunFolder) -> dict[int, Dialogue]:
    return {one.index: one for one in read_dialogues(folder.dialogues())}


def test_what_failed_is_owed_again_and_nothing_else(run: RunFolder) -> None:
    assert retry_failed(run, WANTED, 1) == {"no_words": 1, "error": 1, "refused": 1}
    left = {index: played(index) for index in range(10) if index not in AGAIN}
    assert rows(run) == left
    assert run.attempts() == {index: index + 1 for index in AGAIN}
    even, odd = sinks(run.round())
    assert sorted([*even.recovered().durable, *odd.recovered().durable]) == sorted(left)
    assert (even.stats().open_dialogues, odd.stats().open_dialogues) == (1, 0)
    assert len(even.begin(10, "walk-10", 2).turns) == 3
    assert even.begin(4, "walk-4", 2).status == "play"
    assert retry_failed(run, WANTED, 1) == {}
    assert run.attempts() == {index: index + 1 for index in AGAIN}


def test_a_part_of_nothing_but_failures_goes(run: RunFolder) -> None:
    name = "part-000of002-000009-x.parquet"
    write_part(run.dialogues(), name, pa.Table.from_batches([arrow_rows([played(6)])]))
    retry_failed(run, WANTED, 1)
    assert name not in part_names(run.dialogues())


@pytest.mark.parametrize("at", range(1, 69, 4))
def test_a_crash_at_any_step_loses_nothing_and_the_same_command_ends_it(
    run: RunFolder, at: int, tmp_path: Path
) -> None:
    left = [at]

    def fault(step: str, path: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Crash

    whole = run.folder
    run.folder = faulty_folder(tmp_path / "demo", fault)
    try:
        retry_failed(run, WANTED, 1)
    except Crash:
        run.folder = whole
        known = [index for sink in sinks(run.round()) for index in sink.recovered().durable]
        assert set(range(10)) - set(known) <= set(AGAIN)
        assert set(range(10)) - set(known) <= set(run.attempts())
        retry_failed(run, WANTED, 1)
    run.folder = whole
    assert rows(run) == {index: played(index) for index in range(10) if index not in AGAIN}
    assert run.attempts() == {index: index + 1 for index in AGAIN}


def test_second_copies_go_and_the_first_stays(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    first, second = make_dialogue(1, goal="first"), make_dialogue(1, goal="second")
    for name, found in (("a", [make_dialogue(0), first]), ("b", [second]), ("c", [second, second])):
        write_part(folder, f"part-{name}.parquet", pa.Table.from_batches([arrow_rows(found)]))
    assert drop_copies(folder) == 3
    assert part_names(folder) == ["part-a.parquet"]
    assert list(read_dialogues(folder)) == [make_dialogue(0), first]
    assert drop_copies(folder) == 0


def test_dialogues_that_are_gone_are_told(run: RunFolder) -> None:
    assert run.gone(0) == ""
    run.note_durable(10)
    assert run.gone(10) == run.gone(11) == ""
    assert run.gone(7).startswith("3 dialogues that were there on 20")
    retry_failed(run, WANTED, 1)
    assert run.gone(7) == ""
    assert run.gone(6).startswith("1 dialogues")
