"""A dialogue as a person wants to read it in the terminal.

Invariant: what a model wrote is only ever shown as text: no markup of it is obeyed, and no control
character of it reaches the terminal.
"""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from specs.errors import DuologueError, Finding, InputError, Where
from specs.records import Dialogue, Turn, dialogue_from_row, dialogue_schema, dump_json
from specs.traits import acted, told

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from cluster.run_folder import RunFolder
    from specs.domain import Side

_NAMES: Mapping[str, str] = {"user": "user", "agent": "agent"}
_JOINERS = {"\u200c", "\u200d"}  # scripts and emoji need them
_LONGEST = 240


def plain(text: object, newlines: bool = False) -> str:
    """Return text without control and formatting characters; line ends stay if asked."""

    def seen(character: str) -> str:
        if character == "\n":
            return "\n" if newlines else " "
        if character == "\t":
            return " "
        kind = unicodedata.category(character)
        if kind == "Cs":
            return "\ufffd"
        return "" if kind in ("Cc", "Cf", "Zl", "Zp") and character not in _JOINERS else character

    return "".join(map(seen, str(text)))


@dataclass(frozen=True, slots=True)
class Said:
    """One turn, ready to be shown: margin, speaker, words, and the notes beneath."""

    margin: str
    speaker: str
    role: str
    text: str
    notes: tuple[str, ...]
    prompt: str = ""


@dataclass(frozen=True)
class DialogueView:
    """A rich renderable: columns on a terminal, plain lines everywhere else.

    Attributes:
        prompts: with what each turn was drawn with: prompt, model, settings.
        names: what the roles are called.
        exact: the exact prompts, by the turns' numbers, where they were rendered again.
    """

    dialogue: Dialogue
    prompts: bool = False
    names: Mapping[str, str] = field(default_factory=lambda: _NAMES)
    exact: Mapping[int, str] = field(default_factory=dict)

    def header(self) -> list[tuple[str, str]]:
        """Return what stands above the turns, as names and values."""
        dialogue = self.dialogue
        titles = _titles(dialogue)
        seconds = (dialogue.ended_at - dialogue.started_at).total_seconds()
        stop = dialogue.stop_reason.value + (f": {dialogue.error}" if dialogue.error else "")
        sources = [turn.source for turn in dialogue.turns]
        borrowed = sources.count("reference")
        length = f"{len(sources)} turns, {seconds:.0f} s"
        length += f", {borrowed} of them references" if borrowed else ""
        rows = [
            ("dialogue", f"{dialogue.index} of {dialogue.run} ({dialogue.walk_id[:12]})"),
            ("domain", f"{dialogue.domain}, policy {dialogue.policy}"),
            ("persona", dialogue.persona),
            ("goal", dialogue.goal),
            ("traits", "; ".join(_traits(dialogue))),
            ("documents", "; ".join(titles.get(id_, id_) for id_ in dialogue.doc_ids)),
            ("stopped", stop),
            ("length", length),
        ]
        return [(name, plain(value)) for name, value in rows if value]

    def said(self) -> Iterator[Said]:
        """Yield the turns, ready to be shown."""
        titles = _titles(self.dialogue)
        for turn in self.dialogue.turns:
            about = turn.intent if turn.role == "user" else turn.state
            yield Said(
                margin=plain(f"{turn.index} {about}".rstrip()),
                speaker=plain(self.names.get(turn.role, turn.role)),
                role=turn.role,
                text=plain(turn.text, newlines=True),
                notes=tuple(plain(note) for note in self._notes(turn, titles)),
                prompt=plain(self.exact.get(turn.index, ""), newlines=True),
            )

    def _notes(self, turn: Turn, titles: Mapping[str, str]) -> Iterator[str]:
        yield from _notes(turn, titles)
        if self.prompts and turn.prompt_digest:
            tokens = f"{turn.prompt_tokens} tokens, {turn.cached_tokens} of them cached"
            yield f"prompt {turn.prompt_digest}: {tokens}; {turn.model}, seed {turn.seed}"
            if turn.sampling:
                yield "drawn with " + _pairs(turn.sampling)

    def lines(self) -> Iterator[str]:
        """Yield plain lines: no colours, no boxes, no wrapping."""
        for name, value in self.header():
            yield f"{name + ':':<11}{value}"
        for said in self.said():
            yield ""
            if said.prompt:
                yield from (f"    | {line}" for line in said.prompt.splitlines())
            first, *rest = said.text.splitlines() or [""]
            yield f"[{said.margin}] {said.speaker}: {first}"
            yield from (f"    {line}" for line in rest)
            yield from (f"    ({note})" for note in said.notes)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render for a console."""
        from rich.table import Table
        from rich.text import Text

        if not console.is_terminal:
            yield Text("\n".join(self.lines()), no_wrap=True, overflow="ignore")
            return
        head = Table.grid(padding=(0, 2))
        for name, value in self.header():
            head.add_row(Text(name, style="dim"), Text(value))
        yield head
        yield Text("")
        turns = list(self.said())
        widest = max((len(said.margin) for said in turns), default=0)
        margin = min(widest, max(8, options.max_width // 4))
        body = Table.grid(padding=(0, 2), expand=False)
        body.add_column(width=margin, style="dim", overflow="fold")
        body.add_column(overflow="fold")
        for said in turns:
            body.add_row(Text(said.margin), _cell(said))
            body.add_row()
        yield body

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Any:
        """Take the whole width."""
        from rich.measure import Measurement

        return Measurement(min(20, options.max_width), options.max_width)


def _cell(said: Said) -> Any:
    from rich.text import Text

    cell = Text()
    if said.prompt:
        cell.append(f"{said.prompt}\n", style="dim italic")
    cell.append(f"{said.speaker}: ", style="bold cyan" if said.role == "user" else "bold green")
    cell.append(said.text)
    for note in said.notes:
        cell.append(f"\n{note}", style="dim")
    return cell


def _titles(dialogue: Dialogue) -> dict[str, str]:
    titles = {}
    for id_, text in dialogue.documents:
        try:
            document = json.loads(text)
        except ValueError:
            continue
        if isinstance(document, dict):
            title = document.get("title") or document.get("name")
            titles[id_] = str(title) if title else id_
    return titles


def _traits(dialogue: Dialogue) -> Iterator[str]:
    for name, turns in acted(dialogue).items():
        where = f"acted on turns {', '.join(map(str, turns))}" if turns else "did not act"
        yield f"{name} ({where})"


def _notes(turn: Turn, titles: Mapping[str, str]) -> Iterator[str]:
    """Yield what stands beneath a turn's words."""
    if turn.slots:
        yield "slots: " + _pairs(turn.slots)
    if turn.call:
        arguments = turn.call.get("arguments")
        shown = _pairs(arguments) if isinstance(arguments, Mapping) else ""
        yield f"called: {turn.call.get('tool', '?')}({shown})"
    if turn.result_ids:
        yield "retrieved: " + "; ".join(_results(turn, titles))
    if turn.result is not None:
        yield "result: " + _short(turn.result)
    if turn.reply:
        yield "reply: " + _pairs(turn.reply)
    if turn.routing is not None:
        yield _routed(turn.routing)
    if turn.source != "model":
        yield {
            "reference": "reference: a person's words stand in",
            "repair": "repair: said again after failed checks",
        }.get(turn.source, turn.source)
    if traits := [name for name, passed in told(turn) if passed]:
        yield "acted: " + ", ".join(traits)
    failed = [check for check in turn.checks if not check.passed]
    if failed:
        measured = (c.name if c.value is None else f"{c.name} ({c.value:.3g})" for c in failed)
        yield "failed checks: " + ", ".join(measured)
    if turn.rejected:
        yield f"rejected candidates: {len(turn.rejected)}"


