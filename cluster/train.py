"""`duologue train`: fine-tune an adapter on a run's training examples, with Ray Train.

Invariants: the adapter that is there stays until a new one is complete; the same command goes on
from the last checkpoint, unless what decides the result has changed (`--fresh` starts over).
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click

from actors.engines.models import load_tokenizer, resolve_model
from cluster.nodes import Nodes, nodes_of
from cluster.progress import duration
from cluster.run_folder import RunFolder
from specs.chat_template import ChatEncoder
from specs.errors import DuologueError, EngineError, Finding, InputError, Where
from specs.parts import Folder
from specs.records import dump_json
from specs.run_file import RunFile, TrainSection
from specs.seeds import digest
from trainer.adapter import MANIFEST, check_adapter, free_bytes, publish, published
from trainer.board import BOARD, board, board_findings
from trainer.chat_file import ChatFile
from trainer.data import Examples, drawn, encode
from trainer.loop import Fitted, Row
from trainer.mixture import Mixture, mix
from trainer.split import SPLITS
from trainer.training import (
    FAILURES,
    LOG,
    Job,
    NothingToLearn,
    Resources,
    check_model,
    launch,
    place_findings,
    plan_training,
    read_failures,
    read_log,
    seats,
    setting_findings,
)
from trainer.weights import base_digest, commit, merge, quiet

FORMAT = "1"
"""Goes up when the same data and settings would be trained on otherwise than before."""

WATCH_S = 2.0
TOLD_S = 15.0
"""How often the training's log is looked at, and how often a line is printed of it."""

SPARE = 256 * 1024 * 1024
"""Bytes that must be free beside the checkpoints."""

_CURATE = "Curate the run's dialogues first: duologue curate RUN.toml"
_PACKAGES = ("duologue", "torch", "transformers", "peft", "bitsandbytes", "accelerate", "ray")
PLACEMENT = {"report_to", "merge", "gpus", "gpus_per_worker", "retries"}
"""Settings that do not decide the result."""

_ELSEWHERE = PLACEMENT | {"model", "revision"}
"""What a training is not known by: the base model counts by its digest."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training left.

    Attributes:
        folder: that holds the adapter.
        manifest: the content of its `manifest.json`.
        again: nothing was done: it was there already.
    """

    folder: Folder
    manifest: Mapping[str, Any]
    again: bool = False


@dataclass(slots=True)
class _Task:
    """One training: what it is made from.

    Attributes:
        section: with the base model's name, and the commit that a hub's model is at now: workers
            load that one, however long they wait and whatever the hub has by then.
        asked: the revision as it was asked for.
    """

    run: RunFile
    round: Folder
    section: TrainSection
    name: str
    asked: str | None
    place: Path | str
    base: str
    train: Mixture
    validation: ChatFile | None
    data: dict[str, str] = field(default_factory=dict)

    @property
    def adapter(self) -> Folder:
        return self.round.child("adapter")

    @property
    def folder(self) -> Folder:
        return self.round.child("training")

    def taken(self) -> frozenset[str] | None:
        """Return the ids of the dialogues that are learned from; None for all."""
        most = self.section.dialogues
        if most is None:
            return None
        return drawn((one.walk_id for one in self.train.origins()), most, self.section.seed)

    @property
    def digest(self) -> str:
        """Of all that decides the result."""
        # Without a limit there is no word of it: what was trained before it was known still counts.
        unsaid = {"dialogues"} if self.section.dialogues is None else set()
        settings = self.section.model_dump_json(exclude=_ELSEWHERE | unsaid)
        return digest(FORMAT, settings, self.base, dump_json(self.data))


def command(run: RunFile, fresh: bool) -> None:
    """Train, and print what came of it."""
    trained = train(run, fresh, lambda text: click.echo(text, err=True))
    click.echo(f"\n{trained.folder.path}")
    for line in summary(trained.manifest):
        click.echo(line)


def train(run: RunFile, fresh: bool, say: Say) -> Trained:
    """Train an adapter on a run's curated dialogues, unless that is done already.

    Args:
        fresh: start over, whatever is there.
        say: takes lines of progress.

    Raises:
        InputError: with everything that keeps it from starting.
        DuologueError: it failed; what is durable stays.
    """
    from cluster.rounds import refuse_successors

    folder = RunFolder.of(run)
    with folder.hold():
        task = _task(run, folder)
        there = published(task.adapter)
        if there is not None and there.get("training") == task.digest and not fresh:
            say("the adapter is there already, made from the same (--fresh trains it again)")
            if run.train.merge:
                _merge(task, there, say)
            return Trained(task.adapter, there, again=True)
        refuse_successors(folder)
        if fresh:
            _forget(task.folder)
        manifest = _train(task, folder, say)
        if run.train.merge:
            _merge(task, manifest, say)
        return Trained(task.adapter, manifest)


