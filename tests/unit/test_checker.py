# ruff: noqa: E501
from pathlib import Path

import pytest

from specs.errors import Finding
from specs.loader import load_domain
from tests.unit.small_domain import TEXT, changed, findings, line_of, write


def _found(tmp_path: Path, text: str, part: str) -> Finding:
    found = findings(tmp_path, text)
    matching = [finding for finding in found if part in f"{finding.message} {finding.hint}"]
    assert matching, f"no finding says {part!r} among:\n" + "\n".join(map(str, found))
    return matching[0]


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        # the ten mistakes that people make most
        ("intent: more,", "intent: mroe,", "there is no intent 'mroe'; did you mean 'more'?"),
        ("to: look_up, when: memory.tries", "to: lookup, when: memory.tries", "did you mean 'look_up'?"),
        ("weight: 0.1", "wieght: 0.1", "no key 'wieght'; did you mean 'weight'?"),
        ("set: {page: memory.page + 1}", "set: {pages: memory.page + 1}", "no variable of memory; did you mean 'page'?"),
        ("when: memory.page < 2", "when: memory.pag < 2", "`memory` has no 'pag'; did you mean 'page'?"),
        ("max_words(30)", "max_word(30)", "did you mean 'max_words'?"),
        ("call: {tool: lend,", "call: {tool: lent,", "there is no tool 'lent'; did you mean 'lend'?"),
        ("weight: 0.5", "weight: -0.5", "below zero"),
        ('"Pick number {{ slots.option }}."', '"Pick number {{ slots.option }."', "unexpected '}'"),
        ("slots: {query: {type: text, reference: doc.title}}\n", "slots: {query: {type: text}, when: text}\n", "never filled"),
        # names
        ("Do you have {{ doc.title }}?", "Do you have {{ dok.title }}?", "there is no name 'dok'; did you mean 'doc'?"),
        ("slots.option > 0", "slots.options > 0", "`slots` has no 'options'; did you mean 'option'?"),
        ("persona.name }}. {{", "persona.nmae }}. {{", "did you mean 'name'?"),
        ("when: memory.page < 2", "when: slots.option", "`slots` are not there yet"),
        ('say: "Ask for {{ doc.title }}."', 'say: "Ask for {{ slots.query }}."', "only slots with a `value`"),
        ("slots.query | default('')", "slots.query", "when the edge in line"),
        ("result.ok else", "tools.search.ok else tools.x.y if true else", "no state calls it"),
        ("'Enjoy it' if result.ok", "'Enjoy it' if tools.lend.okay", "no result of the tool 'lend' has 'okay'"),
        ("[grounded(results)", "[grounded(reply.shwn)", "did you mean 'shown'?"),
        ("Borrow {{ doc.title }}.", "Borrow {{ results }}.", "`results` is not there yet"),
        ("when: memory.page < 2", "when: page < 2", "did you mean `memory.page`?"),
        ("with: {tries: 1}", "with: {trys: 1}", "did you mean 'tries'?"),
        # values
        ("set: {tries: memory.tries + 1}", 'set: {tries: "\'many\'"}', "memory.tries is of type integer"),
        ("draw: {calm: 0.5,", "draw: {calm: 0.6,", "sum to 1.1, not to 1"),
        ("{p: 0.9,", "{p: 0.8,", "sum to 0.9, not to 1"),
        ("tries: {type: integer, init: 0}", "tries: {type: integer, init: none}", "is of type integer, and 'none' is none"),
        ("tries: {type: integer,", "tries: {type: int,", "did you mean 'integer'?"),
        ("slots: {query: Emma}", "slots: {qury: Emma}", "did you mean 'query'?"),
        ("max_turns: 30", "max_turns: 1", "at least 2"),
        # the graph
        ("start: hello", "start: hallo", "did you mean 'hello'?"),
        ("end: [bye]", "end: [by]", "there is no state 'by'"),
        ("subgoals: [show, bye]", "subgoals: [shown, bye]", "did you mean 'show'?"),
        ("open: [hello, show, nothing]", "open: [hello, shwo, nothing]", "did you mean 'show'?"),
        ("from: [hello, nothing], intent: ask_book", "from: [hello, nothin], intent: ask_book", "no state and no group 'nothin'"),
        ("  nothing:\n    say", "  lonely:\n    say: x\n    reference: x\n  nothing:\n    say", "the state 'lonely' cannot be reached"),
        ("{to: nothing}]\n  show:", "{to: pit}]\n  pit: {say: x, reference: x}\n  show:", "dead end"),
        ("next: {to: bye}", "next: {to: lent}", "no end can be reached from the state 'lent'"),
        ("{to: nothing}]\n  show:", "{to: nothing, when: true}]\n  show:", "may not hold"),
        ("    next: {to: bye}\n", "", "neither speaks nor moves on"),
        ("from: nothing, intent: thank, to: bye", "from: bye, intent: thank, to: bye", "leaves the end state"),
        ("from: nothing, intent: thank, to: bye", "from: small_talk, intent: thank, to: bye", "leaves the digression"),
        ("from: nothing, intent: thank, to: bye", "from: look_up, intent: thank, to: bye", "leaves the silent state"),
        ("next: [{when: results, to: show}, {to: nothing}]", "next: [{to: nothing}, {when: results, to: show}]", "never reached"),
        ("    say: \"Say goodbye.\"\n    reference: \"{{ 'Enjoy it' if result.ok else 'Come again' }}, goodbye.\"\n", "    next: {to: hello}\n", "no end can be reached from the state 'hello'"),
        ("cart: {type: list, of: id}", "cart: {type: list, of: integer, init: [a]}", "are of type integer, and 'a' is none"),
        ("max_words(30)", "max_words 30", "is no name with arguments"),
        # tools
        ("plant: {id: doc.id, page: 0}", "pages: 0", "no argument 'pages'; did you mean 'page'?"),
        ("call: {tool: lend, book: doc.id}", "call: {tool: lend}", "needs 'book'"),
        ("outcomes: [{p: 0.9, result: {ok: true}}, {p: 0.1, result: {ok: false}}]", "description: x", "duologue.tools"),
        # what is said
        ("max_words(30)", "'max_words(30, 40)'", "the check takes 1 argument, not 2"),
        ("max_words(30)", "max_words('thirty')", "of the type number, and `'thirty'` is always text"),
        ("max_words(30)", "max_words(null)", "of the type number, and `null` is always null"),
        ("max_words(30)", "similar('x')", "of the type number"),
        ("max_words(30)", "\"picks(results, 'x')\"", "of the type integer"),
        ("max_words(30)", "\"picks('x', 1)\"", "of the type list"),
        ("{type: text, reference: doc.title}", "{one_of: [a, b], reference: \"'c'\"}", "the slot 'query' cannot be 'c'"),
        ("mentions(slots.query)", "mentions(slots.query", "put a check with several arguments in quotes"),
        ("with: {doc: {title: Emma}}", "with: {doc: {name: Emma}}", "`with` does not suffice to render the instruction"),
        ("{from: nothing, say: \"Give up.\", ", "{from: nothing, ", "an edge needs an `intent`, or its own `say`"),
        ("    say: \"Ask for other books.\"\n", "", "needs `say`"),
    ],
)  # fmt: skip
def test_mistakes(tmp_path: Path, old: str, new: str, part: str) -> None:
    text = changed(old, new)
    finding = _found(tmp_path, text, part)
    assert finding.severity == "error"
    assert finding.where.file.endswith("domain.yaml")
    assert finding.where.line > 0
    assert load_domain(tmp_path)[0] is None


