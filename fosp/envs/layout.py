"""Where things start. Draws from NumPy's legacy stream in exactly the order of Safety-Gymnasium.

NumPy keeps the legacy stream frozen for good, so a seed means the same layout here, there, and in years to come.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.random import RandomState

XY = tuple[float, float]
Layout = dict[str, XY]

LAYOUT_TRIES = 10_000  # whole layouts
OBJECT_TRIES = 100  # positions of one object within a layout
GOAL_TRIES = 10_000
QUICK_TRIES = 6  # those that are checked one by one
BLOCK = 4096  # numbers read ahead for a layout

_Disc = tuple[float, float, float]  # x, y, keepout radius


def quaternion_z(angle: float) -> tuple[float, float, float, float]:
    """Rotation by ``angle`` (radians) about the vertical axis as (w, x, y, z).

    Normalised to the last bit as MuJoCo's compiler does: it decides whether the Car's wheels touch the floor at reset.
    """
    w, z = math.cos(angle / 2), math.sin(angle / 2)
    norm = math.sqrt(w * w + z * z)
    return (w / norm, 0.0, 0.0, z / norm)


class LayoutError(RuntimeError):
    """No admissible place was found: the arena is too full for its objects."""


class _Ahead:
    """Numbers of a stream, read ahead in blocks because single draws cost more than all that is done with them.

    ``close`` leaves the stream as if just the numbers that were taken had been drawn one by one.
    """

    def __init__(self, random: RandomState, block: int) -> None:
        self._random, self._block = random, block
        self._start = random.get_state(legacy=False)
        self._numbers, self._at, self._taken = random.random_sample(block), 0, 0

    def look(self, count: int) -> np.ndarray:
        """The next numbers, uniform in [0, 1), (count,); they stay in the stream."""
        if self._at + count > len(self._numbers):
            more = self._random.random_sample(max(count, self._block))
            self._numbers, self._at = np.concatenate([self._numbers[self._at :], more]), 0
        return self._numbers[self._at : self._at + count]

    def take(self, count: int) -> None:
        """Remove numbers that were looked at."""
        self._at += count
        self._taken += count

    def close(self) -> None:
        self._random.set_state(self._start)
        self._random.random_sample(self._taken)


def sample_layout(random: RandomState, keepouts: Sequence[tuple[str, float]], extent: float) -> Layout:
    """Place the named discs one after the other in the square [-extent, extent]^2 so that none overlap.

    Parameters: ``keepouts`` = (name, radius in metres) in the order in which they are drawn. An object that finds no
    place in 100 tries throws away the whole attempt; the stream simply goes on.
    Raises: ``LayoutError`` after 10,000 attempts, and at once where the discs cannot fit.
    """
    _check_room(keepouts, extent)
    stream = _Ahead(random, BLOCK)
    for _ in range(LAYOUT_TRIES):
        placed: Layout = {}
        others: list[_Disc] = []
        for name, radius in keepouts:
            xy = _draw_free(stream, radius, extent, others, OBJECT_TRIES)
            if xy is None:
                break
            placed[name] = xy
            others.append((*xy, radius))
        else:
            stream.close()
            return placed
    raise LayoutError(f"no layout found in {LAYOUT_TRIES} attempts: {_too_full(keepouts, extent)}")


def _check_room(keepouts: Sequence[tuple[str, float]], extent: float) -> None:
    name, largest = max(keepouts, key=lambda pair: pair[1])
    if largest > extent:
        raise LayoutError(f"{name} keeps {largest} m free but the arena is a square of half side {extent} m")
    if math.pi * sum(radius**2 for _, radius in keepouts) > (2 * extent) ** 2:
        raise LayoutError(_too_full(keepouts, extent))


def _too_full(keepouts: Sequence[tuple[str, float]], extent: float) -> str:
    return f"{len(keepouts)} things with their keepouts do not fit a square of half side {extent} m"


def sample_rotations(random: RandomState, names: Iterable[str]) -> dict[str, float]:
    """One yaw in radians per name, also where it cannot be seen, because each consumes a number of the stream."""
    return {name: float(random.uniform(0, 2 * math.pi)) for name in names}


def sample_position(random: RandomState, name: str, radii: Mapping[str, float], placed: Layout, extent: float) -> XY:
    """A new place for ``name`` that keeps away from all other things. Raises ``LayoutError`` if there is none."""
    others = [(x, y, radii[other]) for other, (x, y) in placed.items() if other != name]
    stream = _Ahead(random, 2 * QUICK_TRIES)
    xy = _draw_free(stream, radii[name], extent, others, GOAL_TRIES)
    stream.close()
    if xy is None:
        raise LayoutError(f"no place for {name} found in {GOAL_TRIES} draws")
    return xy


def _draw_free(stream: _Ahead, radius: float, extent: float, others: Sequence[_Disc], tries: int) -> XY | None:
    """The first of ``tries`` random points that keeps away from all others, or None."""
    low = -extent + radius
    span = (extent - radius) - low
    quick = min(QUICK_TRIES, tries)
    numbers = stream.look(2 * quick).tolist()
    for i in range(quick):
        x, y = low + span * numbers[2 * i], low + span * numbers[2 * i + 1]  # x first: the order is part of the stream
        for xo, yo, ro in others:
            if math.sqrt((x - xo) ** 2 + (y - yo) ** 2) < radius + ro:
                break
        else:
            stream.take(2 * i + 2)
            return (x, y)
    stream.take(2 * quick)
    if not others:
        return None
    # The same for many points at once: a crowded arena takes ten thousands of tries.
    xs, ys, rs = np.array(others).T  # (others,) each
    for done in range(quick, tries, OBJECT_TRIES):
        count = min(OBJECT_TRIES, tries - done)
        x, y = (low + span * stream.look(2 * count)).reshape(count, 2).T
        free = np.sqrt((x[:, None] - xs) ** 2 + (y[:, None] - ys) ** 2) >= radius + rs  # (count, others)
        found = np.flatnonzero(free.all(axis=1))
        if len(found):
            first = int(found[0])
            stream.take(2 * first + 2)
            return (float(x[first]), float(y[first]))
        stream.take(2 * count)
    return None
