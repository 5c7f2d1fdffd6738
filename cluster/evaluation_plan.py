"""What an evaluation is made from, looked at before anything is started: all findings at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.engines.models import resolve_model
from cluster.held_out import leaks, mixed
from cluster.run_folder import RunFolder
from cluster.train import base_model
from specs.agent_format import learned, read_understanding
from specs.engine_section import EngineSection
from specs.errors import EngineError, Finding, InputError, Where, nearest
from specs.parts import Folder
from specs.records import dump_json
from specs.run_file import EvaluateSection, RunFile
from specs.seeds import digest
from trainer.adapter import MANIFEST, check_adapter, load_manifest
from trainer.chat_file import ChatFile, file_digest, twice
from trainer.evaluation import ChatDialogue, chosen
from trainer.scoring import Card
from trainer.weights import base_digest

FORMAT = "1"
"""Goes up when the same settings would be asked, or marked, otherwise than before."""

ADAPTER, UNTUNED, MAJORITY, BIGRAM = "adapter", "untuned", "majority", "bigram"

_CURATE = "Curate the run's dialogues first: duologue curate RUN.toml"
_TRAIN = "Train it first: duologue train RUN.toml"
_ELSEWHERE = "an adapter is served from a local folder only"
_MORE = "Play more dialogues, or hold more documents back (curate.test)."


@dataclass(frozen=True, slots=True)
class Learner:
    """A system that a model plays.

    Attributes:
        engine: that serves it.
        adapter: the LoRA adapter's folder; empty for the engine's model as it is.
        made_from: a digest of what it learned; empty for an untuned model.
        about: in words, for the results.
        manifest: the adapter's; empty for an untuned model.
    """

    name: str
    engine: EngineSection
    adapter: str = ""
    made_from: str = ""
    about: str = ""
    manifest: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that an evaluation needs.

    Attributes:
        out: the folder that the results go to.
        dialogues: those of the test file that are asked.
        card: what the agent may write, completed by what the test dialogues hold.
        allowed: what the agent may write by its own card and the training dialogues.
        digest: of everything but the systems.
        unjudged: that digest, as it is for an evaluation without a judge.
        warnings: what the figures may suffer from, as far as it is known beforehand.
    """

    run: RunFile
    out: Folder
    test: ChatFile
    train: ChatFile
    dialogues: list[ChatDialogue]
    card: Card
    allowed: Card
    learners: list[Learner]
    digest: str
    unjudged: str
    judge: EngineSection | None = None
    warnings: Sequence[str] = ()

    @property
    def section(self) -> EvaluateSection:
        """The run file's section."""
        return self.run.evaluate

    @property
    def embedding(self) -> str:
        """The embedding of the answers' similarity."""
        return self.section.embedding or self.run.retrieval.embedding

    def made_from(self, system: str) -> str:
        """Return the digest of all that decides a system's predictions and marks."""
        return self._made_from(system, self.digest)

    def asked_from(self, system: str) -> str:
        """Return the same of its predictions alone, which no judge has a part in."""
        return self._made_from(system, self.unjudged)

    def _made_from(self, system: str, whole: str) -> str:
        learner = next((one for one in self.learners if one.name == system), None)
        own: list[Any] = [system]
        if learner is not None:
            engine = learner.engine
            own += [engine.model, engine.revision, engine.window, engine.dtype, learner.made_from]
        if system == UNTUNED:
            own.append(self.section.examples)
        return digest(whole, dump_json(own))


def make_plan(run: RunFile, data: str | None) -> Plan:
    """Look at everything that an evaluation of a run needs.

    Args:
        data: a file in the `curated` format that takes the test split's place.

    Raises:
        InputError: with everything that is missing or does not fit.
    """
    looked = _Look(run, RunFolder.of(run))
    train = looked.split("train")
    test = looked.given(data) if data is not None else looked.split("test")
    engine = looked.engine()
    judge = looked.judge()
    learners = looked.learners(engine)
    dialogues = looked.dialogues(test) if test else []
    if test is not None and dialogues:
        looked.held_out(train, test)
    if looked.findings or train is None or test is None:
        raise InputError(looked.findings)
    allowed = train.card if train.card.intents else train.card.seen(_messages(train.dialogues()))
    if data is not None and test.card.intents:
        allowed = test.card
    out = looked.folder.round().child("evaluation")
    asked_about = test.digest()
    splits = (train.digest(), asked_about)
    return Plan(
        run=run,
        out=out.child(f"data-{asked_about[:12]}") if data is not None else out,
        test=test,
        train=train,
        dialogues=chosen(dialogues, run.evaluate.turns, run.evaluate.seed),
        card=allowed.seen(_messages(dialogues)),
        allowed=allowed,
        learners=learners,
        digest=_digest(run, splits, judge),
        unjudged=_digest(run, splits, None),
        judge=judge,
        warnings=looked.warnings,
    )


