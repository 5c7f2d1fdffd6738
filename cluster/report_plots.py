"""The report's figures, drawn by matplotlib: each once as SVG for the page and once as PNG.

Text in the SVGs stays text, so that the browser's fonts show any script; no text is taken for
mathematics; the colours can be told apart by the colour-blind (Okabe and Ito), and never say
anything that marks or words do not say too.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cluster.report_data import mean, quantile
from cluster.report_page import Plot
from cluster.show import plain
from cluster.summary import Share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#444444")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
_GREY = "#c3cad4"
_LONGEST = 34
_DPI = 150
_FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans Arabic", "Noto Sans Hebrew")

Interval = Mapping[str, float | None]


def short(text: str, longest: int = _LONGEST) -> str:
    """Return a label that XML takes, cut to a length that figures have room for."""
    text = "".join(one for one in plain(text) if one.isprintable())
    return text if len(text) <= longest else text[: longest - 1] + "…"


@contextlib.contextmanager
def settings() -> Iterator[None]:
    """Draw with the report's fonts and styles, whatever the machine's own are."""
    import matplotlib
    from matplotlib import font_manager

    known = set(font_manager.get_font_names())
    ours: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "duologue",
        "text.parse_math": False,
        "font.family": [name for name in _FONTS if name in known] or ["sans-serif"],
        "font.size": 10.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11.0,
        "axes.titlelocation": "left",
        "figure.constrained_layout.use": True,
    }
    with matplotlib.rc_context(ours), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the SVG has the browser's
        yield


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def _panels(count: int, across: int, each: float, more: float = 0) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels, so many in a row, `each` inches high; `more` is for a legend."""
    down = math.ceil(count / across)
    figure = _figure(10, each * down + more)
    panels = figure.subplots(down, across, squeeze=False).flatten().tolist()
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]


def _plot(figure: Figure, name: str, caption: str, alt: str, wide: bool = False) -> Plot:
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", facecolor="white", metadata={"Date": None})
    figure.set_layout_engine("none")  # it stands: no need to lay it out again
    figure.savefig(png, format="png", facecolor="white", dpi=_DPI)
    return Plot(name, caption, alt, png.getvalue(), svg.getvalue(), wide)


def funnel(steps: Sequence[tuple[str, int]]) -> Plot:
    """Return how many dialogues are left after each step."""
    with settings():
        figure = _figure(8, 0.8 + 0.34 * len(steps))
        axes = figure.add_subplot()
        counts = [count for _, count in steps]
        bars = axes.barh(range(len(steps)), counts, color=COLOURS[0])
        axes.bar_label(bars, [f"{count:,}" for count in counts], padding=4)
        axes.set_yticks(range(len(steps)), [short(name, 48) for name, _ in steps])
        axes.invert_yaxis()
        axes.set_xlim(0, max(counts, default=0) * 1.12 or 1)
        axes.set_xlabel("dialogues")
        said = "; ".join(f"{name}: {count}" for name, count in steps)
        return _plot(figure, "funnel", "Dialogues left after each step.", f"Bars. {said}.")


def lengths(turns: Counter[int], words: Mapping[str, Counter[int]]) -> Plot:
    """Return how long the dialogues and the utterances are."""
    with settings():
        figure = _figure(10, 3.4)
        left, right = figure.subplots(1, 2)
        _histogram(left, {"": turns})
        left.set(title="Turns of a dialogue", xlabel="turns", ylabel="dialogues")
        _histogram(right, words)
        right.set(title="Words of a turn", xlabel="words", ylabel="turns")
        right.legend(frameon=False)
        said = [f"dialogues have {_spread(turns)} turns"]
        said += [f"turns of the {side} have {_spread(one)} words" for side, one in words.items()]
        alt = "Two histograms: " + "; ".join(said) + "."
        return _plot(figure, "lengths", "How long dialogues and turns are.", alt)


