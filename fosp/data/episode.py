"""One episode: collected row by row in the order of the picture of time (``types.py``), checked at the border."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fosp.types import Episode, Schema


class EpisodeBuilder:
    """Collects the rows of one episode; the calls follow time: ``start, (act, step), (act, step), ..., build``.

    ``start`` opens row 0, ``act`` adds to the open row the action chosen after seeing it, ``step`` opens the next row
    with what that action caused. Observations are copied, so an environment may reuse its buffers.
    """

    def __init__(self, schema: Schema, keep_images: bool = True) -> None:
        self._schema = schema
        self._images: dict[str, list[np.ndarray]] = {name: [] for name in schema.cameras} if keep_images else {}
        self._action: list[np.ndarray] = []
        self._reward: list[float] = []
        self._cost: list[float] = []
        self._terms: dict[str, list[float]] = {name: [] for name in schema.cost_terms}
        self._diagnostics: dict[str, list[np.ndarray]] = {}
        self._terminated = False

    def start(self, observation: Mapping[str, np.ndarray]) -> None:
        """Row 0: nothing has been caused yet, so reward, cost and its terms are zero."""
        self._add_row(observation, 0.0, 0.0, dict.fromkeys(self._terms, 0.0))

    def act(self, action: np.ndarray, diagnostics: Mapping[str, np.ndarray] | None = None) -> None:
        """The action (A,) executed after seeing the open row, and what the policy said of that row."""
        self._action.append(np.array(action, np.float32))
        for name, value in (diagnostics or {}).items():
            self._diagnostics.setdefault(name, []).append(np.array(value))

    def step(
        self, observation: Mapping[str, np.ndarray], reward: float, cost: float, terms: Mapping[str, float],
        terminated: bool = False,
    ) -> None:  # fmt: skip
        """Opens the next row with what the last action caused; ``terms`` holds a value for each cost term."""
        self._add_row(observation, reward, cost, terms)
        self._terminated = terminated

    def _add_row(
        self, observation: Mapping[str, np.ndarray], reward: float, cost: float, terms: Mapping[str, float]
    ) -> None:
        for name, frames in self._images.items():
            frames.append(np.array(observation[name]))
        self._reward.append(float(reward))
        self._cost.append(float(cost))
        for name, values in self._terms.items():
            values.append(float(terms[name]))

    def build(self, info: Mapping[str, Any]) -> Episode:
        """The finished episode; the open row becomes the last one and gets the placeholder action (zeros)."""
        rows = len(self._reward)
        if len(self._action) != rows - 1:
            raise ValueError(f"{rows} rows need {rows - 1} actions, but {len(self._action)} were given")
        is_first, is_last, is_terminal = np.zeros((3, rows), bool)  # (T,) each
        is_first[0], is_last[-1], is_terminal[-1] = True, True, self._terminated
        return Episode(
            images={name: np.stack(frames) for name, frames in self._images.items()},  # (T, W, W, 3)
            action=np.stack([*self._action, np.zeros(self._schema.action_size, np.float32)]),  # (T, A)
            reward=np.array(self._reward, np.float32),
            cost=np.array(self._cost, np.float32),
            is_first=is_first,
            is_last=is_last,
            is_terminal=is_terminal,
            cost_terms={name: np.array(values, np.float32) for name, values in self._terms.items()},
            diagnostics={name: _with_last_row(values, rows) for name, values in self._diagnostics.items()},
            info=dict(info),
        )


def _with_last_row(values: list[np.ndarray], rows: int) -> np.ndarray:
    """(T - 1, ...) -> (T, ...): nobody acts on the last row; numbers say so with NaN, whole numbers are repeated."""
    if len(values) != rows - 1:
        raise ValueError(f"a diagnostic was given on {len(values)} of {rows - 1} rows; its name must be there on each")
    last = np.full_like(values[-1], np.nan) if values[-1].dtype.kind == "f" else values[-1]
    return np.stack([*values, last])


def summary(episode: Episode) -> dict[str, float | int]:
    """Return, cost (both undiscounted sums), steps and steps in violation (cost > 0) of an episode."""
    return {
        "steps": len(episode) - 1,
        "return": float(np.sum(episode.reward, dtype=np.float64)),
        "cost": float(np.sum(episode.cost, dtype=np.float64)),
        "violation_steps": int(np.count_nonzero(episode.cost > 0)),
    }


def validate(episode: Episode, schema: Schema, *, cost: bool = True) -> None:
    """Raises ValueError, with the values, unless the episode fits ``schema`` and obeys the picture of time.

    With ``cost=False`` the cost and its terms are not looked at (a log that does not know its cost).
    """
    rows = len(episode)
    expected: dict[str, tuple[np.ndarray, type, tuple[int, ...]]] = {
        "action": (episode.action, np.float32, (rows, schema.action_size)),
        "reward": (episode.reward, np.float32, (rows,)),
        **{name: (getattr(episode, name), np.bool_, (rows,)) for name in ("is_first", "is_last", "is_terminal")},
    }
    _same_names("images", episode.images, schema.cameras)
    for name, shape in schema.cameras.items():
        expected[name] = (episode.images[name], np.uint8, (rows, *shape))
    costs: dict[str, np.ndarray] = {}
    if cost:
        _same_names("cost_terms", episode.cost_terms, schema.cost_terms)
        costs = {"cost": episode.cost, **{f"cost_{name}": episode.cost_terms[name] for name in schema.cost_terms}}
        expected.update({name: (array, np.float32, (rows,)) for name, array in costs.items()})
    for name, (array, dtype, shape) in expected.items():
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(
                f"episode: {name} is {array.dtype} of shape {array.shape}, must be {np.dtype(dtype)} of shape {shape}"
            )
    if rows < 2:
        raise ValueError(f"episode: {rows} rows, must be at least 2 (the reset and one step)")
    for name, array in {"action": episode.action, "reward": episode.reward, **costs}.items():
        if not np.isfinite(array).all():
            raise ValueError(f"episode: {name} is not finite at row {int(np.argwhere(~np.isfinite(array))[0][0])}")
    for name, array in {"reward": episode.reward, **costs}.items():
        if array[0] != 0:
            raise ValueError(f"episode: {name} of row 0 is {array[0]}, must be 0: no action has caused anything yet")
    for name, array in costs.items():
        if array.min() < 0:
            raise ValueError(f"episode: {name} is {array.min()} at row {int(array.argmin())}, must not be negative")
    if episode.action[-1].any():
        raise ValueError(f"episode: the action of the last row is {episode.action[-1]}, must be the placeholder zeros")
    for name, array, row in (("is_first", episode.is_first, 0), ("is_last", episode.is_last, rows - 1)):
        if np.flatnonzero(array).tolist() != [row]:
            raise ValueError(f"episode: {name} is set at rows {np.flatnonzero(array).tolist()}, must be at {row} only")
    if episode.is_terminal[:-1].any():
        raise ValueError(f"episode: is_terminal is set at row {int(episode.is_terminal.argmax())}, before the last row")


def _same_names(what: str, found: Mapping[str, Any], wanted: Any) -> None:
    if sorted(found) != sorted(wanted):
        raise ValueError(f"episode: {what} are {sorted(found)}, must be {sorted(wanted)}")
