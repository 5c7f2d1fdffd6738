"""Training on Ray Train: what can be refused before it starts, where it runs, and how it goes on.

Invariants: workers that the cluster can never have are refused, not waited for; a worker or a
driver that dies costs the steps since the last checkpoint and nothing else.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from specs.errors import DuologueError, Finding, InputError, Where, nearest
from specs.gpus import ROUNDING, room
from specs.parts import Folder
from specs.run_file import TrainSection
from trainer import weights
from trainer.adapter import failure, upload
from trainer.board import BOARD_VARIABLE, board
from trainer.data import DataFigures, Examples
from trainer.loop import Fitted, Place, Row, arguments, fit

LOG = "log.jsonl"
FAILURES = "failures.jsonl"
NOTE_S = 1.0
"""The log is written down at most this often."""

PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}
"""For workers on the CPU: torch's and bitsandbytes' threads wait for each other asleep. By default
they spin, and where anything else wants the cores a step of QLoRA takes 13 times as long."""

_OURS = {
    "output_dir": "run.out", "max_steps": "train.max_steps", "num_train_epochs": "train.epochs",
    "per_device_train_batch_size": "train.batch",
    "gradient_accumulation_steps": "train.accumulate", "learning_rate": "train.learning_rate",
    "lr_scheduler_type": "train.schedule", "warmup_steps": "train.warmup",
    "weight_decay": "train.weight_decay", "seed": "train.seed", "report_to": "train.report_to",
    "gradient_checkpointing": "train.gradient_checkpointing",
    "eval_strategy": "train.checkpoint_steps", "eval_steps": "train.checkpoint_steps",
    "save_strategy": "train.checkpoint_steps", "save_steps": "train.checkpoint_steps",
    "load_best_model_at_end": "train.patience", "use_cpu": "train.gpus_per_worker",
    "disable_tqdm": "", "resume_from_checkpoint": "",
}  # fmt: skip
"""Arguments of the Trainer that Duologue sets, and the keys that stand for them."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a cluster has, or could have where it grows by itself.

    Attributes:
        cpus, gpus: of each node.
        most_cpus, most_gpus: of all nodes that there could be; 0 where the cluster does not grow.
        engine_gpus: that the run's engines hold while they run.
    """

    cpus: tuple[float, ...]
    gpus: tuple[float, ...] = ()
    most_cpus: float = 0.0
    most_gpus: float = 0.0
    largest_gpus: float = 0.0
    engine_gpus: float = 0.0

    @property
    def all_gpus(self) -> float:
        """The GPUs of all nodes that there are or could be."""
        return max(sum(self.gpus), self.most_gpus)


@dataclass(frozen=True, slots=True)
class Seats:
    """What each worker gets; `cores` is also its number of threads."""

    workers: int
    cores: int
    gpus: float


def seats(section: TrainSection, resources: Resources) -> Seats:
    """Return what each worker gets: where there are no GPUs, an equal share of the cores."""
    gpus = section.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if resources.all_gpus else 0.0
    cores = 1
    while _room(gpus, cores + 1, resources) >= section.workers:
        cores += 1
    return Seats(section.workers, min(cores, 8) if gpus else cores, gpus)


def _room(gpus: float, cores: int, resources: Resources) -> int:
    """Return how many workers with so much each the nodes take; one lies on one node."""
    return sum(
        min(int(cpus // cores), room(gpus, there)) if gpus else int(cpus // cores)
        for cpus, there in itertools.zip_longest(resources.cpus, resources.gpus, fillvalue=0.0)
    )


def plan_training(
    section: TrainSection, figures: DataFigures, resources: Resources
) -> list[Finding]:
    """Return everything that keeps a training from starting; nothing when it can.

    Args:
        figures: of the train split.
    """
    return [
        *_data_findings(section, figures),
        *place_findings(section, resources),
        *setting_findings(section),
    ]


def setting_findings(section: TrainSection) -> list[Finding]:
    """Return what is wrong with the settings, whatever is trained on, and wherever."""
    return [*_package_findings(section), *_argument_findings(section)]


def _finding(key: str, message: str, hint: str = "") -> Finding:
    return Finding(Where(key), message, hint)


class NothingToLearn(InputError):
    """The dialogues hold nothing that can be learned from, and nothing else is in the way."""


def _data_findings(section: TrainSection, figures: DataFigures) -> list[Finding]:
    if figures.trained_tokens:
        return []
    message = "holds no dialogues to learn from"
    hint = "Play more dialogues, or hold fewer documents back (curate.test, curate.validation)."
    if figures.dialogues:
        message = (
            f"none of its {figures.dialogues} dialogues can be learned from: no turn fits "
            f"{section.window} tokens, or the agent says nothing"
        )
        hint = "Set a larger train.window."
    return [_finding("curated/train.parquet", message, hint)]


def place_findings(section: TrainSection, resources: Resources) -> list[Finding]:
    """Return why the workers would find no place; nothing when they do."""
    given = seats(section, resources)
    wanted, there = given.gpus * given.workers, resources.all_gpus
    # Nodes that are still to come may be of any size.
    growing = there > sum(resources.gpus)
    places = sum(room(given.gpus, gpus) for gpus in resources.gpus) if given.gpus else 0
    found = []
    if wanted > there + ROUNDING:
        message = (
            f"{given.workers} workers with {given.gpus:g} GPUs each need {wanted:g}, and the "
            f"cluster has {there:g}: they would wait for ever"
        )
        found.append(_finding("train.workers", message, "Lower workers or gpus_per_worker."))
    elif given.gpus > (largest := max(resources.largest_gpus, *resources.gpus, 0.0)) + ROUNDING:
        message = (
            f"a worker with {given.gpus:g} GPUs finds room on no node: none has more than "
            f"{largest:g}"
        )
        found.append(_finding("train.gpus_per_worker", message, "Take more workers with fewer."))
    elif given.gpus and places < given.workers and not growing:
        have = ", ".join(f"{gpus:g}" for gpus in resources.gpus)
        message = (
            f"only {places} of {given.workers} workers with {given.gpus:g} GPUs each find room: a "
            f"share of a GPU lies on one GPU, and whole GPUs on one node (the nodes have {have})"
        )
        found.append(_finding("train.workers", message, "Lower workers or gpus_per_worker."))
    elif section.gpus == "own" and wanted and wanted + resources.engine_gpus > there + ROUNDING:
        message = (
            f'gpus = "own": the engines hold {resources.engine_gpus:g} of {there:g} GPUs, '
            f"and the training needs {wanted:g} beside them: it would wait for ever"
        )
        hint = 'Say gpus = "shared": training takes the GPUs over when the engines have stopped.'
        found.append(_finding("train.gpus", message, hint))
    cores = _room(0, given.cores, resources)
    if resources.most_cpus > sum(resources.cpus):
        cores = max(cores, int(resources.most_cpus // given.cores))
    if cores < given.workers:
        message = f"{given.workers} workers need a core each, and the cluster has {cores}"
        found.append(_finding("train.workers", message, "Lower workers."))
    both = _room(given.gpus, given.cores, resources)
    if given.gpus and not found and not growing and both < given.workers:
        message = (
            f"only {both} of {given.workers} workers find a core on the nodes where the GPUs are"
        )
        found.append(_finding("train.workers", message, "Lower workers."))
    return found


def _package_findings(section: TrainSection) -> list[Finding]:
    if section.method != "qlora" or importlib.util.find_spec("bitsandbytes"):
        return []
    message = 'method = "qlora" needs the package bitsandbytes, which is not installed'
    return [_finding("train.method", message, 'pip install bitsandbytes, or method = "lora".')]


def _argument_findings(section: TrainSection) -> list[Finding]:
    weights.quiet()
    import torch
    from transformers import TrainingArguments
    from transformers.integrations import integration_utils

    known = {one.name for one in dataclasses.fields(TrainingArguments) if one.init}
    found = []
    for key in section.trainer:
        where = f"train.trainer.{key}"
        if key in _OURS:
            hint = f"Set {_OURS[key]} instead." if _OURS[key] else ""
            found.append(_finding(where, "is set by Duologue itself", hint))
        elif key not in known:
            message = f"transformers has no such training argument{nearest(key, known)}"
            found.append(_finding(where, message))
    integrations: Any = integration_utils
    there = integrations.get_available_reporting_integrations() if section.report_to else []
    for name in section.report_to:
        if name not in there:
            message = f"{name!r} is not installed, or transformers does not know it"
            hint = f"There are: {', '.join(there) or 'none'}."
            found.append(_finding("train.report_to", message, hint))
    if not found and section.trainer:
        gpu = torch.cuda.is_available()
        try:
            with tempfile.TemporaryDirectory() as folder:
                TrainingArguments(**arguments(section, 1, folder, gpu, 1))
        except (ValueError, TypeError, ImportError) as error:
            found.append(_finding("train.trainer", f"transformers refuses it: {error}"))
    return found


def check_model(section: TrainSection, place: Path | str, name: str) -> list[Finding]:
    """Return what does not fit between a model and the settings, without loading its weights.

    Args:
        place: its folder or hub id; `name`: as the run file gives it.
    """
    try:
        config, layers = weights.skeleton(place, section.revision)
    except DuologueError as error:
        return [_finding("train.model", str(error))]
    found = []
    most = getattr(config, "max_position_embeddings", None)
    if isinstance(most, int) and section.window > most:
        message = f"{section.window} tokens are more than {name} takes: {most}"
        found.append(_finding("train.window", message, f"Set window = {most} or less."))
    if section.method == "full" or isinstance(section.targets, str):
        return found
    leaves = sorted({layer.rpartition(".")[2] for layer in layers})
    for target in weights.unmatched(section.targets, layers):
        message = f"{name} has no layer {target!r}{nearest(target, leaves)}"
        found.append(_finding("train.targets", message, f"It has: {', '.join(leaves)}."))
    return found


# -- running


@dataclass(frozen=True, slots=True)
class Job:
    """What every worker is given.

    Attributes:
        load: returns the base model's folder or hub id, on whichever node it is called.
        pad: the id that padding is made of.
        tokenizer: whose files go with the adapter.
        folder: of the training: checkpoints, the log, and the result when it is complete.
        digest: of all that decides the result: checkpoints of another are not gone on from.
    """

    section: TrainSection
    load: Callable[[], Path | str]
    pad: int
    tokenizer: Any
    folder: Folder
    digest: str
    seats: Seats

    @property
    def attempt(self) -> str:
        """The name of the folder in which Ray Train keeps the checkpoints."""
        return self.digest[:16]

    @property
    def checkpoints(self) -> Folder:
        """Where the checkpoints are."""
        return self.folder.child("checkpoints")

    @property
    def result(self) -> Folder:
        """Where the adapter's files are put together."""
        return self.folder.child("_result")


