"""What holds for all tests: no example of hypothesis is judged by the clock; the clusters run one
after the other on one of `make test`'s two workers, the models on the other, so that no three of
them want the machine at once: what is left of the time has the unit tests. What these start may
take its time (`HANG_S`)."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.ray.command import HANG_S

settings.register_profile("without-a-clock", deadline=None)
settings.load_profile("without-a-clock")

# Where a token lies in the home folder, Ray may turn authentication on by itself, for one of two
# processes that have to meet. The tests that want a token say so.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

# Ray gives its workers the lowest right to a core but four. Beside another test, an engine bound to
# both cores then waits at each of its steps for the thread that the other test has pushed aside.
os.environ.setdefault("RAY_worker_niceness", "0")

ALONE = (Path(__file__).parent / "ray", Path(__file__).parent / "e2e")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for folder in ALONE:
            if folder in item.path.parents:
                item.add_marker(pytest.mark.xdist_group(folder.name))
                if item.get_closest_marker("timeout") is None:
                    item.add_marker(pytest.mark.timeout(2 * HANG_S))
