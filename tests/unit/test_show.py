from __future__ import annotations

import io
import random
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from actors.sink import SinkCore, SinkLimits
from cluster.run_folder import RunFolder
from cluster.show import find_dialogue, print_dialogue, role_names
from specs.errors import InputError
from specs.records import CheckResult, Dialogue, StopReason
from tests.unit.durable_samples import make_dialogue, make_turn


def printed(dialogue: Dialogue, terminal: bool = False, width: int = 100, **options: object) -> str:
    out = io.StringIO()
    console = Console(
        file=out,
        force_terminal=terminal,
        width=width,
        color_system="truecolor" if terminal else None,
    )
    print_dialogue(console, dialogue, **options)  # type: ignore[arg-type]
    return out.getvalue()


def test_plain_text_without_a_terminal() -> None:
    dialogue = make_dialogue(7)
    long = replace(make_turn(0, "word " * 60), slots={}, checks=())
    text = printed(replace(dialogue, turns=(long, *dialogue.turns[1:])), width=40)
    assert text.isascii()
    assert "\x1b" not in text
    assert "documents: Tomato Soup\n" in text
    assert "stopped:   ended\n" in text
    assert "length:    4 turns, 9 s\n" in text
    assert f"[0 search_recipe] user: {'word ' * 60}".rstrip() in text  # neither wrapped nor cut
    assert "[1 show_results] agent: utterance 1\n" in text
    assert "(retrieved: r1 Tomato Soup (0.75); r2 (0.50))\n" in text
    assert '(called: search(query="tomato soup"))\n' in text


def test_marks_of_turns_that_went_wrong() -> None:
    turn = replace(make_turn(0), source="reference", checks=(CheckResult("mentions", 0.25, False),))
    repaired = replace(make_turn(1), source="repair", result={"ok": False}, reply={"shown": [1]})
    stopped = make_dialogue(
        0, turns=0, stop_reason=StopReason.NO_WORDS, error="nothing passed", documents=()
    )
    text = printed(replace(stopped, turns=(turn, repaired)))
    assert "(reference: " in text
    assert "(failed checks: mentions (0.25))" in text
    assert "(rejected candidates: 1)" in text
    assert "(repair: " in text
    assert '(result: {"ok":false})' in text
    assert "stopped:   no_words: nothing passed" in text
    assert "1 of them references" in text


def test_what_a_model_wrote_is_only_text() -> None:
    nasty = "[bold]no[/bold] [/] \x1b[2Jgone \x07\u202eback\ud800 [link=x]y[/link]\nsecond line"
    dialogue = make_dialogue(0, turns=0, persona=nasty, goal=nasty)
    turn = replace(make_turn(0, nasty), intent="[red]x", slots={"q": nasty})
    for terminal in (False, True):
        text = printed(replace(dialogue, turns=(turn,)), terminal)
        text.encode()
        assert "[bold]no[/bold] [/] [2Jgone back\ufffd [link=x]y[/link]" in text
        assert "\x1b[2J" not in text
        assert "\x07" not in text
        assert "\u202e" not in text


def test_a_terminal_gets_columns_that_fit() -> None:
    text = printed(make_dialogue(0), terminal=True, width=60)
    assert "\x1b[" in text
    assert not any(character in text for character in "│┃─━╭")
    plain = Console(width=60).render_str(text)
    assert max(len(line) for line in plain.plain.splitlines()) < 200


def test_names_and_prompts() -> None:
    names = {"user": "cook", "agent": "chef"}
    text = printed(make_dialogue(0), names=names, prompts=True, exact={1: "System: be kind\nchef:"})
    assert "cook: utterance 0" in text
    assert "    | System: be kind\n    | chef:\n[1 show_results] chef: utterance 1" in text
    assert "(prompt abcd: 0 tokens, 0 of them cached; m, seed" in text


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path, "demo")
    for token, indices in (("a", range(3)), ("b", range(3, 5)), ("c", [9])):
        core = SinkCore(run.round(), 0, 1, SinkLimits(), token)
        core.open()
        for index in indices:
            core.finish(make_dialogue(index), 1)
        batch = core.take_log()
        assert batch is not None
        core.log_written(batch, core.write_batch(batch))
        part = core.take_part()
        if part is not None and token != "c":  # the last is in the log alone
            core.write_rows(part)
            core.delete_logs(core.part_written(part))
    return run


def test_a_dialogue_is_found_wherever_it_is(run: RunFolder) -> None:
    assert find_dialogue(run, 4) == make_dialogue(4)
    assert find_dialogue(run, 9) == make_dialogue(9)
    assert find_dialogue(run, "first") == make_dialogue(0)
    assert find_dialogue(run, "walk-2") == make_dialogue(2)
    drawn = {find_dialogue(run, "random", generator=random.Random(n)).index for n in range(40)}
    assert drawn == {0, 1, 2, 3, 4, 9}


def test_what_is_not_there_is_said(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no dialogue 7\n.*6 finished dialogues, 0 to 9"):
        find_dialogue(run, 7)
    with pytest.raises(InputError, match="6 dialogues that begin so: walk"):
        find_dialogue(run, "walk")
    with pytest.raises(InputError, match="holds no finished dialogue"):
        find_dialogue(RunFolder(tmp_path, "none"), 0)


def test_role_names_come_from_the_runs_own_domain(run: RunFolder) -> None:
    assert role_names(run) == {"user": "user", "agent": "agent"}
    domain = run.folder.child("domain")
    domain.create()
    text = "roles: {user: {name: cook, system: x}, agent: {name: chef, system: y}}"
    domain.write_bytes("domain.yaml", text.encode())
    assert role_names(run) == {"user": "cook", "agent": "chef"}
