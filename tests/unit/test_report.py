"""`duologue report` on small runs: what the page says, and that nothing in it is obeyed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cluster.report as reporting
from cluster.curate import curate
from cluster.held_out import identity
from cluster.rehearsal import rehearse
from cluster.report import report
from cluster.report_data import LEAST, READ, drawn, mean, quantile
from cluster.report_graph import labelled, png, traffic_svg
from cluster.report_plots import losses, short
from cluster.report_sections import KINDS
from cluster.run_folder import RunFolder
from specs.domain import Domain
from specs.errors import DuologueError, InputError
from specs.loader import open_domain
from specs.parts import Folder, write_part
from specs.records import Dialogue, StopReason, Turn, dialogue_row, dialogue_schema
from specs.run_file import RunFile, validate
from tests.unit.tiny_domain import tiny
from trainer.bootstrap import Resamples
from trainer.comparison import comparison, results
from trainer.consistency import KINDS as INCONSISTENT
from trainer.evaluation import Prediction
from trainer.figures import Marked, add_up
from trainer.scoring import Card, correct

PNG = b"\x89PNG\r\n\x1a\n"

HOSTILE = (
    "<script>alert(1)</script>",
    "\"quoted\" & 'so' <img src=x onerror=alert(1)>",
    "أهلاً، هل تريد <b>شاياً</b>؟",
    "你好！我想喝茶 🍵👩‍🍳",
    "{{ 7 * 7 }} {% raw %} $x^2$",
    "long " * 3000 + "END",
    "red \x1b[31m and \u202edesrever",
)


def run_file(out: Path | str, **sections: Any) -> RunFile:
    data: dict[str, Any] = {
        "run": {"name": "kiosk", "out": str(out), "dialogues": 30},
        "domain": {"path": str(Path(str(out).removeprefix("file://")) / "domain")},
        "engines": {"ref": {"kind": "reference"}},
        "roles": {"user": "ref", "agent": "ref"},
        "retrieval": {"embedding": "lexical"},
        **sections,
    }
    return validate(data, "run.toml")


def written(run: RunFile, domain: Domain, dialogues: Sequence[Dialogue]) -> RunFolder:
    """Make a run of dialogues."""
    folder = RunFolder.of(run)
    folder.open(run, domain)
    folder.close()
    rows = [dialogue_row(replace(one, run=run.run.name)) for one in dialogues]
    table = pa.Table.from_pylist(rows, schema=dialogue_schema())
    write_part(folder.dialogues(), "part-000of001-000001-aaaaaaaa.parquet", table)
    return folder


def spoken(dialogue: Dialogue, change: Callable[[Turn], Turn]) -> Dialogue:
    return replace(dialogue, turns=tuple(map(change, dialogue.turns)))


def own(dialogue: Dialogue) -> Dialogue:
    return spoken(dialogue, lambda turn: replace(turn, source="model", model="small"))


class Seen(HTMLParser):
    """What a browser makes of a page: text, tags with their attributes, and what is left open."""

    VOID = ("meta", "img", "input", "br", "link")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.crossed: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.crossed.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data

    def count(self, tag: str) -> int:
        return sum(one == tag for one, _ in self.tags)


def seen(run: RunFile) -> Seen:
    path = report(run, lambda text: None)
    return Seen(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Domain:
    return tiny(tmp_path_factory.mktemp("report") / "domain")


@pytest.fixture(scope="module")
def dialogues(domain: Domain) -> list[Dialogue]:
    return [own(one) for one in rehearse(domain, 30, 0, 0)]


# -- the page


def test_a_run_that_was_only_played_says_what_to_do_next(
    tmp_path: Path, domain: Domain, dialogues: list[Dialogue]
) -> None:
    run = run_file(tmp_path)
    folder = written(run, domain, dialogues)
    page = seen(run)
    assert page.open == page.crossed == []
    for command in ("curate", "train", "evaluate"):
        assert f"duologue {command} RUN.toml" in page.text
    assert "30" in page.text
    assert "not curated" in page.text
    assert page.text.count("keeper") >= READ
    shown = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(shown) == 4
    assert all(one["alt"] and str(one["src"]).startswith("data:image/svg") for one in shown)
    names = folder.round().child("report").names()
    assert names == ["coverage.png", "funnel.png", "graph.png", "lengths.png"]
    assert all(folder.round().child("report").read_bytes(name)[:8] == PNG for name in names)


def test_what_was_said_is_shown_and_never_obeyed(
    tmp_path: Path, domain: Domain, dialogues: list[Dialogue]
) -> None:
    texts = iter(HOSTILE * 50)

    def change(turn: Turn) -> Turn:
        text = next(texts)
        return replace(turn, text=text, rejected=(text, "no"), source="repair", slots={"q": text})

    run = run_file(tmp_path)
    hostile = [spoken(one, change) for one in dialogues[:3]]
    written(run, domain, [replace(one, goal=HOSTILE[1], persona=HOSTILE[0]) for one in hostile])
    page = seen(run)
    assert page.open == page.crossed == []
    assert page.count("script") == 1  # the page's own
    assert page.count("b") == 0
    assert not any("onerror" in attrs for _, attrs in page.tags)
    for text in HOSTILE[:5]:
        assert text in page.text
    assert "END" not in page.text
    assert "more characters)" in page.text
    assert "\x1b" not in page.text
    assert "\u202e" not in page.text
    spoken_in = [attrs for tag, attrs in page.tags if tag == "p" and attrs.get("class") == "text"]
    assert {attrs.get("dir") for attrs in spoken_in} == {"auto"}


def test_the_page_loads_nothing(tmp_path: Path, domain: Domain, dialogues: list[Dialogue]) -> None:
    run = run_file(tmp_path)
    written(run, domain, dialogues[:2])
    page = seen(run)
    policy = next(str(a["content"]) for t, a in page.tags if a.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    for tag, attrs in page.tags:
        for name in ("src", "href", "data", "action", "poster", "srcset"):
            place = attrs.get(name)
            assert place is None or place.startswith(("data:image/", "#")), (tag, attrs)
    assert page.count("link") == page.count("iframe") == 0


def test_tables_have_headers_and_sections_have_headings(
    tmp_path: Path, domain: Domain, dialogues: list[Dialogue]
) -> None:
    run = run_file(tmp_path)
    written(run, domain, dialogues[:2])
    page = seen(run)
    scopes = Counter(attrs.get("scope") for tag, attrs in page.tags if tag == "th")
    assert scopes["col"] > 5
    assert scopes["row"] > 5
    assert set(scopes) == {"col", "row"}
    assert page.count("caption") == page.count("table") > 3
    assert page.count("h1") == 1
    assert page.count("h2") == page.count("section")


# -- with what the later stages leave


def learned(folder: RunFolder) -> None:
    """Write a training's log and an evaluation, by the code that makes them."""
    rows = [{"step": s, "loss": 3.0 / s, "tokens_s": 50.0} for s in range(1, 9)]
    rows[3]["eval_loss"] = 0.875
    log = "".join(json.dumps(row) + "\n" for row in rows)
    for name, file, text in (
        ("training", "log.jsonl", log),
        ("adapter", "manifest.json", json.dumps({"base_model": "small<b>", "a": {"rank": 16}})),
    ):
        folder.round().child(name).create()
        folder.round().child(name).write_bytes(file, text.encode())
    card = Card({"ask": {"query": "text"}, "choose": {"option": "integer"}}, {})
    systems = {
        name: add_up(card, marked(card, said), [f"w{i}" for i in range(8)])
        for name, said in (("adapter", "ask"), ("untuned", "fly"))
    }
    resamples = Resamples.draw(8, 100, 0)
    found = results(systems, resamples)
    place = folder.round().child("evaluation")
    place.create()
    content = {"data": {"dialogues": 8, "turns": 8}, **comparison(systems, found, resamples)}
    for name, one in {**found, "comparison": content}.items():
        place.write_bytes(f"{name}.json", json.dumps(one).encode())


