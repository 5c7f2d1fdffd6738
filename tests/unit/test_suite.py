"""What `make test` relies on."""

from __future__ import annotations

import pytest


def test_what_starts_processes_runs_one_after_the_other(request: pytest.FixtureRequest) -> None:
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("the tests are not shared out (-n 2 --dist loadgroup)")
    # pytest-xdist goes by the names alone, and pytest 9.2 does not let it change them.
    clusters = [one for one in request.session.items if one.get_closest_marker("xdist_group")]
    assert all(one.nodeid.endswith("@clusters") for one in clusters)
