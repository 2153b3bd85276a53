"""Charts as inline SVG that follows the page's light or dark colours.

Matplotlib draws with placeholder colours; ``to_svg`` replaces them with CSS variables, so that one picture serves both
themes, and leaves text as text.
"""

from __future__ import annotations

import hashlib
import html
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from fosp.report import words
from fosp.report.load import Curve

# Placeholders, each a colour of its own so that it can be found again, and close to what the light page shows.
INK, MUTED, LINE = "#1a1c21", "#6a6e78", "#d9dbe1"
FROZEN, ONLINE, VIOLATION, GOOD = "#2f6fb1", "#d9791c", "#c43d4b", "#2d8a5f"
SERIES = (FROZEN, ONLINE, "#7a58b5", "#1f8f8a", "#b5548f", "#7d7a2b")
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    FROZEN: "--c1",
    ONLINE: "--c2",
    SERIES[2]: "--c3",
    SERIES[3]: "--c4",
    SERIES[4]: "--c5",
    SERIES[5]: "--c6",
    VIOLATION: "--bad",
    GOOD: "--good",
}
_STYLE: Any = {  # keys as in matplotlibrc; Any because matplotlib types them as literals
    "svg.fonttype": "none",
    "svg.hashsalt": "fosp",  # the same data give the same file
    "font.family": "sans-serif",
    "font.size": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.color": INK,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
_LOG_COLOURS = (*SERIES[3:], MUTED)  # not those of policies: the log's drivers are other ones
_WIDTH = 10.5  # inches; the page shows them as its full text width
_POINTS = 400  # per curve; more cannot be seen and only makes the file larger
styled = matplotlib.rc_context(_STYLE)  # decorates what draws: text takes its style when it is made


def css_variable(colour: str) -> str:
    return f"var({_VARIABLES[colour]})"


def figure(height: float, rows: int = 1, columns: int = 1, width: float = _WIDTH) -> tuple[Figure, np.ndarray]:
    """An empty figure in the page's style and its axes (rows, columns)."""
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(rows, columns, squeeze=False)


def to_svg(fig: Figure, alt: str) -> Markup:
    """The figure as an <svg> element. ``alt`` says in words what it shows; it becomes the accessible name."""
    buffer = io.StringIO()
    FigureCanvasSVG(fig).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    # Ids must be unique in the whole page, or one figure would be clipped by the paths of another.
    prefix = f"f{hashlib.sha256((alt + text).encode()).hexdigest()[:8]}-"
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}", text)
    box = re.search(r'viewBox="[^"]+"', text)
    head = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {box.group() if box else ""} role="img" class="chart"'
    head += f' aria-label="{html.escape(alt, quote=True)}">'
    return Markup(head + text[text.index(">") + 1 :])


# ------------------------------------------------------------------------------------------------------ the log


