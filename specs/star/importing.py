"""STAR's task files as domains: everything is settled before anything is written."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from specs.errors import Finding, InputError, Where, nearest
from specs.loader import FILE
from specs.parts import TEMPORARY
from specs.star.asking import Asking, asking
from specs.star.cases import Cases, make_cases
from specs.star.fields import placeholders, resolve, snake
from specs.star.files import Talk, Task
from specs.star.flow import MORE, START, Flow, Guess, make_flow
from specs.star.graph_text import REQUEST, STEP, Data, graph_text
from specs.star.mapping import MappingFile, read_mapping, shipped, task_of
from specs.star.turns import Heard, hear

CORPUS = "corpus.jsonl"
_CLOSING = ["goodbye", "good bye", "bye bye", "have a nice day"]
_USER = (
    "You talk to an assistant, and have come for one thing. {{ goal }} Say one short thing at a "
    "time, in your own words"
)
_ASKED = ", and only what you are asked for"
_AGENT = "You are a friendly assistant. You say one thing at a time, in one or two short sentences."
_BACK = (
    "I can't help you with that, I'm afraid. Shall we go on where we were?",
    "Let us come back to what I asked.",
)


class _Plain(yaml.SafeDumper):
    """Writes everything out: a domain has no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never write an alias."""
        return True


@dataclass(frozen=True, slots=True)
class Imported:
    """A task as a domain, not written yet.

    Attributes:
        files: their contents by name.
        mapping: the mapping file that was used; empty for none.
        documents: how many there are.
    """

    name: str
    files: Mapping[str, str]
    guesses: tuple[Guess, ...]
    mapping: str
    documents: int


def mappings_of(tasks: Sequence[Task], given: Sequence[Path]) -> dict[str, Path]:
    """Return the mapping file of each task that has one: given, or shipped.

    Raises:
        InputError: a file is for no task that is imported, or two are for one.
    """
    found = {task.name: path for task in tasks if (path := shipped(task.name)) is not None}
    findings: list[Finding] = []
    named: dict[str, Path] = {}
    names = [task.name for task in tasks]
    for path in given:
        try:
            name = task_of(path)
        except InputError as error:
            findings += error.findings
            continue
        if name not in names:
            message = f"is for the task {name!r}, which is not imported{nearest(name, names)}"
            findings.append(Finding(Where(str(path), 1), message, f"imported: {', '.join(names)}"))
        elif name in named:
            message = f"is for the task {name!r}, and so is {named[name]}"
            findings.append(Finding(Where(str(path), 1), message, "give one of the two"))
        named[name] = path
    if findings:
        raise InputError(findings)
    return found | named


def import_tasks(
    tasks: Sequence[Task], talks: Sequence[Talk], given: Sequence[Path]
) -> list[Imported]:
    """Return the domains of tasks.

    Args:
        given: mapping files, in the place of the shipped ones.

    Raises:
        InputError: with all that is wrong with the mapping files, or else with all that neither the
            tasks nor they settle.
    """
    paths = mappings_of(tasks, given)
    heard = {task.name: hear(task, talks) for task in tasks}
    findings: list[Finding] = []
    mappings: dict[str, MappingFile] = {}
    for task in tasks:
        path = paths.get(task.name)
        try:
            mappings[task.name] = (
                read_mapping(path, task, heard[task.name]) if path else MappingFile(task.name)
            )
        except InputError as error:
            findings += error.findings
    if findings:
        raise InputError(findings)
    done = []
    for task in tasks:
        try:
            done.append(_imported(task, heard[task.name], mappings[task.name]))
        except InputError as error:
            findings += error.findings
    if findings:
        raise InputError(findings)
    return done


def _imported(task: Task, heard: Heard, mapping: MappingFile) -> Imported:
    if not heard.talks:
        hint = "its dialogues have the name of its file as their `task`"
        raise InputError([Finding(Where(task.file), f"no dialogue is about {task.name!r}", hint)])
    try:
        flow = make_flow(task, heard, mapping)
    except InputError as error:
        unlike = _unlike(task, heard, mapping)
        raise InputError([*error.findings, *unlike]) from None
    asked = asking(heard, flow, mapping)
    cases, missing = make_cases(task, heard, mapping, flow, asked)
    untold = [
        _untold(task, mapping, state)
        for state in flow.over
        if not any(one.listed for one in cases.fields.get(state, {}).values())
    ]
    if untold:
        raise InputError(untold)
    if missing:
        raise InputError([_unknown(task, heard, mapping, *one) for one in missing])
    if not cases.documents:
        message = f"no dialogue of {heard.talks} has a request with all that is asked for"
        raise InputError([Finding(Where(task.file), message, _askable(heard, mapping, flow))])
    graph = graph_text(task, heard, flow, asked, cases)
    data = _data(task, mapping, flow, asked, cases)
    data |= {"intents": graph.intents, "states": graph.states, "edges": graph.edges}
    data |= {"start": START, "end": flow.end}
    # What a user may say unasked, the agent need not ask.
    spared = flow.front() if any(one.whole and one.from_ == START for one in flow.moves) else set()
    data["subgoals"] = [one for one in flow.states if one not in {START, MORE, *spared}]
    head = f"# Imported from STAR's task {task.name}: duologue domain import star\n\n"
    files = {
        FILE: head + yaml.dump(data, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110),
        CORPUS: _jsonl({**one, "wish": _wish(one["requests"], asked)} for one in cases.documents),
        **{f"{one.query}.jsonl": _jsonl(one.rows) for one in cases.lookups},
    }
    guesses = (*flow.guesses, *asked.guesses, *cases.guesses, *graph.guesses())
    return Imported(task.name, files, guesses, mapping.file, len(cases.documents))


def _askable(heard: Heard, mapping: MappingFile, flow: Flow) -> str:
    """Return the lines that would say what is asked, and what there is to put in them."""
    front = flow.front() - {START, MORE}
    states = ", ".join(one for one in flow.states if one in front) or "none before a query"
    talks = dict[str, set[str]]()
    for query in heard.queries:
        for name in query.asked:
            talks.setdefault(name, set()).add(query.talk)
    often = sorted(talks, key=lambda name: (-len(talks[name]), name))
    parameters = ", ".join(f"{name} {len(talks[name])}" for name in often) or "no query has one"
    return (
        f"say in {mapping.name} what is asked:  slots: {{STATE: [PARAMETER]}}\n"
        f"    states: {states}\n    parameters, each in how many dialogues: {parameters}"
    )


def _untold(task: Task, mapping: MappingFile, state: str) -> Finding:
    message = f"{state!r} tells nothing step by step: none of its placeholders is a list"
    hint = f"say in {mapping.name} which field it tells:  fields: {{PLACEHOLDER: [FIELD]}}"
    return Finding(Where(task.file), message, hint)


def _unlike(task: Task, heard: Heard, mapping: MappingFile) -> list[Finding]:
    """Return the placeholders that no field at all is like, where there is no flow to say more."""
    parameters = sorted({name for one in heard.queries for name in one.asked})
    return [
        _unknown(task, heard, mapping, state, name)
        for state in dict.fromkeys((*task.graph, *task.graph.values()))
        for name in placeholders(*task.said.get(state, ()))
        if resolve(name, mapping, {"query": heard.queries}, parameters) is None
    ]


def _unknown(task: Task, heard: Heard, mapping: MappingFile, state: str, name: str) -> Finding:
    known = sorted({field for one in heard.queries for field in one.item})
    message = f"nothing says what the placeholder {{{name}}} of {state!r} stands for"
    hint = f"say it in {mapping.name}:  fields: {{{name}: [FIELD]}}, one of {', '.join(known)}"
    return Finding(Where(task.file), message, hint)


def _data(task: Task, mapping: MappingFile, flow: Flow, asked: Asking, cases: Cases) -> Data:
    words = task.name.replace("_", " ")
    about = mapping.describe or f"An assistant for one task: {words}."
    inputs = {snake(one): "text" for one in asked.parameters()}
    memory: Data = {REQUEST: 0}
    memory |= {STEP: 0} if flow.over else {}
    memory |= {name: {"type": "text", "init": ""} for name in inputs}
    back = " ".join(" ".join(task.said.get("out_of_scope", ())[:1]).split())
    return {
        "domain": task.name,
        "description": about,
        "open": "agent",
        "corpus": {"path": CORPUS, "id": "id"},
        "max_turns": 60,
        "closing": _CLOSING,
        "memory": memory,
        "goals": [f"It is about this: {words}. {{{{ doc.wish }}}}"],
        "roles": {
            "user": {
                "name": "customer",
                "system": f"{_USER}{'' if any(one.whole for one in flow.moves) else _ASKED}.",
                "checks": ["not_boilerplate"],
            },
            "agent": {
                "name": "assistant",
                "system": f"{_AGENT} {about}",
                "reference": [*([back] if back and "{" not in back else []), *_BACK],
            },
        },
        "tools": {
            one.query: {
                "input": inputs,
                "table": {
                    "path": f"{one.query}.jsonl",
                    "match": list(inputs),
                    "otherwise": dict(one.otherwise),
                },
            }
            for one in cases.lookups
        },
    }


def _wish(requests: Sequence[Mapping[str, str]], asked: Asking) -> str:
    """Return what a user knows, in words: the values of each request."""
    told = [
        "; ".join(
            f"{slot.label if len(asked.of(slot.state)) == 1 else slot.name}: {one[slot.name]}"
            for slot in asked.slots
            if one[slot.name]
        )
        for one in requests
    ]
    first, *rest = told
    return f"You know: {first}." + "".join(f" After that, or instead: {one}." for one in rest)


def _jsonl(rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write(domains: Sequence[Imported], out: Path) -> None:
    """Write each domain into a folder of its own, which appears whole or not at all.

    Raises:
        InputError: a folder is not empty, or cannot be written.
    """
    require_free(domains, out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=out) as begun:
            for one in domains:
                (Path(begun) / one.name).mkdir()
                for name, text in one.files.items():
                    (Path(begun) / one.name / name).write_text(text, encoding="utf-8")
            for one in domains:
                (Path(begun) / one.name).replace(out / one.name)
    except OSError as error:
        message = f"cannot be written: {error.strerror}"
        raise InputError([Finding(Where(str(out)), message)]) from None


def require_free(domains: Sequence[Imported], out: Path) -> None:
    """Raise InputError naming each domain's folder that holds something already."""
    taken = [out / one.name for one in domains if _taken(out / one.name)]
    if taken:
        hint = "name another --out, or delete it"
        raise InputError(
            [Finding(Where(str(one)), "is not an empty folder", hint) for one in taken]
        )


def _taken(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
