"""Where models are found, how they are unpacked once, and what is said when they are not there."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from actors.engines import models
from actors.engines.models import resolve_model
from actors.engines.vllm_start import explain
from specs.errors import EngineError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


class Unpacker:
    """Stands in for the process that unpacks."""

    def __init__(self, code: int = 0, stderr: str = "") -> None:
        self.code = code
        self.stderr = stderr
        self.calls: list[list[str]] = []

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.calls.append(command)
        folder = Path(command[-1])
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        return subprocess.CompletedProcess(command, self.code, "", self.stderr)


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "tiny-v1.5.gguf"
    path.write_bytes(b"GGUF" + b"x" * 100)
    return path


def test_a_gguf_file_is_unpacked_once(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacker = Unpacker()
    monkeypatch.setattr(subprocess, "run", unpacker)
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(resolve_model(str(gguf)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(unpacker.calls) == 1
    assert len(set(found)) == 1
    assert (found[0] / "config.json").is_file()
    gguf.write_bytes(b"GGUF" + b"y" * 100)  # another model under the same name
    assert resolve_model(str(gguf)) != found[0]
    assert [path.name for path in found[0].parent.glob("*.partial")] == []


@pytest.mark.parametrize(
    ("code", "stderr", "words"),
    [
        (1, "Traceback\nOSError: [Errno 28] No space left on device", "no space left"),
        (-9, "", "killed"),
        (1, "Traceback\nValueError: unknown architecture", "unknown architecture"),
    ],
)
def test_what_fails_leaves_nothing_and_says_why(
    gguf: Path, monkeypatch: pytest.MonkeyPatch, code: int, stderr: str, words: str
) -> None:
    monkeypatch.setattr(subprocess, "run", Unpacker(code, stderr))
    with pytest.raises(EngineError, match=words):
        resolve_model(str(gguf))
    assert [path for path in models.cache_folder().iterdir() if path.is_dir()] == []


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_bytes(b"nothing of the kind")
    (tmp_path / "text.txt").write_text("x")
    for name, words in (
        (str(tmp_path / "gone.gguf"), "no model file"),
        (str(tmp_path / "no.gguf"), "not a GGUF file"),
        (str(tmp_path / "text.txt"), "is a file but no .gguf"),
        (str(tmp_path), "no config.json"),
        ("./some/where/else", "neither a folder nor a file"),
        ("nobody/nothing-at-all", "HF_HUB_OFFLINE"),
    ):
        with pytest.raises(EngineError, match=words) as caught:
            resolve_model(name)
        assert caught.value.permanent


def test_a_local_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve_model(str(tmp_path)) == tmp_path.resolve()


@pytest.mark.parametrize(
    ("line", "words", "permanent"),
    [
        (
            "ValueError: To serve at least one request with the model's max seq len (2048), (0.04 "
            "GiB KV cache is needed, which is larger than the available KV cache memory (0.01 GiB)",
            "takes 0.04 GiB: raise kv_cache_gb",
            True,
        ),
        (
            "(Worker pid=1) ERROR RuntimeError: Worker failed with error 'Available memory on node "
            "0 (7.54/9.71 GiB) on kv cache allocation is less than requested memory for kv (100.0 "
            "GiB).', please check the stack trace above for the root cause",
            "lower kv_cache_gb",
            True,
        ),
        ("torch.OutOfMemoryError: CUDA out of memory.", "too little memory for m", False),
        ("SafetensorError: incomplete metadata", "could not start m: SafetensorError", True),
        ("", "ended without a word", False),
    ],
)
def test_why_vllm_did_not_start(line: str, words: str, permanent: bool) -> None:
    raised = "Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    message, hopeless = explain("m", raised, ["noise", line, ""] if line else [])
    assert words in message
    assert hopeless == permanent


def test_an_exception_without_a_word_is_explained_by_what_was_printed() -> None:
    message, _ = explain("m", " ", ["NotImplementedError: no such platform"])
    assert message == "vLLM could not start m: NotImplementedError: no such platform"
