"""What `duologue generate` looks at before it starts anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from cluster.generate import check_parts, generate
from specs.errors import InputError
from specs.parts import Folder, write_part
from specs.plan import PlanSource, walk_id_of
from specs.records import Dialogue
from specs.run_file import validate
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
    assert check_parts(folder, kiosk(), SOURCE) == []
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
    [warning] = check_parts(folder, kiosk(), SOURCE)
    assert "part-b.parquet: 1 of its dialogues" in warning


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
