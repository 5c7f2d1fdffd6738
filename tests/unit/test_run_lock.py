"""The lock that is a file with a heartbeat; a disk's own is tested with the run's folder."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.run_lock import BEAT_S, LOCK_NAME, STALE_S, RunLock
from specs.errors import DuologueError, InputError
from tests.unit.durable_samples import faulty_folder

Fault = Callable[[str, str], None]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Lock(RunLock):
    """Renewed by the tests alone, unless they say how often."""

    @property
    def thread(self) -> threading.Thread | None:
        return self._thread


MakeLock = Callable[..., Lock]


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[MakeLock]:
    made: list[Lock] = []

    def make(clock: Clock, fault: Fault = lambda step, path: None, beat_s: float = BEAT_S) -> Lock:
        made.append(Lock(faulty_folder(tmp_path, fault), clock, beat_s))
        return made[-1]

    yield make
    for one in made:
        one.release()


def test_without_a_disk_a_heartbeat_is_the_lock(tmp_path: Path, lock: MakeLock) -> None:
    clock = Clock()
    first, second = lock(clock), lock(clock)
    first.take()
    clock.now += STALE_S - 1
    assert first.renew()
    clock.now += STALE_S - 1
    with pytest.raises(InputError, match="is writing to this run's folder"):
        second.take()
    clock.now += 2
    second.take()
    first.check()
    assert not first.renew()
    with pytest.raises(DuologueError, match="has taken this run over"):
        first.check()
    second.check()
    first.release()
    assert (tmp_path / LOCK_NAME).exists()
    second.release()
    assert not (tmp_path / LOCK_NAME).exists()


def test_a_heartbeat_of_a_dead_process_on_this_host_holds_nothing(
    tmp_path: Path, lock: MakeLock
) -> None:
    clock = Clock()
    lock(clock).take()
    held = json.loads((tmp_path / LOCK_NAME).read_text())
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait(30)
    (tmp_path / LOCK_NAME).write_text(json.dumps({**held, "pid": gone.pid}))
    lock(clock).take()


def test_renewals_may_fail_until_the_lock_is_nearly_stale(lock: MakeLock) -> None:
    down = False

    def fault(step: str, path: str) -> None:
        if down:
            raise OSError("no answer")

    clock = Clock()
    held = lock(clock, fault)
    held.take()
    down = True
    for _ in range(2):
        clock.now += BEAT_S
        assert held.renew()
        held.check()
    clock.now += BEAT_S
    assert held.renew()
    with pytest.raises(DuologueError, match=r"could not be renewed for 90 s.*no answer"):
        held.check()
    down = False
    assert held.renew()
    held.check()


def test_a_run_with_fenced_writers_waits_for_an_outages_end_and_yields_to_another(
    lock: MakeLock,
) -> None:
    down = False

    def fault(step: str, path: str) -> None:
        if down:
            raise OSError("no answer")

    clock = Clock()
    held, rival = lock(clock, fault), lock(clock)
    held.silence_s = 600.0
    held.take()
    down = True
    clock.now += STALE_S + 1
    assert held.renew()
    held.check()
    rival.take()
    down = False
    assert not held.renew()
    with pytest.raises(DuologueError, match="has taken this run over"):
        held.check()


def test_a_lock_is_renewed_whatever_its_holder_waits_for(tmp_path: Path, lock: MakeLock) -> None:
    writes: queue.Queue[str] = queue.Queue()
    held = lock(Clock(), lambda step, path: writes.put(path) if step == "moved" else None, 0.01)
    held.take()
    for _ in range(5):
        assert writes.get(timeout=30).endswith(LOCK_NAME)
    thread = held.thread
    assert thread is not None
    held.release()
    assert not thread.is_alive()
    assert not (tmp_path / LOCK_NAME).exists()


def test_a_lock_that_was_taken_over_is_left_alone_and_told(tmp_path: Path, lock: MakeLock) -> None:
    arrived = threading.Event()

    def fault(step: str, path: str) -> None:
        if step == "moved" and arrived.is_set():
            rival = {"token": "another", "pid": 1, "host": "h"}
            (tmp_path / LOCK_NAME).write_text(json.dumps(rival))

    held = lock(Clock(), fault, 0.01)
    held.take()
    held.check()
    arrived.set()
    thread = held.thread
    assert thread is not None
    thread.join(30)
    with pytest.raises(DuologueError, match=r"process 1 on h\) has taken this run over"):
        held.check()
    held.release()
    assert b"another" in (tmp_path / LOCK_NAME).read_bytes()


def test_a_lock_that_is_held_keeps_no_process_alive(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from cluster.run_lock import RunLock; "
        "from tests.unit.durable_samples import faulty_folder; "
        f"RunLock(faulty_folder(Path({str(tmp_path)!r}))).take()"
    )
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)
    assert (tmp_path / LOCK_NAME).exists()
