"""What an engine of vLLM takes of its machine and its process while it loads, without vLLM."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from huggingface_hub import constants

from actors.engines import vllm_engine
from actors.engines.cores import Claim
from actors.engines.vllm_engine import VllmBackend, special_ids
from specs.engine_section import EngineSection
from specs.errors import EngineError

BIND = "VLLM_CPU_OMP_THREADS_BIND"
OFFLINE = "HF_HUB_OFFLINE"


@pytest.fixture(autouse=True)
def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give it four cores, locks of its own and an environment that ends with the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    kept = {k: v for k, v in os.environ.items() if k not in (BIND, OFFLINE)}
    monkeypatch.setattr(os, "environ", kept)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(vllm_engine, "load_tokenizer", lambda *_: None)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, str]]:
    """Note the environment in which vLLM starts; it does not start."""
    noted: list[Mapping[str, str]] = []

    def start_engine(*_: Any) -> Any:
        noted.append({**os.environ, "constant": str(constants.is_offline_mode())})
        raise EngineError("seen", True)

    monkeypatch.setattr(vllm_engine, "start_engine", start_engine)
    return noted


async def load(folder: Path, **config: Any) -> VllmBackend:
    """Let an engine with the model in a folder try to start."""
    (folder / "config.json").write_text("{}")
    backend = VllmBackend(EngineSection(model=str(folder), **config), "v")
    with pytest.raises(EngineError, match="seen"):
        await backend.start()
    return backend


def taken(claim: Claim, count: int) -> list[int]:
    claim.take(count)
    return list(claim.cores)


def test_engines_share_no_core_unless_they_must() -> None:
    first, second, third, fourth = (Claim() for _ in range(4))
    assert taken(first, 1) == [0]
    assert taken(second, 2) == [1, 2]
    assert taken(third, 2) == [0, 3]
    assert taken(fourth, 2) == [0, 1]
    second.release()
    assert taken(fourth, 2) == [1, 2]
    assert taken(fourth, 1) == [1]  # its own are free for it
    assert taken(fourth, 0) == [0, 1, 2, 3]


async def test_an_engine_gives_its_cores_back(
    tmp_path: Path, seen: list[Mapping[str, str]]
) -> None:
    first = await load(tmp_path, cpu_cores=2)
    second = await load(tmp_path, cpu_cores=2)
    await first.stop()
    await load(tmp_path, cpu_cores=2)
    assert [environment[BIND] for environment in seen] == ["0,1", "2,3", "0,1"]
    await second.stop()


async def test_an_engine_with_gpus_takes_no_cores(
    tmp_path: Path, seen: list[Mapping[str, str]]
) -> None:
    await load(tmp_path, cpu_cores=3, gpus=1)
    assert BIND not in seen[0]
    assert taken(Claim(), 2) == [0, 1]


async def test_what_it_sets_ends_with_the_load(
    tmp_path: Path, seen: list[Mapping[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    await load(tmp_path)
    assert (seen[0][OFFLINE], seen[0]["constant"]) == ("1", "True")
    assert not {OFFLINE, BIND} & set(os.environ)
    assert not constants.is_offline_mode()
    await load(tmp_path, tensor_parallel=2)  # another engine's cores are no two ranks' cores
    assert BIND not in seen[1]
    monkeypatch.setitem(os.environ, OFFLINE, "0")
    await load(tmp_path)
    assert (seen[2][OFFLINE], seen[2]["constant"]) == ("0", "False")
    monkeypatch.setattr(vllm_engine, "resolve_model", lambda *_: "owner/model")
    monkeypatch.delitem(os.environ, OFFLINE)
    await load(tmp_path)
    assert OFFLINE not in seen[3]


def test_every_special_token_ends_what_is_said() -> None:
    """A script of a chat model ends with `<|endoftext|>`, which is not the end of its chats."""

    @dataclass
    class Token:
        special: bool

    class Tokenizer:
        added_tokens_decoder = MappingProxyType({7: Token(True), 8: Token(False), 9: Token(True)})
        all_special_ids = (2, 9)

    assert special_ids(Tokenizer(), 10) == [2, 7, 9]
    assert special_ids(Tokenizer(), 9) == [2, 7]  # vLLM refuses what the model does not know


def test_a_tokenizer_that_lists_no_added_tokens_still_ends_turns() -> None:
    """mistral_common's, which transformers hands out for a folder with a tekken.json."""

    class Tokenizer:
        all_special_ids = (2,)

        def added_tokens_decoder(self) -> None:
            raise NotImplementedError

    assert special_ids(Tokenizer(), 10) == [2]
