from __future__ import annotations

import errno
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from specs.agent_format import ChatMessage
from specs.errors import DuologueError, InputError
from specs.parts import Folder, read_rows, write_part
from specs.records import Dialogue, StopReason, curated_schema, dialogue_schema, quality_schema
from specs.run_file import CurateSection, Filter, RunFile, validate
from tests.unit.durable_samples import arrow_rows, faulty_folder, make_dialogue
from trainer.curated import Curated, NothingKept, Task, TooFewKept, existing, further
from trainer.curation import curate
from trainer.duplicates import Sketch
from trainer.measured import Instruments
from trainer.measuring import Examined, Gauges
from trainer.vectors import VectorFile, Vectors, chunks, embedded

RULES = (Filter(kind="ended"), Filter(kind="consistent"))


@dataclass(frozen=True)
class Oddity:
    kind: str
    turn: int = -1
    detail: str = "odd"


@dataclass
class Words:
    texts: list[str] = field(default_factory=list)

    def add(self, texts: Sequence[str], vector: Vectors | None = None) -> None:
        self.texts += texts

    def result(self) -> Mapping[str, float | None]:
        return {"utterances": float(len(self.texts))}


@dataclass
class SameText:
    seen: dict[bytes, str] = field(default_factory=dict)

    def add(self, walk_id: str, sketch: Sketch, vector: Vectors | None = None) -> str | None:
        earlier = self.seen.setdefault(sketch.shingles.tobytes(), walk_id)
        return None if earlier == walk_id else f"like {earlier}"


def examine(dialogue: Dialogue) -> Examined:
    odd = [Oddity("off_path", 1)] * 2 if dialogue.goal == "odd" else []
    measures = {"turns": float(len(dialogue.turns)), "worth": dialogue.index / 10}
    return Examined(odd, measures, lambda: said(dialogue))


def said(dialogue: Dialogue) -> list[ChatMessage]:
    if dialogue.goal == "lost":
        raise DuologueError("it cannot be followed")
    roles = {"user": "user", "agent": "assistant"}
    return [
        ChatMessage("system", "s"),
        *(ChatMessage(roles[t.role], t.text, t.role == "agent") for t in dialogue.turns),  # type: ignore[arg-type]
    ]


def tools(**more: Any) -> Instruments:
    gauges = Gauges(("turns", "worth"), examine)
    return Instruments(gauges, Words, lambda rule: SameText(), {"domain": "recipe"}, **more)


def write(folder: Folder, name: str, *dialogues: Dialogue) -> None:
    folder.create()
    write_part(folder, name, pa.Table.from_batches([arrow_rows(dialogues)]))


def made(number: int, **changes: Any) -> Dialogue:
    changes.setdefault("doc_ids", (f"d{number % 8}", "d1"))
    return make_dialogue(number, **changes)


def task(place: Path | Folder, **settings: Any) -> Task:
    folder = place if isinstance(place, Folder) else Folder.of(place)
    settings.setdefault("filters", RULES)
    return Task(folder, CurateSection(**settings), 30, {"run": "demo"}, ("digest",))


def play(place: Path) -> list[Dialogue]:
    dialogues = [made(number) for number in range(20)]
    dialogues[3] = made(3, stop_reason=StopReason.TURN_LIMIT, goal="odd")
    dialogues[4] = made(4, goal="odd")
    dialogues[5] = made(5, goal="lost")
    folder = Folder.of(place).child("dialogues")
    write(folder, "part-a.parquet", *dialogues[:12])
    write(folder, "part-b.parquet", *dialogues[12:])
    return dialogues


def quiet(text: str) -> None:
    pass


