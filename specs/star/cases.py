"""What the imported dialogues are about: requests that people made, and what queries brought.

Invariants: every request of a document finds its row in the first query's table, and every row has
what the replies behind it tell; a value is text, and no text of a row is a template.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx

from specs.star.asking import Asking, Slot
from specs.star.fields import Field, placeholders, resolve, snake
from specs.star.files import Task
from specs.star.flow import Flow, Guess, of_query
from specs.star.mapping import MappingFile
from specs.star.turns import Heard, Query

OUTCOME = "outcome"
"""The column that says how a query went."""

LONGEST = 90
REQUESTS = 4


@dataclass(frozen=True, slots=True)
class Lookup:
    """A tool: the rows by input, and what there is for other inputs (templates of them).

    Attributes:
        parameters: its inputs, in the order in which they are asked for.
        rows: inputs and result together, as a table has them.
    """

    query: str
    parameters: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    otherwise: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cases:
    """Everything that a domain's dialogues are about.

    Attributes:
        fields: what placeholders stand for, by state.
        documents: each with an `id` and its `requests`, by parameter's name.
    """

    fields: Mapping[str, Mapping[str, Field]]
    lookups: tuple[Lookup, ...]
    documents: tuple[Mapping[str, Any], ...]
    guesses: tuple[Guess, ...]


Key = tuple[str, ...]


def make_cases(
    task: Task, heard: Heard, mapping: MappingFile, flow: Flow, asking: Asking
) -> tuple[Cases, list[tuple[str, str]]]:
    """Return the cases, and the placeholders, each with its state, that nothing is like."""
    fields, missing, guesses = _fields(task, heard, mapping, flow, asking)
    lookups, outcomes = [], dict[str, dict[str, str]]()
    for query in flow.queries:
        outcomes[query], why = _outcomes(query, flow, of_query(heard, query, flow.queries), mapping)
        guesses += why
        lookups.append(_lookup(query, heard, flow, asking, fields, outcomes[query]))
    first = flow.first_query()
    keys = {
        tuple(str(row[snake(one)]) for one in lookup.parameters)
        for lookup in lookups
        if lookup.query == first
        for row in lookup.rows
    }
    documents = tuple(_documents(heard, flow, asking, keys))
    return Cases(fields, tuple(lookups), documents, tuple(guesses)), missing


# -- placeholders


def _fields(
    task: Task, heard: Heard, mapping: MappingFile, flow: Flow, asking: Asking
) -> tuple[dict[str, dict[str, Field]], list[tuple[str, str]], list[Guess]]:
    graph = flow.graph()
    fields: dict[str, dict[str, Field]] = {}
    missing: list[tuple[str, str]] = []
    guesses: dict[str, Guess] = {}
    for state in flow.states:
        before = nx.shortest_path_length(graph, target=state)
        near = sorted((q for q in flow.queries if q in before), key=lambda q: before[q])
        results = {q: _seen(of_query(heard, q, flow.queries), state) for q in near}
        for name in placeholders(*task.said[state]):
            found = resolve(name, mapping, results, asking.parameters())
            if found is None:
                missing.append((state, name))
                continue
            fields.setdefault(state, {})[name] = found
            if not found.exact:
                source = f"{found.query}'s result" if found.query else "what the user said"
                what = f"{{{name}}} is {found.names[0]} of {source}"
                over = f"fields: {{{name}: FIELD}}"
                guesses[name] = Guess(what, "no field has that very name", over)
    return fields, missing, list(guesses.values())


def _seen(queries: list[Query], state: str) -> list[Query]:
    """Return the results that the agent told in a state, or all: a refusal has other fields."""
    return [one for one in queries if one.before == state] or queries


def _needed(
    query: str, to: str, flow: Flow, fields: Mapping[str, Mapping[str, Field]]
) -> list[Field]:
    """Return what a query's result must have for the replies that may follow a case of it."""
    graph = flow.graph()
    graph.remove_node(query)
    behind = {to} | nx.descendants(graph, to)
    return [
        one
        for state in flow.states
        if state in behind
        for one in fields.get(state, {}).values()
        if one.query == query
    ]


# -- how a query went


def _signature(item: Mapping[str, Any]) -> str:
    """Return what results that mean the same have in common: their message, or their fields."""
    told = [str(v) for k, v in item.items() if "message" in k.lower() or "status" in k.lower()]
    return told[0] if told else "a result" if item else "no result"


