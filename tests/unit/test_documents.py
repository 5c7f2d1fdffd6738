# ruff: noqa: E501
"""Documents, and rows of tables, that do not suit what the domain does with them."""

import json
from pathlib import Path

import pytest

from specs.loader import load_domain
from tests.unit.small_domain import BOOKS, changed, line_of, write


@pytest.mark.parametrize(
    "taken",
    [
        "{{ doc.tags[memory.page] }}",
        "{{ doc.tags[0] | default('') }}",
        "{% for tag in doc.tags %}{{ tag }}{% endfor %}",
        "{{ doc.tags | join(', ') }}",
        "{{ nth(doc.tags, 1) }}",
        "{{ results[0].tags[0] }}",
    ],
)
def test_a_text_whose_items_are_taken_is_found_by_line(tmp_path: Path, taken: str) -> None:
    text = changed("Ask for {{ doc.title }}.", f"Ask for {taken}.")
    text = text.replace(
        "with: {doc: {title: Emma}}",
        "with: {doc: {tags: [x]}, memory: {page: 0}, results: [{tags: [x]}]}",
    )
    books = [dict(book) for book in BOOKS]
    assert load_domain(write(tmp_path, text, books))[1] == []
    books[1]["tags"] = "sea"
    (finding,) = load_domain(write(tmp_path, text, books))[1]
    assert (finding.where.line, finding.severity) == (2, "error")
    assert "has no list as `doc.tags`, which" in finding.message
    assert f"domain.yaml:{line_of(text, 'Ask for {')}:" in finding.message


def test_a_text_that_is_tested_before_its_items_are_taken_may_be_one(tmp_path: Path) -> None:
    loop = "{% if doc.tags is string %}{{ doc.tags }}{% else %}{{ doc.tags[0] }}{% endif %}"
    text = changed("Nice day, is it not?", f'"{loop}"')
    books = [*BOOKS, {"id": 4, "title": "x", "author": "y", "tags": "sea"}]
    assert load_domain(write(tmp_path, text, books))[1] == []


def test_a_goal_that_cannot_be_written_is_found_by_document(tmp_path: Path) -> None:
    text = changed('"Borrow {{ doc.title }}."', '"Borrow {{ doc.tags[1] }} {{ doc.n + 1 }}."')
    books = [dict(book, tags=["a", "b"], n=1) for book in BOOKS]
    assert load_domain(write(tmp_path, text, books))[1] == []
    books[1] |= {"tags": ["sea"]}
    books[2] |= {"n": "x"}
    found = load_domain(write(tmp_path, text, books))[1]
    assert [(finding.where.line, finding.severity) for finding in found] == [
        (2, "error"),
        (3, "error"),
    ]
    goal = f"domain.yaml:{line_of(text, 'Borrow {{')}:"
    assert all(goal in finding.message for finding in found)
    assert "no item 1 among 1" in found[0].message
    del books[1]["title"]  # one mistake is one finding
    found = load_domain(write(tmp_path, text, books))[1]
    assert [finding.where.line for finding in found if "the goal of" in finding.message] == [3]


def test_the_templates_of_tables_are_checked_where_they_stand(tmp_path: Path) -> None:
    text = changed("outcomes: [{p: 0.9, result: {ok: true}}, {p: 0.1, result: {ok: false}}]",
                   "table: {path: lend.jsonl, match: [book], otherwise: {ok: ['{{ inptu.x }}']}}")  # fmt: skip
    folder = write(tmp_path, text)
    rows = [
        {"book": "{{ input.book }}"},
        {"book": "{% braces"},
        {"book": "2", "x": [{"y": "{{ input.bok }}"}]},
    ]
    (folder / "lend.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = load_domain(folder)[1]
    assert [Path(finding.where.file).name for finding in found] == [
        "domain.yaml",
        "lend.jsonl",
        "lend.jsonl",
    ]
    assert [finding.where.line for finding in found[1:]] == [2, 3]
    assert found[0].where.line == line_of(text, "inptu")
    assert "there is no name 'inptu'; did you mean 'input'?" in found[0].message
    assert "no input 'bok'; did you mean 'book'?" in found[2].message


def test_many_bad_documents_are_counted(tmp_path: Path) -> None:
    folder = write(tmp_path)
    good = [json.dumps({"id": n, "title": "t", "author": "a"}) for n in range(100)]
    bad = [json.dumps({"id": n + 100, "author": "a"}) for n in range(50)]
    (folder / "corpus.jsonl").write_text("\n".join(good + bad))
    found = load_domain(folder)[1]
    assert len([finding for finding in found if "has no `doc.title`" in finding.message]) == 20
    assert any("and 30 more" in finding.message for finding in found)
