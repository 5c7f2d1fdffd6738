import gzip
import json
from pathlib import Path

import pytest

from cluster import rehearsal, walk_sample
from cluster.cli import main
from cluster.walked_labels import walked_labels
from specs.domain import Domain
from specs.errors import InputError
from specs.loader import open_domain
from specs.parts import Folder
from specs.records import StopReason
from specs.run_file import PolicySection
from specs.star.files import constraints, read_tasks
from specs.star.importing import Imported, write
from specs.star.mapping import SHIPPED, task_of
from tests.unit.star_task import FULL, GRAPH, REPLIES, talk, write_task
from trainer.chat_file import ChatFile

Printed = pytest.CaptureFixture[str]


def command(*arguments: str | Path) -> int:
    """Run the command line and return its exit code."""
    try:
        main(["domain", *map(str, arguments)])
    except SystemExit as done:
        return int(done.code or 0)
    return 0


def full_mapping(folder: Path, *changes: tuple[str, str]) -> Path:
    """Write a mapping file that leaves nothing to guess, with changes that must apply."""
    text = FULL
    for before, after in changes:
        assert before in text
        text = text.replace(before, after, 1)
    file = folder / "cake.yaml"
    file.write_text(text)
    return file


@pytest.fixture
def imported(tmp_path: Path) -> Domain:
    task = write_task(tmp_path / "star")
    mapping = full_mapping(tmp_path)
    assert command("import", "star", task, "--mapping", mapping, "--out", tmp_path / "out") == 0
    return open_domain(tmp_path / "out" / "cake_order")


# -- the graph


def test_an_imported_task_passes_the_check(
    imported: Domain, capsys: Printed, tmp_path: Path
) -> None:
    capsys.readouterr()
    assert command("check", tmp_path / "out" / "cake_order") == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out


def test_conditions_and_queries_find_their_places(imported: Domain) -> None:
    check = imported.states["query_check"]
    assert [case.to for case in check.next] == ["cake_offer", "cake_sold_out"]
    assert check.speech.say is None
    assert check.next[1].when is None  # what fails is what happens to unknown inputs
    assert [case.to for case in imported.states["query_keep"].next] == ["cake_kept"]
    ways = {
        edge.intent: [case.to for case in edge.to] for edge in imported.edges_from("cake_offer")
    }
    assert ways == {"yes": ["query_keep"], "no": ["cake_ask_flavour", "anything_else"]}
    assert "cake_no_oven" not in imported.states
    assert imported.end == {"cake_bye"}


def test_few_values_that_people_reword_are_answers_of_their_own(imported: Domain) -> None:
    edges = {edge.intent: edge for edge in imported.edges_from("cake_ask_candles")}
    assert set(edges) == {"candles_yes", "candles_no"}
    yes = {reference.say.source for reference in edges["candles_yes"].speech.references}
    assert yes == {"Yes, a few.", "Sure, many!", "Of course"}


def test_references_are_peoples_words_with_slots_for_values(imported: Domain) -> None:
    speech = imported.intents["give_flavour"].speech
    hole = "{{ slots.flavour }}"
    assert {reference.say.source for reference in speech.references} == {
        f"{hole} please",
        f"I like {hole} best",
        hole,
    }


def test_the_tool_answers_with_what_real_queries_brought(imported: Domain) -> None:
    table = imported.tools["query_check"].table
    assert table is not None
    rows = [row for row in table.rows if row["flavour"] == "plum" and row["customer_name"] == "Ida"]
    assert rows
    assert {row["outcome"] for row in rows} == {"available"}
    assert {row["outcome"] for row in table.rows if row["flavour"] == "nut"} == {"unavailable"}
    assert table.otherwise["outcome"] == "unavailable"


def test_walks_reach_the_end(imported: Domain) -> None:
    sampled = walk_sample.sample(imported, 0, 200)
    assert set(sampled.stops()) == {StopReason.ENDED}
    states = {step.to for walk in sampled.walks for step in walk.path}
    assert {"cake_kept", "cake_sold_out"} <= states


