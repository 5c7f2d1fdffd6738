"""What `duologue generate` looks at before it starts anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from cluster.budget import Outcome
from cluster.generate import check_parts, generate, open_run_domain
from cluster.rehearsal import rehearse
from specs.errors import DuologueError, InputError
from specs.parts import Folder, write_part
from specs.plan import PlanSource, walk_id_of
from specs.records import Dialogue
from specs.run_file import RunFile, validate
from tests.unit import tiny_domain
from tests.unit.durable_samples import arrow_rows, make_dialogue
from tests.unit.kiosk import kiosk

SOURCE = PlanSource(7)


def own(index: int, source: PlanSource = SOURCE) -> Dialogue:
    return replace(make_dialogue(index), walk_id=walk_id_of(kiosk(), source, index))


def write(folder: Folder, name: str, *dialogues: Dialogue) -> None:
    write_part(folder, name, pa.Table.from_batches([arrow_rows(dialogues)]))


def test_parts_of_another_run_are_refused_all_at_once(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    write(folder, "part-a.parquet", own(0), own(1))
    there, warnings = check_parts(folder, kiosk(), SOURCE)
    assert (set(there), warnings) == ({0, 1}, [])
    write(folder, "part-b.parquet", own(2), own(3, PlanSource(8)))
    write(folder, "part-c.parquet", own(4, PlanSource(7, "single_prompt")))
    with pytest.raises(InputError) as caught:
        check_parts(folder, kiosk(), SOURCE)
    assert [finding.where.file[-14:] for finding in caught.value.findings] == [
        "part-b.parquet",
        "part-c.parquet",
    ]
    assert "dialogue 3 of another run" in str(caught.value)
    (tmp_path / "part-a.parquet").write_bytes(b"PAR1 half")
    with pytest.raises(InputError, match=r"part-a\.parquet.*not a readable"):
        check_parts(folder, kiosk(), SOURCE)


def test_dialogues_that_are_there_twice_are_told(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    write(folder, "part-a.parquet", own(0), own(1))
    write(folder, "part-b.parquet", own(1), own(2))
    _, [warning] = check_parts(folder, kiosk(), SOURCE)
    assert "part-b.parquet: 1 of its dialogues" in warning


def small_run(folder: Path) -> RunFile:
    """Three dialogues of the tiny domain."""
    data = {
        "run": {"name": "r", "dialogues": 3, "out": str(folder / "out")},
        "domain": {"path": str(tiny_domain.write(folder / "kiosk"))},
        "engines": {"e": {"kind": "reference"}},
        "roles": {"user": "e", "agent": "e"},
    }
    return validate(data, "run.toml")


class RayIsStarted(Exception):
    """Raised in place of starting it."""


def test_ray_is_started_for_what_is_owed_or_logged_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def start(address: str | None) -> None:
        raise RayIsStarted

    monkeypatch.setattr("cluster.session.ray_session", start)
    run = small_run(tmp_path)
    with pytest.raises(RayIsStarted):
        generate(run, fresh=False)
    made = Folder.of(tmp_path / "out" / "r" / "round-0")
    played = rehearse(open_run_domain(run), 3, 0, run.run.seed)
    write(made.child("dialogues"), "part-a.parquet", *played[:2])
    with pytest.raises(RayIsStarted):
        generate(run, fresh=False)
    write(made.child("dialogues"), "part-b.parquet", *played[2:])
    capsys.readouterr()
    generate(run, fresh=False)
    said = capsys.readouterr()
    assert "3 of 3 dialogues are there already" in said.err
    assert "3 dialogues (" in said.out
    generate(run, fresh=False, told=True)
    said = capsys.readouterr()
    assert "3 of 3 dialogues are there already" in said.err
    assert not said.out
    made.child("log").create()
    made.child("log").write_bytes("log-000of001-000001-00000000.arrow", b"")
    with pytest.raises(RayIsStarted):
        generate(run, fresh=False)


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_run_of_which_parts_lack_dialogues_has_failed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    interrupted: bool,
) -> None:
    """Its sinks could not close, say: what walkers and ledger take for done is in the log alone."""
    run = small_run(tmp_path)
    played = rehearse(open_run_domain(run), 2, 0, run.run.seed)

    def play(*arguments: object) -> Outcome:
        made = Folder.of(tmp_path / "out" / "r" / "round-0" / "dialogues")
        write(made, "part-a.parquet", *played)
        return Outcome(interrupted)

    monkeypatch.setattr("cluster.generate._play", play)
    expected = KeyboardInterrupt if interrupted else DuologueError
    with pytest.raises(expected) as caught:
        generate(run, fresh=False)
    assert interrupted or "1 of 3 dialogues are not in" in str(caught.value)
    assert "2 dialogues (" in capsys.readouterr().out


def test_filters_that_could_not_curate_are_refused_before_anything_is_played(
    tmp_path: Path,
) -> None:
    filters = [
        {"kind": "threshold", "measure": "persona_rank", "min": 0.5},
        {"kind": "top", "measure": "subgoal_said"},
        {"kind": "none", "share": 0.5},
    ]
    data = {
        "run": {"name": "r", "dialogues": 1, "out": str(tmp_path)},
        "domain": {"path": "tavern"},
        "engines": {"e": {"kind": "reference"}},
        "roles": {"user": "e", "agent": "e"},
        "curate": {"filters": filters},
    }
    with pytest.raises(InputError) as refused:
        generate(validate(data, "run.toml"), fresh=False)
    said = str(refused.value)
    assert all(f"curate.filters[{number}]: error: " in said for number in range(3))
    assert list(tmp_path.iterdir()) == []