def unfit(run: RunFile) -> list[Finding]:
    """Return what keeps a run's evaluation from working, as far as no dialogues tell."""
    looked = _Look(run, RunFolder.of(run))
    engine = looked.engine()
    looked.judge()
    if not looked.folder.round().child("adapter").local:
        looked.wrong("run.out", _ELSEWHERE, "Name a folder that this machine sees.")
    if run.evaluate.arm is not None:
        looked.adapter("arm", RunFolder.at(run.evaluate.arm), engine)
    return looked.findings


def _messages(dialogues: Iterable[ChatDialogue]) -> Iterable[Sequence[Any]]:
    return (dialogue.messages for dialogue in dialogues)


def _digest(run: RunFile, splits: Sequence[str], judge: EngineSection | None) -> str:
    section = run.evaluate
    settings = {
        "turns": section.turns,
        "seed": section.seed,
        "max_tokens": section.max_tokens.model_dump(),
        "embedding": section.embedding or run.retrieval.embedding,
        "judge": judge.model if judge else None,
    }
    return digest(FORMAT, *splits, dump_json(settings))


@dataclass(slots=True)
class _Look:
    """Looks at one thing after the other, and keeps what is wrong with them."""

    run: RunFile
    folder: RunFolder
    findings: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    base_digest: str = ""
    trained: list[tuple[Learner, RunFolder]] = field(default_factory=list)

    def wrong(self, where: str, message: str, hint: str = "") -> None:
        """Keep a finding."""
        self.findings.append(Finding(Where(where), message, hint))

    # -- dialogues

    def split(self, name: str) -> ChatFile | None:
        """Return a split of the run; a finding where there is none."""
        curated = self.folder.round().child("curated")
        return self._opened(curated, f"{name}.parquet", True, f"there is no {name} split")

    def given(self, data: str) -> ChatFile | None:
        """Return the file of `--data`."""
        if not data.strip():
            self.wrong("--data", "is empty", "Name a Parquet file in the curated format.")
            return None
        parent, _, name = data.rpartition("/")
        folder = Folder.of(parent or ("/" if data.startswith("/") else "."))
        return self._opened(folder, name, False, "there is no such file")

    def _opened(self, folder: Folder, name: str, own: bool, missing: str) -> ChatFile | None:
        try:
            return ChatFile.open(folder, name, own)
        except FileNotFoundError:
            self.wrong(folder.file(name), missing, _CURATE if own else "")
        except InputError as error:
            self.findings += error.findings
        return None

    def dialogues(self, test: ChatFile) -> list[ChatDialogue]:
        """Return the test dialogues; a finding where figures over them would mean nothing."""
        try:
            found = list(test.dialogues())
        except InputError as error:
            self.findings += error.findings
            return []
        hint = _MORE if test.folder.path.endswith("curated") else ""
        intents = [intent for one in found for intent in _intents(one)]
        if not found:
            self.wrong(test.path, "holds no dialogues", hint)
        elif name := twice(found):
            self.wrong(test.path, f"two dialogues have the walk_id {name!r}")
        elif not intents:
            message = "has no turn in which the agent writes what it understood"
            self.wrong(test.path, message, 'Such a line reads {"intent":"greet","slots":{}}.')
        elif len(set(intents)) == 1:
            message = (
                f"all {len(intents)} user turns have the intent {intents[0]!r}: any model that "
                "always says so would be right, and figures would mean nothing"
            )
            self.wrong(test.path, message, hint)
        return found

    # -- models

    def engine(self) -> EngineSection | None:
        """Return how the base model is served; a finding where it, or an adapter, cannot be."""
        run, name = self.run, self.run.evaluate.engine
        if name is not None and name not in run.engines:
            message = f"names the engine {name!r}, which is not there{nearest(name, run.engines)}"
            self.wrong("evaluate.engine", message)
        elif name is not None and run.engines[name].kind != "vllm":
            kind = run.engines[name].kind
            message = f"the engine {name!r} is of the kind {kind!r}, which loads no adapter"
            self.wrong("evaluate.engine", message, 'Name one of the kind "vllm".')
        try:
            engine = serving_engine(run)
            self.base_digest = digest_of(engine)
        except InputError as error:
            self.findings += error.findings
            return None
        return engine

    def judge(self) -> EngineSection | None:
        """Return the engine that rates answers, if one is to."""
        name = self.run.evaluate.judge
        if name is None:
            return None
        engine = self.run.engines.get(name)
        if engine is None:
            near = nearest(name, self.run.engines)
            self.wrong("evaluate.judge", f"names the engine {name!r}, which is not there{near}")
        elif engine.kind == "reference":
            self.wrong("evaluate.judge", f"the engine {name!r} speaks references and cannot rate")
        return engine

    def learners(self, engine: EngineSection | None) -> list[Learner]:
        """Return the systems that models play: the adapter first; none without their engine."""
        own = self._learner(ADAPTER, self.folder, engine)
        found = [own] if own else []
        arm = self.run.evaluate.arm
        if arm is not None:
            other = RunFolder.at(arm)
            learner = self._learner(_arm_name(other), other, engine)
            found += [learner] if learner else []
        if engine is not None and UNTUNED in self.run.evaluate.opponents:
            count = self.run.evaluate.examples
            about = f"{engine.model} as it is, {count} examples, constrained to the format"
            found.append(Learner(UNTUNED, engine, about=about))
        return found

    def adapter(self, name: str, run: RunFolder, engine: EngineSection | None) -> Folder | None:
        """Return where a run's adapter is; a finding where it is not there, or does not fit."""
        folder = run.round().child("adapter")
        if MANIFEST not in folder.names():
            where = folder.path if name == ADAPTER else f"evaluate.arm: {folder.path}"
            self.wrong(where, "there is no trained adapter", _TRAIN)
            return None
        if not folder.local:
            hint = "Copy the run to a disk that this machine sees, and name that (run.out)."
            self.wrong(folder.path, _ELSEWHERE, hint)
            return None
        if engine is None:
            return None
        problems = check_adapter(Path(folder.path), engine.model, self.base_digest)
        self.findings += problems
        return None if problems else folder

    def _learner(self, name: str, run: RunFolder, engine: EngineSection | None) -> Learner | None:
        folder = self.adapter(name, run, engine)
        if folder is None or engine is None:
            return None
        manifest = load_manifest(Path(folder.path))
        made_from = digest(*(file_digest(folder, name) for name in folder.names()))
        adapter = folder.path
        if manifest.get("method") == "full":  # the folder is a whole model
            engine = engine.model_copy(update={"model": folder.path, "revision": None})
            adapter = ""
        learner = Learner(name, engine, adapter, made_from, _about(manifest), manifest)
        self.trained.append((learner, run))
        return learner

    def held_out(self, train: ChatFile | None, test: ChatFile) -> None:
        """Look whether the adapters were trained on another side than the dialogues asked.

        Of `--data` what was learned from is only told: what that is for is not known here.
        """
        given = test.path != self.folder.round().child("curated").file("test.parquet")
        for learner, run in self.trained:
            own = learner.name == ADAPTER
            place = run.round().child("adapter").path
            try:
                split = train if own else _train_split(run)
                found = leaks(learner.manifest, split, test)
            except InputError as error:
                self.findings += error.findings
                continue
            if found is None:
                if (given or not own) and mixed(learner.manifest):
                    message = "learned from earlier rounds, too, which nobody looks through here"
                    self.warnings.append(f"{learner.name}: {message}")
                continue
            if given or not found.sure:
                self.warnings.append(f"{learner.name}: {found.message}")
            else:
                self.wrong(place if own else f"evaluate.arm: {place}", found.message, found.hint)


