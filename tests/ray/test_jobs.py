"""`ray job submit`: the same command on a cluster with a job server, from a checkout or a wheel."""

from __future__ import annotations

import re
import secrets
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cluster.address import check_address
from specs.errors import InputError
from tests.ray.command import HANG_S, ROOT, rows, run_file
from tests.ray.head import BIN, Head, free_ports, head, ray_environment
from tests.unit.tiny_domain import write

RAY = str(BIN / "ray")
REHEARSAL = ("engines.cpu.kind=reference", "retrieval.embedding=lexical", "run.dialogues=6")


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with head(tmp_path_factory.mktemp("head") / "log") as found:
        yield found.jobs


def submit(
    address: str,
    *before: str,
    settings: Sequence[str],
    run: str = "specs/runs/demo.toml",
    cwd: Path = ROOT,
    more: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Submit `generate` from a folder as the README says; returns code and output."""
    command = [
        RAY, "job", "submit", "--address", address, "--working-dir", ".", "--",
        *before, "python", "-m", "cluster.cli", "generate", run,
        *(f"--set={setting}" for setting in settings),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=cwd, env=ray_environment(more), capture_output=True, text=True, timeout=HANG_S
    )
    return done.returncode, done.stdout + done.stderr


def test_a_job_is_given_the_code_alone_and_a_folder_that_would_vanish_is_refused(jobs: str) -> None:
    before = ("sh", "-c", 'ls -A; command -v python; exec "$@"', "sh")
    code, said = submit(jobs, *before, settings=("run.out=runs", *REHEARSAL))
    assert code != 0
    names = set(said.split("\n"))
    assert {"specs", "actors", "cluster", "trainer", "pyproject.toml"} <= names
    assert not names & {
        ".git",
        ".venv",
        "runs",
        "dist",
        ".hypothesis",
        ".mypy_cache",
        "__pycache__",
    }
    assert str(BIN / "python") in names
    assert "run.out is 'runs': under `ray job submit` that lies in the job's unpacked" in said
    assert "--set run.out=/shared/runs" in said
    assert "Traceback" not in said.split(str(BIN / "python"))[1]


def wheel(folder: Path) -> Path:
    """Build the wheel as `pip wheel .` does."""
    done = subprocess.run(
        [str(BIN / "python"), "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=HANG_S,
    )
    (built,) = folder.glob("duologue-*.whl")
    assert built.name in done.stdout + done.stderr
    return built


def test_a_wheel_in_a_clean_folder_is_all_that_a_job_needs(jobs: str, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    with zipfile.ZipFile(wheel(tmp_path)) as archive:  # what `python -m zipfile -e` does
        archive.extractall(clean)
    text = (ROOT / "specs" / "runs" / "demo.toml").read_text(encoding="utf-8")
    write(clean / "kiosk")
    (clean / "run.toml").write_text(text.replace('path = "recipe"', 'path = "kiosk"'))
    look = (
        "import specs, actors, trainer, cluster as c; print(*(m.__path__[0] for m in (specs, c)))"
    )
    began = time.monotonic()
    code, said = submit(
        jobs,
        *("sh", "-c", f'python -c "{look}"; exec "$@"', "sh"),
        settings=(f"run.out={tmp_path / 'out'}", "run.name=tea", *REHEARSAL),
        run="run.toml",
        cwd=clean,
    )
    assert code == 0, said
    print(f"\n6 dialogues from a wheel in {time.monotonic() - began:.1f} s")
    # The tests' interpreter has this checkout as well; what ran was the package that was sent.
    assert re.search(r"(/\S+/_ray_pkg_\w+)/specs \1/cluster", said), said
    assert {row["domain"] for row in rows(tmp_path).values()} == {"kiosk"}
    assert set(rows(tmp_path)) == set(range(6))


def test_a_job_that_is_stopped_leaves_what_is_durable_and_is_gone_on_with(
    jobs: str, tmp_path: Path
) -> None:
    slow = "engines.cpu.faults.latency_s=[0.3, 0.3]"
    settings = (f"run.out={tmp_path / 'out'}", "run.name=tea", *REHEARSAL, "walkers.alive=2")
    log = tmp_path / "out" / "tea" / "round-0" / "log"
    command = [
        RAY, "job", "submit", "--address", jobs, "--working-dir", ".",
        "--submission-id", "stopped", "--no-wait", "--",
        "python", "-m", "cluster.cli", "generate", "specs/runs/demo.toml",
        *(f"--set={setting}" for setting in (*settings, slow)),
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, env=ray_environment(), check=True, timeout=HANG_S)
    ends = time.monotonic() + HANG_S
    while not (log.is_dir() and list(log.glob("log-*"))):  # it has begun to play
        assert time.monotonic() < ends
        time.sleep(0.2)
    stop = [RAY, "job", "stop", "--address", jobs, "stopped"]
    stopped = subprocess.run(stop, env=ray_environment(), capture_output=True, timeout=HANG_S)
    assert b"was stopped" in stopped.stdout + stopped.stderr
    first = rows(tmp_path)
    assert len(first) < 6
    code, said = submit(jobs, settings=settings)
    assert code == 0, said
    assert "6 dialogues (" in said
    whole = rows(tmp_path)
    assert set(whole) == set(range(6))
    assert {index: whole[index] for index in first} == first


# -- a cluster that wants a token

WITHOUT = {"RAY_AUTH_MODE": "disabled"}
OTHER = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "another"}


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables that a token's file is named by, as a team that shares a cluster does it."""
    path = tmp_path_factory.mktemp("token") / "token"
    path.write_text(secrets.token_hex(32))
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, token: Mapping[str, str]) -> Iterator[Head]:
    with head(tmp_path_factory.mktemp("guarded") / "log", token) as found:
        yield found


