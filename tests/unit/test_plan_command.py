"""`duologue plan`: what a run will take, without anything of it being started."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.cli import main
from tests.ray.command import run_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("a Ray was started"))


def plan(path: Path, *settings: str) -> None:
    options = ("train.model=smollm2-135m", *settings)
    main(["plan", str(path), *(f"--set={one}" for one in options)])


def test_it_tells_walks_tokens_time_and_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(run_file(tmp_path, dialogues=40), "engines.ref.tokens_per_s=10")
    said = capsys.readouterr().out
    assert "tea: 40 dialogues of kiosk, walk" in said
    assert "turns a dialogue: mean" in said
    assert "tokens read and" in said
    assert "ref: 1 x 10 tokens/s" in said
    assert "all dialogues:" in said
    assert "ref: 1 x (cores as they come)" in said
    assert "walkers: 1 x 4 dialogues; sinks: 2; retrievers: 1" in said


def test_without_a_speed_it_says_how_to_come_by_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(run_file(tmp_path, dialogues=4))
    assert "not known: set engines.ref.tokens_per_s, or play some" in capsys.readouterr().out


def test_a_cluster_that_is_not_there_yet_is_judged_by_its_launcher(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_file(tmp_path, dialogues=4000)
    launcher = f"cluster.launcher={ROOT / 'ray_cluster.yaml'}"
    gpus = ("engines.ref.gpus=1", "engines.ref.replicas=auto", "engines.ref.tokens_per_s=100")
    price = "cluster.gpu_hour_price=2"
    plan(path, launcher, *gpus, price, "engines.ref.resources={agent_engine = 1}")
    said = capsys.readouterr().out
    assert "ref: 1 to 8 x (agent_engine 1, GPU 1)" in said
    assert "GPU-hours, USD " in said
    with pytest.raises(SystemExit) as ended:
        plan(path, launcher, "engines.ref.gpus=4", "engines.ref.resources={user_engine = 2}")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "engines.ref.gpus: error: one replica asks for 4 GPUs" in said
    assert "engines.ref.resources.user_engine: error: asks for user_engine 2" in said


def test_training_is_judged_by_the_same_nodes_as_the_engines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    path = run_file(tmp_path, dialogues=4000)
    plan(path, "train.workers=2", "walkers.count=2")
    assert "want a core each" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        plan(path, "train.workers=3", "walkers.count=3")
    said = capsys.readouterr()
    assert "3 walkers want a core each; nodes without GPUs have 2" in said.out
    assert said.err.count("3 workers need a core each, and the cluster has 2") == 1
    # The launcher's nodes, not this machine's; nothing is started to look at them.
    launcher = f"cluster.launcher={ROOT / 'ray_cluster.yaml'}"
    plan(path, launcher, "train.workers=4", "train.gpus_per_worker=1")
    with pytest.raises(SystemExit):
        plan(path, launcher, "train.workers=400", "train.gpus_per_worker=1")
    assert capsys.readouterr().err.count("400 workers with 1 GPUs each need 400") == 1


def test_what_later_stages_refuse_is_said_with_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_file(tmp_path, dialogues=4)
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(path), "--set=train.model=/no/such/model"])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert "turns a dialogue" in said.out
    assert "/no/such/model" in said.err