@styled
def log_scatter(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Return against cost of each logged episode, one colour and marker per behaviour, a large mark for each mean."""
    fig, axes = figure(3.6, width=6.4)
    ax: Axes = axes[0, 0]
    names = sorted({str(row.get("behaviour", "log")) for row in rows})
    for name, colour, marker in zip(names, itertools.cycle(_LOG_COLOURS), itertools.cycle("osD^vP")):
        cost, value = _points([row for row in rows if str(row.get("behaviour", "log")) == name])
        ax.scatter(cost, value, s=14, marker=marker, color=colour, alpha=0.5, linewidths=0)
        label = f"{name} ({words.number(float(value.mean()))} / {words.number(float(cost.mean()), 0)})"
        ax.scatter(cost.mean(), value.mean(), s=110, marker=marker, color=colour, edgecolors=INK, label=label)
    ax.set_xlabel("cost of the episode  (less is safer)")
    ax.set_ylabel("return of the episode")
    title = "behaviour (mean return / mean cost)"
    fig.legend(loc="outside upper left", ncols=3, title=title, title_fontsize=8.5, alignment="left")
    alt = f"Scatter of return against cost of {len(rows)} logged episodes by behaviour: {', '.join(names)}."
    return to_svg(fig, alt)


def _points(rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(cost, return) of each row; a log without cost counts as cost 0 here, the card says so."""
    return (
        np.array([row.get("cost") or 0.0 for row in rows], np.float64),
        np.array([row["return"] for row in rows], np.float64),
    )


# ------------------------------------------------------------------------------------------------- training curves


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Moving average over ``window`` points, with fewer at both ends instead of invented ones. (n,) -> (n,)"""
    if window <= 1:
        return values
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - window // 2, 0), np.minimum(index + window // 2 + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def thin(curve: Curve, points: int = _POINTS) -> Curve:
    """Means of neighbouring finite points, so that at most ``points`` are drawn."""
    keep = np.isfinite(curve.value)
    step, value = curve.step[keep], curve.value[keep]
    size = -(-len(step) // points) if len(step) else 1
    edges = np.arange(0, len(step), size)
    if size == 1:
        return Curve(step, value)
    counts = np.diff(np.append(edges, len(step)))
    return Curve(np.add.reduceat(step, edges) / counts, np.add.reduceat(value, edges) / counts)


@styled
def training_curves(curves: Mapping[str, Curve], titles: Mapping[str, str], alt: str, columns: int = 4) -> Markup:
    """A small chart for each metric: the measured values pale, their moving average strong."""
    names = list(curves)
    full, columns = columns, min(columns, len(names))
    rows = -(-len(names) // columns)
    fig, axes = figure(1.75 * rows, rows, columns, _WIDTH * columns / full)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for name, ax in zip(names, axes.flat, strict=False):
        curve = thin(curves[name])
        average = smooth(curve.value, max(1, len(curve.value) // 25))
        if len(curve.value) > 1:
            ax.plot(curve.step, curve.value, color=FROZEN, alpha=0.25, linewidth=0.8)
        ax.plot(curve.step, average, color=FROZEN, marker="o" if len(average) < 3 else None)
        if _logarithmic(average):
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=6))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.minorticks_off()
        ax.set_title(titles.get(name, name))
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.xaxis.set_major_formatter(FuncFormatter(_thousands))
    return to_svg(fig, alt)


def _logarithmic(values: np.ndarray) -> bool:
    """A log axis suits what stays positive and ends at less than a tenth of where it began."""
    return bool(len(values) and values.min() > 0 and values[0] > 10 * values[-1])


def _thousands(value: float, _: object = None) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"


# --------------------------------------------------------------------------------------------------- fine-tuning


@styled
def online_curves(episodes: Sequence[Mapping[str, Any]], frozen: Sequence[Mapping[str, Any]]) -> Markup:
    """Return, cost, summed violations and the share of steps the online policy acted, over the online episodes."""
    fig, axes = figure(5.0, 2, 2)
    sides = [("online (learning)", ONLINE, "o", episodes), ("frozen offline policy", FROZEN, "s", frozen)]
    for ax, name, title in ((axes[0, 0], "return", "Return per episode"), (axes[0, 1], "cost", "Cost per episode")):
        for label, colour, marker, rows in sides:
            values = np.array([row[name] for row in rows], np.float64)
            ax.plot(values, marker, color=colour, alpha=0.35, markersize=3, linewidth=0)
            ax.plot(smooth(values, max(1, len(values) // 6)), color=colour, linewidth=2, label=label)
        ax.set_title(title)
    _summed_violations(axes[1, 0], sides)
    share = np.array([row.get("chosen_online", np.nan) for row in episodes], np.float64)
    axes[1, 1].plot(100 * share, "o", color=ONLINE, alpha=0.35, markersize=3)
    if np.isfinite(share).all():
        axes[1, 1].plot(100 * smooth(share, max(1, len(share) // 6)), color=ONLINE, linewidth=2)
    axes[1, 1].axhline(50, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    axes[1, 1].set_ylim(0, 100)
    axes[1, 1].set_title("Steps in which the online policy acted (%)")
    for ax in axes.flat:
        ax.set_xlabel("online episode")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper left", ncols=2)
    alt = "Fine-tuning next to the frozen offline policy on the same layouts: return and cost per online episode, "
    return to_svg(fig, alt + "violations summed up so far, and the share of steps in which the online policy acted.")


def _summed_violations(ax: Axes, sides: Sequence[tuple[str, str, str, Sequence[Mapping[str, Any]]]]) -> None:
    ends = []
    for _, colour, _, rows in sides:
        if rows:
            total = np.cumsum([row.get("violation_steps", 0) for row in rows])
            ax.plot(total, color=colour, linewidth=2)
            ends.append((len(total) - 1, total[-1], colour))
    for x, y, colour in ends:
        ax.annotate(f" {y:.0f}", (x, y), color=colour, va="center", fontweight="bold", annotation_clip=False)
    ax.margins(x=0.08)
    ax.set_title("Violation steps so far")
    ax.set_ylim(bottom=0)


# ---------------------------------------------------------------------------------------------------- comparison


@styled
def cost_and_return(
    document: Mapping[str, Any], colours: Mapping[str, str], log: Mapping[str, tuple[float, float]]
) -> Markup:
    """One point per policy with its intervals as a cross, the cost limit, and the log's behaviours in grey.

    ``log``: behaviour -> (mean return, mean cost).
    """
    fig, axes = figure(4.0, width=8.4)
    ax: Axes = axes[0, 0]
    limit = document["cost_limit"]
    for name, (value, cost) in log.items():
        ax.plot(cost, value, "D", color=MUTED, markersize=6, alpha=0.7)
        place: dict[str, Any] = {"xytext": (8, -3), "textcoords": "offset points"}
        ax.annotate(f"log: {name}", (cost, value), color=MUTED, fontsize=8.5, **place)
    for policy in document["policies"]:
        colour = colours[policy["label"]]
        (x, x_error), (y, y_error) = (_cross(policy["summary"][name]) for name in ("cost", "return"))
        ax.errorbar(x, y, yerr=y_error, xerr=x_error, fmt="o", color=colour, markersize=9, linewidth=1.8, capsize=3)
        ax.annotate(policy["label"], (x, y), xytext=(9, 7), textcoords="offset points", color=colour, fontweight="bold")
    right = ax.get_xlim()[1]
    ax.set_xlim(min(0.0, -0.02 * right), max(right, limit * 1.15) * 1.05)
    ax.axvspan(ax.get_xlim()[0], limit, color=GOOD, alpha=0.08, linewidth=0)
    ax.axvline(limit, color=GOOD, linewidth=1.2, linestyle=(0, (4, 3)))
    above = ax.get_xaxis_transform()  # x in data, y in parts of the axes: just above the frame, where no point can be
    ax.text(limit, 1.015, f"cost limit {limit:g}", transform=above, ha="center", va="bottom", color=GOOD, fontsize=8.5)
    ax.set_xlabel("mean cost per episode  (← safer)")
    ax.set_ylabel("mean return  (better ↑)")
    labels = ", ".join(policy["label"] for policy in document["policies"])
    return to_svg(fig, f"Mean return against mean cost with 95 % intervals for {labels}; cost limit {limit:g}.")


def _cross(value: Mapping[str, Any]) -> tuple[float, list[list[float]] | None]:
    """The mean, and its distances to both ends of the interval where there is one."""
    mean, low, high = value["mean"], value.get("low"), value.get("high")
    if low is None or high is None:
        return mean, None
    return mean, [[max(0.0, mean - low)], [max(0.0, high - mean)]]


def interval_bar(value: Mapping[str, Any], top: float, limit: float | None, colour: str, bottom: float = 0.0) -> Markup:
    """As wide as its place, 16 pixels high: the interval as a bar, the mean as a dot, the allowed range shaded up to a
    tick at the limit. Decoration of a number that stands beside it in words."""

    def x(number: float) -> float:  # percent of the width; 2 % stay free on both sides for the dot
        return round(2 + 96 * min(1.0, max(0.0, (number - bottom) / ((top - bottom) or 1.0))), 2)

    parts = ['<line class="rail" x1="2%" x2="98%" y1="8" y2="8"/>']
    if limit is not None:
        parts.append(f'<rect class="allowed" x="2%" y="3" width="{x(limit) - 2:.2f}%" height="10"/>')
        parts.append(f'<line class="limit" x1="{x(limit)}%" x2="{x(limit)}%" y1="1" y2="15"/>')
    paint = f'style="fill:{css_variable(colour)}"'
    if value.get("low") is not None and value.get("high") is not None:
        low, high = x(value["low"]), x(value["high"])
        width = max(0.5, high - low)
        parts.append(f'<rect x="{low}%" y="6" width="{width:.2f}%" height="4" rx="2" opacity=".5" {paint}/>')
    parts.append(f'<circle cx="{x(value["mean"])}%" cy="8" r="4.5" {paint}/>')
    return Markup(f'<svg class="bar" width="100%" height="16" aria-hidden="true">{"".join(parts)}</svg>')
