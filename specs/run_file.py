"""The run file: everything that one run needs, as frozen pydantic models with unknown keys refused.

Values come from TOML, then from `--set key=value`. Relative paths in the file are relative to the
working directory, as on the command line.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from specs.domain import MAX_TURNS, SIDES
from specs.engine_section import EngineSection
from specs.errors import Finding, InputError, Where, nearest
from specs.gpus import Gpus
from specs.presets import PRESETS
from specs.section import Alive, Count, Name, Place, Seconds, Section
from specs.settings import apply
from specs.traits import Shares, contradictions


class RunSection(Section):
    """What the run is called, how much it makes, and where that goes.

    Attributes:
        round: that a command is about; `duologue run` goes through all of `rounds`.
        attempts: how often a dialogue that finds no words, or none that can be read, is tried
            before that is its row.
        log_interval_s: within which a turn that was said is in the turn log.
        dialogue_deadline_s: of playing that one dialogue may take, not counting what it waits in
            engines' queues, before it is given back and goes on elsewhere; None for no limit.
        outage_s: how long the place may refuse to be written (a full disk, a store out of reach),
            or an engine be away, before the run ends; it pauses meanwhile.
    """

    name: Name
    dialogues: Annotated[int, Field(ge=1)] = 24
    round: Annotated[int, Field(ge=0, le=999)] = 0
    attempts: Annotated[int, Field(ge=1, le=100)] = 3
    seed: int = 0
    out: Annotated[Place, Field(min_length=1)] = "runs"
    part_rows: Annotated[int, Field(ge=1)] = 2000
    part_bytes: Annotated[int, Field(ge=1)] = 64 * 1024 * 1024
    log_interval_s: Seconds = 2.0
    dialogue_deadline_s: Seconds | None = None
    outage_s: Seconds = 600.0


class DomainSection(Section):
    """Which domain; `corpus`, `personas` replace the domain's own files."""

    path: Place
    corpus: Place | None = None
    personas: Place | None = None


MANAGED = frozenset({"routed", "hybrid"})
"""Policies in which a manager finds edges."""


class PolicySection(Section):
    """How the dialogues are steered (DESIGN.md section 4).

    Attributes:
        manager: who finds the edge that a free reply takes: `rouge` and `embedding` compare it with
            the edges' references, `model` asks the engine of `roles.manager`.
        threshold: the least likeness of a reply and a reference that routes it; None for the
            manager's own.
        workflow: what the agent is told in free talk: what to say next, turn by turn
            (`structured`), or the whole workflow once, at the start (`unstructured`).
        patience: how often in a row the agent comes back to one point before the dialogue stops.
    """

    kind: Literal["walk", "routed", "hybrid", "single_prompt"] = "walk"
    arm: str = "main"
    manager: Literal["rouge", "embedding", "model"] = "embedding"
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    workflow: Literal["structured", "unstructured"] = "structured"
    patience: Annotated[int, Field(ge=1)] = 3
    max_turns: Annotated[int, Field(ge=2)] | None = None

    @field_validator("max_turns")
    @classmethod
    def _turns_come_to_an_end(cls, turns: int | None) -> int | None:
        if turns is not None and turns > MAX_TURNS:
            raise ValueError(f"is too large: give at most {MAX_TURNS:,}")
        return turns


Chance = Annotated[float, Field(ge=0, le=1)]


