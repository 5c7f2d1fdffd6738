"""One worker's training loop: transformers' Trainer over passes whose order is known beforehand.

Invariants: a checkpoint holds all that decides what comes after it (weights, optimizer, schedule,
random states of all workers, figures so far, the best weights); whoever goes on from it makes the
same steps as whoever was never interrupted; the losses of a step count once.

`fit` knows nothing of Ray: `Place` says which worker this is and where checkpoints go.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specs.chat_template import IGNORED
from specs.run_file import TrainSection
from trainer.data import Course, Examples, Layout, Passes, validation_passes
from trainer.packing import Batch, keeps_apart, narrowed, narrows

LOGGED = 200
"""About how many times the loss is written down."""

_BEST = "best.safetensors"
_STATE = "trainer_state.json"

Report = Callable[[Mapping[str, Any], Path], None]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Which worker this is.

    Attributes:
        report: takes a checkpoint's figures and folder; every worker calls it at the same steps.
        note: takes all rows of the log so far, on the first worker.
        resume: the folder of the checkpoint to go on from.
    """

    rank: int = 0
    workers: int = 1
    gpu: bool = False
    report: Report = lambda figures, folder: None
    note: Callable[[Sequence[Row]], None] = lambda rows: None
    resume: Path | None = None


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came of a training.

    Attributes:
        packed: whether examples were packed; the model may not keep them apart.
        padding: share of padding in the forward passes.
        steps: optimizer steps made, of `planned`.
        tokens: without padding, of all steps and workers.
        seconds: of all steps, without validation and checkpoints.
        taken: the step whose weights were taken: the last, or the best.
        resumed: the step of the checkpoint from which the last attempt went on; 0 for none.
    """

    packed: bool
    padding: float
    sequences: int
    steps: int
    planned: int
    taken: int
    resumed: int
    tokens: int
    seconds: float
    loss: float | None
    validation_loss: float | None
    trainable: int
    log: list[Row] = field(default_factory=list)

    @property
    def tokens_s(self) -> float:
        """Tokens a second, without padding."""
        return self.tokens / self.seconds if self.seconds else 0.0


def stale(losses: Sequence[float]) -> int:
    """Return how many evaluations have passed since the lowest validation loss."""
    return len(losses) - 1 - losses.index(min(losses)) if losses else 0


def fit(
    section: TrainSection,
    model: Any,
    pad: int,
    train: Examples,
    validation: Examples,
    place: Place,
) -> Fitted:
    """Train a model in place, and leave it with the weights to keep.

    Args:
        model: of `weights.build`.
        pad: the id that padding is made of.
        validation: may be empty; then nothing stops the training early.
    """
    vocabulary = model.get_input_embeddings().num_embeddings
    packed = section.packing and keeps_apart(model, vocabulary)
    course = Course.of(Layout.of(train.lengths, section, place.workers, packed), section)
    with tempfile.TemporaryDirectory(prefix="duologue-train-") as folder:
        smoothed = section.trainer.get("label_smoothing_factor")  # shifts labels by itself
        shape = narrowed if not smoothed and narrows(model, vocabulary) else _whole
        keeper = _Keeper(section, course, validation, place, pad, Path(folder), shape)
        trainer = _trainer(keeper, model, Passes(train, course, place.rank, pad))
        keeper.attend(trainer)
        if place.resume is None or not _stopped(section, place.resume):
            trainer.train(resume_from_checkpoint=str(place.resume) if place.resume else None)
        else:
            keeper.restore(place.resume)
        return keeper.finished()


def _whole(batch: Batch) -> Batch:
    return batch


def _stopped(section: TrainSection, checkpoint: Path) -> bool:
    """Whether the training that a checkpoint is of had stopped early."""
    if section.patience is None:
        return False
    losses = [row["eval_loss"] for row in _history(checkpoint) if "eval_loss" in row]
    return stale(losses) >= section.patience


def _history(checkpoint: Path) -> list[Row]:
    rows: list[Row] = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))["log_history"]
    return rows


def arguments(
    section: TrainSection, steps: int, folder: str, gpu: bool, workers: int
) -> dict[str, Any]:
    """Return the TrainingArguments of a section, by name; what `train.trainer` says wins."""
    warmup = round(section.warmup * steps)
    constant = "constant_with_warmup" if warmup else "constant"
    half_weights = section.method != "full"
    ours: dict[str, Any] = {
        "output_dir": folder,
        "max_steps": steps,
        "per_device_train_batch_size": section.batch,
        "gradient_accumulation_steps": section.accumulate,
        "learning_rate": section.learning_rate,
        "lr_scheduler_type": constant if section.schedule == "constant" else section.schedule,
        "warmup_steps": warmup,
        "weight_decay": section.weight_decay,
        "max_grad_norm": 1.0,
        "logging_steps": max(1, steps // LOGGED),
        "logging_first_step": True,
        "eval_strategy": "no",  # when to evaluate and to save is decided by our own callback
        "save_strategy": "no",
        "seed": section.seed,
        "data_seed": section.seed,
        "report_to": list(section.report_to) or "none",
        "disable_tqdm": True,
        "use_cpu": not gpu,
        "bf16": gpu and not half_weights,
        "remove_unused_columns": False,
        "ddp_find_unused_parameters": False,
        "ddp_broadcast_buffers": False,
        "average_tokens_across_devices": True,
    }
    if workers > 1 and not gpu:
        ours["ddp_backend"] = "gloo"
    return {**ours, **section.trainer}


class _Keeper:
    """Decides what happens between steps, and keeps the figures and the best weights."""

    def __init__(
        self,
        section: TrainSection,
        course: Course,
        validation: Examples,
        place: Place,
        pad: int,
        folder: Path,
        shape: Callable[[Batch], Batch],
    ) -> None:
        self.section, self.course, self.place, self.folder = section, course, place, folder
        self.shape = shape
        self._validation, self._pad = validation, pad
        self._tokens = [0, *itertools.accumulate(course.tokens())]
        self._seconds, self._since = 0.0, 0.0
        self._best: dict[str, Any] | None = None
        self._taken, self._resumed = 0, 0
        self.trainer: Any = None

    def attend(self, trainer: Any) -> None:
        """Take the Trainer, and of a checkpoint to resume what the Trainer does not know of it."""
        self.trainer = trainer
        path = self.place.resume
        if path is None:
            return
        from safetensors.torch import load_file

        rows = _history(path)
        self._resumed = max((int(row["step"]) for row in rows), default=0)
        self._seconds = max((row.get("seconds", 0.0) for row in rows), default=0.0)
        if self.section.patience is not None and (path / _BEST).is_file():
            evaluated = [row for row in rows if "eval_loss" in row]
            self._taken = min(evaluated, key=lambda row: float(row["eval_loss"]))["step"]
            self._best = load_file(path / _BEST)

    # -- what the Trainer calls

    def begin_step(self) -> None:
        """A step begins."""
        self._since = time.perf_counter()

    def end_step(self, step: int, control: Any) -> None:
        """Say what is to be done behind a step."""
        self._seconds += time.perf_counter() - self._since
        if step >= self.course.steps or step % self.section.checkpoint_steps == 0:
            control.should_log = control.should_save = True
            control.should_evaluate = len(self._validation) > 0

    def logged(self, logs: dict[str, float]) -> dict[str, float]:
        """Return a row of the log with our own figures."""
        state = self.trainer.state
        state.epoch = round(self.course.epochs_at(state.global_step), 4)
        done = self._tokens[state.global_step]
        return {**logs, "tokens": done, "seconds": round(self._seconds, 3)}

    def note(self) -> None:
        """Write the log down."""
        if self.place.rank == 0:
            self.place.note(self.rows())

    def evaluate(self) -> dict[str, float]:
        """Return the validation loss: the mean over all trained tokens of all workers."""
        trainer = self.trainer
        trainer.model.eval()
        total = self._total()
        trainer.model.train()
        total = trainer.accelerator.reduce(total.to(trainer.args.device), "sum")
        loss = float(total[0] / total[1])
        trainer.log({"eval_loss": loss})
        trainer.control = trainer.callback_handler.on_evaluate(
            trainer.args, trainer.state, trainer.control, {"eval_loss": loss}
        )
        self._consider()
        return {"eval_loss": loss}

    def save(self, step: int) -> None:
        """Hand a checkpoint on that the Trainer has written."""
        path = self.folder / f"checkpoint-{step}"
        if self.place.rank == 0 and self._best is not None:
            from safetensors.torch import save_file

            save_file(self._best, path / _BEST)
        self.place.report({"step": step}, path)
        shutil.rmtree(path, ignore_errors=True)

    # -- the best weights

    def _total(self) -> Any:
        """Return this worker's sum of losses, and over how many tokens; float64 of shape (2,)."""
        import torch

        course, place, trainer = self.course, self.place, self.trainer
        passes = validation_passes(
            self._validation, self.section, place.workers, course.layout.packed, place.rank,
            self._pad,
        )  # fmt: skip
        total = torch.zeros(2, dtype=torch.float64)
        with torch.no_grad():
            for batch in map(self.shape, passes):
                count = int((batch["labels"] != IGNORED).sum())
                if count:
                    loss = trainer.model(**trainer._prepare_inputs(batch)).loss
                    total += torch.tensor([float(loss) * count, count])
        return total

    def _consider(self) -> None:
        """Keep the weights if these are the best so far; stop when patience is at its end."""
        if self.section.patience is None:
            return
        waited = stale(self._losses())
        if waited == 0:
            self._taken = self.trainer.state.global_step
            if self.place.rank == 0:
                self._best = {name: one.detach().cpu().clone() for name, one in self._trained()}
        elif waited >= self.section.patience:
            self.trainer.control.should_training_stop = True

    def _losses(self) -> list[float]:
        rows = self.trainer.state.log_history
        return [float(row["eval_loss"]) for row in rows if "eval_loss" in row]

    def _trained(self) -> list[tuple[str, Any]]:
        named = self.trainer.model.named_parameters()
        return [(name, value) for name, value in named if value.requires_grad]

    # -- the end

    def rows(self) -> list[Row]:
        """Return the log."""
        return log_rows(self.trainer.state.log_history)

    def restore(self, path: Path) -> None:
        """Take a checkpoint's figures and weights without training on."""
        from transformers.trainer_callback import TrainerState

        self.trainer.state = TrainerState.load_from_json(str(path / _STATE))
        self.trainer._load_from_checkpoint(str(path), self.trainer.model)

    def finished(self) -> Fitted:
        """Put the weights to keep in place, and return what came of it all."""
        import torch

        if self._best is not None:
            with torch.no_grad():
                for name, value in self._trained():
                    value.copy_(self._best[name])
        self.note()
        rows, losses, layout = self.rows(), self._losses(), self.course.layout
        step = self.trainer.state.global_step
        best = self.section.patience is not None
        return Fitted(
            packed=layout.packed,
            padding=layout.padding(),
            sequences=len(layout.sequences),
            steps=step,
            planned=self.course.steps,
            taken=self._taken or step,
            resumed=self._resumed,
            tokens=self._tokens[step],
            seconds=self._seconds,
            loss=next((row["loss"] for row in reversed(rows) if "loss" in row), None),
            validation_loss=(min(losses) if best else losses[-1]) if losses else None,
            trainable=sum(value.numel() for _, value in self._trained()),
            log=rows,
        )


