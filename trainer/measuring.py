"""From a part of dialogues to what the curation needs of them, dialogue by dialogue.

Each part is read once, by itself, so that parts may be measured side by side; what comes of it is a
temporary file beside the quality rows: the figures, the inconsistencies, the words, and the
training messages of what may still be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import pyarrow as pa

from specs.agent_format import ChatMessage
from specs.errors import DuologueError
from specs.parts import TEMPORARY, Folder, read_batches
from specs.records import (
    SCHEMA_VERSION,
    Dialogue,
    curated_schema,
    dialogue_from_row,
    dialogue_schema,
    quality_schema,
)
from specs.row_writer import RowWriter
from specs.run_file import Filter
from trainer.duplicates import sketch
from trainer.filters import Facts, never_kept


class Finding(Protocol):
    """One inconsistency of a dialogue; `turn` is -1 for one of the whole dialogue."""

    @property
    def kind(self) -> str:
        """What kind."""

    @property
    def turn(self) -> int:
        """In which turn."""

    @property
    def detail(self) -> str:
        """What is wrong, in words."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What there is to know of one dialogue.

    Attributes:
        findings: what is wrong with it.
        measures: its figures by name; None where it has no such figure.
        messages: makes its training messages; raises DuologueError where the record cannot be
            followed.
    """

    findings: Sequence[Finding]
    measures: Mapping[str, float | None]
    messages: Callable[[], Sequence[ChatMessage]]


@dataclass(frozen=True, slots=True)
class Gauges:
    """What is asked of each dialogue; `names` are those of the measures, in their order."""

    names: tuple[str, ...]
    examine: Callable[[Dialogue], Examined]


@cache
def measured_schema() -> pa.Schema:
    """Return the schema of the temporary files; `measures` stand in the order of the names."""
    turn = pa.struct(
        [
            ("index", pa.int32()), ("role", pa.string()), ("text", pa.string()),
            ("source", pa.string()), ("intent", pa.string()), ("rejected", pa.list_(pa.string())),
        ]
    )  # fmt: skip
    quality, curated = quality_schema(), curated_schema()
    kept = [quality.field(name) for name in ("walk_id", "index", "stop_reason", "document")]
    return pa.schema(
        [
            *kept, quality.field("findings"), ("measures", pa.list_(pa.float64())),
            ("turns", pa.list_(turn)), curated.field("messages"), curated.field("path"),
            curated.field("doc_ids"), ("unusable", pa.string()),
            ("shingles", pa.binary()), ("minhash", pa.binary()),
        ],
        metadata={"duologue.schema": "measured", "duologue.schema_version": SCHEMA_VERSION},
    )  # fmt: skip


def measured_name(part: str) -> str:
    """Return the temporary file's name of a part."""
    return f"{TEMPORARY}measured-{part}"


def measure_part(
    dialogues: Folder, part: str, target: Folder, gauges: Gauges, rules: Sequence[Filter]
) -> int:
    """Measure the dialogues of a part; return how many there are.

    Args:
        target: where the temporary file goes; the folder must be there.
        rules: the run file's filters; what they drop in any case gets no training messages.

    Raises:
        InputError: the part is not readable, or of another schema version.
        DuologueError: the disk is full, and the like.
    """
    with RowWriter(target, measured_name(part), measured_schema()) as writer:
        for dialogue in _dialogues(dialogues, part):
            writer.add(measured_row(dialogue, gauges, rules))
        writer.publish()
    return writer.rows


def _dialogues(folder: Folder, part: str) -> Iterator[Dialogue]:
    for batch in read_batches(folder, part, dialogue_schema()):
        yield from map(dialogue_from_row, batch.to_pylist())


def measured_row(dialogue: Dialogue, gauges: Gauges, rules: Sequence[Filter]) -> dict[str, Any]:
    """Return the row of one dialogue."""
    examined = gauges.examine(dialogue)
    findings, measures = examined.findings, examined.measures
    facts = Facts(dialogue.stop_reason.value, [one.kind for one in findings], measures)
    messages: Sequence[ChatMessage] = ()
    unusable = ""
    if not never_kept(rules, facts):
        try:
            messages = examined.messages()
            unusable = "" if any(m.train for m in messages) else "the agent says nothing"
        except DuologueError as error:
            unusable = str(error)
    alike = any(rule.kind == "near_duplicates" for rule in rules)
    looked = sketch("\n".join(turn.text for turn in dialogue.turns)) if alike else None
    return {
        "walk_id": dialogue.walk_id,
        "index": dialogue.index,
        "stop_reason": dialogue.stop_reason.value,
        # The record names its seed document first, wherever the domain has documents.
        "document": dialogue.doc_ids[0] if dialogue.doc_ids else "",
        "findings": [{"kind": f.kind, "turn": f.turn, "detail": f.detail} for f in findings],
        "measures": [measures.get(name) for name in gauges.names],
        "turns": [
            {
                "index": turn.index, "role": turn.role, "text": turn.text,
                "source": turn.source, "intent": turn.intent, "rejected": list(turn.rejected),
            }
            for turn in dialogue.turns
        ],
        "messages": [{"role": m.role, "content": m.content, "train": m.train} for m in messages],
        "path": [{"from": s.from_, "intent": s.intent, "to": s.to} for s in dialogue.path],
        "doc_ids": list(dialogue.doc_ids),
        "unusable": unusable,
        "shingles": looked.shingles.tobytes() if looked else None,
        "minhash": looked.minhash.tobytes() if looked else None,
    }  # fmt: skip
