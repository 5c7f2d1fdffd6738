"""A Ray that cannot be had comes to one message, one that is late to a second try."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cluster.session import ray_session
from specs.errors import DuologueError

LATE = Exception("The current node timed out during startup.")


@pytest.fixture
def init(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that has `ray.init` fail as told, and returns the list of its calls."""

    def fail(*errors: BaseException) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = []

        def called(**options: Any) -> None:
            calls.append(options)
            if len(calls) <= len(errors):
                raise errors[len(calls) - 1]

        monkeypatch.setattr("ray.is_initialized", lambda: False)
        monkeypatch.setattr("ray.shutdown", lambda: None)
        monkeypatch.setattr("ray.init", called)
        monkeypatch.setattr("cluster.session.check_address", lambda address: None)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        monkeypatch.setenv("PYTHONPATH", "")
        return calls

    return fail


def test_a_node_that_is_late_is_started_once_more(
    init: Callable[..., list[dict[str, Any]]],
) -> None:
    calls = init(LATE)
    with ray_session(None):
        assert [call["address"] for call in calls] == ["local", "local"]


def test_one_that_is_late_again_is_told_with_what_to_do(
    init: Callable[..., list[dict[str, Any]]],
) -> None:
    calls = init(LATE, LATE)
    said = r"2 times: .*timed out(.|\n)*too busy"
    with pytest.raises(DuologueError, match=said), ray_session(None):
        pass
    assert len(calls) == 2


def test_a_cluster_is_asked_once(init: Callable[..., list[dict[str, Any]]]) -> None:
    calls = init(RuntimeError("another version of Ray"))
    said = "at 10.0.0.5:6379: another version of Ray"
    with pytest.raises(DuologueError, match=said), ray_session("10.0.0.5:6379"):
        pass
    assert len(calls) == 1


def test_a_fault_is_not_taken_for_a_late_node(init: Callable[..., list[dict[str, Any]]]) -> None:
    calls = init(KeyError("a fault"))
    with pytest.raises(KeyError), ray_session(None):
        pass
    assert len(calls) == 1