def rows(curated: Curated, side: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(
        curated.folder.file(f"{side}.parquet"), schema=curated_schema()
    ).to_pylist()
    return found


def everything(place: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file() and path.parent.name != "dialogues"
    }


def test_what_is_kept_becomes_examples_and_every_dialogue_a_row(tmp_path: Path) -> None:
    dialogues = play(tmp_path)
    curated = curate(task(tmp_path, validation=0.125, test=0.25), tools(), quiet)
    summary = curated.summary
    assert [(step["name"], step["count"]) for step in summary["funnel"][:7]] == [
        ("planned", 30), ("played", 20), ("ended", 19), ("filter: ended", 19),
        ("filter: consistent", 18), ("filter: training example", 17), ("kept", 17),
    ]  # fmt: skip
    assert summary["findings"] == {"before": {"off_path": 2}, "after": {}}
    assert summary["corpus"] == {"before": {"utterances": 80.0}, "after": {"utterances": 68.0}}
    assert summary["measures"]["before"]["worth"] == pytest.approx(0.95)
    assert (curated.played, curated.kept) == (20, 17)

    sides = {side: rows(curated, side) for side in ("train", "validation", "test")}
    documents = {side: {row["doc_ids"][0] for row in its} for side, its in sides.items()}
    assert {side: len(its) for side, its in documents.items()} == {
        "train": 5, "validation": 1, "test": 2,
    }  # fmt: skip
    assert set(summary["splits"]["test"]["document_ids"]) == documents["test"]
    assert not documents["train"] & documents["test"]
    kept = {row["walk_id"]: row for its in sides.values() for row in its}
    assert sorted(kept) == sorted(d.walk_id for d in dialogues if d.index not in (3, 4, 5))
    assert kept["walk-0"]["messages"][2] == {
        "role": "assistant", "content": "utterance 1", "train": True,
    }  # fmt: skip

    quality = list(read_rows(curated.folder.child("..", "quality"), quality_schema(["worth"])))
    assert [row["index"] for row in quality] == list(range(20))
    assert [row["worth"] for row in quality[:2]] == [0.0, 0.1]
    assert [row["kept"] for row in quality].count(True) == 17
    assert quality[3]["verdicts"] == [
        {"filter": "ended", "kept": False, "reason": "stopped: turn_limit"},
        {"filter": "consistent", "kept": False, "reason": "off_path (2 times)"},
        {"filter": "training example", "kept": None, "reason": "dropped before"},
    ]
    assert quality[5]["verdicts"][2]["reason"] == "it cannot be followed"
    assert quality[4]["findings"][0] == {"kind": "off_path", "turn": 1, "detail": "odd"}
    assert {row["split"] for row in quality if row["kept"]} == {"train", "validation", "test"}
    metadata = pq.read_schema(curated.folder.file("train.parquet")).metadata
    assert json.loads(metadata[b"duologue.agent"]) == {"domain": "recipe"}
    assert not list(tmp_path.rglob("_*"))


def test_training_dialogues_that_show_a_test_document_are_counted(tmp_path: Path) -> None:
    # Each is about one document, and a search shows the next.
    dialogues = [made(n, doc_ids=(f"d{n % 8}", f"d{(n + 1) % 8}")) for n in range(16)]
    write(Folder.of(tmp_path).child("dialogues"), "part-a.parquet", *dialogues)
    summary = curate(task(tmp_path, validation=0.125, test=0.25), tools(), quiet).summary
    splits = summary["splits"]
    tested, validated = (set(splits[side]["document_ids"]) for side in ("test", "validation"))
    showing = [
        one for one in dialogues
        if one.doc_ids[0] not in tested | validated and one.doc_ids[1] in tested
    ]  # fmt: skip
    assert splits["train"]["rows_showing_test_documents"] == len(showing) > 0
    assert len(showing) < splits["train"]["rows"]
    assert "rows_showing_test_documents" not in splits["test"]


def test_pairs_come_from_the_train_side_alone(tmp_path: Path) -> None:
    play(tmp_path)
    curated = curate(task(tmp_path), tools(), quiet)
    pairs = pq.read_table(curated.folder.file("preference.parquet")).to_pylist()
    train = {row["walk_id"] for row in rows(curated, "train")}
    assert {pair["walk_id"] for pair in pairs} == train
    assert len(pairs) == 2 * len(train) == curated.summary["preference"]["rows"]
    assert (pairs[0]["chosen"], pairs[0]["rejected"]) == ("utterance 1", "no")
    assert [message["role"] for message in pairs[0]["prompt"]] == ["system", "user"]


def test_the_same_again_is_known_and_anything_else_is_not(tmp_path: Path) -> None:
    play(tmp_path)
    first = task(tmp_path)
    assert existing(first) is None
    made_ = curate(first, tools(), quiet)
    again = existing(first)
    assert again is not None
    assert again.again
    assert again.summary == json.loads(json.dumps(made_.summary))
    assert existing(task(tmp_path, kept=5)) is not None  # asks for more, judges none otherwise
    assert existing(task(tmp_path, test=0.3)) is None
    assert existing(replace(first, made_from=("other digest",))) is None
    (tmp_path / "curated" / "test.parquet").write_bytes(b"half")
    assert existing(first) is None
    curate(first, tools(), quiet)
    write(first.dialogues, "part-c.parquet", made(99))
    assert existing(first) is None


def test_near_duplicates_ratings_and_vectors(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path).child("dialogues")
    texts = ["one", "two", "one", "three", "two", "four"]
    dialogues = [
        replace(made(n), turns=tuple(replace(t, text=f"{text} {t.index}") for t in made(n).turns))
        for n, text in enumerate(texts)
    ]
    write(folder, "part-a.parquet", *dialogues)

    def embed(pieces: Sequence[str]) -> Vectors:
        return np.array([[len(piece), 1.0] for piece in pieces], dtype=np.float32)

    def rate(transcripts: Sequence[str]) -> list[float | None]:
        return [None if "four" in text else 5.0 - ("two" in text) for text in transcripts]

    rules = (Filter(kind="near_duplicates"), Filter(kind="judge", min=4.5))
    one = task(tmp_path, filters=rules, judge="writer", validation=0.0, test=0.0)
    curated = curate(one, tools(embed=embed, rate=rate), quiet)
    assert [row["walk_id"] for row in rows(curated, "train")] == ["walk-0", "walk-3"]
    quality = list(read_rows(one.quality, quality_schema(["judge"])))
    assert [row["judge"] for row in quality] == [5, 4, 5, 5, 4, None]
    assert quality[2]["verdicts"][0]["reason"] == "like walk-0"
    assert quality[5]["verdicts"][1]["reason"] == "judge has no value"
    frontier = [(row["name"], row["kept"]) for row in curated.summary["frontier"]]
    assert frontier == [
        ("no filter", 6), ("near duplicates", 4), ("4.5 <= judge", 3), ("all filters", 2),
    ]  # fmt: skip


def test_all_filtered_out_names_the_filters_and_leaves_what_was_there(tmp_path: Path) -> None:
    play(tmp_path)
    curate(task(tmp_path), tools(), quiet)
    before = everything(tmp_path)
    rules = (*RULES, Filter(kind="threshold", measure="worth", min=99))
    with pytest.raises(
        NothingKept,
        match="all 20 dialogues were filtered out: ended 1, consistent 1, 99 <= worth 18",
    ) as caught:
        curate(task(tmp_path, filters=rules), tools(), quiet)
    assert caught.value.played == 20
    assert everything(tmp_path) == before


def test_what_is_left_and_cannot_be_split_says_how_much_it_is(tmp_path: Path) -> None:
    play(tmp_path)
    rules = (Filter(kind="random", share=0.1),)
    with pytest.raises(TooFewKept, match="cannot stand on 3 sides of a split") as caught:
        curate(task(tmp_path, filters=rules, validation=0.1, test=0.1), tools(), quiet)
    assert (caught.value.played, caught.value.kept) == (20, 2)
    again = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(again, TooFewKept)
    assert again.kept == 2


def test_no_dialogues_and_settings_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished dialogues"):
        curate(task(tmp_path), tools(), quiet)
    rules = (Filter(kind="top", measure="wort", share=0.5), Filter(kind="random"))
    with pytest.raises(InputError) as caught:
        curate(task(tmp_path, filters=rules, validation=0.5, test=0.6), tools(), quiet)
    assert len(caught.value.findings) == 3
    assert everything(tmp_path) == {}


def test_a_half_copied_part_and_another_schema_are_refused_by_name(tmp_path: Path) -> None:
    play(tmp_path)
    curate(task(tmp_path), tools(), quiet)
    before = everything(tmp_path)
    part = tmp_path / "dialogues" / "part-b.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"part-b.parquet.*truncated"):
        curate(task(tmp_path), tools(), quiet)
    metadata = {**dialogue_schema().metadata, b"duologue.schema_version": b"0"}
    table = pa.Table.from_batches([arrow_rows([made(1)])])
    pq.write_table(table.replace_schema_metadata(metadata), part)
    with pytest.raises(InputError, match=r"part-b.parquet.*schema version 0"):
        curate(task(tmp_path), tools(), quiet)
    (tmp_path / "dialogues" / "part-a.parquet").write_bytes(whole[:40])
    with pytest.raises(InputError) as caught:
        curate(task(tmp_path), tools(), quiet)
    assert len(caught.value.findings) == 2  # all that is wrong, at once
    assert everything(tmp_path) == before


@pytest.mark.parametrize("full", ["_measured-", "_test.parquet", "quality/_part-00001", "summary"])
def test_a_disk_that_fills_leaves_what_was_there(tmp_path: Path, full: str) -> None:
    play(tmp_path)
    curate(task(tmp_path), tools(), quiet)
    before = everything(tmp_path)

    def fault(step: str, path: str) -> None:
        if step == "open" and full in path:
            raise OSError(errno.ENOSPC, "No space left on device")

    other = task(faulty_folder(tmp_path, fault), filters=RULES[:1])
    with pytest.raises(DuologueError, match="disk is full"):
        curate(other, tools(), quiet)
    if full == "summary":  # everything else was written: it is not taken for whole, and made anew
        assert existing(other) is None
        curate(task(tmp_path, filters=RULES[:1]), tools(), quiet)
        assert existing(task(tmp_path, filters=RULES[:1])) is not None
    else:
        assert everything(tmp_path) == before


def test_how_many_more_to_play() -> None:
    def run(kept: int | None, budget: float = 3.0) -> RunFile:
        return validate(
            {
                "run": {"name": "r", "dialogues": 100},
                "domain": {"path": "recipe"},
                "engines": {"a": {"kind": "reference"}},
                "roles": {"user": "a", "agent": "a"},
                "curate": {"budget": budget} | ({} if kept is None else {"kept": kept}),
            },
            "test",
        )

    assert further(run(None), 100, 10) is None
    assert further(run(80), 100, 80) is None
    assert further(run(80), 100, 50) == 66  # 30 more at one in two, and a tenth
    assert further(run(80), 100, 1) == 200  # what the budget leaves
    assert further(run(80), 300, 50) is None
    assert further(run(80), 100, 0) == 100
    assert further(run(80), 290, 79) == 5


def test_all_of_a_long_text_counts_in_its_vector() -> None:
    assert chunks("ab\ncd\n" + "x" * 7, 6) == ["ab\ncd", "xxxxxx", "x"]
    assert chunks("") == [""]

    def embed(pieces: Sequence[str]) -> Vectors:
        return np.array([[1.0, 0.0] if "a" in p else [0.0, 1.0] for p in pieces], dtype=np.float32)

    first, second = embedded(embed, ["a" * 900 + "\n" + "b" * 900, "a"])
    assert first.tolist() == pytest.approx([0.5**0.5, 0.5**0.5])
    assert second.tolist() == [1.0, 0.0]


def test_vectors_come_back_by_number() -> None:
    with VectorFile() as file:
        file.add([3, 5], np.array([[1, 2], [3, 4]], dtype=np.float32))
        assert file.get(4) is None
        assert [None if v is None else v.tolist() for v in (file.get(5), file.get(3))] == [
            [3, 4], [1, 2],
        ]  # fmt: skip
        file.add([6], np.array([[5, 6]], dtype=np.float32))
        last = file.get(6)
        assert last is not None
        assert last.tolist() == [5, 6]
