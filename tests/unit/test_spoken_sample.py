# ruff: noqa: E501
"""What sampled dialogues cannot say is found where it stands, and as often as it strikes."""

from pathlib import Path

import pytest

from cluster import spoken_sample
from cluster.domain_commands import TEMPLATE
from specs.errors import Finding
from specs.loader import open_domain
from tests.unit import small_domain
from tests.unit.small_domain import line_of, write

WALKS = 20
BYE = "{{ 'Enjoy it' if result.ok else 'Come again' }}, goodbye."  # not behind every way there
TEXT = small_domain.TEXT.replace(BYE, "Goodbye.")


def _changed(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new, 1)


def _unsayable(folder: Path, text: str) -> list[Finding]:
    return spoken_sample.unsayable(open_domain(write(folder, text)), 0, WALKS)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('say: "Greet the reader."', "say: \"Greet {{ memory.tries + 'x' }}.\"", "cannot be added"),
        ('system: "You are', 'system: "You {{ doc.tags[5] }} are', "no item 5 among 1"),
        ('reference: "Hello, what', 'reference: "{{ doc.tags[5] }} what', "no reference can be"),
        ('    reference: "Hello, what', "    checks: ['says(doc.tags[5])']\n    reference: \"Hello, what", "no item 5"),
        ('    reference: "Hello, what', "    checks: [max_words(doc.title)]\n    reference: \"Hello, what", "of the type number"),
    ],
)  # fmt: skip
def test_what_fails_in_every_dialogue(tmp_path: Path, old: str, new: str, reason: str) -> None:
    text = _changed(old, new)
    (finding,) = _unsayable(tmp_path, text)
    assert f"fails in {WALKS} of {WALKS} sampled walks: " in finding.message
    assert reason in finding.message
    assert finding.severity == "error"  # no dialogue comes past it
    assert finding.where.line == line_of(text, new)


def test_a_reference_that_does_not_suit_is_no_fault_beside_one_that_does(tmp_path: Path) -> None:
    text = _changed('reference: "Hello, what', 'reference: ["{{ doc.tags[5] }}", "Hello, what')
    assert _unsayable(tmp_path, text.replace('like to read?"', 'like to read?"]')) == []


def test_domains_that_can_be_said(tmp_path: Path) -> None:
    assert _unsayable(tmp_path, TEXT) == []
    (finding,) = _unsayable(tmp_path, small_domain.TEXT)
    assert "a list has no 'ok'" in finding.message
    assert finding.severity == "warning"
    assert spoken_sample.unsayable(open_domain(TEMPLATE), 0, 200) == []
    assert spoken_sample.unsayable(open_domain("recipe"), 0, 200) == []
    assert spoken_sample.unsayable(open_domain("shop"), 0, 200) == []


def test_dialogues_whose_walk_fails_are_left_to_the_walks(tmp_path: Path) -> None:
    text = _changed("page: memory.page, plant", "page: memory.page - 1, plant")
    assert _unsayable(tmp_path, text) == []


def test_a_spent_budget_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spoken_sample, "WORK", 3_000)
    assert _unsayable(tmp_path, TEXT) == []
