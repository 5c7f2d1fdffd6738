# ruff: noqa: E501
import json
import pickle
import random
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specs.errors import ExpressionError, Where
from specs.expressions import EvaluationError, Expression, Template

WHERE = Where("domain.yaml", 7, 9)
SCOPE: dict[str, Any] = {
    "doc": {
        "id": "2",
        "title": "soup",
        "steps": ["chop", "boil", "serve"],
        "rating": 4.75,
        "tip": None,
        "get": "a key",
    },
    "memory": {"page": 0, "items": 3, "cart": []},
    "results": [{"id": "1", "title": "Stew"}, {"id": "2", "title": "Soup"}],
    "documents": {
        "1": {"id": "1", "title": "Stew", "minutes": 60},
        "2": {"id": "2", "title": "Soup", "minutes": 25},
    },
}


def value(source: str, draws: random.Random | None = None) -> Any:
    return Expression(source, WHERE).evaluate(SCOPE, draws)


def text(source: str) -> str:
    return Template(source, WHERE).render(SCOPE)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("memory.items", 3),
        ("doc.get", "a key"),
        ("memory.page + 1", 1),
        ("memory.page < doc.steps | length", True),
        ("not memory.cart and results", SCOPE["results"]),
        ("position(results, doc.id)", 2),
        ("position(results, 'none of them')", 0),
        ("position(doc.steps, 'boil')", 2),
        ("position(results, null)", 0),
        ("nth(doc.steps, 1)", "chop"),
        ("document('1').title", "Stew"),
        ("document(doc.id).minutes + 1", 26),
        ("document('3').title | default('gone')", "gone"),
        ("documents(['2', '1', '2']) | map(attribute='title') | join(' ')", "Soup Stew Soup"),
        ("documents(results | map(attribute='id') | list) | sum(attribute='minutes')", 85),
        ("documents() | selectattr('minutes', 'lt', 30) | map(attribute='id') | list", ["2"]),
        ("documents(memory.cart)", []),
        ("doc.steps | reject('in', ['boil', 'fry'])", ["chop", "serve"]),
        ("doc.steps | select('eq', 'boil')", ["boil"]),
        ("[0, 1, 2] | select", [1, 2]),
        ("[3, 4, 5] | reject('odd') | first", 4),
        ("doc.steps[1:3]", ["boil", "serve"]),
        ("doc.steps[-1] ~ '!'", "serve!"),
        ("results | map(attribute='title') | join(' and ')", "Stew and Soup"),
        ("results | selectattr('id', 'equalto', '2') | map(attribute='title') | first", "Soup"),
        ("results | rejectattr('id', 'equalto', '2') | length", 1),
        ("'a, b ,,c' | split(',')", ["a", "b", "c"]),
        ("'boil it' | sentence", "Boil it."),
        ("'Boil it!' | sentence", "Boil it!"),
        ("'Boil' | lower_first", "boil"),
        ('"don\'t go" | title', "Don't Go"),
        ("doc.rating | round(1)", 4.8),
        ("doc.rating | round", 5),
        ("[3, 1, 2] | sort", [1, 2, 3]),
        ("['b', 'A', 'b'] | unique | sort", ["A", "b"]),
        ("[1, 2] + [3]", [1, 2, 3]),
        ("doc.tip is none", True),
        ("doc.salt is defined", False),
        ("doc.salt.kind | default('plain')", "plain"),
        ("doc.tip | default('none', true)", "none"),
        ("'7' | int + 1", 8),
        ("'x' | int(0)", 0),
        ("{'a': [1, (2, 3)]}", {"a": [1, [2, 3]]}),
        ("7 // 2 + 7 % 2", 4),
        ("'s' in doc.title and 'x' not in doc.title", True),
        ("1 if memory.page else 2", 2),
        ("3 is odd and 4 is even and 6 is divisibleby 3", True),
        ("null", None),
    ],
)
def test_values(source: str, expected: Any) -> None:
    assert value(source) == expected
    json.dumps(value(source))