def launch(job: Job, train: Examples, validation: Examples) -> Fitted:
    """Train on the cluster that this process has joined; goes on from the last checkpoint.

    Blocks until it is done. Ray Train's handler for Ctrl-C is only put up on the main thread: call
    it on another, so that an interruption is seen here.

    Raises:
        DuologueError: it failed, and went on failing after the retries.
    """
    import ray
    import ray.train.torch
    from ray.train.v2.api.exceptions import TrainingFailedError

    from trainer.failures import Failures

    api: Any = ray.train  # its types are those of its old version, of which it exports the new

    given = job.seats
    each: dict[str, float] = {"CPU": given.cores}
    if given.gpus:
        each["GPU"] = given.gpus
    job.checkpoints.create()
    variables = {} if given.gpus else dict(PATIENT)
    if place := board(job.section, job.folder):
        variables[BOARD_VARIABLE] = place
    trainer = api.torch.TorchTrainer(
        work,
        train_loop_config={"job": job, "train": ray.put(train), "validation": ray.put(validation)},
        scaling_config=api.ScalingConfig(
            num_workers=given.workers, use_gpu=bool(given.gpus), resources_per_worker=each
        ),
        run_config=api.RunConfig(
            name=job.attempt,
            storage_path=job.checkpoints.path,
            storage_filesystem=job.checkpoints.fs,
            failure_config=api.FailureConfig(max_failures=job.section.retries),
            checkpoint_config=api.CheckpointConfig(num_to_keep=2),
            logging_config=api.LoggingConfig(log_level="ERROR"),
            callbacks=[Failures(job.folder)],
            worker_runtime_env={"env_vars": variables} if variables else None,
        ),
    )
    try:
        result = trainer.fit()
    except (TrainingFailedError, ray.exceptions.RayError, OSError) as error:
        raise failure(error, job.folder.path) from error
    fitted = result.return_value
    if not isinstance(fitted, Fitted):
        raise DuologueError("training ended without a result")
    return fitted


