"""A person takes one side of a dialogue, in the terminal, against the model of the other side.

The dialogue is the `Conversation` that a run would play, with a person in one seat; the model is
loaded in this process, unless it has GPUs or the run file names a cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

import specs
from actors.caller import ToolCaller
from actors.cast import Cast
from actors.conversation import Conversation
from actors.engines.models import load_tokenizer
from actors.prompts import Prompt
from actors.retrieval.retriever import LocalRetriever
from actors.retrieval.store import Corpus
from actors.seat import Seat
from cluster.person import Noted, Person, Quit
from cluster.show import plain
from cluster.single_engine import started
from specs.domain import Domain, Side
from specs.engine import Sampling
from specs.engine_section import EngineSection
from specs.loader import locate, open_domain
from specs.plan import Plan, PlanSource, make_plan
from specs.records import Dialogue, Turn
from specs.run_file import RunFile, load

NAME = "play"


def play(path: str, side: str, run_file: str, settings: Sequence[str], index: int) -> None:
    """Let a person play the plan of an index on one side of the domain at `path`.

    Args:
        side: the person's, `user` or `agent`; the run file's engine of the other one plays that.

    Raises:
        InputError: for a domain, a run file or a setting that cannot be used.
        DuologueError: when the engine or the documents fail.
    """
    person: Side = "agent" if side == "agent" else "user"
    run, domain = open_played(path, run_file, settings)
    plan = make_plan(domain, PlanSource(run.run.seed, arm=run.policy.arm), index)
    _introduce(domain, plan, person)
    line_editing()
    try:
        dialogue = asyncio.run(_play(run, domain, plan, person))
    except Quit:
        click.echo("(you left)")
        return
    end = dialogue.stop_reason.value + (f": {plain(dialogue.error)}" if dialogue.error else "")
    click.echo(f"({end}; {len(dialogue.turns)} turns)")


def open_played(path: str, run_file: str, settings: Sequence[str]) -> tuple[RunFile, Domain]:
    """Return a run file and the domain that is played; raises InputError."""
    run = load(_found(run_file), settings)
    return run, _domain(path, run)


def _found(run_file: str) -> Path:
    """Return the run file; one that ships is found outside the repository, too."""
    shipped = Path(specs.__file__).parent / "runs" / Path(run_file).name
    given = Path(run_file)
    if not given.exists() and given.parts[:2] == ("specs", "runs") and shipped.is_file():
        return shipped
    return given


def _domain(path: str, run: RunFile) -> Domain:
    played, own = (locate(one)[0] for one in (path, run.domain.path))
    if played is None or own is None or played.resolve() != own.resolve():
        return open_domain(path)  # the run file's documents belong to its own domain
    corpus, personas = run.domain.corpus, run.domain.personas
    return open_domain(path, Path(corpus) if corpus else None, Path(personas) if personas else None)


def _introduce(domain: Domain, plan: Plan, person: Side) -> None:
    card = domain.user if person == "user" else domain.agent
    rows = [("domain", f"{domain.name}: {domain.description}"), ("you are", f"the {card.name}")]
    if person == "user":
        rows += [("persona", f"{plan.persona.name}. {plan.persona.text}" * bool(plan.persona.id))]
    rows += [("goal", plan.goal)]
    if plan.document is not None:
        fields = plan.document.fields
        rows += [("document", str(fields.get("title") or fields.get("name") or plan.document.id))]
    for name, value in rows:
        if value:
            click.echo(f"{name + ':':<10} {plain(value)}")
    click.echo("/help lists the commands\n")


def line_editing() -> None:
    """Give the terminal's lines editing and a history, where Python can."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - its import gives `input` line editing and a history


@dataclass(frozen=True, slots=True)
class _NotingSeat(Seat):
    """A seat that keeps the last prompt: the tokens read back, or the text before any template."""

    noted: Noted = field(default_factory=Noted)

    def sampling(
        self, prompt: Prompt, seed: int, n: int, max_tokens: int | None = None
    ) -> Sampling:
        """Return the decoding of one request."""
        if self.tokenizer is None:
            self.noted.prompt = prompt.exact()
        return Seat.sampling(self, prompt, seed, n, max_tokens)

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the token ids of a prompt."""
        tokens = Seat.encode(self, prompt)
        decode = getattr(self.tokenizer, "decode", None)
        self.noted.prompt = decode(tokens) if decode else prompt.exact()
        return tokens


async def _play(run: RunFile, domain: Domain, plan: Plan, person: Side) -> Dialogue:
    model: Side = "agent" if person == "user" else "user"
    names = {"user": domain.user.name, "agent": domain.agent.name}
    taker = Person(names[person])
    async with _seat(run, model, taker.noted) as seat, retriever(run, domain) as documents:
        cast = Cast(
            domain=domain,
            source=PlanSource(run.run.seed, arm=run.policy.arm),
            run=NAME,
            seats={"user": seat, "agent": seat},
            caller=ToolCaller(domain, documents),
            max_turns=run.policy.max_turns or domain.max_turns,
            people={person: taker},
        )

        async def show(turn: Turn) -> None:
            if turn.role == model:
                colour = "cyan" if model == "user" else "green"
                name = click.style(f"{names[model]}:", fg=colour, bold=True)
                click.echo(f"{name} {plain(turn.text)}")

        return await Conversation(cast, plan, on_turn=show).play()


def for_one(engine: EngineSection) -> EngineSection:
    """Return the engine as a single person needs it: once."""
    return engine.model_copy(update={"replicas": 1})


@contextlib.asynccontextmanager
async def _seat(run: RunFile, side: Side, noted: Noted) -> AsyncIterator[Seat]:
    """Start the engine of a role, and stop it in the end; raises EngineError when it cannot."""
    name = getattr(run.roles, side)
    engine = for_one(run.engines[name])
    if engine.kind != "reference":
        click.echo(f"starting {engine.model} ...", err=True)
    async with started(engine, name, cluster=run.cluster) as (client, info):
        tokenizer = None
        if info.takes == "tokens":
            tokenizer = load_tokenizer(engine.model, engine.revision)
        yield _NotingSeat(
            client=client,
            info=info,
            profile=engine.profile,
            tokenizer=tokenizer,
            deadline_s=engine.turn_deadline_s,
            noted=noted,
        )


@contextlib.asynccontextmanager
async def retriever(run: RunFile, domain: Domain) -> AsyncIterator[LocalRetriever]:
    """Yield what a domain's documents are searched with in this process."""
    local = LocalRetriever(Corpus.of(domain.documents), run.retrieval)
    try:
        yield local
    finally:
        await local.stop()
