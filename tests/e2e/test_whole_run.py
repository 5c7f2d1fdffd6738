"""`duologue run` from the first dialogue to the report: words from references, learned for real."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from actors.reenact import UNSURE
from specs.parts import Folder, read_dialogues
from tests.e2e.command import duologue
from tests.ray.command import LONG

RUN = """
[run]
name = "small"
dialogues = 14
seed = 3

[domain]
path = "recipe"

[engines.people]
kind = "reference"

[engines.cpu]
kind = "vllm"
model = "smollm2-135m"
window = 1536
max_running = 16
kv_cache_gb = 0.5

[roles]
user = "people"
agent = "people"

[curate]
test = 0.25

[train]
model = "smollm2-135m"
method = "lora"
rank = 8
window = 640
max_steps = 2
accumulate = 1

[evaluate]
engine = "cpu"
turns = 2
examples = 1
resamples = 100
max_tokens = {understanding = 24, call = 24, answer = 24}
"""


@LONG
@pytest.mark.slow
def test_the_adapter_of_a_run_plays_the_agent_of_another(tmp_path: Path) -> None:
    file, out = tmp_path / "run.toml", tmp_path / "runs"
    file.write_text(RUN)
    settings = (str(file), "--set", f"run.out={out}")
    for stage in ("generate", "curate", "train"):
        done = duologue(stage, *settings)
        assert done.returncode == 0, done.stderr
    second = ("run.name=second", "run.dialogues=2", "policy.max_turns=6", "roles.agent=cpu")
    asked = [f"--set={one}" for one in (*second, f"roles.adapter={out / 'small'}")]
    played = duologue("generate", *settings, *asked)
    assert played.returncode == 0, played.stderr
    dialogues = list(read_dialogues(Folder.of(out / "second" / "round-0" / "dialogues")))
    agents = [turn for one in dialogues for turn in one.turns if turn.role == "agent"]
    assert {one.index for one in dialogues} == {0, 1}
    assert {turn.adapter for turn in agents} == {str(out / "small" / "round-0" / "adapter")}
    assert {turn.sampling["form"] for turn in agents} == {"learned"}
    assert all(turn.prompt_tokens and turn.completion_tokens for turn in agents)
    shown = duologue("show", str(out / "second"), "--index=0", "--prompts")
    assert shown.returncode == 0, shown.stderr
    assert UNSURE not in shown.stdout
    assert '{"intent":' in shown.stdout
    other = duologue("generate", *settings, *asked[:-1])
    assert other.returncode == 2
    assert "roles.adapter was" in other.stderr


@LONG
@pytest.mark.slow
def test_one_engine_plays_two_rounds_the_second_with_the_firsts_adapter(tmp_path: Path) -> None:
    file, out = tmp_path / "run.toml", tmp_path / "runs"
    file.write_text(RUN)
    asked = (
        f"run.out={out}", "run.dialogues=8", "policy.max_turns=8", "roles.agent=cpu",
        "rounds.count=2", "rounds.least=1", "rounds.diversity=0", 'curate.filters=[{kind="none"}]',
    )  # fmt: skip
    done = duologue("run", str(file), *(f"--set={one}" for one in asked))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("starting engine cpu") == 1
    assert "engine cpu (smollm2-135m, 1 x) is up already" in done.stderr
    assert "round 1 began" in done.stdout
    place = out / "small" / "round-1" / "dialogues"
    agents = [t for one in read_dialogues(Folder.of(place)) for t in one.turns if t.role == "agent"]
    assert {turn.adapter for turn in agents} == {str(out / "small" / "round-0" / "adapter")}
    shown = duologue("show", str(out / "small" / "round-1"), "--prompts")
    assert UNSURE not in shown.stdout
    assert '{"intent":' in shown.stdout


@pytest.mark.slow
def test_a_whole_run_and_once_more(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(RUN)
    settings = (str(file), "--set", f"run.out={tmp_path / 'runs'}")
    first = duologue("run", *settings)
    assert first.returncode == 0, first.stderr
    made = tmp_path / "runs" / "small" / "round-0"
    rows = {
        name: pq.read_table(made / "curated" / f"{name}.parquet").num_rows
        for name in ("train", "validation", "test")
    }
    assert rows["train"]
    assert rows["test"]
    manifest = json.loads((made / "adapter" / "manifest.json").read_text())
    assert manifest["figures"]["steps"] == 2
    comparison = json.loads((made / "evaluation" / "comparison.json").read_text())
    for system in ("adapter", "untuned", "bigram", "majority"):
        assert system in json.dumps(comparison), system
    page = (made / "report.html").read_text()
    assert "<h1" in page
    assert "http-equiv" in page

    # Again: every stage finds that it has been done, from the same.
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*.safetensors")}
    told = duologue("run", *settings)
    assert told.returncode == 0, told.stderr
    assert "curated already" in told.stderr
    assert "the adapter is there already" in told.stderr
    assert "adapter: there already" in told.stderr
    assert before == {path: path.stat().st_mtime_ns for path in made.rglob("*.safetensors")}