@pytest.mark.parametrize("kind", ["walk", "routed"])
def test_a_rehearsal_tells_what_the_tool_brought(imported: Domain, kind: str) -> None:
    policy = PolicySection.model_validate({"kind": kind, "manager": "rouge"})
    dialogues = rehearsal.rehearse(imported, 6, 0, 0, policy)
    assert {one.stop_reason for one in dialogues} == {StopReason.ENDED}
    offers = [
        (turn, one)
        for one in dialogues
        for turn in one.turns
        if turn.state == "cake_offer" and turn.role == "agent"
    ]
    assert offers
    for turn, one in offers:
        flavours = {turn.slots.get("flavour") for turn in one.turns} - {None}
        assert any(f"A {flavour} cake" in turn.text for flavour in flavours)


def test_who_declines_makes_the_next_request_of_a_dialogue(imported: Domain) -> None:
    assert {len(document.fields["requests"]) for document in imported.documents} == {1, 2}
    paths = [walk.path for walk in walk_sample.sample(imported, 0, 300).walks]
    assert {sum(step.to == "query_check" for step in path) for path in paths} == {1, 2}


def test_who_is_asked_nothing_says_all_at_once(tmp_path: Path, capsys: Printed) -> None:
    task = write_task(tmp_path / "star")
    file = tmp_path / "star" / "dialogues.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for number, data in enumerate(lines[::2]):
        query = next(one for one in data["events"] if one["role"] == "query")
        values = [json.loads(text) for one in query["constraints"] for text in one.values()]
        name, flavour, candles = values[:3]
        if number % 4 == 3:  # a query without a name: such a user cannot say all
            for one in data["events"]:
                if one["role"] == "query":
                    one["constraints"] = one["constraints"][1:]
            continue
        text = (
            f"Can I have a {flavour} cake for {name}, candles {candles}?",
            f"{flavour} for {name}, candles: {candles}",
            f"One {flavour} cake for {name}. Candles: {candles}",
        )[number % 3]
        data["events"] = [{"role": "user", "text": text}, *data["events"][9:]]
    file.write_text("".join(json.dumps(data) + "\n" for data in lines))
    mapping = full_mapping(
        tmp_path,
        ("optional: []", "optional: [CustomerName]"),
        (
            "edges:",
            "edges:\n  - {from: hello, to: ask_name}\n  - {from: hello, to: query_check}"
            "\n  - {from: cake_kept, to: query_check}\n  - {from: cake_kept, to: anything_else}",
        ),
    )
    assert command("import", "star", task, "--mapping", mapping, "--out", tmp_path / "out") == 0
    capsys.readouterr()
    assert command("check", tmp_path / "out" / "cake_order") == 0
    assert "0 errors" in capsys.readouterr().out
    domain = open_domain(tmp_path / "out" / "cake_order")
    assert set(domain.subgoals) == {"cake_offer", "cake_sold_out", "cake_kept", "cake_bye"}
    text = (tmp_path / "out" / "cake_order" / "domain.yaml").read_text()
    assert "only what you are asked for" not in " ".join(text.split())
    ways = {edge.intent: edge.to[0].to for edge in domain.edges_from("hello")}
    assert ways == {"open": "ask_name", "ask": "query_check"}
    speech = domain.intents["ask"].speech
    assert set(speech.slots) == {"customer_name", "flavour", "candles"}
    people = "{{ slots.flavour }} for {{ slots.customer_name }}, candles: {{ slots.candles }}"
    assert people in {reference.say.source for reference in speech.references}
    again = {edge.intent: edge for edge in domain.edges_from("cake_kept")}
    assert set(again) == {"ask_again", "go_on"}  # not without another request
    unnamed = set()
    for kind in ("walk", "routed"):
        policy = PolicySection.model_validate({"kind": kind, "manager": "rouge"})
        dialogues = rehearsal.rehearse(domain, 200, 0, 0, policy)
        assert {one.stop_reason for one in dialogues} == {StopReason.ENDED}
        assert {"ask", "ask_again"} <= {turn.intent for one in dialogues for turn in one.turns}
        for dialogue in dialogues:
            known = {"customer_name": "", "flavour": "", "candles": ""}
            for before, turn in zip(dialogue.turns, dialogue.turns[1:], strict=False):
                known |= {name: str(before.slots[name]) for name in known if name in before.slots}
                unnamed |= {turn.state} if before.intent == "no_customer_name" else set()
                if before.intent in ("ask", "ask_again"):
                    sold_out = before.slots["flavour"] == "nut"
                    assert turn.state == ("cake_sold_out" if sold_out else "cake_offer")
                    assert before.slots["flavour"] in turn.text
                    if not sold_out:  # the offer names who it is for: the memory has all of it
                        assert f"for {before.slots['customer_name']}?" in turn.text
    assert unnamed  # who has no name to tell is asked for it