class TraitShares(Section):
    """The share of dialogues whose user is so, each drawn by itself (`specs.traits`).

    Attributes:
        terse: says everything in a few words.
        vague: now and then says nothing that means anything, so that the agent has to ask again.
        impatient: presses on.
        gives_up: takes their leave before it is settled.
        changes_mind: takes back what they chose.
        wrong_fact: says something that is not so.
        two_intents: answers two questions at once.
        corrects_agent: is misheard by the agent, and says once more what they meant.
    """

    terse: Chance = 0.0
    vague: Chance = 0.0
    impatient: Chance = 0.0
    gives_up: Chance = 0.0
    changes_mind: Chance = 0.0
    wrong_fact: Chance = 0.0
    corrects_agent: Chance = 0.0
    two_intents: Chance = 0.0

    @model_validator(mode="after")
    def _may_meet(self) -> TraitShares:
        if wrong := list(contradictions(dict(self))):
            raise ValueError("; ".join(wrong))
        return self

    @property
    def asked(self) -> Shares:
        """The traits that some users have, with their shares."""
        return tuple((name, share) for name, share in self if share)


class UsersSection(Section):
    """What the users are like who are not ideal; nobody is so by default."""

    traits: TraitShares = TraitShares()


class RolesSection(Section):
    """Which engine plays which role; the manager only where `policy.manager` is a model.

    Attributes:
        adapter: a trained agent that plays the agent on its engine, shown what it was trained on
            and not told what to say: the folder of the adapter, or of the run that trained it.
    """

    user: str
    agent: str
    manager: str | None = None
    adapter: Place | None = None


class WalkersSection(Section):
    """How many processes play, and how many dialogues at once; `auto` is settled by the plan.

    Attributes:
        count: walkers: one for each thousand dialogues that keep the engines full.
        alive: dialogues that each keeps alive: together enough to keep the engines full.
        sinks: writers of the turn log and the parts.
        retrievers: document stores, each with its embedding model.
    """

    count: Count = "auto"
    alive: Alive = "auto"
    sinks: Count = "auto"
    retrievers: Count = "auto"


class RetrievalSection(Section):
    """The document store: embedded Qdrant, or a server by URL with the same code.

    Attributes:
        embedding: `minilm` (all-MiniLM-L6-v2 from its wheel), or a folder or name that
            sentence-transformers loads, or `lexical` (word overlap: no model, for rehearsals).
    """

    embedding: Place = "minilm"
    url: str | None = None
    key_env: str | None = None


class ClusterSection(Section):
    """Where it runs: no address starts a local Ray.

    Attributes:
        launcher: the launcher file that the cluster is made from (`ray_cluster.yaml`): its node
            types are what the cluster may grow by. None for the one that a head of `ray up` keeps.
        gpu_hour_price: what a GPU costs for an hour, in `currency`; None for not counted.
    """

    address: str | None = None
    launcher: Place | None = None
    gpu_hour_price: Annotated[float, Field(ge=0)] | None = None
    currency: str = "USD"


class BudgetSection(Section):
    """What a generation may take; it stops in good order when the first of these is used up.

    Attributes:
        dialogues: that are played in one go, of those that `run.dialogues` wants.
        tokens: written and read by the models.
        gpu_hours: of all engines, from when they got their GPUs.
        hours: of wall time.
    """

    dialogues: Annotated[int, Field(ge=1)] | None = None
    tokens: Annotated[int, Field(ge=1)] | None = None
    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    hours: Annotated[float, Field(gt=0)] | None = None


FilterKind = Literal[
    "none",
    "ended",
    "consistent",
    "threshold",
    "top",
    "random",
    "balance",
    "near_duplicates",
    "judge",
]


class Filter(Section):
    """One filter of a curation; they apply in their order, each to what the one before kept.

    `none` keeps everything: it stands for doing without, in a comparison.

    Attributes:
        measure: `threshold`, `top`: a column of the measures (`trainer.measures`); `top` keeps
            the highest values, or, with a `-` before the name, the lowest.
        min, max: `threshold`: bounds, both included; `judge`: the least rating.
        share: `top`, `random`: the share of dialogues kept, in (0, 1].
        most: `balance`: the most dialogues in which any one intent may be over-represented, as a
            multiple of the median intent's count.
        words, cosine: `near_duplicates`: least Jaccard similarity of word shingles, least cosine
            of embeddings that make a dialogue a copy of an earlier one.
    """

    kind: FilterKind
    measure: str | None = None
    min: float | None = None
    max: float | None = None
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    most: Annotated[float, Field(gt=0)] | None = None
    words: Annotated[float, Field(gt=0, le=1)] = 0.9
    cosine: Annotated[float, Field(gt=0, le=1)] = 0.98