def _outcomes(
    query: str, flow: Flow, queries: Sequence[Query], mapping: MappingFile
) -> tuple[dict[str, str], list[Guess]]:
    """Return by signature how a query went: as told, or by what the agent said then most often."""
    cases = flow.queries[query]
    if len(cases) == 1:
        return {_signature(one.item): cases[0][0] for one in queries if one.item}, []
    votes: dict[str, Counter[str]] = {}
    for one in queries:
        for name, to in cases:
            if one.before == to:
                votes.setdefault(_signature(one.item), Counter())[name] += 1
    found = {
        signature: name
        for signature in {_signature(one.item) for one in queries}
        for name, _ in cases
        if any(text.lower() in signature.lower() for text in mapping.messages.get(name, ()))
    }
    guesses = []
    for signature, count in votes.items():
        if signature in found:
            continue
        name, times = count.most_common(1)[0]
        found[signature] = name
        shown = signature if len(signature) <= 50 else signature[:47] + "..."
        guesses.append(
            Guess(
                f"{query}: {shown!r} means `{name}`",
                f"{times} of {count.total()} times the agent went on so",
                f"messages: {{CONDITION: [{signature[:47]!r}]}}",
            )
        )
    return found, guesses


# -- tables


def _lookup(
    query: str,
    heard: Heard,
    flow: Flow,
    asking: Asking,
    fields: Mapping[str, Mapping[str, Field]],
    outcomes: Mapping[str, str],
) -> Lookup:
    targets = dict(flow.queries[query])
    needed = {name: _needed(query, to, flow, fields) for name, to in targets.items()}
    rows: dict[Key, Mapping[str, Any]] = {}
    patterns: dict[str, list[tuple[Mapping[str, Any], Mapping[str, str]]]] = {}
    parameters = tuple(asking.parameters())
    for one in of_query(heard, query, flow.queries):
        name = outcomes.get(_signature(one.item))
        result = _result(one.item, needed[name]) if name is not None else None
        if name is None or result is None:
            continue
        result = {OUTCOME: name, **result} if len(targets) > 1 else result
        patterns.setdefault(name, []).append((result, one.asked))
        asked = _asked(one, asking.slots)
        if asked is not None:
            key = tuple(asked[parameter] for parameter in parameters)
            inputs = {snake(parameter): asked[parameter] for parameter in parameters}
            rows.setdefault(key, {**result, **inputs})
    last = flow.queries[query][-1][0]
    return Lookup(query, parameters, tuple(rows.values()), _pattern(patterns.get(last, []), last))


def _asked(query: Query, slots: Sequence[Slot]) -> dict[str, str] | None:
    """Return what a query asks for, empty where the user may say nothing; None if it lacks more."""
    found = {}
    for slot in slots:
        value = query.asked.get(slot.parameter, "")
        if len(value) > LONGEST or (not value and not slot.optional):
            return None
        if slot.choices and value and value not in slot.choices:
            return None
        found[slot.parameter] = value
    return found


def _result(item: Mapping[str, Any], needed: Iterable[Field]) -> dict[str, Any] | None:
    """Return a result as a row has it; None if it lacks something that a reply tells."""
    found = dict(item)
    lists = set()
    for one in needed:
        value = one.value(item)
        if value is None or (one.listed and not isinstance(value, list)):
            return None
        if one.listed:
            lists.add(len(value))
        found[one.column] = value
    if len(lists) > 1 or "{" in str(list(found.values())):
        return None
    return found


def _pattern(
    found: Sequence[tuple[Mapping[str, Any], Mapping[str, str]]], outcome: str
) -> dict[str, Any]:
    """Return the result for inputs that no row has: a frequent one, its echoes templates."""
    if not found:
        return {OUTCOME: outcome}
    shapes = Counter(tuple(sorted(result)) for result, _ in found)
    shape = shapes.most_common(1)[0][0]
    result, asked = next(one for one in found if tuple(sorted(one[0])) == shape)
    echoes = {value: f"{{{{ input.{snake(name)} }}}}" for name, value in asked.items()}
    return {
        name: echoes.get(value, value) if isinstance(value, str) else value
        for name, value in result.items()
    }


# -- documents


def _documents(
    heard: Heard, flow: Flow, asking: Asking, keys: set[Key]
) -> Iterator[Mapping[str, Any]]:
    """Yield what each dialogue was about: one request after the other where the flow goes back."""
    first = flow.first_query()
    goes_back = any(move.again for move in flow.moves)
    by_talk: dict[str, list[Key]] = {}
    for one in of_query(heard, first, flow.queries) if first else ():
        asked = _asked(one, asking.slots)
        key = tuple(asked.values()) if asked is not None else None
        if key is not None and key in keys and any(key):
            by_talk.setdefault(one.talk, []).append(key)
    seen: set[tuple[Key, ...]] = set()
    for talk, requests in by_talk.items():
        own = tuple(dict.fromkeys(requests))[:REQUESTS]
        for number, group in enumerate([own] if goes_back else [(one,) for one in own]):
            if group in seen:
                continue
            seen.add(group)
            yield {
                "id": f"star-{talk}" if not number else f"star-{talk}-{number}",
                "requests": [
                    dict(zip(map(snake, asking.parameters()), key, strict=True)) for key in group
                ],
            }
