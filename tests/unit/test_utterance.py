"""What no person says, whatever a domain's own checks are."""

import pytest

from specs.utterance import Utterance, boilerplate
from specs.words import words


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("As an AI language model, I cannot cook.", "set phrase"),
        ("Sure, here are three recipes.", "set phrase"),
        ("- Tomato soup", "list mark"),
        ("1. Chop the onions.", "list mark"),
        ("I love [dish name] so much.", "placeholder"),
        ("Great. Chef: now chop.", "role label"),
        ("Where do you shine? The chef: I want to see it.", "role label"),
        ("Chef: now chop.", "role label"),
        ("Shall we start? The chef then says yes, and they cook.", "role label"),
        ("I look forward to it!Human: what is that?", "role label"),
        ("What comes next, please?", "said before"),
        ("Now chop the red onion finely.", "said before"),
        ("Chop the red onion finely.", "echo"),
        ("so good it is so good it is so good it is so good it is", "loop"),
        (
            "Alright, stir the curry powder into the roux for 1 minute. "
            "Step 6: Stir the curry powder into the roux for 1 minute.",
            "loop",
        ),
        ("It has 6 steps. Are you ready? Let's cook! Are you ready?", "loop"),
        ("では始めましょう。準備はいいですか？では始めましょう。", "loop"),
        ("Yes. Yes. Done with that. Done.", ""),
        ("Heat the oil, add the onion, add the garlic and add the salt.", ""),
        ("I'm an AI, so I eat nothing.", "set phrase"),
        ("The air in here smells of bread, as a bakery does.", ""),
        ("Ready to go on?Create a new dialogue by adding a cook.", "run on"),
        ("Beat in the eggs until well mixed.defrost the vegetables", "run on"),
        ("To cook it, we need to follow these steps:", "run on"),
        ("Can you help me with dinner?A: Sure, I can.", "run on"),
        ("Silky hummus takes 15 minutes in all", "echo"),
        ("I finished, what now?", ""),
        ("Add 1.5 kg of mussels, e.g. from the U.S. coast.", ""),
        ("2 onions are in the pan.", ""),
    ],
)
def test_boilerplate(text: str, why: str) -> None:
    utterance = Utterance(
        text,
        heard="Now chop the red onion finely.",
        mine=[words("what comes next please")],
        theirs=[
            words("Silky Hummus takes 15 minutes in all, shall we start?"),
            words("Now chop the red onion finely."),
        ],
        names=["cook", "chef"],
    )
    assert boilerplate(utterance) == why