class Subgoals(Section):
    """When an utterance of the agent speaks for a subgoal (`duologue calibrate` finds both).

    Attributes:
        measure: how like it is to the references of the subgoal's state: `rouge` (ROUGE-L), or
            `embedding` (cosine, under `curate.embedding`).
        threshold: the least likeness; None for the measure's own.
    """

    measure: Literal["rouge", "embedding"] = "rouge"
    threshold: Annotated[float, Field(gt=0, le=1)] | None = None


class CurateSection(Section):
    """Which dialogues are learned from, and how they are split.

    Attributes:
        filters: in order.
        validation, test: shares of the seed documents (not of the dialogues).
        kept: dialogues that must be kept; generation goes on until they are there or
            `run.dialogues` times `budget` have been played; None for whatever is kept.
        judge: the engine that rates dialogues for the `judge` filter.
        embedding: of near-duplicates, dispersion and `subgoals`; None for the one of `retrieval`.
        subgoals: by what `subgoals_said` is counted.
    """

    filters: tuple[Filter, ...] = (Filter(kind="ended"), Filter(kind="consistent"))
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    test: Annotated[float, Field(ge=0, lt=1)] = 0.1
    kept: Annotated[int, Field(ge=1)] | None = None
    budget: Annotated[float, Field(ge=1)] = 3.0
    judge: str | None = None
    embedding: Place | None = None
    subgoals: Subgoals = Subgoals()
    seed: int = 0


class TrainSection(Section):
    """The adapter: what is trained, how, and on which hardware.

    Attributes:
        preset: settings of a published recipe, which the other keys of this table override.
        model: the base model, named as an engine's is; None for the agent's engine's model.
        method: `qlora` (4-bit NF4 base), `lora` (base as it is) or `full`.
        targets: the layers that adapters are put on: `all-linear`, names, or a regular expression.
        dialogues: the most of the train split that are learned from, drawn by `seed`, so that two
            runs to be compared learn from as many; None for all.
        warmup: share of the steps.
        epochs: passes over the train split; may be a fraction.
        max_steps: the most optimizer steps; None for what the epochs need.
        batch: sequences of one worker's forward pass.
        accumulate: forward passes of an optimizer step.
        window: tokens of one training sequence.
        packing: put several dialogues into a sequence, with masks that keep them apart.
        patience: evaluations without a lower validation loss after which training stops; the
            adapter is then the one of the lowest. None to train to the end and take the last.
        checkpoint_steps: optimizer steps from a checkpoint, and a validation loss, to the next.
        gradient_checkpointing: compute activations twice to save memory; None for where there are
            GPUs.
        workers, gpus_per_worker: of Ray Train; None for one GPU each where the cluster has any.
        gpus: `shared`: training takes over the engines' GPUs after they have stopped; `own`: it
            has its own beside theirs.
        retries: how often training goes on from the last checkpoint after a worker has failed.
        merge: write the merged model too.
        report_to: integrations of transformers' Trainer, such as `tensorboard` (its files go to
            `training/tensorboard` in the round's folder, or to TENSORBOARD_LOGGING_DIR).
        trainer: further arguments of transformers' TrainingArguments, as they are.
    """

    preset: Literal["synthetic_tod", "self_talk"] | None = None
    model: str | None = None
    revision: str | None = None
    method: Literal["qlora", "lora", "full"] = "qlora"
    rank: Annotated[int, Field(ge=1, le=512)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    targets: str | tuple[str, ...] = "all-linear"
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    dialogues: Annotated[int, Field(ge=1)] | None = None
    epochs: Annotated[float, Field(gt=0)] = 2.0
    max_steps: Annotated[int, Field(ge=1)] | None = None
    batch: Annotated[int, Field(ge=1)] = 1
    accumulate: Annotated[int, Field(ge=1)] = 4
    window: Annotated[int, Field(ge=64)] = 2048
    packing: bool = True
    patience: Annotated[int, Field(ge=1)] | None = None
    checkpoint_steps: Annotated[int, Field(ge=1)] = 20
    gradient_checkpointing: bool | None = None
    workers: Annotated[int, Field(ge=1)] = 1
    gpus_per_worker: Gpus | None = None
    gpus: Literal["shared", "own"] = "shared"
    retries: Annotated[int, Field(ge=0)] = 3
    merge: bool = False
    seed: int = 0
    report_to: tuple[str, ...] = ()
    trainer: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, data: Any) -> Any:
        # Filled in here, so that run.json holds what was meant even when a preset changes later.
        if not isinstance(data, Mapping):
            return data
        return {**PRESETS.get(str(data.get("preset")), {}), **data}


