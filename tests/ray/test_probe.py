"""A folder that only some nodes of a cluster see is refused before anything is written to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.probe import check_shared
from specs.errors import InputError
from specs.parts import Folder
from tests.ray.chaos import raylets


def test_a_folder_that_not_every_node_sees_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raylets(2):
        monkeypatch.chdir(tmp_path)  # the nodes' processes stay where they were started
        shared = Folder.of(tmp_path)
        check_shared(shared)
        own = Folder.of("/proc/self/cwd")  # another folder for each process, as for each node
        with pytest.raises(InputError) as refused:
            check_shared(own)
    said = str(refused.value)
    assert "/proc/self/cwd: error: is not seen by 2 of 2 nodes" in said
    assert "--set run.out=/shared/runs" in said
    assert os.listdir(tmp_path) == []
