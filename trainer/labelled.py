"""Turns that people have labelled: what was said, what it stood for, and what it could have been.

A JSONL file with one turn a line: `dialogue` (which one it is of), `text`, `label` (null where it
stands for nothing that has a reference) and `references`, the texts of each label there. `edited`
may say whether somebody wrote the text freely; where it is missing, a text is edited that differs
in words from its label's references, or has no label.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specs.corpus import capped, read_rows
from specs.errors import Finding, InputError, Where
from specs.words import words
from trainer.star_labels import is_star, star_turns

_KEYS = ("dialogue", "text", "label", "references", "edited")
_HINT = (
    "Give a JSONL file with `dialogue`, `text`, `label` and `references` on each line, or the "
    "folder of the STAR data set (dialogues.jsonl.gz, tasks) or of a run."
)


@dataclass(frozen=True, slots=True)
class Labelled:
    """One turn.

    Attributes:
        label: a key of `references`; None where none fits.
        edited: it is not just a reference said again.
        others: what stands for no label; a turn that is more like one of these has none.
    """

    dialogue: str
    text: str
    label: str | None
    references: Mapping[str, tuple[str, ...]]
    edited: bool
    others: tuple[str, ...] = ()


def read_labelled(path: Path) -> list[Labelled]:
    """Return the turns of a JSONL file, or of a folder that holds the STAR data set.

    Raises:
        InputError: with everything that is wrong.
    """
    if is_star(path):
        return [Labelled(*turn) for turn in star_turns(path)]
    try:
        data = path.read_bytes()
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise InputError([Finding(Where(str(path)), message, _HINT)]) from None
    rows, findings = read_rows(data, path, str(path))
    for number, row in rows:
        findings += [Finding(Where(str(path), number), fault) for fault in _faults(row)]
    if not rows and not findings:
        findings.append(Finding(Where(str(path)), "holds no turn", _HINT))
    if findings:
        raise InputError(capped(findings, str(path)))
    return [_turn(row) for _, row in rows]


def _faults(row: Mapping[str, Any]) -> Iterator[str]:
    for key in row:
        if key not in _KEYS:
            yield f"unknown key {key!r}; there are {', '.join(_KEYS)}"
    if not isinstance(row.get("dialogue"), str | int):
        yield "`dialogue` must say which dialogue the turn is of"
    if not isinstance(row.get("text"), str):
        yield "`text` must be what was said"
    if not isinstance(row.get("edited", True), bool):
        yield "`edited` must be true or false"
    references = row.get("references")
    if not isinstance(references, dict) or not all(map(_texts, references.values())):
        yield "`references` must be an object with a list of texts for each label"
        references = None
    label = row.get("label", 0)
    if label is not None and not isinstance(label, str):
        yield "`label` must be a text, or null where the turn stands for none"
    elif isinstance(label, str) and references is not None and label not in references:
        yield f"the label {label!r} has no references; it can never be found"


def _texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def _turn(row: Mapping[str, Any]) -> Labelled:
    references = {label: tuple(texts) for label, texts in row["references"].items()}
    text, label = row["text"], row["label"]
    edited = row.get("edited")
    if edited is None:
        edited = label is None or not _said_again(text, references[label])
    return Labelled(str(row["dialogue"]), text, label, references, edited)


def _said_again(text: str, references: Iterable[str]) -> bool:
    return any(words(text) == words(reference) for reference in references)