# -- before it starts


def base_model(run: RunFile) -> tuple[str, str | None]:
    """Return the name and the revision of the model that a run trains.

    Raises:
        InputError: the run names none.
    """
    if run.train.model is not None:
        return run.train.model, run.train.revision
    engine = run.engines[run.roles.agent]
    if engine.kind == "vllm":
        return engine.model, engine.revision
    message = f"the agent is played by an engine of the kind {engine.kind!r}, which has no weights"
    hint = "Name the model to train: --set train.model=smollm2-135m"
    raise InputError([Finding(Where("train.model"), message, hint)])


def unfit(run: RunFile) -> list[Finding]:
    """Return what keeps a run's training from working, wherever it runs and whatever it learns."""
    training = RunFolder.of(run).round().child("training")
    findings = [*setting_findings(run.train), *board_findings(run.train, training)]
    try:
        name, revision = base_model(run)
    except InputError as error:
        return [*findings, *error.findings]
    place, missing = _resolved(name, revision)
    if missing:
        return [*findings, *missing]
    return [*findings, *check_model(run.train, place, name)]


def unplaced(run: RunFile) -> list[Finding]:
    """Return why the workers of a run's training would wait for ever in its cluster."""
    if fits_anywhere(run.train):
        return []  # Ray takes seconds to start
    from cluster.session import ray_session

    with ray_session(run.cluster.address):
        return place_findings(run.train, resources(run))


def fits_anywhere(section: TrainSection) -> bool:
    """Whether a training finds its place wherever there is a core."""
    return section.workers == 1 and not section.gpus_per_worker and section.gpus == "shared"


def _resolved(name: str, revision: str | None) -> tuple[Path | str, list[Finding]]:
    try:
        return resolve_model(name, revision), []
    except EngineError as error:
        return "", [Finding(Where("train.model"), str(error))]


def _task(run: RunFile, folder: RunFolder) -> _Task:
    name, revision = base_model(run)
    place, findings = _resolved(name, revision)
    curated = folder.round().child("curated")
    files: dict[str, ChatFile] = {}
    # What is tested on matters to what earlier rounds lend, and to nothing else here.
    for side in SPLITS if run.rounds.earlier else ("train", "validation"):
        try:
            files[side] = ChatFile.open(curated, f"{side}.parquet")
        except FileNotFoundError:
            if side == "train":
                where = Where(curated.file("train.parquet"))
                findings.append(Finding(where, "there are no training examples", _CURATE))
        except InputError as error:
            findings += error.findings
    if findings:
        raise InputError(findings)
    pinned = (commit(place, revision) if isinstance(place, str) else None) or revision
    section = run.train.model_copy(update={"model": name, "revision": pinned})
    base = base_digest(place, pinned)
    train_, held = files.pop("train"), files.get("validation")
    earlier = _earlier(folder) if run.rounds.earlier else []
    mixture = mix(train_, earlier, files.values(), run.rounds.earlier, section.seed)
    data = mixture.digests() | ({"validation": held.digest()} if held else {})
    return _Task(run, folder.round(), section, name, revision, place, base, mixture, held, data)


def _earlier(folder: RunFolder) -> list[ChatFile]:
    """Return the train splits of the promoted rounds before this one."""
    found = []
    for number in range(folder.number):
        before = folder.at_round(number)
        verdict = before.note().verdict
        if verdict is None or not verdict.promoted:
            continue
        curated = before.round().child("curated")
        try:
            found.append(ChatFile.open(curated, "train.parquet"))
        except FileNotFoundError:
            where = Where(curated.file("train.parquet"))
            hint = "Leave rounds.earlier out, or put the file back."
            raise InputError([Finding(where, "is gone, and is learned from", hint)]) from None
    return found


def resources(run: RunFile) -> Resources:
    """Return what the joined cluster has and may grow by, and what the run's engines hold of it."""
    nodes = nodes_of(run.cluster.launcher, run.cluster.address)
    return training_resources(run, nodes)


def training_resources(run: RunFile, nodes: Nodes) -> Resources:
    """Return what a cluster has for training, as `resources`, from its nodes."""
    engines = [run.engines[name] for name in run.speaking_engines]
    cpus, gpus = (tuple(n.get(what, 0.0) for n in nodes.there) for what in ("CPU", "GPU"))
    return Resources(
        cpus=cpus,
        gpus=gpus,
        most_cpus=nodes.most_of("CPU"),
        most_gpus=nodes.most_of("GPU"),
        largest_gpus=nodes.largest("GPU"),
        engine_gpus=sum((engine.gpus or 0) * engine.least for engine in engines),
    )