def test_ways_on_that_nothing_tells_apart_are_refused(tmp_path: Path, capsys: Printed) -> None:
    replies = {**REPLIES, "name_missing": "Missing"}
    graph = {**GRAPH, "name_missing": "cake_no_oven", "cake_no_oven": "anything_else"}
    task = write_task(tmp_path / "star", replies=replies, graph=graph)
    mapping = full_mapping(
        tmp_path,
        ("leave_out: [cake_no_oven]", ""),
        ("conditions: {", "conditions: {name_missing: {missing: ask_name}, "),
        (
            "edges:",
            "edges:\n  - {from: ask_name, to: cake_ask_flavour}"
            "\n  - {from: ask_name, to: cake_ask_candles}"
            "\n  - {from: anything_else, to: query_check}",
        ),
    )
    assert command("import", "star", task, "--mapping", mapping, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "the ways on from 'ask_name' apart: cake_ask_flavour, cake_ask_candles" in said
    assert "'anything_else' comes before 'query_check' as well as behind it" in said
    assert not (tmp_path / "out").exists()


def test_free_words_that_nothing_else_holds_are_like_peoples(imported: Domain) -> None:
    edges = {edge.intent: edge for edge in imported.edges_from("cake_kept")}
    assert "similar" in {check.name for check in edges["go_on"].speech.checks}
    assert "similar" not in {c.name for c in imported.intents["give_flavour"].speech.checks}


# -- guesses and refusals


def test_every_guess_is_named_and_a_full_mapping_leaves_none_about_the_graph(
    tmp_path: Path, capsys: Printed
) -> None:
    task = write_task(tmp_path / "star")
    changed = {key: text.replace("{who:s}", "you") for key, text in REPLIES.items()}
    task = write_task(tmp_path / "star", replies=changed | {"cake_kept": "It is kept for you."})
    assert command("import", "star", task, "--out", tmp_path / "guessed") == 0
    out = capsys.readouterr().out
    for what in (
        "guess: `yes` answers cake_offer",
        "guess: cake_sold_out leads to anything_else",
        "guess: cake_no_oven is left out",
        "guess: ask_name asks for CustomerName: 48 of 48 answers",
        "guess: cake_ask_candles has an answer for each of",
        "guess: query_check: 'All of it is gone.' means `unavailable`",
    ):
        assert what in out, what
    task = write_task(tmp_path / "star")
    mapping = full_mapping(tmp_path)
    assert command("import", "star", task, "--mapping", mapping, "--out", tmp_path / "told") == 0
    guesses = [line for line in capsys.readouterr().out.splitlines() if "guess:" in line]
    assert guesses
    assert all("has stock answers" in line for line in guesses)


def test_what_nothing_settles_is_refused_with_the_lines_to_add(
    tmp_path: Path, capsys: Printed
) -> None:
    odd = {**GRAPH, "rainy": "cake_bye"}
    task = write_task(tmp_path / "star", graph=odd, replies={**REPLIES, "rainy": "Rain"})
    assert command("import", "star", task, "--out", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert "condition 'rainy' ('Rain') belongs" in err
    assert "cake_order.yaml:  conditions: {rainy: {after: STATE}}" in err
    assert "placeholder {who} of 'cake_offer'" in err
    assert "fields: {who: [FIELD]}" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"query_keep": "query_keep"}, "query_keep -> query_keep"),
        ({"unavailable": "query_check"}, "query_check -> query_check"),
    ],
)
def test_a_query_that_leads_to_itself_is_refused(
    tmp_path: Path, capsys: Printed, changed: dict[str, str], shown: str
) -> None:
    task = write_task(tmp_path / "star", graph=GRAPH | changed)
    mapping = full_mapping(tmp_path)
    assert command("import", "star", task, "--mapping", mapping, "--out", tmp_path / "out") == 2
    assert f"nothing is ever said between queries: {shown}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_refusal_for_want_of_requests_names_what_could_be_asked(
    tmp_path: Path, capsys: Printed
) -> None:
    task = write_task(tmp_path / "star")
    file = tmp_path / "star" / "dialogues.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for number, data in enumerate(lines):  # no query has a name and a flavour
        for event in data["events"]:
            if event["role"] == "query":
                del event["constraints"][number % 3 == 0]
    file.write_text("".join(json.dumps(data) + "\n" for data in lines))
    told = "slots: {ask_name: [CustomerName], cake_ask_flavour: [Flavour]}"
    mapping = full_mapping(tmp_path, ("slots: {ask_name: [CustomerName]}", told))
    assert command("import", "star", task, "--mapping", mapping, "--out", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert "no dialogue of 48 has a request" in err
    assert "states: ask_name, cake_ask_flavour, cake_ask_candles\n" in err
    assert "in how many dialogues: Candles 48, Flavour 32, CustomerName 16\n" in err


def test_what_is_told_step_by_step_must_be_a_list(tmp_path: Path, capsys: Printed) -> None:
    task = write_task(tmp_path / "star", graph={**GRAPH, "done": "anything_else"})
    text = FULL.replace("conditions: {", "conditions: {done: {over: cake_offer}, ")
    mapping = tmp_path / "cake.yaml"
    mapping.write_text(text)
    assert command("import", "star", task, "--mapping", mapping, "--out", tmp_path / "out") == 2
    assert "'cake_offer' tells nothing step by step" in capsys.readouterr().err


def test_a_list_is_told_step_by_step(tmp_path: Path) -> None:
    replies = {**REPLIES, "cake_kept": "Do this: {steps:s} Next?", "done": "Done"}
    graph = {**GRAPH, "done": "anything_else"}
    del graph["cake_kept"]
    task = write_task(tmp_path / "star", replies=replies, graph=graph)
    file = tmp_path / "star" / "dialogues.jsonl"
    kept = '"Message": "Kept."'
    assert kept in file.read_text()
    file.write_text(file.read_text().replace(kept, '"Steps": ["Cut it", "Share it"]'))
    text = FULL.replace(
        "yes: {after: cake_offer}", "yes: {after: cake_offer}, done: {over: cake_kept}"
    )
    text = text.replace(", number: [query_check.id]", "")
    mapping = tmp_path / "cake.yaml"
    mapping.write_text(text.replace("edges:", "edges:\n  - {from: cake_kept, to: cake_kept}"))
    assert command("import", "star", task, "--mapping", mapping, "--out", tmp_path / "out") == 0
    domain = open_domain(tmp_path / "out" / "cake_order")
    for dialogue in rehearsal.rehearse(domain, 8, 0, 0):
        told = [turn.text for turn in dialogue.turns if turn.state == "cake_kept"]
        told = [text for text in told if text.startswith("Do this")]
        assert told in ([], ["Do this: Cut it. Next?", "Do this: Share it. Next?"])
        assert dialogue.stop_reason == StopReason.ENDED


def test_what_a_user_cannot_tell_leads_elsewhere(tmp_path: Path) -> None:
    replies = {**REPLIES, "name_missing": "Missing"}
    graph = {**GRAPH, "name_missing": "cake_sold_out"}
    task = write_task(tmp_path / "star", replies=replies, graph=graph)
    file = tmp_path / "star" / "dialogues.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for data in lines[::3]:
        for event in data["events"]:
            if event["role"] == "query":
                event["constraints"] = event["constraints"][1:]
        data["events"][4]["text"] = "I can't say, it is a secret"
    file.write_text("".join(json.dumps(data) + "\n" for data in lines))
    text = FULL.replace("conditions: {", "conditions: {name_missing: {missing: ask_name}, ")
    mapping = tmp_path / "cake.yaml"
    mapping.write_text(text)
    assert command("import", "star", task, "--mapping", mapping, "--out", tmp_path / "out") == 0
    domain = open_domain(tmp_path / "out" / "cake_order")
    ways = {edge.intent: edge.to[0].to for edge in domain.edges_from("ask_name")}
    assert ways == {"give_customer_name": "cake_ask_flavour", "no_customer_name": "cake_sold_out"}
    reached = {walk.path[1].intent for walk in walk_sample.sample(domain, 0, 100).walks}
    assert reached == set(ways)


def test_a_mapping_file_is_held_against_the_task(tmp_path: Path, capsys: Printed) -> None:
    task = write_task(tmp_path / "star")
    mapping = full_mapping(
        tmp_path,
        ("slots: {ask_name:", "slots: {ask_nam:"),
        ("Candles: [Yes", "Candle: [Yes"),
        ("[query_check.id]", "[query_check.idd]"),
        ("no: {after: cake_offer}", "no: {before: cake_offer}"),
        ("to: anything_else}", "to: anything_els}"),
        ("[cake_no_oven]", "[cake_no_ovn]"),
        ("describe:", "described:"),
    )
    assert command("import", "star", task, "--mapping", mapping, "--out", tmp_path / "out") == 2
    err = capsys.readouterr().err
    for line, what in (
        (3, "no key 'described'; did you mean 'describe'?"),
        (4, "no 'ask_nam' here; did you mean 'ask_name'?"),
        (5, "no 'Candle' here; did you mean 'Candles'?"),
        (7, "no 'query_check.idd' here; did you mean 'query_check.id'?"),
        (9, "has no key 'before'"),
        (11, "no 'anything_els' here; did you mean 'anything_else'?"),
        (13, "no 'cake_no_ovn' here; did you mean 'cake_no_oven'?"),
    ):
        assert any(f"cake.yaml:{line}:" in one and what in one for one in err.splitlines()), what
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("describe: x\n", "needs `task`"),
        ("task: cake_ordr\n", "is not imported; did you mean 'cake_order'?"),
        ("task: cake_order\nslots: &a {}\n", "anchors"),
        ("task: [\n", "is not YAML"),
        ("", "the file is empty"),
        ("task: cake_order\nconditions: {yes: {after: cake_offer, of: query_check}}\n", "one of"),
        ("task: cake_order\nedges: [{from: hello}]\n", "an edge needs `to`"),
    ],
)
def test_a_mapping_file_that_cannot_be_used(
    tmp_path: Path, capsys: Printed, text: str, message: str
) -> None:
    task = write_task(tmp_path / "star")
    mapping = tmp_path / "bad.yaml"
    mapping.write_text(text)
    assert command("import", "star", task, "--mapping", mapping, "--out", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert "bad.yaml" in err
    assert message in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is no JSON object"),
        ("{", "is not JSON"),
        ('{"replies": {"hello": 1}, "graph": {}}', "`replies` is no mapping of labels to text"),
        ('{"replies": {}, "graph": {"a b": "hello"}}', "the label 'a b' is no name"),
        ('{"replies": {}, "graph": {}}', "the graph has no `hello`"),
    ],
)
def test_a_task_file_that_cannot_be_used(
    tmp_path: Path, capsys: Printed, content: str, message: str
) -> None:
    write_task(tmp_path)
    bad = tmp_path / "bad.json"
    bad.write_text(content)
    assert command("import", "star", bad, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err


def test_bad_dialogues_are_named_by_line(tmp_path: Path, capsys: Printed) -> None:
    task = write_task(tmp_path)
    good = json.dumps({"id": "1", "task": "cake_order", "events": talk(0)})
    (tmp_path / "dialogues.jsonl").write_text(
        f'{good}\n{{"events": [{{"role": "cat"}}]}}\nnot JSON\n{{"events": [{{"role": []}}]}}\n'
        '{"events": [{"role": "agent", "text": "", "action": [1]}]}\n"\\ud800\n'
    )
    assert command("import", "star", task, "--out", tmp_path / "out") == 2
    err = capsys.readouterr().err
    for line in range(2, 7):
        assert f"dialogues.jsonl:{line}: error: is no dialogue" in err
    assert "dialogues.jsonl:1:" not in err


def test_a_spoilt_archive_is_a_finding(tmp_path: Path, capsys: Printed) -> None:
    task = write_task(tmp_path / "star")
    plain = tmp_path / "star" / "dialogues.jsonl"
    packed = bytearray(gzip.compress(plain.read_bytes()))
    packed[20:40] = bytes(20)  # behind the header: the first block
    plain.unlink()
    plain.with_suffix(".jsonl.gz").write_bytes(packed)
    assert command("import", "star", task, "--out", tmp_path / "out") == 2
    assert "dialogues.jsonl.gz: error: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "after"), [("A pity.", r"A \ud800 pity."), ('"id": "2"', r'"id": "\uDC00"')]
)
def test_half_a_character_in_a_dialogue_is_named_by_line(
    tmp_path: Path, capsys: Printed, before: str, after: str
) -> None:
    task = write_task(tmp_path / "star")
    file = tmp_path / "star" / "dialogues.jsonl"
    assert before in file.read_text().splitlines()[2]
    whole = file.read_text().replace("A cake, please.", r"A \ud83c\udf82, please. \\ud800")
    file.write_text(whole.replace(before, after, 1))
    made = ("--out", tmp_path / "out", "--curated", tmp_path / "people")
    assert command("import", "star", task, *made) == 2
    err = capsys.readouterr().err
    assert err.count("error:") == 1
    assert "dialogues.jsonl:3: error: holds half a character" in err
    assert {one.name for one in tmp_path.iterdir()} == {"star"}


