"""Scenes: the order of a turn pair, and walks that never leave the graph."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.retrieval.sampled import SampledTools
from specs.domain import Case, Domain, Edge, Slot
from specs.errors import ExpressionError, Where
from specs.expressions import Expression
from specs.loader import open_domain
from specs.plan import Plan, PlanSource, make_plan
from specs.records import PathStep, StopReason
from specs.scene import Calling, CallResult, Scene, SceneError, coerce, drive, sample_walk
from tests.unit.kiosk import kiosk
from tests.unit.tiny_domain import changed, tiny

HERE = Where("test.yaml", 1, 1)


@cache
def recipe() -> Domain:
    return open_domain("recipe")


def scene_of(domain: Domain, index: int = 0) -> Scene:
    scene = Scene(domain, make_plan(domain, PlanSource(0), index))
    drive(scene.begin(), no_call)
    scene.turn = 1
    return scene


def no_call(calling: Calling) -> CallResult:
    raise AssertionError(f"nothing calls {calling.tool} here")


def edge_of(scene: Scene, intent: str) -> Edge:
    return next(e for e in scene.domain.edges_from(scene.node) if e.intent == intent)


def found(*ids: str) -> CallResult:
    return CallResult(ids, (1.0,) * len(ids))


def take(
    scene: Scene, intent: str, slots: Mapping[str, Any], *results: CallResult
) -> list[Calling]:
    """Take an edge as a conversation does; returns the calls that were made."""
    left, calls = list(results), []

    def answer(calling: Calling) -> CallResult:
        calls.append(calling)
        return left.pop(0)

    drive(scene.take(edge_of(scene, intent), slots), answer)
    scene.turn += 2
    assert not left
    return calls


# -- the order of a turn pair


def test_edge_sets_before_its_cases_and_the_state_calls_sets_moves_then_speaks(
    tmp_path: Path,
) -> None:
    text = changed(
        # Each part sees what the one before it did, and nothing of the one behind it.
        ('set: {page: "0"}}', "set: {page: memory.page + 1}}"),
        ("to: look_up, set", "to: [{when: memory.page == 1, to: look_up}, {to: nothing}], set"),
        ("page: memory.page, plant", "page: memory.page * 10, plant"),
        ("    set: {asked: ", "    set: {page: results | length + memory.page, asked: "),
        (
            'next: [{when: "doc.id in',
            'next: [{when: memory.page != 3, to: nothing}, {when: "doc.id in',
        ),
    )
    scene = scene_of(tiny(tmp_path, text))
    document = scene.plan.document
    assert document is not None
    other = next(d.id for d in scene.domain.documents if d.id != document.id)
    [calling] = take(scene, "ask", {"query": "tea"}, found(other, document.id))
    assert dict(calling.arguments) == {"query": "tea", "page": 10}
    assert (scene.memory["page"], scene.memory["asked"]) == (3, "tea")
    assert [result["id"] for result in scene.results] == [other, document.id]
    assert (scene.speaking, scene.node) == ("offer", "offer")
    assert scene.path == [PathStep("hello", "ask", "look_up"), PathStep("look_up", "", "offer")]
    assert scene.reached == ["offer"]


def test_calls_of_one_move_follow_each_other_and_their_results_stay() -> None:
    scene = scene_of(kiosk())
    document = scene.plan.document
    assert document is not None
    take(scene, "ask", {"query": "x"}, found(document.id))
    pay, weather = {"ok": True, "bill": "9 cups"}, {"sky": "grey"}
    calls = take(
        scene, "choose", {"option": 1, "cups": 9}, CallResult(value=pay), CallResult(value=weather)
    )
    assert [(c.state, c.tool, dict(c.arguments)) for c in calls] == [
        ("check_out", "pay", {"id": document.id, "cups": 9}),
        ("look_out", "weather", {"day": "today"}),
    ]
    assert len({c.draws for c in calls}) == 2
    assert scene.memory["cart"] == [document.id]
    assert scene.tools == {"search": scene.results, "pay": pay, "weather": weather}
    assert scene.result == weather
    assert (scene.speaking, scene.ended) == ("bye", True)


def test_pages_of_one_search_share_their_draws() -> None:
    scene = scene_of(kiosk())
    [first] = take(scene, "ask", {"query": "x"}, found("t0", "t1"))
    [second] = take(scene, "other", {}, found("t2"))
    assert first.draws == second.draws
    assert second.arguments["page"] == 1
    assert first.planting is not None
    assert first.planting.page == scene.plan.memory["plant_page"]


# -- guards, draws, digressions


def test_guards_and_weights_close_edges(tmp_path: Path) -> None:
    text = changed(
        ("{from: offer_others, intent: ask, ", "{from: offer_others, intent: ask, weight: 0, ")
    )
    scene = scene_of(tiny(tmp_path, text))
    hidden = next(d.id for d in scene.domain.documents if d != scene.plan.document)
    take(scene, "ask", {"query": "x"}, found(hidden))
    for open_ in ({"other", "gossip"}, {"other", "gossip"}, {"gossip"}):
        assert {edge.intent for edge in scene.open_edges()} == open_
        if "other" in open_:
            take(scene, "other", {}, found(hidden))
    assert scene.memory["page"] == 2


def test_no_open_edge_is_none_and_a_sampled_walk_says_so(tmp_path: Path) -> None:
    shut = (
        "{from: [hello, nothing], intent: ask, ",
        "{from: [hello, nothing], intent: ask, when: memory.page > 5, ",
    )
    gossip = ("intent: gossip, weight: 0.2", "intent: gossip, weight: 0.2, when: memory.page > 5")
    domain = tiny(tmp_path, changed(shut, gossip))
    assert scene_of(domain).draw_edge() is None
    walked = sample_walk(domain, make_plan(domain, PlanSource(0), 0), SampledTools(domain))
    assert (walked.stop_reason, walked.turns, walked.path) == (StopReason.NO_EDGE, 1, ())


def test_after_a_digression_the_interrupted_states_edges_apply() -> None:
    scene = scene_of(kiosk())
    for _ in range(2):
        take(scene, "gossip", {})
        assert (scene.speaking, scene.node) == ("small_talk", "hello")
    assert not scene.ended
    take(scene, "ask", {"query": "x"}, found())
    assert scene.path[-3:] == [
        PathStep("hello", "gossip", "small_talk"),
        PathStep("hello", "ask", "look_up"),
        PathStep("look_up", "", "nothing"),
    ]


def test_next_that_never_ends_is_an_error(tmp_path: Path) -> None:
    loop = "next: [{when: memory.page == 0, to: look_out}, {to: bye}]"
    domain = tiny(tmp_path, changed(("next: {to: bye}", loop)))
    scene = scene_of(domain)
    take(scene, "ask", {"query": "x"}, found(scene.plan.document.id if scene.plan.document else ""))
    calls = [CallResult(value={"ok": True, "bill": ""}), *[CallResult(value={"sky": "red"})] * 49]
    with pytest.raises(SceneError, match=r"domain\.yaml:\d+.*`next` never ends"):
        take(scene, "choose", {"option": 1, "cups": 1}, *calls)


def test_a_sampled_walk_knows_what_the_agent_replied(tmp_path: Path) -> None:
    text = changed(
        (
            "{from: [offer], intent: choose, ",
            "{from: [offer], intent: choose, when: doc.id in reply.shown, ",
        )
    )
    domain = tiny(tmp_path, text)
    ends = set()
    for index in range(30):
        walked = sample_walk(domain, make_plan(domain, PlanSource(0), index), SampledTools(domain))
        assert walked.error == ""
        ends.add(walked.path[-1].to)
    assert "bye" in ends


def test_a_walk_without_words_takes_the_slots_that_a_references_own_bring(tmp_path: Path) -> None:
    text = changed(
        ('{type: integer, reference: "2 if memory.hurried else 3"}', "{type: integer}"),
        (
            'reference: ["Number {{ slots.option }}, {{ slots.cups }} cups."]',
            "reference: [{say: One., slots: {cups: 1}}, {say: Six., slots: {cups: 6}}]",
        ),
    )
    domain = tiny(tmp_path, text)
    drawn = set()
    for index in range(12):
        scene = scene_of(domain, index)
        document = scene.plan.document
        assert document is not None
        take(scene, "ask", {"query": "x"}, found(document.id))
        reference, slots = scene.voiced(edge_of(scene, "choose").speech, "user")
        assert reference is not None
        drawn.add((reference.say.source, slots["cups"]))
        assert scene.voiced(edge_of(scene, "choose").speech, "user")[0] is reference
    assert drawn == {("One.", 1), ("Six.", 6)}


def test_a_result_that_is_nothing_is_a_result(tmp_path: Path) -> None:
    text = changed(
        ("{p: 1, result: {sky: grey}}", "{p: 0.5, result: {sky: grey}}, {p: 0.5, result: null}"),
        ("next: {to: bye}", "next: [{when: result, to: bye}, {to: farewell}]"),
    )
    scene = scene_of(tiny(tmp_path, text))
    with pytest.raises(ExpressionError, match="result"):  # no call was made yet
        Expression("result", HERE).evaluate(scene.scope())
    take(scene, "ask", {"query": "x"}, found(scene.plan.document.id if scene.plan.document else ""))
    paid = CallResult(value={"ok": True, "bill": ""})
    take(scene, "choose", {"option": 1, "cups": 1}, paid, CallResult())
    assert scene.speaking == "farewell"


@pytest.mark.parametrize(("page", "wanted"), [("null", 0), ("'2'", 2), ("doc.title", None)])
def test_a_planted_page_is_a_whole_number(tmp_path: Path, page: str, wanted: int | None) -> None:
    domain = tiny(tmp_path, changed(("page: memory.plant_page}}", f'page: "{page}"}}}}')))
    scene = scene_of(domain)
    if wanted is None:
        with pytest.raises(SceneError, match=r"plant\.page is of type integer"):
            take(scene, "ask", {"query": "x"}, found("t0"))
        return
    [calling] = take(scene, "ask", {"query": "x"}, found("t0"))
    assert calling.planting is not None
    assert calling.planting.page == wanted


def test_memory_that_doubles_every_turn_is_an_error_before_it_fills_the_machine(
    tmp_path: Path,
) -> None:
    text = changed(
        ("  cart: {type: list, of: id}\n", "  cart: {type: list, of: id}\n  pile: {type: list}\n"),
        ("set: {page: memory.page + 1}", 'set: {pile: "[memory.pile, memory.pile]"}'),
    )
    scene = scene_of(tiny(tmp_path, text))
    take(scene, "ask", {"query": "x"}, found("t1"))
    for _ in range(14):
        take(scene, "other", {}, found("t1"))

    def go_on() -> None:
        for _ in range(9):
            take(scene, "other", {}, found("t1"))

    with pytest.raises(SceneError, match=r"memory\.pile has grown"):
        go_on()


# -- slots


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        ("integer", "12", 12),
        ("integer", 3.0, 3),
        ("integer", 2**60 + 1, 2**60 + 1),
        ("integer", str(2**60 + 1), 2**60 + 1),
        ("integer", "3.0", 3),
        ("number", "2.5", 2.5),
        ("text", 7, "7"),
        ("boolean", "True", True),
        ("id", 4, "4"),
        ("integer", None, None),
    ],
)
def test_coerce(kind: Any, value: Any, wanted: Any) -> None:
    made = coerce(Slot("s", kind, HERE), value)
    assert made == wanted
    assert type(made) is type(wanted)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("integer", "three"),
        ("integer", 2.5),
        ("integer", "1e999"),
        ("integer", True),
        ("number", "nan"),
        ("number", float("inf")),
        ("number", "12 cups"),
        ("text", ["a"]),
        ("boolean", "perhaps"),
        ("list", "a, b"),
    ],
)
def test_coerce_refuses_what_is_of_another_type(kind: Any, value: Any) -> None:
    with pytest.raises(SceneError, match=f"'s' is of type {kind}"):
        coerce(Slot("s", kind, HERE), value)


def test_coerce_items_and_choices() -> None:
    assert coerce(Slot("s", "list", HERE, of="integer"), None) is None
    assert coerce(Slot("s", "list", HERE, of="integer"), ["1", 2]) == [1, 2]
    with pytest.raises(SceneError, match="one of"):
        coerce(Slot("s", "text", HERE, one_of=("a", "b")), "c")
    with pytest.raises(SceneError):
        coerce(Slot("s", "list", HERE, of="integer"), ["one"])


def test_settled_slots_come_before_and_references_fill_the_rest() -> None:
    scene = scene_of(kiosk(), 3)
    document = scene.plan.document
    assert document is not None
    take(scene, "ask", {"query": "x"}, found("t0" if document.id != "t0" else "t1", document.id))
    speech = edge_of(scene, "choose").speech
    settled = scene.settle(speech, "user")
    assert settled == {"option": 2}
    cups = 2 if scene.memory["hurried"] else 3
    assert scene.reference_slots(speech, "user", None, settled) == {"option": 2, "cups": cups}
    ask = scene.domain.intents["ask"].speech
    given_ = scene.reference_slots(ask, "user", ask.references[1], {})
    assert given_ == {"query": document.fields["title"].lower()}


# -- walks


def domains() -> st.SearchStrategy[Domain]:
    return st.sampled_from([kiosk, recipe]).map(lambda make: make())


@settings(deadline=None, max_examples=60)
@given(domains(), st.integers(0, 2**40), st.integers(0, 10**6))
def test_every_walk_is_a_path_of_the_graph(domain: Domain, seed: int, index: int) -> None:
    plan = make_plan(domain, PlanSource(seed), index)
    walked = sample_walk(domain, plan, SampledTools(domain))
    at = follow(domain, walked.path)
    assert walked.turns <= domain.max_turns
    assert set(walked.reached) <= {domain.start, *(step.to for step in walked.path)}
    if walked.stop_reason is StopReason.ENDED:
        assert at in domain.end
    else:
        assert walked.stop_reason is StopReason.TURN_LIMIT, walked.error
        assert walked.turns > domain.max_turns - 2
    again = make_plan(domain, PlanSource(seed), index)
    assert sample_walk(domain, again, SampledTools(domain)) == walked


def follow(domain: Domain, path: tuple[PathStep, ...]) -> str:
    """Walk along a path and return where it ends; fails where it leaves the graph."""
    at = node = domain.start
    for step in path:
        state = domain.states[at]
        if step.from_ == at and step.intent == "" and leads(state.next, step.to):
            at = step.to
            continue
        assert state.speech.say is not None, f"{at} is silent, and the user moves on from it"
        node = node if state.digression else at
        assert at not in domain.end
        assert step.from_ == node
        names = [e.intent or "" for e in domain.edges_from(node) if leads(e.to, step.to)]
        assert step.intent in names
        at = step.to
    return at


def leads(cases: tuple[Case, ...], to: str) -> bool:
    return any(case.to == to for case in cases)


def test_a_path_that_leaves_the_graph_is_seen() -> None:
    steps = (PathStep("hello", "ask", "look_up"), PathStep("look_up", "", "bye"))
    with pytest.raises(AssertionError):
        follow(kiosk(), steps)


def test_plans_of_the_tiny_domain_differ() -> None:
    plans: list[Plan] = [make_plan(kiosk(), PlanSource(0), index) for index in range(8)]
    walks = {sample_walk(kiosk(), p, SampledTools(kiosk())).path for p in plans}
    assert len(walks) > 2
