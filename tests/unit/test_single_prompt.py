"""The baseline: one prompt, one answer, as many turns as it has numbered lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from actors.reenact import exact_prompts
from actors.single_prompt import SinglePrompt
from specs.engine import Answer, Candidate, Failure, Request
from specs.errors import Unavailable
from specs.plan import PlanSource, make_plan
from specs.records import Dialogue, StopReason
from specs.run_file import Profile
from tests.unit.kiosk import kiosk
from tests.unit.scripted import Letters, make_cast, shown

SOURCE = PlanSource(0, "single_prompt")


class Writer:
    """Writes a line for each that the prompt lists, changed as the test says."""

    def __init__(
        self,
        change: Callable[[list[str]], list[str]] = lambda lines: lines,
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
        lines = self._change(listed.split("\n"))
        text = "\n".join(lines)
        if request.text:  # a script begins behind the first label
            text = text.partition(":")[2]
        candidate = Candidate(text, self._finish, 99)
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


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (lambda lines: lines[:3], 3),
        (lambda lines: [*lines[:2], *lines[3:]], 2),
        (lambda lines: [lines[0], "Well, well.", *lines[1:2], "and so on"], 2),
        (lambda lines: [lines[0], lines[1].replace("guest", "keeper")], 1),
    ],
)
async def test_missing_lines_are_unparsed(
    change: Callable[[list[str]], list[str]], kept: int
) -> None:
    dialogue = await write(Writer(change))
    assert dialogue.stop_reason is StopReason.UNPARSED
    assert f"{kept} of " in dialogue.error
    assert len(dialogue.turns) == kept


async def test_the_last_line_may_be_cut_off() -> None:
    dialogue = await write(Writer(finish="length"))
    finished = [turn.checks[0].passed for turn in dialogue.turns]
    assert finished == [True] * (len(finished) - 1) + [False]


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