class TokenLimits(Section):
    """The most tokens of each piece that the agent writes (`specs.agent_format`)."""

    understanding: Annotated[int, Field(ge=8)] = 96
    call: Annotated[int, Field(ge=8)] = 96
    answer: Annotated[int, Field(ge=8)] = 160


class EvaluateSection(Section):
    """What the adapter is measured on and against.

    Attributes:
        engine: whose settings (window, cores, GPUs ...) the base model is served with; None for the
            agent's engine, or the first vllm engine where that is none.
        examples: few-shot dialogue turns that the untuned model is shown.
        turns: the most user turns of the test split that are asked; None for all.
        opponents: beside the adapter.
        arm: the folder of the run whose adapter was trained on `single_prompt` dialogues.
        judge: the engine that rates answers from 1 to 5; None for no ratings.
        resamples: of the bootstrap over dialogues.
        window: tokens of prompt and answer together; None for the engine's.
        embedding: of the answers' similarity; None for the one of `retrieval`.
        seed: of the turns asked, the examples shown and the bootstrap; decoding is greedy.
    """

    engine: str | None = None
    examples: Annotated[int, Field(ge=0)] = 8
    turns: Annotated[int, Field(ge=1)] | None = None
    opponents: tuple[Literal["untuned", "majority", "bigram"], ...] = (
        "untuned",
        "majority",
        "bigram",
    )
    arm: Place | None = None
    judge: str | None = None
    resamples: Annotated[int, Field(ge=100)] = 1000
    max_tokens: TokenLimits = TokenLimits()
    window: Annotated[int, Field(ge=128)] | None = None
    embedding: Place | None = None
    seed: int = 0


class RoundsSection(Section):
    """How often the agent learns from its own dialogues, and what keeps it from getting worse.

    In each round the dialogues are played, curated and learned from; the next one's agent is played
    by the adapter, if the round is promoted, else by who played it before.

    Attributes:
        count: rounds that `duologue run` goes through.
        least: dialogues of the train split that a round must have to be trained on.
        diversity: what share of the first round's diversity (`rouge_diversity`, which does not
            depend on how many dialogues there are) a round's kept dialogues must have.
        trial: dialogues that each agent plays to show what it can do, always for the same users;
            in routed talk with the workflow `unstructured`. 0 for no trial.
        held_out: domains that the agent never learns from, tried beside the run's own; a round
            whose agent does worse there (or, without any, in the run's own) than the one before,
            by more than that one's interval, is not promoted.
        earlier: the most of a round's training dialogues that are taken from earlier rounds, as a
            share of all.
    """

    count: Annotated[int, Field(ge=1, le=1000)] = 1
    least: Annotated[int, Field(ge=1)] = 8
    diversity: Annotated[float, Field(ge=0, le=1)] = 0.8
    trial: Annotated[int, Field(ge=0)] = 0
    held_out: tuple[Place, ...] = ()
    earlier: Annotated[float, Field(ge=0, lt=1)] = 0.0


