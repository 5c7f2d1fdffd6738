"""`duologue train` on a local cluster: two workers, one dies, the driver dies, bad input."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.cli import main
from cluster.train import train
from specs.errors import DuologueError, InputError
from specs.parts import Folder
from specs.run_file import load
from tests.ray.command import Command, duologue
from tests.unit.tiny_model import write_chats, write_model, write_run
from trainer.loop import Fitted, Row
from trainer.training import Job, read_log

pytestmark = pytest.mark.slow

RUN_FILE = """\
[run]
name = "tea"
out = "{out}"
[domain]
path = "recipe"
[engines.ref]
kind = "reference"
[roles]
user = "ref"
agent = "ref"
[train]
model = "{model}"
method = "lora"
window = 512
batch = 2
accumulate = 2
epochs = 6
checkpoint_steps = 4
dropout = 0.2
workers = 2
"""
WORKER_KILLED_AT, COMMAND_KILLED_AT = 6, 10
"""The steps behind which somebody dies: behind another checkpoint each, and before the last."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Large enough that a step takes some time: somebody must find the moment to kill a worker.
    return write_model(tmp_path_factory.mktemp("model"), hidden=256)


def run_file(folder: Path, model: Path) -> Path:
    write_run(folder / "out" / "tea", dialogues=60)
    path = folder / "run.toml"
    path.write_text(RUN_FILE.format(out=folder / "out", model=model))
    return path


def log(folder: Path) -> list[Row]:
    return read_log(Folder.of(folder / "out" / "tea" / "round-0" / "training"))


def losses(folder: Path) -> dict[int, tuple[float, float | None]]:
    return {row["step"]: (row["loss"], row.get("eval_loss")) for row in log(folder)}


def manifest(folder: Path) -> dict[str, Any]:
    path = folder / "out" / "tea" / "round-0" / "adapter" / "manifest.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.fixture(scope="module")
def undisturbed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    code, said = duologue("train", str(run_file(folder, model)))
    assert code == 0, said
    assert "training lora on 2 x 1 cores" in said
    return folder


def workers(command: Command) -> set[psutil.Process]:
    found = set()
    for process in psutil.Process(command.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.add(process)
    return found


def test_two_workers_leave_an_adapter_that_peft_loads(undisturbed: Path, model: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    made = manifest(undisturbed)
    assert made["base_model"] == str(model)
    assert made["method"] == "lora"
    assert made["data"]["train"]["dialogues"] == made["figures"]["examples"] == 60
    figures = made["figures"]
    assert figures["steps"] == figures["planned_steps"] == len(losses(undisturbed))
    assert figures["loss"] < losses(undisturbed)[1][0] - 0.3
    assert figures["padding_share"] < 0.2
    base = AutoModelForCausalLM.from_pretrained(model)
    ids = torch.arange(20)[None]
    before = base(ids).logits
    folder = undisturbed / "out" / "tea" / "round-0" / "adapter"
    after = PeftModel.from_pretrained(base, str(folder))(ids).logits
    assert (after - before).abs().max() > 0.01
    assert not (folder.parent / "training" / "checkpoints").exists()


def test_what_a_killed_worker_and_a_killed_command_began_is_gone_on_with(
    undisturbed: Path, model: Path, tmp_path: Path
) -> None:
    path = str(run_file(tmp_path, model))
    command = Command(("train", path))
    try:
        command.wait_until(lambda: max(losses(tmp_path), default=0) >= WORKER_KILLED_AT)
        begun = log(tmp_path)[:3]
        first = workers(command)
        assert len(first) == 2
        next(iter(first)).kill()
        command.wait_until(lambda: len(workers(command) - first) == 2)
        command.wait_until(lambda: max(losses(tmp_path)) >= COMMAND_KILLED_AT)
    finally:
        command.process.kill()
    assert log(tmp_path)[:3] == begun  # its seconds are those of the first time
    assert command.end() == -signal.SIGKILL
    assert re.search(r"worker [01](, [01])? failed: .+", command.said)
    assert not (tmp_path / "out" / "tea" / "round-0" / "adapter").exists()
    code, said = duologue("train", path)
    assert code == 0, said
    assert "going on from the last checkpoint" in said
    assert manifest(tmp_path)["figures"]["resumed_from_step"] >= 8
    assert losses(tmp_path) == losses(undisturbed)
    assert same_weights(tmp_path, undisturbed)

    told: list[str] = []
    assert train(load(tmp_path / "run.toml", ["train.merge=true"]), False, told.append).again
    assert any("the adapter is there already" in line for line in told)
    assert any("merged into" in line for line in told)
    merged = tmp_path / "out" / "tea" / "round-0" / "merged"
    assert (merged / "model.safetensors").is_file()
    assert (merged / "tokenizer.json").is_file()


def same_weights(one: Path, other: Path) -> bool:
    from safetensors.torch import load_file

    file = Path("out", "tea", "round-0", "adapter", "adapter_model.safetensors")
    ours, theirs = load_file(one / file), load_file(other / file)
    return all(bool((value == theirs[name]).all()) for name, value in ours.items())


# -- bad input, each refused with exit code 2 and nothing written


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["train", *arguments])
    said = capsys.readouterr().err
    assert ended.value.code == 2, said
    assert "Traceback" not in said
    return said


def test_a_run_without_what_training_needs(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_file(tmp_path, model)
    run = tmp_path / "out" / "tea"
    said = refused(capsys, str(path), "--set", "train.model=/no/such/model")
    assert "train.model: error: there is no model at /no/such/model" in said
    shutil.rmtree(run / "round-0" / "curated")
    assert "duologue curate RUN.toml" in refused(capsys, str(path))
    write_chats(run / "round-0" / "curated", "train", [])
    said = refused(
        capsys, str(path), "--set", "train.window=4096", "--set", "train.gpus_per_worker=1"
    )
    assert "holds no dialogues to learn from" in said
    assert "4096 tokens are more than" in said
    assert "and the cluster has 0" in said
    (run / "round-0" / "curated" / "train.parquet").write_bytes(b"PAR1")
    assert "is not a readable Parquet file" in refused(capsys, str(path))
    shutil.rmtree(run)
    assert "there is no run here" in refused(capsys, str(path))


def test_the_model_of_an_agent_without_weights_must_be_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_file(tmp_path, model)
    path.write_text(path.read_text().replace(f'model = "{model}"\n', ""))
    assert "--set train.model=smollm2-135m" in refused(capsys, str(path))


def test_a_full_disk_ends_the_training_and_leaves_the_old_adapter(
    undisturbed: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = load(run_file(tmp_path, model), ["train.max_steps=3"])
    made = Path("out", "tea", "round-0", "adapter")
    shutil.copytree(undisturbed / made, tmp_path / made)
    before = manifest(tmp_path)
    monkeypatch.setattr("cluster.train.free_bytes", lambda folder: 1000)
    with pytest.raises(InputError, match="MiB are free"):
        train(other, False, lambda text: None)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    def trained(job: Job, *_: Any) -> Fitted:
        """Stand in for Ray Train, which says nothing about the disk behind it."""
        shutil.copytree(undisturbed / made, job.result.path)
        return Fitted(True, 0.0, 1, 1, 1, 1, 0, 9, 1.0, 0.5, None, 9)

    monkeypatch.setattr("cluster.train.free_bytes", lambda folder: None)
    monkeypatch.setattr("cluster.train.launch", trained)
    monkeypatch.setattr("trainer.adapter._replace", full)
    with pytest.raises(DuologueError, match="the disk is full"):
        train(other, False, lambda text: None)
    assert manifest(tmp_path) == before
