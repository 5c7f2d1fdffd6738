"""Amounts of GPUs as Ray counts them: shares of one GPU, or whole ones."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import AfterValidator, Field

ROUNDING = 1e-6
_LEAST = 1e-4
"""The smallest share that Ray counts; it keeps four decimals."""


def _countable(gpus: float) -> float:
    if gpus > 1 and gpus % 1:
        raise ValueError("of several GPUs only whole ones can be had (a share is below 1)")
    if gpus and (gpus < _LEAST or abs(round(gpus, 4) - gpus) > ROUNDING * _LEAST):
        raise ValueError(f"a share of a GPU has four decimals at most, and is {_LEAST} at least")
    return gpus


Gpus = Annotated[float, Field(ge=0), AfterValidator(_countable)]
"""GPUs of one process: a share below 1, or whole ones."""


def room(each: float, gpus: float) -> int:
    """Return how many processes that ask for so many GPUs each a node takes.

    A share of a GPU lies on one GPU, and whole GPUs on one node.
    """
    if each >= 1:
        return math.floor(gpus / each + ROUNDING)
    return math.floor(gpus) * math.floor(1 / each + ROUNDING)