def _forget(folder: Folder) -> None:
    with contextlib.suppress(FileNotFoundError):
        folder.fs.delete_dir(folder.path)


# -- at work


def _train(task: _Task, folder: RunFolder, say: Say) -> dict[str, Any]:
    from cluster.session import ray_session

    began = time.monotonic()
    quiet()
    tokenizer = load_tokenizer(task.name, task.section.revision)
    encoder = ChatEncoder(tokenizer)
    train_, validation = _encoded(task, encoder, say)
    with ray_session(task.run.cluster.address):
        there = resources(task.run)
        findings = plan_training(task.section, train_.figures, there)
        findings += check_model(task.section, task.place, task.name)
        findings += board_findings(task.section, task.folder)
        findings += _disk(task)
        if len(findings) == 1 and not train_.figures.trained_tokens:
            raise NothingToLearn(findings)
        if findings:
            raise InputError(findings)
        job = Job(
            task.section,
            partial(resolve_model, _anywhere(task), task.section.revision),
            _pad(tokenizer),
            tokenizer,
            task.folder,
            task.digest,
            seats(task.section, there),
        )
        task.folder.create()
        _drop_others(job, say)
        _told(job, train_, validation, say)
        fitted = _watched(job, train_, validation, folder, say)
    manifest = _manifest(task, fitted, train_, validation, time.monotonic() - began)
    publish(job.result, task.adapter, manifest)
    _forget(job.checkpoints)
    return manifest


def _encoded(task: _Task, encoder: ChatEncoder, say: Say) -> tuple[Examples, Examples]:
    window, taken = task.section.window, task.taken()
    if task.train.taken:
        say(f"{len(task.train.taken)} dialogues of earlier rounds are learned from, too")
    if taken is not None:
        say(f"learning from {len(taken)} dialogues of the train split (train.dialogues)")
    chats = (
        one.messages for one in task.train.dialogues() if taken is None or one.walk_id in taken
    )
    train_ = encode(chats, encoder, window)
    held = task.validation.dialogues() if task.validation else ()
    return train_, encode((one.messages for one in held), encoder, window)


def _anywhere(task: _Task) -> str:
    """Return the model's name as every node understands it: a relative path is this one's only."""
    path = Path(task.name).expanduser()
    return str(path.resolve()) if path.exists() else task.name


def _pad(tokenizer: Any) -> int:
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(int(id_) for id_ in ids if id_ is not None)


def _disk(task: _Task) -> list[Finding]:
    free = free_bytes(task.round)
    if free is None or free >= SPARE:
        return []
    message = f"{free // 2**20} MiB are free, and checkpoints need {SPARE // 2**20} at least"
    return [Finding(Where(task.round.path), message, "Make room, or set run.out elsewhere.")]


def _drop_others(job: Job, say: Say) -> None:
    """Delete the checkpoints, and the logs, of a training whose data or settings were others."""
    from pyarrow import fs as pafs

    place = job.checkpoints
    found = place.fs.get_file_info(pafs.FileSelector(place.path, allow_not_found=True))
    for info in found:
        if info.base_name != job.attempt:
            place.fs.delete_dir(info.path)
            say("data or settings have changed since the last checkpoint: starting over")
    job.folder.delete(FAILURES)
    if job.attempt in {info.base_name for info in found}:
        say("going on from the last checkpoint")
    else:
        job.folder.delete(LOG)
        _forget(job.folder.child(BOARD))


def _told(job: Job, train_: Examples, validation: Examples, say: Say) -> None:
    figures, given = train_.figures, job.seats
    say(
        f"{len(train_)} examples ({len(validation)} to validate), {figures.tokens} tokens, of "
        f"which the agent wrote {figures.trained_tokens}"
    )
    if figures.cut or figures.unusable:
        say(
            f"{figures.cut} dialogues were longer than {job.section.window} tokens: "
            f"{figures.dropped_turns} turns were dropped; {figures.unusable} could not be used"
        )
    on = f"{given.gpus:g} GPUs" if given.gpus else f"{given.cores} cores"
    say(f"training {job.section.method} on {given.workers} x {on}")
    if place := board(job.section, job.folder):
        say(f"TensorBoard's files: {place}")


def _watched(
    job: Job, train_: Examples, validation: Examples, folder: RunFolder, say: Say
) -> Fitted:
    """Train on another thread; tell the losses, and look after the run's lock, on this one."""
    done: list[Fitted] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(launch(job, train_, validation))
        except BaseException as error:  # noqa: BLE001  # raised again by whoever waits
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    told, due, failures = 0, time.monotonic() + TOLD_S, 0
    while thread.is_alive():
        thread.join(WATCH_S)
        folder.check()
        failures = _tell_failures(job, failures, say)
        if time.monotonic() >= due:
            told, due = _tell(job, told, say), time.monotonic() + TOLD_S
    if failed:
        raise failed[0]
    _tell_failures(job, failures, say)
    _tell(job, told, say)
    return done[0]


