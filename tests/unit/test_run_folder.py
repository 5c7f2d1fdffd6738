from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.run_folder import JOB_VARIABLE, RunFolder, refuse_relative
from specs.errors import DuologueError, InputError
from specs.masking import without_secrets
from specs.parts import Folder
from specs.run_file import RunFile, validate
from tests.unit.durable_samples import Crash, faulty_folder


@dataclass(frozen=True)
class FakeDomain:
    folder: Path
    name: str = "recipe"
    digest: str = "d1"


@pytest.fixture
def domain(tmp_path: Path) -> FakeDomain:
    folder = tmp_path / "recipe"
    (folder / "prompts").mkdir(parents=True)
    (folder / "domain.yaml").write_text("domain: recipe\n")
    (folder / "prompts" / "say.jinja").write_text("x")
    (folder / ".hidden").write_text("x")
    (folder / "outside").symlink_to(sys.executable)
    return FakeDomain(folder)


def run_file(out: Path, **changes: Any) -> RunFile:
    data: dict[str, Any] = {
        "run": {"name": "demo", "out": str(out)},
        "domain": {"path": "recipe"},
        "engines": {"small": {"kind": "reference"}, "spare": {"kind": "reference"}},
        "roles": {"user": "small", "agent": "small"},
    }
    for key, value in changes.items():
        here = data
        *parents, last = key.split("__")
        for parent in parents:
            here = here.setdefault(parent, {})
        here[last] = value
    return validate(data, "test")


def opened(out: Path, domain: FakeDomain, fresh: bool = False, **changes: Any) -> RunFolder:
    folder = RunFolder(out, "demo")
    folder.open(run_file(out, **changes), domain, fresh=fresh)
    folder.close()
    return folder


def test_a_new_folder_holds_what_the_run_is(tmp_path: Path, domain: FakeDomain) -> None:
    out = tmp_path / "runs"
    opened(out, domain)
    content = json.loads((out / "demo" / "run.json").read_text())
    assert content["domain"] == {"name": "recipe", "digest": "d1"}
    assert content["run_file"]["engines"]["small"]["kind"] == "reference"
    assert (content["seed"], "created" in content, "python" in content["versions"]) == (
        0,
        True,
        True,
    )
    copied = sorted(str(p.relative_to(out)) for p in (out / "demo" / "domain").rglob("*"))
    assert copied == [
        "demo/domain/domain.yaml",
        "demo/domain/prompts",
        "demo/domain/prompts/say.jinja",
    ]
    assert sorted(os.listdir(out / "demo" / "round-0")) == ["dialogues", "log"]


@pytest.mark.parametrize(
    "changes",
    [
        {"run__dialogues": 100},
        {"run__part_rows": 5, "run__log_interval_s": 9.0, "run__outage_s": 5.0},
        {"engines__small__replicas": 4, "engines__small__gpus": 1.0},
        {"engines__small__turn_deadline_s": 5.0, "engines__small__faults": {"hang": 0.5}},
        {"engines__small__vllm": {"gpu_memory_utilization": 0.5}},
        {"engines__spare__model": "unused"},
        {"walkers": {"count": 3, "alive": 5, "sinks": 2}},
        {"cluster__address": "auto"},
        {"retrieval__url": "http://qdrant:6333"},
    ],
)
def test_harmless_changes_resume_and_are_noted(
    tmp_path: Path, domain: FakeDomain, changes: dict[str, Any]
) -> None:
    opened(tmp_path, domain)
    before = json.loads((tmp_path / "demo" / "run.json").read_text())
    folder = RunFolder(tmp_path, "demo")
    found = folder.open(run_file(tmp_path, **changes), domain)
    assert found.resumed
    assert found.changed
    after = folder.manifest()
    assert after is not None
    assert after["created"] == before["created"]
    assert after["resumed"][0]["changed"]
    folder.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run__seed": 5}, "run.seed was 0 and is now 5"),
        ({"policy__arm": "b"}, 'policy.arm was "main" and is now "b"'),
        ({"policy__kind": "single_prompt"}, "policy.kind"),
        ({"roles__agent": "spare"}, 'roles.agent was "small" and is now "spare"'),
        ({"engines__small__model": "x"}, "engines.small.model"),
        ({"engines__small__profile": {"temperature": 0.1}}, "engines.small.profile.temperature"),
        ({"engines__small__vllm": {"quantization": "awq"}}, "engines.small.vllm.quantization"),
        ({"engines__small__faults": {"garbage": 0.5}}, "engines.small.faults.garbage"),
        ({"retrieval__embedding": "lexical"}, "retrieval.embedding"),
    ],
)
def test_what_would_be_said_may_not_change(
    tmp_path: Path, domain: FakeDomain, changes: dict[str, Any], said: str
) -> None:
    opened(tmp_path, domain).log().write_bytes("turns-a.parquet", b"x")
    before = (tmp_path / "demo" / "run.json").read_bytes()
    with pytest.raises(InputError) as caught:
        opened(tmp_path, domain, **changes)
    assert said in str(caught.value)
    assert "--fresh" in str(caught.value)
    assert "run.name=demo-2" in str(caught.value)
    assert (tmp_path / "demo" / "run.json").read_bytes() == before


