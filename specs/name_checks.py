"""Names that expressions and templates use and that are not there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from specs.domain import Domain
from specs.errors import Finding, nearest
from specs.frames import DOCUMENTS
from specs.graph_reader import Outline
from specs.paths import ITEM, Path
from specs.scopes import PLAYED, Carried, Use, uses

_PERSONA = ("id", "name", "text", "traits")


def name_findings(domain: Domain, outline: Outline) -> Iterator[Finding]:
    """Yield unknown names, each with the nearest known one."""
    checker = _Names(domain, outline.has_corpus)
    for use in uses(domain):
        found = use.code.usage
        for path in sorted(found.paths | found.item_paths):
            yield from checker.check(use, path, path in found.optional)
    yield from _assigned(domain)


def _assigned(domain: Domain) -> Iterator[Finding]:
    assigned = [edge.set for edge in domain.edges]
    assigned += [state.set for state in domain.states.values()]
    for assignments in assigned:
        for name, expression in assignments.items():
            if name not in domain.memory:
                near = nearest(name, domain.memory)
                yield Finding(
                    expression.where,
                    f"`set` names {name!r}, which is no variable of memory{near}",
                    f"declare it: memory: {{{name}: ...}}",
                )
    for goal in domain.goals:
        for name in goal.with_:
            if name not in domain.memory:
                near = nearest(name, domain.memory)
                message = f"`with` names {name!r}, which is no variable of memory{near}"
                yield Finding(goal.where, message)


class _Names:
    """Checks one path after another against what a domain declares."""

    def __init__(self, domain: Domain, has_corpus: bool) -> None:
        self.domain = domain
        self.has_corpus = has_corpus
        speeches = [edge.speech for edge in domain.edges]
        speeches += [intent.speech for intent in domain.intents.values()]
        speeches += [fact.claim for fact in domain.facts]
        states = list(domain.states.values())
        answers = [state.speech for state in states] + [fact.answer for fact in domain.facts]
        self.slots = sorted({name for speech in speeches for name in speech.slots})
        self.replies = sorted({"misheard"}.union(*(speech.slots for speech in answers)))
        self.called = {state.call.tool for state in states if state.call is not None}

    def check(self, use: Use, path: Path, optional: bool) -> Iterator[Finding]:
        """Yield what is wrong with one path; `optional` ones may be undefined at times."""
        root, where = path[0], use.code.where
        if root not in use.names:
            yield Finding(where, *self._unknown_root(use, root))
            return
        name = path[1] if len(path) > 1 else None
        if root == "memory":
            yield from self._member(use, "memory", name, self.domain.memory)
        elif root == "persona":
            yield from self._member(use, "persona", name, _PERSONA)
        elif root == "slots":
            yield from self._carried(use, "slots", name, use.slots, self.slots, optional)
        elif root == "reply":
            yield from self._carried(use, "reply", name, use.reply, self.replies, optional)
        elif root == "tools":
            yield from self._tool(use, path)
        elif root in ("doc", DOCUMENTS, "results") and not self.has_corpus:
            yield Finding(where, f"`{root}` is used, but the domain has no corpus", "add `corpus`")
        elif root in ("goal", "heard", "turn") and name is not None:
            yield Finding(where, f"`{root}` has nothing inside, so not {name!r} either")

    def _unknown_root(self, use: Use, root: str) -> tuple[str, str]:
        if root == "slots" and "results" in use.names:
            hint = "`when` of an edge is decided before the user speaks: use the cases of `to`"
            return "`slots` are not there yet", hint
        if root in PLAYED:
            return f"`{root}` is not there yet", f"known here: {', '.join(sorted(use.names))}"
        own = {f"memory.{name}": name for name in self.domain.memory}
        own |= {f"slots.{name}": name for name in self.slots}
        for full, name in own.items():
            if name == root:
                return f"there is no name {root!r}; did you mean `{full}`?", ""
        hint = f"known here: {', '.join(sorted(use.names))}; a text stands in quotes: \"'{root}'\""
        return f"there is no name {root!r}{nearest(root, use.names)}", hint

    def _member(
        self, use: Use, root: str, name: str | None, known: Iterable[str]
    ) -> Iterator[Finding]:
        known = list(known)
        if name is not None and name != ITEM and name not in known:
            message = f"`{root}` has no {name!r}{nearest(name, known)}"
            hint = f"known: {', '.join(known)}" if known else f"no {root} is declared"
            yield Finding(use.code.where, message, hint)

    def _carried(
        self,
        use: Use,
        root: str,
        name: str | None,
        ways: tuple[Carried, ...],
        known: list[str],
        optional: bool,
    ) -> Iterator[Finding]:
        """Check a slot or a reply: each way that leads here must bring it along."""
        if name is None or name == ITEM:
            return
        where = use.code.where
        here = sorted({one for way in ways for one in way.names})
        if name not in known:
            message = f"`{root}` has no {name!r}{nearest(name, here or known)}"
            yield Finding(where, message, f"known here: {', '.join(here) or 'none'}")
            return
        missing = [way for way in ways if name not in way.names]
        if not missing or optional:
            return
        message = f"`{root}.{name}` is not there"
        if use.early and len(ways) == 1:
            hint = "before the words only slots with a `value` are there (and those before it)"
        elif len(missing) == len(ways):
            hint = f"{missing[0].way} brings {', '.join(sorted(missing[0].names)) or 'none'}"
        else:
            message += f" when {missing[0].way} leads here"
            hint = f"keep it in memory with `set`, or write `{root}.{name} | default(...)`"
        yield Finding(where, message, hint)

    def _tool(self, use: Use, path: Path) -> Iterator[Finding]:
        if len(path) < 2:
            return
        name, where = path[1], use.code.where
        if name not in self.called:
            near = nearest(name, self.called)
            known = ", ".join(sorted(self.called)) or "none"
            message = f"`tools` has no {name!r}: no state calls it{near}"
            yield Finding(where, message, f"tools that are called: {known}")
            return
        tool = self.domain.tools.get(name)
        if tool is None or len(path) < 3 or path[2] == ITEM:
            return
        results: list[object] = [outcome.result for outcome in tool.outcomes]
        if tool.table is not None:
            results = [*tool.table.rows, tool.table.otherwise]
        fields = sorted({key for one in results if isinstance(one, Mapping) for key in one})
        if results and path[2] not in fields:
            message = f"no result of the tool {name!r} has {path[2]!r}{nearest(path[2], fields)}"
            yield Finding(where, message, f"its results have {', '.join(fields) or 'no fields'}")