def _results(turn: Turn, titles: Mapping[str, str]) -> Iterator[str]:
    for place, id_ in enumerate(turn.result_ids):
        title = titles.get(id_, id_)
        name = id_ if title == id_ else f"{id_} {title}"
        known = place < len(turn.result_scores)
        yield f"{name} ({turn.result_scores[place]:.2f})" if known else name


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_short(value)}" for name, value in values.items())


def _routed(routing: Mapping[str, Any]) -> str:
    """Return how the dialogue found its way at a turn, in words where they are known."""
    if "score" not in routing:  # the edge was drawn
        return "routed: " + _short(routing)
    told = f"the {routing['manager']} manager: "
    like, score = routing.get("like"), routing.get("score")
    told += f"like {_short(like)}" if like else "what it names" if score is None else "like none"
    told = told if score is None else f"{told} ({score:.2f})"
    return f"{told}, {routing['tokens']} tokens" if "tokens" in routing else told


def _short(value: Any) -> str:
    text = dump_json(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def render_dialogue(
    dialogue: Dialogue,
    prompts: bool = False,
    names: Mapping[str, str] | None = None,
    exact: Mapping[int, str] | None = None,
) -> DialogueView:
    """Return a dialogue as a rich renderable; the arguments are those of `DialogueView`."""
    return DialogueView(dialogue, prompts, names or _NAMES, exact or {})


def print_dialogue(
    console: Console,
    dialogue: Dialogue,
    prompts: bool = False,
    names: Mapping[str, str] | None = None,
    exact: Mapping[int, str] | None = None,
) -> None:
    """Print a dialogue; long lines are neither wrapped nor cut where no terminal is."""
    view = render_dialogue(dialogue, prompts, names, exact)
    console.print(view, crop=console.is_terminal)


def role_names(run: RunFolder) -> dict[str, str]:
    """Return what the domain calls the two roles, from the run's copy of the domain."""
    import yaml

    names = dict(_NAMES)
    try:
        data = yaml.safe_load(run.folder.child("domain").read_bytes("domain.yaml"))
        for role in names:
            names[role] = str(data["roles"][role]["name"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return dict(_NAMES)
    return names


def find_dialogue(
    run: RunFolder,
    which: int | str,
    generator: random.Random | None = None,
) -> Dialogue:
    """Return one dialogue of a run, from its parts or, not yet in one, from its turn log.

    Args:
        which: an index, `random`, `first`, or the beginning of a walk_id.

    Raises:
        InputError: there is no such dialogue.
    """
    from actors.turn_log import read_log
    from specs.parts import part_names, read_batches

    folder, schema = run.dialogues(), dialogue_schema()
    places: list[tuple[int, str, str]] = []
    for name in part_names(folder):
        for batch in read_batches(folder, name, schema, ["index", "walk_id"]):
            places += [(row["index"], row["walk_id"], name) for row in batch.to_pylist()]
    known = {index for index, _, _ in places}
    logged = read_log(run.log(), lambda index: index not in known)
    finished = {index: ended.dialogue for index, ended in logged.finished.items()}
    places += [(index, dialogue.walk_id, "") for index, dialogue in finished.items()]
    index, _, name = _choose(sorted(places), which, generator, run, len(logged.unfinished))
    if not name:
        return finished[index]
    for batch in read_batches(folder, name, schema):
        for place, found in enumerate(batch.column("index").to_pylist()):
            if found == index:
                return dialogue_from_row(batch.slice(place, 1).to_pylist()[0])
    raise InputError(f"dialogue {index} is gone from {folder.file(name)}")


def _choose(
    places: Sequence[tuple[int, str, str]],
    which: int | str,
    generator: random.Random | None,
    run: RunFolder,
    unfinished: int,
) -> tuple[int, str, str]:
    where, going = Where(run.folder.path), f", and {unfinished} are in progress" * bool(unfinished)
    if not places:
        message = f"holds no finished dialogue{going}"
        raise InputError([Finding(where, message, "Make some with `duologue generate`.")])
    if which == "first":
        return places[0]
    if which == "random":
        return (generator or random.Random()).choice(places)
    if isinstance(which, int):
        found = [place for place in places if place[0] == which]
    else:
        found = [place for place in places if which and place[1].startswith(which)]
    if len(found) == 1:
        return found[0]
    what = f"no dialogue {which}" if not found else f"{len(found)} dialogues that begin so: {which}"
    hint = f"It has {len(places)} finished dialogues, {places[0][0]} to {places[-1][0]}{going}."
    raise InputError([Finding(where, f"has {what}", hint)])


def show(
    run: str, settings: Sequence[str], index: int | None, random_: bool, prompts: bool
) -> None:
    """Print a dialogue of a run, which is named by its folder or by its run file."""
    from rich.console import Console

    from cluster.made import find_run

    folder = find_run(run, settings)
    which: int | str = "random" if random_ else ("first" if index is None else index)
    dialogue = find_dialogue(folder, which)
    exact = _exact_prompts(folder, dialogue) if prompts else {}
    print_dialogue(Console(), dialogue, prompts, role_names(folder), exact)


def _exact_prompts(run: RunFolder, dialogue: Dialogue) -> dict[int, str]:
    """Return the prompts by turn, rendered again from the record and the run's own domain."""
    import asyncio

    import click

    from actors.reenact import exact_prompts
    from cluster.made import read_made
    from specs.replay import source_of

    made = read_made(run)
    source = source_of(dialogue, made.run.run.seed)
    roles: dict[Side, str] = {"user": made.run.roles.user, "agent": made.run.roles.agent}
    profiles = {side: made.run.engines[name].profile for side, name in roles.items()}
    try:
        domain = made.place.open()
        structured = made.run.policy.workflow == "structured"
        return asyncio.run(exact_prompts(dialogue, domain, source, profiles, structured))
    except DuologueError as error:
        click.echo(f"warning: the exact prompts cannot be rendered again: {error}", err=True)
        return {}