def test_a_job_with_the_token_plays_and_one_without_is_refused(
    guarded: Head, token: Mapping[str, str], tmp_path: Path
) -> None:
    settings = (f"run.out={tmp_path / 'out'}", "run.name=tea", *REHEARSAL)
    for wrong, why in ((WITHOUT, "no authentication token was found"), (OTHER, "invalid")):
        code, said = submit(guarded.jobs, settings=settings, more=wrong)
        assert code != 0
        assert why in said
    assert not (tmp_path / "out").exists()
    code, said = submit(guarded.jobs, settings=settings, more=token)
    assert code == 0, said
    assert set(rows(tmp_path)) == set(range(6))
    secret = Path(token["RAY_AUTH_TOKEN_PATH"]).read_text()
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if secret.encode() in path.read_bytes()]
    assert secret not in said


def joined(
    address: str, folder: Path, more: Mapping[str, str] | None = None
) -> tuple[int, str, float]:
    """Run `generate` on a cluster; returns code, what it said, and the seconds that it took."""
    began = time.monotonic()
    done = subprocess.run(
        [
            *(str(BIN / "python"), "-m", "cluster.cli", "generate", str(run_file(folder, 2))),
            f"--set=cluster.address={address}",
        ],
        cwd=ROOT,
        env=ray_environment(more),
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    return done.returncode, done.stderr, time.monotonic() - began


def test_a_run_that_joins_with_the_token_plays_and_one_without_is_told_what_is_missing(
    guarded: Head, token: Mapping[str, str], tmp_path: Path
) -> None:
    for wrong, why in ((WITHOUT, "and none was sent"), (OTHER, "the one that was sent is another")):
        code, said, took = joined(guarded.address, tmp_path, wrong)
        print(f"\nrefused within {took:.1f} s")
        assert code == 2, said
        assert f"cluster.address={guarded.address}: error: the cluster there asks for a" in said
        assert why in said
        assert "RAY_AUTH_TOKEN_PATH" in said
        assert "gcs_client" not in said  # Ray's own attempts, one a second
    code, said, _ = joined(guarded.address, tmp_path, token)
    assert code == 0, said
    assert set(rows(tmp_path)) == {0, 1}


def test_where_no_cluster_is_that_is_said_within_seconds(jobs: str, tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    for address, why in (
        (nobody, "no Ray cluster answers there (Connection refused)"),
        (jobs, f"ray job submit --address {jobs}"),
    ):
        code, said, took = joined(address, tmp_path)
        print(f"\n{address}: told within {took:.1f} s")
        assert code == 2, said
        assert f"cluster.address={address}: error: " in said
        assert why in said
        assert "gcs_client" not in said


def test_a_web_server_is_no_cluster() -> None:
    server = ThreadingHTTPServer(("", 0), BaseHTTPRequestHandler)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        with pytest.raises(InputError, match="is a web server") as refused:
            check_address(f"127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
    assert f"ray job submit --address http://127.0.0.1:{server.server_port}" in str(refused.value)