@pytest.mark.parametrize(
    "source",
    [
        "doc.salt",
        "nothing",
        "doc.steps[7]",
        "doc.title[0]",
        "doc.title[0] | default('s')",
        "memory.cart | first",
        "doc.title.upper",
        "doc.title.__class__",
        "doc.steps.append",
        "loop.index",
        "self",
        "lipsum",
        "cycler",
        "pick([])",
        "nth(doc.steps, 0)",
        "document('3')",
        "document(null)",
        "documents('1')",
        "documents(['1', '3'])",
        "documents(null)",
        "doc.steps | reject('no such test')",
        "doc.steps | select('gt', 3)",
        "1 / 0",
        "'a' * 3",
        "doc.steps * 2",
        "'%s' % 3",
        "'a' < 1",
        "doc.title + 1",
        "'x' | int",
        "doc.title | map(attribute='x')",
        "'a' ~ doc.steps",
        "'a' ~ doc.tip",
        "10 * 10 * " + " * ".join(["100000"] * 5),
    ],
)
def test_fails_when_evaluated(source: str) -> None:
    expression = Expression(source, WHERE)
    with pytest.raises(ExpressionError, match=r"domain\.yaml:7:9"):
        expression.evaluate(SCOPE, random.Random(1))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "empty"),
        ("a b", "at character 3"),
        ("memory.page +", "the end"),
        ("(1", "at character 2"),
        ("'abc", "character"),
        ("2 ** 3", r"`\*\*` is not part"),
        ("doc.title.upper()", "cannot be called"),
        ("range(3)", "`range` cannot be called"),
        ("doc | attr('x')", "no filter 'attr'"),
        ("doc.title | uper", "did you mean 'upper'"),
        ("doc is sameas(doc)", "no test"),
        ("1 if doc", "needs an `else`"),
        ("position(results)", "wrong arguments"),
        ("doc.steps | join(1, 2, 3)", "wrong arguments"),
        ("doc.steps | map('upper')", "wrong arguments"),
        ("position(*results)", "not allowed"),
        ("doc.steps[::2]", "no step"),
        ("pick", "needs its arguments"),
        ("documents", "needs its arguments"),
        ("document()", "wrong arguments"),
        ("_x", "cannot be used"),
        ("9" * 400, "out of bounds"),
        ("(" * 900 + ")" * 900, "deep"),
        ("[" * 600, "deep"),
        ("not " * 300 + "1", "deep"),
        ("1" * 3_000, "too many"),
    ],
)
def test_refused_when_read(source: str, reason: str) -> None:
    with pytest.raises(ExpressionError, match=reason) as caught:
        Expression(source, WHERE)
    assert str(caught.value).startswith("domain.yaml:7:9: ")


@pytest.mark.parametrize(
    "source",
    [
        "{% set x = 1 %}",
        "{% macro m() %}{% endmacro %}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
        "{% block b %}{% endblock %}",
        "{% filter upper %}x{% endfilter %}",
        "{% call f() %}{% endcall %}",
        "{% for a in doc.steps recursive %}{% endfor %}",
        "{% if doc %}",
        "{{ doc.title",
        "x" * 20_001,
    ],
)
def test_statements_that_do_not_exist(source: str) -> None:
    with pytest.raises(ExpressionError):
        Template(source, WHERE)


def test_an_error_in_a_template_names_line_and_character() -> None:
    with pytest.raises(ExpressionError, match="in line 3, at character 14"):
        Template("one\ntwo\n{{ doc.title uper }}", WHERE)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("  Ask for {{ doc.title }}. \n", "Ask for soup."),
        ("a {% if doc.tip %}tip {% endif %} b", "a b"),
        ("a\n\n{% for s in doc.steps %}\n- {{ s }}\n{% endfor %}\nb", "a\n\n- chop\n- boil\n- serve\nb"),
        ("{% for s in doc.steps if s != 'boil' %}{{ loop.index }}/{{ loop.length }} {% endfor %}", "1/2 2/2"),
        ("{% for s in memory.cart %}x{% else %}empty{% endfor %}", "empty"),
        ("{% if memory.page %}a{% elif doc.tip %}b{% else %}c{% endif %}", "c"),
        ("{{ doc.rating }} {{ 3 }} {{ memory.page == 0 }}", "4.75 3 true"),
        ("{% raw %}{{ x }}{% endraw %}{# gone #}", "{{ x }}"),
        ("{% for a, b in [[1, 2], [3, 4]] %}{{ a + b }},{% endfor %}", "3,7,"),
    ],
)  # fmt: skip
def test_templates(source: str, expected: str) -> None:
    assert text(source) == expected


