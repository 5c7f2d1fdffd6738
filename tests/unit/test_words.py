"""Words of any script, and which are forms of one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specs.words import content_words, same, words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("stir", "stirred"),
        ("cooked", "cooking"),
        ("bake", "baking"),
        ("leaf", "leaves"),
        ("berry", "berries"),
        ("potato", "potatoes"),
        ("cocinar", "cocinado"),
        ("курица", "курицы"),
        ("밥", "밥이"),
        ("수프에서", "수프를"),
    ],
)
def test_forms_of_one_word_are_the_same(one: str, other: str) -> None:
    assert same(one, other)
    assert same(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("dough", "doubt"),
        ("greased", "great"),
        ("press", "precious"),
        ("chicken", "chickpeas"),
        ("butter", "button"),
        ("salt", "salad"),
        ("pan", "panko"),
        ("10", "100"),
        ("сук", "суп"),
        ("до", "дом"),
        ("물", "물론"),
    ],
)
def test_words_that_begin_alike_are_not_the_same(one: str, other: str) -> None:
    assert not same(one, other)
    assert not same(other, one)


def test_words_keep_every_script() -> None:
    assert words("Crème brûlée, 1 1/2 cups") == ("crème", "brûlée", "1", "1/2", "cups")
    assert words("don’t") == ("don't",)
    assert words("冷たい水") == ("冷た", "たい", "い水")
    assert content_words("I would like the борщ") == ("борщ",)


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=120))
def test_plain_text_has_the_words_that_the_general_rule_finds(text: str) -> None:
    # A letter of another script behind a full stop sends the same text down the general path.
    assert words(f"{text} . ß") == (*words(text), "ss")
