"""Where things start. Draws from NumPy's legacy stream in exactly the order of Safety-Gymnasium.

NumPy keeps the legacy stream frozen for good, so a seed means the same layout here, there, and in years to come.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from numpy.random import RandomState

XY = tuple[float, float]
Layout = dict[str, XY]

LAYOUT_TRIES = 10_000  # whole layouts
OBJECT_TRIES = 100  # positions of one object within a layout
GOAL_TRIES = 10_000


class LayoutError(RuntimeError):
    """No admissible place was found: the arena is too full for its objects."""


def sample_layout(random: RandomState, keepouts: Sequence[tuple[str, float]], extent: float) -> Layout:
    """Place the named discs one after the other in the square [-extent, extent]^2 so that none overlap.

    Parameters: ``keepouts`` = (name, radius in metres) in the order in which they are drawn. An object that finds no
    place in 100 tries throws away the whole attempt; the stream simply goes on.
    Raises: ``LayoutError`` after 10,000 attempts.
    """
    radii = dict(keepouts)
    for _ in range(LAYOUT_TRIES):
        placed: Layout = {}
        for name, radius in keepouts:
            xy = _draw_free(random, radius, extent, placed.items(), radii, OBJECT_TRIES)
            if xy is None:
                break
            placed[name] = xy
        else:
            return placed
    raise LayoutError(f"no layout found in {LAYOUT_TRIES} attempts: {len(keepouts)} objects do not fit a square of "
                      f"half side {extent} m")  # fmt: skip


def sample_rotations(random: RandomState, names: Iterable[str]) -> dict[str, float]:
    """One yaw in radians per name, also where it cannot be seen, because each consumes a number of the stream."""
    return {name: float(random.uniform(0, 2 * math.pi)) for name in names}


def sample_position(random: RandomState, name: str, radii: Mapping[str, float], placed: Layout, extent: float) -> XY:
    """A new place for ``name`` that keeps away from all other things. Raises ``LayoutError`` if there is none."""
    others = [(other, xy) for other, xy in placed.items() if other != name]
    xy = _draw_free(random, radii[name], extent, others, radii, GOAL_TRIES)
    if xy is None:
        raise LayoutError(f"no place for {name} found in {GOAL_TRIES} draws")
    return xy


def _draw_free(
    random: RandomState,
    radius: float,
    extent: float,
    placed: Iterable[tuple[str, XY]],
    radii: Mapping[str, float],
    tries: int,
) -> XY | None:
    others = [(x, y, radius + radii[name]) for name, (x, y) in placed]
    low, high = -extent + radius, extent - radius
    for _ in range(tries):
        x, y = random.uniform(low, high), random.uniform(low, high)  # x first: the order is part of the stream
        if all(math.sqrt((x - xo) ** 2 + (y - yo) ** 2) >= distance for xo, yo, distance in others):
            return (x, y)
    return None
