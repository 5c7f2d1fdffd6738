"""A person at a conversation: what they type becomes the words, the intent and the slots of a turn.

The words of the user's side are free; the intent is the open edge whose references they resemble
most, and the person may correct it. While a line is awaited, the event loop stands still: nothing
else has to happen, and Ctrl-C reaches the line.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from actors.conversation import Conversation
from actors.speaking import Utterer
from actors.spoken import Spoken
from cluster.show import plain
from specs.domain import Edge, Side, Slot, Speech
from specs.errors import DuologueError
from specs.records import dump_json
from specs.scene import Calling, CallResult, SceneError, coerce

HELP = {
    "user": """\
  Type what you would say. Commands:
    /intents          what is possible now, numbered
    /as NUMBER WORDS  say it, with that intent
    /prompt           the last prompt that the model saw
    /help, /quit""",
    "agent": """\
  Type what you would answer. Commands:
    /intents          what this turn is to do
    /prompt           the last prompt that the model saw
    /help, /quit""",
}


class Quit(Exception):
    """The person has had enough."""


@dataclass(slots=True)
class Noted:
    """The last prompt that a model saw."""

    prompt: str = ""


@dataclass(frozen=True, slots=True)
class Option:
    """An open edge as the user may take it.

    Attributes:
        texts: what a person wrote for it, rendered; the instruction where there is nothing.
    """

    edge: Edge
    name: str
    instruction: str
    texts: tuple[str, ...]

    def __str__(self) -> str:
        return plain(f"{self.name}: {self.instruction}")


@dataclass(slots=True)
class Person:
    """Takes a side at a terminal, or from a pipe (`actors.conversation.Person`)."""

    name: str
    noted: Noted = field(default_factory=Noted)
    _text: str = ""

    async def choose_edge(self, conversation: Conversation, edges: Sequence[Edge]) -> Edge:
        """Return the edge that the person's words mean; the words are kept for `speak`.

        Raises:
            DuologueError: when none of the edges can be said here.
        """
        options = _options(conversation, edges)
        said = ""
        while True:
            given, said = said or self._line("user", list(map(str, options))), ""
            corrected, text = _as(given, options)
            if text and corrected is not None:
                break
            if given.startswith("/"):
                click.echo(f"  /as takes a number from 1 to {len(options)} and your words")
                continue
            text = given
            corrected, said = await self._matched(conversation, text, options)
            if corrected is not None:
                break
        self._text = text
        return corrected.edge

    async def speak(self, conversation: Conversation, side: Side, speech: Speech) -> Spoken:
        """Return what the person says, with the slots that the words carry."""
        utterer = Utterer(conversation, side, speech)
        if side == "agent":
            _show_task(conversation, utterer)
            self._text = self._line(side, [utterer.ask.instruction])
        slots = dict(utterer.settled)
        references = utterer.references()
        likely: Mapping[str, Any] = references[0][1] if references else {}
        for slot in utterer.ask.written:
            slots[slot.name] = _slot(slot, likely.get(slot.name))
        return Spoken(self._text, slots, {"source": "person"})

    def _line(self, side: Side, possible: Sequence[str]) -> str:
        """Return the next line that is words, or `/as`; the other commands are carried out."""
        while True:
            line = read_line(f"{self.name}> ").strip()
            if line == "/help":
                click.echo(HELP[side])
            elif line == "/prompt":
                click.echo(_quoted(self.noted.prompt or "(no model has been asked yet)"))
            elif line == "/intents":
                _list(possible)
            elif line == "/as" or line.startswith("/as "):
                if side == "user":
                    return line
                click.echo("  what an answer means is settled: /as is for the user's side")
            elif line.startswith("/"):
                click.echo(f"  there is no command {plain(line.split()[0])}; /help lists them")
            elif line:
                return line

    async def _matched(
        self, conversation: Conversation, text: str, options: Sequence[Option]
    ) -> tuple[Option | None, str]:
        """Return the option that the text means, or another line that was typed instead."""
        likeness = conversation.cast.caller.similarity
        scores = await asyncio.gather(*(likeness(text, option.texts) for option in options))
        best = max(range(len(options)), key=lambda place: scores[place])
        click.echo(f"  taken for {best + 1} {options[best]} ({scores[best]:.2f})")
        if len(options) == 1:
            return options[best], ""
        while True:
            line = read_line("  Enter: yes, /as NUMBER: no, that; or say it again: ").strip()
            corrected, words = _as(line, options)
            if not line or (corrected is not None and not words):
                return corrected or options[best], ""
            if corrected is not None or not line.startswith("/"):
                return None, line
            _list(list(map(str, options)))


def read_line(prompt: str) -> str:
    """Return a line; raises Quit at the end of the input, and at /quit.

    While asyncio runs, Ctrl-C would only cancel a task that cannot hear it: for the time of the
    line it is a KeyboardInterrupt again.
    """
    with _interruptible():
        try:
            # What is no UTF-8 arrives as halves of characters, which no engine and no file takes.
            line = input(prompt).encode("utf-8", "replace").decode()
        except EOFError:
            click.echo()
            raise Quit from None
    if not sys.stdin.isatty():
        click.echo(plain(line))  # so that what was piped in reads like a dialogue
    if line.strip() == "/quit":
        raise Quit
    return line


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _options(conversation: Conversation, edges: Sequence[Edge]) -> list[Option]:
    """Return the edges that can be said here; why another cannot is printed, for its author."""
    options = []
    problem: DuologueError | None = None
    for edge in edges:
        try:
            options.append(_option(conversation, edge))
        except DuologueError as error:
            problem = problem or error
            click.echo(f"  ({plain(_named(edge))} cannot be said here: {plain(error)})")
    if problem is not None and not options:
        raise problem
    return options


def _named(edge: Edge) -> str:
    return edge.intent or f"to {edge.to[0].to}"


def _option(conversation: Conversation, edge: Edge) -> Option:
    scene = conversation.scene
    before = scene.slots
    try:
        utterer = Utterer(conversation, "user", edge.speech)
        instruction = utterer.ask.instruction
        texts = tuple(text for text, _ in utterer.references())
    finally:
        scene.slots = before
    return Option(edge, _named(edge), instruction, texts or (instruction,))


def _as(line: str, options: Sequence[Option]) -> tuple[Option | None, str]:
    """Return what `/as NUMBER WORDS` names and says; no option for any other line."""
    command, _, rest = line.strip().partition(" ")
    number, _, words = rest.strip().partition(" ")
    if command != "/as" or not number.isdecimal() or not 1 <= int(number) <= len(options):
        return None, ""
    return options[int(number) - 1], words.strip()


def _list(possible: Sequence[str]) -> None:
    for place, one in enumerate(possible, start=1):
        click.echo(f"  {place:>2} {plain(one)}")


def _slot(slot: Slot, default: Any) -> Any:
    """Ask for a slot that the words carry until its value is one."""
    shown = "" if default is None else f" [{plain(_text(default))}]"
    choice = f" ({', '.join(map(_text, slot.one_of))})" if slot.one_of else ""
    while True:
        line = read_line(f"  {slot.name}{choice}{shown}: ").strip()
        if not line and default is None:
            continue
        try:
            return coerce(slot, _value(slot, line) if line else default)
        except SceneError as error:
            click.echo(f"  {plain(error)}")


def _value(slot: Slot, line: str) -> Any:
    if slot.type == "list":
        return [part.strip() for part in line.split(",") if part.strip()]
    same = [one for one in slot.one_of if _text(one).lower() == line.lower()]
    return same[0] if same else line


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return value if isinstance(value, str) else dump_json(value)


def _show_task(conversation: Conversation, utterer: Utterer) -> None:
    scene = conversation.scene
    click.secho(f"  state {scene.speaking}: {plain(utterer.ask.instruction)}", dim=True)
    for calling, result in scene.calls:
        for line in _called(conversation, calling, result):
            click.secho(f"  {plain(line)}", dim=True)


def _called(conversation: Conversation, calling: Calling, result: CallResult) -> Iterator[str]:
    arguments = ", ".join(f"{name}={_text(value)}" for name, value in calling.arguments.items())
    yield f"called {calling.tool}({arguments})"
    if calling.tool != "search":
        yield f"  {dump_json(result.value)}"
    elif not result.ids:
        yield "  nothing was found"
    for id_, score in zip(result.ids, result.scores, strict=True):
        fields = conversation.cast.domain.document(id_).fields
        yield f"  {id_} {fields.get('title') or fields.get('name') or ''} ({score:.2f})"


def _quoted(text: str) -> str:
    return "\n".join(f"    | {line}" for line in plain(text, newlines=True).splitlines())
