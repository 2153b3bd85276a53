"""Pictures of a dataset, each a function from the store and its manifest rows by behaviour to a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fosp.data.store import Store
from fosp.types import several

#: Told apart by the colour-blind too; in alphabetical order of the behaviours, so random is grey and unsafe is red.
_COLOURS = ("#8c8c8c", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_RASTER_EPISODES = 120  # per behaviour, evenly spaced in the order of their cost
_SHEET_VIOLATIONS = 6
_SHEET_BEFORE = (10, 8, 6, 4, 2, 0)  # agent steps before the violation that are shown
#: Behaviour -> rows of the manifest.
Groups = dict[str, list[dict[str, Any]]]


def _colour(names: Sequence[str], name: str) -> str:
    return _COLOURS[sorted(names).index(name) % len(_COLOURS)]


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=13)
    return figure


def _plain_axes(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)


def draw_returns(groups: Groups) -> Figure:
    """One point per episode; a diamond at the mean of each behaviour."""
    figure = _figure(7.5, 5, "Return against cost, one point per episode")
    axes = figure.add_subplot()
    _plain_axes(axes)
    for name, rows in groups.items():
        cost, value = np.array([[row["cost"], row["return"]] for row in rows]).T
        colour = _colour(list(groups), name)
        label = f"{name}: {several(len(rows), 'episodes')}, mean return {value.mean():.1f}, mean cost {cost.mean():.1f}"
        axes.scatter(cost, value, s=22, color=colour, alpha=0.65, linewidths=0, label=label, clip_on=False)
        axes.scatter(cost.mean(), value.mean(), s=110, marker="D", color=colour, edgecolors="black", zorder=3)
    axes.scatter([], [], s=110, marker="D", color="white", edgecolors="black", label="mean of a behaviour")
    axes.set_xlabel("cost of the episode")
    axes.set_ylabel("return of the episode")
    axes.set_xlim(left=0)
    figure.legend(loc="outside lower center", frameon=False, fontsize=9)
    return figure


def draw_violations(store: Store, groups: Groups) -> Figure:
    """Above: share of the episodes in violation by agent step; below: which episode, when."""
    figure = _figure(9, 7, "Violations over time (steps with a cost)")
    shares, raster = figure.subplots(2, 1, sharex=True, height_ratios=[2, 3])
    _plain_axes(shares)
    length = max(row["rows"] for row in store.manifest)
    line, ticks = 0.0, []
    for name, rows in groups.items():
        colour = _colour(list(groups), name)
        wrong, alive = np.zeros(length), np.zeros(length)  # (T,) episodes in violation, episodes that last so long
        for row in rows:
            wrong[: row["rows"]] += store.read(row["index"], 0, row["rows"])["cost"] > 0
            alive[: row["rows"]] += 1
        width = max(1, length // 25)
        kernel = np.ones(width)
        share = np.convolve(wrong, kernel, "same") / np.maximum(np.convolve(alive, kernel, "same"), 1)
        shares.plot(np.where(alive > 0, 100 * share, np.nan), color=colour, linewidth=1.8, label=name)
        ordered = sorted(rows, key=lambda row: row["cost"])
        shown = [ordered[k] for k in _spread(len(ordered), _RASTER_EPISODES)]
        raster.axhspan(line, line + len(shown), color="#f4f4f4", linewidth=0)
        for k, row in enumerate(shown):
            cost = store.read(row["index"], 0, row["rows"])["cost"]
            raster.broken_barh(_runs(cost > 0), (line + k, 1), color=colour, linewidth=0)
        text = f"{name}\n({len(shown)} of {len(rows)})" if len(shown) < len(rows) else name
        ticks.append((line + len(shown) / 2, text))
        line += len(shown) * 1.06
    shares.set_ylabel("% of the episodes")
    shares.set_ylim(bottom=0)
    shares.set_title(f"Share in violation, mean over {max(1, length // 25)} steps", fontsize=10, loc="left")
    shares.legend(frameon=False, ncols=len(groups), loc="upper right", fontsize=9)
    raster.set_title("One line per episode, the least cost at the bottom of each behaviour", fontsize=10, loc="left")
    raster.set_yticks([place for place, _ in ticks], [label for _, label in ticks])
    raster.tick_params(axis="y", length=0)
    raster.spines[["top", "right", "left"]].set_visible(False)
    raster.set_xlabel("agent step")
    raster.set_xlim(0, length)
    raster.set_ylim(0, line)
    return figure


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """(start, length) of each run of True in ``mask`` (T,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(low), int(high - low)) for low, high in edges.reshape(-1, 2)]


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` of 0..count-1, evenly spaced, first and last among them."""
    return sorted({int(k) for k in np.linspace(0, count - 1, min(count, most)).round()})


def draw_actions(store: Store, groups: Groups) -> Figure:
    """Histogram of each action dimension by behaviour; the placeholder of the last row is left out."""
    size = store.schema.action_size
    columns = min(size, 4)
    lines = -(-size // columns)
    figure = _figure(max(6.0, 4.5 * columns), 0.8 + 3.2 * lines, "Actions")
    panels = np.atleast_1d(figure.subplots(lines, columns, sharey=True, squeeze=False)).ravel()
    bins = np.linspace(-1, 1, 42)
    for name, rows in groups.items():
        chosen = [rows[k] for k in _spread(len(rows), 1000)]  # enough for a histogram
        actions = np.concatenate([store.read(row["index"], 0, row["rows"] - 1)["action"] for row in chosen])  # (N, A)
        for dimension in range(size):
            values = np.clip(actions[:, dimension], -1, 1)
            heights = 100 * np.histogram(values, bins)[0] / len(values)
            panels[dimension].stairs(heights, bins, color=_colour(list(groups), name), linewidth=1.8, label=name)
    for dimension, axes in enumerate(panels):
        if dimension >= size:
            axes.set_visible(False)
            continue
        _plain_axes(axes)
        axes.set_xlabel(f"action[{dimension}]")
        axes.set_xlim(-1.03, 1.03)
        axes.set_xticks([-1, -0.5, 0, 0.5, 1])
        if dimension % columns == 0:
            axes.set_ylabel("% of the steps per bin")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(groups), 6), frameon=False
    )
    return figure


def draw_sheet(store: Store, groups: Groups) -> Figure | None:
    """The frames of all cameras up to violations, taken from different episodes; None where there is no violation."""
    cases = _violations(store, groups)
    if not cases:
        return None
    cameras, columns = list(store.schema.cameras), len(_SHEET_BEFORE)
    across = 2 if len(cases) > 1 else 1
    down = -(-len(cases) // across)
    width, height = across * (0.95 * columns + 0.9), down * (0.95 * len(cameras) + 0.55) + 0.6
    figure = _figure(width, height, "Frames before violations")
    blocks = np.atleast_1d(figure.subfigures(down, across, squeeze=False)).ravel()
    for block, (row, step) in zip(blocks, cases, strict=False):
        names = [f"{row.get('behaviour', 'unnamed')}", f"episode {row['index']}", f"seed {row.get('seed')}"]
        block.suptitle(", ".join([*names, f"violation at step {step}"]), fontsize=9, fontweight="bold")
        panels = block.subplots(len(cameras), columns, squeeze=False)
        low = step - _SHEET_BEFORE[0]
        frames = store.read(row["index"], low, step + 1)
        for line, camera in enumerate(cameras):
            for axes, before in zip(panels[line], _SHEET_BEFORE, strict=True):
                axes.imshow(frames[camera][step - before - low], interpolation="nearest")
                axes.set_xticks([])
                axes.set_yticks([])
                now = before == 0
                axes.spines[:].set(color="#d55e00" if now else "#b0b0b0", linewidth=2.5 if now else 0.8)
                if line == 0:
                    axes.set_title("violation" if now else f"{before} before", fontsize=8, pad=3)
            panels[line][0].set_ylabel(camera.removeprefix("image_"), fontsize=8)
    return figure


def _violations(store: Store, groups: Groups) -> list[tuple[dict[str, Any], int]]:
    """(manifest row, step) where violations begin after enough frames without one; the behaviours in turn."""
    first = _SHEET_BEFORE[0]
    queues = []
    for rows in groups.values():
        guilty = [row for row in rows if row["violation_steps"]]
        found = []
        for k in _spread(len(guilty), 4 * _SHEET_VIOLATIONS):
            wrong = store.read(guilty[k]["index"], 0, guilty[k]["rows"])["cost"] > 0  # (T,)
            begins = np.flatnonzero(wrong[1:] & ~wrong[:-1]) + 1
            begins = [int(t) for t in begins if t >= first and not wrong[t - first : t].any()]
            if begins:
                found.append((guilty[k], begins[len(begins) // 2]))
        queues.append([found[k] for k in _spread(len(found), _SHEET_VIOLATIONS)])
    cases = [queue[turn] for turn in range(_SHEET_VIOLATIONS) for queue in queues if turn < len(queue)]
    return cases[:_SHEET_VIOLATIONS]
