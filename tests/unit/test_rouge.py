import pytest

from specs.rouge import rouge_l


@pytest.mark.parametrize(
    ("hypothesis", "reference", "expected"),
    [
        # Lin (2004): "police kill the gunman" has two words in order with the reference of four.
        ("police kill the gunman", "police killed the gunman", 3 / 4),
        ("the gunman kill police", "police killed the gunman", 2 / 4),
        ("Police, KILL!", "police kill the gunman", 2 * 2 / 6),
        ("抹茶ラテ", "抹茶", 2 * 1 / 4),  # pairs of characters: 抹茶 茶ラ ラテ
        ("добрый день", "день добрый", 1 / 2),
        ("", "something", 0.0),
        ("!?", "", 0.0),
    ],
)
def test_by_hand(hypothesis: str, reference: str, expected: float) -> None:
    assert rouge_l(hypothesis, reference) == pytest.approx(expected)
    assert rouge_l(reference, hypothesis) == pytest.approx(expected)
