"""A run whose folder is in an object store: as good as a disk, in good days and in bad ones."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.run_folder import MANIFEST, RunFolder
from specs.errors import InputError
from specs.parts import read_rows
from specs.records import dialogue_schema
from tests.ray.command import Command, in_process, one_ray, run_file
from tests.ray.object_store import Store

KEYS = {"AWS_ACCESS_KEY_ID": "AKIATHEKEYITSELF", "AWS_SECRET_ACCESS_KEY": "the-secret-itself"}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    store = Store.make()
    yield store
    store.end()


def test_a_run_in_a_bucket_outlives_an_outage_and_its_driver(tmp_path: Path, store: Store) -> None:
    place = store.uri("bucket/runs")
    path = str(run_file(tmp_path, dialogues=60, latency=0.2, out=place))
    command = Command(("generate", path))
    assert command.says(r"dialogues [1-9]\d*/60"), command.said
    folder = RunFolder(place, "tea")
    with pytest.raises(InputError, match=f"process {command.process.pid} on .* is writing"):
        folder.hold()

    store.stop()
    assert command.says("dialogues"), command.said  # ten seconds on
    assert command.process.poll() is None
    store.start()
    assert command.says("dialogues"), command.said
    before = len(folder.log().names("log-"))
    assert before

    os.kill(command.process.pid, signal.SIGKILL)
    command.process.wait(60)
    with one_ray():
        code, said = in_process(
            "generate", path, "--set", "engines.ref.faults.latency_s=[0.0, 0.0]"
        )
    assert code == 0, said
    assert "of 60 dialogues are there already" in said
    found = [row["index"] for row in read_rows(folder.dialogues(), dialogue_schema(), ["index"])]
    assert sorted(found) == list(range(60))
    assert folder.log().names() == []

    code, said = in_process("curate", path, "--set=curate.test=0", "--set=curate.validation=0")
    assert code == 0, said
    assert "train.parquet" in folder.round().child("curated").names()
    written = folder.folder.read_bytes(MANIFEST).decode()
    assert "endpoint_override=127.0.0.1" in written
    assert not any(key in written for key in KEYS.values())
