"""The baseline: one prompt, one answer, as many turns as its object has keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from actors.reenact import exact_prompts
from actors.single_prompt import SinglePrompt
from specs.engine import Answer, Candidate, Failure, Request
from specs.engine_section import Profile
from specs.errors import Unavailable
from specs.plan import PlanSource, make_plan
from specs.records import Dialogue, StopReason
from tests.unit.kiosk import kiosk
from tests.unit.scripted import Letters, make_cast, shown

SOURCE = PlanSource(0, "single_prompt")


class Writer:
    """Writes an utterance for each that the prompt lists, changed as the test says."""

    def __init__(
        self,
        change: Callable[[str], str] = lambda text: text,
        finish: str = "stop",
        failure: Failure | None = None,
    ) -> None:
        self.requests: list[Request] = []
        self.released = 0
        self._change, self._finish, self._failure = change, finish, failure

    async def ask(self, request: Request, dialogue: str) -> Answer:
        self.requests.append(request)
        if self._failure is not None:
            return Answer(request.id, failure=self._failure)
        listed = shown(request).split("in order:\n")[-1].split("\n\n")[0]
        said = dict(line.split(": ", 1) for line in listed.split("\n"))
        assert request.sampling.schema is not None
        schema = json.loads(request.sampling.schema)
        assert list(said) == list(schema["properties"]) == schema["required"]
        candidate = Candidate(self._change(json.dumps(said, indent=1)), self._finish, 99)
        return Answer(request.id, (candidate,), completion_tokens=99, prompt_tokens=10)

    def release(self, dialogue: str) -> None:
        self.released += 1


async def write(writer: Writer, index: int = 0, **keys: Any) -> Dialogue:
    cast = make_cast(kiosk(), writer, source=SOURCE, **keys)
    return await SinglePrompt(cast, make_plan(kiosk(), SOURCE, index)).play()


@pytest.mark.parametrize("form", ["script", "chat"])
async def test_a_whole_dialogue_from_one_request(form: Any) -> None:
    writer, profile = Writer(), Profile(form=form)
    dialogue = await write(writer, profile=profile)
    [request] = writer.requests
    assert (dialogue.stop_reason, dialogue.policy) == (StopReason.ENDED, "single_prompt")
    count = len(dialogue.turns)
    assert [turn.role for turn in dialogue.turns] == (["agent", "user"] * count)[:count]
    assert request.sampling.max_tokens == 48 * count
    assert all(turn.text in shown(request) for turn in dialogue.turns)
    assert [turn.completion_tokens for turn in dialogue.turns] == [99] + [0] * (count - 1)
    offer = next(turn for turn in dialogue.turns if turn.state == "offer" and turn.role == "agent")
    assert offer.result_ids
    assert offer.reply == {"shown": list(offer.result_ids)}
    assert dialogue.turns[-1].routing is not None  # two calls before the last words
    assert {"lists", "finished"} <= {check.name for check in offer.checks}
    assert writer.released == 1
    prompts = await exact_prompts(dialogue, kiosk(), SOURCE, {"user": profile, "agent": profile})
    assert prompts == {0: shown(request)}


def without(key: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        said = json.loads(text)
        return json.dumps({k: v for k, v in said.items() if not k.startswith(key)})

    return change


def cut(text: str, behind: str) -> str:
    return text[: text.index(behind) + len(behind)]


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (without("3."), 2),
        (without("1."), 0),
        (lambda text: text.replace("2. guest", "2. keeper"), 1),
        (lambda text: cut(text, '"3. ') + 'keeper": "Well, we', 3),
        (lambda text: cut(text, '"3. ') + 'keeper": "Well, we\\', 3),
        (lambda text: cut(text, '"3. '), 2),
        (lambda text: cut(text, '"1. keeper": '), 0),
        (lambda text: "No.", 0),
        (lambda text: "[" * 100_000, 0),
        (lambda text: "{" + '"a": ' * 100_000, 0),
        (lambda text: '{"1. keeper": 5}', 0),
        (lambda text: '{"1. keeper": " "}', 0),
    ],
)
async def test_missing_utterances_are_unparsed(change: Callable[[str], str], kept: int) -> None:
    dialogue = await write(Writer(change))
    assert dialogue.stop_reason is StopReason.UNPARSED
    assert f"{kept} of " in dialogue.error
    assert len(dialogue.turns) == kept


async def test_words_around_the_object_are_no_part_of_it() -> None:
    dialogue = await write(Writer(lambda text: f"Here:\n```json\n{text}\n```\nDone."))
    assert dialogue.stop_reason is StopReason.ENDED


async def test_the_last_line_may_be_cut_off() -> None:
    dialogue = await write(Writer(finish="length"))
    finished = [turn.checks[0].passed for turn in dialogue.turns]
    assert finished == [True] * (len(finished) - 1) + [False]


async def test_what_reaches_the_schemas_bound_is_cut_off() -> None:
    def longer(text: str) -> str:
        said = json.loads(text)
        said[list(said)[2]] = "so" * 300
        return json.dumps(said)

    dialogue = await write(Writer(longer))
    assert [turn.index for turn in dialogue.turns if not turn.checks[0].passed] == [2]


async def test_failures() -> None:
    with pytest.raises(Unavailable):
        await write(Writer(failure=Failure("deadline", "late")))
    overflow = await write(Writer(failure=Failure("overflow", "too long")))
    assert overflow.stop_reason is StopReason.OVERFLOW
    refused = await write(Writer(failure=Failure("refused", "no")))
    assert (refused.stop_reason, refused.turns) == (StopReason.REFUSED, ())
    writer = Writer()
    tight = await write(writer, tokenizer=Letters(), window=500, takes="tokens")
    assert tight.stop_reason is StopReason.OVERFLOW
    assert writer.requests == []


async def test_a_walk_that_does_not_end_asks_for_nothing() -> None:
    writer = Writer()
    dialogue = await write(writer, max_turns=2)
    assert (dialogue.stop_reason, writer.requests) == (StopReason.TURN_LIMIT, [])


async def test_the_domains_examples_show_how_a_list_becomes_words() -> None:
    with_examples, without = Writer(), Writer()
    await write(with_examples, profile=Profile(form="script", examples=1))
    await write(without, profile=Profile(form="script", examples=0))
    [one], [other] = with_examples.requests, without.requests
    head, _, rest = shown(one).partition("\n\nAn example. ")
    assert shown(other).startswith(head)
    assert shown(other)[len(head) :] == rest[rest.index("\n\nWhat each of them says") :]
    assert rest.split("\n\n")[1].count("\n") == 2  # two utterances under their heading
