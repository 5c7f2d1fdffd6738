"""What people said in STAR's dialogues, by the state they answered, and what queries brought."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from specs.star.files import LEAVE, Talk, Task, constraints

LEAVING = "(leave)"
"""The label that stands for all of STAR's labels of taking leave."""

BEGIN = "(begin)"
"""What stands for the label before a dialogue's first utterance."""

REQUEST = "RequestType"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A user's utterance between two of the agent's.

    Attributes:
        after: the label before it, BEGIN for none; empty where the agent's words have none.
        before: the label behind it.
        values: what the dialogue's queries ask for, by parameter.
        queried: whether there is a query between the utterance and the next label.
    """

    after: str
    text: str
    before: str
    values: Mapping[str, tuple[str, ...]]
    queried: bool


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a dialogue, what it brought, and the label of what the agent said then."""

    talk: str
    kind: str
    asked: Mapping[str, str]
    item: Mapping[str, Any]
    before: str


@dataclass(frozen=True, slots=True)
class Heard:
    """All that a task's dialogues show."""

    exchanges: tuple[Exchange, ...]
    queries: tuple[Query, ...]
    talks: int

    def follows(self, after: str, before: str) -> int:
        """Return how often one label comes right behind another, a user's turn between them."""
        return sum(one.after == after and one.before == before for one in self.exchanges)

    def vocabulary(self) -> Counter[str]:
        """Return all values that queries asked for."""
        return Counter(value for one in self.queries for value in one.asked.values())


def hear(task: Task, talks: Sequence[Talk]) -> Heard:
    """Return what a task's dialogues show."""
    exchanges: list[Exchange] = []
    queries: list[Query] = []
    own = [talk for talk in talks if talk.task in (task.name, task.also)]
    spelt = _spellings(own)
    for talk in own:
        _hear(task, talk, spelt, exchanges, queries)
    return Heard(tuple(exchanges), tuple(queries), len(own))


def _hear(
    task: Task,
    talk: Talk,
    spelt: Mapping[str, str],
    exchanges: list[Exchange],
    queries: list[Query],
) -> None:
    values: dict[str, tuple[str, ...]] = {}
    asked: dict[str, str] = {}
    kind = ""
    after, said, pending = BEGIN, [], list[Query]()
    lines: list[tuple[str, str, str, bool]] = []
    for event in talk.events:
        if event["role"] == "user":
            said.append(" ".join(event["text"].split()))
        elif event["role"] == "query":
            asked = {name: spelt[value.lower()] for name, value in constraints(event).items()}
            kind = asked.pop(REQUEST, "")
            for name, value in asked.items():
                values[name] = tuple(dict.fromkeys((*values.get(name, ()), value)))
        elif event["role"] == "result":
            item = {k: v for k, v in (event.get("item") or {}).items() if k != "APIName"}
            pending.append(Query(talk.id, kind, asked, item, ""))
        else:
            label = _label(task, str(event.get("action") or ""))
            if len(said) == 1:
                lines.append((after, said[0], label, bool(pending)))
            queries += [
                Query(one.talk, one.kind, one.asked, one.item, label if last else "")
                for one, last in zip(pending, [False] * (len(pending) - 1) + [True], strict=False)
            ]
            after, said, pending = label, [], []
    queries += pending
    exchanges += [Exchange(a, text, b, values, queried) for a, text, b, queried in lines]


def _spellings(talks: Sequence[Talk]) -> dict[str, str]:
    """Return each value's most frequent spelling, by its letters alone: wizards typed `ben` too."""
    found: dict[str, Counter[str]] = {}
    for talk in talks:
        for event in talk.events:
            if event["role"] == "query":
                for value in constraints(event).values():
                    found.setdefault(value.lower(), Counter())[value] += 1
    return {key: min(count, key=lambda one: (-count[one], one)) for key, count in found.items()}


def _label(task: Task, action: str) -> str:
    """Return a label as the task has it: dialogues leave out a prefix, or have one leave-taking."""
    if LEAVE.fullmatch(action):
        return LEAVING
    if action in task.replies:
        return action
    prefix = task.name.split("_")[0]
    longer = f"{prefix}_{action}"
    return longer if action and longer in task.replies else action
