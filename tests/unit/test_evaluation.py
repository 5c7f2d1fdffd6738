"""The tasks of test dialogues, their prompts, and the asking, with an engine made of a function."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace

import jsonschema
import pytest

from specs.agent_format import ChatMessage
from specs.chat_template import OPENING
from specs.engine import Answer, Candidate, Failure, Request
from specs.errors import Unavailable
from trainer.baselines import Habits, guesses
from trainer.evaluation import (
    ChatDialogue,
    Limits,
    Prompts,
    System,
    Task,
    ask_all,
    chosen,
    tasks,
)
from trainer.few_shot import example_turns, fitting_examples, schemas, turn_intent
from trainer.scoring import Card

ASK = '{"intent":"ask","slots":{"query":"mint"}}'
CALL = '{"call":"search","arguments":{"query":"mint"}}'
CHOOSE = '{"intent":"choose","slots":{"option":1}}'

DIALOGUE = ChatDialogue(
    "w1",
    (
        ChatMessage("system", "Sells tea."),
        ChatMessage("assistant", "Hello!", True),
        ChatMessage("user", "Mint?"),
        ChatMessage("assistant", f"{ASK}\n{CALL}", True),
        ChatMessage("tool", '{"results":[{"id":"t1"}]}'),
        ChatMessage("assistant", "We have mint.", True),
        ChatMessage("user", "The first."),
        ChatMessage("assistant", f"{CHOOSE}\nHere you are.\nEnjoy.", True),
    ),
)


class Letters:
    """A token a letter, so that a prompt can be read."""

    def prompt(self, messages: Sequence[ChatMessage], prefix: str = "") -> list[int]:
        text = "".join(f"<{message.role}>{message.content}" for message in messages)
        return [ord(letter) for letter in f"{text}<assistant>{prefix}"]


def read(tokens: Sequence[int]) -> str:
    return "".join(map(chr, tokens))


def place(task: Task) -> tuple[Sequence[ChatMessage], str]:
    return task.before, task.piece.prefix


LIMITS = Limits({"understanding": 20, "call": 30, "answer": 40}, at_once=3)


class Gold:
    """Answers each task with its gold piece; notes what it was asked, and how much at once."""

    def __init__(self, dialogues: Sequence[ChatDialogue]) -> None:
        self.gold = {f"s:{task.id}": task.piece.text for task in tasks(dialogues)}
        self.requests: list[Request] = []
        self.running = self.most = 0

    async def __call__(self, request: Request, dialogue: str) -> Answer:
        assert request.id.split(":")[1] == dialogue
        self.requests.append(request)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.001 * (len(request.tokens) % 3))  # answers come in any order
        self.running -= 1
        return Answer(request.id, (Candidate(f" {self.gold[request.id]}\n", "stop", 3),))


def test_every_piece_is_a_task_behind_all_that_stands_before_it() -> None:
    found = [
        (task.piece.kind, task.turn, task.piece.prefix, len(task.before))
        for task in tasks([DIALOGUE])
    ]
    assert found == [
        ("answer", 0, "", 1),
        ("understanding", 1, "", 3),
        ("call", 1, f"{ASK}\n", 3),
        ("answer", 1, "", 5),
        ("understanding", 2, "", 7),
        ("answer", 2, f"{CHOOSE}\n", 7),
    ]


async def test_all_tasks_are_asked_greedily_and_come_back_in_order() -> None:
    dialogues = [DIALOGUE, replace(DIALOGUE, walk_id="w2")]
    gold = Gold(dialogues)
    done: list[int] = []
    system = System("s", adapter="/adapters/one", schemas={"call": "{}"})
    made = await ask_all(
        tasks(dialogues), system, Prompts(Letters(), 9999), gold, LIMITS, done.append
    )
    assert [(one.walk_id, one.message, one.kind) for one in made] == [
        (task.dialogue.walk_id, task.piece.message, task.piece.kind) for task in tasks(dialogues)
    ]
    assert all(one.predicted == one.gold for one in made)
    assert gold.most == 3
    assert done == list(range(1, 13))
    asked = {request.id: request for request in gold.requests}
    call = asked["s:w1:3:call"]
    assert read(call.tokens).endswith(f"<user>Mint?<assistant>{ASK}\n")
    assert (call.sampling.temperature, call.sampling.stop, call.sampling.max_tokens) == (
        0,
        ("\n",),
        30,
    )
    assert (call.adapter, call.sampling.schema) == ("/adapters/one", "{}")
    answer = asked["s:w1:7:answer"]
    assert answer.sampling.stop == ()  # an answer may have several lines
    assert answer.sampling.schema is None


async def test_what_an_engine_refuses_is_wrong_and_what_it_cannot_do_now_is_an_error() -> None:
    async def refuse(request: Request, dialogue: str) -> Answer:
        return Answer(request.id, failure=Failure("refused", "never"))

    async def away(request: Request, dialogue: str) -> Answer:
        return Answer(request.id, failure=Failure("unavailable", "gone"))

    prompts = Prompts(Letters(), 9999)
    made = await ask_all(tasks([DIALOGUE]), System("s"), prompts, refuse, LIMITS)
    assert {(one.predicted, one.finish_reason) for one in made} == {("", "refused")}
    with pytest.raises(Unavailable, match="w1:1:answer: gone"):
        await ask_all(tasks([DIALOGUE]), System("s"), prompts, away, LIMITS)


async def test_a_late_answer_is_asked_for_again_and_waited_for_longer() -> None:
    """On a busy machine one of 397 was late, and ten minutes of the others' answers were lost."""
    gold = Gold([DIALOGUE])
    waited: list[float] = []
    needs = 300.0

    async def busy(request: Request, dialogue: str) -> Answer:
        if ":1:answer" not in request.id:
            return await gold(request, dialogue)
        waited.append(request.deadline_s)
        if request.deadline_s < needs:
            return Answer(request.id, failure=Failure("deadline", "no answer"))
        return await gold(replace(request, id="s:w1:1:answer"), dialogue)

    prompts = Prompts(Letters(), 9999)
    made = await ask_all(tasks([DIALOGUE]), System("s"), prompts, busy, LIMITS)
    assert all(one.predicted == one.gold for one in made)
    assert waited == [120.0, 240.0, 480.0]
    needs = 500.0
    with pytest.raises(Unavailable, match="w1:1:answer: no answer"):
        await ask_all(tasks([DIALOGUE]), System("s"), prompts, busy, LIMITS)


