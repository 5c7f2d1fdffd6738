"""Reading STAR: a task's graph and replies, and the dialogues that people had about it.

Invariants: nothing here raises anything but InputError for bad input, with every finding at once.
"""

from __future__ import annotations

import ast
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specs.corpus import HALF_CHARACTER, require_whole
from specs.errors import Finding, InputError, Where

RESPONSES = ".responses.json"
DIALOGUES = ("dialogues.jsonl.gz", "dialogues.jsonl")
SIZE_LIMIT = 64 * 1024 * 1024
LEAVE = re.compile(r"(.*_)?(bye|goodbye)(_\d+)?")
"""Labels of taking leave; STAR has several for the same words."""

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_FORM = 'a task file holds {"task": NAME, "replies": {LABEL: TEXT}, "graph": {LABEL: LABEL}}'
_EQUAL = re.compile(r"api\.is_equal_to\((.*)\)", re.DOTALL)
_HOLE = re.compile(r"\{[^{}]*\}")
_UNTOLD = re.compile(r"^[\[(]|[{}\"\\]")
"""What is no single value, or cannot stand in a template or an expression as it is."""

_NOTHING = re.compile(r"|null|none\b.*|nothing\b.*")


@dataclass(frozen=True, slots=True)
class Task:
    """A task: `graph` leads from label to label; a label that is in `said` is an utterance.

    Attributes:
        name: of its file, which is what its dialogues call it; `also` is what it calls itself.
        replies: what every label stands for, in words; conditions and queries too.
        said: the utterances among them, each with its wordings.
    """

    name: str
    file: str
    replies: Mapping[str, str]
    graph: Mapping[str, str]
    said: Mapping[str, tuple[str, ...]]
    also: str = ""

    def known(self) -> list[str]:
        """Return every label, in the order of the file."""
        return list(dict.fromkeys([*self.replies, *self.graph, *self.graph.values()]))


@dataclass(frozen=True, slots=True)
class Talk:
    """One dialogue between two people, as events of the roles user, agent, query and result."""

    id: str
    task: str
    events: tuple[Mapping[str, Any], ...]


# -- tasks


def task_files(paths: Sequence[Path]) -> list[Path]:
    """Return the task files that paths mean: a folder's, and no file of responses alone."""
    found: list[Path] = []
    for path in paths:
        found += sorted(path.glob("*.json")) if path.is_dir() else [path]
    return [path for path in dict.fromkeys(found) if not path.name.endswith(RESPONSES)]


def read_tasks(paths: Sequence[Path]) -> list[Task]:
    """Read task files, each with the responses beside it.

    Raises:
        InputError: with what is wrong in all of them.
    """
    tasks: list[Task] = []
    findings: list[Finding] = []
    for path in task_files(paths):
        try:
            tasks.append(_task(path))
        except InputError as error:
            findings += error.findings
    seen: dict[str, str] = {}
    for task in tasks:
        if task.name in seen:
            message = f"the task {task.name!r} stands in {seen[task.name]} too"
            findings.append(Finding(Where(task.file), message, "name one of the two"))
        seen[task.name] = task.file
    if not tasks and not findings:
        where = Where(", ".join(map(str, paths)) or "input")
        findings.append(Finding(where, "there is no task file", _FORM))
    if findings:
        raise InputError(findings)
    return tasks


def _task(path: Path) -> Task:
    file = str(path)
    data = _json(path)
    replies, graph = data.get("replies"), data.get("graph")
    name, also = path.stem, data.get("task", "")
    beside = path.with_name(path.name.removesuffix(".json") + RESPONSES)
    responses = _json(beside) if beside.is_file() else {}
    findings = [
        Finding(Where(file), f"`{key}` is no mapping of labels to text", _FORM)
        for key, value in (("replies", replies), ("graph", graph))
        if not _texts(value)
    ]
    if not _NAME.fullmatch(name):
        hint = "its name becomes the domain's: letters, digits and _"
        findings.append(Finding(Where(file), f"the task cannot be called {name!r}", hint))
    if responses and not _texts(responses):
        message = "is no mapping of labels to text"
        findings.append(Finding(Where(str(beside)), message))
    if findings:
        raise InputError(findings)
    assert isinstance(replies, dict)
    assert isinstance(graph, dict)
    labels = {*replies, *responses, *graph, *graph.values()}
    findings = [
        Finding(Where(file), f"the label {one!r} is no name of letters, digits and _")
        for one in sorted(labels)
        if not _NAME.fullmatch(one)
    ]
    if "hello" not in graph:
        findings.append(Finding(Where(file), "the graph has no `hello`, where STAR's begin"))
    if findings:
        raise InputError(findings)
    return Task(name, file, replies, graph, _said(replies, responses, graph), str(also))


