"""Where things start. Draws from NumPy's legacy stream in exactly the order of Safety-Gymnasium.

NumPy keeps the legacy stream frozen for good, so a seed means the same layout here, there, and in years to come.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.random import RandomState

XY = tuple[float, float]
Layout = dict[str, XY]

LAYOUT_TRIES = 10_000  # whole layouts
OBJECT_TRIES = 100  # positions of one object within a layout
GOAL_TRIES = 10_000
QUICK_TRIES = 6  # those that are checked one by one
BLOCK = 4096  # numbers read ahead for a layout

_Disc = tuple[float, float, float]  # x, y, square of the distance that is kept from there, see _square


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
        #: Uniform in [0, 1), as an array and as a list, because each is quicker in its place; ``at`` is the next one.
        self.numbers, self.at, self._before = random.random_sample(block), 0, 0
        self.listed: list[float] = self.numbers.tolist()

    def hold(self, count: int) -> None:
        """Read on, if need be, until so many numbers lie ahead."""
        if self.at + count > len(self.listed):
            more = self._random.random_sample(max(count, self._block))
            self._before += self.at
            self.numbers, self.at = np.concatenate([self.numbers[self.at :], more]), 0
            self.listed = self.numbers.tolist()

    def close(self) -> None:
        self._random.set_state(self._start)
        self._random.random_sample(self._before + self.at)


def sample_layout(random: RandomState, keepouts: Sequence[tuple[str, float]], extent: float) -> Layout:
    """Place the named discs one after the other in the square [-extent, extent]^2 so that none overlap.

    Parameters: ``keepouts`` = (name, radius in metres) in the order in which they are drawn. An object that finds no
    place in 100 tries throws away the whole attempt; the stream simply goes on.
    Raises: ``LayoutError`` after 10,000 attempts, and at once where the discs cannot fit.
    """
    _check_room(keepouts, extent)
    stream = _Ahead(random, BLOCK)
    radii = {radius for _, radius in keepouts}
    squares = {a: [(b, _square(a + b)) for b in radii] for a in radii}
    for _ in range(LAYOUT_TRIES):
        placed: Layout = {}
        others: dict[float, list[_Disc]] = {radius: [] for radius in radii}  # as something of that radius sees them
        for name, radius in keepouts:
            xy = _draw_free(stream, radius, extent, others[radius], OBJECT_TRIES)
            if xy is None:
                break
            placed[name] = xy
            for other, square in squares[radius]:
                others[other].append((*xy, square))
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
    others = [(x, y, _square(radii[name] + radii[other])) for other, (x, y) in placed.items() if other != name]
    stream = _Ahead(random, 2 * QUICK_TRIES)
    xy = _draw_free(stream, radii[name], extent, others, GOAL_TRIES)
    stream.close()
    if xy is None:
        raise LayoutError(f"no place for {name} found in {GOAL_TRIES} draws")
    return xy


@lru_cache(maxsize=256)
def _square(distance: float) -> float:
    """The least number whose square root is not below ``distance``: comparing with it spares roots, to the last bit."""
    square = distance * distance
    while square > 0 and math.sqrt(square) >= distance:
        square = math.nextafter(square, 0.0)
    while math.sqrt(square) < distance:
        square = math.nextafter(square, math.inf)
    return square


def _draw_free(stream: _Ahead, radius: float, extent: float, others: Sequence[_Disc], tries: int) -> XY | None:
    """The first of ``tries`` random points that keeps away from all others, or None."""
    low = -extent + radius
    span = (extent - radius) - low
    quick = min(QUICK_TRIES, tries)
    stream.hold(2 * quick)
    numbers, at = stream.listed, stream.at
    for end in range(at + 2, at + 2 * quick + 2, 2):
        x, y = low + span * numbers[end - 2], low + span * numbers[end - 1]  # x first: the order is part of the stream
        for xo, yo, square in others:
            dx, dy = x - xo, y - yo
            if dx * dx + dy * dy < square:
                break
        else:
            stream.at = end
            return (x, y)
    stream.at += 2 * quick
    if not others:
        return None
    # The same for many points at once: a crowded arena takes ten thousands of tries.
    xs, ys, squares = np.array(others).T[:, :, None]  # (others, 1) each
    for done in range(quick, tries, OBJECT_TRIES):
        count = min(OBJECT_TRIES, tries - done)
        stream.hold(2 * count)
        points = low + span * stream.numbers[stream.at : stream.at + 2 * count].reshape(count, 2).T  # (2, count)
        dx, dy = points[0] - xs, points[1] - ys  # (others, count)
        free = (dx * dx + dy * dy >= squares).all(axis=0)
        first = int(free.argmax())
        if free[first]:
            stream.at += 2 * first + 2
            return (float(points[0, first]), float(points[1, first]))
        stream.at += 2 * count
    return None
