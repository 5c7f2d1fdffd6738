"""What `make test` relies on."""

from __future__ import annotations

import pytest


def test_clusters_run_one_after_the_other_and_models_too(request: pytest.FixtureRequest) -> None:
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("the tests are not shared out (-n 2 --dist loadgroup)")
    # pytest-xdist goes by the names alone, and pytest 9.2 does not let it change them.
    for item in request.session.items:
        for mark in item.iter_markers("xdist_group"):
            assert item.nodeid.endswith(f"@{mark.args[0]}")
