"""STAR's dialogues between people (Mosig et al. 2020) as a run's curated files, to be trained on.

A turn of the agent is its action's label, written as the understanding (`intent`) before its words;
a turn without a label is its words alone. What a query brought back stands behind the user's words:
the label is chosen after the query, and so it is here. The system message lists the actions of the
dialogue's task. Dialogues are split by a hash of their id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from specs.agent_chat import system_message
from specs.agent_format import ChatMessage, Understanding
from specs.errors import Finding, InputError, Where
from specs.parts import SUFFIX, Folder, write_part
from specs.records import SCHEMA_VERSION, curated_schema, dump_json
from specs.seeds import digest
from specs.star.files import Talk
from trainer.chat_file import CARD

SHARES = {"test": 0.1, "validation": 0.05}
DESCRIPTION = "An assistant. The intent is what the assistant does next."


def side(talk: str) -> str:
    """Return the split that a dialogue belongs to."""
    place = int(digest("star", talk)[:8], 16) / 2**32
    for name, share in SHARES.items():
        if place < share:
            return name
        place -= share
    return "train"


def card(actions: Sequence[str], task: str = "") -> dict[str, Any]:
    """Return the agent's card of some actions, in the form of `specs.agent_chat.agent_card`."""
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


def _actions(talks: Sequence[Talk]) -> dict[str, list[str]]:
    """Return the labels of each task's agent turns."""
    by_task: dict[str, set[str]] = {}
    for talk in talks:
        names = {event.get("action") for event in talk.events if event["role"] == "agent"}
        by_task.setdefault(talk.task, set()).update(name for name in names if name)
    return {task: sorted(names) for task, names in by_task.items()}


def write_run(talks: Sequence[Talk], run: Path) -> dict[str, int]:
    """Write a run's curated files; returns the dialogues of each split.

    Raises:
        InputError: the folder is not empty, or cannot be written.
    """
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        hint = "name another --curated, or delete it"
        raise InputError([Finding(Where(str(run)), "is not an empty folder", hint)])
    known = _actions(talks)
    rows: dict[str, list[dict[str, Any]]] = {"train": [], **{name: [] for name in SHARES}}
    for talk in talks:
        system = system_message(card(known[talk.task], talk.task))
        messages = [
            {"role": one.role, "content": one.content, "train": one.train}
            for one in chat(talk.events, system)
        ]
        row = {"walk_id": f"star-{talk.id}", "messages": messages, "path": [], "doc_ids": []}
        rows[side(talk.id)].append(row)
    everything = sorted({name for names in known.values() for name in names})
    schema = curated_schema()
    schema = schema.with_metadata({**schema.metadata, CARD: dump_json(card(everything)).encode()})
    manifest = {"format": "duologue-run", "schema_version": SCHEMA_VERSION, "name": run.name}
    try:
        folder = Folder.of(run / "round-0" / "curated")
        folder.create()
        for name, held in rows.items():
            write_part(folder, f"{name}{SUFFIX}", pa.Table.from_pylist(held, schema=schema))
        Folder.of(run).write_bytes("run.json", json.dumps(manifest).encode())
    except OSError as error:
        message = f"cannot be written: {error.strerror or error}"
        raise InputError([Finding(Where(str(run)), message)]) from None
    return {name: len(held) for name, held in rows.items()}
