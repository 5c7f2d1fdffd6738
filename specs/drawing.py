"""The graph as SVG: columns from the start on; each box lists what the user may want there.

The intents stand inside the boxes, so that labels never cross; an arrow leads from an intent's
line to the state that follows. Digressions return to where they came from: the line names them
(`↩`), and they stand apart below. No external program draws it.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from itertools import pairwise

import networkx as nx

from specs.domain import Domain, State
from specs.graph import label, to_networkx

_CHARACTER = 6.6
_LINE = 17
_GAP_X = 110
_GAP_Y = 26
_MARGIN = 30
_SWEEPS = 6
_LABEL_LIMIT = 48

_COLOURS = {
    "start": ("#e0ecff", "#1d4ed8"),
    "end": ("#dcfce7", "#15803d"),
    "silent": ("#f3f4f6", "#6b7280"),
    "digression": ("#fef3c7", "#b45309"),
    "state": ("#ffffff", "#334155"),
}

_STYLE = (
    "text{font:12px ui-sans-serif,system-ui,sans-serif;fill:#0f172a}"
    ".name{font-weight:600}.want{fill:#475569}"
    "path{fill:none;stroke:#94a3b8;stroke-width:1.2}"
    ".back{stroke:#c4b5fd}.move{stroke:#94a3b8;stroke-dasharray:4 3}"
)


def _escape(text: str) -> str:
    """Return text as XML takes it: without control characters, which no escape allows there."""
    return html.escape("".join(one for one in text if one.isprintable()))


@dataclass(slots=True)
class _Row:
    """One line of a box: what the user wants, and the states that may follow."""

    text: str
    targets: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Box:
    name: str
    kind: str
    subgoal: bool
    rows: list[_Row]
    moves: list[str]
    x: float = 0.0
    y: float = 0.0

    @property
    def width(self) -> float:
        longest = max((len(row.text) for row in self.rows), default=0)
        return max(70.0, max(len(self.name) * 1.08, longest) * _CHARACTER + 20)

    @property
    def height(self) -> float:
        return _LINE * (1 + len(self.rows)) + 10


def svg(domain: Domain) -> str:
    """Return the graph as an SVG document; every text in it is escaped."""
    boxes = {name: _box(domain, state) for name, state in domain.states.items()}
    columns = _columns(domain)
    width, height = _place(columns, boxes)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
        f"<title>{_escape(domain.name)}</title><style>{_STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0,0L8,4L0,8z" '
        'style="fill:#94a3b8;stroke:none"/></marker></defs>',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for box in boxes.values():
        parts += _arrows(box, boxes)
    parts += [_drawn(box) for box in boxes.values()]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _box(domain: Domain, state: State) -> _Box:
    rows: dict[str, _Row] = {}
    for edge in domain.edges_from(state.name):
        targets = [domain.states[case.to] for case in edge.to if case.to in domain.states]
        aside = [target.name for target in targets if target.digression]
        text = _cut(label(edge) + (f" ↩ {', '.join(dict.fromkeys(aside))}" if aside else ""))
        row = rows.setdefault(text, _Row(text))
        for target in targets:
            if not target.digression and target.name not in row.targets:
                row.targets.append(target.name)
    moves = list(dict.fromkeys(case.to for case in state.next if case.to in domain.states))
    subgoal = state.name in domain.subgoals
    return _Box(state.name, _kind(domain, state), subgoal, list(rows.values()), moves)


def _cut(text: str) -> str:
    return text if len(text) <= _LABEL_LIMIT else text[: _LABEL_LIMIT - 1] + "…"


def _kind(domain: Domain, state: State) -> str:
    if state.name == domain.start:
        return "start"
    if state.name in domain.end:
        return "end"
    if state.digression:
        return "digression"
    return "silent" if state.speech.say is None else "state"


def _columns(domain: Domain) -> list[list[str]]:
    """Return the states by distance from the start; ends stand last, the unreachable after."""
    graph = nx.DiGraph(to_networkx(domain))
    depth: dict[str, int] = {}
    if domain.start in graph:
        depth = dict(nx.single_source_shortest_path_length(graph, domain.start))
    last = max(depth.values(), default=0)
    for name in domain.states:
        if name not in depth:
            depth[name] = last + 1
        elif name in domain.end and name != domain.start:
            depth[name] = last
    columns: list[list[str]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
    for name, state in domain.states.items():
        if not state.digression:
            columns[depth[name]].append(name)
    columns = [column for column in columns if column]
    for sweep in range(_SWEEPS):
        _order(graph, columns if sweep % 2 == 0 else columns[::-1])
    return columns


def _order(graph: nx.DiGraph, columns: list[list[str]]) -> None:
    """Sort each column by where its neighbours stand in the column before it."""
    for before, column in pairwise(columns):
        place = {name: index / max(1, len(before) - 1) for index, name in enumerate(before)}
        own = {name: index / max(1, len(column) - 1) for index, name in enumerate(column)}

        def centre(
            name: str, place: dict[str, float] = place, own: dict[str, float] = own
        ) -> float:
            near = [place[one] for one in nx.all_neighbors(graph, name) if one in place]
            return sum(near) / len(near) if near else own[name]

        column.sort(key=centre)


def _place(columns: list[list[str]], boxes: dict[str, _Box]) -> tuple[float, float]:
    heights = [sum(boxes[name].height + _GAP_Y for name in column) for column in columns]
    tallest = max(heights, default=0.0)
    x = float(_MARGIN)
    bottom = tallest + _MARGIN
    for column, height in zip(columns, heights, strict=True):
        y = _MARGIN + (tallest - height) / 2
        for name in column:
            boxes[name].x, boxes[name].y = x, y
            y += boxes[name].height + _GAP_Y
        x += max(boxes[name].width for name in column) + _GAP_X
    width = max(x - _GAP_X, 600.0)
    placed = {name for column in columns for name in column}
    x, y, line = float(_MARGIN), bottom, 0.0
    for box in boxes.values():
        if box.name in placed:
            continue
        if x > _MARGIN and x + box.width > width:
            x, y, line = float(_MARGIN), y + line + _GAP_Y, 0.0
        box.x, box.y = x, y
        x, line = x + box.width + _GAP_Y, max(line, box.height)
    width = max([width, *(box.x + box.width for box in boxes.values())])
    return width + _MARGIN, y + line + _MARGIN


def _arrows(box: _Box, boxes: dict[str, _Box]) -> list[str]:
    lines = []
    for number, row in enumerate(box.rows, start=1):
        y = box.y + 5 + _LINE * (number + 0.5)
        lines += [_arrow(box, y, boxes[name], row.text, "") for name in row.targets]
    y = box.y + 5 + _LINE * 0.5
    lines += [_arrow(box, y, boxes[name], "", "move") for name in box.moves]
    return lines


def _arrow(box: _Box, y: float, target: _Box, text: str, css: str) -> str:
    x, end_y = box.x + box.width, target.y + 5 + _LINE * 0.5
    end_x = target.x - 2
    back = target.x <= box.x
    reach = _GAP_X * 0.45 if back else max(30.0, (end_x - x) * 0.5)
    path = f"M{x:.1f},{y:.1f} C{x + reach:.1f},{y:.1f} "
    path += f"{end_x - reach:.1f},{end_y:.1f} {end_x:.1f},{end_y:.1f}"
    css = css or ("back" if back else "")
    title = _escape(
        f"{box.name}: {text} → {target.name}" if text else f"{box.name} → {target.name}"
    )
    named = f' class="{css}"' if css else ""
    return f'<path d="{path}"{named} marker-end="url(#tip)"><title>{title}</title></path>'


def _drawn(box: _Box) -> str:
    fill, stroke = _COLOURS[box.kind]
    heavy = 2.4 if box.subgoal else 1.2
    dashes = ' stroke-dasharray="5 3"' if box.kind == "silent" else ""
    lines = [
        f'<g><rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" rx="6" fill="{fill}" stroke="{stroke}" '
        f'stroke-width="{heavy}"{dashes}/>',
        f'<text class="name" x="{box.x + 10:.1f}" y="{box.y + 18:.1f}">{_escape(box.name)}</text>',
    ]
    for number, row in enumerate(box.rows, start=1):
        y = box.y + 18 + _LINE * number
        text = _escape(row.text)
        lines.append(f'<text class="want" x="{box.x + 10:.1f}" y="{y:.1f}">{text}</text>')
    return "".join([*lines, "</g>"])
