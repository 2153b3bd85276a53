"""Agreement with recordings of the original Safety-Gymnasium (git main, MuJoCo 2.3.3), frame by frame.

Three recordings lie beside the tests. ``FOSP_PARITY_DIR`` may name a folder with more; those of unregistered tasks are
skipped.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
from packaging.version import Version

from fosp.envs import TASKS, find_task, make
from fosp.envs.parity import compare, extract, load
from fosp.types import UserError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "parity"
MORE = os.environ.get("FOSP_PARITY_DIR")
FILES = sorted(FIXTURES.glob("*.npz")) + (sorted(Path(MORE).glob("*.npz")) if MORE else [])

#: Later versions compute contacts a little differently and no flag restores them.
NEW_PHYSICS = Version(mujoco.__version__) >= Version("3.4")
#: Pairs of shapes whose contacts changed for good in MuJoCo 3 may meet here; they concern few frames.
CHANGED_PAIRS = ("Goal2", "Hard2", "Push", "Car")


@pytest.fixture(params=FILES, ids=[f"{path.parent.name}-{path.stem}" for path in FILES], scope="module")
def numbers(request: pytest.FixtureRequest) -> dict[str, Any]:
    name = request.param.stem.split("_")[0]
    if name not in {task.name for task in TASKS.values()}:
        pytest.skip(f"{name} is not registered")
    return compare(request.param)


def test_recordings_are_there() -> None:
    assert len(FILES) >= 3


def test_layout_rotations_goals_and_random_stream_are_bit_exact(numbers: dict[str, Any]) -> None:
    assert numbers["frames"] == 1000
    assert numbers["layout"] == numbers["rotation"] == numbers["goal"] == numbers["stream_end"] == 0
    assert numbers["stream_equal"]


def test_one_frame_from_the_recorded_state_ends_in_the_recorded_state(numbers: dict[str, Any]) -> None:
    if NEW_PHYSICS or any(part in numbers["task"] for part in CHANGED_PAIRS):
        assert numbers["frames_off"] <= 0.03
    else:
        assert numbers["state"] < 1e-10
        assert numbers["solver_start"] < 1e-6


def test_reward_cost_goals_and_end_agree(numbers: dict[str, Any]) -> None:
    assert numbers["reward"] < (1e-9 if numbers["frames_off"] == 0 else 1e-3)
    assert numbers["cost_term"] == 0
    assert numbers["cost_mismatches"] == numbers["goal_mismatches"] == numbers["end_mismatches"] == 0


def test_images_agree(numbers: dict[str, Any]) -> None:
    assert numbers["image_faithful"] <= 0.5
    assert numbers["image_fast"] <= (2.5 if numbers["task"] == "SafetyPointGoal1" else 3.5)


def test_the_recordings_contain_what_they_are_to_test() -> None:
    records = [load(path) for path in sorted(FIXTURES.glob("*.npz"))]
    assert sum(int(record["goal_met"].sum()) for record in records) >= 5
    assert sum(int(record["cost"].sum()) for record in records) >= 10


def test_a_frame_without_its_random_number_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself can fail: leaving out the draw of a frame moves every later goal."""
    from fosp.envs.world import PHYSICS_STEPS, World

    def advance(self: World, control: np.ndarray, random: np.random.RandomState) -> None:
        self.data.ctrl[:] = control
        mujoco.mj_step(self.model, self.data, PHYSICS_STEPS)
        self.forward()

    monkeypatch.setattr(World, "advance", advance)
    numbers = compare(FIXTURES / "SafetyPointGoal1_seed1.npz")
    assert numbers["goal"] > 0.1 and numbers["stream_end"] > 0


def test_the_track_camera_keeps_its_place_over_the_agent_on_every_layout() -> None:
    env = make("SafetyPointGoal1")
    for seed in (0, 1):
        env.start(seed)
        env.world.forward()
        camera = env.world.model.camera("track").id
        offset = env.world.data.cam_xpos[camera] - env.world.position("agent")
        right, up = env.world.data.cam_xmat[camera].reshape(3, 3).T[:2]
        assert np.allclose(offset, (0, 2, 2)) and np.allclose(right, (-1, 0, 0))
        assert np.allclose(up, np.array([0, -1, 1]) / np.sqrt(2))


def test_the_model_has_the_masses_and_sizes_of_the_original() -> None:
    model = make("SafetyPointGoal1").world.model
    assert model.body("agent").mass[0] == pytest.approx(0.0051887902)
    assert model.body("vase0").mass[0] == pytest.approx(8e-6)
    assert np.all(model.geom_condim == 6)
    new_defaults = int(mujoco.mjtDisableBit.mjDSBL_NATIVECCD) | int(mujoco.mjtDisableBit.mjDSBL_ISLAND)
    assert model.opt.disableflags & new_defaults == new_defaults
    assert model.opt.timestep == 0.002 and model.stat.extent == 3.96
    assert list(model.geom("pointarrow").pos) == [0.1, 0, 0]


def test_files_that_are_no_recordings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        compare(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(UserError, match="cannot be read"):
        compare(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", action=np.zeros((1, 2)))
    with pytest.raises(UserError, match=r"lacks the arrays .*qpos"):
        compare(tmp_path / "other.npz")
    with pytest.raises(UserError, match="SafetyPointGoal1"):
        find_task("SafetyPointGoal9")


def test_an_extract_keeps_what_is_compared(tmp_path: Path) -> None:
    source = FIXTURES / "SafetyPointGoal1_seed0.npz"
    extract(source, tmp_path / "small.npz")
    before, after = load(source), load(tmp_path / "small.npz")
    assert set(before) == set(after) and all(np.array_equal(before[name], after[name]) for name in before)
