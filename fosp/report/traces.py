"""What happened under a rollout video: stacked traces as SVG with a cursor that the page's script moves.

Drawn by hand, not by matplotlib, because the script must know where a moment lies: the time axis runs from ``LEFT`` to
``RIGHT`` of a box ``WIDTH`` wide, linearly.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from fosp.report.load import Rollout

WIDTH, LEFT, RIGHT = 1000, 190, 930
_GAP = 9
_PANEL = 54


@dataclass(frozen=True)
class Trace:
    """One row of the picture; ``reading`` (T,) is what the cursor shows at the right."""

    title: str
    subtitle: str
    height: int
    draw: Callable[[Callable[[float], float]], list[str]]  # x(row) -> SVG elements, y from 0 to height
    reading: list[str]


def traces_svg(rollout: Rollout) -> tuple[Markup, list[list[str]]]:
    """The picture and, for each of its traces, the text to show at each row (for the script)."""
    traces = _traces(rollout)
    rows = len(rollout)

    def x(row: float) -> float:
        return LEFT + (RIGHT - LEFT) * row / rows

    top, parts = 4.0, []
    bottom = top + sum(trace.height + _GAP for trace in traces)
    for first, last in spans(rollout.cost > 0):
        width = max(1.0, x(last + 1) - x(first))
        parts.append(f'<rect class="unsafe" x="{x(first):.1f}" y="2" width="{width:.1f}" height="{bottom - 4:.1f}"/>')
    for i, trace in enumerate(traces):
        parts.append(f'<g transform="translate(0 {top:.1f})">')
        middle = min(trace.height, 30) / 2
        parts.append(f'<text class="name" x="0" y="{middle + 1:.0f}">{html.escape(trace.title)}</text>')
        if trace.subtitle:
            parts.append(f'<text class="unit" x="0" y="{middle + 16:.0f}">{html.escape(trace.subtitle)}</text>')
        parts += trace.draw(x)
        y = trace.height / 2 + 4
        parts.append(f'<text class="reading" data-trace="{i}" x="{RIGHT + 10}" y="{y:.0f}"></text></g>')
        top += trace.height + _GAP
    parts.append(_seconds(rollout, x, bottom))
    parts.append(f'<line class="cursor" x1="{LEFT}" x2="{LEFT}" y1="0" y2="{bottom}"/>')
    label = (
        f"Traces under the video over {rows} steps: {', '.join(trace.title.lower() for trace in traces)}. "
        f"{int(np.count_nonzero(rollout.cost > 0))} steps in violation are shaded."
    )
    head = f'<svg class="traces" viewBox="0 0 {WIDTH} {bottom + 22:.0f}" role="img" aria-label="{html.escape(label)}"'
    head += f' data-left="{LEFT}" data-right="{RIGHT}">'
    return Markup(head + "".join(parts) + "</svg>"), [trace.reading for trace in traces]


def _traces(rollout: Rollout) -> list[Trace]:
    traces = []
    if rollout.chosen is not None:
        traces.append(_who(rollout.chosen))
    if "violation_probability" in rollout.traces:
        values = rollout.traces["violation_probability"]
        meaning = "chance of a violation ahead"
        traces.append(_line("Predicted danger", meaning, values, "--bad", (0.0, 1.0), percent=True))
    traces.append(_bars("Cost in this step", "above zero: a violation", rollout.cost, "--bad"))
    traces.append(_line("Return so far", "rewards summed up", np.cumsum(rollout.reward), "--good"))
    for name, title, colour in (("reward_value", "Reward", "--c3"), ("cost_value", "Cost", "--c5")):
        if name in rollout.traces:
            values = rollout.traces[name]
            traces.append(_line(f"{title} expected", "the policy's own forecast", values, colour))
    if rollout.imagined_from is not None and rollout.imagined:
        traces.append(_ahead(rollout.imagined_from))
    return traces


def _who(chosen: np.ndarray) -> Trace:
    """A lane for each policy, so that it can be read without colours."""

    def draw(x: Callable[[float], float]) -> list[str]:
        parts = []
        for policy, (name, colour) in enumerate((("frozen", "--c1"), ("online", "--c2"))):
            y = 1 + 17 * policy
            parts.append(f'<rect class="lane" x="{LEFT}" y="{y}" width="{RIGHT - LEFT}" height="14"/>')
            parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 11}" text-anchor="end">{name}</text>')
            for first, last in spans(chosen == policy):
                width = x(last + 1) - x(first)
                paint = f'style="fill:var({colour})"'
                parts.append(f'<rect x="{x(first):.1f}" y="{y}" width="{width:.1f}" height="14" {paint}/>')
        return parts

    names = {0: "frozen", 1: "online"}
    return Trace("Who acted", "", 34, draw, [names.get(int(value), "") for value in chosen])


def _line(
    title: str, subtitle: str, values: np.ndarray, colour: str,
    limits: tuple[float, float] | None = None, *, percent: bool = False,
) -> Trace:  # fmt: skip
    known = values[np.isfinite(values)]
    low, high = limits or (min(0.0, float(known.min())), max(float(known.max()), 1e-3))
    height = _PANEL

    def y(value: float) -> float:
        return height - height * (min(max(value, low), high) - low) / (high - low)

    def draw(x: Callable[[float], float]) -> list[str]:
        parts = _frame(height, _format(high, percent), _format(low, percent))
        if low < 0.0:
            parts.append(f'<line class="rail" x1="{LEFT}" x2="{RIGHT}" y1="{y(0):.1f}" y2="{y(0):.1f}"/>')
        for first, last in spans(np.isfinite(values)):
            points = [(x(row + 0.5), y(float(values[row]))) for row in range(first, last + 1)]
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            base = y(max(0.0, low))
            area = f"{points[0][0]:.1f},{base:.1f} {path} {points[-1][0]:.1f},{base:.1f}"
            parts.append(f'<polygon points="{area}" style="fill:var({colour})" opacity=".14"/>')
            parts.append(f'<polyline points="{path}" style="stroke:var({colour})"/>')
        return parts

    reading = [_format(float(value), percent) if np.isfinite(value) else "" for value in values]
    return Trace(title, subtitle, height, draw, reading)


def _bars(title: str, subtitle: str, values: np.ndarray, colour: str) -> Trace:
    height, high = 34, max(float(values.max()), 1.0)

    def draw(x: Callable[[float], float]) -> list[str]:
        parts = _frame(height, f"{high:g}", "0")
        for row in np.flatnonzero(values > 0).tolist():
            size = height * float(values[row]) / high
            width = max(1.0, x(row + 1) - x(row) - 0.4)
            box = f'x="{x(row):.1f}" y="{height - size:.1f}" width="{width:.1f}" height="{size:.1f}"'
            parts.append(f'<rect {box} style="fill:var({colour})"/>')
        return parts

    return Trace(title, subtitle, height, draw, [f"{value:g}" for value in values])


def _ahead(start: np.ndarray) -> Trace:
    """How far the imagined picture is a prediction: wedges that grow until the model looks at the real camera again."""
    ahead = np.arange(len(start)) - start  # (T,)
    height, high = 24, max(1, int(ahead.max()))

    def draw(x: Callable[[float], float]) -> list[str]:
        starts = [0, *(np.flatnonzero(np.diff(start)) + 1).tolist(), len(start)]
        parts = [f'<line class="rail" x1="{LEFT}" x2="{RIGHT}" y1="{height}" y2="{height}"/>']
        for first, end in zip(starts, starts[1:], strict=False):
            top = height - height * float(ahead[end - 1]) / high
            parts.append(
                f'<polygon points="{x(first):.1f},{height} {x(end):.1f},{height} {x(end):.1f},{top:.1f}"'
                ' style="fill:var(--muted)" opacity=".35"/>'
            )
        return parts

    return Trace("Steps imagined ahead", "", height, draw, [f"{value:d}" for value in ahead])


def _frame(height: int, high: str, low: str) -> list[str]:
    return [
        f'<line class="rail" x1="{LEFT}" x2="{RIGHT}" y1="{height}" y2="{height}"/>',
        f'<text class="tick" x="{LEFT - 6}" y="9" text-anchor="end">{high}</text>',
        f'<text class="tick" x="{LEFT - 6}" y="{height}" text-anchor="end">{low}</text>',
    ]


def _seconds(rollout: Rollout, x: Callable[[float], float], y: float) -> str:
    """The time axis: about eight ticks at round seconds, or steps where the length of a step is not known."""
    seconds = float(rollout.meta.get("step_seconds") or 0.0)
    per_row, unit = (seconds, " s") if seconds > 0 else (1.0, "")
    total = len(rollout) * per_row
    rough = total / 8
    size = 10.0 ** np.floor(np.log10(rough))
    tick = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough)
    marks = np.arange(0.0, total * 0.995, tick)
    return "".join(
        f'<text class="tick" x="{x(mark / per_row):.1f}" y="{y + 10:.0f}" text-anchor="middle">{mark:g}{unit}</text>'
        for mark in marks
    )


def spans(mask: np.ndarray) -> list[tuple[int, int]]:
    """First and last index of each run of True. (T,) -> [(first, last), ...]"""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b) - 1) for a, b in edges.reshape(-1, 2)]


def _format(value: float, percent: bool) -> str:
    return f"{100 * value:.0f} %" if percent else f"{value:.1f}"
