"""Where TensorBoard's files go: transformers would put them into a folder that training deletes."""

from __future__ import annotations

import os

from specs.errors import Finding, Where
from specs.parts import Folder
from specs.run_file import TrainSection

BOARD = "tensorboard"
"""The integration's name, and that of the folder beside the training's log."""

BOARD_VARIABLE = "TENSORBOARD_LOGGING_DIR"
"""Tells transformers where to write them."""


def board(section: TrainSection, folder: Folder) -> str:
    """Return where TensorBoard's files go; empty where none are written, or there is no place.

    Args:
        folder: of the training. What the user has set in `BOARD_VARIABLE` goes before it.
    """
    if BOARD not in section.report_to:
        return ""
    own = os.environ.get(BOARD_VARIABLE, "")
    if own:  # a worker's current folder is another than this process's
        return own if "://" in own else os.path.abspath(os.path.expanduser(own))
    return folder.file(BOARD) if folder.local else ""


def board_findings(section: TrainSection, folder: Folder) -> list[Finding]:
    """Return what keeps TensorBoard's files from being kept: they cannot go to an object store."""
    if BOARD not in section.report_to or board(section, folder):
        return []
    message = f"{BOARD!r} writes to a disk, and the run's folder is on an object store"
    hint = f"Name a folder that the workers see in {BOARD_VARIABLE}, or leave {BOARD!r} out."
    return [Finding(Where("train.report_to"), message, hint)]