def work(config: Mapping[str, Any]) -> Fitted:
    """Train as one of Ray Train's workers; the first leaves the result in its folder."""
    import ray
    import torch
    from ray import train

    weights.quiet()
    job: Job = config["job"]
    context = train.get_context()
    rank, gpu = context.get_world_rank(), job.seats.gpus > 0
    torch.set_num_threads(job.seats.cores)
    seed(job.section.seed)
    log = _Log(job.folder)
    place = Place(
        rank=rank, workers=context.get_world_size(), gpu=gpu, report=_report, note=log.note
    )
    examples, validation = ray.get([config["train"], config["validation"]])
    model = weights.build(job.section, job.load(), gpu)
    checkpoint = train.get_checkpoint()
    if checkpoint is None:
        fitted = fit(job.section, model, job.pad, examples, validation, place)
    else:
        with checkpoint.as_directory() as folder:
            resumed = replace(place, resume=Path(folder))
            fitted = fit(job.section, model, job.pad, examples, validation, resumed)
    if rank == 0:
        log.write(fitted.log)
        _save(job, model)
    return fitted


def seed(number: int) -> None:
    """Seed every random generator that training draws from."""
    from transformers import set_seed

    set_seed(number)


def _report(figures: Mapping[str, Any], folder: Path) -> None:
    from ray import train

    train.report(dict(figures), checkpoint=train.Checkpoint.from_directory(folder))
    # Ray Train hears of it a second or two later; of a worker that died before, it would be lost.
    train.get_all_reported_checkpoints(train.CheckpointConsistencyMode.COMMITTED)


