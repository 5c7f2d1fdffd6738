"""The dialogues to read: who says what, why, from what, and what curation thought of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.report_data import Material, Quality
from cluster.report_page import Reading, ReadTurn
from cluster.show import DialogueView, plain
from specs.records import Dialogue
from trainer.consistency import WHOLE

LONGEST = 2000
"""Characters of an utterance that are shown."""

LONGEST_REJECTED = 600
MOST_REJECTED = 12
_TITLE = 110

_SHOWN_ALREADY = ("reference: ", "repair: ", "rejected candidates: ")
"""Notes of a turn that its source's mark and the list of what was rejected say, too."""


def readings(material: Material, names: Mapping[str, str]) -> list[Reading]:
    """Return the dialogues to read in the order of their indices.

    Args:
        names: what the domain calls the two roles.
    """
    found = sorted(material.played.read.items(), key=lambda item: item[1].index)
    return [_reading(one, material.quality.get(walk_id), names) for walk_id, one in found]


def _reading(dialogue: Dialogue, quality: Quality | None, names: Mapping[str, str]) -> Reading:
    view = DialogueView(dialogue, names=names)
    findings = quality.findings if quality else ()
    turns = [
        ReadTurn(
            margin=said.margin,
            speaker=said.speaker,
            role=said.role,
            text=_cut(said.text, LONGEST),
            source=turn.source,
            notes=tuple(
                _cut(note, LONGEST) for note in said.notes if not note.startswith(_SHOWN_ALREADY)
            ),
            findings=_found(findings, turn.index),
            rejected=_rejected(turn.rejected),
        )
        for said, turn in zip(view.said(), dialogue.turns, strict=True)
    ]
    return Reading(
        index=dialogue.index,
        title=_cut(plain(dialogue.goal) or dialogue.walk_id[:12], _TITLE, count=False),
        kept=quality.kept if quality else None,
        verdict=_verdict(quality),
        facts=[(name, _cut(value, LONGEST)) for name, value in view.header()],
        findings=_found(findings, WHOLE),
        turns=turns,
    )


def _verdict(quality: Quality | None) -> str:
    if quality is None:
        return "not curated"
    if quality.kept:
        return f"kept: {plain(quality.split)}"
    for verdict in quality.verdicts:
        if verdict["kept"] is False:
            reason = f" ({plain(verdict['reason'])})" if verdict["reason"] else ""
            return _cut(f"dropped: {plain(verdict['filter'])}{reason}", 200, count=False)
    return "dropped"


def _found(findings: Sequence[Mapping[str, Any]], turn: int) -> tuple[str, ...]:
    return tuple(
        _cut(plain(f"{one['kind'].replace('_', ' ')}: {one['detail']}"), LONGEST_REJECTED)
        for one in findings
        if one["turn"] == turn
    )


def _rejected(texts: Sequence[str]) -> tuple[str, ...]:
    shown = [_cut(plain(text, newlines=True), LONGEST_REJECTED) for text in texts[:MOST_REJECTED]]
    left = len(texts) - len(shown)
    return (*shown, *([f"… and {left} more"] if left > 0 else []))


def _cut(text: str, longest: int, count: bool = True) -> str:
    """Return a text that is not too long, saying how much is left out."""
    if len(text) <= longest:
        return text
    left = f" … ({len(text) - longest:,} more characters)" if count else "…"
    return text[:longest] + left
