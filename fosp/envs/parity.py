"""How closely a task agrees with a recording of the original Safety-Gymnasium, in numbers.

Every frame starts from the recorded state, because the Point is chaotic: the original differs from itself by
centimetres after 1000 frames if moved by 1e-15. What must follow without help from the recording is the random stream
and with it every goal. A recording is an .npz file named ``<Task>_seed<N>.npz``; the arrays that are used stand in
``ARRAYS``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fosp.envs.env import CAMERAS, SafetyEnv
from fosp.types import UserError

#: Rows: k = after k frames; ``action``, ``reward``, ``cost``, ``goal_met``: row t belongs to the frame from t to t + 1.
ARRAYS = (
    "meta_json", "action", "time", "qpos", "qvel", "qacc_warmstart", "goal_pos", "reward", "cost", "goal_met",
    "truncated", "layout_names", "layout_after_reset_xy", "rot_names", "rot_values", "rng_state_after_reset_key",
    "rng_state_after_reset_pos", "rng_probe_end",
)  # fmt: skip
#: Image arrays are named rgb64_<camera>_<frame>.
IMAGE_PREFIX = "rgb64_"
#: One frame that differs by more than this counts as different.
STATE_TOLERANCE = 1e-6


def compare(path: str | Path) -> dict[str, Any]:
    """Replay a recording frame by frame in both image qualities.

    Returns a flat dict: ``task``, ``seed``, ``frames``; largest errors ``layout``, ``rotation``, ``goal``, ``state``
    (qpos and qvel, one frame from the recorded state), ``solver_start`` (qacc_warmstart), ``reward``, ``cost_term``;
    ``frames_off`` (share of frames whose state differs by more than 1e-6); counts ``cost_mismatches``,
    ``goal_mismatches``, ``end_mismatches``; ``stream_equal`` (random stream after reset), ``stream_end`` (largest error
    of its next numbers at the end); ``image_<quality>`` and ``image_<quality>_worst`` (mean absolute difference of 255
    over all recorded images, and of the worst).
    Raises: ``UserError`` for a file that is no recording of a registered task.
    """
    record = load(path)
    meta = json.loads(str(record["meta_json"]))
    env = SafetyEnv(task=meta["task"], action_repeat=1)
    result: dict[str, Any] = {"task": meta["task"], "seed": int(meta["seed"]), "frames": len(record["action"])}
    env.start(result["seed"])
    result |= _compare_reset(env, record)
    result |= _compare_frames(env, record)
    for quality in ("faithful", "fast"):
        result |= _compare_images(meta["task"], quality, result["seed"], record)
    return result


def load(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a recording. Raises ``UserError`` if the file cannot be read or lacks one."""
    try:
        with np.load(path) as file:
            record = dict(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a recording (.npz): {error}.") from error
    missing = [name for name in ARRAYS if name not in record]
    if missing:
        raise UserError(f"{path} is no recording: it lacks the arrays {', '.join(missing)}.")
    return record


def extract(source: str | Path, target: str | Path) -> None:
    """Write a smaller copy of a recording with just the arrays that ``compare`` uses."""
    record = load(source)
    kept = [name for name in record if name in ARRAYS or name.startswith((IMAGE_PREFIX, "info_cost_"))]
    np.savez_compressed(target, allow_pickle=False, **{name: record[name] for name in kept})


def restore(env: SafetyEnv, record: Mapping[str, np.ndarray], row: int) -> None:
    """Put the recorded state of a row into the environment, and where its solver started; the goal stays."""
    data = env.world.data
    data.time = float(record["time"][row])
    data.qpos[:], data.qvel[:] = record["qpos"][row], record["qvel"][row]
    data.qacc_warmstart[:] = record["qacc_warmstart"][row]


def _compare_reset(env: SafetyEnv, record: Mapping[str, np.ndarray]) -> dict[str, Any]:
    layout = np.array([env.world.layout[str(name)] for name in record["layout_names"]])
    rotations = np.array([env.world.rotations[str(name)] for name in record["rot_names"]])
    state = env.random_state()
    same_key = np.array_equal(np.asarray(state[1]), record["rng_state_after_reset_key"])
    return {
        "layout": float(np.abs(layout - record["layout_after_reset_xy"]).max()),
        "rotation": float(np.abs(rotations - record["rot_values"]).max()),
        "stream_equal": bool(same_key and int(state[2]) == int(record["rng_state_after_reset_pos"])),
    }


def _compare_frames(env: SafetyEnv, record: Mapping[str, np.ndarray]) -> dict[str, Any]:
    data, frames = env.world.data, len(record["action"])
    terms = [key for key in (f"cost_{term}" for term in env.task.costs) if f"info_{key}" in record]
    state, start, reward, goal, term_error = *np.zeros((4, frames)), 0.0
    cost_off = goal_off = end_off = 0
    for t in range(frames):
        restore(env, record, t)
        got, terminated, truncated, info = env.advance(record["action"][t])
        errors = (np.abs(data.qpos - record["qpos"][t + 1]).max(), np.abs(data.qvel - record["qvel"][t + 1]).max())
        state[t] = max(errors)
        start[t] = np.abs(data.qacc_warmstart - record["qacc_warmstart"][t + 1]).max()
        reward[t] = abs(got - record["reward"][t])
        goal[t] = np.abs(env.world.position("goal") - record["goal_pos"][t + 1]).max()
        term_error = max([term_error] + [abs(info[key] - record[f"info_{key}"][t]) for key in terms])
        cost_off += info["cost"] != record["cost"][t]
        goal_off += bool(info["goal_met"]) != bool(record["goal_met"][t])
        end_off += terminated or truncated != bool(record["truncated"][t])
    stream = env.random_state()
    return {
        "state": float(state.max()),
        "frames_off": float(np.mean(state > STATE_TOLERANCE)),
        "solver_start": float(start.max()),
        "reward": float(reward.max()),
        "goal": float(goal.max()),
        "cost_term": float(term_error),
        "cost_mismatches": int(cost_off),
        "goal_mismatches": int(goal_off),
        "end_mismatches": int(end_off),
        "stream_end": float(np.abs(_next_numbers(stream) - record["rng_probe_end"]).max()),
    }


def _next_numbers(state: tuple[Any, ...]) -> np.ndarray:
    """The two numbers that a stream in this state would give next."""
    copy = np.random.RandomState()
    copy.set_state(state)
    return copy.random_sample(2)


def _compare_images(task: str, quality: str, seed: int, record: Mapping[str, np.ndarray]) -> dict[str, float]:
    env = SafetyEnv(task=task, action_repeat=1, quality=quality)
    env.start(seed)
    errors = []
    for frame in recorded_frames(record):
        for name, image in images_at(env, record, frame).items():
            theirs = record[f"{IMAGE_PREFIX}{CAMERAS[name]}_{frame:04d}"]
            errors.append(np.abs(image.astype(int) - theirs.astype(int)).mean())
    env.close()
    if not errors:
        return {}
    return {f"image_{quality}": float(np.mean(errors)), f"image_{quality}_worst": float(np.max(errors))}


def recorded_frames(record: Mapping[str, np.ndarray]) -> list[int]:
    """The frames at which images were recorded."""
    prefix = f"{IMAGE_PREFIX}{next(iter(CAMERAS.values()))}_"
    tails = [name.removeprefix(prefix) for name in record if name.startswith(prefix)]
    return sorted(int(tail) for tail in tails if tail.isdigit())  # others are of cameras with a longer name


def images_at(env: SafetyEnv, record: Mapping[str, np.ndarray], frame: int) -> dict[str, np.ndarray]:
    """What the environment sees in a recorded state."""
    restore(env, record, frame)
    goal_x, goal_y, _ = record["goal_pos"][frame]
    env.world.move("goal", (float(goal_x), float(goal_y)))
    return env.observe()
