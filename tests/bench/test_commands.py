"""What a newcomer waits for: `duologue --help`, and the demo; and the gate with a better model.

make bench PYTEST_ARGS='-k help'
make bench PYTEST_ARGS='-k demo'
DUOLOGUE_GATE_MODEL=/path/to/model.gguf make bench PYTEST_ARGS='-k gate'
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.summary import lines, summarize
from specs.parts import Folder, read_dialogues


def test_help(capsys: Any) -> None:
    seconds = []
    for _ in range(5):
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "cluster.cli", "--help"], check=True, stdout=-3)
        seconds.append(time.monotonic() - began)
    with capsys.disabled():
        print(f"\nduologue --help: {statistics.median(seconds):.3f} s (median of 5)")


def generate(capsys: Any, out: Path, run_file: str, name: str, *settings: str) -> None:
    options = [option for setting in settings for option in ("--set", setting)]
    command = [sys.executable, "-m", "cluster.cli", "generate", run_file]
    began = time.monotonic()
    subprocess.run([*command, "--set", f"run.out={out}", *options], check=True, stdout=-3)
    seconds = time.monotonic() - began
    dialogues = Folder.of(out).child(name, "round-0", "dialogues")
    with capsys.disabled():
        print(f"\n{name}: {seconds:.0f} s with loading the model and everything")
        for text in lines(summarize(read_dialogues(dialogues))):
            print(f"  {text}")


def test_demo(capsys: Any, tmp_path: Path) -> None:
    generate(capsys, tmp_path, "specs/runs/demo.toml", "demo")


def test_gate(capsys: Any, tmp_path: Path) -> None:
    model = os.environ.get("DUOLOGUE_GATE_MODEL")
    if not model:
        pytest.skip("DUOLOGUE_GATE_MODEL names no GGUF file")
    settings = (f"engines.writer.model={model}", "run.dialogues=12")  # 64 would take an hour
    generate(capsys, tmp_path, "specs/runs/gate.toml", "gate", *settings)
