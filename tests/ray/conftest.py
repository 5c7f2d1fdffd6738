"""What the tests on local clusters have in common."""

from collections.abc import Iterator

import pytest

from tests.ray.command import one_ray


@pytest.fixture(scope="module")
def module_ray() -> Iterator[None]:
    """One Ray for all `in_process` commands of a module."""
    with one_ray():
        yield