def marked(card: Card, said: str) -> list[Marked]:
    """Return eight understandings: six of `ask`, two of `choose`; the system always says one."""
    gold = ["ask"] * 6 + ["choose"] * 2
    texts = [json.dumps({"intent": one, "slots": {}}) for one in gold]
    guess = json.dumps({"intent": said, "slots": {}})
    return [
        Marked(
            Prediction(f"w{place}", 2, 1 + place, "understanding", text, guess),
            correct(card, "understanding", text, guess),
        )
        for place, text in enumerate(texts)
    ]


def rows_of(page: str, caption: str) -> dict[str, list[str]]:
    """Return a table's rows by their headers."""
    table = page[page.index(f"<caption>{caption}") :]
    tree = ET.fromstring("<t>" + table[table.index("<tbody>") : table.index("</table>")] + "</t>")
    rows = (["".join(cell.itertext()) for cell in row] for row in tree.iter("tr"))
    return {row[0]: row[1:] for row in rows}


def test_all_stages_are_in_the_report(
    tmp_path: Path, domain: Domain, dialogues: list[Dialogue]
) -> None:
    run = run_file(tmp_path, curate={"test": 0.2, "validation": 0.2})
    bad = [
        replace(one, stop_reason=StopReason.TURN_LIMIT) if one.index % 5 == 0 else one
        for one in dialogues
    ]
    folder = written(run, domain, bad)
    curated = curate(run, False, lambda text: None)
    learned(folder)
    path = report(run, lambda text: None)
    page = path.read_text(encoding="utf-8")
    assert "has not been" not in page
    funnel = rows_of(page, "Dialogues left after each step")
    assert funnel["played"] == ["30"]
    assert funnel["kept"] == [str(curated.kept)]
    found = rows_of(page, "Dialogues with inconsistencies, before and after curation")
    assert found["stopped for another reason than an end state"][0] == "6"
    assert found["stopped for another reason than an end state"][2] == "0"
    evaluated = rows_of(page, "All systems side by side")["intent accuracy"]
    assert evaluated[0].startswith("0.750 [")
    assert evaluated[1].startswith("0.000 [")
    assert rows_of(page, "Most frequent mistakes of adapter") == {"choose taken for ask": ["2"]}
    assert rows_of(page, "Most frequent mistakes of untuned")["ask taken for (unknown)"] == ["6"]
    assert rows_of(page, "By position: intent accuracy")["1 (1)"][0].startswith("1.000")
    assert rows_of(page, "Losses at each validation") == {"4": ["0.875", "0.75", "50"]}
    assert rows_of(page, "The adapter")["base_model"] == ["small<b>"]
    assert page.count('class="badge kept"') + page.count('class="badge dropped"') == READ
    assert page.count('class="badge dropped"') >= LEAST
    assert "dropped: ended" in page
    names = folder.round().child("report").names()
    drawn_ = ["confusion-adapter", "confusion-untuned", "coverage", "diversity", "evaluation"]
    drawn_ += ["evaluation-by-turn", "frontier", "funnel", "graph", "lengths", "losses"]
    assert set(names) == {f"{name}.png" for name in drawn_}

    # What is not made any more goes; what is not the report's stays.
    folder.round().child("evaluation").delete("comparison.json")
    folder.round().child("report").write_bytes("mine.png", PNG)
    report(run, lambda text: None)
    names = folder.round().child("report").names()
    assert "confusion-adapter.png" not in names
    assert "mine.png" in names


