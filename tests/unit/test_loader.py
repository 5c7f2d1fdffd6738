# ruff: noqa: E501
import json
import pickle
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specs.errors import Finding, InputError
from specs.loader import load_domain, open_domain
from specs.yaml_source import Mapping, Scalar, plain, read_yaml
from tests.unit.small_domain import BOOKS, TEXT, changed, findings, line_of, write


def test_a_whole_domain(tmp_path: Path) -> None:
    domain, found = load_domain(write(tmp_path))
    assert found == []
    assert domain is not None
    assert (domain.name, domain.open, domain.start, domain.end) == (
        "library",
        "agent",
        "hello",
        frozenset({"bye"}),
    )
    assert domain.max_turns == 30
    assert [document.id for document in domain.documents] == ["1", "2", "3"]
    assert domain.documents[0].embed == "Emma by Jane Austen"
    assert domain.documents[1].line == 2
    assert [persona.traits for persona in domain.personas] == [("curious",), ()]
    assert domain.memory["page"].type == "integer"
    assert domain.memory["mood"].draw == (("calm", 0.5), ("hurried", 0.5))
    assert domain.memory["cart"].init == []
    assert domain.goals[1].with_ == {"tries": 1}
    assert domain.agent.system.where.file.endswith("prompts/agent.jinja")
    assert domain.states["show"].speech.slots["shown"].of == "id"
    assert domain.states["look_up"].call is not None
    assert domain.states["small_talk"].digression
    assert domain.tools["lend"].outcomes[1].result == {"ok": False}


def test_edges(tmp_path: Path) -> None:
    domain = open_domain(write(tmp_path))
    assert [edge.number for edge in domain.edges] == list(range(len(domain.edges)))
    assert [edge.from_ for edge in domain.edges if edge.intent == "chat"] == [
        "hello",
        "show",
        "nothing",
    ]
    choose = next(edge for edge in domain.edges if edge.intent == "choose")
    assert [case.to for case in choose.to] == ["lent", "nothing"]
    assert choose.speech == domain.intents["choose"].speech
    own = domain.edges[-1]
    assert own.intent is None
    assert own.speech.say is not None
    assert own.speech.say.source == "Give up."
    assert domain.edges_from("show") == tuple(edge for edge in domain.edges if edge.from_ == "show")


def test_an_edge_overrides_its_intent_key_by_key(tmp_path: Path) -> None:
    text = changed(
        "intent: thank, to: bye", "intent: thank, to: bye, say: 'Thank, though empty-handed.'"
    )
    domain = open_domain(write(tmp_path, text))
    edge = next(edge for edge in domain.edges if edge.intent == "thank")
    assert edge.speech.say is not None
    assert edge.speech.say.source == "Thank, though empty-handed."
    assert edge.speech.references == domain.intents["thank"].speech.references


def test_shipped_domains_load() -> None:
    domain, found = load_domain("recipe")
    assert [str(finding) for finding in found if finding.severity == "error"] == []
    assert domain is not None
    assert domain.documents


def test_pickled_domains_are_equal(tmp_path: Path) -> None:
    domain = open_domain(write(tmp_path))
    again = pickle.loads(pickle.dumps(domain))
    assert again == domain
    assert (
        again.states["hello"].speech.references[0].say.render({})
        == "Hello, what would you like to read?"
    )


def test_the_digest_covers_every_file(tmp_path: Path) -> None:
    first = open_domain(write(tmp_path)).digest
    assert open_domain(write(tmp_path)).digest == first
    assert open_domain(write(tmp_path / "elsewhere")).digest == first
    for name in ("domain.yaml", "prompts/agent.jinja", "corpus.jsonl", "personas.jsonl"):
        write(tmp_path)
        path = tmp_path / name
        path.write_text(path.read_text() + "\n")
        assert open_domain(tmp_path).digest != first, name


def test_corpus_and_personas_can_be_replaced(tmp_path: Path) -> None:
    folder = write(tmp_path / "domain")
    books, people = tmp_path / "books.jsonl", tmp_path / "people.jsonl"
    books.write_text(json.dumps({"id": "x", "title": "Persuasion", "author": "Jane Austen"}))
    people.write_text(json.dumps({"id": "cy", "name": "Cy", "text": "Cy reads aloud."}))
    domain = open_domain(folder, corpus=books, personas=people)
    assert [document.id for document in domain.documents] == ["x"]
    assert [persona.name for persona in domain.personas] == ["Cy"]
    assert domain.corpus_path == books
    assert domain.digest != open_domain(folder).digest
    missing = load_domain(folder, corpus=tmp_path / "no.jsonl")[1]
    assert any("no such file" in finding.message for finding in missing)