def _train_split(run: RunFolder) -> ChatFile | None:
    try:
        return ChatFile.open(run.round().child("curated"), "train.parquet")
    except FileNotFoundError:
        return None


def _intents(dialogue: ChatDialogue) -> list[str]:
    heard = [
        read_understanding(piece.text)
        for piece in learned(dialogue.messages)
        if piece.kind == "understanding"
    ]
    return [one.intent for one in heard if one is not None]


def _about(manifest: Mapping[str, Any]) -> str:
    return f"{manifest.get('method', 'adapter')} of {manifest.get('base_model', '')}"


def _arm_name(run: RunFolder) -> str:
    """Return what the other run's adapter is called: by how its dialogues were written."""
    manifest = run.manifest() or {}
    policy = manifest.get("run_file", {}).get("policy", {}).get("kind", "")
    return "single_prompt" if policy == "single_prompt" else f"arm-{run.name}"


def serving_name(run: RunFile) -> str:
    """Return the engine whose settings the base model is served with; empty where none is vllm."""
    of_vllm = [name for name, engine in run.engines.items() if engine.kind == "vllm"]
    if run.evaluate.engine in run.engines:
        return run.evaluate.engine
    return run.roles.agent if run.roles.agent in of_vllm else next(iter(of_vllm), "")


def serving_engine(run: RunFile) -> EngineSection:
    """Return the engine section with which a run's base model is served.

    Raises:
        InputError: the run names no base model.
    """
    base, revision = base_model(run)
    name = serving_name(run)
    engine = run.engines[name] if name else EngineSection()
    window = run.evaluate.window or engine.window
    return engine.model_copy(update={"model": base, "revision": revision, "window": window})


def digest_of(engine: EngineSection) -> str:
    """Return the digest of an engine's model, by which adapters know their base.

    Raises:
        InputError: there is no such model.
    """
    try:
        return base_digest(resolve_model(engine.model, engine.revision), engine.revision)
    except EngineError as error:
        raise InputError([Finding(Where("train.model"), str(error))]) from None
