"""Slots out of free words: what was said counts, and nothing is invented."""

from __future__ import annotations

from typing import Any

import pytest

from actors.filling import fill
from specs.domain import Slot
from specs.errors import Where

HERE = Where("test.yaml", 1, 1)


@pytest.mark.parametrize(
    ("kind", "said", "meant", "filled"),
    [
        ("integer", "Two nights, please.", 1, 2),
        ("integer", "One night, or even two.", 2, 2),
        ("integer", "A few nights.", 3, 3),
        ("integer", "A few nights.", None, None),
        ("integer", "It costs 2.5 pence.", 4, 4),
        ("number", "It costs 2.5 pence.", 4, 2.5),
        ("text", "I'll have that stew with eel.", "eel stew", "eel stew"),
        ("text", "Anything with leek.", "eel stew", "Anything with leek."),
        ("text", "Anything with eel.", None, "Anything with eel."),
        ("boolean", "Yes.", True, True),
    ],
)
def test_numbers_and_texts(kind: Any, said: str, meant: Any, filled: Any) -> None:
    assert fill(Slot("s", kind, HERE), said, meant) == filled


def test_one_of_several() -> None:
    drink = Slot("drink", "text", HERE, one_of=("ale", "apple cider", "water"))
    assert fill(drink, "Some apple cider, please.", "ale") == "apple cider"
    assert fill(drink, "Ale or water, I do not mind.", "water") == "water"
    assert fill(drink, "Whatever you have.", "ale") == "ale"
    assert fill(drink, "The pale one.", None) is None
