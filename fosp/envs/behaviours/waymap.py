"""Length of the shortest way to a goal around discs, on a grid: lets a planner see past its short horizon."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

CELL = 0.1  # metres
BORDER = 0.6  # metres of map beyond the outermost thing
TOLL = 8.0  # a metre inside a disc counts as so many more, so that a way leads out by the nearest rim
NEAR, NEAR_TOLL = 0.1, 3.0  # metres outside the rim where a way costs more too: gaps too narrow to be driven through
#: Moves to neighbouring cells: with those of a knight the length is at most 3 % too long in any direction.
_MOVES = [(i, j) for i in range(-2, 3) for j in range(-2, 3) if 0 < abs(i) + abs(j) < 4 and (i * j or abs(i + j) == 1)]

Disc = tuple[float, float, float]  # x, y, radius


@dataclass(frozen=True)
class WayMap:
    """Lengths of ways to one goal on a square grid around the origin."""

    goal: tuple[float, float]
    half: float  # metres from the centre of the map to its outermost cells
    length: np.ndarray  # (G, G) metres, first index x
    slope: tuple[np.ndarray, np.ndarray]  # d length / dx and dy, (G, G) each

    def look_up(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, NDArray[np.complex128]]:
        """Length of the way and its first direction (complex unit vector) from points (P,), also off the map."""
        cells = len(self.length) - 1
        u = np.clip((x + self.half) / CELL, 0, cells - 1e-6)
        v = np.clip((y + self.half) / CELL, 0, cells - 1e-6)
        i, j = u.astype(int), v.astype(int)
        a, b = u - i, v - j
        table = self.length
        value = (1 - a) * ((1 - b) * table[i, j] + b * table[i, j + 1])
        value += a * ((1 - b) * table[i + 1, j] + b * table[i + 1, j + 1])
        value += np.hypot(x - (u * CELL - self.half), y - (v * CELL - self.half))
        i, j = np.rint(u).astype(int), np.rint(v).astype(int)
        direction = -(self.slope[0][i, j] + 1j * self.slope[1][i, j])
        return value, direction / (np.abs(direction) + 1e-9)


@lru_cache(maxsize=64)
def way_map(goal: tuple[float, float], discs: tuple[Disc, ...]) -> WayMap:
    """Compute the map by relaxing all cells at once until nothing changes."""
    half = max([abs(c) for c in goal] + [max(abs(x), abs(y)) + r for x, y, r in discs]) + BORDER
    cells = int(np.ceil(2 * half / CELL)) + 1
    axis = np.arange(cells) * CELL - half
    gx, gy = np.meshgrid(axis, axis, indexing="ij")
    price = np.ones((cells, cells))
    for x, y, radius in discs:
        rim = np.hypot(gx - x, gy - y) - radius
        price += np.where(rim < 0, TOLL, NEAR_TOLL * np.clip(1 - rim / NEAR, 0, 1))
    pad = 2
    inner = (slice(pad, -pad), slice(pad, -pad))
    straight = np.hypot(gx - goal[0], gy - goal[1])
    length = np.full((cells + 2 * pad, cells + 2 * pad), np.inf)
    length[inner] = np.where(straight < 2 * CELL, straight, np.inf)
    padded = np.pad(price, pad, mode="edge")
    steps = []
    for i, j in _MOVES:
        window = (slice(pad + i, pad + i + cells), slice(pad + j, pad + j + cells))
        steps.append((window, 0.5 * CELL * np.hypot(i, j) * (price + padded[window])))
    while True:
        before = length[inner].copy()
        best = before.copy()
        for window, effort in steps:
            np.minimum(best, length[window] + effort, out=best)
        length[inner] = best
        if np.array_equal(best, before):
            break
    slope = np.gradient(best, CELL)
    return WayMap(goal, half, best, (slope[0], slope[1]))