def test_null_and_lists_are_no_text() -> None:
    for source in ("{{ doc.tip }}", "{{ doc.steps }}", "{{ doc }}"):
        with pytest.raises(EvaluationError):
            text(source)


def test_draws_decide_what_is_picked() -> None:
    picked = {value("pick(doc.steps)", random.Random(seed)) for seed in range(20)}
    assert picked == {"chop", "boil", "serve"}
    assert value("pick(doc.steps)", random.Random(3)) == value("pick(doc.steps)", random.Random(3))
    with pytest.raises(ExpressionError, match="nothing is drawn"):
        value("pick(doc.steps)")


def test_paths() -> None:
    template = Template(
        "{% for r in results %}{{ r.title }}{{ loop.index }}{% endfor %}{{ doc['title'] }}"
        "{{ doc.x | default('') }}{% if doc.tip %}{{ doc.tip }}{% endif %}{{ results[0].id }}",
        WHERE,
    )
    assert template.paths == {("results",), ("doc", "title"), ("doc", "x"), ("doc", "tip")}
    assert template.usage.item_paths >= {("results", "*", "title"), ("results", "*", "id")}
    assert template.usage.optional == {("doc", "x")}
    assert ("doc", "tip") not in template.usage.written
    assert ("doc", "title") in template.usage.written
    assert Expression("position(results, doc.id)", WHERE).paths == {("results",), ("doc", "id")}
    cart = Template(
        "{% for p in documents(memory.cart) %}{{ p.title }}{% endfor %}{{ document(doc.id).price }}"
        "{{ documents(memory.cart) | sum(attribute='weight') }}",
        WHERE,
    )
    assert cart.paths == {("documents",), ("memory", "cart"), ("doc", "id")}
    assert cart.usage.item_paths == {
        ("documents", "*", name) for name in ("title", "price", "weight")
    }
    assert ("memory", "cart") in cart.usage.listed


def test_pickled_and_compiled_anew() -> None:
    pair = Expression("memory.page + 1", WHERE), Template("{{ doc.title }}", WHERE)
    expression, template = pickle.loads(pickle.dumps(pair))
    assert expression.evaluate(SCOPE) == 1
    assert template.render(SCOPE) == "soup"
    assert (expression, expression.where) == (pair[0], WHERE)
    with pytest.raises(EvaluationError) as caught:
        Expression("doc.salt", WHERE).evaluate(SCOPE)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert again.undefined


def test_threads_share_a_template() -> None:
    template = Template("{% for s in steps %}{{ n }}{{ s }};{% endfor %}", WHERE)

    def render(n: int) -> bool:
        steps = [str(i) for i in range(n % 7)]
        return template.render({"n": n, "steps": steps}) == "".join(f"{n}{s};" for s in steps)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(render, range(400)))


def _doubled(inside: str) -> str:
    """Return a template with two equal lists, `z` and `y`, of two lists of two lists ... 30 deep."""
    loops = []
    for end in "zy":
        names = ["1", *(f"{end}{number}" for number in range(29)), end]
        loops += [f"{{% for {one} in [[{last}, {last}]] %}}" for last, one in pairwise(names)]
    return "".join(loops) + inside + "{% endfor %}" * len(loops)


