"""Which type of number a processor without a GPU computes fastest in."""

from __future__ import annotations

from typing import Literal

_NARROW = frozenset({"DEFAULT", "AVX2"})
"""Vector instructions, as torch names them, that come without any for 16-bit numbers."""


def cpu_dtype(capability: str) -> Literal["bfloat16", "float32"]:
    """Return the type for a model's weights on a CPU.

    With AVX-512 bfloat16 is nearly twice as fast as float32, since it moves half of the memory.
    Without, every number is converted first: float32 makes products five times as fast, and
    dialogues some four times (SmolLM2-135M, tests/bench/RESULTS.md).

    Args:
        capability: of `torch.backends.cpu.get_cpu_capability()`.
    """
    return "float32" if capability in _NARROW else "bfloat16"