@pytest.mark.parametrize(
    ("old", "new", "part", "at"),
    [
        ("intent: more,", "intent: mroe,", "no intent", "intent: mroe,"),
        ("weight: 0.1", "wieght: 0.1", "no key", "wieght"),
        ("when: memory.page < 2", "when: memory.pag < 2", "has no 'pag'", "when: memory.pag"),
        ("set: {page: memory", "set: {pages: memory", "no variable", "set: {pages"),
        ("max_words(30)", "max_word(30)", "no check", "max_word(30)"),
        ("call: {tool: lend,", "call: {tool: lent,", "no tool", "call: {tool: lent"),
        ("weight: 0.5", "weight: -0.5", "below zero", "weight: -0.5"),
        ("Do you have {{ doc.t", "Do you have {{ dok.t", "no name 'dok'", "Do you have"),
        ("end: [bye]", "end: [by]", "no state 'by'", "end: [by]"),
        ("draw: {calm: 0.5,", "draw: {calm: 0.6,", "sum to", "draw: {calm"),
        ("next: {to: bye}", "next: {to: by}", "no state 'by'", "next: {to: by}"),
        ("{p: 0.9,", "{p: 0.8,", "sum to", "lend: {input"),
    ],
)  # fmt: skip
def test_findings_name_the_line(tmp_path: Path, old: str, new: str, part: str, at: str) -> None:
    text = changed(old, new)
    assert _found(tmp_path, text, part).where.line == line_of(text, at)


def test_findings_name_the_column(tmp_path: Path) -> None:
    text = changed("intent: more,", "intent: mroe,")
    where = _found(tmp_path, text, "no intent").where
    line = text.splitlines()[where.line - 1]
    assert line[where.column - 1 :].startswith("mroe")


