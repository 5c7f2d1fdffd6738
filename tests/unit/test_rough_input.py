"""What a hurried or a hostile user gives: each answer is short, true and no traceback."""

import io
import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from cluster import cli
from cluster.cli import main
from cluster.domain_commands import TEMPLATE
from cluster.person import read_line
from cluster.progress import Reporter
from specs.drawing import svg
from specs.errors import DuologueError, InputError, nearest
from specs.loader import load_domain, open_domain
from specs.run_file import load

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "specs" / "runs" / "demo.toml"
FAREWELL = 'say: "Wish a safe ride and say goodbye."'


def copied(folder: Path, old: str = "", new: str = "", file: str = "domain.yaml") -> Path:
    """Write the template with one change."""
    folder.mkdir()
    for path in TEMPLATE.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))
    return folder


def found(folder: Path) -> list[str]:
    """Return the findings, by the name of their file."""
    return [str(one).removeprefix(f"{folder}/") for one in load_domain(folder)[1]]


@pytest.mark.parametrize(
    "new",
    [
        "say: {{ doc.title }}",
        "say: Say this: goodbye",
        'say: "Wish a safe ride',
        "\tsay: goodbye",
        'say: "\\ud800"',
        "say: " + "[" * 50,
    ],
)
def test_what_stands_behind_broken_yaml_is_not_called_missing(tmp_path: Path, new: str) -> None:
    messages = found(copied(tmp_path / "d", FAREWELL, new))
    assert 1 <= len(messages) <= 2
    assert all(one.startswith("domain.yaml:3") for one in messages), messages


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (FAREWELL, "say: {file: .}", "the prompt file '.' is a folder, not a file"),
        ("set: {step: memory.step + 1}", 'set: {step: "{{ 1 }}"}', "leave out the `{{ }}`"),
        ('"Hello, {{ slots.query }}."', '"Hello, {{ slots.query }."', "at character 23 of"),
        ("when: result.ok", "when: result.ok = true", "unexpected '=' (at character 11"),
        ("max_turns: 40", "max_turns: -4", "at least 2 are needed"),
        ("path: corpus.jsonl", "path: corpsu.jsonl", "did you mean 'corpus.jsonl'?"),
    ],
)
def test_one_mistake_is_one_finding(tmp_path: Path, old: str, new: str, message: str) -> None:
    messages = found(copied(tmp_path / "d", old, new))
    assert len(messages) == 1, messages
    assert message in messages[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"minutes": 25,', '"minutes": 25', "corpus.jsonl:2:125: error: is not JSON: Expecting"),
        ('"minutes": 25,', '"minutes": 1e999,', "corpus.jsonl:2: error: is not JSON: 1e999"),
        ("Change the", "Change \\ud83d the", "corpus.jsonl:2: error: holds half a character"),
    ],
)
def test_one_bad_line_of_a_corpus(tmp_path: Path, old: str, new: str, message: str) -> None:
    messages = found(copied(tmp_path / "d", old, new, "corpus.jsonl"))
    assert len(messages) == 1, messages
    assert messages[0].startswith(message)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    folder = copied(tmp_path / "d", FAREWELL, "say: {file: say.jinja}")
    (folder / "say.jinja").write_bytes(b"\xff")
    assert found(folder) == [
        "say.jinja:1:1: error: the prompt file is not UTF-8\n    save the file as UTF-8",
    ]
    (folder / "corpus.jsonl").unlink()
    os.mkfifo(folder / "corpus.jsonl")
    assert "'corpus.jsonl' is no regular file" in found(folder)[0]


def test_a_check_without_parentheses(tmp_path: Path) -> None:
    (message,) = found(copied(tmp_path / "d", "max_words(30)", "max_words 30"))
    assert "its arguments stand in parentheses" in message


def test_whole_characters_in_escapes_are_no_finding(tmp_path: Path) -> None:
    folder = copied(tmp_path / "d", "Change the", "Change \\ud83d\\ude00 the", "corpus.jsonl")
    assert found(folder) == []


def test_a_corpus_that_is_no_text_is_not_called_empty_too(tmp_path: Path) -> None:
    folder = copied(tmp_path / "d")
    (folder / "corpus.jsonl").write_bytes(b"\xff\xfe\n")
    assert found(folder) == [
        "corpus.jsonl:1: error: is not UTF-8\n    save the file as UTF-8",
    ]


def test_looking_for_a_near_name_is_bounded() -> None:
    assert nearest("x" * 100_000, ["x" * 99_999]) == ""
    assert nearest("stat", ["state"]) == "; did you mean 'state'?"


def test_control_characters_reach_neither_terminal_nor_drawing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(tmp_path / "d", "domain: bike_desk", 'domain: "bike\\e[31m\\adesk"')
    main_code(["domain", "check", str(folder)])
    printed = capsys.readouterr().out
    assert "bike[31mdesk" in printed
    assert "\x07" not in printed
    ET.fromstring(svg(open_domain(folder)))


@pytest.mark.parametrize("setting", ["run.out=", "run.name=a/b", "run.name=" + "[" * 5000])
def test_settings_that_name_no_place(setting: str) -> None:
    with pytest.raises(InputError):
        load(DEMO, [setting])


def test_a_run_file_nested_without_end(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("a = " + "[" * 50_000)
    with pytest.raises(InputError, match="nested too deeply"):
        load(file)


def test_bytes_that_are_no_text_can_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    piped = io.TextIOWrapper(io.BytesIO(b"\xff bike\n"), "utf-8", "surrogateescape")
    monkeypatch.setattr("sys.stdin", piped)
    said = read_line("> ")
    assert said == "? bike"
    json.dumps(said, ensure_ascii=False).encode()


def test_a_fault_of_ours_is_said_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr(cli.cli, "main", broken)
    assert main_code(["domain", "check", "recipe"]) == 1
    assert "unexpected KeyError: 'lost'" in capsys.readouterr().err
    with pytest.raises(KeyError):
        main(["--debug", "domain", "check", "recipe"])


@pytest.mark.parametrize(
    "arguments", [["show", "x", "--index", "1", "--random"], ["play", "recipe", "--index", "-1"]]
)
def test_indices_that_make_no_sense(arguments: list[str]) -> None:
    assert main_code(arguments) == 2


def main_code(arguments: list[str]) -> int:
    """Run the command line; returns its exit code."""
    try:
        main(arguments)
    except SystemExit as done:
        return int(done.code or 0)
    return 0


@pytest.mark.parametrize("error", [DuologueError, RuntimeError, InputError])
def test_a_servers_words_do_not_steer_the_terminal(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error("it answers: \x1b[2J\x1b]0;owned\x07 gone\n    Try later.")

    monkeypatch.setattr("cluster.domain_commands.check", fail)
    with pytest.raises(SystemExit):
        main(["domain", "check", "recipe"])
    Reporter().say("warning: \x1b[31mred\x9b")
    said = capsys.readouterr().err
    assert "gone\n    Try later." in said
    assert "warning: [31mred\n" in said
    assert not {"\x1b", "\x07", "\x9b"} & set(said)
