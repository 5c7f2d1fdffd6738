"""`duologue domain import star`: STAR's tasks as domains, its dialogues as curated rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from cluster.show import plain
from specs.errors import InputError
from specs.star.files import Talk, Task, beside, read_talks, read_tasks
from specs.star.importing import Imported, import_tasks, require_free, write


def import_star(
    paths: Sequence[Path],
    mappings: Sequence[Path],
    dialogues: Path | None,
    out: Path | None,
    curated: Path | None,
) -> None:
    """Import task files; says what was written, and every guess.

    Raises:
        InputError: with all that is wrong; nothing is written then.
    """
    if out is None and curated is None:
        hint = "--out DIR writes domains, --curated RUN the people's dialogues, to be trained on"
        raise InputError("nothing is asked for", hint)
    tasks = read_tasks(paths)
    source = dialogues or beside(paths)
    if source is None:
        hint = "name the file: --dialogues dialogues.jsonl.gz"
        raise InputError("no dialogues lie beside the task files", hint)
    talks = read_talks(source)
    if dialogues is None:
        click.echo(f"dialogues of {source}")
    domains = import_tasks(tasks, talks, mappings) if out is not None else []
    if out is not None:
        require_free(domains, out)
    if curated is not None:
        _curate(tasks, talks, curated)
    if out is not None:
        write(domains, out)
        for domain in domains:
            _report(domain, out / domain.name)


def _curate(tasks: Sequence[Task], talks: Sequence[Talk], run: Path) -> None:
    from trainer.star import write_run

    names = {name for task in tasks for name in (task.name, task.also)}
    own = [talk for talk in talks if talk.task in names]
    if not own:
        raise InputError(f"no dialogue is about {', '.join(task.name for task in tasks)}")
    count = write_run(own, run)
    sides = ", ".join(f"{number:,} {name}" for name, number in count.items())
    click.echo(f"wrote {run}: {sum(count.values()):,} dialogues of people ({sides})")


def _report(domain: Imported, folder: Path) -> None:
    by = f"as {domain.mapping} says" if domain.mapping else "without a mapping file"
    click.echo(f"wrote {folder}: {domain.documents:,} documents, {by}")
    for guess in domain.guesses:
        click.echo(plain(f"  guess: {guess}"))
