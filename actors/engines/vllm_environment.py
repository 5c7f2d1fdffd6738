"""What vLLM reads from the environment, for one engine's load and no longer.

Its processes inherit the environment at their start; whatever else this process does afterwards,
another engine with a model from the hub, say, must find it as it was.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

_QUIET = {
    "VLLM_LOGGING_LEVEL": "ERROR",  # its warnings are about its own insides
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_OFFLINE = "HF_HUB_OFFLINE"
_CORES = "VLLM_CPU_OMP_THREADS_BIND"
_CACHE = "VLLM_CPU_KVCACHE_SPACE"
_loading = threading.Lock()


@contextmanager
def environment(
    cores: Sequence[int], local: bool, more: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Hold vLLM's environment while it is imported and its processes start; one at a time.

    Args:
        cores: what it is bound to on the CPU; none to leave that to vLLM.
        local: the model is a folder of this machine, for which no hub is asked.
        more: what else it has to hold.
    """
    from huggingface_hub import constants  # first: it reads the environment once, on its import

    given = more or {}
    with _loading:
        before = {key: os.environ.get(key) for key in (_OFFLINE, _CORES, _CACHE, *given)}
        offline = constants.HF_HUB_OFFLINE
        for key, value in _QUIET.items():
            os.environ.setdefault(key, value)
        os.environ.update(given)
        os.environ.pop(_CACHE, None)  # whole GiB only; the run file's value rules
        if cores:
            os.environ[_CORES] = ",".join(map(str, cores))
        if local and _OFFLINE not in os.environ:
            os.environ[_OFFLINE] = "1"
            constants.HF_HUB_OFFLINE = True
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = offline
            for key, kept in before.items():
                if kept is None:
                    os.environ.pop(key, None)
                else:
                    os.environ[key] = kept