def test_half_a_character_in_a_task_file_is_named_by_line(tmp_path: Path, capsys: Printed) -> None:
    task = write_task(tmp_path / "star", replies=REPLIES | {"cake_bye": "Bye, \ud800."})
    task.write_text(json.dumps(json.loads(task.read_text()), indent=1))
    lines = task.read_text().splitlines()
    (line,) = [number for number, text in enumerate(lines, 1) if r"\ud800" in text]
    assert command("import", "star", task, "--out", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert f"cake_order.json:{line}: error: holds half a character" in err
    assert not (tmp_path / "out").exists()


def test_an_import_that_cannot_be_written_leaves_no_half_of_it(tmp_path: Path) -> None:
    whole = Imported("first", {"domain.yaml": "a"}, (), "", 1)
    half = Imported("second", {"domain.yaml": "a", "no such/folder": "b"}, (), "", 1)
    with pytest.raises(InputError, match="out: error: cannot be written"):
        write([whole, half], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "out" / "first").mkdir()
    write([whole], tmp_path / "out")
    assert [str(one.relative_to(tmp_path)) for one in (tmp_path / "out").rglob("*")] == [
        "out/first",
        "out/first/domain.yaml",
    ]


def test_nothing_is_overwritten(tmp_path: Path, capsys: Printed) -> None:
    task = write_task(tmp_path / "star")
    mapping = full_mapping(tmp_path)
    (tmp_path / "out" / "cake_order").mkdir(parents=True)
    (tmp_path / "out" / "cake_order" / "mine.txt").write_text("mine")
    made = ("--out", tmp_path / "out", "--curated", tmp_path / "people")
    assert command("import", "star", task, "--mapping", mapping, *made) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert not (tmp_path / "people").exists()
    assert [one.name for one in (tmp_path / "out" / "cake_order").iterdir()] == ["mine.txt"]


# -- reading


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('"Ida"', "Ida"),
        ('api.is_equal_to("Ida ")', "Ida"),
        ("0314", "0314"),
        ('api.is_one_of(["Ida", "Bo"])', ""),
        ('"None at all"', ""),
        ("null", ""),
        ('"{{ 1 }}"', ""),
        ('"sneezing."', "sneezing"),
    ],
)
def test_a_constraint_is_a_value_or_nothing(written: str, value: str) -> None:
    event = {"role": "query", "constraints": [{"Name": written}]}
    assert constraints(event).get("Name", "") == value


