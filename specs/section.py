"""What the tables of a run file have in common, and kinds of values that several of them take."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Place = Annotated[str, AfterValidator(os.path.expanduser)]
"""A path, or what may be one; `~` is the home of whoever starts the run."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What a run, an experiment or an arm may be called: a folder bears the name."""

Name = Annotated[str, Field(pattern=NAME)]

Seconds = Annotated[float, Field(gt=0, le=30 * 86400)]


def _within(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _or_auto(most: int, pair: bool = False) -> BeforeValidator:
    """Check a number, or `auto`, before pydantic does: of a union it would tell every branch."""

    def check(value: Any) -> Any:
        one = value == "auto" or _within(value, most)
        both = isinstance(value, list | tuple) and len(value) == 2
        if one or (pair and both and all(_within(each, most) for each in value)):
            return tuple(value) if pair and both else value
        kinds = ["[least, most]"] if pair else []
        raise ValueError(" or ".join([f"wants a number from 1 to {most:,}", *kinds, '"auto"']))

    return BeforeValidator(check)


MOST = 4096
"""Processes of one kind; a cluster of Ray bears no more."""

Count = Annotated[int | Literal["auto"], _or_auto(MOST)]
"""How many processes of one kind, or as many as the plan finds."""

Alive = Annotated[int | Literal["auto"], _or_auto(1_000_000)]
Replicas = Annotated[int | tuple[int, int] | Literal["auto"], _or_auto(MOST, pair=True)]
"""How many replicas: a number; the least and the most; or as many as the plan finds best."""


class Section(BaseModel):
    """One table of a run file; unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )
