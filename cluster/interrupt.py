"""SIGTERM as Ctrl-C: a scheduler, or `ray job stop`, ends a command as a person does."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import NoReturn


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt at SIGTERM while inside; what was there before comes back.

    On another thread than the main one it does nothing: signals are the main one's.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        # None is a handler that was not set from Python, and cannot be put back from it.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
