"""From a STAR graph to one that can be walked: conditions find their place, dead ends a way on.

Invariants: what STAR's files say stands; what they do not say is ruled, or guessed from the
dialogues, and every guess is kept with its reason; what can be neither is a finding that holds the
lines to add to the mapping file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import networkx as nx

from specs.errors import Finding, InputError, Where
from specs.star.fields import parts, telling
from specs.star.files import LEAVE, Task, query
from specs.star.mapping import MappingFile, Meaning
from specs.star.turns import LEAVING, Heard, Query

START = "hello"
MORE = "anything_else"
MISSING = "missing"

_OUTCOMES = frozenset(
    {"available", "unavailable", "correct", "incorrect", "query_success", "query_failure"}
)
_FAILING = frozenset({"unavailable", "incorrect", "query_failure"})
"""They come last among the cases, as what happens to whatever no table has."""

_ANSWERS = frozenset({"yes", "no"})


@dataclass(frozen=True, slots=True)
class Guess:
    """What was decided without being told: what, why, and what to write to decide otherwise."""

    what: str
    why: str
    overrule: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}. Otherwise: {self.overrule}"


@dataclass(frozen=True, slots=True)
class Move:
    """A user's edge.

    Attributes:
        means: a condition's name (`yes`), `missing` where the user has nothing to say, or empty:
            whatever answers the state.
        again: it leads back to before a query: the user asks for something else.
        whole: it leads right to the first query, and nothing was asked: the user says all that the
            query needs at once.
    """

    from_: str
    to: str
    means: str = ""
    again: bool = False
    whole: bool = False


@dataclass(slots=True)
class Flow:
    """A graph that can be walked.

    Attributes:
        states: what the agent says, in the order of the file.
        queries: the cases of each: a condition (empty where there is none) and where it leads.
        over: the states that tell a list item by item, and what comes after the last one.
    """

    states: list[str]
    queries: dict[str, list[tuple[str, str]]]
    moves: list[Move]
    over: dict[str, str]
    end: list[str]
    guesses: list[Guess] = field(default_factory=list)

    def graph(self) -> nx.DiGraph:
        """Return it as a directed graph of states and queries."""
        graph = nx.DiGraph()
        graph.add_nodes_from(self.states)
        graph.add_edges_from((move.from_, move.to) for move in self.moves)
        graph.add_edges_from((q, to) for q, cases in self.queries.items() for _, to in cases)
        graph.add_edges_from(self.over.items())
        return graph

    def first_query(self) -> str:
        """Return the query that a dialogue comes to first; empty where there is none."""
        lengths = nx.single_source_shortest_path_length(self.graph(), START)
        return min(self.queries, key=lambda q: lengths[q], default="")

    def front(self) -> set[str]:
        """Return the states that a dialogue can be in before its first query."""
        graph = self.graph()
        first = self.first_query()
        if first:
            graph.remove_node(first)
        return {START, *nx.descendants(graph, START)}


def make_flow(task: Task, heard: Heard, mapping: MappingFile) -> Flow:
    """Return a task's flow.

    Raises:
        InputError: naming every label whose place nobody says, and the lines that would.
    """
    builder = _Builder(task, heard, mapping)
    flow = builder.build()
    if builder.findings:
        raise InputError(builder.findings)
    return flow


def of_query(heard: Heard, name: str, all_: Iterable[str]) -> list[Query]:
    """Return a query's events: of the kind that its name has (`query_book`), where kinds differ."""
    kinds = {one.kind.lower() for one in heard.queries if one.kind}
    wanted = name.removeprefix("query").strip("_").lower()
    if len(list(all_)) == 1 or wanted not in kinds:
        return list(heard.queries)
    return [one for one in heard.queries if one.kind.lower() == wanted]


