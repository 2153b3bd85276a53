"""The scripted behaviours do what they are for, within the contract of a policy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from fosp.envs import make
from fosp.envs.behaviours.planner import _stopped
from fosp.envs.behaviours.point import SPEED_TIME, TOP_SPEED, _motion
from fosp.envs.behaviours.view import View, obstacles
from fosp.envs.behaviours.waymap import way_map
from fosp.envs.scripted import Behaviour, drift, make_behaviour
from fosp.types import Policy, UserError

NAMES = ("safe", "unsafe", "random")


@dataclass
class Played:
    returns: np.ndarray  # (episodes,)
    costs: np.ndarray  # (episodes,)
    actions: np.ndarray  # (steps of all episodes, 2)


def play(name: str, seeds: range, noise: float = 0.0, scenario: str | None = None, steps: int = 250) -> Played:
    env, behaviour = make("SafetyPointGoal1", scenario=scenario), make_behaviour(name, noise=noise)
    returns, costs, actions = [], [], []
    for seed in seeds:
        env.start(seed)
        carry = behaviour.initial()
        total = np.zeros(2)
        for _ in range(steps):
            action, carry = behaviour.act(carry, env.privileged())
            reward, _, _, info = env.advance(action)
            total += (reward, info["cost"])
            actions.append(action)
        returns.append(total[0])
        costs.append(total[1])
    return Played(np.array(returns), np.array(costs), np.array(actions))


def test_safe_reaches_many_goals_without_cost() -> None:
    played = play("safe", range(8))
    assert played.returns.mean() >= 19 and played.returns.min() > 12  # none gets stuck
    assert played.costs.mean() <= 2


@pytest.mark.parametrize("scenario", ["more-hazards", "larger-hazards"])
def test_safe_is_safe_where_hazards_are_more_or_larger(scenario: str) -> None:
    played = play("safe", range(4), scenario=scenario)
    assert played.returns.mean() >= 16 and played.costs.mean() <= 4


def test_unsafe_earns_as_much_and_pays_for_it() -> None:
    played = play("unsafe", range(8))
    assert played.returns.mean() >= 16 and 30 <= played.costs.mean() <= 100


def test_random_passes_goals_and_hazards_alike() -> None:
    played = play("random", range(16))
    assert -2 <= played.returns.mean() <= 6 and 30 <= played.costs.mean() <= 120


def test_a_goal_that_no_camera_has_shown_is_looked_for() -> None:
    """Until then the action says nothing of where it is: the same for a goal to the left and to the right."""
    env = make("SafetyPointGoal1")
    env.start(0)
    state = env.privileged()
    actions = []
    for side in (1.0, -1.0):
        heading = state["agent_heading"]
        aside = state["agent_xy"] + side * np.array([-np.sin(heading), np.cos(heading)])
        behaviour = make_behaviour("unsafe")
        hidden = dict(state, goal_xy=aside)
        action, carry = behaviour.act(behaviour.initial(), hidden)
        actions.append(action)
        seen = dict(hidden, agent_heading=heading + side * np.pi / 2)
        behaviour.act(carry, seen)
        again, _ = behaviour.act(carry, hidden)  # it remembers
        assert np.sign(again[1]) == side
    assert np.array_equal(actions[0], actions[1]) and actions[0][0] == 0 and abs(actions[0][1]) == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_actions_are_valid_and_use_the_whole_range(name: str, noise: float) -> None:
    actions = play(name, range(2), noise=noise, steps=100).actions
    assert actions.dtype == np.float32 and actions.shape == (200, 2)
    assert np.all(np.abs(actions) <= 1)
    size = np.abs(actions)
    assert np.all((size > 0.1).mean(axis=0) > 0.4)
    assert np.all(((size > 0.02) & (size < 0.98)).mean(axis=0) > 0.2)  # not only the extremes
    assert actions[:, 1].min() < -0.5 and actions[:, 1].max() > 0.5


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_repeats_and_layouts_differ(name: str) -> None:
    first, again = play(name, range(1), noise=0.3, steps=40), play(name, range(1), noise=0.3, steps=40)
    other = play(name, range(1, 2), noise=0.3, steps=40)
    assert np.array_equal(first.actions, again.actions)
    assert not np.array_equal(first.actions, other.actions)


def test_a_behaviour_remembers_nothing_outside_the_carry() -> None:
    env, behaviour = make("SafetyPointGoal1"), make_behaviour("safe", noise=0.5)
    env.start(0)
    state = env.privileged()
    carries = [behaviour.initial(), behaviour.initial()]
    actions = [[behaviour.act(carry, state)[0] for carry in carries] for _ in range(20)]
    assert all(np.array_equal(a, b) for a, b in actions)


def test_the_interface_is_that_of_a_policy() -> None:
    behaviour = make_behaviour("unsafe")
    assert isinstance(behaviour, Policy) and isinstance(behaviour, Behaviour) and behaviour.privileged
    assert behaviour.initial().diagnostics == {}
    with pytest.raises(ValueError, match="one carry per environment"):
        behaviour.initial(3)


def test_noise_is_the_share_of_wandering_steps() -> None:
    env = make("SafetyPointGoal1")
    env.start(0)
    state = env.privileged()
    for noise in (0.2, 0.5):
        behaviour = make_behaviour("unsafe", noise=noise)
        carry = behaviour.initial()
        wandering = []
        for _ in range(6000):
            wandering.append(carry.wander_steps > 0)
            _, carry = behaviour.act(carry, state)
        assert np.mean(wandering) == pytest.approx(noise, abs=0.06)


def test_more_noise_costs_return() -> None:
    assert play("unsafe", range(4), noise=0.5).returns.mean() < play("unsafe", range(4)).returns.mean() - 3


def test_drift_is_smooth_with_unit_variance() -> None:
    random, values = np.random.default_rng(0), [np.zeros(2)]
    for _ in range(20000):
        values.append(drift(values[-1], random, 0.08))
    series = np.array(values[100:])
    assert np.allclose(series.std(axis=0), 1, atol=0.1)
    assert np.corrcoef(series[:-1, 0], series[1:, 0])[0, 1] == pytest.approx(np.exp(-0.08 / 0.5), abs=0.02)


@pytest.mark.parametrize(("name", "noise", "words"), [("sage", 0.0, "safe"), ("safe", 1.5, "0..1")])
def test_mistakes_are_named(name: str, noise: float, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_behaviour(name, noise=noise)


# ---- the parts of the planner ----------------------------------------------------------------------------------------


def test_the_planner_moves_like_the_point() -> None:
    """Full thrust straight ahead for a second: the closed form against the simulator."""
    env = make("SafetyPointGoal1")
    env.start(3)  # nothing stands in the way of the first metre
    start = env.privileged()
    for _ in range(12):
        env.advance(np.array([1.0, 0.0]))
    end = env.privileged()
    motion = _motion(12, 0.08)
    assert np.linalg.norm(end["agent_xy"] - start["agent_xy"]) == pytest.approx(motion.place[:, -1].sum(), abs=0.05)
    assert np.linalg.norm(end["agent_velocity_xy"]) == pytest.approx(motion.speed.sum(), abs=0.05)


def test_coasting_slides_as_far_as_the_time_constant_says() -> None:
    motion = _motion(100, 0.08)
    assert motion.coast[-1] == pytest.approx(SPEED_TIME, abs=1e-4) and motion.slow == pytest.approx(0, abs=1e-4)
    assert motion.speed.sum() == pytest.approx(TOP_SPEED, abs=1e-4)


def test_the_way_leads_straight_where_nothing_stands_and_around_a_disc_otherwise() -> None:
    goal = (1.0, 0.0)
    x, y = np.array([-1.0, 1.0]), np.array([0.0, 1.2])
    length, direction = way_map(goal, ()).look_up(x, y)
    assert np.allclose(length, [2.0, 1.2], rtol=0.03)
    assert np.allclose(direction, [1, -1j], atol=0.1)
    around, direction = way_map(goal, ((0.0, 0.0, 0.5),)).look_up(x, y)
    shortest = 2 * (np.sqrt(1 - 0.25) + 0.5 * np.arcsin(0.5))  # two tangents and an arc
    assert shortest * 0.99 < around[0] < shortest * 1.12
    assert around[1] == pytest.approx(1.2, rel=0.03)
    _, direction = way_map(goal, ((0.0, 0.0, 0.5),)).look_up(np.array([-0.8]), np.array([0.2]))
    assert direction[0].imag > 0.2  # up and around, not through


def test_a_way_from_off_the_map_adds_the_distance_to_it() -> None:
    way = way_map((0.0, 0.0), ())
    length, _ = way.look_up(np.array([5.0]), np.array([0.0]))
    assert length[0] == pytest.approx(5.0, rel=0.03)


@pytest.mark.parametrize(
    ("task", "scenario", "kind"), [("SafetyPointGoal1", "moving", "hazard"), ("SafetyPointButton1", None, "gremlin")]
)
def test_the_planner_foresees_where_what_moves_will_be(task: str, scenario: str | None, kind: str) -> None:
    env = make(task, scenario=scenario)
    env.start(0)
    for _ in range(20):  # gremlins begin at the centre of their circles
        env.advance(np.zeros(2))
    state = env.privileged()
    (discs,) = (group for group in obstacles(state, girth=0.13) if group.span)
    assert discs.span == pytest.approx(0.35)
    foreseen = discs.centres(np.array([0.0, 10 * state["step_seconds"]]))
    for moment in foreseen:
        objects = env.privileged()["objects"]
        now = np.array([complex(*xy) for name, xy in objects.items() if name.startswith(kind)])
        assert np.allclose(moment, now, atol=0.01)
        for _ in range(10):
            env.advance(np.zeros(2))


def test_a_path_ends_at_a_goal_that_is_solid() -> None:
    path = np.array([[0.5, 1.0, 1.5, 2.0], [0.5j, 1j, 1.5j, 2j]])  # the first leads through the goal
    view = View(here=3 + 0j, goal=4.2 + 0j, arrival=0.25, solid=True)
    assert np.array_equal(_stopped(path, view), [[0.5, 1.0, 1.0, 1.0], path[1]])
    assert _stopped(path, replace(view, solid=False)) is path