def _trainer(keeper: _Keeper, model: Any, passes: Passes) -> Any:
    import torch
    from torch.utils.data import DataLoader
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    class Between(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            keeper.begin_step()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            keeper.end_step(state.global_step, control)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            keeper.save(state.global_step)

    class Loop(Trainer):
        def get_train_dataloader(self) -> Any:
            # Its own generator: an iterator would draw from the one that dropout draws from.
            return DataLoader(
                passes,  # type: ignore[arg-type]  # it has all that a dataset needs
                collate_fn=lambda batches: keeper.shape(batches[0]),
                generator=torch.Generator(),
                pin_memory=keeper.place.gpu,
            )

        def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
            return keeper.evaluate()

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            if "train_runtime" not in logs:  # closing figures that ignore what was before a resume
                super().log(keeper.logged(logs), start_time)
                keeper.note()

    steps, place = keeper.course.steps, keeper.place
    settings = arguments(keeper.section, steps, str(keeper.folder), place.gpu, place.workers)
    args = TrainingArguments(**settings)
    trainer = Loop(model=model, args=args, train_dataset=passes, callbacks=[Between()])
    trainer.remove_callback(PrinterCallback)
    return trainer


def log_rows(history: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the Trainer's history as the log's rows, one a step, with tokens a second."""
    merged: dict[int, Row] = {}
    for row in history:
        merged.setdefault(int(row["step"]), {}).update(row)
    rows: list[Row] = []
    tokens, seconds = 0, 0.0
    for step, row in sorted(merged.items()):
        took = row["seconds"] - seconds
        speed = (row["tokens"] - tokens) / took if took > 0 else 0.0
        tokens, seconds = row["tokens"], row["seconds"]
        names = ("epoch", "loss", "eval_loss", "learning_rate", "grad_norm", "tokens", "seconds")
        kept = {name: row[name] for name in names if name in row}
        rows.append({"step": step, **kept, "tokens_s": round(speed, 1)})
    return rows
