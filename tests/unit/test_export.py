from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.export import write
from specs.errors import DuologueError, InputError
from specs.parts import Folder
from specs.records import curated_schema, preference_schema
from specs.row_writer import RowWriter
from tests.unit.durable_samples import faulty_folder
from trainer.export import FORMS, Form, example, pair, plain

CHAT = [
    {"role": "system", "content": "s", "train": False},
    {"role": "assistant", "content": "你好。", "train": True},
    {"role": "user", "content": "Mint?", "train": False},
    {"role": "assistant", "content": '{"intent":"ask"}', "train": True},
    {"role": "tool", "content": '{"results":[]}', "train": False},
    {"role": "assistant", "content": "None left.", "train": True},
]
PAIR = {
    "walk_id": "w", "turn": 3, "chosen": "None left.", "rejected": "Sure, here is:",
    "prompt": [{k: m[k] for k in ("role", "content")} for m in CHAT[:5]],
}  # fmt: skip
SUMMARY = {
    "format": "duologue-curated", "curation": "c" * 64, "run": "demo", "domain": 'a: "b"',
    "policy": "walk", "funnel": [{"name": "played", "count": 9}],
    "measures": {"before": {"turns": 6.0, "groundedness": None}, "after": {"turns": 6.5}},
    "corpus": {"before": {"distinct_2": 0.25}, "after": {"distinct_2": 0.5}},
    "findings": {"before": {"repeats": 3}, "after": {}},
    "splits": {"train": {"rows": 3, "rows_showing_test_documents": 2}},
}  # fmt: skip


def curated(place: Path, validation: int = 0) -> Folder:
    folder = Folder.of(place)
    folder.create()
    row = {"walk_id": "w", "messages": CHAT, "path": [], "doc_ids": ["d"]}
    rows: dict[str, list[dict[str, Any]]] = {
        "train": [row] * 3, "validation": [row] * validation, "test": [row], "preference": [PAIR],
    }  # fmt: skip
    for name, its in rows.items():
        schema = preference_schema() if name == "preference" else curated_schema()
        with RowWriter(folder, f"{name}.parquet", schema) as writer:
            for one in its:
                writer.add(one)
            writer.publish()
    folder.write_bytes("summary.json", json.dumps(SUMMARY).encode())
    return folder


def read(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines()]


def test_roles_take_turns_and_the_user_begins() -> None:
    found = plain(CHAT)
    assert [message["role"] for message in found] == [
        "system", "user", "assistant", "user", "assistant", "user", "assistant",
    ]  # fmt: skip
    assert found[1]["content"] == "(The conversation starts.)"
    assert found[5]["content"] == 'Results: {"results":[]}'
    twice = [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]
    assert plain(twice) == [{"role": "user", "content": "a\nResults: b"}]


def test_the_forms() -> None:
    row = {"messages": CHAT}
    assert example("trl", row) == example("openai", row) == {"messages": plain(CHAT)}
    gpt = example("sharegpt", row)["conversations"]
    assert [message["from"] for message in gpt[:4]] == ["system", "human", "gpt", "human"]
    assert gpt[2]["value"] == "你好。"


def test_the_forms_of_pairs() -> None:
    chosen = {"role": "assistant", "content": "None left."}
    trl = pair("trl", PAIR)
    assert trl["chosen"] == [chosen]
    assert trl["prompt"][-1] == {"role": "user", "content": 'Results: {"results":[]}'}
    openai = pair("openai", PAIR)
    assert (openai["input"]["messages"], openai["preferred_output"]) == (trl["prompt"], [chosen])
    gpt = pair("sharegpt", PAIR)
    assert gpt["rejected"] == {"from": "gpt", "value": "Sure, here is:"}
    opening = {**PAIR, "prompt": PAIR["prompt"][:1]}  # type: ignore[index]
    assert pair("trl", opening)["prompt"][-1]["content"] == "(The conversation starts.)"


@pytest.mark.parametrize("form", FORMS)
def test_an_export_is_files_and_a_card(tmp_path: Path, form: Form) -> None:
    source = curated(tmp_path / "curated")
    out = tmp_path / "out"
    assert write(source, form, Folder.of(out)) == {"train": 3, "test": 1, "preference": 1}
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "preference.jsonl", "test.jsonl", "train.jsonl",
    ]  # fmt: skip
    assert read(out / "train.jsonl") == [example(form, {"messages": CHAT})] * 3
    assert "你好" in (out / "train.jsonl").read_text(encoding="utf-8")
    _, front, text = (out / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    head = yaml.safe_load(front)
    assert (head["license"], head["license_name"]) == ("other", "unknown")
    assert head["configs"][0]["data_files"] == [
        {"split": "train", "path": "train.jsonl"}, {"split": "test", "path": "test.jsonl"},
    ]  # fmt: skip
    assert "| turns | 6.5 | 6 |" in text
    assert "| repeats | 0 | 3 |" in text
    assert "| test.jsonl | 1 |" in text
    assert "2 of the 3 training dialogues show one that a test dialogue is about" in text


def test_an_export_is_replaced_and_anything_else_is_not(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(curated(tmp_path / "a", validation=2), "trl", Folder.of(out))
    write(curated(tmp_path / "b"), "openai", Folder.of(out))
    assert not (out / "validation.jsonl").exists()  # the new one has none
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "train.jsonl").write_text("mine")
    with pytest.raises(InputError, match=r"holds something else \(train.jsonl\)"):
        write(curated(tmp_path / "c"), "trl", Folder.of(foreign))
    assert (foreign / "train.jsonl").read_text() == "mine"
    with pytest.raises(InputError, match=r"(?s)train.jsonl: error: is no folder.*\(--out\)"):
        write(curated(tmp_path / "d"), "trl", Folder.of(foreign / "train.jsonl"))


def test_a_full_disk_leaves_the_old_export(tmp_path: Path) -> None:
    source, out = curated(tmp_path / "a"), tmp_path / "out"
    write(source, "trl", Folder.of(out))
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fault(step: str, path: str) -> None:
        if step == "open" and "preference" in path:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DuologueError, match="disk is full"):
        write(source, "openai", faulty_folder(out, fault))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_what_is_not_whole_is_refused(tmp_path: Path) -> None:
    source = curated(tmp_path / "a")
    (tmp_path / "a" / "test.parquet").unlink()
    with pytest.raises(InputError, match=r"test.parquet: error: is missing"):
        write(source, "trl", Folder.of(tmp_path / "out"))
    (tmp_path / "a" / "summary.json").write_text("{}")
    with pytest.raises(InputError, match="is not Duologue's"):
        write(source, "trl", Folder.of(tmp_path / "out"))
