"""What holds for all tests: no example of hypothesis is judged by the clock; whatever starts
processes of its own (a Ray, a vLLM) runs one after the other, on the same one of `make test`'s two
workers, so that no two of them want the machine at once: the other worker has the unit tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("without-a-clock", deadline=None)
settings.load_profile("without-a-clock")

# Where a token lies in the home folder, Ray may turn authentication on by itself, for one of two
# processes that have to meet. The tests that want a token say so.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

ALONE = (Path(__file__).parent / "ray", Path(__file__).parent / "e2e")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(folder in item.path.parents for folder in ALONE):
            item.add_marker(pytest.mark.xdist_group("clusters"))