def test_a_corpus_may_be_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = write(tmp_path)
    pq.write_table(pa.Table.from_pylist(BOOKS), tmp_path / "books.parquet")
    domain = open_domain(folder, corpus=tmp_path / "books.parquet")
    assert [document.id for document in domain.documents] == ["1", "2", "3"]
    pq.write_table(
        pa.Table.from_pylist([{**BOOKS[0], "title": float("nan")}]), tmp_path / "books.parquet"
    )
    (finding, *_) = load_domain(folder, corpus=tmp_path / "books.parquet")[1]
    assert "has null as `doc.title`" in finding.message
    (tmp_path / "books.parquet").write_bytes(b"no")
    assert "Parquet" in load_domain(folder, corpus=tmp_path / "books.parquet")[1][0].message


def test_what_is_no_domain(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no", "recipy", "", "a\0b", "../recipe"):
        domain, found = load_domain(path)
        assert domain is None
        assert found
    assert "did you mean 'recipe'?" in load_domain("recipy")[1][0].message
    with pytest.raises(InputError) as caught:
        open_domain("recipy")
    assert caught.value.findings[0].severity == "error"
    (tmp_path / "domain.yaml").write_bytes(b"")
    assert load_domain(tmp_path)[1]
    (tmp_path / "domain.yaml").write_bytes(b"domain: caf\xe9")
    assert "UTF-8" in load_domain(tmp_path)[1][0].message


def _only(found: list[Finding], part: str) -> Finding:
    matching = [finding for finding in found if part in f"{finding.message} {finding.hint}"]
    assert matching, "\n".join(map(str, found))
    return matching[0]


@pytest.mark.parametrize(
    "name", ["../secret.txt", "/etc/hostname", "link.jinja", "prompts/../../secret.txt"]
)
def test_files_outside_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    folder = write(tmp_path / "domain")
    (folder / "link.jinja").symlink_to(tmp_path / "secret.txt")
    for old, new in (
        ("file: prompts/agent.jinja", f"file: {name}"),
        ("path: corpus.jsonl", f"path: {name}"),
    ):
        found = findings(folder, changed(old, new))
        where = _only(found, "outside the domain's folder").where
        assert where.line == line_of(TEXT, old)


def test_personas_by_default_may_not_leave_the_folder_either(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("{}")
    folder = write(tmp_path / "domain")
    (folder / "personas.jsonl").unlink()
    (folder / "personas.jsonl").symlink_to(tmp_path / "p.jsonl")
    _only(load_domain(folder)[1], "outside the domain's folder")


def test_documents_are_checked_by_line(tmp_path: Path) -> None:
    folder = write(tmp_path)
    lines = [json.dumps(book) for book in BOOKS]
    lines += [
        "{no json",
        "[1]",
        '{"title": "x", "author": "y"}',
        '{"id": 1, "title": "x", "author": "y"}',
    ]
    lines += [
        '{"id": 7, "author": "y"}',
        '{"id": 8, "title": null, "author": "y"}',
        '{"id": 9, "title": "", "author": "y"}',
    ]
    lines += ['{"id": 10, "title": NaN}']
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    domain, found = load_domain(folder)
    assert domain is None
    at = {
        finding.where.line: finding
        for finding in found
        if finding.where.file.endswith("corpus.jsonl")
    }
    assert "is not JSON" in at[4].message
    assert "no JSON object" in at[5].message
    assert "no id" in at[6].message
    assert "already that of line 1" in at[7].message
    assert "has no `doc.title`" in at[8].message
    assert "has null as `doc.title`" in at[9].message
    assert (at[10].severity, "empty" in at[10].message) == ("warning", True)
    assert "NaN" in at[11].message


def test_a_field_that_no_document_has_is_found_where_it_is_used(tmp_path: Path) -> None:
    found = findings(
        tmp_path, changed('say: "Ask for {{ doc.title }}."', 'say: "Ask for {{ doc.name }}."')
    )
    finding = _only(found, "no document has `doc.name`")
    assert finding.where.line == line_of(TEXT, 'say: "Ask for')
    assert "author" in finding.hint


def test_tables(tmp_path: Path) -> None:
    text = changed("outcomes: [{p: 0.9, result: {ok: true}}, {p: 0.1, result: {ok: false}}]",
                   "table: {path: lend.jsonl, match: [book], otherwise: {ok: false}}")  # fmt: skip
    folder = write(tmp_path, text)
    (folder / "lend.jsonl").write_text('{"book": "1", "ok": true}\n')
    table = open_domain(folder).tools["lend"].table
    assert table is not None
    assert table.rows == ({"book": "1", "ok": True},)
    (folder / "lend.jsonl").write_text('{"books": "1", "ok": true}\nx\n')
    found = load_domain(folder)[1]
    _only(found, "no row of the table")
    assert _only(found, "is not JSON").where.line == 2
    half, number = '{"book": "1", "ok": "\\ud83d"}', '{"book": "1", "ok": NaN}'
    (folder / "lend.jsonl").write_text(f"{half}\n{number}\n")
    found = load_domain(folder)[1]
    assert _only(found, "holds half a character").where.line == 1
    assert _only(found, "NaN is no JSON").where.line == 2


# -- YAML


def test_scalars_are_those_of_yaml_1_2() -> None:
    source = b"a: [yes, on, true, False, 012, 0o17, 0x1f, 2024-01-01, 12, -3, 1.5, 1e3, .5, ~, null, '', '3', 1_000, 12:30:00, .inf, NO]"
    root, found = read_yaml(source, "x")
    assert found == []
    assert root is not None
    assert plain(root)["a"] == [
        "yes", "on", True, False, "012", "0o17", "0x1f", "2024-01-01", 12, -3, 1.5, 1000.0, 0.5, None, None,
        "", "3", "1_000", "12:30:00", ".inf", "NO",
    ]  # fmt: skip


def test_places_are_exact() -> None:
    root, _ = read_yaml(b"a:\n  - b\n  - {c: d}\n", "x")
    assert isinstance(root, Mapping)
    item = plain(root)
    assert item == {"a": ["b", {"c": "d"}]}
    key = root.keys["a"]
    assert isinstance(key, Scalar)
    assert (key.where.line, key.where.column) == (1, 1)


@pytest.mark.parametrize(
    ("source", "part", "line"),
    [
        ("a: 1\nb: 2\na: 3", "twice", 3),
        ("a: &x 1\nb: *x", "anchors", 1),
        ("a: 1\nb: *x", "", 2),
        ("a: !!python/object:os.system x", "tags", 1),
        ("a: !env HOME", "tags", 1),
        ("a: [1, 2\nb: 3", "not YAML", 2),
        ("a:\n\t- b", "not YAML", 2),
        ("a: b: c", "not YAML", 1),
        ("a: {{ doc.title }}", "cannot be a key", 1),
        ("a: " + "[" * 50 + "]" * 50, "deep", 1),
        ("a: 1\n---\nb: 2", "second document", 2),
        ("a: 'x", "not YAML", 1),
    ],
)
def test_yaml_that_is_refused(source: str, part: str, line: int) -> None:
    _, found = read_yaml(source.encode(), "x.yaml")
    assert any(part in finding.message and finding.where.line == line for finding in found), found


def test_yaml_of_any_size_is_read_in_bounds() -> None:
    for source in (
        b"x" * 3_000_000,
        b"[" * 1_900_000,
        b"{" * 1_900_000,
        b"- " * 900_000,
        b"? " * 900_000,
        b"a: " * 600_000,
        b"&a " * 600_000,
        b"- a\n" * 450_000,
        b"[a, " * 400_000,
        b'"' + b"\\n" * 900_000,
    ):
        started = time.process_time()
        _, found = read_yaml(source, "x")
        assert found
        assert time.process_time() - started < 10


# -- nothing crashes


_LINES = TEXT.splitlines()


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    """Draw the domain with lines, characters or bytes cut, doubled or replaced."""
    text = TEXT
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        length = draw(st.integers(0, 40))
        piece = draw(
            st.one_of(
                st.just(""),
                st.sampled_from(_LINES),
                st.text(alphabet="{}[]():,-'\"|>&*!%@#\n \t~abc01.", max_size=12),
                st.text(max_size=6),
                st.sampled_from(["{{ doc", "{% for x in", "null", "-1", "[[[[", "hello", "{to: show}", "1e400", "[]", "{}"]),
            )
        )  # fmt: skip
        text = text[:start] + piece + text[start + length :]
    data = text.encode("utf-8", "surrogatepass")
    return data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(_mutated())
def test_a_damaged_domain_gives_findings_and_never_an_exception(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    write(folder)
    (folder / "domain.yaml").write_bytes(data)
    started = time.process_time()
    domain, found = load_domain(folder)
    assert time.process_time() - started < 2
    assert (domain is None) == any(finding.severity == "error" for finding in found)
    assert all(finding.message and finding.where.file for finding in found)


_JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
_SECTIONS = [line.split(":")[0] for line in _LINES if line[:1].isalpha()]


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(_SECTIONS), _JSON)
def test_any_value_under_any_key_is_survived(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: object
) -> None:
    folder = tmp_path_factory.getbasetemp() / "odd"
    kept: list[str] = []
    inside = False
    for line in _LINES:
        if line[:1].isalpha():
            inside = line.startswith(f"{key}:")
        if not inside:
            kept.append(line)
    text = "\n".join([*kept, f"{key}: {json.dumps(value)}", ""])
    domain, found = load_domain(write(folder, text))
    assert (domain is None) == any(finding.severity == "error" for finding in found)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_corpus_and_personas_are_survived(
    tmp_path_factory: pytest.TempPathFactory, books: bytes, people: bytes
) -> None:
    folder = write(tmp_path_factory.getbasetemp() / "bytes")
    (folder / "corpus.jsonl").write_bytes(books)
    (folder / "personas.jsonl").write_bytes(people)
    load_domain(folder)


def test_large_corpora_load_in_bounds(tmp_path: Path) -> None:
    folder = write(tmp_path)
    with (folder / "corpus.jsonl").open("w") as stream:
        for number in range(20_000):
            stream.write(
                json.dumps({"id": number, "title": f"Book {number}", "author": "A"}) + "\n"
            )
    tracemalloc.start()
    domain = open_domain(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(domain.documents) == 20_000
    assert peak < 200_000_000
