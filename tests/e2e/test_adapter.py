"""An adapter trained on the real small model, loaded by peft's own means and by vLLM."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from actors.engines.backends import make_backend
from actors.engines.models import load_tokenizer, resolve_model
from actors.engines.vllm_engine import VllmBackend
from specs.agent_format import ChatMessage
from specs.chat_template import ChatEncoder
from specs.engine import Answer, Request, Sampling
from specs.engine_section import EngineSection
from specs.parts import Folder
from specs.run_file import TrainSection
from tests.unit.tiny_model import chat
from trainer import weights
from trainer.adapter import check_adapter, publish
from trainer.data import encode
from trainer.loop import Place, fit
from trainer.training import PATIENT, seed

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow

ASKED = [
    ChatMessage("system", "You sell tea."),
    ChatMessage("user", "I would like green tea."),
]


def learned(folder: Path) -> Path:
    """Train a few steps on dialogues about tea; returns the adapter's folder.

    In a process of its own, as everywhere: vLLM forks, and where torch's threads have worked
    before, the child may wait for them for ever.
    """
    seed(0)
    tokenizer = load_tokenizer("smollm2-135m")
    encoder = ChatEncoder(tokenizer)
    chats = [
        [ChatMessage(m["role"], m["content"], m["train"]) for m in chat(number)]
        for number in range(8)
    ]
    section = TrainSection(
        method="qlora", window=128, batch=1, accumulate=1, max_steps=12, learning_rate=4e-3,
        schedule="constant", warmup=0, checkpoint_steps=100,
    )  # fmt: skip
    place = resolve_model("smollm2-135m")
    model = weights.build(section, place, gpu=False)
    examples = encode(chats, encoder, section.window)
    fitted = fit(section, model, 0, examples, encode([], encoder, 64), Place())
    assert fitted.packed
    assert fitted.loss is not None
    assert fitted.loss < fitted.log[0]["loss"] / 2
    staged = folder / "_result"
    model.save_pretrained(str(staged))
    tokenizer.save_pretrained(str(staged))
    manifest = {"base_model": "smollm2-135m", "base_digest": weights.base_digest(place)}
    publish(Folder.of(staged), Folder.of(folder / "adapter"), {**manifest, "method": "qlora"})
    return folder / "adapter"


async def test_an_adapter_changes_what_vllm_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in PATIENT.items():
        monkeypatch.setenv(name, value)
    tokenizer = load_tokenizer("smollm2-135m")
    encoder = ChatEncoder(tokenizer)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        adapter = pool.submit(learned, tmp_path).result()
    assert check_adapter(adapter, "smollm2-135m") == []
    config = EngineSection(window=256, max_running=4, kv_cache_gb=0.2)
    backend = make_backend(config, "v0", str(adapter))
    assert isinstance(backend, VllmBackend)
    await backend.start()
    try:
        ids = tuple(encoder.prompt(ASKED))
        sampling = Sampling(max_tokens=40, seed=1, temperature=0.0)
        untuned = await backend.generate(Request("a", sampling, tokens=ids))
        tuned = await backend.generate(Request("b", sampling, tokens=ids, adapter=str(adapter)))
    finally:
        await backend.stop()
    assert '"intent"' not in text(untuned)
    assert text(tuned).startswith('{"intent": "order", "slots": {')
    assert "Here is your green tea." in text(tuned)


def text(answer: Answer) -> str:
    assert answer.failure is None, answer.failure
    return answer.candidates[0].text
