"""The domain's graph with its traffic: the drawing of `specs.drawing`, arrows as wide as they are
walked, and the same drawing once more as PNG.

The drawing names each arrow in its title (`from: intent → to`), and by that its traffic is found.
An intent's line bears the number of walks that took it; what no walk took is pale.
"""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from typing import Any
from xml.etree import ElementTree as ET

from cluster.report_data import Step
from cluster.report_plots import settings
from specs.domain import Domain
from specs.drawing import svg
from specs.graph import label

_SVG = "{http://www.w3.org/2000/svg}"
_TITLE = re.compile(r"(?P<from>[^:→]+?)(?:: (?P<text>.*))? → (?P<to>[^→]+)", re.DOTALL)
_LINE_CLASSES = {"": "#64748b", "back": "#8b5cf6", "move": "#64748b"}
_PALE = "0.3"
_WIDEST = 7.0
_PIXELS = 96.0
"""Of an SVG's inch."""

_POINTS = 72.0 / _PIXELS
"""The drawing's lengths are pixels, matplotlib's are points."""

_MAX_PIXELS = 6000
"""The most a PNG is wide or high."""


def labelled(domain: Domain, traffic: Mapping[Step, int]) -> Counter[Step]:
    """Return the traffic with the labels that the drawing gives to edges without a name.

    A step without an intent is a move that the agent makes by itself, where the domain has one from
    there to there, and else the first edge without a name.
    """
    unnamed: dict[tuple[str, str], str] = {}
    for edge in domain.edges:
        if not edge.intent:
            for case in edge.to:
                unnamed.setdefault((edge.from_, case.to), label(edge))
    moves = {(state.name, case.to) for state in domain.states.values() for case in state.next}
    found: Counter[Step] = Counter()
    for (from_, intent, to), count in traffic.items():
        name = intent
        if not intent and (from_, to) not in moves:
            name = unnamed.get((from_, to), "")
        found[from_, name, to] += count
    return found


def traffic_svg(domain: Domain, traffic: Mapping[Step, int]) -> bytes:
    """Return the graph as SVG, its arrows as wide as their traffic.

    Args:
        traffic: of `labelled`.
    """
    root = ET.fromstring(svg(domain))
    asides = {state.name for state in domain.states.values() if state.digression}
    walked = _Walked(traffic, asides)
    for marker in root.iter(f"{_SVG}marker"):
        marker.set("markerUnits", "userSpaceOnUse")  # else the tips would grow with the lines
        marker.set("markerWidth", "9")
        marker.set("markerHeight", "9")
    for path in root.iter(f"{_SVG}path"):
        title = path.find(f"{_SVG}title")
        if title is not None:
            walked.dress(path, title)
    counts: list[ET.Element] = []
    for box in root.iter(f"{_SVG}g"):
        counts += walked.lines(box)
    root.extend(counts)  # above the arrows
    ET.register_namespace("", _SVG.strip("{}"))
    return bytes(ET.tostring(root, encoding="utf-8"))


class _Walked:
    """Finds the traffic of what is drawn."""

    def __init__(self, traffic: Mapping[Step, int], asides: Set[str]) -> None:
        self._most = max(traffic.values(), default=1)
        self._asides = asides
        self._ways: dict[tuple[str, str], list[tuple[str, int]]] = {}
        self._lines: dict[str, list[tuple[str, str, int]]] = {}
        for (from_, text, to), count in traffic.items():
            self._ways.setdefault((from_, to), []).append((text, count))
            self._lines.setdefault(from_, []).append((text, to, count))

    def dress(self, path: ET.Element, title: ET.Element) -> None:
        """Make an arrow as wide as its traffic, and say it in its title."""
        found = _TITLE.fullmatch(title.text or "")
        if found is None:
            return
        ways = self._ways.get((found["from"], found["to"]), [])
        count = sum(n for text, n in ways if _is_line(found["text"] or "", text))
        title.text = f"{title.text}: {count}"
        kind = path.attrib.pop("class", "")
        width = 1.0 + (_WIDEST - 1.0) * math.sqrt(count / self._most)
        style = f"stroke:{_LINE_CLASSES[kind]};stroke-width:{width:.2f}"
        style += ";stroke-dasharray:5 3" if kind == "move" else ""
        path.set("style", style + f";opacity:{'0.75' if count else _PALE}")

    def lines(self, box: ET.Element) -> Iterator[ET.Element]:
        """Yield the numbers of a box's lines; its lines without traffic become pale."""
        rect = box.find(f"{_SVG}rect")
        texts = box.findall(f"{_SVG}text")
        if rect is None or not texts:
            return
        right = float(rect.attrib["x"]) + float(rect.attrib["width"]) + 4
        known = self._lines.get(texts[0].text or "", [])
        for line in texts:
            shown = "" if line is texts[0] else line.text or ""
            count = sum(n for text, to, n in known if self._leads(shown, text, to))
            if count:
                yield _number(right, float(line.attrib["y"]), count)
            elif shown:
                line.set("style", "opacity:.55")

    def _leads(self, shown: str, text: str, to: str) -> bool:
        """Whether a line stands for a step: lines of one intent differ in their digressions."""
        named = shown.partition(" ↩ ")[2].split(", ")
        whole = shown.endswith("…") or to not in self._asides or to in named
        return whole and _is_line(shown, text)


