"""`duologue export`: the curated examples in the forms that other trainers read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import click
import pyarrow as pa

from cluster.made import find_run
from cluster.run_folder import RunFolder
from specs.errors import DuologueError, Finding, InputError, Where
from specs.parts import SUFFIX, TEMPORARY, Folder, read_batches, storage_error, synchronise
from specs.records import curated_schema, preference_schema
from trainer.curated import FORMAT, SUMMARY
from trainer.export import FORMS, MARK, Form, card, example, jsonl, pair
from trainer.split import SPLITS

CARD = "README.md"


def export(run: str, settings: Sequence[str], form: str, out: str) -> None:
    """Write the curated examples of a run into a folder, with a card.

    Args:
        run: the run's folder, or its run file.
        form: one of FORMS.
        out: a local folder or a URI; what an export before has left there is replaced.

    Raises:
        InputError: there is nothing curated, or the folder holds something else.
        DuologueError: the disk is full, and the like; what was there stays.
    """
    chosen = next(one for one in FORMS if one == form)
    folder = find_run(run, settings)
    target = Folder.of(out)
    files = write(curated_of(folder), chosen, target)
    click.echo(target.path)
    for name, rows in files.items():
        click.echo(f"{rows:>8}  {name}.jsonl")


def curated_of(run: RunFolder) -> Folder:
    """Return the folder of a run's curated files.

    Raises:
        InputError: there are none.
    """
    folder = run.round().child("curated")
    if SUMMARY not in folder.names():
        hint = "Make some first: duologue curate RUN.toml"
        raise InputError([Finding(Where(folder.path), "there are no curated examples", hint)])
    return folder


def write(curated: Folder, form: Form, target: Folder) -> dict[str, int]:
    """Write the files and the card; return the files' names without ending, with their rows.

    Raises:
        InputError: the folder holds something else, or what is curated cannot be read.
        DuologueError: the disk is full, and the like; what was there stays.
    """
    summary = _summary(curated)
    _refuse_foreign(target)
    target.create()
    files: dict[str, int] = {}
    try:
        for side in SPLITS:
            lines = jsonl(_rows(curated, side, curated_schema()), lambda row: example(form, row))
            files[side] = _write_lines(target, side, lines)
        lines = jsonl(
            _rows(curated, "preference", preference_schema()), lambda row: pair(form, row)
        )
        files["preference"] = _write_lines(target, "preference", lines)
        _publish(target, files)
    except BaseException:
        for name in (*SPLITS, "preference"):
            with contextlib.suppress(OSError):
                target.fs.delete_file(target.file(f"{TEMPORARY}{name}.jsonl"))
        raise
    found = {name: rows for name, rows in files.items() if rows}
    target.write_bytes(CARD, card(form, summary, found).encode())
    return found


def _summary(curated: Folder) -> Mapping[str, Any]:
    where = Where(curated.file(SUMMARY))
    try:
        summary = json.loads(curated.read_bytes(SUMMARY))
    except (OSError, ValueError) as error:
        raise InputError([Finding(where, f"cannot be read: {error}", _AGAIN)]) from None
    if not isinstance(summary, dict) or summary.get("format") != FORMAT:
        raise InputError([Finding(where, "is not Duologue's", _AGAIN)])
    return summary


_AGAIN = "Curate again: duologue curate RUN.toml --fresh"


def _rows(curated: Folder, name: str, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    try:
        for batch in read_batches(curated, f"{name}{SUFFIX}", schema):
            yield from batch.to_pylist()
    except FileNotFoundError:
        where = Where(curated.file(f"{name}{SUFFIX}"))
        raise InputError([Finding(where, "is missing", _AGAIN)]) from None


def _refuse_foreign(target: Folder) -> None:
    """Refuse a folder with files that no export has written."""
    hint = "Name a new or empty folder (--out)."
    try:
        names = [name for name in target.names() if not name.startswith((TEMPORARY, "."))]
    except DuologueError as error:
        why = error.__cause__ or error
        raise InputError([Finding(Where(target.path), f"is no folder: {why}", hint)]) from None
    if not names:
        return
    with contextlib.suppress(FileNotFoundError):
        if MARK.encode() in target.read_bytes(CARD):
            return
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    message = f"holds something else ({shown})"
    raise InputError([Finding(Where(target.path), message, hint)])


def _write_lines(target: Folder, name: str, lines: Iterable[bytes]) -> int:
    """Write a temporary file; return how many lines it has."""
    path = target.file(f"{TEMPORARY}{name}.jsonl")
    count = 0
    try:
        with target.fs.open_output_stream(path) as stream:
            for line in lines:
                stream.write(line)
                count += 1
        if target.local:
            synchronise(path)
    except OSError as error:
        raise storage_error(error, path) from error
    return count


def _publish(target: Folder, files: Mapping[str, int]) -> None:
    """Give all files their names; of an empty one none stays."""
    for name, rows in files.items():
        temporary, final = target.file(f"{TEMPORARY}{name}.jsonl"), f"{name}.jsonl"
        if not rows:
            target.fs.delete_file(temporary)
            target.delete(final)
            continue
        try:
            target.fs.move(temporary, target.file(final))
        except OSError as error:
            raise storage_error(error, target.file(final)) from error
