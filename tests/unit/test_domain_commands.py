import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from cluster import walk_sample
from cluster.cli import main
from cluster.domain_commands import TEMPLATE
from specs.loader import open_domain
from specs.scene import Walked


def command(*arguments: str | Path) -> int:
    """Run the command line and return its exit code."""
    try:
        main(["domain", *map(str, arguments)])
    except SystemExit as done:
        return int(done.code or 0)
    return 0


def changed(folder: Path, *changes: tuple[str, str]) -> Path:
    """Write the template with changes, each of which must apply."""
    shutil.copytree(TEMPLATE, folder)
    file = folder / "domain.yaml"
    text = file.read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after, 1)
    file.write_text(text)
    return folder


Printed = pytest.CaptureFixture[str]


# -- new


def test_new_writes_a_domain_that_passes_the_check(tmp_path: Path, capsys: Printed) -> None:
    folder = tmp_path / "mine"
    assert command("new", folder) == 0
    out = capsys.readouterr().out
    assert out.count("  duologue domain ") == 3
    assert command("check", folder) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["full", "full/file.txt"])
def test_new_overwrites_nothing(tmp_path: Path, capsys: Printed, name: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file.txt").write_text("mine")
    assert command("new", tmp_path / name) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file.txt"]


# -- check


def test_check_prints_every_error_once_and_exits_2(tmp_path: Path, capsys: Printed) -> None:
    changes = [
        ("to: guide_chosen", "to: guide_choosen"),
        ("not memory.borrowed", "not memory.borowed"),
    ]
    assert command("check", changed(tmp_path / "d", *changes)) == 2
    printed = capsys.readouterr()
    text = printed.out + printed.err
    assert text.count("did you mean 'guide_chosen'") == 1
    assert text.count("'borowed'") + text.count("borowed`") >= 1
    lines = (tmp_path / "d" / "domain.yaml").read_text().splitlines()
    line = next(number for number, one in enumerate(lines, 1) if "guide_choosen" in one)
    assert f"domain.yaml:{line}:" in text
    assert "errors, " in text.splitlines()[-1]


def test_check_of_nothing_says_where_there_is_something(capsys: Printed) -> None:
    assert command("check", "recipes") == 2
    assert "did you mean 'recipe'" in capsys.readouterr().out


def test_check_measures_what_cannot_be_decided(tmp_path: Path, capsys: Printed) -> None:
    changes = [
        ("when: not memory.borrowed,", "when: memory.step > 90,"),  # a guard that never holds
        ("max_turns: 40", "max_turns: 14"),  # loops that do not come to an end in time
    ]
    assert command("check", changed(tmp_path / "d", *changes)) == 0
    out = capsys.readouterr().out
    assert "the guard `memory.step > 90` never held" in out
    for state in ("lend", "tool_lent", "tool_out"):
        assert f"no way led to the state {state!r}" in out
    assert "reach the limit of 14 turns" in out
    assert "0 errors, 5 warnings" in out


def test_check_measures_stuck_walks_and_errors(tmp_path: Path, capsys: Printed) -> None:
    changes = [
        (
            "{from: guide_chosen, intent: tell",
            "{from: guide_chosen, when: memory.page, intent: tell",
        ),
    ]
    assert command("check", changed(tmp_path / "stuck", *changes)) == 0
    assert "are stuck in 'guide_chosen'" in capsys.readouterr().out
    failing = changed(tmp_path / "failing", ("page: memory.page\n", "page: memory.page - 1\n"))
    assert command("check", failing) == 0
    assert "stop with an error: search: pages count from 0" in capsys.readouterr().out


def test_a_guard_that_fails_is_not_said_never_to_hold(tmp_path: Path) -> None:
    failing = ("when: not memory.borrowed,", "when: 1 / 0 > turn,")
    found = walk_sample.measured(open_domain(changed(tmp_path / "d", failing)), 0, 40)
    assert any("stop with an error" in one.message for one in found)
    assert not any("never held" in one.message for one in found)


def test_a_rare_state_is_no_finding() -> None:
    domain = open_domain(TEMPLATE)
    assert walk_sample.measured(domain, 0, 3) == []  # three walks do not see every state
    seen = {step.to for walk in walk_sample.sample(domain, 0, 3).walks for step in walk.path}
    assert set(domain.states) - seen - {domain.start}


def test_what_never_happened_is_looked_for_on_more_walks(tmp_path: Path) -> None:
    rare = ("when: not memory.borrowed,", "when: turn > 20,")  # most walks end before
    domain = open_domain(str(changed(tmp_path / "rare", rare)))
    seen = {step.to for walk in walk_sample.sample(domain, 0, 4).walks for step in walk.path}
    assert "lend" not in seen
    assert walk_sample.measured(domain, 0, 4) == []  # 20 walks see it


def test_sampling_ends_however_costly_the_walks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk_sample, "WORK", 2_000_000)
    costly = "when: \"'a b c ' | replace(' ', 'xxxxxxxxxx') | list | sort | length > 1\","
    domain = open_domain(changed(tmp_path / "d", ("when: not memory.borrowed,", costly)))
    found = walk_sample.measured(domain, 0, 5_000)
    (cut,) = [one for one in found if "sampling was cut short after" in one.message]
    assert cut.where == domain.states[domain.start].where