def test_all_findings_are_shown_at_once(tmp_path: Path) -> None:
    text = changed("intent: more,", "intent: mroe,").replace("weight: 0.5", "weight: -1")
    text = text.replace("max_words(30)", "max_word(30)").replace("end: [bye]", "end: [by]")
    messages = " ".join(finding.message for finding in findings(tmp_path, text))
    for part in ("mroe", "below zero", "max_word", "'by'"):
        assert part in messages


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("    reference: What else is there?\n", "", "the intent 'more' has no `reference`"),
        ("query: {type: text, reference: doc.title}", "query: text", "has no `reference` value"),
        ("{from: nothing, intent: thank, to: bye}\n", "{from: nothing, intent: more, to: bye}\n", "no edge has the intent 'thank'"),
        ("[{when: slots.option > 0, to: lent}, {to: nothing}]", "[{when: slots.option > 0, to: lent}]", "no case of `to` holds"),
    ],
)  # fmt: skip
def test_warnings_do_not_stop(tmp_path: Path, old: str, new: str, part: str) -> None:
    finding = _found(tmp_path, changed(old, new), part)
    assert finding.severity == "warning"
    assert load_domain(tmp_path)[0] is not None


def test_weights_of_zero_only(tmp_path: Path) -> None:
    text = TEXT.replace("intent: more, to: look_up,", "intent: more, weight: 0, to: look_up,")
    text = text.replace("intent: choose, weight: 0.5", "intent: choose, weight: 0")
    text = text.replace("weight: 0.1", "weight: 0")
    assert _found(tmp_path, text, "all edges from 'show' have the weight 0").severity == "error"


def test_groups_that_make_too_many_edges(tmp_path: Path) -> None:
    states = "".join(f"  s{n}: {{say: x, reference: x}}\n" for n in range(400))
    members = ", ".join(f"s{n}" for n in range(400))
    edges = "  - {from: crowd, intent: thank, to: bye}\n" * 60
    text = TEXT.replace("groups: {", f"groups: {{crowd: [{members}], ")
    text = text.replace("groups:", f"{states}groups:").replace(
        "start: hello", f"{edges}start: hello"
    )
    (found,) = findings(tmp_path, text)
    assert "this makes more than 20,000 edges" in found.message
    first = line_of(text, "  - {from: crowd")
    assert first + 45 < found.where.line < first + 50


def test_a_limit_of_turns_that_is_none(tmp_path: Path) -> None:
    text = changed("max_turns: 30", "max_turns: 20000")
    finding = _found(tmp_path, text, "give at most 1,000")
    assert finding.where.line == line_of(text, "max_turns")


def test_a_domain_without_documents(tmp_path: Path) -> None:
    text = """\
open: user
states:
  door: {}
  greet: {say: "Greet.", reference: "Hello."}
edges:
  - {from: door, say: "Say hello.", reference: "Hi.", to: greet}
start: door
end: [greet]
"""
    domain, found = load_domain(write(tmp_path, text))
    assert found == []
    assert domain is not None
    assert domain.documents == ()
    part = "`doc` is used, but the domain has no corpus"
    _found(tmp_path, text.replace('"Hi."', '"{{ doc.title }}"'), part)
    part = "`documents` is used, but the domain has no corpus"
    _found(tmp_path, text.replace('"Hi."', "\"{{ document('a').title }}\""), part)


def test_fields_of_documents_that_are_looked_up_are_fields_of_documents(tmp_path: Path) -> None:
    said = "\"I have lent {{ documents(memory.cart) | map(attribute='name') | join }}.\""
    text = TEXT.replace("reference: Thank you.", f"reference: {said}")
    assert _found(tmp_path, text, "no document has `doc.name`").severity == "error"
    goal = "Borrow {{ document(doc.id).title }}."
    domain, found = load_domain(write(tmp_path, TEXT.replace("Borrow {{ doc.title }}.", goal)))
    assert [one for one in found if one.severity == "error"] == []
    assert domain is not None


def test_a_silent_start_may_not_be_come_back_to(tmp_path: Path) -> None:
    text = """\
open: user
states:
  door: {}
  greet: {say: "Greet.", reference: "Hello."}
  bye: {say: "Say goodbye.", reference: "Bye."}
edges:
  - {from: door, say: "Say hello.", reference: "Hi.", to: greet}
  - {from: greet, say: "Go back.", reference: "Back.", to: door}
  - {from: greet, say: "Leave.", reference: "Bye then.", to: bye}
start: door
end: [bye]
"""
    (finding,) = findings(tmp_path, text)
    assert "the state 'door' neither speaks nor moves on" in finding.message


def test_an_end_reached_only_through_a_digression_is_reached(tmp_path: Path) -> None:
    text = changed("to: small_talk}", "to: weather}").replace(
        "  small_talk:\n", "  weather: {next: {to: small_talk}}\n  small_talk:\n"
    )
    assert findings(tmp_path, text) == []
