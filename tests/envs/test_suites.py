"""Layouts and scenarios: nothing overlaps, scenarios change what they say and nothing else, hashes pin suites."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import RandomState

from fosp.envs import SCENARIOS, TASKS, layout, make, suite_hash
from fosp.envs.layout import LayoutError, sample_layout, sample_position
from fosp.envs.objects import Hazards
from fosp.types import HELD_OUT_SEEDS, UserError

TASK = TASKS["fosp/SafetyPointGoal1-v0"]


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
@given(seed=st.integers(0, 2**32 - 1))
def test_things_keep_their_distance_and_stay_in_the_arena(scenario: str, seed: int) -> None:
    task = SCENARIOS[scenario].change(TASK)
    radii, random = dict(task.keepouts()), RandomState(seed)
    placed = sample_layout(random, task.keepouts(), task.extent)
    placed["goal"] = sample_position(random, "goal", radii, placed, task.extent)
    assert list(radii) == list(placed)
    for name, (x, y) in placed.items():
        assert max(abs(x), abs(y)) <= task.extent - radii[name]
        for other, xy in placed.items():
            assert other == name or math.dist((x, y), xy) >= radii[name] + radii[other]


def test_scenarios_change_what_they_say_and_nothing_else() -> None:
    more, larger = SCENARIOS["more-hazards"].change(TASK), SCENARIOS["larger-hazards"].change(TASK)
    assert SCENARIOS["nominal"].change(TASK) == TASK
    hazards = {name: task.find(Hazards) for name, task in (("nominal", TASK), ("more", more), ("larger", larger))}
    assert [(h.count, round(h.radius, 6)) for h in hazards.values() if isinstance(h, Hazards)] == [
        (8, 0.2),
        (12, 0.2),
        (8, 0.3),
    ]
    assert more.change(Hazards, count=8) == TASK
    assert larger.change(Hazards, radius=0.2, keepout=0.18) == TASK


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_every_scenario_starts_without_cost_on_held_out_layouts(scenario: str) -> None:
    env = make("SafetyPointGoal1", scenario=scenario)
    for seed in HELD_OUT_SEEDS[:100]:
        assert env.start(seed)["cost"] == 0


def test_nominal_is_the_same_as_no_scenario() -> None:
    with_name, without = make("SafetyPointGoal1", scenario="nominal"), make("SafetyPointGoal1")
    with_name.start(0)
    without.start(0)
    assert with_name.layout() == without.layout()
    assert suite_hash("SafetyPointGoal1", None, [1]) == suite_hash(TASK, "nominal", [1])


def test_the_hash_changes_with_scenario_task_and_seeds_only() -> None:
    base = suite_hash(TASK, None, range(5))
    assert base == suite_hash("fosp/SafetyPointGoal1-v0", SCENARIOS["nominal"], [0, 1, 2, 3, 4]) and len(base) == 16
    others = [
        suite_hash(TASK, "more-hazards", range(5)),
        suite_hash(TASK, "larger-hazards", range(5)),
        suite_hash(TASK, None, range(6)),
        suite_hash(TASK.change(Hazards, keepout=0.19), None, range(5)),
    ]
    assert len({base, *others}) == 5


def test_a_scenario_that_does_not_fit_the_task_says_so() -> None:
    from dataclasses import replace

    bare = replace(TASK, objects=TASK.objects[:1], costs=())
    for name in ("more-hazards", "larger-hazards"):
        with pytest.raises(UserError, match=f"'{name}' changes hazards.*has none"):
            SCENARIOS[name].change(bare)


def test_an_arena_that_is_too_full_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "LAYOUT_TRIES", 20)
    with pytest.raises(LayoutError, match="do not fit"):
        sample_layout(RandomState(0), [("a", 0.9), ("b", 0.9)], 1.0)
    with pytest.raises(LayoutError, match="goal"):
        sample_position(RandomState(0), "goal", {"goal": 0.9, "a": 0.9}, {"a": (0.0, 0.0)}, 1.0)


def test_the_plugin_names_every_task() -> None:
    """Gymnasium's plug-in lists the ids by hand so that it need not import MuJoCo."""
    from fosp import envs, plugin

    assert set(plugin.TASKS) == set(envs.TASKS)
