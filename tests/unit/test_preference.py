from __future__ import annotations

from specs.agent_format import ChatMessage, Understanding
from trainer.preference import Answered, preferences

HEARD = Understanding("ask", {"query": "Mint."}).written()


def messages() -> list[ChatMessage]:
    return [
        ChatMessage("system", "s"),
        ChatMessage("user", "Hello."),
        ChatMessage("assistant", f"{HEARD}\nMint.\nWhich one?", True),
        ChatMessage("user", "The first."),
        ChatMessage("assistant", Understanding("choose").written(), True),
        ChatMessage("tool", "{}"),
        ChatMessage("assistant", "Here it is.", True),
    ]


def test_pairs_stand_behind_the_messages_before_and_keep_the_understanding() -> None:
    answers = [
        Answered(1, "Mint.", "model", ["Sure, here is:", "mint. ", "", "Sure, here is:"]),
        Answered(2, "Which one?", "reference", ["No?"]),
        Answered(4, "Here it is.", "repair", ["Bye."]),
    ]
    first, second = preferences(messages(), answers)
    assert (first.turn, first.chosen) == (1, f"{HEARD}\nMint.")
    assert first.rejected == f"{HEARD}\nSure, here is:"
    assert [message.content for message in first.prompt] == ["s", "Hello."]
    assert (second.turn, second.chosen, second.rejected) == (4, "Here it is.", "Bye.")
    assert list(second.prompt) == messages()[:6]


def test_a_second_turn_in_one_message_goes_on_behind_the_first() -> None:
    answers = [Answered(1, "Mint.", "model", []), Answered(2, "Which one?", "model", ["Eh?"])]
    (pair,) = preferences(messages(), answers)
    assert pair.chosen == f"{HEARD}\nMint.\nWhich one?"
    assert pair.rejected == f"{HEARD}\nMint.\nEh?"


def test_turns_that_the_messages_do_not_hold_end_it() -> None:
    answers = [
        Answered(1, "Something else.", "model", ["x"]),
        Answered(4, "Here it is.", "model", ["y"]),
    ]
    assert list(preferences(messages(), answers)) == []
