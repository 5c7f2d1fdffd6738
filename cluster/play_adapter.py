"""`duologue play --adapter`: a person talks to a trained adapter, which calls its tools."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import click

from actors.caller import ToolCaller
from actors.engines.models import load_tokenizer
from cluster.adapter_seat import AdapterDialogue, Said
from cluster.agent_adapter import adapter_folder
from cluster.evaluation_plan import digest_of, serving_engine, serving_name
from cluster.person import Noted, Quit, read_line
from cluster.play import NAME, for_one, line_editing, open_played, retriever
from cluster.show import plain
from cluster.single_engine import started
from specs.agent_format import ChatMessage, PieceKind
from specs.chat_template import ChatEncoder
from specs.domain import Domain
from specs.engine import Request
from specs.engine_section import EngineSection
from specs.errors import DuologueError, InputError, Unavailable
from specs.plan import PlanSource, make_plan
from specs.run_file import RunFile, TokenLimits
from trainer.adapter import check_adapter, load_manifest
from trainer.evaluation import Ask, Prompts, greedy

HELP = """\
  Type what you would say. Commands:
    /think     show, or hide, what the adapter writes for itself and what its calls bring
    /intents   what leads on from here
    /prompt    the last prompt that it saw
    /help, /quit"""


def play_adapter(
    path: str, adapter: str, run_file: str, settings: Sequence[str], index: int
) -> None:
    """Let a person talk to an adapter in the domain at `path`.

    Args:
        adapter: its folder, or the folder of the run that trained it.
        index: of the plan, which draws what the domain draws (which tools fail, and the like).

    Raises:
        InputError: for a domain, a run file or an adapter that cannot be used.
        DuologueError: when the engine or the documents fail.
    """
    run, domain = open_played(path, run_file, settings)
    folder = adapter_folder(adapter)
    engine = serving_engine(run)
    found = check_adapter(folder, engine.model, digest_of(engine))
    if found:
        raise InputError(found)
    click.echo(f"domain:    {plain(domain.name)}: {plain(domain.description)}")
    click.echo(f"adapter:   {plain(folder)}\n/help lists the commands\n")
    line_editing()
    try:
        asyncio.run(_play(run, engine, domain, folder, index))
    except Quit:
        click.echo("(you left)")


@dataclass(slots=True)
class Writer:
    """Has an adapter write pieces, greedily."""

    ask: Ask
    prompts: Prompts
    tokenizer: Any
    adapter: str
    deadline_s: float
    noted: Noted = field(default_factory=Noted)
    limits: TokenLimits = field(default_factory=TokenLimits)
    _numbers: count[int] = field(default_factory=count)

    async def __call__(self, messages: Sequence[ChatMessage], prefix: str, kind: PieceKind) -> str:
        """Return the piece.

        Raises:
            Unavailable: when the engine does not answer.
            DuologueError: when it never will, since the prompt does not fit or is refused.
        """
        most: int = getattr(self.limits, kind)
        tokens = self.prompts.tokens(messages, prefix, most)
        if tokens is None:
            raise DuologueError("what was said last does not fit the window")
        self.noted.prompt = self.tokenizer.decode(tokens)
        request = Request(
            id=f"{NAME}:{next(self._numbers)}",
            sampling=greedy(kind, most),
            tokens=tuple(tokens),
            deadline_s=self.deadline_s,
            adapter=self.adapter,
        )
        answer = await self.ask(request, NAME)
        failure = answer.failure
        if failure is not None and failure.permanent:
            raise DuologueError(failure.message)
        if failure is not None:
            raise Unavailable(f"the adapter's engine does not answer: {failure.message}")
        return answer.candidates[0].text.strip()


async def _play(
    run: RunFile, engine: EngineSection, domain: Domain, folder: Path, index: int
) -> None:
    adapter = str(folder)
    if load_manifest(folder).get("method") == "full":  # the folder is a whole model
        engine, adapter = engine.model_copy(update={"model": adapter, "revision": None}), ""
    name = serving_name(run) or NAME
    click.echo(f"starting {engine.model} ...", err=True)
    async with (
        started(for_one(engine), name, adapter, run.cluster) as (client, info),
        retriever(run, domain) as documents,
    ):
        tokenizer = load_tokenizer(engine.model, engine.revision)
        prompts = Prompts(ChatEncoder(tokenizer), info.window)
        writer = Writer(client.ask, prompts, tokenizer, adapter, engine.turn_deadline_s)
        plan = make_plan(domain, PlanSource(run.run.seed, arm=run.policy.arm), index)
        await Talk(
            AdapterDialogue(domain, plan, ToolCaller(domain, documents), writer), writer.noted
        ).play()


@dataclass(slots=True)
class Talk:
    """A person and an adapter in a terminal."""

    dialogue: AdapterDialogue
    noted: Noted
    think: bool = False
    _last: Said = field(default_factory=Said)

    async def play(self) -> None:
        """Talk until the agent has come to an end; raises Quit when the person leaves."""
        self._show(await self.dialogue.open())
        while not self.dialogue.ended:
            self._show(await self.dialogue.hear(self._line()))
        click.echo("(ended)")

    def _show(self, said: Said) -> None:
        self._last = said
        if self.think:
            self._thoughts()
        name = self.dialogue.scene.domain.agent.name
        if said.answer:
            click.echo(f"{click.style(f'{name}:', fg='green', bold=True)} {plain(said.answer)}")
        elif said.wordless:
            click.echo("  (it wrote no answer)")
        elif said.thoughts:
            why = plain(said.thoughts[-1])
            click.echo(f"  (the {name} has not understood: {why}; say it another way)")

    def _thoughts(self) -> None:
        for line in self._last.thoughts:
            click.secho(f"  {plain(line)}", dim=True)

    def _line(self) -> str:
        while True:
            line = read_line(f"{self.dialogue.scene.domain.user.name}> ").strip()
            if line == "/think":
                self.think = not self.think
                click.echo(f"  thoughts are {'shown' if self.think else 'hidden'}")
                if self.think:
                    self._thoughts()
            elif line == "/intents":
                click.echo(f"  {plain(', '.join(self.dialogue.possible()) or 'nothing')}")
            elif line == "/prompt":
                shown = plain(self.noted.prompt or "(it has not been asked yet)", newlines=True)
                click.echo("\n".join(f"    | {one}" for one in shown.splitlines()))
            elif line == "/help":
                click.echo(HELP)
            elif line.startswith("/"):
                click.echo(f"  there is no command {plain(line.split()[0])}; /help lists them")
            elif line:
                return line
