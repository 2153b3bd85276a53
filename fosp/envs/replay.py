"""A recording of the original, run through an environment frame by frame. ``fosp.envs.parity`` says what it means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mujoco
import numpy as np

from fosp.envs.env import CAMERAS, SafetyEnv
from fosp.envs.objects import BUTTON_TIMER, GOAL_BUTTON
from fosp.envs.world import PHYSICS_STEPS

#: Image arrays are named <prefix><camera>_<frame>: those that the environment observes, and one for people.
IMAGES, PICTURES, PICTURE_SIZE = "rgb64_", "rgb256_fixedfar_nomarkers_", 256
#: Columns of ``last_dists`` by reward term.
DISTANCES = {"distance": 0, "agent_box": 1, "box_goal": 2}
#: The next numbers of the random stream after the last frame; an extract does not have them.
END = "rng_probe_end"

#: Frames whose end differs by more count as off, metres or radians.
OFF = 1e-6
#: What counts as the same physics, of frames in which no pair of ``CHANGED_PAIRS`` touches: positions, velocities, and
#: where the solver starts. A velocity is a difference of positions over a time step of some milliseconds.
SAME = {"state": 1e-10, "velocity": 1e-8, "solver_start": 1e-5}
#: Shapes whose contacts MuJoCo 3 computes differently for good.
CHANGED_PAIRS = tuple(
    {int(a), int(b)}
    for a, b in (
        (mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_BOX),
        (mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER),
        (mujoco.mjtGeom.mjGEOM_SPHERE, mujoco.mjtGeom.mjGEOM_CYLINDER),
    )
)

#: Gets camera, frame, quality, our image and theirs, uint8 (size, size, 3) both.
Show = Callable[[str, int, str, np.ndarray, np.ndarray], None]


class Replay:
    """Compares every frame of a recording with an environment that has just been started with its seed.

    ``errors`` are the largest ones, ``counts`` are of frames, ``image_errors`` the mean absolute difference of each
    image, of 255, by quality; their meaning stands at ``fosp.envs.parity.compare``.
    """

    def __init__(self, env: SafetyEnv, record: Mapping[str, np.ndarray], show: Show | None = None) -> None:
        self._env, self._record, self._show = env, record, show
        self.errors = dict.fromkeys((*SAME, "state_pairs"), 0.0)
        self.counts = dict.fromkeys(("off", "pair_frames", "cost_mismatches", "goal_mismatches", "end_mismatches"), 0)
        self.image_errors: dict[str, list[float]] = {"faithful": [], "fast": []}

    def run(self) -> None:
        self._compare_row(0)
        for t in range(len(self._record["action"])):
            excused = self._physics(t)
            self._rules(t)
            self._compare_solver(t + 1, excused)
            self._compare_row(t + 1)
        if END in self._record:
            stream = np.random.RandomState()
            stream.set_state(self._env.random_state())
            self._worse("stream_end", stream.random_sample(2), self._record[END])

    def _worse(self, key: str, ours: Any, theirs: Any) -> float:
        """Note the largest difference of a kind, infinite where it is no number; returns the present one."""
        error = float(np.abs(np.asarray(ours, np.float64) - theirs).max(initial=0.0))
        error = error if np.isfinite(error) else np.inf
        self.errors[key] = max(self.errors.get(key, 0.0), error)
        return error

    def _restore(self, row: int) -> None:
        """Put the recorded state into the environment. Goals, timers and opacities are left alone."""
        data, record = self._env.world.data, self._record
        data.time = float(record["time"][row])
        data.qpos[:], data.qvel[:] = record["qpos"][row], record["qvel"][row]
        if data.mocap_pos.size:
            data.mocap_pos[:] = record["mocap_pos"][row]

    # ---- physics ----------------------------------------------------------------------------------------------------

    def _physics(self, t: int) -> bool:
        """One frame from the recorded state. Returns whether it differs for the reason that is known."""
        env, data, record = self._env, self._env.world.data, self._record
        control = env.control(record["action"][t])
        self._restore(t)
        data.qacc_warmstart[:] = record["qacc_warmstart"][t]
        env.world.advance(control, env.referee.random)
        ends = {"state": data.qpos.copy(), "velocity": data.qvel.copy()}
        solver_start = data.qacc_warmstart.copy()
        theirs = {"state": record["qpos"][t + 1], "velocity": record["qvel"][t + 1]}
        if data.mocap_pos.size:
            self._worse("mocap", data.mocap_pos, record["mocap_pos"][t + 1])
        same = all(np.abs(ends[key] - theirs[key]).max() <= SAME[key] for key in ends)
        excused = not same and self._touches_within(t, control)
        error = self._worse("state_pairs" if excused else "state", ends["state"], theirs["state"])
        if not excused:
            self._worse("velocity", ends["velocity"], theirs["velocity"])
        self.counts["off"] += error > OFF
        self.counts["pair_frames"] += excused
        data.qacc_warmstart[:] = solver_start
        return excused

    def _touches_within(self, t: int, control: np.ndarray) -> bool:
        """Whether a pair of ``CHANGED_PAIRS`` touches in any physics step of a frame."""
        self._restore(t)
        self._env.world.data.qacc_warmstart[:] = self._record["qacc_warmstart"][t]
        for _ in range(PHYSICS_STEPS):
            self._env.world.step(control, 1)
            if self._touches():
                return True
        return False

    def _touches(self) -> bool:
        world = self._env.world
        pairs = world.model.geom_type[world.data.contact.geom[: world.data.ncon]]  # (ncon, 2)
        return any({int(a), int(b)} in CHANGED_PAIRS for a, b in pairs)

    def _compare_solver(self, row: int, excused: bool) -> None:
        """Where the solver would start next, after the frame's repeated calls of ``forward`` on the recorded state."""
        ours, theirs = self._env.world.data.qacc_warmstart, self._record["qacc_warmstart"][row]
        same = np.abs(ours - theirs).max() <= SAME["solver_start"]
        if same or not (excused or self._touches()):
            self._worse("solver_start", ours, theirs)

    # ---- rules ------------------------------------------------------------------------------------------------------

    def _rules(self, t: int) -> None:
        """What the recorded next state is worth, and what follows from it."""
        env, record = self._env, self._record
        self._restore(t + 1)
        env.world.forward()
        info = env.referee.info()
        reward, terminated = env.referee.judge(info)
        self._worse("reward", reward, record["reward"][t])
        for term in env.task.costs:
            theirs = record[f"info_cost_{term}"][t]
            # The original leaves the term of wrong buttons out while they cost nothing; here it is 0 then.
            self._worse("cost_term", info[f"cost_{term}"], 0.0 if np.isnan(theirs) else theirs)
        self.counts["cost_mismatches"] += info["cost"] != record["cost"][t]
        self.counts["goal_mismatches"] += bool(info["goal_met"]) != bool(record["goal_met"][t])
        self.counts["end_mismatches"] += terminated or env.referee.truncated != bool(record["truncated"][t])

    def _compare_row(self, row: int) -> None:
        """What the rules have made of the state of this row, and how it looks where that was recorded."""
        env, record, memory = self._env, self._record, self._env.world.memory
        self._worse("goal", env.world.position("goal"), record["goal_pos"][row])
        if GOAL_BUTTON in memory:
            ours = [memory[GOAL_BUTTON], memory[BUTTON_TIMER]]
            self._worse("buttons", ours, [record["goal_button"][row], record["button_timer"][row]])
        alpha = record["geom_alpha"]  # one row where nothing fades
        self._worse("alpha", env.world.model.geom_rgba[:, 3], alpha[min(row, len(alpha) - 1)])
        for term, distance in env.referee.distances.items():
            self._worse("distances", distance, record["last_dists"][row, DISTANCES[term]])
        self._compare_images(row)

    def _compare_images(self, row: int) -> None:
        cameras = tuple(name for name in CAMERAS.values() if f"{IMAGES}{name}_{row:04d}" in self._record)
        for quality in self.image_errors if cameras else ():
            for name, ours in zip(cameras, self._env.paint(cameras, self._env.image_size, quality), strict=True):
                self._compare_image(name, row, quality, ours, self._record[f"{IMAGES}{name}_{row:04d}"])
        if f"{PICTURES}{row:04d}" in self._record:
            ours = self._env.picture("fixedfar", PICTURE_SIZE)
            self._compare_image("fixedfar", row, "faithful", ours, self._record[f"{PICTURES}{row:04d}"])

    def _compare_image(self, camera: str, row: int, quality: str, ours: np.ndarray, theirs: np.ndarray) -> None:
        self.image_errors[quality].append(float(np.abs(ours.astype(int) - theirs).mean()))
        if self._show is not None:
            self._show(camera, row, quality, ours, theirs)
