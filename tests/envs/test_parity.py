"""Agreement with recordings of the original Safety-Gymnasium (git main, MuJoCo 2.3.3), frame by frame.

Extracts of recordings of nine tasks come with the package. ``FOSP_PARITY_DIR`` may name a folder with more; those of
unregistered tasks are skipped.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from fosp.envs import TASKS, find_task, make
from fosp.envs.objects import Gremlins, Hazards, Objects
from fosp.envs.parity import (
    OFF_SHARE,
    RECORDINGS,
    SAME_PHYSICS,
    TOLERANCES,
    compare,
    extract,
    load,
    recordings,
    shortcomings,
)
from fosp.envs.render import _Views
from fosp.envs.replay import SAME
from fosp.envs.tasks.base import Task
from fosp.envs.tasks.button import ButtonTask
from fosp.envs.world import PHYSICS_STEPS, World
from fosp.types import UserError

MORE = os.environ.get("FOSP_PARITY_DIR")
FILES = recordings() + (recordings(MORE) if MORE else [])
NAMES = {task.name for task in TASKS.values()}

_results: dict[Path, dict[str, Any]] = {}


def result(path: Path) -> dict[str, Any]:
    """The comparison with a recording, made once."""
    if path.stem.split("_")[0] not in NAMES:
        pytest.skip(f"{path.stem} is of no registered task")
    if path not in _results:
        _results[path] = compare(path)
    return _results[path]


@pytest.fixture(params=FILES, ids=[f"{path.parent.name}-{path.stem}" for path in FILES])
def numbers(request: pytest.FixtureRequest) -> dict[str, Any]:
    return result(request.param)


def package(name: str) -> Path:
    return RECORDINGS / f"{name}.npz"


# ---- agreement -----------------------------------------------------------------------------------------------------


def test_layout_rotations_goals_and_random_stream_are_bit_exact(numbers: dict[str, Any]) -> None:
    assert numbers["stream_start"] == numbers["layout"] == numbers["rotation"] == numbers["goal"] == 0
    assert numbers.get("stream_end", 0) == 0 and ("stream_end" in numbers) == (numbers["frames"] == 1000)


def test_the_model_is_the_original_s(numbers: dict[str, Any]) -> None:
    assert numbers["names"] == 0 and numbers["model"] < 1e-12 and numbers["cameras"] < 1e-12


@pytest.mark.skipif(not SAME_PHYSICS, reason="this MuJoCo computes contacts differently")
def test_one_frame_from_the_recorded_state_ends_in_the_recorded_state(numbers: dict[str, Any]) -> None:
    assert numbers["state"] <= 1e-10, "a frame differs although nothing touches that MuJoCo 3 computes differently"
    assert numbers["velocity"] <= 1e-8 and numbers["solver_start"] <= 1e-5


@pytest.mark.skipif(not SAME_PHYSICS, reason="this MuJoCo computes contacts differently")
@pytest.mark.parametrize("task", sorted({path.stem.split("_")[0] for path in FILES}))
def test_few_frames_are_off_and_all_because_of_known_contacts(task: str) -> None:
    results = [result(path) for path in FILES if path.stem.startswith(f"{task}_")]
    assert sum(r["off"] for r in results) <= OFF_SHARE * sum(r["frames"] for r in results)
    assert all(r["off"] <= r["pair_frames"] for r in results)


def test_reward_cost_and_end_follow_from_the_recorded_states(numbers: dict[str, Any]) -> None:
    assert numbers["reward"] < 1e-9 and numbers["distances"] < 1e-9
    assert numbers["cost_term"] == 0
    assert numbers["cost_mismatches"] == numbers["goal_mismatches"] == numbers["end_mismatches"] == 0


def test_timers_fading_and_gremlins_go_on_as_recorded(numbers: dict[str, Any]) -> None:
    assert numbers["alpha"] == 0
    if "Button" in numbers["task"]:
        assert numbers["buttons"] == 0 and numbers["mocap"] < 1e-12


def test_every_image_agrees(numbers: dict[str, Any]) -> None:
    assert numbers["images"] >= 8
    assert numbers["image_faithful_worst"] <= 0.5
    assert numbers["image_fast_worst"] <= 2.5


def test_the_verdict_is_that_nothing_is_amiss() -> None:
    assert shortcomings(result(path) for path in recordings()) == []


def test_the_recordings_contain_what_they_are_to_test() -> None:
    records = {path.stem: load(path) for path in recordings()}
    assert {name.split("_")[0] for name in records} == {
        "SafetyPointGoal1", "SafetyPointGoal2", "SafetyPointButton1", "SafetyPointPush1", "SafetyPointFadingEasy1",
        "SafetyPointFadingHard2", "SafetyCarGoal1", "SafetyCarGoal2", "SafetyCarButton1",
    }  # fmt: skip
    assert all(record["goal_met"].sum() >= 2 for name, record in records.items() if name.endswith("seed1"))
    for term in ("hazards", "vases_contact", "vases_velocity", "buttons", "gremlins"):
        assert sum(np.nansum(r[f"info_cost_{term}"]) for r in records.values() if f"info_cost_{term}" in r) > 3, term
    assert sum(path.stat().st_size for path in RECORDINGS.iterdir()) < 4e6


# ---- the comparison can fail ---------------------------------------------------------------------------------------


def outside(name: str) -> set[str]:
    """The kinds of numbers of a comparison that lie outside the tolerances."""
    numbers = compare(package(name))
    limits = TOLERANCES | SAME
    return {key for key, limit in limits.items() if not numbers.get(key, 0) <= limit}


def test_a_frame_without_its_random_number_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def advance(self: World, control: np.ndarray, random: np.random.RandomState) -> None:
        self.step(control, PHYSICS_STEPS)
        self.forward()

    monkeypatch.setattr(World, "advance", advance)
    assert {"goal", "stream_end"} <= outside("SafetyPointGoal1_seed1")


@pytest.mark.skipif(not SAME_PHYSICS, reason="later versions end elsewhere anyway")
def test_a_solver_that_starts_elsewhere_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "forward", lambda self, again=False: mujoco.mj_forward(self.model, self.data))
    assert "solver_start" in outside("SafetyCarGoal1_seed1")


def changed(monkeypatch: pytest.MonkeyPatch, name: str, task: Task) -> None:
    monkeypatch.setitem(TASKS, find_task(name).id, task)


def test_another_size_of_hazards_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    task = find_task("SafetyPointFadingEasy1")
    changed(monkeypatch, task.name, task.change(Hazards, radius=0.21))
    assert {"model", "cost_term", "cost_mismatches"} <= outside("SafetyPointFadingEasy1_seed1")


def test_a_soft_weld_and_a_wrong_orbit_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gremlins, "torque_scale", 1.0)
    assert "state" in outside("SafetyPointButton1_seed1")
    monkeypatch.undo()
    task = find_task("SafetyPointButton1")
    changed(monkeypatch, task.name, task.change(Gremlins, orbit=0.36))
    assert {"state", "mocap"} <= outside("SafetyPointButton1_seed1")


def test_a_timer_that_stands_still_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ButtonTask, "after_cost", Task.after_cost)
    assert {"buttons", "cost_term"} <= outside("SafetyPointButton1_seed1")


def test_things_that_do_not_come_back_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    fade = Objects.fade
    monkeypatch.setattr(Objects, "fade", lambda self, world, magnitudes: fade(self, world, {}))
    assert "alpha" in outside("SafetyPointFadingHard2_seed1")


def test_things_that_are_not_drawn_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = _Views.choose

    def hide(self: _Views, *arguments: Any) -> Any:  # all but the floor
        needed, *others = choose(self, *arguments)
        return needed & self.planes, *others

    monkeypatch.setattr(_Views, "choose", hide)
    assert {"image_faithful_worst", "image_fast_worst"} <= outside("SafetyPointGoal2_seed1")


def test_the_verdict_names_what_is_amiss() -> None:
    numbers = result(package("SafetyPointGoal1_seed1"))
    (sentence,) = shortcomings([{**numbers, "reward": 1e-6}])
    assert "SafetyPointGoal1, seed 1" in sentence and "reward is 1e-06" in sentence and "1e-09" in sentence
    assert len(shortcomings([{**numbers, "reward": np.nan, "goal": np.inf}])) == 2
    if SAME_PHYSICS:
        assert shortcomings([{**numbers, "off": 30}]) == []
        (sentence,) = shortcomings([{**numbers, "off": 61}, numbers])  # a share of both recordings of the task
        assert "61 of 2000" in sentence
        assert len(shortcomings([{**numbers, "state": 1e-9}])) == 1


# ---- files ---------------------------------------------------------------------------------------------------------


def test_files_that_are_no_recordings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no recordings"):
        recordings(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        compare(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(UserError, match="cannot be read"):
        compare(tmp_path / "text.npz")
    (tmp_path / "empty.npz").touch()
    (tmp_path / "cut.npz").write_bytes(package("SafetyCarGoal1_seed1").read_bytes()[:5000])
    np.save(tmp_path / "array.npy", np.zeros(2))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    for name in ("empty", "cut", "array"):
        with pytest.raises(UserError, match=f"{name}.npz cannot be read"):
            compare(tmp_path / f"{name}.npz")
    np.savez(tmp_path / "other.npz", action=np.zeros((1, 2)))
    with pytest.raises(UserError, match=r"lacks the arrays .*qpos"):
        compare(tmp_path / "other.npz")
    record = load(package("SafetyCarGoal1_seed1"))
    record["meta_json"] = np.array('{"seed": 1}')
    np.savez(tmp_path / "nameless.npz", allow_pickle=False, **record)
    with pytest.raises(UserError, match="names no task and seed"):
        compare(tmp_path / "nameless.npz")
    record["meta_json"] = np.array('{"task": "SafetyRacecarGoal1", "seed": 1}')
    np.savez(tmp_path / "racecar.npz", allow_pickle=False, **record)
    with pytest.raises(UserError, match="SafetyRacecarGoal1"):
        compare(tmp_path / "racecar.npz")


def test_a_recording_of_another_model_is_told_apart(tmp_path: Path) -> None:
    record = load(package("SafetyCarGoal1_seed1"))
    extract(package("SafetyCarGoal1_seed1"), tmp_path / "short.npz", frames=3)
    short = load(tmp_path / "short.npz")
    np.savez(tmp_path / "names.npz", allow_pickle=False, **{**short, "geom_names": np.roll(record["geom_names"], 1)})
    heavier = {**short, "model_body_mass": record["model_body_mass"] * 1.01}
    np.savez(tmp_path / "mass.npz", allow_pickle=False, **heavier)
    assert compare(tmp_path / "short.npz")["model"] < 1e-12
    assert compare(tmp_path / "names.npz")["names"] == 1
    assert compare(tmp_path / "mass.npz")["model"] > 1e-4


def test_an_extract_keeps_what_is_compared(tmp_path: Path) -> None:
    source = package("SafetyPointGoal1_seed1")
    extract(source, tmp_path / "all.npz")
    before, after = load(source), load(tmp_path / "all.npz")
    assert set(before) == set(after)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])  # last_dists holds NaN where a task has no such thing
    extract(source, tmp_path / "small.npz", frames=130)
    small = load(tmp_path / "small.npz")
    assert len(small["qpos"]) == 131 and len(small["reward"]) == len(small["info_cost_hazards"]) == 130
    assert "rng_probe_end" not in small and "rgb64_vision_0100" in small and "rgb64_vision_0300" not in small
    seen = []
    numbers = compare(tmp_path / "small.npz", lambda *image: seen.append(image[:3]))
    assert shortcomings([numbers]) == [] and numbers["frames"] == 130 and numbers["images"] == 5
    assert seen.count(("vision_back", 100, "fast")) == 1 and seen.count(("fixedfar", 0, "faithful")) == 1


# ---- beyond the recordings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SafetyPointGoal1", "SafetyCarPush1"])
def test_the_track_camera_keeps_its_place_over_the_agent_on_every_layout(name: str) -> None:
    env = make(name)
    for seed in (0, 1):
        env.start(seed)
        camera = env.world.model.camera("track").id
        offset = env.world.data.cam_xpos[camera] - env.world.position("agent")
        right, up = env.world.data.cam_xmat[camera].reshape(3, 3).T[:2]
        assert np.allclose(offset, (0, 2, 2)) and np.allclose(right, (-1, 0, 0))
        assert np.allclose(up, np.array([0, -1, 1]) / np.sqrt(2))


def test_the_models_have_the_masses_and_options_of_the_original() -> None:
    for name, masses in {
        "SafetyPointPush1": {"agent": 0.0051887902, "push_box": 1.28e-4},
        "SafetyCarPush2": {"agent": 0.0239, "left": 0.0019634954, "rear": 0.0026179939, "push_box": 1.5625e-5},
        "SafetyCarButton2": {"gremlin5obj": 8e-6},
        "SafetyPointGoal2": {"vase9": 8e-6},
    }.items():
        model = make(name).world.model
        for body, mass in masses.items():
            assert model.body(body).mass[0] == pytest.approx(mass), body
        assert np.all(model.geom_condim == 6)
        new_defaults = int(mujoco.mjtDisableBit.mjDSBL_NATIVECCD) | int(
            getattr(mujoco.mjtDisableBit, "mjDSBL_ISLAND", 0)
        )
        assert model.opt.disableflags & new_defaults == new_defaults
        assert model.opt.timestep == (0.004 if "Car" in name else 0.002) and model.stat.extent == 3.96


def test_the_layouts_of_all_levels_have_the_counts_and_keepouts_of_the_original() -> None:
    def shape(name: str) -> tuple[float, dict[str, tuple[int, float]]]:
        task = find_task(name)
        return task.extent, {o.kind: (o.count, o.keepout) for o in task.objects}

    for agent in ("Point", "Car"):
        goal = {"goal": (1, 0.305)}
        for family in ("Goal", "FadingEasy", "FadingHard"):
            one = goal | {"hazard": (8, 0.18), "vase": (1, 0.15)}
            two = goal | {"hazard": (10, 0.18), "vase": (10, 0.15)}
            levels = [shape(f"Safety{agent}{family}{level}") for level in range(3)]
            assert levels == [(1, goal), (1.5, one), (2, two)]
        buttons = {"button": (4, 0.2), "goal": (1, 0.4)}
        one = buttons | {"hazard": (4, 0.18), "gremlin": (4, 0.4)}
        two = buttons | {"hazard": (8, 0.18), "gremlin": (6, 0.4)}
        assert [shape(f"Safety{agent}Button{level}") for level in range(3)] == [(1, buttons), (1.5, one), (1.8, two)]
        goal, box = {"goal": (1, 0.4)}, {"push_box": (1, 0.125 if agent == "Car" else 0.2)}
        one = goal | {"hazard": (2, 0.4), "pillar": (1, 0.3)} | box
        two = goal | {"hazard": (4, 0.4), "pillar": (4, 0.3)} | box
        assert [shape(f"Safety{agent}Push{level}") for level in range(3)] == [(1, goal | box), (1.5, one), (2, two)]


def test_costs_that_the_recordings_do_not_reach_are_those_of_the_original() -> None:
    env = make("SafetyPointPush2", action_repeat=1)
    env.start(0)
    hazards = env.task.find(Hazards)
    assert hazards is not None and hazards == replace(hazards, radius=0.3)
    x, y = env.world.agent_xy
    for distance, cost in ((0.2999, 1.0), (0.3001, 0.0)):
        env.world.move("hazard0", (x + distance, y))
        magnitude = hazards.cost(env.world)["hazards"]
        assert float(magnitude > 0) == cost
    env.start(0)
    yaw = env.world.agent_yaw
    env.world.move("pillar0", (x + 0.45 * np.cos(yaw), y + 0.45 * np.sin(yaw)))
    infos = [env.advance(np.array([1.0, 0.0]))[3] for _ in range(40)]
    assert infos[0]["cost_pillars"] == 0 and infos[-1]["cost_pillars"] == infos[-1]["cost"] == 1
    assert make("SafetyPointPush1").task.costs == ("hazards",)