def test_a_long_dialogue_loses_its_oldest_turns_and_keeps_the_system_message() -> None:
    last = place(list(tasks([DIALOGUE]))[-1])
    whole = Prompts(Letters(), 9999).tokens(*last, 10)
    assert whole is not None
    prompts = Prompts(Letters(), len(whole) + 10)
    assert prompts.tokens(*last, 10) == whole
    tight = Prompts(Letters(), len(whole) + 9)
    assert read(tight.tokens(*last, 10) or []).startswith("<system>Sells tea.<user>Mint?")
    assert (tight.cut, tight.dropped) == (1, 1)
    least = "<system>Sells tea.<user>The first.<assistant>" + CHOOSE + "\n"
    tight = Prompts(Letters(), len(least) + 10)
    assert read(tight.tokens(*last, 10) or []) == least
    assert Prompts(Letters(), len(least) + 9).tokens(*last, 10) is None


def test_examples_go_before_the_dialogue_and_are_given_up_last() -> None:
    turn = (ChatMessage("user", "Bye"), ChatMessage("assistant", "{}\nBye.", True))
    first, *_, last = map(place, tasks([DIALOGUE]))
    prompts = Prompts(Letters(), 9999, [turn, turn])
    text = read(prompts.tokens(*first, 10) or [])
    assert text.startswith("<system>Sells tea.\nThe first 2 turns below are examples")
    text = read(prompts.tokens(*last, 10) or [])
    assert text.count("<user>Bye<assistant>") == 2
    assert f"Bye.<user>{OPENING}<assistant>Hello!<user>Mint?" in text
    least = "<system>Sells tea.<user>The first.<assistant>" + CHOOSE + "\n"
    text = read(Prompts(Letters(), len(least) + 10, [turn, turn]).tokens(*last, 10) or [])
    assert text == least


