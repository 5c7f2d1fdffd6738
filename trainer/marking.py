"""Predictions marked, kept and read again.

Invariants: what a system wrote is kept with its marks and with a digest of all that it was made
from, so that figures can be computed again, and differently, without asking anybody again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specs.errors import InputError
from specs.parts import Folder, read_batches, write_part
from specs.records import dump_json, predictions_schema
from specs.rouge import rouge_l
from trainer.evaluation import ChatDialogue, Prediction
from trainer.figures import Marked
from trainer.scoring import Card, correct, groundedness, material
from trainer.vectors import Embed

if TYPE_CHECKING:
    from specs.agent_format import ChatMessage

Rate = Callable[[str, "Sequence[ChatMessage]", str], Awaitable[float | None]]
"""Rates an answer: an id, the messages before it, its text; None where the judge gave none."""

MADE_FROM, ABOUT = b"duologue.made_from", b"duologue.about"
"""Keys of a file's metadata."""

_EMBEDDED = 256


def mark(
    predictions: Sequence[Prediction],
    dialogues: Sequence[ChatDialogue],
    card: Card,
    phrases: frozenset[str],
    embed: Embed,
) -> list[Marked]:
    """Return predictions with all marks but a judge's."""
    by_id = {dialogue.walk_id: dialogue for dialogue in dialogues}
    likeness = _similarities(predictions, embed)
    marked = []
    for place, one in enumerate(predictions):
        if one.kind != "answer":
            verdict = correct(card, one.kind, one.gold, one.predicted)
            marked.append(Marked(one, verdict))
            continue
        before = by_id[one.walk_id].messages[: one.message]
        marked.append(
            Marked(
                one,
                rouge_l=rouge_l(one.predicted, one.gold),
                similarity=likeness[place],
                grounded=groundedness(one.predicted, material(before), phrases),
            )
        )
    return marked


def _similarities(predictions: Sequence[Prediction], embed: Embed) -> dict[int, float]:
    """Return the cosine of each answer with the one it should have been; 0 for an empty one."""
    answers = [place for place, one in enumerate(predictions) if one.kind == "answer"]
    found: dict[int, float] = {}
    for start in range(0, len(answers), _EMBEDDED):
        some = answers[start : start + _EMBEDDED]
        said = embed([predictions[place].predicted for place in some])
        gold = embed([predictions[place].gold for place in some])
        cosines = np.sum(said * gold, axis=1)
        for place, cosine in zip(some, cosines, strict=True):
            found[place] = float(cosine) if predictions[place].predicted.strip() else 0.0
    return found


async def rated(
    marked: Sequence[Marked],
    dialogues: Sequence[ChatDialogue],
    rate: Rate,
    at_once: int,
    save: Callable[[Sequence[Marked]], None],
) -> list[Marked]:
    """Return the marks with a judge's rating of each answer that says something.

    Args:
        marked: an answer that has its rating already is not rated again.
        save: is given the marks with the ratings so far, if the judge fails or is interrupted.
    """
    done = list(marked)
    by_id = {dialogue.walk_id: dialogue for dialogue in dialogues}
    free = asyncio.Semaphore(max(1, at_once))

    async def one(place: int) -> None:
        made = done[place].prediction
        rateable = made.kind == "answer" and made.predicted.strip()
        if not rateable or done[place].rating is not None:
            return
        async with free:
            before = by_id[made.walk_id].messages[: made.message]
            rating = await rate(f"{made.walk_id}:{made.message}", before, made.predicted)
            done[place] = replace(done[place], rating=rating)

    tasks = [asyncio.ensure_future(one(place)) for place in range(len(done))]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        save(done)
        raise
    finally:
        for task in tasks:  # none may ask an engine that is being shut down
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return done


def unrated(marked: Sequence[Marked]) -> tuple[Marked, ...]:
    """Return the marks without any judge's ratings."""
    return tuple(replace(one, rating=None) for one in marked)


# -- kept


def predictions_file(system: str) -> str:
    """Return the name of a system's file."""
    return f"predictions-{system}.parquet"


@dataclass(frozen=True, slots=True)
class Kept:
    """A system's marked predictions, and what else is known of how they came about (JSON data)."""

    marked: tuple[Marked, ...]
    about: Mapping[str, Any] = field(default_factory=dict)


def keep(folder: Folder, system: str, made: Kept, made_from: str) -> None:
    """Write what a system predicted; the file appears whole."""
    schema = predictions_schema()
    table = pa.Table.from_pylist([_row(one) for one in made.marked], schema=schema)
    about = dump_json(dict(made.about))
    metadata = {**(schema.metadata or {}), MADE_FROM: made_from.encode(), ABOUT: about.encode()}
    write_part(folder, predictions_file(system), table.replace_schema_metadata(metadata))


def kept(folder: Folder, system: str, made_from: str) -> Kept | None:
    """Return what `keep` wrote when it was made from the same; else None.

    A file that is damaged, or of another schema, is nothing that was kept: it is made again.
    """
    name = predictions_file(system)
    try:
        with folder.fs.open_input_file(folder.file(name)) as source:
            metadata = pq.read_schema(source).metadata or {}
        if metadata.get(MADE_FROM) != made_from.encode():
            return None
        batches = read_batches(folder, name, predictions_schema())
        marked = tuple(_marked(row) for batch in batches for row in batch.to_pylist())
        return Kept(marked, json.loads(metadata.get(ABOUT, b"{}")))
    except (pa.ArrowException, OSError, InputError):
        return None


_MARKS = ("correct", "rouge_l", "similarity", "grounded", "rating")


def _row(one: Marked) -> dict[str, Any]:
    made = one.prediction
    row: dict[str, Any] = {name: getattr(made, name) for name in Prediction.__slots__}
    return row | {name: getattr(one, name) for name in _MARKS}


def _marked(row: Mapping[str, Any]) -> Marked:
    made = {name: row[name] for name in Prediction.__slots__}
    return Marked(Prediction(**cast(Any, made)), **{name: row[name] for name in _MARKS})
