"""What is refused before training starts, in what order examples come, what goes on from where."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import fs as pafs

from cluster import train as training
from cluster.run_folder import RunFolder
from cluster.train import _manifest, _task, unplaced
from specs.agent_format import ChatMessage
from specs.chat_template import IGNORED, ChatEncoder
from specs.errors import InputError
from specs.parts import Folder
from specs.records import dump_json
from specs.run_file import TrainSection, validate
from specs.seeds import digest
from tests.unit.tiny_model import chat, write_adapter, write_model, write_run
from trainer import weights
from trainer.adapter import check_adapter, load_manifest
from trainer.board import BOARD_VARIABLE, board, board_findings
from trainer.data import Course, DataFigures, Examples, Layout, Passes, encode
from trainer.loop import Fitted, Place, fit, stale
from trainer.training import (
    Job,
    Resources,
    Seats,
    check_model,
    launch,
    plan_training,
    seats,
)
from trainer.weights import hub_digest

A, B = "a" * 40, "b" * 40
"""Commits."""

SOME = DataFigures(dialogues=3, tokens=90, trained_tokens=30)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def encoder(model: Path) -> ChatEncoder:
    from transformers import AutoTokenizer

    return ChatEncoder(AutoTokenizer.from_pretrained(model))


def chats(count: int) -> list[list[ChatMessage]]:
    return [
        [ChatMessage(m["role"], m["content"], m["train"]) for m in chat(number)]
        for number in range(count)
    ]


def said(section: TrainSection, resources: Resources, figures: DataFigures = SOME) -> str:
    return "\n".join(map(str, plan_training(section, figures, resources)))


LAPTOP = Resources((2.0,))
CLUSTER = Resources((16.0, 16.0), gpus=(2.0, 2.0), engine_gpus=3.0)
APART = Resources((32.0, 1.0), gpus=(0.0, 2.0))
GROWING = Resources((2.0,), gpus=(1.0,), most_cpus=34.0, most_gpus=8.0, largest_gpus=2.0)


def test_what_can_start_is_not_refused() -> None:
    assert said(TrainSection(workers=2), LAPTOP) == ""
    assert said(TrainSection(workers=4), CLUSTER) == ""
    assert said(TrainSection(workers=1, gpus="own"), CLUSTER) == ""
    assert said(TrainSection(workers=4, gpus_per_worker=2), GROWING) == ""
    assert said(TrainSection(trainer={"max_grad_norm": 0.5}), LAPTOP) == ""
    more_cores = Resources((2.0,), gpus=(), most_cpus=16.0)
    assert said(TrainSection(workers=4), more_cores) == ""
    assert said(TrainSection(workers=4, gpus_per_worker=0), GROWING) == ""


@pytest.mark.parametrize(
    ("section", "resources", "message"),
    [
        ({"workers": 2, "gpus_per_worker": 1}, LAPTOP, "need 2, and the cluster has 0"),
        ({"workers": 5}, CLUSTER, "need 5, and the cluster has 4"),
        ({"workers": 2}, APART, "only 1 of 2 workers find a core on the nodes where the GPUs are"),
        (
            {"gpus_per_worker": 3},
            CLUSTER,
            "with 3 GPUs finds room on no node: none has more than 2",
        ),
        (
            {"gpus_per_worker": 4},
            GROWING,
            "with 4 GPUs finds room on no node: none has more than 2",
        ),
        ({"workers": 5, "gpus_per_worker": 0.6}, CLUSTER, "only 4 of 5 workers with 0.6 GPUs"),
        ({"workers": 2, "gpus": "own"}, CLUSTER, "the engines hold 3 of 4 GPUs"),
        ({"workers": 3}, LAPTOP, "3 workers need a core each, and the cluster has 2"),
        ({"trainer": {"lr": 1}}, LAPTOP, "train.trainer.lr: error: transformers has no such"),
        ({"trainer": {"max_grad_nrm": 1}}, LAPTOP, "did you mean 'max_grad_norm'?"),
        ({"trainer": {"max_steps": 1}}, LAPTOP, "Set train.max_steps instead."),
        ({"trainer": {"optim": "sgdd"}}, LAPTOP, "transformers refuses it"),
        ({"report_to": ["tensorbord"]}, LAPTOP, "'tensorbord' is not installed"),
    ],
)
def test_what_could_not_work_is_refused_before_it_starts(
    section: dict[str, Any], resources: Resources, message: str
) -> None:
    assert message in said(TrainSection(**section), resources)


def test_a_train_split_that_nothing_can_be_learned_from(
    monkeypatch: pytest.MonkeyPatch, encoder: ChatEncoder
) -> None:
    assert "holds no dialogues" in said(TrainSection(), LAPTOP, DataFigures())
    small = TrainSection(window=64)
    figures = encode(chats(3), encoder, small.window).figures
    assert "none of its 3 dialogues" in said(small, LAPTOP, figures)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "needs the package bitsandbytes" in said(TrainSection(), LAPTOP)


def test_a_model_that_the_settings_do_not_fit(model: Path, tmp_path: Path) -> None:
    section = TrainSection(window=1024, targets=("q_proj", "v_porj", "self_attn.k_proj"))
    window, target = map(str, check_model(section, model, "tiny"))
    assert "1024 tokens are more than tiny takes: 512" in window
    assert "no layer 'v_porj'; did you mean 'v_proj'?" in target
    assert check_model(TrainSection(window=512), model, "tiny") == []
    (tmp_path / "config.json").write_text('{"model_type": "no-such-type"}')
    assert "no causal language model" in str(check_model(TrainSection(), tmp_path, "odd")[0])
    (nothing,) = check_model(TrainSection(), tmp_path / "nothing", "none")
    assert "nothing cannot be had: " in str(nothing)


def test_cores_and_gpus_are_shared_out() -> None:
    assert seats(TrainSection(workers=2), Resources((4.0, 3.0))) == Seats(2, 3, 0.0)
    assert seats(TrainSection(workers=1), LAPTOP) == Seats(1, 2, 0.0)
    assert seats(TrainSection(workers=4), CLUSTER) == Seats(4, 8, 1.0)
    beside_a_head = Resources((32.0, 5.0), (0.0, 2.0))
    assert seats(TrainSection(workers=2), beside_a_head) == Seats(2, 2, 1.0)
    assert said(TrainSection(workers=2), beside_a_head) == ""


def test_a_preset_gives_what_the_run_file_does_not() -> None:
    section = TrainSection(preset="synthetic_tod", rank=8)
    assert (section.rank, section.alpha, section.dropout) == (8, 16, 0.1)
    assert (section.schedule, section.batch, section.accumulate) == ("constant", 4, 4)
    again = TrainSection.model_validate_json(section.model_dump_json())
    assert again == section
    other = TrainSection(preset="self_talk")
    assert (other.method, other.learning_rate, other.weight_decay) == ("lora", 5e-4, 0.01)


# -- the order


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 90), min_size=1, max_size=40),
    batch=st.integers(1, 4),
    workers=st.integers(1, 4),
    packed=st.booleans(),
    seed=st.integers(0, 3),
)
def test_an_epoch_has_every_example_once_and_as_many_passes_for_each_worker(
    lengths: list[int], batch: int, workers: int, packed: bool, seed: int
) -> None:
    section = TrainSection(window=100, batch=batch, epochs=2, seed=seed)
    layout = Layout.of(lengths, section, workers, packed)
    course = Course.of(layout, section)
    assert len(course.rows) == 2 * layout.rows
    first, second = course.rows[: layout.rows], course.rows[layout.rows :]
    for rows in (first, second):
        met = [
            example
            for row in rows
            for rank in range(workers)
            for at in layout.of_worker(row, rank)
            for example in layout.sequences[at]
        ]
        assert sorted(met) == list(range(len(lengths)))
    assert all(
        len(layout.of_worker(row, r)) <= batch for row in course.rows for r in range(workers)
    )
    assert sum(course.tokens()) == 2 * sum(lengths)
    assert Course.of(Layout.of(lengths, section, workers, packed), section) == course
    shorter = section.model_copy(update={"max_steps": 1})
    assert Course.of(layout, shorter).rows == course.rows[: section.accumulate]


def test_orders_differ_by_epoch_and_by_seed() -> None:
    lengths = [50 + i % 30 for i in range(40)]
    for packed in (True, False):
        layout = Layout.of(lengths, TrainSection(window=100), 1, packed)
        other = Layout.of(lengths, TrainSection(window=100, seed=1), 1, packed)
        assert layout.epoch(0) != layout.epoch(1)
        assert layout.epoch(0) != other.epoch(0)


def test_a_worker_that_is_left_over_learns_nothing(encoder: ChatEncoder) -> None:
    examples = encode(chats(3), encoder, 512)
    layout = Layout.of(examples.lengths, TrainSection(window=512), 2, packed=False)
    course = Course.of(layout, TrainSection(epochs=1))
    one, two = (Passes(examples, course, rank, pad=0) for rank in (0, 1))
    trained = [[int((p[i]["labels"] != IGNORED).sum()) for i in range(len(p))] for p in (one, two)]
    assert len(one) == len(two) == 2
    assert sum(map(sum, trained)) == examples.figures.trained_tokens
    assert trained[1][-1] == 0


def test_cut_dialogues_are_counted(encoder: ChatEncoder) -> None:
    whole = encode(chats(6), encoder, 4096)
    assert (whole.figures.cut, whole.figures.unusable, len(whole)) == (0, 0, 6)
    assert whole.figures.tokens == sum(whole.lengths)
    window = min(whole.lengths) + 10
    cut = encode(chats(6), encoder, window)
    assert cut.figures.cut == sum(length > window for length in whole.lengths)
    assert cut.figures.dropped_turns >= cut.figures.cut > 0
    assert max(cut.lengths) <= window


# -- the loop


def trained(
    model: Path, examples: Examples, held: Examples, section: TrainSection, **place: Any
) -> tuple[Any, Fitted]:
    import torch
    from transformers import set_seed

    set_seed(section.seed)
    torch.set_num_threads(1)
    made = weights.build(section, model, gpu=False)
    return made, fit(section, made, 0, examples, held, Place(**place))


@pytest.mark.parametrize(("method", "packing"), [("lora", True), ("full", False), ("qlora", True)])
def test_whoever_goes_on_from_a_checkpoint_makes_the_same_steps(
    model: Path, encoder: ChatEncoder, tmp_path: Path, method: str, packing: bool
) -> None:
    import shutil

    import torch

    examples, held = encode(chats(24), encoder, 512), encode(chats(3), encoder, 512)
    section = TrainSection.model_validate(
        {
            "method": method,
            "packing": packing,
            "window": 512,
            "epochs": 3,
            "accumulate": 2,
            "checkpoint_steps": 3,
            "dropout": 0.2,
            "learning_rate": 1e-2,
            "patience": 50,
        }
    )

    def report(figures: Any, folder: Path) -> None:
        shutil.copytree(folder, tmp_path / str(figures["step"]))

    whole, first = trained(model, examples, held, section, report=report)
    assert first.steps == first.planned > 6
    assert first.loss is not None
    assert first.loss < first.log[0]["loss"] - 0.1
    resumed, second = trained(model, examples, held, section, resume=tmp_path / "3")
    assert second.resumed == 3
    for key in ("step", "loss", "eval_loss", "learning_rate"):
        assert [row.get(key) for row in second.log] == [row.get(key) for row in first.log]
    ours, theirs = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_an_evaluation_does_not_change_the_gradients_of_a_quantized_model(model: Path) -> None:
    import torch

    pytest.importorskip("bitsandbytes")
    ids = torch.arange(3, 40)[None]

    def gradients(learner: Any) -> list[Any]:
        learner.train()
        learner.zero_grad()
        learner(input_ids=ids, labels=ids).loss.backward()
        return [value.grad.clone() for value in learner.parameters() if value.requires_grad]

    made = weights.build(TrainSection(method="qlora", dropout=0), model, gpu=False)
    for name, value in made.named_parameters():
        if "lora_B" in name:  # zeros at first, behind which nothing would have a gradient
            torch.nn.init.normal_(value, std=0.1)
    before = gradients(made)
    made.eval()
    with torch.no_grad():
        made(input_ids=ids)
    after = gradients(made)
    assert all(bool(one.abs().max() > 0) for one in before)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_training_stops_early_and_takes_the_best(
    model: Path, encoder: ChatEncoder, tmp_path: Path
) -> None:
    import shutil

    examples, held = encode(chats(4), encoder, 512), encode(chats(9)[5:], encoder, 512)
    section = TrainSection(
        method="full", window=512, epochs=40, accumulate=1, checkpoint_steps=2, patience=2,
        learning_rate=0.2, schedule="constant",
    )  # fmt: skip

    def report(figures: Any, folder: Path) -> None:
        shutil.copytree(folder, tmp_path / str(figures["step"]))

    made, stopped = trained(model, examples, held, section, report=report)
    losses = {row["step"]: row["eval_loss"] for row in stopped.log if "eval_loss" in row}
    assert stopped.steps < stopped.planned
    assert stopped.taken == min(losses, key=lambda step: losses[step]) < stopped.steps
    assert stopped.validation_loss == losses[stopped.taken]
    # A crash behind the last checkpoint: nothing is trained further, the same weights are taken.
    last, again = trained(
        model, examples, held, section, resume=tmp_path / str(stopped.steps), report=report
    )
    assert (again.steps, again.taken) == (stopped.steps, stopped.taken)
    theirs = last.state_dict()
    assert all(bool((v == theirs[name]).all()) for name, v in made.state_dict().items())
    assert [stale([3.0, 2.0, 2.5, 2.1]), stale([1.0]), stale([])] == [2, 0, 0]


# -- what is trained on


def capped(folder: Path, model: Path, **section: Any) -> training._Task:
    """Return the training of the run `tea` in a folder."""
    data = {
        "run": {"name": "tea", "out": str(folder)},
        "domain": {"path": "recipe"},
        "engines": {"ref": {"kind": "reference"}},
        "roles": {"user": "ref", "agent": "ref"},
        "train": {"model": str(model), "window": 512, **section},
    }
    run = validate(data, "run.toml")
    return training._task(run, RunFolder.of(run))


def learned(task: training._Task, encoder: ChatEncoder) -> list[list[int]]:
    examples, _ = training._encoded(task, encoder, lambda text: None)
    assert examples.figures.dialogues == len(examples)
    return sorted(examples[number].ids for number in range(len(examples)))


def test_at_most_so_many_dialogues_are_learned_from_whatever_their_order(
    tmp_path: Path, model: Path, encoder: ChatEncoder
) -> None:
    file = write_run(tmp_path / "tea", dialogues=40) / "round-0" / "curated" / "train.parquet"
    some, other = (
        capped(tmp_path, model, dialogues=12),
        capped(tmp_path, model, dialogues=12, seed=1),
    )
    taken, made = some.taken(), learned(some, encoder)
    assert taken is not None
    assert len(taken) == len(made) == 12
    assert len(learned(capped(tmp_path, model, dialogues=400), encoder)) == 40
    assert taken != other.taken()
    assert taken < (capped(tmp_path, model, dialogues=20).taken() or set())
    table = pq.read_table(file)
    pq.write_table(table.take(list(reversed(range(40)))), file)
    assert capped(tmp_path, model, dialogues=12).taken() == taken
    assert learned(capped(tmp_path, model, dialogues=12), encoder) == made


def test_how_many_dialogues_are_learned_from_decides_what_a_training_is(
    tmp_path: Path, model: Path
) -> None:
    write_run(tmp_path / "tea", dialogues=4)
    whole, some = capped(tmp_path, model), capped(tmp_path, model, dialogues=3)
    assert len({whole.digest, some.digest, capped(tmp_path, model, dialogues=2).digest}) == 3
    assert some.digest == capped(tmp_path, model, dialogues=3).digest
    # What was trained before the limit was known is still what it was.
    settings = whole.section.model_dump_json(exclude=training._ELSEWHERE | {"dialogues"})
    assert whole.digest == digest(training.FORMAT, settings, whole.base, dump_json(whole.data))
    with pytest.raises(InputError, match=r"train\.dialogues"):
        capped(tmp_path, model, dialogues=0)


# -- TensorBoard


def test_tensorboard_files_are_left_in_the_training_folder(
    model: Path, encoder: ChatEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = encode(chats(4), encoder, 512)
    section = TrainSection(method="lora", window=512, max_steps=1, report_to=("tensorboard",))
    folder = Folder.of(tmp_path / "training")
    job = Job(section, lambda: model, 0, None, folder, "digest", Seats(1, 1, 0.0))

    class Here:
        """Ray Train's trainer: runs the one worker in this process, with its variables."""

        def __init__(self, work: Any, run_config: Any, **_: Any) -> None:
            self.variables = run_config.worker_runtime_env["env_vars"]

        def fit(self) -> Any:
            with monkeypatch.context() as patch:
                for name, text in self.variables.items():
                    patch.setenv(name, text)
                made = trained(model, examples, encode([], encoder, 512), section)[1]
            return SimpleNamespace(return_value=made)

    monkeypatch.delenv(BOARD_VARIABLE, raising=False)
    monkeypatch.setattr("ray.train.torch.TorchTrainer", Here)
    monkeypatch.setattr("ray.put", lambda value: value)
    assert launch(job, examples, examples).steps == 1
    assert list((tmp_path / "training" / "tensorboard").glob("events.*"))
    monkeypatch.setenv(BOARD_VARIABLE, str(tmp_path / "mine"))
    launch(job, examples, examples)
    assert list((tmp_path / "mine").glob("events.*"))


