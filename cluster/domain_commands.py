"""`duologue domain`: write a domain, check it, look at it, rehearse it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

import specs
from cluster import rehearsal, spoken_sample, walk_sample
from cluster.show import plain
from cluster.walk_sample import Sample, Visits
from specs.domain import Domain
from specs.errors import Finding, InputError, Where, nearest
from specs.loader import load_domain, open_domain
from specs.routing import routing_findings
from specs.run_file import PolicySection
from specs.traits import TRAITS, Shares, contradictions, trait_findings

TEMPLATE = Path(specs.__file__).parent / "template"

CHECKED_WALKS = 200
"""Walks that `check` samples."""

SPOKEN_WALKS = 40
"""Of these, how many are spoken too."""


def new(folder: Path) -> None:
    """Write the template into a folder; raises InputError when there is something in it."""
    where = Where(str(folder))
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            hint = "name a folder that does not exist yet, or an empty one"
            raise InputError([Finding(where, "is not an empty folder", hint)])
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(TEMPLATE.iterdir()):
            if file.is_file() and not file.name.startswith("."):
                shutil.copyfile(file, folder / file.name)
                click.echo(f"wrote {folder / file.name}")
    except OSError as error:
        raise InputError([Finding(where, f"cannot be written: {error.strerror}")]) from None
    name = f"'{folder}'" if " " in str(folder) else str(folder)
    click.echo("\nNext:")
    for command, what in (
        ("rehearse", "a dialogue, without a model"),
        ("check", "everything that is wrong with it, after each change"),
        ("show", "what two thousand walks through its graph do"),
    ):
        click.echo(f"  {f'duologue domain {command} {name}':<{len(name) + 25}}  # {what}")


def check(path: str, corpus: Path | None) -> None:
    """Print every finding; exits with code 2 when one of them is an error."""
    domain, findings = load_domain(path, corpus)
    if domain is not None:
        findings += walk_sample.measured(domain, 0, CHECKED_WALKS)
        findings += spoken_sample.unsayable(domain, 0, SPOKEN_WALKS)
    for finding in findings:
        click.echo(str(finding))
    errors = sum(finding.severity == "error" for finding in findings)
    warnings = len(findings) - errors
    click.echo(f"{_many(errors, 'error')}, {_many(warnings, 'warning')}")
    if domain is None:
        raise SystemExit(2)  # click would swallow its own Exit, and the findings are printed
    for line in _contents(domain):
        click.echo(plain(line))


def show(
    path: str, corpus: Path | None, walks: int, seed: int, svg: Path | None, mermaid: Path | None
) -> None:
    """Print the graph's figures and what sampled walks do, and draw it."""
    if walks < 1:
        raise InputError(f"--walks {walks}: at least 1 is needed")
    domain = open_domain(path, corpus)
    for line in _contents(domain):
        click.echo(plain(line))
    for line in _walks(domain, walk_sample.sample(domain, seed, walks)):
        click.echo(line)
    if svg is not None:
        from specs.drawing import svg as drawn

        _write(svg, drawn(domain))
    if mermaid is not None:
        from specs.graph import mermaid as written

        _write(mermaid, written(domain))


def rehearse(
    path: str,
    corpus: Path | None,
    dialogues: int,
    first: int,
    seed: int,
    policy: str = "walk",
    manager: str = "rouge",
    traits: Sequence[str] = (),
) -> None:
    """Play dialogues without a model, and print them.

    Args:
        traits: `name=share` each, of the users who are so.

    Raises:
        InputError: when the policy, a trait or its share cannot be had in this domain.
    """
    from rich.console import Console

    from cluster.show import print_dialogue

    if dialogues < 1 or first < 0:
        raise InputError("--dialogues is at least 1, and --first at least 0")
    domain = open_domain(path, corpus)
    console = Console(highlight=False)
    names = {"user": domain.user.name, "agent": domain.agent.name}
    steered = PolicySection.model_validate({"kind": policy, "manager": manager})
    if wrong := routing_findings(domain, policy):
        raise InputError(wrong)
    shares = _shares(domain, traits)
    played = rehearsal.rehearse(domain, dialogues, first, seed, steered, shares)
    for place, dialogue in enumerate(played):
        if place:
            console.print()
        print_dialogue(console, dialogue, names=names)