def _tell(job: Job, told: int, say: Say) -> int:
    rows = _readable(read_log, job)
    if not rows or rows[-1]["step"] == told:
        return told
    row = rows[-1]
    losses = [f"{key} {row[name]:.3f}" for key, name in _LOSSES.items() if name in row]
    epoch, speed = row.get("epoch", 0), row["tokens_s"]
    say(f"step {row['step']}  epoch {epoch:.2f}  {'  '.join(losses)}  {speed:.0f} tokens/s")
    return int(row["step"])


def _tell_failures(job: Job, told: int, say: Say) -> int:
    rows = _readable(read_failures, job)
    for row in rows[told:]:
        say(f"worker {', '.join(map(str, row['workers']))} failed: {row['said']}")
    return max(told, len(rows))


def _readable(read: Callable[[Folder], list[Row]], job: Job) -> list[Row]:
    """Return what a training has written down; nothing while its storage does not answer."""
    try:
        return read(job.folder)
    except OSError:
        return []


_LOSSES = {"loss": "loss", "validation": "eval_loss"}


# -- behind it


def _manifest(
    task: _Task, fitted: Fitted, train_: Examples, validation: Examples, seconds: float
) -> dict[str, Any]:
    figures = {
        "examples": len(train_),
        "validation_examples": len(validation),
        "steps": fitted.steps,
        "planned_steps": fitted.planned,
        "taken_step": fitted.taken,
        "resumed_from_step": fitted.resumed,
        "loss": fitted.loss,
        "validation_loss": fitted.validation_loss,
        "trained_parameters": fitted.trainable,
        "packed": fitted.packed,
        "sequences": fitted.sequences,
        "padding_share": round(fitted.padding, 4),
        "tokens": fitted.tokens,
        "tokens_s": round(fitted.tokens_s, 1),
        "training_seconds": round(fitted.seconds, 1),
        "seconds": round(seconds, 1),
    }
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": task.run.run.name,
        "training": task.digest,
        "base_model": task.name,
        "base_revision": task.section.revision,
        "asked_revision": task.asked,
        "base_digest": task.base,
        "method": task.section.method,
        "settings": task.section.model_dump(mode="json"),
        "data": {
            "digests": task.data,
            "train": train_.figures.as_json(),
            "validation": validation.figures.as_json(),
        },
        "figures": figures,
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _merge(task: _Task, manifest: Mapping[str, Any], say: Say) -> None:
    out = task.round.child("merged")
    if manifest["method"] == "full":
        say(f"nothing to merge: {task.adapter.path} is a whole model")
        return
    if not task.adapter.local:
        raise DuologueError(f"{out.path}: a merged model is written to a local disk only")
    if _merged_from(Path(out.path)) == manifest["training"]:
        return
    problems = check_adapter(Path(task.adapter.path), task.name, task.base)
    if problems:
        raise InputError(problems)
    _forget(out)
    # In a process of its own: it gives the memory back, and an engine may fork from this one.
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        paths = Path(task.adapter.path), Path(out.path)
        pool.submit(merge, task.place, task.section.revision, *paths).result()
    out.write_bytes(MANIFEST, f"{dump_json(manifest)}\n".encode())
    say(f"merged into {out.path}")


def _merged_from(folder: Path) -> str:
    try:
        return str(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["training"])
    except (OSError, ValueError, KeyError):
        return ""


def summary(manifest: Mapping[str, Any]) -> list[str]:
    """Return the lines that tell what was trained."""
    figures, data = manifest["figures"], manifest["data"]["train"]
    packed = "packed" if figures["packed"] else "grouped by length"
    lines = [
        f"  {manifest['method']} of {manifest['base_model']}: "
        f"{figures['trained_parameters']:,} parameters trained",
        f"  {figures['examples']} examples, {data['tokens']:,} tokens, "
        f"{data['trained_tokens']:,} learned; {packed} into {figures['sequences']} sequences, "
        f"{figures['padding_share']:.1%} padding",
        f"  {figures['steps']} of {figures['planned_steps']} steps, the weights of step "
        f"{figures['taken_step']}; {figures['tokens_s']:,} tokens/s, "
        f"{duration(figures['seconds'])} in all",
    ]
    losses = [
        f"{name} {figures[key]:.3f}"
        for name, key in (("loss", "loss"), ("validation loss", "validation_loss"))
        if figures[key] is not None
    ]
    return [*lines, f"  {', '.join(losses)}"] if losses else lines
