"""Documents and personas: JSON lines, or Parquet, read whole and checked line by line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from specs.domain import Document, Persona
from specs.errors import ExpressionError, Finding, Where
from specs.expressions import Template

SHOWN = 20
"""Findings of one kind that are shown; the rest is counted."""

HALF_CHARACTER = "holds half a character (a surrogate, such as `\\ud83d`, that stands alone)"

Row = tuple[int, dict[str, Any]]
"""A line's number, counted from 1, and what stands there."""

DocumentPath = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Need:
    """A field that the domain uses of every document, and where it does.

    Attributes:
        written: its value is written into a text, so that null and empty spoil it.
        listed: its items are taken, so that it must be a list.
    """

    path: DocumentPath
    written: bool
    listed: bool
    where: Where


def read_rows(data: bytes, path: Path, file: str) -> tuple[list[Row], list[Finding]]:
    """Return the rows of a JSONL or Parquet file and what is wrong with its lines.

    Args:
        data: the file's bytes.
        file: how the findings name it.
    """
    if path.suffix.lower() == ".parquet":
        return _parquet_rows(data, file)
    rows: list[Row] = []
    findings: list[Finding] = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line or line.isspace():
            continue
        try:
            row = _row(line)
        except json.JSONDecodeError as error:
            where = Where(file, number, error.colno)
            findings.append(Finding(where, f"is not JSON: {error.msg}"))
            continue
        except UnicodeDecodeError:
            findings.append(Finding(Where(file, number), "is not UTF-8", "save the file as UTF-8"))
            continue
        except UnicodeEncodeError:
            findings.append(Finding(Where(file, number), HALF_CHARACTER))
            continue
        except (ValueError, RecursionError) as error:
            message = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
            findings.append(Finding(Where(file, number), f"is not JSON: {message}"))
            continue
        if isinstance(row, dict):
            rows.append((number, row))
        else:
            findings.append(Finding(Where(file, number), "is no JSON object", "one object a line"))
    return rows, capped(findings, file)


def _row(line: bytes) -> Any:
    row = _DECODER.decode(line.decode("utf-8"))
    if b"\\ud" in line.lower():
        require_whole(row)
    return row


def require_whole(data: Any) -> None:
    """Raise UnicodeEncodeError where a text of JSON data holds half a character."""
    json.dumps(data, ensure_ascii=False).encode()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.40} is too large a number")
    return number


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant)


