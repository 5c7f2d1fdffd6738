"""The files of a curation: quality rows, examples, preference pairs, and what `summary.json` says.

Invariant: all files are complete under temporary names before the first gets its own; the summary,
which names them with their sizes, comes last.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from specs.agent_format import ChatMessage
from specs.parts import SUFFIX, Folder, part_names
from specs.records import (
    SCHEMA_VERSION,
    curated_schema,
    dump_json,
    preference_schema,
    quality_schema,
)
from specs.row_writer import RowWriter
from trainer.curated import FORMAT, SUMMARY, Curated, sizes
from trainer.filters import Mask, Table
from trainer.frontier import frontier, means
from trainer.measured import Corpus, Decided, Measured, own_words
from trainer.preference import Answered, preferences
from trainer.split import SPLITS, Split, unit
from trainer.success import success

AGENT_KEY = b"duologue.agent"
CURATION_KEY = b"duologue.curation"
EXAMPLES = "training example"
"""The filter that stands behind the listed ones: what cannot be learned from is not kept."""


class CurationWriter:
    """Writes quality rows, examples and pairs, and gives them their names together."""

    def __init__(
        self, view: Measured, result: Decided, curation: str, parts: Sequence[Mapping[str, Any]]
    ) -> None:
        self.view, self.result, self.curation, self.parts = view, result, curation, parts
        self.task, self.tools, self.table = view.task, view.tools, view.table
        self.corpus = self.tools.corpus()
        self.counts: dict[str, Counter[str]] = {side: Counter() for side in SPLITS}
        self._open: list[RowWriter] = []

    def write(self) -> Curated:
        """Write everything; raises DuologueError when the disk is full, and the like."""
        try:
            quality = [f"part-{number:05}{SUFFIX}" for number in range(len(self.parts))]
            curated = self._write(quality)
            for writer in self._open:
                writer.close()
            old = set(part_names(self.task.quality)) - set(quality)
            for writer in self._open:
                writer.publish()
            for name in sorted(old):
                self.task.quality.delete(name)
        except BaseException:
            for writer in self._open:
                writer.discard()
            raise
        summary = self._summary(curated)
        text = json.dumps(summary, ensure_ascii=False, indent=1) + "\n"
        self.task.curated.write_bytes(SUMMARY, text.encode())
        return Curated(self.task.curated, summary)

    def _writer(self, folder: Folder, name: str, schema: pa.Schema) -> RowWriter:
        more = {CURATION_KEY: self.curation.encode()}
        if schema.metadata[b"duologue.schema"] != b"quality":
            more[AGENT_KEY] = dump_json(self.tools.card).encode()
        writer = RowWriter(folder, name, schema.with_metadata({**schema.metadata, **more}))
        self._open.append(writer)
        return writer

    def _write(self, quality: Sequence[str]) -> dict[str, RowWriter]:
        files: dict[str, RowWriter] = {
            side: self._writer(self.task.curated, f"{side}{SUFFIX}", curated_schema())
            for side in SPLITS
        }
        files["preference"] = self._writer(
            self.task.curated, f"preference{SUFFIX}", preference_schema()
        )
        number = 0
        for part, name in zip(self.view.parts, quality, strict=True):
            writer = self._writer(self.task.quality, name, quality_schema(self.table.names))
            for row in self.view.rows(part):
                writer.add(self._quality(number, row))
                if self.result.kept[number]:
                    self._example(number, row, files)
                number += 1
            writer.close()
        return files

    def _side(self, number: int) -> Split:
        return self.result.sides[unit(self.table.walk_ids[number], self.table.documents[number])]

    def _quality(self, number: int, row: Mapping[str, Any]) -> dict[str, Any]:
        kept = bool(self.result.kept[number])
        facts = self.table.facts(number)
        verdicts = []
        for decision in self.result.decisions:
            asked = bool(decision.asked[number])
            reason = decision.reason(number) if asked else "dropped before"
            if decision.name == EXAMPLES and asked:
                reason = row["unusable"]
            verdicts.append(
                {
                    "filter": decision.name,
                    "kept": bool(decision.kept[number]) if asked else None,
                    "reason": reason,
                }
            )
        figures = {
            name: None if value is None or np.isnan(value) else value
            for name, value in facts.measures.items()
        }
        plain = {k: row[k] for k in ("walk_id", "index", "stop_reason", "document", "findings")}
        side = self._side(number) if kept else ""
        return {**plain, **figures, "kept": kept, "split": side, "verdicts": verdicts}

    def _example(self, number: int, row: Mapping[str, Any], files: Mapping[str, RowWriter]) -> None:
        side = self._side(number)
        messages = row["messages"]
        files[side].add({k: row[k] for k in ("walk_id", "messages", "path", "doc_ids")})
        self.corpus.add(own_words(row), self.view.vectors.get(number))
        trained = sum(message["train"] for message in messages)
        self.counts[side].update(rows=1, messages=len(messages), trained_messages=trained)
        if side == "train":
            self.counts[side]["showing_test"] += self._shows_test(row["doc_ids"])
            for pair in _pairs(row):
                files["preference"].add(pair)

    def _shows_test(self, documents: Sequence[str]) -> bool:
        """Whether one of these, such as a search shows, is a seed document of the test side."""
        sides = self.result.sides
        return any(sides.get(unit("", document)) == "test" for document in documents if document)

    def _summary(self, files: Mapping[str, RowWriter]) -> dict[str, Any]:
        section, table, kept = self.task.section, self.table, self.result.kept
        everyone = np.ones(len(table), np.bool_)
        names = [writer.name for writer in files.values()]
        rows = frontier(section.filters, table, kept, section.seed, self.view.duplicates)
        return {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "curation": self.curation,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            **self.task.about,
            **figures(self.view, kept, self.corpus),
            "funnel": self._funnel(),
            "splits": {side: self._split(side) for side in SPLITS},
            "preference": {"rows": files["preference"].rows},
            "findings": {
                "before": _kinds(table, everyone), "after": _kinds(table, kept),
            },
            "frontier": [asdict(row) for row in rows],
            "parts": list(self.parts),
            "files": sizes(self.task.curated, names),
        }  # fmt: skip

    def _funnel(self) -> list[dict[str, Any]]:
        steps = [
            ("planned", self.task.planned),
            ("played", len(self.table)),
            ("ended", int(self.table.ended().sum())),
        ]
        steps += [(f"filter: {name}", left) for name, _, left in self.result.taken()]
        steps.append(("kept", int(self.result.kept.sum())))
        steps += [(side, self.counts[side]["rows"]) for side in SPLITS]
        return [{"name": name, "count": count} for name, count in steps]

    def _split(self, side: Split) -> dict[str, Any]:
        units = sorted(one for one, its in self.result.sides.items() if its == side)
        documents = [one.removeprefix("document ") for one in units if one.startswith("document ")]
        counts = self.counts[side]
        figures = {key: counts[key] for key in ("rows", "messages", "trained_messages")}
        # The train side may be long; what must not be learned from is what others have to know.
        listed: dict[str, Any] = {"document_ids": documents}
        if side == "train":
            listed = {"rows_showing_test_documents": counts["showing_test"]}
        return {**figures, "documents": len(documents), **listed}


def figures(view: Measured, kept: Mask, corpus: Corpus) -> dict[str, Any]:
    """Return what a summary says of the dialogues: played and kept, how far they came, measures.

    Args:
        corpus: that has taken those that are kept.
    """
    table = view.table
    everyone = np.ones(len(table), np.bool_)
    return {
        "settings": view.task.section.model_dump(mode="json"),
        "played": len(table),
        "kept": int(kept.sum()),
        "measures": {"before": means(table, everyone), "after": means(table, kept)},
        "success": success(table),
        "corpus": {"before": dict(view.corpus), "after": dict(corpus.result())},
    }


def _pairs(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    messages = [ChatMessage(m["role"], m["content"], m["train"]) for m in row["messages"]]
    answers = [
        Answered(turn["index"], turn["text"], turn["source"], turn["rejected"])
        for turn in row["turns"]
        if turn["role"] == "agent"
    ]
    for pair in preferences(messages, answers):
        prompt = [{"role": m.role, "content": m.content} for m in pair.prompt]
        yield {
            "walk_id": row["walk_id"], "turn": pair.turn, "prompt": prompt,
            "chosen": pair.chosen, "rejected": pair.rejected,
        }  # fmt: skip


def _kinds(table: Table, rows: Mask) -> dict[str, int]:
    """Return in how many of these dialogues each kind of inconsistency is."""
    counts = Counter(kind for i in np.flatnonzero(rows) for kind in set(table.kinds[i]))
    return dict(sorted(counts.items()))
