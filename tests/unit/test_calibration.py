"""Thresholds on labelled turns whose right answer is known by their making."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.calibrate import lines
from cluster.cli import main
from specs.errors import InputError
from specs.run_file import Subgoals
from trainer.calibration import Calibration, Likeness, calibrate, likeness
from trainer.labelled import Labelled, read_labelled
from trainer.likeness import PUBLISHED, THRESHOLDS, ByMeaning, ByWords, SubgoalGauge
from trainer.vectors import Vectors

REFERENCES = {"name": ("What is your name?",), "bye": ("Thank you and goodbye.",)}


def turn(dialogue: int, text: str, label: str | None) -> Labelled:
    edited = label is None or text not in REFERENCES[label]
    return Labelled(str(dialogue), text, label, REFERENCES, edited)


def known() -> list[Labelled]:
    """Return dialogues in which half the words name a label, and a quarter names none."""
    found: list[Labelled] = []
    for number in range(40):
        found += [
            turn(number, "What is your name?", "name"),
            turn(number, "And what is your last name please?", "name"),  # ROUGE-L 8/11
            turn(number, "Thank you for that.", None),  # 4/8
            turn(number, "Goodbye.", "name"),  # most like the other's reference: 2/5
        ]
    return found


def figures(turns: list[Labelled]) -> dict[str, Any]:
    return calibrate(turns, {"rouge": likeness(turns, ByWords())}, [PUBLISHED], 0, 100)


def test_the_threshold_lies_between_what_fits_and_what_does_not() -> None:
    found = figures(known())
    for kind in ("all", "edited"):
        assert 4 / 8 < found["measures"]["rouge"][kind]["chosen"]["threshold"] <= 8 / 11
    (published,) = found["measures"]["rouge"]["all"]["asked"]
    assert published["threshold"] == PUBLISHED
    assert published["precision"]["value"] == 2 / 4
    assert published["recall"]["value"] == 2 / 3
    assert published["f1"]["value"] == pytest.approx(2 * 2 / (4 + 3))
    chosen = found["measures"]["rouge"]["edited"]["chosen"]
    assert (chosen["precision"]["value"], chosen["recall"]["value"]) == (1.0, 0.5)
    assert found["better_by"]["rouge at 0.33"]["value"] > 0


def test_a_threshold_is_not_measured_on_what_it_was_chosen_on() -> None:
    found = figures(known())
    assert found["dialogues"] == {"chosen_on": 20, "held_out": 20}
    # In one half 0.5 names a label rightly, in the other it does not: what is chosen on one half
    # fails on the other, whichever it is.
    sides = {name for name, _ in _halves(known())}
    crossed = [
        turn(int(one.dialogue), one.text, "bye" if one.dialogue in sides else None)
        for one in known()
        if one.text == "Thank you for that."
    ]
    crossed += [turn(int(one.dialogue), "Mind the step.", None) for one in crossed]
    worth = figures(crossed)["measures"]["rouge"]["all"]
    assert max(row[3] for row in worth["sweep"]) == 1.0
    assert worth["chosen"]["precision"]["value"] == 0.0


def _halves(turns: list[Labelled]) -> list[tuple[str, bool]]:
    from trainer.calibration import Calibration

    calibration = Calibration(turns, 0, 100)
    pairs = zip(turns, calibration.choosing, strict=True)
    return [(one.dialogue, bool(side)) for one, side in pairs if side]


def test_the_measure_is_chosen_where_the_threshold_is() -> None:
    turns = known()
    choosing = Calibration(turns, 0, 100).choosing
    labelled = np.array([one.label is not None for one in turns])

    def right(where: Any) -> Likeness:
        best = np.where(labelled & where, 1.0, 0.0)
        return Likeness(best, np.where(labelled, best, -1.0))

    measures = {"there": right(~choosing), "here": right(choosing)}
    found = calibrate(turns, measures, [], 0, 100)
    assert found["best"]["measure"] == "here"
    assert found["best"]["f1_where_chosen"] == 1.0
    assert found["better_by"]["there at 0.01"]["value"] == -1.0
    assert not [line for line in lines(found) if "curate.subgoals" in line]


def test_labels_with_the_same_reference_are_one() -> None:
    shared = {"bye": ("Goodbye.",), "leave": ("Goodbye.",)}
    turns = [Labelled(str(n), "Goodbye.", name, shared, False) for n, name in enumerate(shared)]
    like = likeness(turns, ByWords())
    assert like.counts(1.0).tolist() == [[1, 1, 1], [1, 1, 1]]
    assert like.counts(1.01).tolist() == [[0, 0, 1], [0, 0, 1]]


def test_what_is_more_like_a_text_of_no_label_has_none() -> None:
    known = {"name": ("What is your name?",)}
    other = ("What is your age?",)
    said = [("What is your name?", "name"), ("What is your age?", None)]
    plain = [Labelled(str(n), text, label, known, True) for n, (text, label) in enumerate(said)]
    told = [replace(turn, others=other) for turn in plain]
    assert likeness(plain, ByWords()).counts(0.33).tolist() == [[1, 1, 1], [0, 1, 0]]
    assert likeness(told, ByWords()).counts(0.33).tolist() == [[1, 1, 1], [0, 0, 0]]
    assert likeness(told, ByWords()).counts(0.01).tolist() == [[1, 1, 1], [0, 0, 0]]


# -- what tells subgoals


def letters(texts: list[str]) -> Vectors:
    """Embed by the first letter: alike is what begins alike."""
    rows = np.zeros((len(texts), 26), np.float32)
    for row, text in zip(rows, texts, strict=True):
        row[ord(text[0].lower()) - ord("a")] = 1
    return rows


def test_a_subgoal_is_named_by_the_nearest_reference_alone() -> None:
    gauge = SubgoalGauge(Subgoals(threshold=0.2), letters)  # type: ignore[arg-type]
    references = [("name", "What is your name?"), ("age", "What is your age?")]
    assert gauge.named("What is your name, please?", references) == {"name"}
    assert gauge.named("What is your", references) == {"name", "age"}
    assert gauge.named("Sit down.", references) == set()
    assert gauge.named("What?", []) == set()
    others = ["What is your trade?"]
    assert gauge.named("What is your trade?", references) == {"name", "age"}
    assert gauge.named("What is your trade?", references, others) == set()
    assert gauge.named("What is your name?", references, others) == {"name"}
    assert SubgoalGauge(Subgoals(), letters).threshold == THRESHOLDS["rouge"]  # type: ignore[arg-type]


def test_a_subgoal_may_be_named_by_its_meaning() -> None:
    asked: list[str] = []

    def embed(texts: Any) -> Vectors:
        asked.extend(texts)
        return letters(texts)

    gauge = SubgoalGauge(Subgoals(measure="embedding"), embed)
    references = [("name", "What is your name?"), ("bye", "See you.")]
    assert gauge.threshold == THRESHOLDS["embedding"]
    assert gauge.named("Some other time", references) == {"bye"}
    assert gauge.named("Never", references) == set()
    assert len(asked) == len(set(asked)) == 4
    assert list(ByMeaning(embed)("a", ["a", "b"])) == [1.0, 0.0]


# -- files


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "turns.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


GOOD = {"dialogue": 1, "text": "goodbye, thank you", "label": "bye",
        "references": {"bye": ["Thank you, goodbye!"]}}  # fmt: skip


def test_labelled_turns_are_read(tmp_path: Path) -> None:
    rows = [GOOD, {**GOOD, "text": "thank you goodbye"}, {**GOOD, "label": None},
            {**GOOD, "text": "thank you goodbye", "edited": True}]  # fmt: skip
    turns = read_labelled(written(tmp_path, *rows))
    assert [one.edited for one in turns] == [True, False, True, True]
    assert turns[0].references == {"bye": ("Thank you, goodbye!",)}
    assert turns[0].dialogue == "1"


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    path = written(
        tmp_path, "{", GOOD, {**GOOD, "label": "by"}, {**GOOD, "references": {"bye": []}},
        {"text": 3, "references": {}, "lable": None}, [1],
    )  # fmt: skip
    with pytest.raises(InputError) as error:
        read_labelled(path)
    told = [(one.where.line, one.message) for one in error.value.findings]
    assert {line for line, _ in told} == {1, 3, 4, 5, 6}
    assert sum(line == 5 for line, _ in told) == 4
    assert any("'by' has no references" in message for _, message in told)


def run(*arguments: str | Path) -> int:
    try:
        main(["calibrate", *map(str, arguments)])
    except SystemExit as done:
        return int(done.code or 0)
    return 0


def test_bad_input_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for path in (tmp_path / "nothing.jsonl", written(tmp_path, "{"), written(tmp_path, GOOD)):
        assert run(path, "--out", out) == 2
    assert run(written(tmp_path, *({**GOOD, "label": None, "dialogue": n} for n in "ab"))) == 2
    assert not out.exists()
    assert "Traceback" not in capsys.readouterr().err


def test_the_command_says_and_writes_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"dialogue": one.dialogue, "text": one.text, "label": one.label,
         "references": {name: list(texts) for name, texts in one.references.items()}}
        for one in known()
    ]  # fmt: skip
    out = tmp_path / "out"
    assert run(written(tmp_path, *rows), "--out", out, "--embedding", "lexical") == 0
    told = capsys.readouterr().out
    figures = json.loads((out / "calibration.json").read_text())
    assert figures["turns"] == 160
    assert set(figures["measures"]) == {"rouge", "embedding"}
    assert (out / "calibration.png").read_bytes().startswith(b"\x89PNG")
    best = figures["best"]
    assert f'measure = "{best["measure"]}", threshold = {best["threshold"]}' in told


def test_each_half_needs_a_labelled_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for labelled in range(4):
        rows = [
            {**GOOD, "dialogue": n, "label": "bye" if n == labelled else None} for n in range(4)
        ]
        path = written(tmp_path, *rows)
        assert run(path, "--out", out, "--embedding", "lexical") == 2
        assert "no labelled turn (of 1) is in the half" in capsys.readouterr().err
    assert not out.exists()


def test_no_threshold_is_recommended_that_finds_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = {**GOOD, "text": "Mind the step"}
    path = written(tmp_path, *({**lost, "dialogue": n} for n in range(4)))
    assert run(path, "--out", tmp_path / "out", "--embedding", "lexical") == 0
    told = capsys.readouterr()
    assert "no threshold found" in told.out
    assert "in a run file" not in told.out
    steps = ("reading the turns of", "loading the embedder lexical", "comparing 4", "choosing")
    assert [line for line in steps if line not in told.err] == []


def test_an_empty_label_is_a_label(tmp_path: Path) -> None:
    row = {**GOOD, "label": "", "references": {"": ["Goodbye, thank you"]}}
    path = written(tmp_path, *({**row, "dialogue": n} for n in range(4)))
    assert run(path, "--out", tmp_path / "out", "--embedding", "lexical") == 0


def test_a_file_is_no_place_to_write_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, *({**GOOD, "dialogue": n} for n in range(4)))
    assert run(path, "--out", path, "--embedding", "lexical") == 2
    err = " ".join(capsys.readouterr().err.split())
    assert "'--out': Directory" in err
    assert "turns.jsonl' is a file" in err


def test_star_is_read_with_its_replies_filled(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    replies = {"hello": "Hello!", "offer": "Dr. {doctor_name:s} is free at {time:d}."}
    task = {"task": "doctor", "replies": replies, "graph": {"hello": "offer"}}
    (tmp_path / "tasks" / "doctor.json").write_text(json.dumps(task))
    events = [
        {"role": "agent", "text": "Hello!", "action": "hello"},
        {"role": "result", "item": {"DoctorName": "Morgan"}},
        {"role": "agent", "text": "Dr. Alexis is free at 4.", "action": "offer"},
        {"role": "agent", "text": "Morgan has time at four.", "action": "offer"},
        {"role": "agent", "text": "One moment.", "action": None},
        {"role": "agent", "text": "As you like.", "action": "custom"},
        {"role": "agent", "text": "Bye.", "action": "moved"},
    ]
    dialogues = [
        {"id": 7, "task": "doctor", "events": events},
        {"id": 8, "task": "x", "events": events},
    ]
    with gzip.open(tmp_path / "dialogues.jsonl.gz", "wt") as stream:
        stream.write("\n".join(map(json.dumps, dialogues)))
    turns = read_labelled(tmp_path)
    assert [one.label for one in turns] == ["hello", "offer", "offer", None, None]
    assert [one.edited for one in turns] == [False, False, True, True, True]
    assert turns[0].references["offer"] == ("Dr.  is free at .",)
    assert turns[2].references["offer"] == ("Dr. Morgan is free at .",)
    (tmp_path / "dialogues.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match=r"dialogues\.jsonl\.gz: error: cannot be read"):
        read_labelled(tmp_path)