def _is_line(shown: str, text: str) -> bool:
    """Whether a line of a box stands for a label: it may name digressions too, or be cut."""
    if not shown or not text:
        return shown == text
    if shown.partition(" ↩ ")[0] == text:
        return True
    return shown.endswith("…") and text.startswith(shown[:-1])


def _number(x: float, y: float, count: int) -> ET.Element:
    found = ET.Element(f"{_SVG}text", {"x": f"{x:.1f}", "y": f"{y - 4:.1f}"})
    found.set(
        "style",
        "font-size:10px;font-weight:600;fill:#1d4ed8;"
        "stroke:#ffffff;stroke-width:3px;paint-order:stroke",
    )
    found.text = str(count)
    return found


# -- the same as PNG


def png(drawing: bytes) -> bytes:
    """Return a drawing of `traffic_svg` as PNG: its boxes, texts and curves, drawn by matplotlib.

    Not an SVG reader: it knows the few elements that are in that drawing.
    """
    from matplotlib.figure import Figure

    root = ET.fromstring(drawing)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    out = io.BytesIO()
    with settings():
        figure = Figure(figsize=(width / _PIXELS, height / _PIXELS))
        figure.set_layout_engine("none")
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.axis("off")
        for number, element in enumerate(_drawn(root)):
            kind = element.tag.removeprefix(_SVG)
            {"rect": _rect, "path": _path, "text": _text}[kind](axes, element, number)
        dpi = min(1.25 * _PIXELS, _MAX_PIXELS / max(width, height) * _PIXELS)
        figure.savefig(out, format="png", dpi=dpi, facecolor="white")
    return out.getvalue()


def _drawn(root: ET.Element) -> Iterator[ET.Element]:
    """Yield what is drawn, in its order; the background and the arrows' tip are not."""
    for element in root:
        if element.tag == f"{_SVG}g":
            yield from (one for one in element if one.tag in (f"{_SVG}rect", f"{_SVG}text"))
        elif element.tag in (f"{_SVG}path", f"{_SVG}text"):
            yield element


def _style(element: ET.Element) -> dict[str, str]:
    pairs = (one.partition(":") for one in element.get("style", "").split(";") if one)
    return {name: value for name, _, value in pairs}


def _rect(axes: Any, element: ET.Element, order: int) -> None:
    from matplotlib.patches import FancyBboxPatch

    at = element.attrib
    x, y, width, height = (float(at[name]) for name in ("x", "y", "width", "height"))
    axes.add_patch(
        FancyBboxPatch(
            (x, y),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=6",
            facecolor=at["fill"],
            edgecolor=at["stroke"],
            linewidth=float(at["stroke-width"]) * _POINTS,
            linestyle="--" if "stroke-dasharray" in at else "-",
            zorder=order,
        )
    )


def _path(axes: Any, element: ET.Element, order: int) -> None:
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path

    style = _style(element)
    numbers = [float(one) for one in re.findall(r"-?\d+(?:\.\d+)?", element.attrib["d"])]
    points = list(zip(numbers[::2], numbers[1::2], strict=True))
    colour, alpha = style["stroke"], float(style["opacity"])
    curve = Path(points, [Path.MOVETO, *[Path.CURVE4] * 3])
    dashes = "--" if "stroke-dasharray" in style else "-"
    width = float(style["stroke-width"]) * _POINTS
    axes.add_patch(
        PathPatch(
            curve, fill=False, edgecolor=colour, linewidth=width, linestyle=dashes, alpha=alpha,
            zorder=order,
        )
    )  # fmt: skip
    x, y = points[-1]
    tip = [(x, y), (x - 7, y - 4), (x - 7, y + 4)]
    axes.add_patch(Polygon(tip, facecolor=colour, alpha=alpha, edgecolor="none", zorder=order))


def _text(axes: Any, element: ET.Element, order: int) -> None:
    from matplotlib.patheffects import withStroke

    style, at = _style(element), element.attrib
    name, count = at.get("class") == "name", "paint-order" in style
    size = float(style.get("font-size", "12px").removesuffix("px"))
    drawn = axes.text(
        float(at["x"]),
        float(at["y"]),
        element.text or "",
        fontsize=size * _POINTS,
        fontweight="bold" if name or count else "normal",
        color=style.get("fill", "#0f172a" if name else "#475569"),
        alpha=float(style.get("opacity", "1")),
        zorder=order,
    )
    if count:
        drawn.set_path_effects([withStroke(linewidth=2, foreground="white")])
