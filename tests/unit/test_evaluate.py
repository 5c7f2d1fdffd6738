"""`duologue evaluate` on a small curated run, with engines that answer as a test says."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cluster.evaluate as evaluation
from cluster import evaluation_plan, whole_run
from cluster import train as training
from cluster.cli import main
from cluster.evaluate import Evaluated, evaluate
from cluster.generate import Made
from cluster.held_out import identity
from cluster.rehearsal import rehearse
from specs.agent_chat import agent_card, agent_messages
from specs.agent_format import ChatMessage
from specs.engine import Answer, Candidate, EngineInfo, Failure, Request
from specs.engine_section import EngineSection
from specs.errors import EngineError, InputError, Unavailable
from specs.parts import Folder
from specs.plan import PlanSource
from specs.records import SCHEMA_VERSION, curated_schema
from specs.run_file import RunFile, validate
from tests.unit.tiny_domain import tiny
from trainer.chat_file import CARD, ChatFile
from trainer.data import drawn
from trainer.evaluation import tasks


def curated(path: Path, rows: Sequence[dict[str, Any]], card: str = "") -> Path:
    """Write rows in the curated format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = curated_schema()
    if card:
        schema = schema.with_metadata({**(schema.metadata or {}), CARD: card.encode()})
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
    return path