class RunFile(Section):
    """A whole run file."""

    @property
    def speaking_roles(self) -> dict[str, str]:
        """The engine's name of each role that plays dialogues."""
        roles: dict[str, str] = {side: getattr(self.roles, side) for side in SIDES}
        if self.policy.kind in MANAGED and self.policy.manager == "model" and self.roles.manager:
            roles["manager"] = self.roles.manager
        return roles

    @property
    def speaking_engines(self) -> tuple[str, ...]:
        """The names of the engines that play dialogues, each once."""
        return tuple(dict.fromkeys(self.speaking_roles.values()))

    def gpu_hour_price(self, engine: str) -> float | None:
        """Return what a GPU of an engine costs for an hour; None where nobody says it."""
        own = self.engines[engine].gpu_hour_price
        return self.cluster.gpu_hour_price if own is None else own

    @property
    def named_engines(self) -> frozenset[str]:
        """The names of the engines that a role, a judge or the evaluation names."""
        names = (self.roles.user, self.roles.agent, self.roles.manager, self.curate.judge)
        return frozenset(filter(None, (*names, self.evaluate.engine, self.evaluate.judge)))

    run: RunSection
    domain: DomainSection
    policy: PolicySection = PolicySection()
    users: UsersSection = UsersSection()
    engines: dict[str, EngineSection]
    roles: RolesSection
    walkers: WalkersSection = WalkersSection()
    retrieval: RetrievalSection = RetrievalSection()
    curate: CurateSection = CurateSection()
    train: TrainSection = TrainSection()
    evaluate: EvaluateSection = EvaluateSection()
    rounds: RoundsSection = RoundsSection()
    cluster: ClusterSection = ClusterSection()
    budget: BudgetSection = BudgetSection()

    @model_validator(mode="after")
    def _traits_can_act(self) -> RunFile:
        if self.policy.kind == "single_prompt" and (asked := self.users.traits.asked):
            names = ", ".join(name for name, _ in asked)
            raise ValueError(
                f"users.traits asks for {names}, which act turn by turn: a dialogue that one "
                "prompt writes has no turns for them; leave them out, or change policy.kind"
            )
        return self

    @model_validator(mode="after")
    def _roles_name_engines(self) -> RunFile:
        if self.policy.kind in MANAGED and self.policy.manager == "model":
            name = self.roles.manager
            if name is None:
                raise ValueError('policy.manager = "model" needs an engine: set roles.manager')
            if name in self.engines and self.engines[name].kind == "reference":
                raise ValueError(
                    f"roles.manager names {name!r}, the reference engine, which cannot choose; "
                    'name another, or set policy.manager = "embedding"'
                )
        for role in ("user", "agent", "manager"):
            name = getattr(self.roles, role)
            if name is not None and name not in self.engines:
                near = nearest(name, self.engines)
                raise ValueError(
                    f"roles.{role} names the engine {name!r}, which is not there{near}"
                )
        return self

    @model_validator(mode="after")
    def _adapters_speak_turn_by_turn(self) -> RunFile:
        rounds = self.rounds.count > 1 or self.rounds.trial > 0
        if self.roles.adapter is None and not rounds:
            return self
        what = "roles.adapter" if self.roles.adapter is not None else "an adapter (rounds)"
        if self.policy.kind == "single_prompt":
            raise ValueError(f"{what} plays turn by turn: leave it out, or change policy.kind")
        if self.engines[self.roles.agent].kind == "openai":
            raise ValueError(
                f"{what} is shown tokens, which the endpoint {self.roles.agent!r} does not take: "
                "give the agent an engine of kind vllm"
            )
        return self

    @model_validator(mode="after")
    def _held_out_domains_are_tried(self) -> RunFile:
        if self.rounds.held_out and not self.rounds.trial:
            raise ValueError(
                "rounds.held_out names domains, and rounds.trial is 0: say how many dialogues each "
                "agent plays there (rounds.trial = 20)"
            )
        return self

    @model_validator(mode="after")
    def _agent_sees_the_workflow(self) -> RunFile:
        engine = self.engines[self.roles.agent]
        told = self.policy.kind == "routed" and self.policy.workflow == "unstructured"
        if not told or engine.kind == "reference" or self.roles.adapter is not None:
            return self
        missing = []
        if engine.profile.form == "script" and not engine.profile.persona:
            missing.append(f"engines.{self.roles.agent}.profile.persona = true")
        if not engine.profile.history:
            missing.append(f"engines.{self.roles.agent}.profile.history = 8")
        if missing:
            raise ValueError(
                'policy.workflow = "unstructured" tells the agent the whole workflow in its system '
                "message, and leaves it to the history where they are: set " + " and ".join(missing)
            )
        return self