def _save(job: Job, model: Any) -> None:
    import torch

    with tempfile.TemporaryDirectory(prefix="duologue-adapter-") as folder:
        if job.section.method == "full":
            model.to(torch.bfloat16)
        model.save_pretrained(folder)
        job.tokenizer.save_pretrained(folder)
        for name in ("README.md",):  # peft's empty model card
            Path(folder, name).unlink(missing_ok=True)
        upload(Path(folder), job.result)


class _Log:
    """Writes the log of losses down, whole each time: object stores cannot append."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._next = 0.0

    def note(self, rows: Sequence[Row]) -> None:
        if time.monotonic() >= self._next:
            self.write(rows)
            self._next = time.monotonic() + NOTE_S

    def write(self, rows: Sequence[Row]) -> None:
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        self._folder.write_bytes(LOG, text.encode())


def read_log(folder: Folder) -> list[Row]:
    """Return the rows of a training's log so far; none where there is none."""
    return _rows(folder, LOG)


def read_failures(folder: Folder) -> list[Row]:
    """Return which `workers` failed, by rank, and what was `said` of it, oldest first."""
    return _rows(folder, FAILURES)


def _rows(folder: Folder, name: str) -> list[Row]:
    try:
        lines = folder.read_bytes(name).decode().splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]