def _said(
    replies: Mapping[str, str], responses: Mapping[str, str], graph: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Return the utterances: what has a response, and what ends like a sentence in the replies.

    What is neither is a condition or a query, whose text is a headline (`Query Check`). A response
    with other placeholders than the reply is of another version of the task, and is left out.
    """
    said = {}
    for label in dict.fromkeys((*replies, *graph, *graph.values())):
        text = replies.get(label, "").strip()
        if label in responses or text[-1:] in (".", "?", "!", "}"):
            other = responses.get(label, "").strip()
            same = _HOLE.findall(text) == _HOLE.findall(other)
            wordings = (text, other) if same or not text else (text,)
            said[label] = tuple(dict.fromkeys(one for one in wordings if one))
    return said


def query(label: str) -> bool:
    """Whether a label stands for a query, and not for how one went."""
    return label.startswith("query") and label not in ("query_success", "query_failure")


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise InputError([Finding(Where(str(path)), f"is larger than {SIZE_LIMIT >> 20} MiB")])
        text = path.read_bytes().decode("utf-8-sig")
        data = json.loads(text)
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise InputError([Finding(Where(str(path)), message)]) from None
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 0
        raise InputError(
            [Finding(Where(str(path), line), f"is not JSON: {error}", _FORM)]
        ) from None
    if not isinstance(data, dict):
        raise InputError([Finding(Where(str(path)), "is no JSON object", _FORM)])
    if halves := [number for number, line in enumerate(text.split("\n"), 1) if _halved(line)]:
        raise InputError([Finding(Where(str(path), number), HALF_CHARACTER) for number in halves])
    return data


def _halved(line: str) -> bool:
    """Whether a line of a JSON file holds half a character: none of its texts goes over lines."""
    if "\\ud" not in line.lower():
        return False
    try:
        require_whole([json.loads(text) for text in _STRING.findall(line)])
    except UnicodeEncodeError:
        return True
    return False


# -- dialogues


def beside(paths: Sequence[Path]) -> Path | None:
    """Return the dialogues that lie beside the task files, or one folder above."""
    for path in task_files(paths):
        for folder in (path.parent, path.parent.parent):
            for name in DIALOGUES:
                if (folder / name).is_file():
                    return folder / name
    return None


def read_talks(path: Path) -> list[Talk]:
    """Read dialogues in which somebody says something.

    Raises:
        InputError: with the lines that are none (at most twenty of them).
    """
    talks: list[Talk] = []
    findings: list[Finding] = []
    try:
        for number, line in enumerate(_lines(path), 1):
            talk = _talk(line) if line.strip() else None
            if talk is not None and _halved(line):
                findings.append(Finding(Where(str(path), number), HALF_CHARACTER))
            elif line.strip() and talk is None:
                message = "is no dialogue with `id`, `task` and `events`, each with its `role`"
                findings.append(Finding(Where(str(path), number), message))
            elif talk is not None and any(event["role"] == "agent" for event in talk.events):
                talks.append(talk)
            if len(findings) >= 20:
                break
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        findings.append(Finding(Where(str(path)), f"cannot be read: {error}"))
    if not talks and not findings:
        findings.append(Finding(Where(str(path)), "holds no dialogue"))
    if findings:
        raise InputError(findings)
    return talks


def _lines(path: Path) -> Iterator[str]:
    packed = path.suffix == ".gz"
    with gzip.open(path, "rb") if packed else path.open("rb") as stream:
        for line in stream:
            yield line.decode("utf-8")


_NEEDED: Mapping[str, tuple[tuple[str, type], ...]] = {
    "user": (("text", str),),
    "agent": (("text", str),),
    "query": (("constraints", list),),
    "result": (),
}


def _talk(line: str) -> Talk | None:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or not isinstance(data.get("events"), list):
        return None
    for event in data["events"]:
        role = event.get("role") if isinstance(event, dict) else None
        needed = _NEEDED.get(role) if isinstance(role, str) else None
        if needed is None or not all(isinstance(event.get(key), kind) for key, kind in needed):
            return None
        if not isinstance(event.get("item") or {}, dict):
            return None
        if not isinstance(event.get("action") or "", str):
            return None
    return Talk(str(data.get("id", "")), str(data.get("task", "")), tuple(data["events"]))


def constraints(event: Mapping[str, Any]) -> dict[str, str]:
    """Return what a query event asks for by parameter, where it asks for one value."""
    found = {}
    for one in event["constraints"]:
        for name, written in one.items() if isinstance(one, dict) else ():
            value = _value(str(written))
            if value and _NAME.fullmatch(name):
                found[name] = value
    return found


def _value(written: str) -> str:
    """Return a constraint's value as text; empty for nothing, and for what is more than a value."""
    equal = _EQUAL.fullmatch(written.strip())
    text = (equal[1] if equal else written).strip()
    if text.startswith("api."):
        return ""
    if text[:1] in "\"'":
        try:
            text = str(ast.literal_eval(text))
        except (ValueError, SyntaxError):
            text = text.strip("\"'")
    text = " ".join(text.split()).rstrip(".,;!")
    return "" if _NOTHING.fullmatch(text.lower()) or _UNTOLD.search(text) else text