def test_an_overflow_is_a_wrong_answer() -> None:
    made = asyncio.run(
        ask_all(tasks([DIALOGUE]), System("s"), Prompts(Letters(), 50), Gold([DIALOGUE]), LIMITS)
    )
    assert {one.finish_reason for one in made} == {"overflow"}
    assert len(made) == 6


def test_examples_are_of_different_intents_and_the_same_each_time() -> None:
    train = [replace(DIALOGUE, walk_id=f"t{number}") for number in range(5)]
    picked = example_turns(train, 3, seed=1)
    assert [turn_intent(turn) for turn in picked] == ["ask", "choose", "ask"]
    assert picked == example_turns(list(reversed(train)), 3, seed=1)
    assert [message.role for message in picked[0]] == ["user", "assistant", "tool", "assistant"]
    assert len(example_turns(train, 99, seed=1)) == 10
    assert example_turns([], 3, seed=1) == []
    system = DIALOGUE.messages[:1]
    bare = len(Letters().prompt([*system, ChatMessage("user", "?")]))
    cost = len(Letters().prompt(picked[1])) + 100  # with the note
    fitting = fitting_examples(picked, Letters(), system, bare + 2 * cost)
    assert picked[1] in fitting
    assert len(fitting) < 3


def test_the_schemas_let_the_format_through_and_nothing_else() -> None:
    card = Card(
        {"ask": {"query": "text"}, "choose": {"option": "integer"}}, {"search": {"query": "text"}}
    )
    made = {kind: json.loads(text) for kind, text in schemas(card).items()}
    jsonschema.validate(json.loads(ASK), made["understanding"])
    jsonschema.validate(json.loads(CALL), made["call"])
    for wrong in (
        '{"intent":"buy","slots":{}}',
        '{"intent":"ask","slots":{"query":1}}',
        '{"intent":"ask"}',
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(json.loads(wrong), made["understanding"])
    both = Card({"a": {"x": "text"}, "b": {"x": "integer"}})
    schema = json.loads(schemas(both)["understanding"])
    for value in ("one", 1):
        jsonschema.validate({"intent": "a", "slots": {"x": value}}, schema)
    assert "call" not in schemas(both)


def test_whole_dialogues_are_chosen_up_to_the_turns_asked_for() -> None:
    many = [replace(DIALOGUE, walk_id=f"t{number}") for number in range(10)]
    assert chosen(many, None, 0) == many
    some = chosen(many, 7, 0)
    assert sum(dialogue.user_turns for dialogue in some) == 6
    assert some == [dialogue for dialogue in many if dialogue in some]
    assert some != chosen(many, 7, 5)
    assert len(chosen(many, 1, 0)) == 1


def test_the_habits_of_training_dialogues_are_guessed_from() -> None:
    again = ChatDialogue(
        "t2", (*DIALOGUE.messages[:3], ChatMessage("assistant", f"{ASK}\nYes.", True))
    )
    habits = Habits.of([DIALOGUE, again])
    assert habits.majority("choose") == "ask"
    assert habits.bigram(None) == "ask"
    assert habits.bigram("ask") == "choose"
    assert habits.bigram("never seen") == "ask"
    made = guesses([DIALOGUE, replace(DIALOGUE, walk_id="w2")], habits.bigram)
    assert [json.loads(one.predicted)["intent"] for one in made] == ["ask", "choose"] * 2
    assert {one.kind for one in made} == {"understanding"}
    assert Habits.of([]).majority(None) == ""
