"""`ray up ray_cluster.yaml`, with a local provider and a folder for a machine (see machine.py)."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ray import machine
from tests.ray.command import HANG_S, LONG, ROOT, rows
from tests.ray.head import BIN, answers, free_ports, other_ports, ray_environment

pytestmark = [LONG, pytest.mark.slow]


@pytest.fixture
def place() -> Iterator[Path]:
    """The machine; sockets lie in this folder, and their paths must be short."""
    folder = Path(f"/tmp/duologue-up-{os.getpid()}")
    machine.build(folder)
    try:
        yield folder
    finally:
        machine.end(folder / "head.pid")
        shutil.rmtree(folder, ignore_errors=True)


def launched_here(folder: Path, port: int, dashboard: int) -> dict[str, Any]:
    """Return the launcher's file with another provider, and what follows from that."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text(encoding="utf-8"))
    config["provider"] = {"type": "local", "head_ip": "127.0.0.1", "worker_ips": []}
    for cloud in ("available_node_types", "head_node_type", "max_workers", "upscaling_speed"):
        del config[cloud]
    *before, start = config["head_start_ray_commands"]
    apart = [f"--dashboard-port={dashboard}", *other_ports(), f"--temp-dir={folder}/tmp"]
    assert "--port=6379" in start  # of which a machine has one, and other tests run on this one
    start = start.replace("--port=6379", f"--port={port} {' '.join(apart)}")
    config["head_start_ray_commands"] = [*before, start]
    return config


def test_the_file_sets_a_machine_up_and_starts_a_head_that_takes_jobs(
    place: Path, tmp_path: Path
) -> None:
    port, dashboard = free_ports(2)
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(launched_here(place, port, dashboard)))
    laptop = ray_environment(
        {
            "HOME": str(tmp_path),
            "RAY_TMPDIR": str(tmp_path),
            "PATH": f"{place / 'bin'}{os.pathsep}{BIN}{os.pathsep}{os.environ['PATH']}",
        }
    )

    def ray(*arguments: str, cwd: Path = ROOT) -> str:
        done = subprocess.run(
            [str(BIN / "ray"), *arguments],
            cwd=cwd,
            env=laptop,
            capture_output=True,
            text=True,
            timeout=HANG_S,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"{said}\n{(place / 'called').read_text()}"
        return said

    began = time.monotonic()
    ray("up", "--yes", "--no-config-cache", str(path))
    jobs = f"http://127.0.0.1:{dashboard}"
    assert answers(jobs)
    up = time.monotonic() - began
    # The machine has the project, built from what was copied there; a job brings its run file.
    clean = tmp_path / "clean"
    clean.mkdir()
    shutil.copy(ROOT / "specs" / "runs" / "demo.toml", clean / "run.toml")
    where = 'import cluster; print("from", cluster.__path__[0])'
    ray(
        *("job", "submit", "--address", jobs, "--working-dir", ".", "--"),
        *("sh", "-c", f"python -c '{where}' > {tmp_path}/code && exec \"$@\"", "sh"),
        *("python", "-m", "cluster.cli", "generate", "run.toml"),
        *("--set=run.name=tea", f"--set=run.out={tmp_path / 'out'}", "--set=run.dialogues=6"),
        *("--set=engines.cpu.kind=reference", "--set=retrieval.embedding=lexical"),
        cwd=clean,
    )
    assert (tmp_path / "code").read_text() == f"from {place / 'site' / 'cluster'}\n"
    assert set(rows(tmp_path)) == set(range(6))
    # The head has what its autoscaler goes by, and runs one.
    assert "local.cluster.node" in ray("exec", str(path), f"ray status --address 127.0.0.1:{port}")
    ray("down", "--yes", str(path))
    assert not (place / "head.pid").exists()
    print(f"\nup in {up:.1f} s, all of it {time.monotonic() - began:.1f} s")
    in_order = [
        "sudo mount -t nfs4 ",
        "sudo chown ubuntu /shared",
        "python3.12 -m venv ",
        "python -m pip install --quiet --no-deps --requirement ",
        "python -m pip install --quiet --no-deps ",
        "ray start --head ",
    ]
    called = iter((place / "called").read_text().splitlines())
    for wanted in in_order:
        assert any(line.startswith(wanted) for line in called), wanted
