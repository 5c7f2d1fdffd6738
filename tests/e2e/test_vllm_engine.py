"""vLLM with the real small model, on the CPU."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
import pytest_asyncio

from actors.engines.backends import make_backend
from actors.engines.models import load_tokenizer
from actors.engines.replica import ReplicaCore
from actors.engines.vllm_engine import VllmBackend
from specs.engine import Answer, EngineInfo, Request, Sampling
from specs.engine_section import EngineSection
from specs.errors import EngineError

pytest.importorskip("vllm")
pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

WINDOW = 1024
SCRIPT = """Intention: ask for a recipe for tomato soup
Cook: I'd love to make tomato soup tonight. Can you find me a recipe?

Intention: ask for a recipe for apple pie
Cook: I fancy an apple pie, what have you got?

Intention: ask for a recipe for {dish}
Cook:"""
SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "maxLength": 80},
        "option": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["text", "option"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer("smollm2-135m")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend() -> AsyncIterator[VllmBackend]:
    config = EngineSection(window=WINDOW, max_running=8, kv_cache_gb=0.5)
    made = make_backend(config, "v0")
    assert isinstance(made, VllmBackend)
    await made.start()
    yield made
    await made.stop()


def request(tokenizer: Any, name: str, dish: str = "pancakes", **sampling: Any) -> Request:
    settings: dict[str, Any] = {"max_tokens": 40, "seed": 7, "stop": ("\n",)} | sampling
    return Request(
        name, Sampling(**settings), tokens=tuple(tokenizer(SCRIPT.format(dish=dish)).input_ids)
    )


def texts(answer: Answer) -> list[str]:
    assert answer.failure is None, answer.failure
    return [candidate.text for candidate in answer.candidates]


async def test_it_says_what_it_is(backend: VllmBackend, tokenizer: Any) -> None:
    info: EngineInfo | None = backend._info
    assert info is not None
    assert (info.takes, info.window, info.max_running) == ("tokens", WINDOW, 8)
    assert not info.remote
    # A conversion may lose the template and the special tokens.
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi 12"}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi 12<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.decode(tokenizer(" 1234").input_ids[-4:]) == "1234"


async def test_a_seed_says_the_same_again(backend: VllmBackend, tokenizer: Any) -> None:
    await backend.generate(request(tokenizer, "warm"))
    once = await backend.generate(request(tokenizer, "a"))
    again = await backend.generate(request(tokenizer, "b"))
    others = [await backend.generate(request(tokenizer, f"c{i}", seed=i)) for i in range(3)]
    assert texts(once) == texts(again)
    assert any(texts(other) != texts(once) for other in others)
    assert once.prefill_s > 0
    assert once.decode_s > 0
    assert once.completion_tokens == once.candidates[0].tokens == len(once.candidates[0].token_ids)


async def test_several_candidates(backend: VllmBackend, tokenizer: Any) -> None:
    answer = await backend.generate(request(tokenizer, "n", n=4, temperature=1.0))
    assert len(set(texts(answer))) > 1
    assert len(answer.candidates) == 4
    greedy = await backend.generate(request(tokenizer, "g", n=3, temperature=0.0))
    assert len(greedy.candidates) == 3
    assert len(set(texts(greedy))) == 1


async def test_the_stop_is_left_out_and_the_length_kept(
    backend: VllmBackend, tokenizer: Any
) -> None:
    stopped = await backend.generate(request(tokenizer, "s"))
    assert "\n" not in texts(stopped)[0]
    assert stopped.candidates[0].finish_reason == "stop"
    cut = await backend.generate(request(tokenizer, "l", max_tokens=3, stop=()))
    assert (cut.candidates[0].finish_reason, cut.candidates[0].tokens) == ("length", 3)


async def test_any_special_token_ends_a_turn(backend: VllmBackend, tokenizer: Any) -> None:
    """Behind a turn of a chat the model opens the next one, whose mark is not its own end."""
    chat = tuple(
        tokenizer("That is all.<|im_end|>\n<|im_start|>user\nThanks!<|im_end|>\n").input_ids
    )
    sampling = Sampling(max_tokens=5, temperature=0.0, seed=7)
    answer = await backend.generate(Request("next", sampling, tokens=chat))
    only = answer.candidates[0]
    assert (only.text, only.finish_reason, only.tokens) == ("", "stop", 1)
    assert only.token_ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")


async def test_a_schema_is_kept(backend: VllmBackend, tokenizer: Any) -> None:
    asked = request(tokenizer, "j", schema=json.dumps(SCHEMA), stop=(), n=3, max_tokens=100)
    for text in texts(await backend.generate(asked)):
        jsonschema.validate(json.loads(text), SCHEMA)
    broken = request(tokenizer, "x", schema='{"type": "nonsense"}', stop=())
    failure = (await backend.generate(broken)).failure
    assert failure is not None
    assert failure.kind == "refused"


async def test_what_does_not_fit_is_refused_beforehand(
    backend: VllmBackend, tokenizer: Any
) -> None:
    asked = request(tokenizer, "o")
    for unfit, kind in (
        (replace(asked, tokens=asked.tokens * 20), "overflow"),
        (replace(asked, tokens=()), "refused"),
        (replace(asked, adapter="/some/adapter"), "refused"),
    ):
        failure = (await backend.generate(unfit)).failure
        assert failure is not None
        assert (failure.kind, failure.permanent) == (kind, True)


async def test_the_prefix_cache_is_counted_and_can_be_emptied(
    backend: VllmBackend, tokenizer: Any
) -> None:
    await backend.reset_cache()
    first = await backend.generate(request(tokenizer, "p1", "a bean stew"))
    second = await backend.generate(request(tokenizer, "p2", "a cheese cake"))
    assert first.cached_tokens == 0
    assert 0 < second.cached_tokens < second.prompt_tokens


async def test_seeded_long_prompts_do_not_kill_the_engine(
    backend: VllmBackend, tokenizer: Any
) -> None:
    """Prefilled in chunks they would ("CPU Generator does not use offset")."""
    await backend.reset_cache()
    short = request(tokenizer, "x", max_tokens=8).tokens
    asked = [
        Request(f"long{i}", Sampling(8, i), tokens=(500 + i, *(short * 20))[: WINDOW - 8])
        for i in range(8)
    ]
    answers = await asyncio.gather(*(backend.generate(one) for one in asked))
    assert [answer.failure for answer in answers] == [None] * 8


async def test_abort_frees_the_engine(backend: VllmBackend, tokenizer: Any) -> None:
    core = ReplicaCore(backend, "v0")
    core._info, core._starting = backend._info, None
    endless = request(tokenizer, "e", max_tokens=900, stop=(), n=8)
    await core.submit("c", [endless, request(tokenizer, "after", max_tokens=4)])
    while not backend.stats().running:  # noqa: ASYNC110 - vLLM's counter has no event
        await asyncio.sleep(0.02)
    await core.abort("c", ["e"])
    polled = await core.poll("c", 0, 60.0)
    assert [answer.id for _, answer in polled.answers] == ["after"]
    assert backend._engine.get_num_unfinished_requests() == 0


async def test_a_model_that_does_not_load_says_why() -> None:
    config = EngineSection(window=100_000)
    with pytest.raises(EngineError, match=r"window = 100000 is larger than .*8192") as caught:
        await make_backend(config, "w").start()
    assert caught.value.permanent


async def test_a_dead_engine_says_so(backend: VllmBackend, tokenizer: Any) -> None:
    """The last test of this module: the engine's process is killed."""
    asking = asyncio.ensure_future(
        backend.generate(request(tokenizer, "d", max_tokens=900, stop=()))
    )
    await asyncio.sleep(0.2)
    for child in multiprocessing.active_children():
        if "EngineCore" in child.name:
            child.kill()
    with pytest.raises(EngineError, match="died"):
        await asyncio.wait_for(asking, 60)
    with pytest.raises(EngineError, match="died"):
        await backend.generate(request(tokenizer, "d2"))