def test_a_response_of_another_version_is_no_wording(tmp_path: Path) -> None:
    task = write_task(tmp_path)
    other = {**REPLIES, "hello": "Hi.", "cake_sold_out": "No {flavour:s} on {day:s}."}
    (tmp_path / "cake_order.responses.json").write_text(json.dumps(other))
    said = read_tasks([task])[0].said
    assert said["hello"] == (REPLIES["hello"], "Hi.")
    assert said["cake_sold_out"] == (REPLIES["cake_sold_out"],)


def test_shipped_mapping_files_are_named_after_their_tasks() -> None:
    files = sorted(SHIPPED.glob("*.yaml"))
    assert len(files) >= 6
    assert [task_of(file) for file in files] == [file.stem for file in files]


# -- curated rows


def test_the_dialogues_become_a_run_to_be_trained_on(tmp_path: Path) -> None:
    task = write_task(tmp_path / "star")
    run = tmp_path / "people"
    assert command("import", "star", task, "--curated", run) == 0
    folder = Folder.of(run / "round-0" / "curated")
    sides = {side: ChatFile.open(folder, f"{side}.parquet") for side in ("train", "test")}
    dialogues = [one for file in sides.values() for one in file.dialogues()]
    assert 40 < len(dialogues) <= 48
    assert "cake_offer" in sides["train"].card.intents
    messages = next(one.messages for one in sides["train"].dialogues())
    assert [one.role for one in messages[:3]] == ["system", "user", "assistant"]
    assert messages[2].content == '{"intent":"hello","slots":{}}\n' + REPLIES["hello"]
    assert command("import", "star", task, "--curated", run) == 2


def test_peoples_dialogues_are_no_run_to_calibrate_on(tmp_path: Path, capsys: Printed) -> None:
    run = tmp_path / "people"
    assert command("import", "star", write_task(tmp_path / "star"), "--curated", run) == 0
    with pytest.raises(InputError) as refused:
        walked_labels(run)
    (finding,) = refused.value.findings
    assert "people's dialogues" in finding.message
    assert "duologue calibrate STAR" in finding.hint


def test_a_file_is_no_place_for_domains(tmp_path: Path, capsys: Printed) -> None:
    task = write_task(tmp_path / "star")
    assert command("import", "star", task, "--out", task) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert "'--out': Directory" in err
    assert "cake_order.json' is a file" in err


def test_something_must_be_asked_for(tmp_path: Path, capsys: Printed) -> None:
    assert command("import", "star", write_task(tmp_path)) == 2
    assert "nothing is asked for" in capsys.readouterr().err