def _histogram(axes: Axes, counted: Mapping[str, Counter[int]]) -> None:
    """Draw counted numbers as outlines; the last bin holds all beyond the 99.5th percentile."""
    together = sum(counted.values(), Counter[int]())
    low, high = min(together, default=0), quantile(together, 0.995)
    width = max(1, math.ceil((high - low + 1) / 40))
    edges = [low - 0.5 + width * i for i in range(math.ceil((high - low + 1) / width) + 1)]
    last = len(edges) - 2
    for (name, counts), colour, style in zip(counted.items(), COLOURS, ("-", "--"), strict=False):
        heights = [0] * (last + 1)
        for value, count in counts.items():
            heights[min(last, (value - low) // width)] += count
        axes.stairs(heights, edges, color=colour, fill=True, alpha=0.25)
        axes.stairs(heights, edges, color=colour, linestyle=style, linewidth=1.6, label=name)
    axes.set_ylim(bottom=0)
    if max(together, default=0) > high:
        axes.annotate(f"last: {high} and more", (1, 1), xycoords="axes fraction", ha="right")


def _spread(counts: Counter[int]) -> str:
    low, high = min(counts, default=0), max(counts, default=0)
    return f"{low} to {high} (on average {mean(counts):.1f})"


def coverage(intents: Mapping[str, Share], states: Mapping[str, Share]) -> Plot:
    """Return how often each intent and state came, and how much of it the model worded itself."""
    with settings():
        rows = max(len(intents), len(states), 1)
        figure = _figure(10, 1.0 + 0.24 * rows)
        for axes, title, table in zip(
            figure.subplots(1, 2), ("Intents", "States"), (intents, states), strict=True
        ):
            ordered = sorted(table.items(), key=lambda item: -item[1].turns)
            own = [one.own for _, one in ordered]
            other = [one.turns - one.own for _, one in ordered]
            places = range(len(ordered))
            axes.barh(places, own, color=COLOURS[0], label="the model's own words")
            axes.barh(places, other, left=own, color=_GREY, label="references", hatch="///",
                      edgecolor="white", linewidth=0)  # fmt: skip
            axes.set_yticks(places, [short(name, 28) for name, _ in ordered], fontsize=8)
            axes.set_ylim(len(ordered) - 0.5, -0.5)
            axes.set(title=title, xlabel="turns")
        figure.axes[0].legend(frameon=False, loc="lower right", fontsize=9)
        alt = (
            f"Bars: turns of {len(intents)} intents and {len(states)} states, split into the "
            "model's own words and references. The table below has the numbers."
        )
        return _plot(figure, "coverage", "What the dialogues cover.", alt)


def frontier(rows: Sequence[Mapping[str, Any]], measures: Sequence[str]) -> Plot:
    """Return what each filter keeps, and what that does to a few measures.

    Args:
        rows: with `name`, `share` and `means`.
    """
    with settings():
        figure, panels = _panels(len(measures), 3, 2.5, 0.6 + 0.2 * len(rows))
        for axes, measure in zip(panels, measures, strict=True):
            for number, row in enumerate(rows):
                value = row["means"].get(measure)
                if value is not None:
                    axes.plot(100 * row["share"], value, **_hollow(number, len(rows)))
            axes.set(title=measure.replace("_", " "), xlabel="% kept", xlim=(-4, 104))
            axes.grid(alpha=0.3)
        handles = (_handle(n, len(rows), short(row["name"], 60)) for n, row in enumerate(rows))
        figure.legend(handles=list(handles), loc="outside lower left", frameon=False)
        alt = (
            "Scatter plots: for each filter, the share of dialogues kept against the mean of "
            f"{', '.join(measures)}. The table below has the numbers."
        )
        caption = "What each filter keeps, and the means over what it keeps."
        return _plot(figure, "frontier", caption, alt)


def _handle(place: int, of: int, label: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **_hollow(place, of))


def _hollow(place: int, of: int) -> dict[str, Any]:
    """Return a mark's style; later ones are smaller, so that those beneath them are seen."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKS[place % len(MARKS)],
        "linestyle": "",
        "markerfacecolor": "none",
        "markeredgewidth": 1.8,
        "markersize": 12 - 7 * place / max(1, of - 1),
    }


def diversity(
    before: Mapping[str, float | None], after: Mapping[str, float | None], names: Sequence[str]
) -> Plot:
    """Return the corpus measures before and after curation, each on its own scale."""
    with settings():
        figure, panels = _panels(len(names), 6, 2.4)
        for axes, name in zip(panels, names, strict=True):
            values = [before.get(name), after.get(name)]
            bars = axes.bar((0, 1), [value or 0 for value in values], color=(_GREY, COLOURS[0]))
            axes.bar_label(bars, [number(value) for value in values], padding=2, fontsize=8)
            axes.set_xticks((0, 1), ("played", "kept"), fontsize=8)
            axes.set_title(name.replace("_", "\n"), fontsize=9)
            axes.set_ylim(0, max((value or 0 for value in values), default=0) * 1.2 or 1)
            axes.tick_params(axis="y", labelsize=7)
        said = (f"{n}: {number(before.get(n))} and {number(after.get(n))}" for n in names)
        alt = "Bars, before and after curation: " + "; ".join(said) + "."
        return _plot(figure, "diversity", "How varied the words are.", alt)


def losses(log: Sequence[Mapping[str, Any]]) -> Plot | None:
    """Return the loss curves; None where no loss was written down."""
    curves = {
        "train": points(log, "loss"),
        "validation": points(log, "eval_loss"),
    }
    if not any(curves.values()):
        return None
    with settings():
        figure = _figure(8, 3.6)
        axes = figure.add_subplot()
        said = []
        for (name, curve), colour, mark in zip(curves.items(), COLOURS, ("", "o"), strict=False):
            if curve:
                steps, values = zip(*curve, strict=True)
                mark = mark or ("." if len(curve) < 50 else "")
                axes.plot(steps, values, color=colour, marker=mark, markersize=5, label=name)
                said.append(f"{name} from {values[0]:.3f} to {values[-1]:.3f}")
        axes.set(xlabel="optimizer steps", ylabel="loss (nats a trained token)")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        return _plot(figure, "losses", "The losses.", f"Curves: {'; '.join(said)}.")


def points(log: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """Return the steps of a training's log at which that figure is there and finite, with it."""
    pairs = ((row.get("step"), row.get(name)) for row in log)
    return [
        (float(step), float(value))
        for step, value in pairs
        if isinstance(step, int | float) and isinstance(value, int | float) and math.isfinite(value)
    ]


# -- evaluation


def intervals(
    rows: Sequence[tuple[str, Mapping[str, Interval | None]]], systems: Sequence[str], name: str
) -> Plot:
    """Return the systems' figures side by side, each with its interval.

    Args:
        rows: a figure's title and its value by system.
    """
    with settings():
        figure = _figure(9, 1.1 + 0.5 * len(rows))
        axes = figure.add_subplot()
        step = 0.7 / max(1, len(systems))
        for number, system in enumerate(systems):
            shift = (number - (len(systems) - 1) / 2) * step
            found = [(place, row[1].get(system)) for place, row in enumerate(rows)]
            _draw_intervals(
                axes, [(place + shift, one) for place, one in found], number, short(system), False
            )
        axes.set_yticks(range(len(rows)), [title for title, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="x", alpha=0.3)
        for place in range(1, len(rows)):
            axes.axhline(place - 0.5, color=_GREY, linewidth=0.6)
        figure.legend(loc="outside upper left", ncols=5, frameon=False)
        alt = (
            f"Points with intervals: {', '.join(title for title, _ in rows)} of "
            f"{', '.join(systems)}. The table below has the numbers."
        )
        return _plot(figure, name, "The systems side by side, with intervals.", alt)


def by_turn(
    buckets: Sequence[str], systems: Mapping[str, Mapping[str, Interval | None]], name: str
) -> Plot:
    """Return the intent accuracy by the turn's position, with intervals."""
    with settings():
        figure = _figure(8, 3.4)
        axes = figure.add_subplot()
        for number, (system, found) in enumerate(systems.items()):
            shift = (number - (len(systems) - 1) / 2) * 0.06
            points = [(place + shift, found.get(bucket)) for place, bucket in enumerate(buckets)]
            _draw_intervals(axes, points, number, short(system), True)
        axes.set_xticks(range(len(buckets)), buckets)
        axes.set(xlabel="which of the user's turns", ylabel="intent accuracy", ylim=(-0.03, 1.03))
        axes.grid(alpha=0.3)
        figure.legend(loc="outside upper left", ncols=5, frameon=False)
        alt = (
            f"Lines: intent accuracy of {', '.join(systems)} by turn. "
            "The table below has the numbers."
        )
        return _plot(figure, name, "Intent accuracy by the turn's position.", alt)


def swept(
    values: Sequence[str], panels: Mapping[str, Mapping[str, Sequence[Interval | None]]], key: str
) -> Plot:
    """Return figures over the values of a setting: a panel each, a line for each arm.

    Args:
        panels: by the figure's title and the arm, the figure at each value.
        key: the setting's.
    """
    with settings():
        figure, axes_of = _panels(len(panels), 2, 3.2, 0.5)
        for axes, (title, arms) in zip(axes_of, panels.items(), strict=True):
            for number, (arm, found) in enumerate(arms.items()):
                shift = (number - (len(arms) - 1) / 2) * 0.06
                points = [(place + shift, one) for place, one in enumerate(found)]
                _draw_intervals(axes, points, number, short(arm), True)
            axes.set_xticks(range(len(values)), values)
            axes.set(xlabel=key, title=short(title))
            axes.grid(alpha=0.3)
        handles, labels = axes_of[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=5, frameon=False)
        alt = f"Lines with intervals over {key}: {', '.join(panels)}. The table has the numbers."
        return _plot(figure, "plot", f"The arms over {key}.", alt)


def _draw_intervals(
    axes: Axes,
    points: Sequence[tuple[float, Interval | None]],
    number: int,
    label: str,
    upright: bool,
) -> None:
    """Draw a system's points; the places lie along x if `upright`, else along y."""
    there = [(place, one, one["value"]) for place, one in points if one is not None]
    known = [(place, one, value) for place, one, value in there if value is not None]
    places = [place for place, _, _ in known]
    values = [value for _, _, value in known]
    reach = [
        [
            max(0.0, value - (one["low"] if one["low"] is not None else value))
            for _, one, value in known
        ],
        [
            max(0.0, (one["high"] if one["high"] is not None else value) - value)
            for _, one, value in known
        ],
    ]
    style: dict[str, Any] = {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKS[number % len(MARKS)],
        "label": label,
        "capsize": 3,
    }
    if upright:
        axes.errorbar(places, values, yerr=reach, linestyle="-", linewidth=1.0, **style)
    else:
        axes.errorbar(values, places, xerr=reach, linestyle="", **style)


def confusion(
    rows: Sequence[str],
    columns: Sequence[str],
    counts: Sequence[Sequence[int]],
    name: str,
    system: str,
) -> Plot:
    """Return a confusion matrix; the shade is the share of the row, the number the count."""
    with settings():
        tall, broad = len(rows), len(columns)
        figure = _figure(2.6 + 0.34 * broad, 2.4 + 0.3 * tall)
        axes = figure.add_subplot()
        shares = [[n / (sum(row) or 1) for n in row] for row in counts]
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for y, row in enumerate(counts):
            for x, count in enumerate(row):
                if count:
                    dark = shares[y][x] > 0.55
                    axes.text(x, y, str(count), ha="center", va="center", fontsize=8,
                              color="white" if dark else "#16202e")  # fmt: skip
        axes.set_xticks(range(broad), [short(one, 26) for one in columns], rotation=55,
                        ha="right", rotation_mode="anchor", fontsize=9)  # fmt: skip
        axes.set_yticks(range(tall), [short(one, 26) for one in rows], fontsize=9)
        axes.set_xticks([x - 0.5 for x in range(1, broad)], minor=True)
        axes.set_yticks([y - 0.5 for y in range(1, tall)], minor=True)
        axes.grid(which="minor", color="#e3e8ee", linewidth=0.5)
        axes.tick_params(which="minor", length=0)
        axes.set(xlabel="what was understood", ylabel="what it was")
        right = sum(row[columns.index(one)] for one, row in zip(rows, counts, strict=True))
        total = sum(map(sum, counts))
        alt = (
            f"Confusion matrix of {system}: {right} of {total} understandings lie on the "
            "diagonal. The table below has the most frequent mistakes."
        )
        caption = f"What {system} took for what: shades are shares of a row, numbers are turns."
        return _plot(figure, name, caption, alt, wide=True)


def number(value: float | None) -> str:
    """Return a figure with three significant digits; a dash for none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3g}"