def _parquet_rows(data: bytes, file: str) -> tuple[list[Row], list[Finding]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        return [], [Finding(Where(file), f"is not readable as Parquet: {error}")]
    # pandas writes a number that is missing as NaN, which JSON does not know and nobody can say.
    plain = (json.dumps(row, default=str) for row in table.to_pylist())
    rows = (json.loads(row, parse_constant=lambda name: None) for row in plain)
    return list(enumerate(rows, start=1)), []


def capped(findings: list[Finding], file: str) -> list[Finding]:
    """Return the first findings, and how many there are more."""
    if len(findings) <= SHOWN:
        return findings
    more = f"and {len(findings) - SHOWN:,} more lines like these"
    severity = findings[0].severity
    return [*findings[:SHOWN], Finding(Where(file, findings[SHOWN].where.line), more, "", severity)]


def read_documents(
    rows: Iterable[Row], id_field: str, embed: Template | None, file: str
) -> tuple[tuple[Document, ...], list[Finding]]:
    """Return the documents with their ids and the text that is embedded.

    Args:
        embed: rendered with the document as `doc`; None for all of its texts, one a line.
    """
    documents: list[Document] = []
    findings: list[Finding] = []
    lines: dict[str, int] = {}
    for number, row in rows:
        id_ = row.get(id_field)
        if isinstance(id_, bool) or not isinstance(id_, (str, int, float)) or not str(id_).strip():
            hint = f"every document needs one; the id's field is {id_field!r}"
            findings.append(Finding(Where(file, number), f"has no id in {id_field!r}", hint))
            continue
        text = str(id_)
        if text in lines:
            message = f"the id {text!r} is already that of line {lines[text]}"
            findings.append(Finding(Where(file, number), message, "ids are unique"))
            continue
        lines[text] = number
        documents.append(Document(text, row, _embedded(row, text, embed), number))
    return tuple(documents), capped(findings, file)


def _embedded(row: Mapping[str, Any], id_: str, embed: Template | None) -> str:
    if embed is None:
        return "\n".join(value for value in row.values() if isinstance(value, str))
    try:
        return embed.render({"doc": {**row, "id": id_}})
    except ExpressionError:
        return ""  # what is missing is reported by the check of all the paths used


def check_documents(
    documents: Iterable[Document], needs: Iterable[Need], file: str
) -> list[Finding]:
    """Report documents that lack what the domain uses, by line; fields that none has, once.

    A missing field is an error, and so is null where it is written into a text, and what is no list
    where items are taken; an empty one in a text is a warning.
    """
    documents = list(documents)
    findings: list[Finding] = []
    for need in needs:
        if not documents or need.path == ("id",):
            continue
        name = ".".join(("doc", *need.path))
        errors, warnings, absent = [], [], 0
        for document in documents:
            fault = _fault(document.fields, need)
            if not fault:
                continue
            absent += fault == _ABSENT
            where = Where(file, document.line)
            message = f"{fault} `{name}`, which {need.where} uses"
            if fault == _EMPTY:
                warnings.append(Finding(where, message, _HINT, "warning"))
            else:
                errors.append(Finding(where, message, _LIST_HINT if fault == _NO_LIST else _HINT))
        if absent == len(documents):
            known = ", ".join(sorted({key for one in documents[:50] for key in one.fields})[:20])
            message = f"no document has `{name}`"
            findings.append(Finding(need.where, message, f"the documents have {known}"))
            continue
        findings += capped(errors, file) + capped(warnings, file)
    return findings


_HINT = "fill it in, or write `default('')` or `{% if ... is defined %}` where it is used"
_LIST_HINT = "it must be a list: its items are taken there"

_ABSENT = "has no"
_EMPTY = "has an empty"
_NO_LIST = "has no list as"


def _fault(fields: Mapping[str, Any], need: Need) -> str:
    value: Any = fields
    for key in need.path:
        if not isinstance(value, Mapping) or key not in value:
            return _ABSENT
        value = value[key]
    if need.written and value is None:
        return "has null as"
    if need.written and value in ("", []):
        return _EMPTY
    return _NO_LIST if need.listed and isinstance(value, (str, int, float)) else ""


def read_personas(rows: Iterable[Row], file: str) -> tuple[tuple[Persona, ...], list[Finding]]:
    """Return the personas: `{"id", "name", "text", "traits"}` a line, `traits` if there are any."""
    personas: list[Persona] = []
    findings: list[Finding] = []
    seen: set[str] = set()
    for number, row in rows:
        where = Where(file, number)
        id_ = row.get("id", f"persona-{number}")
        name, text, traits = row.get("name", ""), row.get("text"), row.get("traits", [])
        if isinstance(id_, bool) or not isinstance(id_, (str, int)):
            findings.append(Finding(where, "the persona's `id` is no text"))
        elif str(id_) in seen:
            findings.append(Finding(where, f"the persona {id_!r} stands here twice"))
        elif not isinstance(text, str) or not text.strip() or not isinstance(name, str):
            hint = '{"id": "ann", "name": "Ann", "text": "cooks for four, in a hurry"}'
            findings.append(Finding(where, "a persona needs `name` and `text`, both text", hint))
        elif not isinstance(traits, list) or not all(isinstance(one, str) for one in traits):
            findings.append(Finding(where, "a persona's `traits` are a list of texts"))
        else:
            personas.append(Persona(str(id_), name, text.strip(), tuple(traits)))
        seen.add(str(id_))
    return tuple(personas), capped(findings, file)
