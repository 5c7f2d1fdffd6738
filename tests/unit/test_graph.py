import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specs.domain import Domain
from specs.drawing import svg
from specs.graph import figures, mermaid, to_networkx
from specs.loader import load_domain, open_domain
from tests.unit.small_domain import changed, write


@pytest.fixture
def domain(tmp_path: Path) -> Domain:
    return open_domain(write(tmp_path))


def test_as_networkx(domain: Domain) -> None:
    graph = to_networkx(domain)
    assert set(graph) == set(domain.states)
    assert graph.nodes["look_up"]["silent"]
    assert graph.nodes["bye"]["end"]
    kinds = {data["kind"] for data in graph.get_edge_data("look_up", "show").values()}
    assert kinds == {"next"}
    labels = {data["label"] for data in graph.get_edge_data("nothing", "bye").values()}
    assert labels == {"thank", "Give up."}


def test_edges_of_weight_zero_are_no_edges(tmp_path: Path) -> None:
    domain = open_domain(write(tmp_path, changed("to: bye, weight: 0.2", "to: bye, weight: 0")))
    labels = {
        data["label"] for data in to_networkx(domain).get_edge_data("nothing", "bye").values()
    }
    assert labels == {"thank"}


def test_figures(domain: Domain) -> None:
    found = figures(domain)
    assert (found.states, found.silent, found.digressions) == (7, 2, 1)
    assert (found.intents, found.edges, found.ends, found.subgoals) == (5, 9, 1, 2)
    assert found.shortest == 2
    assert found.cycles > 0


def test_mermaid_names_every_state_and_arrow_once(domain: Domain) -> None:
    text = mermaid(domain)
    assert text.startswith("flowchart")
    for name in domain.states:
        assert text.count(f'"{name}"') == 1
    assert len(re.findall(r"--?>|-\.->", text)) == len(
        {(one, two) for one, two, _ in to_networkx(domain).edges}
    )


def _boxes(text: str) -> list[tuple[float, float, float, float]]:
    root = ElementTree.fromstring(text)
    rects = root.findall(".//{http://www.w3.org/2000/svg}g/{http://www.w3.org/2000/svg}rect")
    return [
        (
            float(rect.attrib["x"]),
            float(rect.attrib["y"]),
            float(rect.attrib["width"]),
            float(rect.attrib["height"]),
        )
        for rect in rects
    ]


@pytest.mark.parametrize("name", ["small", "recipe"])
def test_boxes_do_not_overlap_and_lie_inside(domain: Domain, name: str) -> None:
    domain = domain if name == "small" else open_domain("recipe")
    text = svg(domain)
    boxes = _boxes(text)
    assert len(boxes) == len(domain.states)
    root = ElementTree.fromstring(text)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for index, (x, y, w, h) in enumerate(boxes):
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
        for u, v, s, t in boxes[:index]:
            assert x + w <= u or u + s <= x or y + h <= v or v + t <= y


def test_digressions_are_named_in_the_line_and_get_no_arrow(domain: Domain) -> None:
    drawn = svg(domain)
    assert "chat ↩ small_talk" in drawn
    assert "→ small_talk" not in drawn
    assert "hello: ask_book → look_up" in drawn


def test_everything_is_escaped(tmp_path: Path) -> None:
    text = changed("domain: library", 'domain: "<b>&\\"x"')
    text = text.replace('say: "Give up."', "say: '</text><script>\"&'")
    domain = open_domain(write(tmp_path, text))
    drawn = svg(domain)
    ElementTree.fromstring(drawn)
    assert "<script>" not in drawn
    assert "<script>" not in mermaid(domain)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(2, 8).flatmap(
        lambda count: st.tuples(
            st.just(count),
            st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=20),
        )
    )
)
def test_any_graph_is_drawn(
    tmp_path_factory: pytest.TempPathFactory, graph: tuple[int, list[tuple[int, int]]]
) -> None:
    count, pairs = graph
    chain = [(number, number + 1) for number in range(count - 1)]
    lines = ["states:"]
    lines += [f"  s{number}: {{say: x, reference: x}}" for number in range(count)]
    lines.append("edges:")
    lines += [
        f"  - {{from: s{one}, to: s{two}, say: go {one} {two}, reference: x}}"
        for one, two in chain + pairs
        if one != count - 1
    ]
    lines += ["start: s0", f"end: [s{count - 1}]", ""]
    folder = write(tmp_path_factory.getbasetemp() / "graph", "\n".join(lines))
    domain, found = load_domain(folder)
    assert domain is not None, found
    assert len(_boxes(svg(domain))) == count
    assert mermaid(domain)
    assert figures(domain).shortest is not None
