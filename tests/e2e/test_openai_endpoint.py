"""The endpoint's backend against a real server: vLLM's own, on the loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.engines.models import resolve_model
from actors.engines.openai_endpoint import OpenAIBackend
from actors.engines.vllm_engine import fastest_dtype
from specs.engine import Message, Request, Sampling
from specs.engine_section import EngineSection
from specs.errors import EngineError

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow
SCHEMA = '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(resolve_model("smollm2-135m")), "--served-model-name", "smollm2"),
        *("--host", "127.0.0.1", "--port", str(port), "--api-key", "a-test-key"),
        *("--max-model-len", "512", "--max-num-seqs", "8", "--max-num-batched-tokens", "2048"),
        *("--block-size", "32", "--no-enable-chunked-prefill", "--enforce-eager"),
        *("--dtype", fastest_dtype()),
        *("--kv-cache-memory-bytes", str(2**28)),
    ]
    environment = os.environ | {"VLLM_LOGGING_LEVEL": "WARNING", "HF_HUB_OFFLINE": "1"}
    environment.pop("VLLM_CPU_KVCACHE_SPACE", None)
    with log.open("wb") as out:
        server = subprocess.Popen(
            command, stdout=out, stderr=out, env=environment, start_new_session=True
        )
    try:
        _wait(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(20)


def _wait(health: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if server.poll() is not None:
            pytest.fail(f"the server ended:\n{log.read_text(errors='replace')[-3000:]}")
        try:
            with urllib.request.urlopen(health, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail("the server did not start")


def section(url: str, model: str = "smollm2", key_env: str | None = "A_KEY") -> EngineSection:
    return EngineSection(kind="openai", model=model, url=url, key_env=key_env)


async def test_it_speaks_with_a_real_server(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "a-test-key")
    backend = OpenAIBackend(section(url), "o0")
    info = await backend.start()
    assert (info.takes, info.window, info.remote) == ("messages", 512, False)
    hello = (Message("user", "What goes into a tomato soup?"),)
    chat = Request("c", Sampling(24, 7, n=2), messages=hello)
    script = Request("t", Sampling(24, 7, stop=("\n",), top_k=20), text="Cook: I'd love")
    typed = Request("j", Sampling(40, 7, schema=SCHEMA), messages=hello)
    long = Request("o", Sampling(24, 7), messages=(Message("user", "soup " * 600),))
    answers = await asyncio.gather(*(backend.generate(r) for r in (chat, script, typed, long)))
    assert [answer.failure for answer in answers[:3]] == [None] * 3
    assert len({candidate.text for candidate in answers[0].candidates}) == 2
    assert answers[0].prompt_tokens > 0
    assert answers[0].completion_tokens > 0
    assert "\n" not in answers[1].candidates[0].text
    assert isinstance(json.loads(answers[2].candidates[0].text)["n"], int)
    failure = answers[3].failure
    assert failure is not None
    assert failure.kind == "overflow", failure
    await backend.stop()


async def test_wrong_keys_and_models_are_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "wrong-one")
    with pytest.raises(EngineError, match="does not take the key in A_KEY") as caught:
        await OpenAIBackend(section(url), "o0").start()
    assert "wrong-one" not in str(caught.value)
    monkeypatch.setenv("A_KEY", "a-test-key")
    with pytest.raises(EngineError, match="did you mean 'smollm2'"):
        await OpenAIBackend(section(url, model="smolm2"), "o0").start()


async def test_a_closed_port_is_named() -> None:
    with pytest.raises(EngineError, match=r"no server answers at http://127.0.0.1:9/v1"):
        await OpenAIBackend(section("http://127.0.0.1:9/v1", key_env=None), "o0").start()