def _shares(domain: Domain, given: Sequence[str]) -> Shares:
    shares: dict[str, float] = {}
    found: list[Finding] = []
    for text in given:
        name, _, value = text.partition("=")
        where = Where(f"--trait {text}")
        if name not in TRAITS:
            message = f"there is no trait {name!r}{nearest(name, TRAITS)}"
            found.append(Finding(where, message, f"traits: {', '.join(TRAITS)}"))
            continue
        try:
            shares[name] = float(value or 1)
        except ValueError:
            shares[name] = -1.0
        if not 0 <= shares[name] <= 1:
            found.append(Finding(where, "wants a share from 0 to 1, such as terse=0.2"))
    if not found:
        found = [Finding(Where("--trait"), message) for message in contradictions(shares)]
    found += trait_findings(domain, tuple(shares.items()))
    if found:
        raise InputError(found)
    return tuple(shares.items())


# -- what is printed


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _contents(domain: Domain) -> Iterator[str]:
    from specs.graph import CYCLE_LIMIT, figures

    graph = figures(domain)
    yield f"{domain.name}: {domain.description}" if domain.description else domain.name
    yield (
        f"  {_many(graph.states, 'state')} ({graph.silent} silent, "
        f"{_many(graph.digressions, 'digression')}, {_many(graph.ends, 'end')}), "
        f"{_many(graph.intents, 'intent')}, "
        f"{_many(graph.edges, 'edge')} ({graph.guarded} with a guard)"
    )
    cycles = f"more than {CYCLE_LIMIT:,}" if graph.cycles >= CYCLE_LIMIT else f"{graph.cycles:,}"
    shortest = "no way to an end" if graph.shortest is None else _many(graph.shortest, "user turn")
    yield f"  {cycles} cycles; the shortest way to an end: {shortest}"
    yield (
        f"  {_many(len(domain.documents), 'document')}, {_many(len(domain.personas), 'persona')}, "
        f"{_many(len(domain.goals), 'goal')}, {_many(len(domain.tools), 'tool')}, "
        f"{_many(graph.references, 'reference')}, {_many(graph.examples, 'example')}"
    )


def _walks(domain: Domain, sampled: Sample) -> Iterator[str]:
    walks, turns = sampled.walks, sampled.turns()
    yield f"\n{_many(len(walks), 'sampled walk')}\n  turns: {walk_sample.summary(turns)}"
    yield from walk_sample.histogram(turns)
    yield "  stopped:"
    for reason, count in sampled.stops().most_common():
        yield f"    {reason:<12} {count:>6}  {count / len(walks):>6.1%}"
    errors = dict.fromkeys(walk.error for walk in walks if walk.error)
    yield from (f"    {error}" for error in list(errors)[: walk_sample.SHOWN_ERRORS])
    yield from _table("intents", walk_sample.intent_visits(domain, walks), len(walks))
    yield from _table("states", walk_sample.state_visits(domain, walks), len(walks))
    seen, known = sampled.documents, len(domain.documents)
    yield f"\n  documents: {len(seen):,} of {known:,}" if known else "\n  no documents"
    if domain.personas:
        yield f"  personas: {len(sampled.personas):,} of {len(domain.personas):,}"


def _table(what: str, visits: Sequence[Visits], walks: int) -> Iterator[str]:
    wide = max([len(what), *(len(one.name) for one in visits)])
    yield f"\n  {what:<{wide}}  {'times':>8}  {'in walks':>8}"
    for one in visits:
        share = f"{one.walks / walks:>8.1%}" if one.count else "   never"
        yield f"  {one.name:<{wide}}  {one.count:>8,}  {share}"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        message = f"cannot be written: {error.strerror}"
        raise InputError([Finding(Where(str(path)), message)]) from None
    click.echo(f"wrote {path}")