def test_a_run_that_failed_before_its_first_turn_binds_nobody(
    tmp_path: Path, domain: FakeDomain
) -> None:
    opened(tmp_path, domain)
    (domain.folder / "domain.yaml").write_text("domain: mended\n")
    folder = opened(tmp_path, FakeDomain(domain.folder, digest="d2"), run__seed=1)
    assert (folder.manifest() or {})["seed"] == 1
    assert b"mended" in folder.folder.child("domain").read_bytes("domain.yaml")


@pytest.mark.parametrize("name", ["curated", "adapter", "notes.txt"])
def test_a_run_of_which_something_was_made_is_not_emptied_unasked(
    tmp_path: Path, domain: FakeDomain, name: str
) -> None:
    made = opened(tmp_path, domain).round().child(name)
    made.create() if "." not in name else Path(made.path).write_text("dear")
    with pytest.raises(InputError, match=r"run\.seed was 0 and is now 1"):
        opened(tmp_path, domain, run__seed=1)
    assert Path(made.path).exists()
    opened(tmp_path, domain, fresh=True, run__seed=1)
    assert not Path(made.path).exists()


@pytest.mark.parametrize("fresh", [False, True])
def test_an_interrupted_deletion_is_ended_before_anything_else(
    tmp_path: Path, domain: FakeDomain, monkeypatch: pytest.MonkeyPatch, fresh: bool
) -> None:
    def fault(step: str, path: str) -> None:
        if step == "deleted":
            raise Crash

    opened(tmp_path, domain).dialogues().write_bytes("part-a.parquet", b"x")
    left = tmp_path / "demo" / "domain" / "of-the-old-run.yaml"
    left.write_text("x")
    folder = RunFolder(tmp_path, "demo")
    with monkeypatch.context() as patch:
        patch.setattr(folder, "folder", faulty_folder(tmp_path / "demo", fault))
        with pytest.raises(Crash):
            folder.open(run_file(tmp_path), domain, fresh=True)
    assert left.exists() or (tmp_path / "demo" / "round-0").exists()
    with pytest.raises(InputError, match="is half deleted"):
        folder.manifest()
    with pytest.raises(InputError, match="is half deleted"):
        folder.hold()
    found = RunFolder(tmp_path, "demo")
    with found:
        assert not found.open(run_file(tmp_path), domain, fresh=fresh).resumed
    assert not left.exists()
    assert found.dialogues().names() == []
    assert "emptying" not in (found.manifest() or {})


def test_every_changed_key_is_named_and_the_domain_is_one(
    tmp_path: Path, domain: FakeDomain
) -> None:
    opened(tmp_path, domain).dialogues().write_bytes("part-a.parquet", b"x")
    other = FakeDomain(domain.folder, digest="d2")
    with pytest.raises(InputError) as caught:
        opened(tmp_path, other, run__seed=1)
    assert len(caught.value.findings) == 2
    assert 'domain.digest was "d1" and is now "d2"' in str(caught.value)


def test_the_starts_of_a_run_are_counted_through_fresh_ones(
    tmp_path: Path, domain: FakeDomain
) -> None:
    starts = []
    for fresh in (False, False, True, False):
        with RunFolder(tmp_path, "demo") as folder:
            starts.append(folder.open(run_file(tmp_path), domain, fresh=fresh).start)
    assert starts == [1, 2, 3, 4]


def test_fresh_deletes_a_run_and_nothing_else(tmp_path: Path, domain: FakeDomain) -> None:
    folder = opened(tmp_path, domain)
    folder.dialogues().write_bytes("part-a.parquet", b"x")
    opened(tmp_path, domain, fresh=True, run__seed=1)
    assert folder.dialogues().names() == []
    assert (folder.manifest() or {})["seed"] == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    with pytest.raises(InputError, match=r"holds something else \(thesis\.txt\)"):
        RunFolder(tmp_path, "mine").open(run_file(tmp_path), domain, fresh=True)
    (tmp_path / "mine" / "run.json").write_text("{}")
    with pytest.raises(InputError, match="is not Duologue"):
        RunFolder(tmp_path, "mine").open(run_file(tmp_path), domain, fresh=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run_file", 3),
        ("run_file.run", None),
        ("run_file.roles", ["small"]),
        ("run_file.roles.user", {}),
        ("run_file.engines", 3),
        ("run_file.engines.small", 3),
        ("run_file.engines.small.faults", 3),
        ("run_file.retrieval", None),
        ("run_file.policy", 3),
        ("domain", None),
        ("resumed", 3),
    ],
)
def test_a_run_json_of_another_shape_is_named(
    tmp_path: Path, domain: FakeDomain, key: str, value: Any
) -> None:
    opened(tmp_path, domain)
    path = tmp_path / "demo" / "run.json"
    content = here = json.loads(path.read_text())
    *parents, last = key.split(".")
    for parent in parents:
        here = here[parent]
    here[last] = value
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"run\.json is not readable: {key}"):
        opened(tmp_path, domain)