class _Builder:
    def __init__(self, task: Task, heard: Heard, mapping: MappingFile) -> None:
        self.task = task
        self.heard = heard
        self.mapping = mapping
        self.findings: list[Finding] = []
        self.guesses: list[Guess] = []
        labels = [one for one in task.known() if one not in mapping.leave_out]
        self.queries = [one for one in labels if one not in task.said and query(one)]
        self.conditions = [one for one in task.graph if one in labels and not self._is_place(one)]
        self.said = [one for one in labels if one in task.said]
        self.moves: list[Move] = []
        self.cases: dict[str, list[tuple[str, str]]] = {one: [] for one in self.queries}
        self.over: dict[str, str] = {}

    def _is_place(self, label: str) -> bool:
        return label in self.task.said or label in self.queries

    def build(self) -> Flow:
        for from_, to in self.task.graph.items():
            if from_ in self.mapping.leave_out or not self._target(from_, to):
                continue
            if from_ in self.cases:
                self.cases[from_].append(("", to))
            elif from_ in self.task.said:
                self.moves.append(Move(from_, to))
        for name in self.conditions:
            to = self.task.graph[name]
            meaning = self.mapping.conditions.get(name) or self._ruled(name, to)
            if meaning is not None and self._target(name, to):
                self._place(name, to, meaning)
        added = [Move(one.from_, one.to, one.condition) for one in self.mapping.edges]
        theirs = {(one.from_, one.means) for one in added}
        self.moves = [one for one in self.moves if (one.from_, one.means) not in theirs]
        self.moves += dict.fromkeys(added)
        return self._closed()

    def _target(self, from_: str, to: str) -> bool:
        if self._is_place(to) and to not in self.mapping.leave_out:
            return True
        if to not in self.mapping.leave_out:
            line = f"edges: [{{from: {from_}, to: STATE}}]"
            self._unsettled(f"{from_!r} leads to {to!r}, which is neither said nor a query", line)
        return False

    def _place(self, name: str, to: str, meaning: Meaning) -> None:
        if meaning.kind == "of":
            self.cases.setdefault(meaning.at[0], []).append((name, to))
        elif meaning.kind == "over":
            self.over.update(dict.fromkeys(meaning.at, to))
        else:
            means = MISSING if meaning.kind == "missing" else name
            self.moves += [Move(state, to, means) for state in meaning.at]

    # -- conditions

    def _ruled(self, name: str, to: str) -> Meaning | None:
        if name in _ANSWERS:
            return self._answer(name, to)
        if name in _OUTCOMES:
            return self._outcome(name, to)
        if name == "done":
            states = telling(self.task, self.heard, self.mapping)
            states = [one for one in states if any(q in self.task.graph for q in self.cases)][:1]
            if states:
                self._guess(
                    f"`done` is when {states[0]} has told its last item",
                    "its placeholder is a list in the results",
                    f"conditions: {{done: {{after: {states[0]}}}}}",
                )
                return Meaning("over", (states[0],))
        self._unsettled(*self._asked(name))
        return None

    def _asked(self, name: str) -> tuple[str, str]:
        text = self.task.replies.get(name, "")
        words = set(parts(text))
        like = [one for one in self.said if words & set(parts(one)[2:]) and "ask" in parts(one)]
        message = f"nothing says where the condition {name!r} ({text!r}) belongs"
        if like and "missing" in words | set(parts(name)):
            return message, f"conditions: {{{name}: {{missing: [{', '.join(like)}]}}}}"
        states = [one for one in self.said if self._asks(one) or one not in self.task.graph]
        return message, (
            f"conditions: {{{name}: {{after: STATE}}}}, the state that the user answers so: "
            f"{', '.join(states)}; or {{of: QUERY}}, if a query goes so: {', '.join(self.queries)}"
        )

    def _answer(self, name: str, to: str) -> Meaning | None:
        """A yes or a no answers the question that leads nowhere else."""
        states = [
            one
            for one in self.said
            if self._asks(one) and one not in self.task.graph and one not in (START, MORE)
        ]
        counts = {one: self.heard.follows(one, self._spoken(to)) for one in states}
        reachable = [one for one in states if self._led_to(one)] or [MORE] * (MORE in self.said)
        best = max(counts.values(), default=0)
        first = [one for one in reachable if counts.get(one, 0) == best]
        why = "the only question without a way on"
        if len(reachable) > 1 and best:
            reachable = first
            why = (
                f"in the dialogues {self._spoken(to)} follows it {best} times, more than any other"
            )
        if len(reachable) == 1:
            self._guess(
                f"`{name}` answers {reachable[0]}", why, f"conditions: {{{name}: {{after: STATE}}}}"
            )
            return Meaning("after", (reachable[0],))
        self._unsettled(*self._asked(name))
        return None

    def _outcome(self, name: str, to: str) -> Meaning | None:
        """A result's condition belongs to the query that has no way on of its own."""
        waiting = [one for one in self.queries if one not in self.task.graph]
        if not waiting:
            self._unsettled(*self._asked(name))
            return None
        counts = {
            one: sum(q.before == to for q in of_query(self.heard, one, self.queries))
            for one in waiting
        }
        best = max(waiting, key=lambda one: counts[one])
        if len(waiting) > 1:
            if not counts[best]:
                self._unsettled(*self._asked(name))
                return None
            shown = ", ".join(f"{counts[one]} times after {one}" for one in waiting)
            self._guess(
                f"`{name}` is how {best} went",
                f"in the dialogues {to} comes {shown}",
                f"conditions: {{{name}: {{of: QUERY}}}}",
            )
        return Meaning("of", (best,))

    def _asks(self, state: str) -> bool:
        return any("?" in text for text in self.task.said[state])

    def _led_to(self, state: str) -> bool:
        targets = {*self.task.graph.values(), *(one.to for one in self.mapping.edges)}
        return state in targets

    def _spoken(self, label: str, depth: int = 5) -> str:
        """Return what the agent says first from a label on; silent queries are passed over."""
        while label not in self.task.said and depth:
            label, depth = self.task.graph.get(label, label), depth - 1
        return LEAVING if LEAVE.fullmatch(label) else label

    # -- dead ends

    def _closed(self) -> Flow:
        for name, cases in self.cases.items():
            if not cases and any(one.to == name for one in self.moves):
                outcomes = [one for one in self.conditions if one in _OUTCOMES] or ["CONDITION"]
                lines = ", ".join(f"{one}: {{of: {name}}}" for one in outcomes)
                self._unsettled(f"nothing says what follows {name!r}", f"conditions: {{{lines}}}")
        for circle in nx.simple_cycles(self._between_queries()):
            line = f"a file {self.mapping.name} cannot mend that: lead one of them to a reply"
            shown = " -> ".join([*circle, circle[0]])
            self._unsettled(f"nothing is ever said between queries: {shown}", line)
        byes = [one for one in self.said if LEAVE.fullmatch(one)]
        if not byes:
            line = f"a file {self.mapping.name} cannot mend that: add `goodbye_1` to the replies"
            self._unsettled(
                "no reply takes leave: its label is `goodbye_1` or ends with `_bye`", line
            )
            byes = [START]
        for cases in self.cases.values():
            cases.sort(key=lambda case: case[0] in _FAILING)
        flow = Flow(self.said, self.cases, self.moves, self.over, byes[:1], self.guesses)
        if self.findings:
            return flow
        self._dead_ends(flow)
        self._keep_reached(flow)
        flow.moves = list(_marked(flow))
        self._tell_apart(flow)
        return flow

    def _between_queries(self) -> nx.DiGraph:
        cases = ((name, to) for name, cases in self.cases.items() for _, to in cases)
        return nx.DiGraph((name, to) for name, to in cases if to in self.cases)

    def _dead_ends(self, flow: Flow) -> None:
        while True:
            graph = flow.graph()
            reached = {START} | nx.descendants(graph, START)
            dead = [
                one
                for one in flow.states
                if one in reached
                and one not in flow.end
                and not any(m.from_ == one for m in flow.moves)
            ]
            if not dead:
                return
            for state in dead:
                to = MORE if MORE in self.said and state != MORE else flow.end[0]
                flow.moves.append(Move(state, to))
                times = self.heard.follows(state, LEAVING if to in flow.end else to)
                self._guess(
                    f"{state} leads to {to}",
                    f"the graph ends there; in the dialogues it follows {times} times",
                    f"edges: [{{from: {state}, to: STATE}}]",
                )

    def _keep_reached(self, flow: Flow) -> None:
        reached = {START} | nx.descendants(flow.graph(), START)
        out = [one for one in flow.states if one not in reached and one != "out_of_scope"]
        byes = [one for one in out if LEAVE.fullmatch(one)]
        for state in out:
            if state not in byes:
                self._guess(
                    f"{state} is left out",
                    "no edge leads to it",
                    f"edges: [{{from: STATE, to: {state}}}], or leave_out: [{state}]",
                )
        flow.states = [one for one in flow.states if one in reached]
        flow.queries = {name: cases for name, cases in flow.queries.items() if name in reached}
        flow.moves = [one for one in flow.moves if one.from_ in reached]

    def _tell_apart(self, flow: Flow) -> None:
        """Find ways on from one state that nothing tells apart."""
        first = flow.first_query()
        front, behind = flow.front(), nx.descendants(flow.graph(), first) if first else set()
        for one in self.mapping.edges:
            own = one.condition or one.from_ == START or self.task.graph.get(one.from_) == first
            if one.to == first and not own and one.from_ in front & behind:
                self._unsettled(
                    f"{one.from_!r} comes before {first!r} as well as behind it, so that nothing "
                    "says whether who goes there asks for the first time or again",
                    f"edges: [{{from: {one.from_}, to: STATE}}], another than {first}",
                )
        plain: dict[str, list[str]] = {}
        for move in flow.moves:
            if not move.means and not move.whole and move.to not in flow.end:
                plain.setdefault(move.from_, []).append(move.to)
        for state, ways in plain.items():
            if len(ways) > 1:
                self._unsettled(
                    f"nothing that a user says tells the ways on from {state!r} apart: "
                    f"{', '.join(ways)}",
                    f"edges: [{{from: {state}, to: {ways[0]}}}], or `as: CONDITION` for the others",
                )

    # -- messages

    def _guess(self, what: str, why: str, overrule: str) -> None:
        self.guesses.append(Guess(what, why, overrule))

    def _unsettled(self, message: str, lines: str) -> None:
        hint = f"say it in {self.mapping.name}:  {lines}"
        self.findings.append(Finding(Where(self.task.file), message, hint))


def _marked(flow: Flow) -> Iterator[Move]:
    """Yield the moves, marked where they lead from behind the first query to before it, or to it.

    Who has nothing else to do in a state but to ask again may also be done: such a move is not
    `whole`, since it must be free to lead elsewhere.
    """
    graph, first = flow.graph(), flow.first_query()
    if not first:
        yield from flow.moves
        return
    front = flow.front()
    before = {first} | (nx.ancestors(graph, first) & front)
    for move in flow.moves:
        again = move.from_ not in front and move.to in before
        beside = any(one.from_ == move.from_ and one.to != move.to for one in flow.moves)
        straight = move.to == first and not move.means
        whole = straight and (move.from_ == START or (again and beside))
        yield Move(move.from_, move.to, move.means, again, whole)