BIG = {"big": ["x" * 50_000 + str(i) for i in range(300)], "many": list(range(50_000))}


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in many %}{% for b in many %}{% for c in many %}x{% endfor %}{% endfor %}{% endfor %}",
        "{% for a in many %}{{ a in many }}{% endfor %}",
        "{% for a in many %}{% if many == many %}{% endif %}{% endfor %}",
        "{% for a in many[:9000] %}{{ big | join }}{% endfor %}",
        "{% for a in many[:9000] %}{{ (big | sort | first)[:1] }}{% endfor %}",
        "{% for a in many[:9000] %}{{ (big | unique | first)[:1] }}{% endfor %}",
        "{{ 'a'" + " | replace('a', 'aaaaaaaaaa')" * 30 + " }}",
        "{{ big | join | replace('x', 'xx') }}",
        "{{ (" + " + ".join(["many"] * 70) + ") | length }}",
        "{{ [" + ", ".join(["big"] * 500) + "] | length }}",
        "{{ [" + ", ".join(["big[0]"] * 2000) + "] | sort | length }}",
        "{{ " + " ~ ".join(["big[0]"] * 500) + " }}",
        "{{ big[0] | list | unique | length }}",
        "{{ big[0] | split('x') | length }}",
        "{% for a in many %}" * 20 + "{% endfor %}" * 20,
        _doubled("{{ [z] | unique | length }}"),
        _doubled("{{ position([z], y) }}"),
        _doubled("{{ z == y }}"),
    ],
)  # fmt: skip
def test_work_and_memory_are_bounded(source: str) -> None:
    template = Template(source, WHERE)
    tracemalloc.start()
    started = time.process_time()
    try:
        template.render(BIG)
    except ExpressionError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # tracemalloc slows it down several times, hence a wide bound: unbounded work takes hours.
    assert time.process_time() - started < 20
    assert peak < 100_000_000


_ATOMS = st.sampled_from(
    ["1", "0", "-3", "2.5", "'a'", "'{{'", "doc", "doc.title", "doc.steps", "memory.page", "results",
     "null", "true", "many", "big", "loop", "x", "''", "[]", "{}", "doc.steps[0]", "results[0].title",
     "9999999999", "pick(many)", "position(big, 1)", "nth(many, 3)"]
)  # fmt: skip
_OPERATORS = st.sampled_from(
    ["+", "-", "*", "/", "//", "%", "**", "~", "==", "<", "in", "not in", "and", "or", "is", "|", ","]
)  # fmt: skip
_FILTERS = st.sampled_from(
    ["length", "join", "join(big)", "map(attribute='x')", "first", "last", "lower", "round(3)", "sum",
     "sort", "unique", "replace('a', big[0])", "replace('x', 'xxxxxxxx')", "list", "string", "split('x')",
     "sentence", "default(1)", "int", "float", "selectattr('a', 'in', many)", "abs", "title", "min", "attr('x')"]
)  # fmt: skip
_NESTED = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, _OPERATORS, inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        st.tuples(inner, _FILTERS).map(lambda p: f"({p[0]} | {p[1]})"),
        st.tuples(inner, inner).map(lambda p: f"{p[0]}[{p[1]}]"),
        st.tuples(inner, inner, inner).map(lambda p: f"({p[0]} if {p[1]} else {p[2]})"),
        inner.map(lambda p: f"not {p}"),
        inner.map(lambda p: f"{{% for x in {p} %}}{{{{ {p} }}}}{{% endfor %}}"),
    ),
    max_leaves=12,
)
_HOSTILE = st.one_of(
    _NESTED,
    st.text(alphabet="{}%#()[]'\"|.,:+-*/~= \nabdoc01_ifor", max_size=60),
    st.text(max_size=40),
)


def _survives(run: Callable[[], Any]) -> None:
    started = time.process_time()
    message = "domain.yaml:7:9"
    try:
        run()
    except ExpressionError as error:
        message = str(error)
    assert "domain.yaml:7:9" in message
    assert time.process_time() - started < 2


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(_HOSTILE)
def test_no_expression_crashes_or_hangs(source: str) -> None:
    scope = {**SCOPE, **BIG}
    _survives(lambda: json.dumps(Expression(source, WHERE).evaluate(scope, random.Random(1))))
    _survives(lambda: Template(source, WHERE).render(scope, random.Random(1)))
    _survives(lambda: Template("{{ " + source + " }}", WHERE).render(scope, random.Random(1)))
    _survives(lambda: Template(source, WHERE).usage)
