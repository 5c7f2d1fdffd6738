"""One run on a folder at a time: a lock that ends with the process that holds it.

On a disk the operating system keeps the lock (`flock`: it is gone when its process is, however it
died). Where there is none (object stores) a file with a heartbeat takes its place: it counts as
dead when it was not renewed for `STALE_S` seconds, or when its process on this host is gone. A
thread renews it from `take` to `release`, whatever the main thread waits for; what it finds, the
main thread hears at its next `check`. Who cannot renew it in time stops, since another may have
taken it; a run whose writers are fenced (`actors.fence`) may wait for the end of an outage.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from specs.errors import DuologueError, Finding, InputError, Where
from specs.parts import Folder, storage_error

LOCK_NAME = "run.lock"
STALE_S = 120.0

BEAT_S = 30.0
"""From one renewal to the next, so that two in a row may fail."""

LEAVE_S = 30.0
"""How long a renewal that is under way may take when the lock is given back."""

_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}


class RunLock:
    """The lock of one folder."""

    def __init__(
        self, folder: Folder, clock: Callable[[], float] = time.time, beat_s: float = BEAT_S
    ) -> None:
        """Take the run's folder; `clock` gives seconds since 1970.

        Attributes:
            silence_s: how long the lock may go without renewal before `check` stops the run.
        """
        self._folder, self._clock, self._beat_s = folder, clock, beat_s
        self.silence_s = STALE_S - 1.5 * beat_s  # the renewal after that would come too late
        self._token = uuid.uuid4().hex
        self._handle: int | None = None
        self._held = False
        self._renewed = 0.0
        self._lost: DuologueError | None = None
        self._left = threading.Event()
        self._thread: threading.Thread | None = None

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
            self._keep()
        self._held = True

    def check(self) -> None:
        """Do nothing while the lock is held; costs nothing.

        Raises:
            DuologueError: another run has taken the folder over, or may do so because the lock
                cannot be renewed; this one must stop.
        """
        if self._lost is not None:
            raise self._lost

    def renew(self) -> bool:
        """Show that this run lives; returns whether to go on with that. Never raises."""
        try:
            holder = self._read()
            if holder is not None and holder.get("token") != self._token:
                place, who = self._folder.path, _who(holder)
                self._lost = DuologueError(
                    f"{place}: {who} has taken this run over; this one stops"
                )
                return False
            now = self._clock()
            self._write()
        except Exception as error:  # noqa: BLE001  # a thread has nobody to raise it to
            silent = self._clock() - self._renewed
            if silent > self.silence_s:
                self._lost = DuologueError(
                    f"{self._folder.file(LOCK_NAME)}: could not be renewed for {silent:.0f} s, so "
                    f"that another run may take this one over; it stops: {error}"
                )
        else:
            self._renewed, self._lost = now, None
        return True

    def release(self) -> None:
        """Give the lock back; safe to call twice."""
        if self._thread is not None:
            # A renewal that is under way would put the file back.
            self._left.set()
            self._thread.join(LEAVE_S)
            self._thread = None
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        elif self._held and (self._holder() or {}).get("token") == self._token:
            self._folder.delete(LOCK_NAME)
        self._held = False

    def _keep(self) -> None:
        """Renew the lock on a thread, which ends with `release` or with the process."""
        self._renewed, self._lost, self._left = self._clock(), None, threading.Event()
        left = self._left

        def beat() -> None:
            while not left.wait(self._beat_s) and self.renew():
                pass

        self._thread = threading.Thread(target=beat, name="run lock", daemon=True)
        self._thread.start()

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
            return self._read()
        except OSError:
            return None

    def _read(self) -> dict[str, Any] | None:
        """Return what the lock's file says; raises OSError where that cannot be known."""
        try:
            found = json.loads(self._folder.read_bytes(LOCK_NAME))
        except (FileNotFoundError, ValueError):
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
