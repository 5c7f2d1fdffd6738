"""Turn the STAR dialogues (Mosig et al. 2020; Rasa's copy, MIT) into a run that can be trained on.

    python -m tests.bench.star_data /work/shared/data/star/dialogues.jsonl.gz runs/star
    duologue train tests/bench/star.toml
    duologue evaluate tests/bench/star.toml

A turn of the agent is its action's label, written as the understanding (`intent`) before its words;
a turn without a label is its words alone. What a query brought back stands behind the user's words:
the label is chosen after the query, and so it is here. The system message lists the actions of the
dialogue's task. Dialogues are split by a hash of their id. The data is never committed.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from specs.parts import SUFFIX, Folder, write_part
from specs.records import SCHEMA_VERSION, curated_schema, dump_json
from specs.seeds import digest
from trainer.agent_format import ChatMessage, Understanding
from trainer.examples import system_message

SHARES = {"test": 0.1, "validation": 0.05}
DESCRIPTION = "An assistant. The intent is what the assistant does next."


def side(number: int) -> str:
    """Return the split that a dialogue belongs to."""
    place = int(digest("star", number)[:8], 16) / 2**32
    for name, share in SHARES.items():
        if place < share:
            return name
        place -= share
    return "train"


def card(actions: Sequence[str], task: str = "") -> dict[str, Any]:
    """Return the agent's card of some actions, in the form of `trainer.examples.agent_card`."""
    about = f"{DESCRIPTION} Task: {task.replace('_', ' ')}." if task else DESCRIPTION
    intents: dict[str, Any] = {name: {"description": "", "slots": {}} for name in actions}
    return {"domain": "star", "description": about, "intents": intents, "tools": {}}


def chat(events: Sequence[Mapping[str, Any]], system: str) -> list[ChatMessage]:
    """Return a dialogue's messages; what nobody answers is left out."""
    messages = [ChatMessage("system", system)]
    heard: list[str] = []
    for event in events:
        if event["role"] == "user":
            heard.append(event["text"])
        elif event["role"] == "result":
            item = {k: v for k, v in (event.get("item") or {}).items() if k != "APIName"}
            heard.append(f"Results: {dump_json(item)}")
        elif event["role"] == "agent":
            if heard:
                messages.append(ChatMessage("user", "\n".join(heard)))
            heard = []
            messages.append(ChatMessage("assistant", _answer(event), True))
    return messages


def _answer(event: Mapping[str, Any]) -> str:
    if not event.get("action"):
        return str(event["text"])
    return f"{Understanding(event['action']).written()}\n{event['text']}"


def dialogues(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the dialogues in which somebody says something."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            dialogue = json.loads(line)
            if any(event["role"] == "agent" for event in dialogue["events"]):
                yield dialogue


def actions(found: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the labels of each task's agent turns."""
    by_task: dict[str, set[str]] = {}
    for dialogue in found:
        names = {event.get("action") for event in dialogue["events"] if event["role"] == "agent"}
        by_task.setdefault(dialogue["task"], set()).update(name for name in names if name)
    return {task: sorted(names) for task, names in by_task.items()}


def write(source: Path, run: Path) -> dict[str, int]:
    """Write a run's curated files; returns the dialogues of each split."""
    found = list(dialogues(source))
    known = actions(found)
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "validation": [], "test": []}
    for dialogue in found:
        system = system_message(card(known[dialogue["task"]], dialogue["task"]))
        messages = [
            {"role": one.role, "content": one.content, "train": one.train}
            for one in chat(dialogue["events"], system)
        ]
        row = {"walk_id": f"star-{dialogue['id']}", "messages": messages, "path": [], "doc_ids": []}
        rows[side(dialogue["id"])].append(row)
    everything = sorted({name for names in known.values() for name in names})
    schema = curated_schema()
    about = {b"duologue.agent": dump_json(card(everything)).encode()}
    schema = schema.with_metadata({**schema.metadata, **about})
    folder = Folder.of(run / "round-0" / "curated")
    folder.create()
    for name, held in rows.items():
        write_part(folder, f"{name}{SUFFIX}", pa.Table.from_pylist(held, schema=schema))
    manifest = {"format": "duologue-run", "schema_version": SCHEMA_VERSION, "name": run.name}
    Folder.of(run).write_bytes("run.json", json.dumps(manifest).encode())
    return {name: len(held) for name, held in rows.items()}


if __name__ == "__main__":
    print(write(Path(sys.argv[1]), Path(sys.argv[2])))
