"""Layouts: drawn as in the original, one number after the other, although they are drawn in blocks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import RandomState

from fosp.envs import TASKS, find_task
from fosp.envs.layout import LAYOUT_TRIES, Layout, LayoutError, _square, sample_layout, sample_position


def plain_layout(random: RandomState, keepouts: list[tuple[str, float]], extent: float) -> Layout:
    """The rule in its simplest form: every try draws x, then y."""
    while True:
        placed: dict[str, tuple[float, float, float]] = {}
        for name, radius in keepouts:
            for _ in range(100):
                x = random.uniform(-extent + radius, extent - radius)
                y = random.uniform(-extent + radius, extent - radius)
                if all(math.sqrt((x - xo) ** 2 + (y - yo) ** 2) >= radius + ro for xo, yo, ro in placed.values()):
                    placed[name] = (x, y, radius)
                    break
            else:
                break
        else:
            return {name: (x, y) for name, (x, y, _) in placed.items()}


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("name", ["SafetyPointGoal2", "SafetyCarPush2", "SafetyPointButton1"])
def test_layout_and_stream_are_those_of_drawing_one_by_one(name: str, seed: int) -> None:
    task = find_task(name)
    ours, plain = RandomState(seed), RandomState(seed)
    assert sample_layout(ours, task.keepouts(), task.extent) == plain_layout(plain, task.keepouts(), task.extent)
    assert ours.random_sample() == plain.random_sample()


@given(seed=st.integers(0, 2**32 - 1), crowd=st.integers(0, 60))
def test_a_position_and_the_stream_after_it_are_those_of_drawing_one_by_one(seed: int, crowd: int) -> None:
    others = RandomState(1).uniform(-1, 1, (crowd, 2)).tolist()
    placed = {f"thing{i}": (x, y) for i, (x, y) in enumerate(others)}
    radii = dict.fromkeys(placed, 0.1) | {"goal": 0.05}
    ours, plain = RandomState(seed), RandomState(seed)
    found = sample_position(ours, "goal", radii, placed | {"goal": (0.0, 0.0)}, 1.0)
    while True:
        x, y = plain.uniform(-0.95, 0.95), plain.uniform(-0.95, 0.95)
        if all(math.sqrt((x - xo) ** 2 + (y - yo) ** 2) >= 0.05 + 0.1 for xo, yo in placed.values()):
            break
    assert found == (x, y) and ours.random_sample() == plain.random_sample()


@given(distance=st.floats(0.01, 10.0))
def test_comparing_squares_is_comparing_distances_to_the_last_bit(distance: float) -> None:
    square = _square(distance)
    assert math.sqrt(square) >= distance > math.sqrt(math.nextafter(square, 0.0))
    assert _square(0.0) == 0.0


@pytest.mark.parametrize("name", sorted(task.name for task in TASKS.values()))
def test_things_keep_their_distance(name: str) -> None:
    task = find_task(name)
    radii = dict(task.keepouts())
    assert list(radii)[0] == "agent" and len(radii) == len(task.keepouts())
    placed = sample_layout(RandomState(0), task.keepouts(), task.extent)
    assert list(placed) == list(radii)
    for name, (x, y) in placed.items():
        assert max(abs(x), abs(y)) <= task.extent - radii[name]
        for other, xy in placed.items():
            assert other == name or math.dist((x, y), xy) >= radii[name] + radii[other]


def test_what_cannot_fit_is_refused_at_once() -> None:
    random = RandomState(0)
    with pytest.raises(LayoutError, match="b keeps 1.1 m free"):
        sample_layout(random, [("a", 0.1), ("b", 1.1)], 1.0)
    with pytest.raises(LayoutError, match="101 things .* do not fit a square of half side 1.0 m"):
        sample_layout(random, [(f"a{i}", 0.12) for i in range(101)], 1.0)
    assert random.random_sample() == RandomState(0).random_sample()  # nothing was drawn
    assert LAYOUT_TRIES == 10_000