def test_check_takes_other_documents(tmp_path: Path, capsys: Printed) -> None:
    corpus = tmp_path / "mine.jsonl"
    corpus.write_text('{"id": "x", "title": "A title and nothing else"}\n')
    assert command("check", TEMPLATE, "--corpus", corpus) == 2
    assert "no document has `doc.steps`" in capsys.readouterr().out


# -- show


def test_show_prints_figures_and_draws(tmp_path: Path, capsys: Printed) -> None:
    svg, mermaid = tmp_path / "g.svg", tmp_path / "g.mmd"
    assert command("show", TEMPLATE, "--walks", "80", "--svg", svg, "--mermaid", mermaid) == 0
    out = capsys.readouterr().out
    for part in ("13 states (2 silent", "80 sampled walks", "median", "documents: 6 of 6"):
        assert part in out
    assert svg.read_text().startswith("<svg")
    assert mermaid.read_text().startswith("flowchart")


def test_show_marks_what_is_never_reached_and_sorts_rarest_first(
    tmp_path: Path, capsys: Printed
) -> None:
    domain = changed(tmp_path / "d", ("when: not memory.borrowed,", "when: memory.step > 90,"))
    assert command("show", domain, "--walks", "20") == 0
    lines = capsys.readouterr().out.splitlines()
    states = lines.index(next(line for line in lines if line.startswith("  states ")))
    assert [line.split()[0] for line in lines[states + 1 : states + 4]] == [
        "lend",
        "tool_lent",
        "tool_out",
    ]
    assert all(line.endswith("never") for line in lines[states + 1 : states + 4])


def test_show_refuses_no_walks_and_a_place_it_cannot_write(tmp_path: Path, capsys: Printed) -> None:
    assert command("show", TEMPLATE, "--walks", "0") == 2
    assert command("show", TEMPLATE, "--walks", "1", "--svg", tmp_path / "no" / "g.svg") == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("turns", [[5], [3, 3, 3], list(range(2, 61, 2)), [1, 400]])
def test_a_histogram_counts_every_walk_once(turns: Sequence[int]) -> None:
    lines = walk_sample.histogram(turns)
    assert sum(int(line.split()[1]) for line in lines) == len(turns)
    assert len(lines) <= 12
    assert sum("#" * 50 in line for line in lines) >= 1


def test_percentiles_are_of_the_nearest_rank() -> None:
    values = list(range(1, 101))
    assert walk_sample.percentile(values, 0.05) == 5
    assert walk_sample.percentile(values, 0.95) == 95
    assert walk_sample.percentile([7], 0.95) == 7


def test_visits_count_walks_and_times() -> None:
    domain = open_domain(TEMPLATE)
    walks: list[Walked] = list(walk_sample.sample(domain, 0, 10).walks)
    visits = {one.name: one for one in walk_sample.state_visits(domain, walks)}
    assert visits["goodbye"].count == visits["goodbye"].walks == 10
    assert visits["show_step"].count > visits["show_step"].walks == 10
    intents = {one.name for one in walk_sample.intent_visits(domain, walks)}
    assert intents == {*domain.intents, "(all_done to goodbye)"}


# -- rehearse


def test_rehearse_prints_dialogues_in_full(capsys: Printed) -> None:
    assert command("rehearse", TEMPLATE, "-n", "2", "--first", "5") == 0
    out = capsys.readouterr().out
    assert "5 of rehearsal" in out
    assert "6 of rehearsal" in out
    assert "mechanic: " in out
    assert "rider: " in out


def test_rehearse_refuses_no_dialogues() -> None:
    assert command("rehearse", TEMPLATE, "-n", "0") == 2