def load(path: str | Path, settings: Sequence[str] = ()) -> RunFile:
    """Read a run file and apply `--set` settings.

    Args:
        path: a TOML file.
        settings: `key.path=value` (`specs.settings`).

    Raises:
        InputError: with every finding, when the file or a setting cannot be used.
    """
    data = read_toml(Path(path), "run file")
    engines = data.get("engines")
    before = set(engines) if isinstance(engines, dict) else set()
    apply(data, settings, RunFile)
    run = validate(data, str(path))
    # A misspelt engine's settings would go nowhere.
    useless = [name for name in run.engines if name not in before | run.named_engines]
    if useless:
        raise InputError([_useless(name, run) for name in useless])
    return run


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Return what a TOML file holds; raises InputError when there is none, or it is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError([Finding(Where(str(path)), f"there is no such {what}")]) from None
    except RecursionError:
        raise InputError([Finding(Where(str(path)), "is nested too deeply")]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError([Finding(Where(str(path)), f"is not readable as TOML: {error}")]) from None


def _useless(name: str, run: RunFile) -> Finding:
    near = nearest(name, run.named_engines)
    return Finding(
        Where("--set"), f"engines.{name} is an engine that no role and no judge names{near}"
    )


def validate(data: Mapping[str, Any], source: str) -> RunFile:
    """Check a run file's data; raises InputError with every finding, each naming its key."""
    try:
        return RunFile.model_validate(data)
    except ValidationError as error:
        raise InputError([finding(one, source, RunFile) for one in error.errors()]) from None


def finding(detail: Mapping[str, Any], source: str, model: type[BaseModel]) -> Finding:
    """Return what is wrong with a file's data, from one of pydantic's errors of its model."""
    location = ".".join(str(part) for part in detail["loc"])
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        *above, key = detail["loc"]
        message = f"unknown key{nearest(str(key), _keys_at(above, model))}"
    return Finding(Where(source), f"{location}: {message}" if location else message)


def _keys_at(location: Sequence[str | int], model: type[BaseModel]) -> list[str]:
    """Return the keys that a table may have; none where the names in it are anybody's own."""
    found: Any = model
    own = False  # the part is an index, or a name that anybody may choose: `arms.0`, `engines.cpu`
    for part in location:
        if own:
            own = False
            continue
        known = getattr(found, "model_fields", {})
        if part not in known:
            return []
        asked = known[part].annotation
        own = get_origin(asked) in (dict, tuple)
        found = next((one for one in get_args(asked) if hasattr(one, "model_fields")), asked)
    return list(getattr(found, "model_fields", {}))


def resolved(run: RunFile) -> dict[str, Any]:
    """Return the run file as JSON data, for the run's folder; keys are in it by name only."""
    # The round is what a command is about, not what the run is.
    data: dict[str, Any] = json.loads(run.model_dump_json(exclude={"run": {"round"}}))
    return data
