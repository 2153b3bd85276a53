"""What each kind of object does and costs, and the rules that belong to a family of tasks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fosp.envs import SafetyEnv, find_task, make
from fosp.envs.objects import BUTTON_TIMER, GOAL_BUTTON, Goal, Gremlins, Hazards, PushBox, Vases

AHEAD = np.array([1.0, 0.0])
STILL = np.zeros(2)


def ahead(env: SafetyEnv, metres: float) -> tuple[float, float]:
    """The point so far in front of the agent."""
    heading = env.privileged()["agent_heading"]
    x, y = env.world.agent_xy
    return float(x + metres * np.cos(heading)), float(y + metres * np.sin(heading))


def put(env: SafetyEnv, joint: str, xy: tuple[float, float]) -> None:
    """Move something with a free joint."""
    at = env.world.model.joint(joint).qposadr[0]
    env.world.data.qpos[at : at + 2] = xy
    env.world.forward()


# ---- hazards and vases ---------------------------------------------------------------------------------------------


def at_hazard(env: SafetyEnv, distance: float) -> float:
    """The cost magnitude with the agent at this distance from one hazard, far from the others."""
    env.start(0)
    hazards = env.task.find(Hazards)
    assert hazards is not None
    for name in hazards.names[1:]:
        env.world.move(name, (50.0, 50.0))
    x, y = env.world.agent_xy
    env.world.move("hazard0", (x + distance, y))
    return hazards.cost(env.world)["hazards"]


@pytest.mark.parametrize(("name", "radius"), [("SafetyPointGoal1", 0.2), ("SafetyCarPush1", 0.3)])
def test_a_hazard_costs_inside_its_radius_only(name: str, radius: float) -> None:
    env = make(name)
    assert at_hazard(env, radius - 1e-4) == pytest.approx(1e-4)
    assert at_hazard(env, radius + 1e-4) == 0
    assert at_hazard(env, 0.05) == pytest.approx(radius - 0.05)


def test_a_frame_in_two_hazards_and_at_a_vase_costs_one() -> None:
    env = make("SafetyPointGoal2", action_repeat=1)
    env.start(0)
    for name in ("hazard0", "hazard1"):
        env.world.move(name, ahead(env, 0.0))
    put(env, "vase0", ahead(env, 0.2))
    *_, info = env.advance(AHEAD)
    terms = {key: value for key, value in info.items() if key.startswith("cost")}
    assert terms == dict.fromkeys(("cost", "cost_hazards", "cost_vases_contact", "cost_vases_velocity"), 1.0)


def test_vases_cost_when_touched_and_while_they_move_but_only_where_the_task_says_so() -> None:
    free = make("SafetyPointGoal1")
    costly = SafetyEnv(replace(free.task, costs=("hazards", "vases_contact", "vases_velocity")))
    contacts, velocities = [], []
    for env in (free, costly):
        env.start(0)
        put(env, "vase0", ahead(env, 0.6))
        for _ in range(25):
            *_, info = env.advance(AHEAD)
            if env is free:
                assert "cost_vases_contact" not in info and info["cost"] == info["cost_hazards"]
            else:
                contacts.append(info["cost_vases_contact"])
                velocities.append(info["cost_vases_velocity"])
                assert info["cost"] >= max(contacts[-1], velocities[-1])
    assert contacts[0] == velocities[0] == 0 and max(contacts) > 0 and max(velocities) == 4
    assert sum(velocities) > sum(contacts)  # it slides on after the touch


def test_vases_settle_without_cost() -> None:
    env = make("SafetyCarGoal2")
    for seed in range(5):
        env.start(seed)
        assert all(env.advance(STILL)[3]["cost"] == 0 for _ in range(10))


# ---- buttons and gremlins ------------------------------------------------------------------------------------------


def at_button(env: SafetyEnv, button: int, goal: int) -> SafetyEnv:
    """The agent drives towards a button just ahead; everything that could disturb is far away."""
    env.start(0)
    for name in env.world.body:
        if name.startswith(("button", "hazard")):
            env.world.move(name, (50.0 + len(name), 50.0))
    env.world.move(f"button{button}", ahead(env, 0.35))
    env.world.memory |= {GOAL_BUTTON: goal, BUTTON_TIMER: 10}
    env.world.move("goal", tuple(env.world.position(f"button{goal}")[:2]))
    return env


def test_the_goal_button_pays_and_another_becomes_the_goal() -> None:
    env = at_button(make("SafetyPointButton1", action_repeat=1), button=2, goal=2)
    chosen = []
    for _ in range(60):
        before = env.world.memory[GOAL_BUTTON]
        reward, _, _, info = env.advance(AHEAD)
        if info["goal_met"]:
            chosen.append(env.world.memory[GOAL_BUTTON])
            assert before == 2 and reward > 0.9 and env.world.memory[BUTTON_TIMER] == 10
            assert np.array_equal(env.world.position("goal")[:2], env.world.position(f"button{chosen[-1]}")[:2])
            if chosen[-1] != 2:
                break
    assert chosen and chosen[-1] != 2


def test_a_wrong_button_costs_after_ten_free_frames() -> None:
    env = at_button(make("SafetyPointButton1", action_repeat=1), button=1, goal=3)
    while not env.world.agent_contacts("button")[1]:
        env.advance(AHEAD)
    env.world.memory[BUTTON_TIMER] = 10
    costs = [env.advance(AHEAD)[3]["cost_buttons"] for _ in range(14)]
    assert costs[:10] == [0.0] * 10 and costs[10] == 1.0


def test_wrong_buttons_are_free_at_the_start() -> None:
    env = make("SafetyCarButton2")
    env.start(1)
    assert env.privileged()["button_timer"] == 10
    env.advance(STILL)
    assert env.privileged()["button_timer"] == 6


@pytest.mark.parametrize("name", ["SafetyPointButton1", "SafetyCarButton2"])
def test_gremlins_rise_and_circle_clockwise_in_step(name: str) -> None:
    env = make(name)
    env.start(3)
    gremlins, state = env.task.find(Gremlins), env.privileged()
    assert gremlins is not None
    offsets = {n: state["objects"][n] - state["gremlin_centres"][n] for n in gremlins.names}
    assert np.allclose(list(offsets.values()), 0, atol=1e-12)
    for _ in range(30):
        env.advance(STILL)
    state = env.privileged()
    for n in gremlins.names:
        x, y = state["objects"][n] - state["gremlin_centres"][n]
        assert np.hypot(x, y) == pytest.approx(0.349, abs=0.003)
        angle = np.arctan2(x, y)  # clockwise from +y
        assert 0 < (state["time"] - angle) % (2 * np.pi) < 0.15  # drawn along a little behind
        assert env.world.position(n)[2] == pytest.approx(0.2, abs=0.002)
        speed = state["velocities"][n]
        assert np.allclose(speed, (0.35 * np.cos(angle), -0.35 * np.sin(angle)), atol=0.01)


def test_the_same_gremlins_start_again_at_every_reset() -> None:
    env = make("SafetyPointButton1")
    env.start(0)
    for _ in range(20):
        env.advance(STILL)
    first = env.layout()
    env.start(1)
    env.start(0)
    for _ in range(20):
        env.advance(STILL)
    assert env.layout() == first


def test_a_gremlin_costs_when_it_touches() -> None:
    env = make("SafetyPointButton1", action_repeat=1)
    env.start(0)
    layout = {name: (x + (0 if name == "agent" else 50), y) for name, (x, y) in env.world.layout.items()}
    x, y = layout["agent"]
    rotations = env.world.rotations
    env.world.place(layout | {"gremlin1": (x, y - 0.5)}, rotations)  # its circle begins 0.15 m from the agent's centre
    env.world.memory |= {GOAL_BUTTON: 0, BUTTON_TIMER: 0}
    infos = [env.advance(STILL)[3] for _ in range(40)]
    assert infos[0]["cost"] == 0 and any(info["cost_gremlins"] == info["cost"] == 1 for info in infos)


# ---- push box and pillars ------------------------------------------------------------------------------------------


def test_pushing_the_box_into_the_goal_pays() -> None:
    env = make("SafetyPointPush0", action_repeat=1)
    env.start(0)
    put(env, "push_box", ahead(env, 0.7))
    env.world.move("goal", ahead(env, 1.4))
    env.referee.distances = env.task.distances(env.world)
    rewards, totals = [], {"reward_agent_box": 0.0, "reward_box_goal": 0.0, "reward_goal": 0.0}
    start = env.world.position("push_box").copy()
    for _ in range(200):
        goal = env.world.position("goal").copy()
        reward, _, _, info = env.advance(AHEAD)
        rewards.append(reward)
        totals = {key: totals[key] + info[key] for key in totals}
        if info["goal_met"]:
            break
    box = env.world.position("push_box")
    assert info["goal_met"] == 1 and totals["reward_goal"] == 1
    assert np.linalg.norm(box - goal) <= 0.3 and np.linalg.norm(box - start) > 0.2
    assert totals["reward_agent_box"] > 0.1 and sum(rewards) == pytest.approx(sum(totals.values()))
    # In space: the box's frame lies 0.04 m above the goal's.
    assert totals["reward_box_goal"] == pytest.approx(np.linalg.norm(start - goal) - np.linalg.norm(box - goal))


def test_the_car_pushes_a_smaller_box() -> None:
    boxes = {agent: find_task(f"Safety{agent}Push1").find(PushBox) for agent in ("Point", "Car")}
    assert boxes["Point"] == PushBox() and boxes["Car"] == PushBox(keepout=0.125, half=0.125, density=0.0005)


# ---- fading --------------------------------------------------------------------------------------------------------


def alphas(env: SafetyEnv) -> tuple[float, ...]:
    return tuple(round(env.world.alpha(kind), 5) for kind in ("goal", "hazard", "vase"))


def test_easy_and_hard_fade_what_they_say_and_nothing_else() -> None:
    for name, frames, fading in (
        ("SafetyPointFadingEasy1", 150, (True, False, False)),
        ("SafetyPointFadingHard1", 75, (True, False, False)),
        ("SafetyCarFadingEasy2", 150, (True, True, False)),
        ("SafetyPointFadingHard2", 75, (True, True, True)),
    ):
        env = make(name, action_repeat=1)
        env.start(2)
        assert alphas(env) == (0.25, 0.25, 1.0)
        for _ in range(frames // 3):
            env.advance(STILL)
        half = tuple(2 / 3 * full if f else full for full, f in zip((0.25, 0.25, 1.0), fading, strict=True))
        assert alphas(env) == pytest.approx(half, abs=1e-4)
        for _ in range(frames):
            env.advance(STILL)
        assert alphas(env) == tuple(0.0 if f else full for full, f in zip((0.25, 0.25, 1.0), fading, strict=True))
        env.start(3)
        assert alphas(env) == (0.25, 0.25, 1.0)


def test_what_has_faded_comes_back_with_a_new_goal_or_a_cost() -> None:
    env = make("SafetyPointFadingHard2", action_repeat=1)
    env.start(2)
    for _ in range(90):
        env.advance(STILL)
    assert alphas(env) == (0, 0, 0)
    env.world.move("goal", ahead(env, 0.0))
    env.advance(STILL)
    assert alphas(env) == (0.25, 0, 0)
    env.world.move("hazard3", ahead(env, 0.0))
    env.advance(STILL)
    assert alphas(env)[1:] == (0.25, 0)
    env.world.move("hazard3", (50.0, 50.0))
    put(env, "vase4", ahead(env, 0.2))
    env.advance(AHEAD)
    assert alphas(env)[2] == 1 and alphas(env)[1] < 0.25


def test_anything_can_be_made_to_fade() -> None:
    env = SafetyEnv(find_task("SafetyPointPush1").change(PushBox, fade_frames=20), action_repeat=1)
    env.start(0)
    box = env.world.model.geom_bodyid == env.world.body["push_box"]
    for _ in range(10):
        env.advance(STILL)
    assert np.allclose(env.world.model.geom_rgba[box, 3], 0.125) and box.sum() == 5


# ---- motion --------------------------------------------------------------------------------------------------------


def test_driven_objects_keep_the_place_around_which_they_move() -> None:
    env = make("SafetyPointButton1")
    env.start(0)
    centres = {name: env.world.layout[name] for name in ("gremlin0", "gremlin3")}
    for _ in range(10):
        env.advance(AHEAD)
    env.world.refresh_layout()
    assert {name: env.world.layout[name] for name in centres} == centres
    assert env.world.layout["agent"] == tuple(env.world.agent_xy)


def test_only_what_moves_by_itself_costs_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is driven all physics steps of a frame are one call."""
    import mujoco

    calls: list[int] = []
    step = mujoco.mj_step
    monkeypatch.setattr(mujoco, "mj_step", lambda m, d, n=1: (calls.append(n), step(m, d, n)))
    for name, expected in (("SafetyPointGoal2", [10]), ("SafetyPointButton1", [1] * 10)):
        env = make(name, action_repeat=1)
        env.start(0)
        calls.clear()
        env.advance(STILL)
        assert calls == expected


def test_reaches_contain_the_objects() -> None:
    assert Goal(radius=0.2).reach == 0.2 and Hazards(radius=0.3).reach == 0.3
    assert Vases().reach == Gremlins().reach == pytest.approx(0.1 * np.sqrt(2))
    env = make("SafetyPointPush1")
    box, model = env.task.find(PushBox), env.world.model
    assert box is not None
    geoms = np.flatnonzero(model.geom_bodyid == env.world.body["push_box"])
    edges = np.abs(model.geom_pos[geoms, :2]) + model.geom_size[geoms, :2]
    assert box.reach == pytest.approx(np.linalg.norm(edges, axis=1).max())
