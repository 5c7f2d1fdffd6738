"""What the tables of a run file have in common, and kinds of values that several of them take."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Place = Annotated[str, AfterValidator(os.path.expanduser)]
"""A path, or what may be one; `~` is the home of whoever starts the run."""

Seconds = Annotated[float, Field(gt=0, le=30 * 86400)]
Processes = Annotated[int, Field(ge=1, le=4096)]
"""Of one kind; a cluster of Ray bears no more."""


class Section(BaseModel):
    """One table of a run file; unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )
