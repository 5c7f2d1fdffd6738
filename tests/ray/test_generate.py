"""`duologue generate` on a local cluster, with the reference engine."""

from __future__ import annotations

import socket
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.cli import main
from specs.parts import Folder, part_names, write_part
from specs.records import dialogue_schema
from tests.ray.command import Command, duologue, in_process, rows, run_file

pytestmark = pytest.mark.usefixtures("module_ray")


def test_a_run_its_resumption_its_extension_and_its_refusal(tmp_path: Path) -> None:
    path = str(run_file(tmp_path, dialogues=6))
    assert duologue("generate", path)[0] == 0
    first = rows(tmp_path)
    assert set(first) == set(range(6))
    assert {row["stop_reason"] for row in first.values()} == {"ended"}
    parts = tmp_path / "out" / "tea" / "round-0" / "dialogues" / "*.parquet"
    counted = duckdb.execute(
        "select count(*), sum(len(turns)), bool_and(turns[1].text <> ''), "
        "bool_and(json_valid(turns[2].slots) and json_valid(documents[1].json)) "
        f"from read_parquet('{parts}')"
    ).fetchall()
    turns = sum(len(row["turns"]) for row in first.values())
    assert counted == [(6, turns, True, True)]

    code, said = in_process("generate", path)
    assert code == 0
    assert "6 of 6 dialogues are there already" in said
    assert "playing" not in said
    assert rows(tmp_path) == first

    code, said = in_process("generate", path, "--set", "run.dialogues=10")
    assert code == 0
    assert "resuming with run.dialogues was 6 and is now 10" in said
    assert "4 dialogues in" in said
    more = rows(tmp_path)
    assert set(more) == set(range(10))
    assert {index: more[index] for index in first} == first

    code, said = in_process("generate", path, "--set", "engines.ref.profile.history=3")
    assert code == 2
    assert "engines.ref.profile.history was 12 and is now 3" in said
    assert "--fresh" in said
    assert "run.name=tea-2" in said
    assert rows(tmp_path) == more


def test_an_interrupted_run_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    path = str(run_file(tmp_path, dialogues=60, latency=0.1))
    command = Command(("generate", path))
    assert command.says(r"dialogues [1-9]\d*/60"), command.said
    command.interrupt()
    assert command.end() == 130, command.said
    assert "interrupted; what is durable stays" in command.said
    assert "Traceback" not in command.said
    first = rows(tmp_path)
    assert 0 < len(first) < 60
    # The rest at full speed: how fast an engine is may change between two runs.
    code, said = in_process("generate", path, "--set", "engines.ref.faults.latency_s=[0.0, 0.0]")
    assert code == 0, said
    assert f"{60 - len(first)} dialogues in" in said
    whole = rows(tmp_path)
    assert set(whole) == set(range(60))
    assert {index: whole[index] for index in first} == first


def test_failed_dialogues_are_played_again_and_what_is_gone_is_told(tmp_path: Path) -> None:
    path = str(run_file(tmp_path, dialogues=6))
    assert in_process("generate", path)[0] == 0
    first = rows(tmp_path)
    parts = Folder.of(tmp_path / "out" / "tea" / "round-0" / "dialogues")
    for name in part_names(parts):  # 0, 2, 4 and 1, 3, 5
        table = pq.read_table(parts.file(name), schema=dialogue_schema())
        stops = pa.array(
            ["error" if one in (2, 4) else "ended" for one in table["index"].to_pylist()]
        )
        column = table.schema.get_field_index("stop_reason")
        table = table.set_column(column, table.schema.field(column), stops)
        if 1 in table["index"].to_pylist():
            parts.delete(name)
        else:
            write_part(parts, name, table)

    code, said = in_process("generate", path, "--retry-failed")
    assert code == 0, said
    assert "3 dialogues that were there on" in said
    assert "2 dialogues that failed are played again (2 error)" in said
    assert "5 dialogues in" in said
    again = rows(tmp_path)
    assert {row["stop_reason"] for row in again.values()} == {"ended"}
    assert again[0] == first[0]
    assert {index: row["attempt"] for index, row in again.items()} == {
        index: 2 if index in (2, 4) else 1 for index in range(6)
    }
    assert in_process("generate", path, "--retry-failed", "--fresh")[0] == 2


def test_an_engine_that_nobody_answers_for_ends_the_run_before_the_first_dialogue(
    tmp_path: Path,
) -> None:
    path = str(run_file(tmp_path, dialogues=3))
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        settings = ("engines.ref.kind=openai", f"engines.ref.url={url}")
        code, said = duologue("generate", path, *(f"--set={setting}" for setting in settings))
    assert code == 1
    assert f"error: no server answers at {url}" in said
    assert "playing" not in said
    assert "Traceback" not in said
    assert rows(tmp_path) == {}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("run.dialogs=3", "run.dialogs: unknown key; did you mean 'dialogues'?"),
        ("roles.user=reff", "roles.user names the engine 'reff', which is not there; did you mean"),
        ("engines.ref.kind=vlm", "engines.ref.kind: Input should be 'vllm'"),
        ("engines.ref.profile.historie=3", "historie: unknown key; did you mean 'history'?"),
        ("walkers.alive=0", 'walkers.alive: wants a number from 1 to 1,000,000 or "auto"'),
        ("domain.path=kiosc", "is neither a folder with domain.yaml nor a shipped domain"),
        ("run.dialogues", "is not of the form key.path=value"),
    ],
)
def test_bad_input_is_one_message_and_code_2(
    setting: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(run_file(tmp_path, dialogues=3))
    with pytest.raises(SystemExit) as ended:
        main(["generate", path, "--set", setting])
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    assert message in said.err
    assert not (tmp_path / "out").exists()


def test_bad_run_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[run\n")
    strange = tmp_path / "model.toml"
    strange.write_text('[run]\nname="x"\n[engines.model]\nprofil={}\n[engines.run.faults]\nx=1\n')
    for path, messages in (
        (tmp_path / "none.toml", ["there is no such run file"]),
        (broken, ["is not readable as TOML"]),
        (strange, ["domain: Field required", "did you mean 'profile'", "faults.x: unknown key"]),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["generate", str(path)])
        said = capsys.readouterr().err
        assert ended.value.code == 2
        assert all(message in said for message in messages), said
        assert str(path) in said
