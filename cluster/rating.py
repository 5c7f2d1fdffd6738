"""An engine as the judge of whole dialogues, for the `judge` filter and measure."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence

from actors.engines.models import load_tokenizer
from actors.prompts import Prompt
from actors.seat import Seat, request
from cluster.single_engine import started
from specs.engine import Answer, Message, Sampling
from specs.errors import Finding, InputError, Unavailable, Where, nearest
from specs.run_file import RunFile
from specs.seeds import digest
from trainer.evaluation import ask_patiently
from trainer.judge import MAX_TOKENS, SCHEMA, read_rating

Rate = Callable[[Sequence[str]], list[float | None]]

_TASK = """\
You rate dialogues between a user and an assistant, from 1 (useless) to 5 (just right). In a good \
dialogue the assistant does what the user wants, what it says is true to what was found, both \
sides sound natural, and nothing is repeated or left open. Write {"rating": NUMBER} and nothing \
else."""

_CHARACTERS_PER_TOKEN = 2
"""Few enough that a transcript cut to it fits a window in any script but the most dense."""


def judge_findings(run: RunFile) -> list[Finding]:
    """Return what is wrong with `curate.judge`."""
    name = run.curate.judge
    if name is None:
        return []
    where = Where("curate.judge")
    if name not in run.engines:
        near = nearest(name, run.engines)
        return [Finding(where, f"names the engine {name!r}, which is not there{near}")]
    if run.engines[name].kind == "reference":
        message = f"the engine {name!r} is the reference engine, which cannot rate anything"
        return [Finding(where, message, "Name an engine of the kind vllm or openai.")]
    return []


@contextlib.contextmanager
def rater(run: RunFile) -> Iterator[Rate | None]:
    """Start the judge's engine; yields what rates transcripts, or None without a judge.

    What it yields raises Unavailable when the judge does not answer: a dialogue without a rating is
    dropped for good, and must be one that the judge cannot rate.

    Raises:
        InputError: `curate.judge` cannot be used.
        EngineError: the engine cannot start.
    """
    wrong = judge_findings(run)
    if wrong:
        raise InputError(wrong)
    if run.curate.judge is None:
        yield None
        return
    config = run.engines[run.curate.judge]
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        engine = started(config, run.curate.judge, cluster=run.cluster)
        client, info = runner.run(stack.enter_async_context(engine))
        try:
            tokenizer = load_tokenizer(info.tokenizer) if info.takes == "tokens" else None
            seat = Seat(client, info, config.profile, tokenizer, deadline_s=config.turn_deadline_s)
            yield lambda transcripts: runner.run(_rate_all(seat, transcripts))
        finally:
            runner.run(stack.aclose())


async def ask_judge(seat: Seat, name: str, prompt: Prompt) -> Answer:
    """Ask a judge's engine for one rating, greedily and under the schema; failures are answers.

    Args:
        name: of what is rated, unique among all that is.
    """
    sampling = Sampling(MAX_TOKENS, seed=0, temperature=0.0, schema=SCHEMA)
    tokens = seat.encode(prompt) if seat.tokenizer is not None else []
    asked = request(seat, name, prompt, sampling, tokens, (), 0)
    answer = await ask_patiently(seat.client.ask, asked, name)
    seat.client.release(name)
    return answer


async def _rate_all(seat: Seat, transcripts: Sequence[str]) -> list[float | None]:
    # Short dialogues come out alike, word for word; what is the same is asked once.
    different = list(dict.fromkeys(transcripts))
    ratings = await asyncio.gather(*(_rate(seat, text) for text in different))
    found = dict(zip(different, ratings, strict=True))
    return [found[text] for text in transcripts]


async def _rate(seat: Seat, transcript: str) -> float | None:
    name = digest("judge", transcript)
    answer = await ask_judge(seat, name, rating_prompt(transcript, seat.info.window))
    if answer.failure is not None and not answer.failure.permanent:
        raise Unavailable(
            f"the judge {seat.info.model} does not answer: {answer.failure.message}; nothing of "
            "this curation was written, and the same command does it again"
        )
    return read_rating(answer.candidates[0].text) if answer.candidates else None


def rating_prompt(transcript: str, window: int) -> Prompt:
    """Return the chat that asks for a rating; of what is too long for the window, the end."""
    room = (window - 300) * _CHARACTERS_PER_TOKEN if window else len(transcript)
    shown = transcript if len(transcript) <= room else "[...]" + transcript[-max(1, room) :]
    return Prompt((Message("system", _TASK), Message("user", shown)), schema=SCHEMA)
