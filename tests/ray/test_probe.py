"""Nodes that do not see the run's folder, or run other code: told before anything is written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.probe import PACKAGES, check_nodes
from specs.errors import InputError
from specs.parts import Folder
from tests.ray.chaos import NODE, raylets
from tests.ray.command import HANG_S, ROOT, environment, run_file


def test_a_folder_that_not_every_node_sees_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raylets(NODE, NODE):
        monkeypatch.chdir(tmp_path)  # the nodes' processes stay where they were started
        shared = Folder.of(tmp_path)
        began = time.monotonic()
        check_nodes(shared)  # all is equal, too: versions and code
        first = time.monotonic() - began
        check_nodes(shared)
        print(f"\n2 nodes asked in {first:.2f} s, {time.monotonic() - began - first:.2f} s again")
        own = Folder.of("/proc/self/cwd")  # another folder for each process, as for each node
        with pytest.raises(InputError) as refused:
            check_nodes(own)
    said = str(refused.value)
    assert "/proc/self/cwd: error: is not seen by 2 of 2 nodes" in said
    assert "--set run.out=/shared/runs" in said
    assert "nodes differ" not in said
    assert os.listdir(tmp_path) == []


def test_a_node_whose_code_is_another_is_refused_though_it_cannot_even_be_imported(
    tmp_path: Path,
) -> None:
    old, empty = tmp_path / "old", tmp_path / "empty"
    empty.mkdir()
    for name in PACKAGES:
        shutil.copytree(ROOT / name, old / name, ignore=shutil.ignore_patterns("__pycache__"))
    (old / "cluster" / "probe.py").write_text("raise SystemError('of another age')\n")
    path = run_file(tmp_path, 2)
    with raylets(NODE) as cluster:
        cluster.add_node(num_cpus=2, env_vars={"PYTHONPATH": str(old)})
        address = f"--set=cluster.address={cluster.address}"
        done = subprocess.run(
            [sys.executable, "-m", "cluster.cli", "generate", str(path), address],
            cwd=empty,  # Ray lets workers import from where their driver stands
            env=environment({"PYTHONPATH": str(ROOT)}),
            capture_output=True,
            text=True,
            timeout=HANG_S,
        )
    assert done.returncode == 2, done.stderr
    assert "cluster: error: nodes differ: " in done.stderr
    assert f"in {old} (here " in done.stderr
    assert "ray job submit --working-dir ." in done.stderr
    assert not list((tmp_path / "out" / "tea" / "round-0").rglob("log-*"))