@pytest.mark.parametrize("version", ["0", "2", None])
def test_a_run_of_another_version_is_refused(
    tmp_path: Path, domain: FakeDomain, version: str | None
) -> None:
    opened(tmp_path, domain).log().write_bytes("log-a.parquet", b"x")
    path = tmp_path / "demo" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": version}))
    with pytest.raises(InputError, match=f"was written with schema version {version}"):
        opened(tmp_path, domain)
    with pytest.raises(InputError, match=f"was written with schema version {version}"):
        RunFolder(tmp_path, "demo").hold()
    opened(tmp_path, domain, fresh=True)


def test_a_bottomless_run_json_is_named(tmp_path: Path, domain: FakeDomain) -> None:
    opened(tmp_path, domain)
    (tmp_path / "demo" / "run.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"run\.json is not readable"):
        opened(tmp_path, domain)


def test_temporaries_of_a_crash_are_cleared(tmp_path: Path, domain: FakeDomain) -> None:
    folder = opened(tmp_path, domain)
    (tmp_path / "demo" / "round-0" / "log" / "_log-x.parquet").write_bytes(b"x")
    opened(tmp_path, domain)
    assert folder.log().names() == []


def test_places_that_cannot_be_used_are_named(tmp_path: Path, domain: FakeDomain) -> None:
    (tmp_path / "demo").write_text("a file")
    with pytest.raises(InputError, match="is a file, not a folder"):
        opened(tmp_path, domain)
    with pytest.raises(InputError, match="not a folder"):
        opened(tmp_path / "demo" / "below", domain)


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC])
def test_a_disk_that_takes_nothing_is_said_and_the_lock_is_free(
    tmp_path: Path, domain: FakeDomain, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(step: str, path: str) -> None:
        if "run.json" in path:
            raise OSError(code, os.strerror(code))

    folder = RunFolder(tmp_path, "demo")
    monkeypatch.setattr(folder, "folder", faulty_folder(tmp_path / "demo", fault))
    with pytest.raises(DuologueError, match=r"read-only|full"):
        folder.open(run_file(tmp_path), domain)
    assert opened(tmp_path, domain).manifest() is not None


def test_two_runs_at_once_are_refused_while_the_first_lives(
    tmp_path: Path, domain: FakeDomain
) -> None:
    opened(tmp_path, domain)
    program = (
        "import sys, time; from cluster.run_folder import RunFolder; "
        f"RunFolder({str(tmp_path)!r}, 'demo')._lock.take(); "
        "print('held', flush=True); time.sleep(99)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == b"held\n"
            with pytest.raises(InputError, match=rf"process {first.pid} on .* is writing"):
                opened(tmp_path, domain)
        finally:
            first.kill()
            first.wait(30)
    opened(tmp_path, domain)


def test_a_relative_place_under_ray_job_submit_is_refused() -> None:
    unpacked = "/tmp/ray/session_1/runtime_resources/working_dir_files/_ray_pkg_1"
    for environment, folder in (({JOB_VARIABLE: "{}"}, "/home/me"), ({}, unpacked)):
        with pytest.raises(InputError, match=r"--set run\.out=/shared/runs"):
            refuse_relative("runs", environment, folder)
        refuse_relative("/shared/runs", environment, folder)
        refuse_relative("s3://bucket/runs", environment, folder)
    refuse_relative("runs", {}, "/home/me")


def test_no_keys_are_written(tmp_path: Path, domain: FakeDomain) -> None:
    engine = {
        "kind": "openai",
        "url": "https://me:hunter2@host:8000/v1?api_key=hunter2&region=eu",
        "key_env": "MY_KEY",
        "vllm": {"hf_token": "hunter2", "nested": [{"password": "hunter2"}]},
    }
    opened(tmp_path, domain, engines__small=engine)
    text = (tmp_path / "demo" / "run.json").read_text()
    assert "hunter2" not in text
    assert "https://host:8000/v1?" in text
    assert "region=eu" in text
    assert '"MY_KEY"' in text
    assert opened(tmp_path, domain, engines__small=engine).manifest()
    assert without_secrets({"max_tokens": 5, "tokenizer": "t"}) == {
        "max_tokens": 5,
        "tokenizer": "t",
    }


def test_a_run_is_found_by_its_folder(tmp_path: Path, domain: FakeDomain) -> None:
    opened(tmp_path, domain)
    found = RunFolder.at(tmp_path / "demo")
    assert found.name == "demo"
    assert found.manifest()
    assert RunFolder.at("demo").folder == Folder.of("demo")
    assert RunFolder(tmp_path, "none").manifest() is None
    for place in (f"file://{tmp_path}/demo", tmp_path / "what?"):
        assert RunFolder.at(place).folder.path == str(place).removeprefix("file://")
    bucket = RunFolder.at("s3://bucket/runs/demo/?region=eu-west-1&scheme=http")
    assert (bucket.folder.path, bucket.name) == ("bucket/runs/demo", "demo")