def test_tensorboard_files_have_a_place_or_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(BOARD_VARIABLE, raising=False)
    section = TrainSection(report_to=("tensorboard",))
    store = Folder(pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()), "bucket/training")
    (found,) = board_findings(section, store)
    assert str(found).startswith("train.report_to: error: 'tensorboard' writes to a disk")
    assert BOARD_VARIABLE in found.hint
    assert board_findings(TrainSection(), store) == []
    assert board(TrainSection(), Folder.of(tmp_path)) == ""
    assert board_findings(section, Folder.of(tmp_path)) == []
    monkeypatch.setenv(BOARD_VARIABLE, "~/boards")
    assert board_findings(section, store) == []
    assert board(section, store) == str(Path("~/boards").expanduser())
    monkeypatch.setenv(BOARD_VARIABLE, "s3://bucket/boards")
    assert board(section, store) == "s3://bucket/boards"


# -- the adapter's folder


def adapter(folder: Path, **more: Any) -> Path:
    manifest = {"base_model": "tiny", "base_digest": "abc", "method": "lora", **more}
    return write_adapter(folder, **manifest)


def test_an_adapter_is_refused_on_another_base(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter")
    assert check_adapter(folder, "tiny") == []
    (found,) = check_adapter(folder, "huge")
    assert "was trained on tiny, and would be put on huge" in str(found)
    assert check_adapter(folder, "/models/tiny", "abc") == []
    (found,) = check_adapter(folder, "tiny", "def")
    assert "trained on tiny, and would be put on tiny (def)" in str(found)
    (folder / "adapter_model.safetensors").unlink()
    assert "adapter_model" not in str(check_adapter(folder, "tiny")[0])
    assert "is not whole: *.safetensors is missing" in str(check_adapter(folder, "tiny")[0])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub's cache with a model acme/tiny at two commits; the file that names the newest."""
    from huggingface_hub import constants

    folder = tmp_path / "hub" / "models--acme--tiny"
    for commit in (A, B):
        (folder / "snapshots" / commit).mkdir(parents=True)
        (folder / "snapshots" / commit / "config.json").write_text('{"model_type": "llama"}')
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(A)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder / "refs" / "main"


def test_a_hubs_model_goes_by_its_commit(hub: Path) -> None:
    assert weights.commit("acme/tiny") == weights.commit("acme/tiny", "main") == A
    assert weights.commit("acme/tiny", B) == B
    assert weights.commit("acme/unknown") is None
    assert weights.base_digest("acme/tiny") == weights.base_digest("acme/tiny", A)
    assert weights.base_digest("acme/tiny") != weights.base_digest("acme/tiny", B)
    assert weights.base_digest("acme/unknown", "v1") == hub_digest("acme/unknown", "v1")
    hub.write_text(B)
    assert weights.base_digest("acme/tiny") == weights.base_digest("acme/tiny", B)


def test_an_adapter_says_which_commit_it_was_trained_on(
    hub: Path, encoder: ChatEncoder, tmp_path: Path
) -> None:
    write_run(tmp_path / "out" / "tea", dialogues=4)
    run = validate(
        {
            "run": {"name": "tea", "out": str(tmp_path / "out")},
            "domain": {"path": "recipe"},
            "engines": {"ref": {"kind": "reference"}},
            "roles": {"user": "ref", "agent": "ref"},
            "train": {"model": "acme/tiny"},
        },
        "test",
    )
    place = RunFolder.of(run)
    task = _task(run, place)
    examples = encode(chats(1), encoder, 512)
    fitted = Fitted(True, 0.0, 1, 1, 1, 1, 0, 9, 1.0, 0.5, None, 9)
    made = _manifest(task, fitted, examples, examples, 1.0)
    assert (made["base_model"], made["base_revision"]) == ("acme/tiny", A)
    folder = adapter(tmp_path / "adapter", **made)
    assert check_adapter(folder, "acme/tiny", weights.base_digest("acme/tiny")) == []
    assert task.section.revision == A  # what every worker loads, though the branch moves now:
    hub.write_text(B)
    assert _task(run, place).digest != task.digest
    (found,) = check_adapter(folder, "acme/tiny", weights.base_digest("acme/tiny"))
    assert "trained on another revision of acme/tiny" in found.message
    assert f'revision = "{A}"' in found.hint
    assert check_adapter(folder, "acme/tiny", weights.base_digest("acme/tiny", A)) == []


def test_bases_are_compared_by_what_is_known_of_both(tmp_path: Path) -> None:
    name, pinned = "acme/tiny", hub_digest("acme/tiny", A)
    known = adapter(
        tmp_path / "known",
        base_model=name,
        base_digest=pinned,
        base_revision=A,
        asked_revision="v1",
    )
    assert check_adapter(known, name, hub_digest(name, "v1")) == []  # the hub cannot be asked
    assert check_adapter(known, name, hub_digest(name, "v2")) != []
    assert check_adapter(known, "acme/huge", hub_digest("acme/huge", "v1")) != []
    old = hub_digest(name, "v1")  # before commits were recorded
    unknown = adapter(tmp_path / "old", base_model=name, base_digest=old, base_revision="v1")
    assert check_adapter(unknown, name, pinned) == []
    assert check_adapter(unknown, "acme/huge", hub_digest("acme/huge", A)) != []


def test_a_new_adapter_replaces_the_old_one_whole(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter", training="one")
    (folder / "left-over").write_text("x")
    adapter(folder, training="two")
    assert load_manifest(folder)["training"] == "two"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]
    assert not (folder / "left-over").exists()


def test_a_folder_that_is_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no manifest\.json"):
        load_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"format": "another"}))
    assert "is not Duologue's" in str(check_adapter(tmp_path, "tiny")[0])
    (tmp_path / "manifest.json").write_text("{")
    assert "cannot be read" in str(check_adapter(tmp_path, "tiny")[0])


def test_a_run_is_refused_before_its_dialogues_where_its_training_finds_no_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    joined: list[str | None] = []

    @contextlib.contextmanager
    def ray_session(address: str | None) -> Iterator[None]:
        joined.append(address)
        yield

    nodes = [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 4.0}}]
    monkeypatch.setattr("cluster.session.ray_session", ray_session)
    monkeypatch.setattr("ray.nodes", lambda: nodes)

    def messages(**train: Any) -> list[str]:
        data = {
            "run": {"name": "tea"},
            "domain": {"path": "recipe"},
            "engines": {"writer": {"gpus": 4}},
            "roles": {"user": "writer", "agent": "writer"},
            "cluster": {"address": "auto"},
            "train": {"method": "lora", **train},
        }
        return [str(finding) for finding in unplaced(validate(data, "run.toml"))]

    assert messages() == []
    assert joined == []  # one worker finds its place: Ray need not be started to know
    assert messages(workers=4) == []
    assert joined == ["auto"]
    assert "8 workers with 1 GPUs each need 8" in messages(workers=8)[0]
    assert "the engines hold 4 of 4 GPUs" in messages(gpus="own")[0]
