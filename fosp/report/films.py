"""Rollouts as films: the recorded cameras beside the world model's imagination, and the traces that run below."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from fosp.report import words
from fosp.report.load import Rollout, Run, load_rollout
from fosp.report.traces import spans, traces_svg
from fosp.report.video import encode, grid

#: Bytes of video in a page. In base64 they take a third more; together with the charts that stays below 15 MB.
BUDGET = 9_500_000
_CELL, _GAP = 192, 6
_QUALITIES = (24, 31)  # the second, coarser one where the first is too large for what is left


class Budget:
    """Counts the bytes of video that may still be embedded."""

    def __init__(self, total: int = BUDGET) -> None:
        self.left = total

    def take(self, size: int) -> bool:
        fits = size <= self.left
        self.left -= size if fits else 0
        return fits


def films(runs: Sequence[Run], budget: Budget) -> tuple[list[dict[str, Any]], list[str]]:
    """The films of all runs in order, and the names of rollouts left out because the page would become too large.

    Space goes to the first rollout of each run first, then to the second ones, and so on.
    """
    order = sorted((i, r) for r, run in enumerate(runs) for i in range(len(run.rollouts)))
    made: dict[tuple[int, int], dict[str, Any]] = {}
    left_out = []
    for i, r in order:
        film = _film(load_rollout(runs[r].rollouts[i]), budget) if budget.left > 0 else None
        if film is None:
            left_out.append(runs[r].rollouts[i].name)
        else:
            made[r, i] = {**film, "run": runs[r].name, "first": i == 0}
    return [made[key] for key in sorted(made)], left_out


def _film(rollout: Rollout, budget: Budget) -> dict[str, Any] | None:
    """One film with its traces; None where the video does not fit any more."""
    seconds = float(rollout.meta.get("step_seconds") or 0.0)
    fps = float(np.clip(1.0 / seconds if seconds > 0 else 12.5, 1.0, 60.0))
    screen = Screen(rollout)
    data = b""
    if screen.length:
        tries = (encode(screen.frames(), fps, quality) for quality in _QUALITIES)
        data = next((video for video in tries if budget.take(len(video))), b"")
        if not data:
            return None
    traces, readings = traces_svg(rollout)
    unsafe = spans(rollout.cost > 0)
    return {
        "title": _title(rollout),
        "facts": _facts(rollout),
        "video": data_uri(data, "video/mp4") if data else "",
        "alt": f"Video of {_title(rollout)}: {', '.join(name.lower() for name, _ in screen.headings)}.",
        "headings": screen.headings,
        "width": screen.width,
        "height": screen.height,
        "traces": traces,
        "script": {"rows": len(rollout), "fps": fps, "readings": readings},
        "violations": [f"{first / fps:.2f}" for first, _ in unsafe[:6]],
        "two_policies": rollout.chosen is not None,
        "imagined": bool(rollout.imagined),
    }


class Screen:
    """What the film shows, column by column: the overview, the cameras one below the other, the same imagined."""

    def __init__(self, rollout: Rollout) -> None:
        cameras = list(rollout.images)
        both = {"image_front", "image_back"} <= set(cameras)
        views = "front and back" if both else words.listing([c.removeprefix("image_") for c in cameras] or [""])
        height = max(2, len(cameras)) * (_CELL + _GAP) - _GAP
        imagined = [rollout.imagined[c] for c in cameras if c in rollout.imagined]
        columns = [
            ("From above (for people)", [rollout.overview] if rollout.overview is not None else [], height),
            (f"What it sees ({views})", [rollout.images[c] for c in cameras], _CELL),
            ("What it imagines", imagined, _CELL),
        ]
        self._columns = [(clips, size) for _, clips, size in columns if clips]
        widths = [size + 2 * _GAP for _, size in self._columns]
        names = [name for name, clips, _ in columns if clips]
        self.length = len(rollout) if names else 0
        self.width, self.height = sum(widths), height + 2 * _GAP
        shares = [width / self.width for width in widths]
        self.headings = list(zip(names, shares, strict=True))

    def frames(self) -> Iterator[np.ndarray]:
        """uint8 (H, W, 3), one at a time: a whole film in memory would be hundreds of megabytes."""
        for t in range(self.length):
            parts = [grid([[clip[t]] for clip in clips], size=size, gap=_GAP) for clips, size in self._columns]
            padded = [np.pad(p, ((0, self.height - p.shape[0]), (0, 0), (0, 0)), mode="edge") for p in parts]
            yield np.concatenate(padded, axis=1)


def _title(rollout: Rollout) -> str:
    scenario = rollout.meta.get("scenario")
    where = f"scenario “{scenario}”" if scenario else "usual layouts"
    return f"{rollout.meta['label']}, {where}, layout {rollout.meta.get('seed', 'unknown')}"


def _facts(rollout: Rollout) -> str:
    unsafe = int(np.count_nonzero(rollout.cost > 0))
    parts = [
        f"return {words.number(float(rollout.meta.get('return', rollout.reward.sum())))}",
        f"cost {words.number(float(rollout.meta.get('cost', rollout.cost.sum())), 0)}",
        f"{unsafe} of {len(rollout) - 1} steps in violation",
    ]
    if rollout.chosen is not None:
        parts.append(f"online policy acted in {100 * np.mean(rollout.chosen == 1):.0f}\u00a0% of steps")
    return ", ".join(parts)


# --------------------------------------------------------------------------------------------- pictures and files


def moments(rollout: Rollout, columns: int = 6) -> str:
    """A picture of a few moments, the overview above the cameras, as a data URI; "" without pictures.

    Moments are spread evenly; where there is a violation, the one nearest to it shows it.
    """
    clips = ([rollout.overview] if rollout.overview is not None else []) + list(rollout.images.values())
    if not clips:
        return ""
    rows = np.linspace(0, len(rollout) - 1, columns).round().astype(int)
    unsafe = np.flatnonzero(rollout.cost > 0)
    if len(unsafe):
        rows[np.abs(rows - unsafe[0]).argmin()] = unsafe[0]
    buffer = io.BytesIO()
    picture = grid([[clip[row] for row in rows] for clip in clips], size=128, gap=4)
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return data_uri(buffer.getvalue(), "image/png")


def training_videos(runs: Sequence[Run], budget: Budget) -> dict[str, str]:
    """The newest video that training wrote, per run that has one: run name -> data URI."""
    found = {}
    for run in runs:
        if run.videos:
            data = run.videos[-1].read_bytes()
            if budget.take(len(data)):
                found[run.name] = data_uri(data, "video/mp4")
    return found


def data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
