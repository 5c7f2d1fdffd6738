"""One run on a folder at a time: a lock that ends with the process that holds it.

On a disk the operating system keeps the lock (`flock`: it is gone when its process is, however it
died). Where there is none (object stores) a file with a heartbeat takes its place: it counts as
dead when it was not renewed for `STALE_S` seconds, or when its process on this host is gone.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Callable
from typing import Any

from specs.errors import DuologueError, Finding, InputError, Where
from specs.parts import Folder, storage_error

LOCK_NAME = "run.lock"
STALE_S = 120.0

_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}


class RunLock:
    """The lock of one folder; call `beat` every half minute while it is held."""

    def __init__(self, folder: Folder, clock: Callable[[], float] = time.time) -> None:
        """Take the run's folder; `clock` gives seconds since 1970."""
        self._folder, self._clock = folder, clock
        self._token = uuid.uuid4().hex
        self._handle: int | None = None
        self._held = False

    def take(self) -> None:
        """Take the lock.

        Raises:
            InputError: another live run holds it.
        """
        if self._held:
            return
        if not self._folder.local or not self._flock():
            holder = self._holder()
            if holder is not None and self._lives(holder):
                raise self._refusal(holder)
            self._write()
            if (self._holder() or {}).get("token") != self._token:
                raise self._refusal(self._holder() or {})
        self._held = True

    def beat(self) -> None:
        """Show that this run lives.

        Raises:
            DuologueError: another run has taken the folder over; this one must stop.
        """
        if not self._held or self._handle is not None:
            return
        holder = self._holder()
        if holder is not None and holder.get("token") != self._token:
            place, who = self._folder.path, _who(holder)
            raise DuologueError(f"{place}: {who} has taken this run over; this one stops")
        self._write()

    def release(self) -> None:
        """Give the lock back; safe to call twice."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        elif self._held and (self._holder() or {}).get("token") == self._token:
            self._folder.delete(LOCK_NAME)
        self._held = False

    def _flock(self) -> bool:
        """Take the system's lock; False where the disk has none."""
        path = self._folder.file(LOCK_NAME)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise storage_error(error, path) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if error.errno in _NO_LOCKS:
                return False
            raise self._refusal(self._holder() or {}) from None
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(self._record()).encode(), 0)
        except OSError as error:
            os.close(handle)
            raise storage_error(error, path) from error
        self._handle = handle
        return True

    def _record(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "heartbeat": self._clock(),
            "token": self._token,
        }

    def _write(self) -> None:
        self._folder.write_bytes(LOCK_NAME, json.dumps(self._record()).encode())

    def _holder(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self._folder.read_bytes(LOCK_NAME))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _lives(self, holder: dict[str, Any]) -> bool:
        if holder.get("host") == socket.gethostname() and not _runs(holder.get("pid")):
            return False
        return self._clock() - float(holder.get("heartbeat", 0)) < STALE_S

    def _refusal(self, holder: dict[str, Any]) -> InputError:
        message = f"{_who(holder)} is writing to this run's folder"
        hint = "Wait for it or stop it, or take another name (--set run.name=NAME)."
        return InputError([Finding(Where(self._folder.path), message, hint)])


def _who(holder: dict[str, Any]) -> str:
    if "pid" not in holder:
        return "another run"
    return f"another run (process {holder['pid']} on {holder.get('host', 'some host')})"


def _runs(pid: Any) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, TypeError):
        return False
    except OSError:
        return True
    return True
