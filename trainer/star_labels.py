"""The STAR data set's agent turns with their labels (Mosig et al., 2020; Rasa's copy, MIT).

A wizard played the agent: most turns are a suggested reply that was clicked, and bear its action;
others were edited or typed. The placeholders of an action's reply are filled from what the last
query brought back, and left out where that does not say. What was typed freely has no action even
where its words would fit one ("Is there anything else I can do for you?"), so that precision over
these labels is a lower bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from specs.star.files import Talk, beside, read_talks, read_tasks

TASKS, FREE = "tasks", "custom"

_PLACE = re.compile(r"\{(\w+)[^}]*\}")

Turn = tuple[str, str, str | None, Mapping[str, tuple[str, ...]], bool]
"""Dialogue, text, label, references by label, edited."""


def is_star(path: Path) -> bool:
    """Return whether a folder holds the data set."""
    return path.is_dir() and (path / TASKS).is_dir() and beside([path / TASKS]) is not None


def star_turns(folder: Path) -> Iterator[Turn]:
    """Yield the agent's turns of the dialogues whose task has replies.

    A label that has no reply in its task (`custom`, and a few that moved) cannot be found by any
    measure: `custom` is what the wizards wrote freely, hence no label; the others are left out.

    Raises:
        InputError: a file of it cannot be read.
    """
    replies = {task.name: task.said for task in read_tasks([folder / TASKS])}
    dialogues = beside([folder / TASKS])
    assert dialogues is not None
    for talk in read_talks(dialogues):
        if talk.task in replies:
            yield from _turns(talk, replies[talk.task])


def _turns(talk: Talk, replies: Mapping[str, tuple[str, ...]]) -> Iterator[Turn]:
    found: dict[str, str] = {}
    for event in talk.events:
        if event["role"] == "result":
            found = {_plain(key): str(value) for key, value in (event.get("item") or {}).items()}
        action = event.get("action") or FREE
        if event["role"] != "agent" or action not in {*replies, FREE}:
            continue
        label = None if action == FREE else action
        references = {
            name: tuple(_filled(text, found) for text in texts) for name, texts in replies.items()
        }
        said = event["text"].strip()
        edited = label is None or not any(_pattern(one).fullmatch(said) for one in replies[label])
        yield talk.id, event["text"], label, references, edited


def _filled(reply: str, found: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda place: found.get(_plain(place[1]), ""), reply)


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _pattern(reply: str) -> re.Pattern[str]:
    parts = _PLACE.split(reply.strip())[::2]
    return re.compile(".+?".join(map(re.escape, parts)), re.DOTALL)
