"""Curation of many dialogue rows: rows a second, and the memory that it takes.

make bench PYTEST_ARGS='-k curation'
DUOLOGUE_BENCH_ROWS=5000 make bench PYTEST_ARGS='-k curation'

A few hundred rehearsed dialogues are written again and again, each time with other words behind
their utterances, so that none is a copy of another; identities repeat, which nothing here minds.
Shown for the recipe domain with 26 turns a dialogue; the embedding is by word overlap.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cluster.generate import open_run_domain
from cluster.rehearsal import rehearse
from cluster.run_folder import RunFolder
from specs.parts import write_part
from specs.records import Dialogue
from specs.run_file import RunFile, validate
from tests.unit.durable_samples import arrow_rows

ROWS = int(os.environ.get("DUOLOGUE_BENCH_ROWS", "100000"))
PLAYED = 300
PART = 2000
OTHER_WORDS = 6
"""Put behind each utterance, of as many as a book may have."""

CODE = """
import json, resource, sys, time
from cluster.curate import curate
from specs.run_file import validate
run = validate(json.loads(sys.argv[1]), "bench")
began = time.monotonic()
stages = []
curated = curate(run, True, lambda text: stages.append((time.monotonic() - began, text)))
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
peaks = [one.ru_maxrss // 1024 for one in used]
cpu = sum(one.ru_utime + one.ru_stime for one in used)
measured = max(seconds for seconds, text in stages if text.startswith("measured"))
decided = max(seconds for seconds, text in stages if text.startswith("kept"))
print(json.dumps({"kept": curated.kept, "seconds": time.monotonic() - began, "peaks": peaks,
                  "measured": measured, "decided": decided, "cpu": cpu}))
"""


def run_file(out: Path) -> RunFile:
    return validate(
        {
            "run": {"name": "bench", "dialogues": ROWS, "out": str(out)},
            "domain": {"path": "recipe"},
            "engines": {"references": {"kind": "reference"}},
            "roles": {"user": "references", "agent": "references"},
            "retrieval": {"embedding": "lexical"},
            "curate": {
                "filters": [
                    {"kind": "ended"},
                    {"kind": "near_duplicates"},
                    {"kind": "top", "measure": "subgoals_relative", "share": 0.9},
                ]
            },
        },
        "bench",
    )


def varied(played: list[Dialogue], rows: int) -> Iterator[Dialogue]:
    draws = random.Random(0)

    def other() -> str:
        return " ".join(f"{draws.randrange(20_000):x}" for _ in range(OTHER_WORDS))

    for number in range(rows):
        dialogue = played[number % len(played)]
        turns = tuple(
            replace(turn, text=f"{turn.text} {other()}", source="model") for turn in dialogue.turns
        )
        yield replace(dialogue, turns=turns)


def write(run: RunFile, folder: RunFolder) -> None:
    domain = open_run_domain(run)
    with folder:
        folder.open(run, domain)
        held: list[Dialogue] = []
        parts = 0
        for dialogue in varied(rehearse(domain, min(ROWS, PLAYED), 0, 0), ROWS):
            held.append(dialogue)
            if len(held) == PART:
                write_rows(folder, parts, held)
                parts, held = parts + 1, []
        if held:
            write_rows(folder, parts, held)


def write_rows(folder: RunFolder, number: int, dialogues: list[Dialogue]) -> None:
    table = pa.Table.from_batches([arrow_rows(dialogues)])
    write_part(folder.dialogues(), f"part-{number:05}.parquet", table)


@pytest.mark.timeout(3 * 3600)
def test_curation(capsys: Any, tmp_path: Path) -> None:
    run = run_file(tmp_path)
    began = time.monotonic()
    write(run, RunFolder.of(run))
    written = time.monotonic() - began
    command = [sys.executable, "-c", CODE, run.model_dump_json()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(done.stdout)
    assert 0 < figures["kept"] <= ROWS
    seconds, (own, child) = figures["seconds"], figures["peaks"]
    with capsys.disabled():
        print(f"\ncuration of {ROWS} dialogues (written in {written:.0f} s): {seconds:.0f} s, ")
        print(f"  {ROWS / seconds:.0f} rows/s; kept {figures['kept']}")
        print(f"  {figures['cpu']:.0f} s of CPU ({ROWS / figures['cpu']:.0f} rows a CPU second)")
        print(f"  measuring {figures['measured']:.0f} s ({ROWS / figures['measured']:.0f} rows/s)")
        print(f"  deciding {figures['decided'] - figures['measured']:.0f} s")
        print(f"  writing {seconds - figures['decided']:.0f} s")
        print(f"  peak memory {own} MiB, and {child} MiB in the largest measuring process")
