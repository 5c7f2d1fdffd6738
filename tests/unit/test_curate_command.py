"""The command on rehearsed dialogues of a tiny domain: with all real measures, and no model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from actors.engines.client import EngineClient
from actors.engines.openai_endpoint import OpenAIBackend
from cluster.cli import cli
from cluster.curate import command, curate, lines
from cluster.export import export
from cluster.generate import Made, open_run_domain
from cluster.rating import rater, rating_prompt
from cluster.rehearsal import rehearse
from cluster.run_folder import RunFolder
from cluster.walked_labels import is_run, walked_labels
from cluster.whole_run import make_dialogues
from specs.engine import Answer, Candidate, Failure, Request
from specs.engine_section import EngineSection
from specs.errors import DuologueError, Finding, InputError, Unavailable, Where
from specs.parts import read_dialogues, read_rows, write_part
from specs.records import Dialogue, StopReason, quality_schema
from specs.replay import source_of
from specs.run_file import RunFile, validate
from tests.unit import tiny_domain
from tests.unit.durable_samples import arrow_rows
from trainer.consistency import follow, inconsistencies
from trainer.curated import NothingKept, TooFewKept

PLAYED = 40


def run_file(place: Path, **settings: Any) -> RunFile:
    settings.setdefault("validation", 0.15)
    settings.setdefault("test", 0.15)
    return validate(
        {
            "run": {"name": "tea", "dialogues": PLAYED, "out": str(place / "runs")},
            "domain": {"path": str(place / "kiosk")},
            "engines": {
                "references": {"kind": "reference"},
                "judge": {"kind": "openai", "url": "http://127.0.0.1:9/v1", "model": "m"},
            },
            "roles": {"user": "references", "agent": "references"},
            "retrieval": {"embedding": "lexical"},
            "curate": settings,
        },
        "test",
    )


def spoiled(dialogue: Dialogue) -> Dialogue:
    """Return a dialogue, now and then with what published ones have wrong."""
    *turns, last = dialogue.turns
    if dialogue.index % 8 == 1:
        return replace(dialogue, turns=(*turns, replace(last, text=f"Sure, here is: {last.text}")))
    if dialogue.index % 8 == 2:
        return replace(dialogue, turns=tuple(turns), stop_reason=StopReason.NO_WORDS)
    if dialogue.index % 8 == 3:
        return replace(dialogue, turns=(*turns, replace(last, memory={**last.memory, "page": 7})))
    if dialogue.index % 8 == 4:
        texts = tuple(replace(turn, source="model", rejected=("Eh?",)) for turn in turns)
        return replace(dialogue, turns=(*texts, last))
    return dialogue


@pytest.fixture
def played(tmp_path: Path) -> Path:
    tiny_domain.write(tmp_path / "kiosk")
    run = run_file(tmp_path)
    domain = open_run_domain(run)
    folder = RunFolder.of(run)
    with folder:
        folder.open(run, domain)
        dialogues = [spoiled(one) for one in rehearse(domain, PLAYED, 0, 0)]
        for start in (0, PLAYED // 2):
            rows = arrow_rows(dialogues[start : start + PLAYED // 2])
            write_part(folder.dialogues(), f"part-{start}.parquet", pa.Table.from_batches([rows]))
    return tmp_path


def round_of(place: Path) -> Path:
    return place / "runs" / "tea" / "round-0"


def quiet(text: str) -> None:
    pass


def test_after_curation_nothing_is_inconsistent(played: Path) -> None:
    run = run_file(played)
    curated = curate(run, False, quiet)
    before, after = curated.summary["findings"]["before"], curated.summary["findings"]["after"]
    assert {"list_opening", "not_ended", "off_path"} <= set(before)
    assert after == {}

    domain = open_run_domain(run)
    folder = RunFolder.of(run)
    dialogues = {one.walk_id: one for one in read_dialogues(folder.dialogues())}
    rows = [
        row
        for side in ("train", "validation", "test")
        for row in pq.read_table(round_of(played) / "curated" / f"{side}.parquet").to_pylist()
    ]
    assert len(rows) == curated.kept < PLAYED
    for row in rows:
        dialogue = dialogues[row["walk_id"]]
        assert inconsistencies(follow(dialogue, domain, source_of(dialogue, run.run.seed))) == []
        assert any(message["train"] for message in row["messages"])

    quality = list(read_rows(folder.round().child("quality"), quality_schema(["inconsistencies"])))
    assert len(quality) == PLAYED
    kept = {row["walk_id"] for row in quality if row["kept"]}
    assert kept == {row["walk_id"] for row in rows}
    assert all(bool(row["inconsistencies"]) == bool(row["findings"]) for row in quality)
    sides: dict[str, set[str]] = {}
    for row in quality:
        if row["kept"]:
            sides.setdefault(row["document"], set()).add(row["split"])
    assert Counter(map(len, sides.values())) == {1: len(sides)}
    pairs = pq.read_table(round_of(played) / "curated" / "preference.parquet").to_pylist()
    assert pairs
    assert all(pair["rejected"].endswith("Eh?") for pair in pairs)


def test_the_same_again_does_nothing_and_fresh_does(played: Path) -> None:
    run = run_file(played)
    said: list[str] = []
    assert not curate(run, False, said.append).again
    stamp = (round_of(played) / "curated" / "train.parquet").stat().st_mtime_ns
    said.clear()
    assert curate(run, False, said.append).again
    assert "curated already" in said[0]
    assert (round_of(played) / "curated" / "train.parquet").stat().st_mtime_ns == stamp
    assert not curate(run, True, said.append).again


def test_parts_measured_side_by_side_give_the_same(
    played: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_file(played)
    first = curate(run, True, quiet).summary
    monkeypatch.setattr("cluster.curate.SMALL_BYTES", 0)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    second = curate(run, True, quiet).summary
    different = {key for key in first if first[key] != second[key]}
    assert different <= {"made"}


def test_the_command_prints_and_the_export_follows(
    played: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_file(played, kept=39)
    command(run, False)
    shown = capsys.readouterr().out
    for words in ("filter: consistent", "list_opening", "no filter", "39 were to be kept"):
        assert words in shown
    export(str(played / "runs" / "tea"), (), "trl", str(played / "out"))
    assert "train.jsonl" in capsys.readouterr().out
    first = json.loads((played / "out" / "train.jsonl").read_text().splitlines()[0])
    assert first["messages"][0]["role"] == "system"


def test_more_is_played_where_what_is_kept_cannot_be_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_file(tmp_path, kept=20, budget=5)
    run = run.model_copy(update={"run": run.run.model_copy(update={"dialogues": 8})})
    asked: list[int] = []

    def generate(run: RunFile, fresh: bool, **_: Any) -> Made:
        asked.append(run.run.dialogues)
        return Made(True, asked[-1], 0.1)

    def curate(run: RunFile, fresh: bool, say: Any) -> Any:
        if len(asked) == 1:
            raise TooFewKept([Finding(Where("curate"), "too few")], {"played": 8, "kept": 2})
        return SimpleNamespace(played=asked[-1], kept=20)

    monkeypatch.setattr("cluster.whole_run.generate", generate)
    monkeypatch.setattr("cluster.whole_run.curate", curate)
    assert make_dialogues(run, False, quiet).kept == 20
    assert asked == [8, 40]


def test_what_cannot_be_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    tiny_domain.write(tmp_path / "kiosk")
    with pytest.raises(InputError, match=r"did you mean 'groundedness'"):
        curate(
            run_file(
                tmp_path, filters=[{"kind": "threshold", "measure": "groundednes", "min": 0.5}]
            ),
            False,
            quiet,
        )
    with pytest.raises(InputError, match=r"'juge', which is not there; did you mean 'judge'"):
        curate(run_file(tmp_path, judge="juge"), False, quiet)
    with pytest.raises(InputError, match="cannot rate anything"):
        curate(run_file(tmp_path, judge="references"), False, quiet)
    with pytest.raises(InputError, match="there is no run here"):
        curate(run_file(tmp_path), False, quiet)
    run = run_file(tmp_path)
    with RunFolder.of(run) as folder:
        folder.open(run, open_run_domain(run))
    with pytest.raises(InputError, match="no finished dialogues"):
        curate(run, False, quiet)


def test_all_filtered_out(played: Path) -> None:
    rules = [{"kind": "ended"}, {"kind": "threshold", "measure": "turns", "min": 1000}]
    with pytest.raises(NothingKept, match=r"ended 5, 1000 <= turns 35; nothing was written"):
        curate(run_file(played, filters=rules), False, quiet)
    assert not list(round_of(played).glob("*/*.json"))


def test_the_domain_must_be_what_it_was(played: Path) -> None:
    copy = played / "runs" / "tea" / "domain" / "domain.yaml"
    copy.write_text(copy.read_text().replace("Greet the guest.", "Greet."))
    with pytest.raises(DuologueError, match="not what it was"):
        curate(run_file(played), False, quiet)


def test_bad_input_ends_the_command_with_two(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        f'[run]\nname = "x"\nout = "{tmp_path}"\n[domain]\npath = "recipe"\n'
        '[engines.a]\nkind = "reference"\n[roles]\nuser = "a"\nagent = "a"\n'
    )
    result = CliRunner().invoke(cli, ["curate", str(file)])
    assert isinstance(result.exception, InputError)
    result = CliRunner().invoke(cli, ["export", str(file), "--to", "trl", "--out", "o"])
    assert isinstance(result.exception, InputError)


def test_a_judge_rates_whole_dialogues(played: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "m"}]})
        transcript = json.loads(request.content)["messages"][1]["content"]
        asked.append(transcript)
        rating = "2" if len(transcript) % 2 else "5"
        content = "so so" if len(transcript) % 7 == 0 else f'{{"rating": {rating}}}'
        choice = {"message": {"content": content}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1}
        return httpx.Response(200, json={"choices": [choice], "usage": usage})

    def backend(config: EngineSection, name: str, adapter: str = "") -> OpenAIBackend:
        return OpenAIBackend(config, name, httpx.MockTransport(handler))

    monkeypatch.setattr("cluster.single_engine.make_backend", backend)
    rules = [{"kind": "judge", "min": 3}]
    run = run_file(played, filters=rules, judge="judge")
    with rater(run) as rate:
        assert rate is not None
        assert rate(["x" * 3, "x" * 4, "x" * 7, "x" * 4]) == [2.0, 5.0, None, 5.0]
    assert len(asked) == 3  # dialogues may come out alike
    asked.clear()
    curated = curate(run, False, quiet)
    assert PLAYED - 5 < len(asked) == len(set(asked)) <= PLAYED
    assert asked[0].startswith("agent: ")
    assert 0 < curated.kept < PLAYED
    assert curated.summary["measures"]["after"]["judge"] == 5.0
    assert any("judge" in line for line in lines(curated.summary, run.curate))


def failing(monkeypatch: pytest.MonkeyPatch, kind: str, good: int) -> None:
    """Have the judge rate as many transcripts, and fail behind them."""
    asked = count()

    async def ask(self: EngineClient, request: Request, dialogue: Hashable) -> Answer:
        if next(asked) < good:
            return Answer(request.id, (Candidate('{"rating": 5}', "stop", 1),))
        return Answer(request.id, failure=Failure(kind, "no luck"))  # type: ignore[arg-type]

    def backend(config: EngineSection, name: str, adapter: str = "") -> OpenAIBackend:
        models = httpx.Response(200, json={"data": [{"id": "m"}]})
        return OpenAIBackend(config, name, httpx.MockTransport(lambda request: models))

    monkeypatch.setattr("cluster.single_engine.make_backend", backend)
    monkeypatch.setattr(EngineClient, "ask", ask)


@pytest.mark.parametrize(("kind", "good"), [("unavailable", 0), ("deadline", 5)])
def test_a_judge_that_does_not_answer_drops_no_dialogue(
    played: Path, monkeypatch: pytest.MonkeyPatch, kind: str, good: int
) -> None:
    failing(monkeypatch, kind, good)
    run = run_file(played, filters=[{"kind": "judge", "min": 3}], judge="judge")
    with pytest.raises(Unavailable, match=r"judge m does not answer: no luck; nothing.*again"):
        curate(run, False, quiet)
    assert not list(round_of(played).glob("curated/*"))


def test_what_a_judge_refuses_has_no_rating(played: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, "refused", 5)
    run = run_file(played, filters=[{"kind": "judge", "min": 3}], judge="judge")
    assert curate(run, False, quiet).kept == 5


def test_of_a_long_dialogue_the_judge_sees_the_end() -> None:
    prompt = rating_prompt("start " + "x" * 5000 + " end", 1024)
    shown = prompt.messages[1].content
    assert len(shown) < 1500
    assert shown.startswith("[...]")
    assert shown.endswith(" end")


def test_subgoals_may_be_found_by_embeddings(played: Path) -> None:
    def said(**subgoals: Any) -> float:
        run = run_file(played, filters=[{"kind": "none"}], subgoals=subgoals)
        return float(curate(run, False, quiet).summary["measures"]["before"]["subgoals_said"])

    # The model's turns here are the references themselves: any measure finds them at first.
    assert said() == said(measure="embedding") > 0
    everything = said(measure="embedding", threshold=0.01)
    assert everything >= said(measure="embedding", threshold=1.0)


def test_published_filters_stand_in_the_printed_frontier(played: Path) -> None:
    published = [
        {"kind": "none"},
        {"kind": "random", "share": 0.9},
        {"kind": "threshold", "measure": "subgoals_said", "min": 1},
        {"kind": "top", "measure": "subgoals_said_relative", "share": 0.9},
        {"kind": "ended"},
    ]
    run = run_file(played, filters=published)
    told = "\n".join(lines(curate(run, False, quiet).summary, run.curate))
    names = ("none", "random 90%", "1 <= subgoals_said", "top 90% by subgoals_said_relative")
    assert all(f"\n{name} " in told for name in (*names, "ended"))
    with pytest.raises(InputError, match="persona_rank"):
        curate(run_file(played, filters=[{"kind": "top", "measure": "persona_rank", "share": 0.5}]),
               False, quiet)  # fmt: skip


def test_a_runs_own_turns_are_labelled_by_their_states(played: Path) -> None:
    folder = played / "runs" / "tea"
    assert is_run(folder)
    assert not is_run(played)
    domain = open_run_domain(run_file(played))
    turns = walked_labels(folder)
    assert {one.label for one in turns} <= {*domain.subgoals, None}
    assert len({one.label for one in turns}) > 1
    for one in turns:  # the model said there what a reference says
        assert one.label is None or one.text in one.references[one.label]
    clicked = CliRunner().invoke(
        cli, ["calibrate", str(folder), "--out", str(played / "out"), "--embedding", "lexical"]
    )
    assert clicked.exit_code == 0
    assert "edited" in clicked.output
    assert json.loads((played / "out" / "calibration.json").read_text())["turns"] == len(turns)