def test_what_the_adapters_are_and_on_how_much_they_were_trained_is_told(
    tmp_path: Path, domain: Domain, dialogues: list[Dialogue]
) -> None:
    run = run_file(tmp_path)
    folder = written(run, domain, dialogues[:2])
    learned(folder)
    manifest: dict[str, Any] = {"training": "abc", "made": "today"}
    amounts = {"dialogues": 1000, "examples": 900, "trained_tokens": None, "steps": 40}
    evaluation, adapter = (folder.round().child(name) for name in ("evaluation", "adapter"))
    comparison_ = json.loads(evaluation.read_bytes("comparison.json"))
    comparison_["adapters"] = {
        "adapter": {**identity(manifest), "trained_on": amounts},
        "single_prompt": {"trained_on": {**amounts, "dialogues": 800}},
    }
    evaluation.write_bytes("comparison.json", json.dumps(comparison_).encode())
    for now, other in ((manifest, False), ({**manifest, "training": "abd"}, True)):
        adapter.write_bytes("manifest.json", json.dumps(now).encode())
        page = seen(run)
        assert page.text.count("These figures are of another adapter") == 2 * other
        assert page.text.count("of another adapter than is there now") == other
        assert "were not trained on as much: 1,000 and 800 dialogues (" in page.text
        path = folder.round().file("report.html")
        amounts_ = rows_of(Path(path).read_text(), "What the adapters were trained on")
        assert amounts_["dialogues"] == ["1,000", "800"]
        assert set(amounts_) == {"dialogues", "examples", "steps"}


def test_dialogues_played_after_the_curation_are_told(
    tmp_path: Path, domain: Domain, dialogues: list[Dialogue]
) -> None:
    run = run_file(tmp_path)
    folder = written(run, domain, dialogues[:20])
    curate(run, False, lambda text: None)
    table = pa.Table.from_pylist([dialogue_row(dialogues[20])], schema=dialogue_schema())
    write_part(folder.dialogues(), "part-000of001-000002-aaaaaaaa.parquet", table)
    assert "21 dialogues are there, 20 were curated" in seen(run).text


