from __future__ import annotations

import errno
import os
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from specs.errors import DuologueError, InputError
from specs.parts import (
    Folder,
    check_file,
    clear_temporaries,
    durable_indices,
    part_names,
    read_dialogues,
    write_part,
)
from specs.records import (
    Dialogue,
    StopReason,
    curated_schema,
    dialogue_schema,
    predictions_schema,
    quality_schema,
)
from tests.unit.durable_samples import Crash, arrow_rows, faulty_folder, make_dialogue


def write(folder: Folder, name: str, *dialogues: Dialogue) -> None:
    folder.create()
    write_part(folder, name, pa.Table.from_batches([arrow_rows(dialogues)]))


def test_dialogues_come_back_as_they_were_in_a_stable_order(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path / "dialogues")
    given = [make_dialogue(index) for index in range(6)]
    write(folder, "part-b.parquet", *given[3:])
    write(folder, "part-a.parquet", *given[:3])
    assert list(read_dialogues(folder)) == given
    assert durable_indices(folder) == set(range(6))
    assert part_names(folder) == ["part-a.parquet", "part-b.parquet"]


def test_chosen_columns_alone(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    write(folder, "part-a.parquet", make_dialogue(7, stop_reason=StopReason.NO_EDGE))
    (found,) = read_dialogues(folder, ["index", "goal"])
    assert (found.index, found.goal) == (7, "Cook tomato soup tonight.")
    assert found.stop_reason is StopReason.NO_EDGE
    assert (found.turns, found.persona, found.seed) == ((), "", 0)


def test_an_absent_folder_is_empty(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path / "none")
    assert list(read_dialogues(folder)) == []
    assert durable_indices(folder) == set()


def test_other_readers_take_the_parts(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    write(folder, "part-a.parquet", *(make_dialogue(index) for index in range(3)))
    query = f"select sum(len(turns)), max(turns[2].result_ids[1]) from '{tmp_path}/*.parquet'"
    assert duckdb.execute(query).fetchall() == [(12, "r1")]


@pytest.mark.parametrize("step", ["open", "written"])
def test_a_crash_leaves_no_part_but_a_temporary(tmp_path: Path, step: str) -> None:
    def fault(at: str, path: str) -> None:
        if at == step:
            raise Crash

    with pytest.raises(Crash):
        write(faulty_folder(tmp_path, fault), "part-a.parquet", make_dialogue(0))
    folder = Folder.of(tmp_path)
    assert part_names(folder) == []
    clear_temporaries(folder)
    assert os.listdir(tmp_path) == []


def test_truncated_parts_are_named(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    write(folder, "part-a.parquet", make_dialogue(0))
    whole = (tmp_path / "part-a.parquet").read_bytes()
    for size in (0, 3, len(whole) // 2, len(whole) - 1):
        (tmp_path / "part-a.parquet").write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"part-a\.parquet: error: is not a readable"):
            durable_indices(folder)


def test_what_no_dialogue_is_lost_with_is_made_again_by_its_own_command(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    (tmp_path / "part-a.parquet").write_bytes(b"PAR1 half")
    for schema, command in (
        (dialogue_schema(), "running again plays"),
        (curated_schema(), "duologue curate RUN.toml --fresh"),
        (quality_schema(), "duologue curate RUN.toml --fresh"),
        (predictions_schema(), "duologue evaluate RUN.toml --fresh"),
    ):
        with pytest.raises(InputError, match=command):
            check_file(folder, "part-a.parquet", schema)


def test_a_file_of_another_version_or_kind_is_named(tmp_path: Path) -> None:
    table = pa.Table.from_batches([arrow_rows([make_dialogue(0)])])
    kind = {"duologue.schema": "dialogues", "duologue.schema_version": "99"}
    pq.write_table(table.replace_schema_metadata(kind), tmp_path / "part-a.parquet")
    with pytest.raises(InputError, match=r"part-a\.parquet: error: has schema version 99"):
        list(read_dialogues(Folder.of(tmp_path)))
    pq.write_table(pa.table({"index": [1]}), tmp_path / "part-a.parquet")
    with pytest.raises(InputError, match="holds no dialogues of Duologue"):
        durable_indices(Folder.of(tmp_path))


def test_a_field_that_only_a_later_part_has_is_not_dropped(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    table = pa.Table.from_batches([arrow_rows([make_dialogue(0)])])
    schema = dialogue_schema()
    place = schema.get_field_index("documents")
    older = schema.set(place, pa.field("documents", pa.list_(pa.struct([("id", pa.string())]))))
    rows = table.drop_columns("documents").add_column(
        place, older.field(place), pa.array([[{"id": "r1"}]], older.field(place).type)
    )
    write_part(folder, "part-a.parquet", rows.replace_schema_metadata(schema.metadata))
    write(folder, "part-b.parquet", make_dialogue(1))
    assert [d.documents[0] for d in read_dialogues(folder)] == [
        ("r1", None),
        ("r1", '{"id":"r1","title":"Tomato Soup"}'),
    ]


@pytest.mark.parametrize(
    ("code", "said", "kind"),
    [
        (errno.ENOSPC, "the disk is full", DuologueError),
        (errno.EROFS, "read-only", InputError),
        (errno.EACCES, "permission denied", InputError),
    ],
)
def test_failed_writes_say_why(
    tmp_path: Path, code: int, said: str, kind: type[DuologueError]
) -> None:
    def fault(step: str, path: str) -> None:
        raise OSError(code, os.strerror(code))

    with pytest.raises(kind, match=said):
        write(faulty_folder(tmp_path, fault), "part-a.parquet", make_dialogue(0))


def test_uris_and_their_errors(tmp_path: Path) -> None:
    folder = Folder.of(f"file://{tmp_path}/x/")
    write(folder, "part-a.parquet", make_dialogue(4))
    assert folder.local
    assert durable_indices(Folder.of(tmp_path / "x")) == {4}
    with pytest.raises(InputError, match="is not a place to write to") as caught:
        Folder.of("nonsense://key:secret@bucket")
    assert "secret" not in str(caught.value)
    with pytest.raises(InputError, match="memory"):
        Folder.of("mock://runs")
