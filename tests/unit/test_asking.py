"""What the driver asks is asked again until it is answered, and a process dies once at a time."""

from __future__ import annotations

from typing import Any

import pytest
from ray import exceptions

from cluster import asking
from cluster.asking import DEATHS, Asking
from specs.errors import EngineError

dead: Any = exceptions.RayActorError  # which has no types


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]

    def get(ref: Any) -> Any:
        raise dead()

    monkeypatch.setattr("cluster.asking.time.monotonic", lambda: now[0])
    monkeypatch.setattr("cluster.asking.ray.get", get)
    monkeypatch.setattr("cluster.asking.ray.wait", lambda refs, timeout: (refs, []))
    return now


def test_all_calls_of_a_process_that_dies_count_as_one_death(clock: list[float]) -> None:
    made = iter(range(1000))
    one = Asking(lambda: next(made), "engine user (user-0)")
    for _ in range(DEATHS + 3):  # it loads for a long time
        one.make()
        clock[0] += asking.DEAF_S
    assert len(one.refs) == DEATHS + 3
    assert not one.look()
    assert (one.deaths, one.refs) == (1, [])
    for _ in range(DEATHS - 1):
        clock[0] += 1.0
        assert not one.look()
    clock[0] += 1.0
    with pytest.raises(EngineError, match=f"its process has ended {DEATHS} times"):
        one.look()
