import builtins
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cluster.cli import main
from cluster.domain_commands import TEMPLATE

RUN = """\
[run]
name = "played"
[domain]
path = "recipe"
[engines.e]
kind = "reference"
[roles]
user = "e"
agent = "e"
[retrieval]
embedding = "lexical"
"""

PROBLEM = "my front wheel wobbles"


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    file = tmp_path / "run.toml"
    file.write_text(RUN)
    return file


class Typist:
    """Types scripted lines, then ends the input; keeps the prompts that it was shown."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines: Iterator[str] = iter(lines)
        self.prompts: list[str] = []

    def __call__(self, prompt: str = "") -> str:
        self.prompts.append(prompt)
        line = next(self._lines, None)
        if line == "^C":
            raise KeyboardInterrupt
        if line is None:
            raise EOFError
        return line


Printed = pytest.CaptureFixture[str]


class Game:
    """Plays a domain, the template by default, with scripted lines."""

    def __init__(
        self,
        run_file: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: Printed,
        domain: Path = TEMPLATE,
    ) -> None:
        self._domain = domain
        self._run_file = run_file
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.typist = Typist([])

    def __call__(self, *lines: str, side: str = "user", code: int = 0) -> str:
        self.typist = Typist(lines)
        self._monkeypatch.setattr(builtins, "input", self.typist)
        arguments = ["play", str(self._domain), "--as", side, "--run", str(self._run_file)]
        try:
            main(arguments)
            exited = 0
        except SystemExit as done:
            exited = int(done.code or 0)
        assert exited == code
        return self._capsys.readouterr().out


@pytest.fixture
def game(run_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed) -> Game:
    return Game(run_file, monkeypatch, capsys)


def test_the_user_is_told_the_plan_and_answered(game: Game) -> None:
    out = game(PROBLEM, "")
    assert "goal:      Do this repair yourself today: true a wobbling wheel." in out
    assert "document:  True a wobbling wheel" in out
    assert "taken for 1 describe_problem" in out
    assert "  query [my front wheel wobbles from side to side]: " in game.typist.prompts
    assert "True a wobbling wheel" in out.rsplit("mechanic:", 1)[1]
    assert out.endswith("(you left)\n")


def test_words_are_taken_for_the_likeliest_edge_and_corrected(game: Game) -> None:
    chosen = (PROBLEM, "")
    out = game(*chosen, "Number 1, please.", "")
    assert "taken for 1 choose" in out
    assert "takes 40 minutes" in out
    out = game(*chosen, "Number 1, please.", "/as 2")
    assert "takes 40 minutes" not in out
    assert out.count("mechanic:") == 3  # it has answered the small talk
    out = game(*chosen, "/as 1 whatever I say")
    assert "takes 40 minutes" in out
    out = game(*chosen, "The traffic!", "Number 1, please.", "")
    assert "taken for 1 choose" in out  # said again in place of a yes


def test_a_slot_is_asked_for_until_its_value_is_one(game: Game) -> None:
    out = game(PROBLEM, "", "/as 1 the first", "/as 1 three times", "three times", "ONCE")
    assert "'three times', not one of" in out
    assert "wobbl" in out.lower()
    assert "rim comes closest" in out  # the first step has come


def test_commands_answer_without_taking_a_turn(game: Game) -> None:
    out = game("/help", "/intents", "/prompt", "/nonsense", "/as 9 x", "/as", "", "/quit")
    assert "/as NUMBER WORDS" in out
    assert "1 describe_problem: Describe the problem" in out
    assert "    | [Greet the rider and ask what is wrong with the bike.]" in out
    assert "no command /nonsense" in out
    assert out.count("a number from 1 to 1") == 2
    assert out.count("mechanic:") == 1


def test_a_whole_dialogue_ends(game: Game) -> None:
    steps = ["/as 1 done"] * 5
    out = game(PROBLEM, "", "/as 1 this one", "/as 1 never", "", *steps, "Thanks!")
    assert out.endswith("(ended; 19 turns)\n")


def test_the_agent_sees_its_task_and_what_was_retrieved(game: Game) -> None:
    out = game("What is wrong?", "/intents", "I have number 1, does it fit?", side="agent")
    assert "state greeting: Greet the rider" in out
    assert "called search(query=" in out
    assert "true-wheel True a wobbling wheel (" in out
    assert out.count("Offer these guides") == 2
    assert "state guide_chosen" in out
    assert "rider:" in out


def test_an_interruption_exits_130(game: Game) -> None:
    game(PROBLEM, "^C", code=130)


def test_a_run_file_that_is_not_there_is_said(
    capsys: Printed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as done:
        main(["play", str(TEMPLATE), "--run", "specs/runs/nothing.toml"])
    assert done.value.code == 2
    assert "no such run file" in capsys.readouterr().err


def test_the_run_files_documents_go_with_its_domain_however_it_is_named(
    run_file: Path, tmp_path: Path, game: Game
) -> None:
    corpus = tmp_path / "one.jsonl"
    lines = (TEMPLATE / "corpus.jsonl").read_text().splitlines()
    corpus.write_text(next(line for line in lines if '"new-chain"' in line))
    named = TEMPLATE / "domain.yaml"
    run_file.write_text(RUN.replace('path = "recipe"', f'path = "{named}"\ncorpus = "{corpus}"'))
    assert "document:  Replace a worn chain" in game()
    run_file.write_text(RUN.replace('"recipe"', f'"recipe"\ncorpus = "{corpus}"'))
    assert "document:  True a wobbling wheel" in game()  # the documents of another domain


def test_what_cannot_be_said_here_cannot_be_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_file: Path, capsys: Printed
) -> None:
    folder = tmp_path / "desk"
    shutil.copytree(TEMPLATE, folder)
    file = folder / "domain.yaml"
    said = "Make a remark about something else, such as the weather or the traffic."
    assert said in file.read_text()
    file.write_text(
        file.read_text().replace(said, "{{ (doc | default({'steps': [1,2,3,4,5,6]})).steps[5] }}")
    )
    game = Game(run_file, monkeypatch, capsys, folder)
    out = game(PROBLEM, "", "/intents", "/as 3 others")
    assert "(small_talk cannot be said here: " in out
    assert "2 small_talk" not in out
    assert "a number from 1 to 1" in out