def row(
    walk_id: str, messages: Sequence[ChatMessage], doc_ids: Sequence[str] = ()
) -> dict[str, Any]:
    content = [{"role": m.role, "content": m.content, "train": m.train} for m in messages]
    return {"walk_id": walk_id, "messages": content, "path": [], "doc_ids": list(doc_ids)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run `tea`: dialogues split, and an adapter of a model `tiny`."""
    folder = tmp_path_factory.mktemp("made")
    domain = tiny(folder / "domain")
    rows = [
        row(dialogue.walk_id, agent_messages(dialogue, domain, PlanSource(0)))
        for dialogue in rehearse(domain, 30, 0, 0)
        if dialogue.ended
    ]
    card = json.dumps(agent_card(domain))
    curated(folder / "tea" / "round-0" / "curated" / "train.parquet", rows[10:], card)
    curated(folder / "tea" / "round-0" / "curated" / "test.parquet", rows[:10], card)
    train = folder / "tea" / "round-0" / "curated" / "train.parquet"
    adapter(folder / "tea" / "round-0" / "adapter", "tiny", train=train)
    manifest = {"format": "duologue-run", "schema_version": SCHEMA_VERSION}
    (folder / "tea" / "run.json").write_text(json.dumps(manifest))
    return folder


def adapter(folder: Path, base: str, rank: int = 8, train: Path | None = None, **more: Any) -> Path:
    """Write what looks like an adapter trained on a file."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    manifest = {"format": "duologue-adapter", "base_model": base, "method": "qlora", **more}
    if train is not None:
        digests = {"train": ChatFile.open(Folder.of(train.parent), train.name).digest()}
        manifest["data"] = {**manifest.get("data", {}), "digests": digests}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def out(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of it, for a test to spoil."""
    monkeypatch.setattr(evaluation_plan, "digest_of", lambda engine: "")
    shutil.copytree(made, tmp_path / "out")
    return tmp_path / "out"


def run_file(out: Path, **section: Any) -> RunFile:
    data = {
        "run": {"name": "tea", "out": str(out)},
        "domain": {"path": str(out / "domain")},
        "engines": {
            "cpu": {"model": "tiny", "max_running": 2},
            "ref": {"kind": "reference"},
            "far": {"kind": "openai", "url": "http://127.0.0.1:1/v1", "model": "far"},
            "new": {"kind": "openai", "url": "http://127.0.0.1:1/v1", "model": "new"},
        },
        "roles": {"user": "cpu", "agent": "cpu"},
        "retrieval": {"embedding": "lexical"},
        "evaluate": {"resamples": 100, "examples": 2, **section},
    }
    return validate(data, "run.toml")


class Letters:
    """A token a letter."""

    def __init__(self, tokenizer: Any) -> None:
        pass

    def prompt(self, messages: Sequence[ChatMessage], prefix: str = "") -> list[int]:
        return [ord(c) for m in messages for c in f"<{m.role}>{m.content}"] + [
            ord(c) for c in prefix
        ]


GUESS = '{"intent":"ask","slots":{"query":"mint"}}'


class Engines:
    """Stands for the engines: the adapter knows the gold, the base model guesses one intent."""

    def __init__(self, out: Path) -> None:
        test = ChatFile.open(Folder.of(out / "tea" / "round-0" / "curated"), "test.parquet")
        self.gold = {task.id: task.piece.text for task in tasks(test.dialogues())}
        self.started: list[tuple[str, str]] = []
        self.requests: list[Request] = []
        self.failure: Failure | None = None
        self.unstartable = ""
        self.ratings = 10_000
        self.rated_in_s = 0.0
        """Which model does not start, after how many ratings a judge is gone, and its slowness."""

    @contextlib.asynccontextmanager
    async def __call__(
        self, config: EngineSection, name: str, adapter: str = "", address: str | None = None
    ) -> AsyncIterator[tuple[Any, EngineInfo]]:
        if config.model == self.unstartable:
            raise EngineError("does not fit")
        self.started.append((config.model, adapter))
        takes = "messages" if config.kind == "openai" else "tokens"
        yield self, EngineInfo(config.model, takes, 100_000, config.max_running)  # type: ignore[arg-type]

    async def ask(self, request: Request, dialogue: str) -> Answer:
        self.requests.append(request)
        if self.failure is not None:
            return Answer(request.id, failure=self.failure)
        system, _, task = request.id.partition(":")
        text = "Mint, then." if task.endswith("answer") else GUESS
        if system == "judge":
            if request.deadline_s < self.rated_in_s:
                return Answer(request.id, failure=Failure("deadline", "late"))
            self.ratings -= 1
            if self.ratings < 0:
                return Answer(request.id, failure=Failure("unavailable", "gone"))
            text = '{"rating": 4}'
        elif request.adapter:
            text = self.gold.get(task, text)
        return Answer(request.id, (Candidate(text, "stop", 5),))

    def release(self, dialogue: str) -> None:
        """Nothing sticks here."""

    def systems(self) -> set[str]:
        return {request.id.partition(":")[0] for request in self.requests}


@pytest.fixture
def engines(out: Path, monkeypatch: pytest.MonkeyPatch) -> Engines:
    fake = Engines(out)
    monkeypatch.setattr(evaluation, "started", fake)
    monkeypatch.setattr(evaluation, "ChatEncoder", Letters)
    monkeypatch.setattr(evaluation, "_tokenizer", lambda engine: None)
    return fake


def run(out: Path, fresh: bool = False, data: str | None = None, **section: Any) -> Evaluated:
    return evaluate(run_file(out, **section), fresh, lambda text: None, data)


def value(done: Evaluated, measure: str, system: str) -> float:
    rows = {row["measure"]: row["systems"] for row in done.comparison["rows"]}
    found: float = rows[measure][system]["value"]
    return found


def test_systems_are_measured_side_by_side(out: Path, engines: Engines) -> None:
    done = run(out)
    assert done.comparison["systems"] == ["adapter", "untuned", "bigram", "majority"]
    assert done.asked == ("adapter", "untuned", "bigram", "majority")
    for measure in (
        "intent_accuracy",
        "intent_macro_f1",
        "slot_f1",
        "call_exact",
        "answer_rouge_l",
    ):
        assert value(done, measure, "adapter") == 1
    asks = [text for id_, text in engines.gold.items() if id_.endswith("understanding")]
    share = sum('"intent":"ask"' in text for text in asks) / len(asks)
    assert value(done, "intent_accuracy", "untuned") == pytest.approx(share)
    assert value(done, "answer_groundedness", "untuned") < 1
    against = done.comparison["differences"]["against"]["untuned"]["intent_accuracy"]
    assert against["value"] == pytest.approx(1 - share)
    assert against["low"] > 0
    assert "intent accuracy      1.000 [1.000, 1.000]" in done.comparison["table"]

    folder = out / "tea" / "round-0" / "evaluation"
    found = json.loads((folder / "adapter.json").read_text())
    assert found["figures"]["call_exact"]["value"] == 1
    assert found["confusion"]["rows"] == sorted(found["intents"])
    assert json.loads((folder / "comparison.json").read_text()) == done.comparison
    file = folder / "predictions-adapter.parquet"
    query = f"select count(*), count_if(correct), count(rouge_l) from '{file}'"
    answers = sum(id_.endswith("answer") for id_ in engines.gold)
    total = len(engines.gold)
    assert duckdb.execute(query).fetchall() == [(total, total - answers, answers)]


def test_one_engine_serves_both_and_only_the_untuned_one_is_helped(
    out: Path, engines: Engines
) -> None:
    run(out)
    assert engines.started == [("tiny", str(out / "tea" / "round-0" / "adapter"))]
    tuned = [one for one in engines.requests if one.id.startswith("adapter:")]
    untuned = [one for one in engines.requests if one.id.startswith("untuned:")]
    assert {one.adapter for one in untuned} == {""}
    assert not any(one.sampling.schema for one in tuned)
    constrained = {one.id.rpartition(":")[2] for one in untuned if one.sampling.schema}
    assert constrained == {"understanding", "call"}
    text = "".join(map(chr, untuned[0].tokens))
    assert "The first 2 turns below are examples" in text
    assert "examples from other conversations" not in "".join(map(chr, tuned[0].tokens))


def test_what_is_there_is_not_asked_again_until_something_changes(
    out: Path, engines: Engines
) -> None:
    first = run(out)
    engines.requests.clear()
    engines.started.clear()
    again = run(out)
    assert again.asked == ()
    assert again.comparison == first.comparison
    assert not engines.started
    assert run(out, resamples=200).asked == ()  # figures are worked out anew
    (out / "tea" / "round-0" / "adapter" / "adapter_model.safetensors").write_bytes(b"others")
    assert run(out).asked == ("adapter",)
    assert engines.systems() == {"adapter"}
    assert run(out, examples=1).asked == ("untuned",)
    damaged = out / "tea" / "round-0" / "evaluation" / "predictions-majority.parquet"
    damaged.write_bytes(b"PAR1 no more")
    assert run(out, examples=1).asked == ("majority",)
    assert run(out, fresh=True).asked == ("adapter", "untuned", "bigram", "majority")
    assert 0 < run(out, turns=30).comparison["data"]["turns"] <= 30


def test_an_engine_that_fails_leaves_what_was_there(out: Path, engines: Engines) -> None:
    run(out)
    folder = out / "tea" / "round-0" / "evaluation"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    engines.failure = Failure("unavailable", "gone")
    with pytest.raises(Unavailable, match="gone"):
        run(out, fresh=True, opponents=["untuned"])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_another_runs_adapter_and_a_judge(out: Path, engines: Engines) -> None:
    other = out / "single"
    greater = adapter(other / "round-0" / "adapter", "tiny", rank=32)
    policy = {"policy": {"kind": "single_prompt"}}
    manifest = {"format": "duologue-run", "schema_version": SCHEMA_VERSION, "run_file": policy}
    (other / "run.json").write_text(json.dumps(manifest))
    done = run(out, arm=str(other), judge="far", opponents=[])
    assert done.comparison["systems"] == ["adapter", "single_prompt"]
    assert engines.started == [("tiny", str(greater)), ("far", "")]
    assert {one.adapter for one in engines.requests if one.id.startswith("single_prompt:")} == {
        str(greater)
    }
    assert value(done, "answer_rating", "single_prompt") == 4
    ratings = [one for one in engines.requests if one.id.startswith("judge:")]
    assert "Answer to rate: " in ratings[0].messages[-1].content
    assert '"intent"' not in ratings[0].messages[-1].content
    assert len({one.id for one in ratings}) == len(ratings)
    assert run(out, arm=str(other), judge="far", opponents=[]).asked == ()


def test_a_judge_that_fails_costs_no_predictions(out: Path, engines: Engines) -> None:
    engines.unstartable = "far"
    for fresh in (False, True):
        with pytest.raises(EngineError, match="does not fit"):
            run(out, fresh=fresh, judge="far")
        assert engines.systems() == {"adapter", "untuned"}
        assert engines.started == [("tiny", str(out / "tea" / "round-0" / "adapter"))]
        engines.started.clear()

    # It fails midway: the next one asks for what is not rated yet.
    engines.unstartable, engines.ratings = "", 7
    engines.requests.clear()
    with pytest.raises(Unavailable, match="gone"):
        run(out, judge="far")
    assert engines.systems() == {"judge"}
    answers = [id_ for id_ in engines.gold if id_.endswith("answer")]
    engines.ratings = 10_000
    engines.requests.clear()
    done = run(out, judge="far")
    assert engines.systems() == {"judge"}
    assert len(engines.requests) == 2 * len(answers) - 7
    assert value(done, "answer_rating", "adapter") == value(done, "answer_rating", "untuned") == 4
    assert run(out, judge="far").asked == ()

    # Another judge rates the same predictions, all of them; without one there is nothing to ask.
    engines.requests.clear()
    run(out, judge="new")
    assert engines.systems() == {"judge"}
    assert len(engines.requests) == 2 * len(answers)
    engines.requests.clear()
    done = run(out)
    assert not engines.requests
    assert "answer_rating" not in {row["measure"] for row in done.comparison["rows"]}


@pytest.mark.parametrize(
    "judges", [(None, "far", "new"), (None, "far", None), ("far", None, "new")]
)
def test_whichever_judge_rates_nobody_is_asked_twice(
    out: Path, engines: Engines, judges: Sequence[str | None]
) -> None:
    run(out, judge=judges[0])
    for judge in judges[1:]:
        engines.requests.clear()
        run(out, judge=judge)
        assert engines.systems() == ({"judge"} if judge else set())


def test_a_judge_that_was_left_out_once_rates_nothing_again(out: Path, engines: Engines) -> None:
    run(out, judge="far")
    run(out)
    engines.requests.clear()
    done = run(out, judge="far")
    assert not engines.requests
    assert value(done, "answer_rating", "adapter") == 4


def test_a_late_judge_is_waited_for_longer(out: Path, engines: Engines) -> None:
    engines.rated_in_s = 300.0  # of a deadline of 120 s
    assert value(run(out, judge="far"), "answer_rating", "adapter") == 4
    engines.rated_in_s = 600.0
    with pytest.raises(Unavailable, match="late"):
        run(out, judge="new")


def test_a_judge_rates_what_was_asked_last(out: Path, engines: Engines) -> None:
    run(out, judge="far")
    engines.gold = {id_: f"{text} indeed" for id_, text in engines.gold.items()}
    run(out, fresh=True)
    engines.requests.clear()
    run(out, judge="far")
    assert engines.systems() == {"judge"}
    assert any("indeed" in one.messages[-1].content for one in engines.requests)


def test_ratings_come_to_predictions_that_were_there(out: Path, engines: Engines) -> None:
    whole = run(out)
    engines.requests.clear()
    done = run(out, judge="far")
    assert engines.systems() == {"judge"}
    assert value(done, "answer_rating", "adapter") == 4
    assert value(done, "slot_f1", "untuned") == value(whole, "slot_f1", "untuned")


def test_a_fresh_evaluation_whose_judge_fails_is_gone_on_with(out: Path, engines: Engines) -> None:
    run(out, judge="far")
    engines.unstartable = "far"
    with pytest.raises(EngineError):
        run(out, fresh=True, judge="far")
    engines.unstartable = ""
    engines.requests.clear()
    assert run(out, judge="far").asked == ("adapter", "untuned")
    assert engines.systems() == {"judge"}


def test_anybodys_dialogues_can_be_the_test(out: Path, engines: Engines) -> None:
    source = out / "tea" / "round-0" / "curated" / "test.parquet"
    given = out / "mine.parquet"
    duckdb.execute(f"copy (select messages from '{source}') to '{given}' (format parquet)")
    engines.gold |= {
        f"row-{place}:{task.piece.message}:{task.piece.kind}": task.piece.text
        for place, dialogue in enumerate(
            ChatFile.open(Folder.of(out), "mine.parquet", own=False).dialogues()
        )
        for task in tasks([dialogue])
    }
    done = run(out, data=str(given))
    assert value(done, "intent_accuracy", "adapter") == 1
    assert done.folder.path.startswith(str(out / "tea" / "round-0" / "evaluation" / "data-"))
    assert "--data: error: is empty" in refused(out, data="")


# -- what an adapter has learned


def test_a_curation_that_changed_no_dialogue_asks_for_no_training(
    out: Path, engines: Engines
) -> None:
    path = out / "tea" / "round-0" / "curated" / "train.parquet"
    table = pq.read_table(path)
    other = {**table.schema.metadata, b"duologue.curation": b"another"}
    pq.write_table(table.replace_schema_metadata(other), path)
    assert told(out) == []
    pq.write_table(table.slice(1), path)
    with pytest.raises(InputError, match="may have learned"):
        told(out)


def told(out: Path, data: str | None = None, **section: Any) -> list[str]:
    """Evaluate, and return the warnings about what an adapter has learned."""
    said: list[str] = []
    evaluate(run_file(out, **section), False, said.append, data)
    return [line for line in said if "trained on" in line]


def documented(out: Path, name: str, documents: Sequence[str]) -> Path:
    """Write a split of the run anew: its dialogues, each about one of the documents in turn."""
    path = out / "tea" / "round-0" / "curated" / f"{name}.parquet"
    metadata = pq.read_schema(path).metadata or {}
    rows = pq.read_table(path).to_pylist()
    for number, one in enumerate(rows):
        one["doc_ids"] = [documents[number % len(documents)], "shared by all"]
    return curated(path, rows, metadata[CARD].decode())


def test_an_adapter_that_was_trained_before_another_curation_is_refused(
    out: Path, engines: Engines
) -> None:
    assert not told(out)
    folder = out / "tea" / "round-0"
    manifest = json.loads((folder / "adapter" / "manifest.json").read_text())
    comparison = json.loads((folder / "evaluation" / "comparison.json").read_text())
    assert identity(manifest).items() <= comparison["adapters"]["adapter"].items()
    assert identity(manifest)["train_split"] == manifest["data"]["digests"]["train"]
    test, train = (folder / "curated" / f"{name}.parquet" for name in ("test", "train"))
    held = pq.read_table(test)
    curated(test, pq.read_table(train).to_pylist()[:5], json.dumps({}))
    curated(train, held.to_pylist(), json.dumps({}))
    said = refused(out)
    assert f"{folder}/adapter: error: was trained on another train split" in said
    assert f"than {train}" in said
    assert "duologue train RUN.toml" in said
    assert "was trained on another train split" in refused(out, data=str(test))
    pq.write_table(held, out / "mine.parquet")
    assert len(told(out, data=str(out / "mine.parquet"))) == 1


def test_an_adapter_that_does_not_say_what_it_learned_is_warned_of_once(
    out: Path, engines: Engines
) -> None:
    folder = out / "tea" / "round-0" / "adapter"
    shutil.rmtree(folder)
    adapter(folder, "tiny")
    warned = told(out)
    assert len(warned) == 1
    assert "does not say what it was trained on" in warned[0]


def test_an_arm_that_learned_from_documents_of_the_test_split_is_refused(
    out: Path, engines: Engines
) -> None:
    train, _ = documented(out, "train", ["a", "b", "c"]), documented(out, "test", ["d", "e"])
    folder = out / "tea" / "round-0" / "adapter"
    shutil.rmtree(folder)
    adapter(folder, "tiny", train=train)
    arm = out / "single" / "round-0"
    learned = curated(arm / "curated" / "train.parquet", [row("w", [], ["b", "d"])])
    adapter(arm / "adapter", "tiny", train=learned)
    assert not told(out, arm=str(arm.parent))

    curated(learned, [row("w", [], ["b"]), row("x", [], ["d"]), row("y", [], ["d"])])
    assert "was trained on another train split" in refused(out, arm=str(arm.parent))
    shutil.rmtree(arm / "adapter")
    adapter(arm / "adapter", "tiny", train=learned)
    said = refused(out, arm=str(arm.parent))
    assert f"evaluate.arm: {arm}/adapter: error: was trained on 1 of the 2 seed documents" in said
    assert "curate.seed" in said

    # Whoever brings dialogues is told, and may know why.
    shutil.copy(out.joinpath(*TEST), out / "mine.parquet")
    warned = told(out, data=str(out / "mine.parquet"), arm=str(arm.parent))
    assert [line.partition(" of the 2 ")[0] for line in warned] == [
        "warning: arm-single: was trained on 1"
    ]
    learned.unlink()
    assert "is not there, so that nobody knows" in told(out, arm=str(arm.parent))[0]


def test_dialogues_that_the_adapter_learned_are_told_when_they_are_given(
    out: Path, engines: Engines
) -> None:
    train = out / "tea" / "round-0" / "curated" / "train.parquet"
    warned = told(out, data=str(train))
    count = pq.read_metadata(train).num_rows
    assert warned == [
        f"warning: adapter: was trained on {count} of the {count} dialogues of {train}"
    ]


def trained(dialogues: int, examples: int, tokens: int, steps: int) -> dict[str, Any]:
    """Return what a manifest says about how much was learned."""
    return {
        "data": {"train": {"dialogues": dialogues, "trained_tokens": tokens}},
        "figures": {"examples": examples, "steps": steps},
    }


def test_on_how_much_each_arm_was_trained_stands_beside_the_figures(
    out: Path, engines: Engines
) -> None:
    folder, arm = out / "tea" / "round-0" / "adapter", out / "single" / "round-0"
    train = folder.parent / "curated" / "train.parquet"
    shutil.rmtree(folder)
    adapter(folder, "tiny", train=train, **trained(1200, 1100, 90_000, 50))
    learned = curated(arm / "curated" / "train.parquet", [row("w", [], ["b"])])
    adapter(arm / "adapter", "tiny", train=learned, **trained(1090, 1000, 60_000, 30))
    said: list[str] = []
    done = evaluate(run_file(out, arm=str(arm.parent), opponents=[]), False, said.append)
    trained_on = done.comparison["adapters"]["arm-single"]["trained_on"]
    assert trained_on == {
        "dialogues": 1090, "examples": 1000, "trained_tokens": 60_000, "steps": 30
    }  # fmt: skip
    lines = done.comparison["table"].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("trained on"))
    assert [line.split() for line in lines[start:]] == [
        ["trained", "on", "adapter", "arm-single"],
        ["dialogues", "1,200", "1,090"],
        ["examples", "1,100", "1,000"],
        ["tokens", "learned", "90,000", "60,000"],
        ["steps", "50", "30"],
    ]
    warned = [line for line in said if "not trained on as much" in line]
    assert warned == [
        "warning: adapter and arm-single were not trained on as much: 90,000 and 60,000 tokens "
        "learned, 50 and 30 steps"  # with as many dialogues: no word of train.dialogues
    ]


def test_dialogues_that_were_not_drawn_were_not_learned_from(out: Path, engines: Engines) -> None:
    arm = out / "single" / "round-0"
    documented(out, "test", ["b"])
    learned = curated(
        arm / "curated" / "train.parquet", [row("w1", [], ["a"]), row("w2", [], ["b"])]
    )
    ids = ("w1", "w2")
    seeds = {one: next(s for s in range(99) if one in drawn(ids, 1, s)) for one in ids}
    adapter(arm / "adapter", "tiny", train=learned, settings={"dialogues": 1, "seed": seeds["w1"]})
    assert not told(out, arm=str(arm.parent))
    shutil.rmtree(arm / "adapter")
    adapter(arm / "adapter", "tiny", train=learned, settings={"dialogues": 1, "seed": seeds["w2"]})
    assert "was trained on 1 of the 1 seed documents" in refused(out, arm=str(arm.parent))


# -- bad input


def refused(out: Path, data: str | None = None, **section: Any) -> str:
    with pytest.raises(InputError) as caught:
        run(out, data=data, **section)
    return str(caught.value)


def test_everything_that_is_missing_is_said_at_once(tmp_path: Path) -> None:
    said = refused(tmp_path, engine="gpu", judge="ref", arm=str(tmp_path / "other"))
    assert "train.parquet: error: there is no train split" in said
    assert "test.parquet: error: there is no test split" in said
    assert "duologue curate" in said
    assert "tea/round-0/adapter: error: there is no trained adapter" in said
    assert "other/round-0/adapter: error: there is no trained adapter" in said
    assert "evaluate.engine: error: names the engine 'gpu'" in said
    assert "speaks references and cannot rate" in said


def test_a_run_is_refused_for_its_arm_before_anything_is_played(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[bool] = []

    def generated(run: RunFile, fresh: bool) -> Made:
        played.append(fresh)
        return Made(whole=True)

    monkeypatch.setattr(whole_run, "generate", generated)
    monkeypatch.setattr(training, "unfit", lambda run: [])
    arm = out / "single"
    said = refused(out, arm=str(arm))
    place = f"evaluate.arm: {arm}/round-0/adapter: error: "
    assert f"{place}there is no trained adapter" in said
    with pytest.raises(InputError) as caught:
        whole_run.run_all(run_file(out, arm=str(arm)), False)
    assert str(caught.value) == said
    adapter(arm / "round-0" / "adapter", "huge")
    with pytest.raises(InputError, match="was trained on huge, and would be put on tiny"):
        whole_run.run_all(run_file(out, arm=str(arm)), False)
    assert not played


def test_an_engine_that_loads_no_adapter_is_refused(out: Path) -> None:
    assert "of the kind 'openai', which loads no adapter" in refused(out, engine="far")


def test_an_adapter_of_another_model_is_refused(out: Path) -> None:
    folder = out / "tea" / "round-0" / "adapter"
    shutil.rmtree(folder)
    adapter(folder, "huge")
    said = refused(out)
    assert "huge" in said
    assert "tiny" in said


TEST = ("tea", "round-0", "curated", "test.parquet")


def test_an_empty_or_one_sided_test_split_is_refused(out: Path) -> None:
    curated(out.joinpath(*TEST), [])
    assert "holds no dialogues" in refused(out)
    said = '{"intent":"ask","slots":{}}\nYes'
    turn = [ChatMessage("user", "Hi"), ChatMessage("assistant", said, train=True)]
    curated(out.joinpath(*TEST), [row("a", turn), row("b", turn)])
    assert "all 2 user turns have the intent 'ask'" in refused(out)
    curated(out.joinpath(*TEST), [row("a", turn), row("a", turn)])
    assert "two dialogues have the walk_id 'a'" in refused(out)
    curated(out.joinpath(*TEST), [row("a", [ChatMessage("user", "Hi")])])
    assert "has no turn in which the agent writes what it understood" in refused(out)


def test_files_of_another_format_are_refused(out: Path) -> None:
    assert "there is no such file" in refused(out, data=str(out / "none.parquet"))
    text = out / "text.parquet"
    text.write_text("hello")
    assert "not a readable Parquet file" in refused(out, data=str(text))
    pq.write_table(pa.table({"messages": ["hello"]}), out / "strings.parquet")
    assert "has no column `messages`" in refused(out, data=str(out / "strings.parquet"))
    chat = pa.table({"messages": [[{"role": "robot", "content": "hm"}]]})
    pq.write_table(chat, out / "robot.parquet")
    assert "row 0: the role 'robot'" in refused(out, data=str(out / "robot.parquet"))
    whole = out.joinpath(*TEST).read_bytes()
    out.joinpath(*TEST).write_bytes(whole[: len(whole) // 2])
    assert "not a readable Parquet file" in refused(out)


def test_the_command_exits_2_on_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        f'[run]\nname = "tea"\nout = "{tmp_path}"\n[domain]\npath = "recipe"\n'
        '[engines.e]\n[roles]\nuser = "e"\nagent = "e"\n'
    )
    with pytest.raises(SystemExit) as done:
        main(["evaluate", str(file), "--set", "evaluate.examples=1"])
    assert done.value.code == 2
    assert "there is no test split" in capsys.readouterr().err


def test_a_run_on_an_object_store_is_told_before_anything_is_played(
    out: Path, engines: Engines
) -> None:
    asked = run_file(out)
    there = asked.model_copy(
        update={"run": asked.run.model_copy(update={"out": "s3://bucket/runs/?region=eu-west-1"})}
    )
    found = [(str(one.where), one.message) for one in evaluation_plan.unfit(there)]
    assert ("run.out", "an adapter is served from a local folder only") in found
    assert not [one for one in evaluation_plan.unfit(asked) if str(one.where) == "run.out"]