def test_the_report_lies_beside_the_run_by_uri_too(
    tmp_path: Path, domain: Domain, dialogues: list[Dialogue]
) -> None:
    run = run_file(f"file://{tmp_path}")
    written(run, domain, dialogues[:2])
    path = report(run, lambda text: None)
    assert path == tmp_path / "kiosk" / "round-0" / "report.html"
    assert path.is_file()


def test_a_domain_that_is_gone_costs_only_its_drawing(
    tmp_path: Path, domain: Domain, dialogues: list[Dialogue]
) -> None:
    run = run_file(tmp_path)
    folder = written(run, domain, dialogues[:2])
    folder.folder.child("domain").write_bytes("domain.yaml", b"domain: another")
    page = seen(run)
    assert "The graph cannot be drawn" in page.text
    assert "Traffic of each edge" in page.text


# -- the graph


def test_arrows_are_as_wide_as_their_traffic(domain: Domain, dialogues: list[Dialogue]) -> None:
    traffic = Counter((s.from_, s.intent, s.to) for one in dialogues for s in one.path)
    drawing = traffic_svg(domain, labelled(domain, traffic))
    found = {}
    for path in ET.fromstring(drawing).iter("{http://www.w3.org/2000/svg}path"):
        title = path.find("{http://www.w3.org/2000/svg}title")
        if title is not None:
            style = dict(one.split(":") for one in path.attrib["style"].split(";"))
            found[title.text] = float(style["stroke-width"])
    asked = traffic["hello", "ask", "look_up"]
    moved = traffic["look_up", "", "offer"]
    assert min(asked, moved) > 0
    assert found[f"hello: ask → look_up: {asked}"] > 2
    assert found[f"look_up → offer: {moved}"] > 2
    idle = [width for title, width in found.items() if title and title.endswith(": 0")]
    assert set(idle) <= {1.0}
    most = max(found, key=lambda title: found[title])
    assert int(str(most).rpartition(": ")[2]) == max(
        int(str(title).rpartition(": ")[2]) for title in found
    )
    assert png(drawing)[:8] == PNG


ASIDES = """\
domain: bridge
description: Crosses.
open: user
memory: {n: 0}
roles: {user: {name: u, system: U.}, agent: {name: a, system: A.}}
intents:
  chat: {say: "Chat.", reference: ["Nice."]}
states:
  begin: {say: "Go.", reference: ["Go."]}
  jest: {say: "Jest.", reference: ["Ha."], digression: true}
  sigh: {say: "Sigh.", reference: ["Oh."], digression: true}
  done: {say: "Bye.", reference: ["Bye."]}
edges:
  - {from: begin, intent: chat, to: jest, when: memory.n == 0, set: {n: 1}}
  - {from: begin, intent: chat, to: sigh, when: memory.n == 1, set: {n: 2}}
  - {from: begin, to: done, say: "Say that you have crossed the bridge.", reference: ["Over."]}
start: begin
end: [done]
"""


def test_lines_of_one_intent_and_edges_without_a_name_keep_their_own_counts(
    tmp_path: Path,
) -> None:
    (tmp_path / "domain.yaml").write_text(ASIDES)
    domain = open_domain(str(tmp_path), None, None)
    steps = {("begin", "chat", "jest"): 5, ("begin", "chat", "sigh"): 3, ("begin", "", "done"): 8}
    traffic = labelled(domain, steps)
    assert traffic["begin", "Say that you have ...", "done"] == 8
    root = ET.fromstring(traffic_svg(domain, traffic))
    svg = "{http://www.w3.org/2000/svg}"
    lines = {float(t.attrib["y"]): t.text for t in root.findall(f"{svg}g/{svg}text")}
    counts = {float(t.attrib["y"]) + 4: t.text for t in root.findall(f"{svg}text")}
    said = {lines[y]: int(str(text)) for y, text in counts.items()}
    assert said == {"chat ↩ jest": 5, "chat ↩ sigh": 3, "Say that you have ...": 8}


# -- figures and samples


@given(st.lists(st.sampled_from([True, False, None]), max_size=80), st.integers(0, 5))
def test_the_dialogues_to_read_are_of_both_kinds(verdicts: list[bool | None], seed: int) -> None:
    rows = [(str(place), verdict) for place, verdict in enumerate(verdicts)]
    chosen = drawn(rows, seed)
    assert chosen == drawn(rows, seed)
    assert len(chosen) == min(READ, len(rows))
    dropped = {name for name, verdict in rows if verdict is False}
    kept = {name for name, _ in rows} - dropped
    assert len(chosen & dropped) >= min(LEAST, len(dropped))
    assert len(chosen & kept) >= min(LEAST, len(kept))


