"""What is said of adapters that were not trained on as much."""

from __future__ import annotations

import pytest

from trainer.comparison import uneven

HINT = " (train.dialogues holds both runs to the same number)"
AMOUNTS = {"dialogues": 1000, "examples": 900, "trained_tokens": 50_000, "steps": 40}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({}, ""),
        ({"dialogues": 901}, ""),
        ({"dialogues": 800}, "1,000 and 800 dialogues" + HINT),
        ({"examples": 500}, "900 and 500 examples" + HINT),
        ({"trained_tokens": 30_000}, "50,000 and 30,000 tokens learned"),
        ({"trained_tokens": None, "steps": 80}, "40 and 80 steps"),
        (
            {"dialogues": 800, "steps": 80},
            "1,000 and 800 dialogues, 40 and 80 steps" + HINT,
        ),
    ],
)
def test_the_hint_is_given_where_it_would_help(other: dict[str, int | None], said: str) -> None:
    adapters = {"adapter": {"trained_on": AMOUNTS}, "arm": {"trained_on": {**AMOUNTS, **other}}}
    wanted = f"adapter and arm were not trained on as much: {said}" if said else ""
    assert uneven({"adapters": adapters}) == wanted
