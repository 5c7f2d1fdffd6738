"""What the workers of a training failed by, written down as it happens.

Ray Train goes on from the last checkpoint without a word; whoever waits for it reads it here.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from ray.train import UserCallback

from specs.errors import DuologueError
from specs.parts import Folder
from trainer.adapter import failure
from trainer.training import FAILURES, read_failures


class Failures(UserCallback):
    """Ray Train's callback in its controller: it adds a line whenever workers fail.

    Args:
        folder: of the training.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def after_exception(
        self, run_context: Any, worker_exceptions: Mapping[int, BaseException]
    ) -> None:
        """Write down which workers failed, and by what the first of them."""
        ranks = sorted(worker_exceptions)
        said = str(failure(worker_exceptions[ranks[0]], self._folder.path))
        row = {"workers": ranks, "said": said.removeprefix("training failed: ")}
        # The training is not to fail by what it says of itself.
        with contextlib.suppress(OSError, DuologueError):
            rows = read_failures(self._folder)
            if row not in rows[-1:]:  # told at every look, while a node is on its way out
                text = "".join(f"{json.dumps(one)}\n" for one in [*rows, row])
                self._folder.write_bytes(FAILURES, text.encode())