def test_every_dialogue_is_as_likely_to_be_read() -> None:
    counts: Counter[str] = Counter()
    rows: list[tuple[str, bool | None]] = [(str(i), i % 2 == 0) for i in range(60)]
    for seed in range(600):
        counts.update(drawn(rows, 7 * seed))
    assert len(counts) == 60
    assert all(130 < count < 270 for count in counts.values())  # 200 expected, 5 deviations


def test_counted_numbers_have_a_mean_and_quantiles() -> None:
    counts = Counter({1: 50, 2: 45, 100: 5})
    assert mean(counts) == pytest.approx(6.4)
    assert [quantile(counts, share) for share in (0.0, 0.5, 0.51, 0.95, 0.96)] == [1, 1, 2, 2, 100]
    assert mean(Counter()) == quantile(Counter(), 0.5) == 0


def test_figures_take_any_label_and_only_finite_numbers() -> None:
    rows: list[Mapping[str, Any]] = [
        {"step": 1, "loss": float("nan")},
        {"step": 2, "loss": 1.5, "eval_loss": None},
        {"step": 3, "loss": 1.0},
    ]
    plot = losses(rows)
    assert plot is not None
    assert "from 1.500 to 1.000" in plot.alt
    ET.fromstring(plot.svg)
    assert losses(rows[:1]) is None
    assert short("a\x00\ufffe\u202eb") == "ab"
    assert len(short("x" * 200)) < 50


def test_every_kind_of_inconsistency_has_words() -> None:
    assert tuple(KINDS) == INCONSISTENT


# -- bad input


def refused(run: RunFile) -> str:
    with pytest.raises(InputError) as caught:
        report(run, lambda text: None)
    return str(caught.value)


def test_no_run_and_no_dialogues_are_refused(tmp_path: Path, domain: Domain) -> None:
    run = run_file(tmp_path)
    assert "there is no run here" in refused(run)
    folder = RunFolder.of(run)
    folder.open(run, domain)
    folder.close()
    assert "no finished dialogues" in refused(run)
    assert "duologue generate" in refused(run)


def test_everything_that_cannot_be_read_is_said_at_once(
    tmp_path: Path, domain: Domain, dialogues: list[Dialogue]
) -> None:
    run = run_file(tmp_path)
    folder = written(run, domain, dialogues[:2])
    for place, name, text in (
        ("curated", "summary.json", '{"format": "some'),
        ("training", "log.jsonl", '{"step": 1}\n[1]\n'),
        ("adapter", "manifest.json", "[]"),
        ("evaluation", "comparison.json", "nothing"),
    ):
        folder.round().child(place).create()
        folder.round().child(place).write_bytes(name, text.encode())
    said = refused(run)
    for name in ("summary.json", "log.jsonl", "manifest.json", "comparison.json"):
        assert f"{name}: error: " in said
    folder.round().child("curated").write_bytes("summary.json", b'{"format": "other"}')
    assert "is no summary of a curation" in refused(run)
    compared = {"systems": ["adapter"], "rows": [], "differences": {}}
    evaluation = folder.round().child("evaluation")
    evaluation.write_bytes("comparison.json", json.dumps(compared).encode())
    evaluation.write_bytes("adapter.json", b'{"a": 1}')
    said = refused(run)
    assert "adapter.json: error: is no file of an evaluation: it lacks by_turn, slots" in said
    assert "duologue evaluate RUN.toml --fresh" in said


def test_all_damaged_parts_are_named(
    tmp_path: Path, domain: Domain, dialogues: list[Dialogue]
) -> None:
    run = run_file(tmp_path)
    folder = written(run, domain, dialogues[:2])
    for digest in ("bbbbbbbb", "cccccccc"):
        folder.dialogues().write_bytes(f"part-000of001-000002-{digest}.parquet", b"PAR1 half")
    said = refused(run)
    assert "000002-bbbbbbbb.parquet: error: is not a readable Parquet file" in said
    assert "000002-cccccccc.parquet: error: is not a readable Parquet file" in said


def test_the_old_report_stays_until_the_new_one_is_complete(
    tmp_path: Path, domain: Domain, dialogues: list[Dialogue], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_file(tmp_path)
    written(run, domain, dialogues[:2])
    path = report(run, lambda text: None)
    before = path.read_bytes()
    write = Folder.write_bytes

    def full(self: Folder, name: str, data: bytes | pa.Buffer) -> None:
        if name == reporting.PAGE:
            raise DuologueError("the disk is full")
        write(self, name, data)

    monkeypatch.setattr(Folder, "write_bytes", full)
    with pytest.raises(DuologueError, match="disk is full"):
        report(run, lambda text: None)
    assert path.read_bytes() == before
