"""How closely a task agrees with a recording of the original Safety-Gymnasium, in numbers.

Every frame starts from the recorded state, because the Point is chaotic: the original differs from itself by
centimetres after 1000 frames if moved by 1e-15. Physics and rules are judged apart. Physics: ten physics steps from one
recorded state must end in the next. Rules (reward, cost, timers, fading, goals): they are applied to the recorded next
state, so that a contact which MuJoCo 3 computes differently neither hides nor excuses a wrong reward. Nothing but
states is taken from the recording: the random stream, and with it every goal, must follow without help.

A recording is an .npz file named ``<Task>_seed<N>.npz``; the arrays that are used stand below.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from packaging.version import Version

from fosp.envs.env import SafetyEnv
from fosp.envs.replay import END, IMAGES, PICTURES, SAME, Replay, Show
from fosp.envs.tasks import find_task
from fosp.envs.world import World
from fosp.types import UserError

#: Extracts of recordings of nine tasks that come with the package.
RECORDINGS = Path(__file__).parent / "recordings"

#: Row k: after k frames. The second line: only where the task has such a thing.
STATES = ("time", "qpos", "qvel", "qacc_warmstart", "goal_pos", "last_dists", "geom_alpha")
STATES_OF_SOME = ("mocap_pos", "goal_button", "button_timer")
#: Row t: the frame from state t to state t + 1. Besides, info_cost_<term>.
FRAMES = ("action", "reward", "cost", "goal_met", "truncated")
START = (
    "meta_json", "layout_names", "layout_after_reset_xy", "rot_names", "rot_values", "rng_state_after_reset_key",
    "rng_state_after_reset_pos", "body_names", "geom_names", "jnt_names", "cam_names", "cam_xpos_0000", "cam_xmat_0000",
)  # fmt: skip
ARRAYS = START + STATES + FRAMES
#: Prefixes of the arrays of the compiled model and of the cost terms.
MODEL, COSTS = "model_", "info_cost_"

#: Share of a task's frames that may be off, all of them because of contacts that MuJoCo 3 computes differently.
OFF_SHARE = 0.03
#: Later versions of MuJoCo compute contacts and friction a little differently, and no flag restores them.
SAME_PHYSICS = Version(mujoco.__version__) < Version("3.4")
#: Largest error that counts as agreement, by key of ``compare``; 0 means to the last bit.
TOLERANCES = {
    "names": 0, "model": 1e-12, "cameras": 1e-12, "layout": 0, "rotation": 0, "stream_start": 0, "stream_end": 0,
    "goal": 0, "buttons": 0, "alpha": 0, "mocap": 1e-12, "reward": 1e-9, "distances": 1e-9, "cost_term": 0,
    "cost_mismatches": 0, "goal_mismatches": 0, "end_mismatches": 0, "image_faithful_worst": 0.5,
    "image_fast_worst": 2.5,
}  # fmt: skip


def compare(path: str | Path, show: Show | None = None) -> dict[str, Any]:
    """Replay a recording frame by frame, with images in both qualities; ``show`` is called for each of them.

    Returns a flat dict: ``task``, ``seed``, ``frames``; largest errors, in the order of ``TOLERANCES``: of names (1 if
    any differs), arrays of the compiled model and camera poses at reset; layout, rotations and random stream at reset;
    the stream's next numbers at the end (only in full recordings), goals, goal button and timer, opacity, gremlins'
    centres, reward, distances, cost terms; counts of frames in which cost, ``goal_met`` or the end differ. Physics:
    ``state`` (positions), ``velocity`` and ``solver_start`` in frames without a pair of ``CHANGED_PAIRS``;
    ``state_pairs`` (positions) in the ``pair_frames`` frames that differ because of such a pair; ``off``: frames that
    differ by more than 1e-6. ``image_<quality>`` and ``image_<quality>_worst``: mean absolute difference of 255 over
    all recorded images, and of the worst; ``images``: how many.
    Raises: ``UserError`` for a file that is no recording of a registered task.
    """
    record = load(path)
    meta = json.loads(str(record["meta_json"]))
    env = SafetyEnv(task=meta["task"], action_repeat=1)
    seed = int(meta["seed"])
    env.start(seed)
    result = {"task": meta["task"], "seed": seed, "frames": len(record["action"])}
    result |= _compare_model(env.world, record) | _compare_reset(env, record)
    replay = Replay(env, record, show)
    replay.run()
    env.close()
    result |= replay.errors | replay.counts | {"images": len(replay.image_errors["faithful"])}
    for quality, errors in replay.image_errors.items():
        if errors:
            result |= {f"image_{quality}": float(np.mean(errors)), f"image_{quality}_worst": max(errors)}
    return result


def shortcomings(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """One sentence for everything in which results of ``compare`` lie outside the tolerances; empty if all agree.

    Physics is judged only with a version of MuJoCo that can agree (``SAME_PHYSICS``), and the share of frames that are
    off over all recordings of a task.
    """
    limits = TOLERANCES | (SAME if SAME_PHYSICS else {})
    found: list[str] = []
    off, frames = Counter[str](), Counter[str]()
    for result in results:
        off[result["task"]] += result["off"]
        frames[result["task"]] += result["frames"]
        for key, limit in limits.items():
            if key in result and not result[key] <= limit:  # also where it is no number
                which = f"{result['task']}, seed {result['seed']}"
                found.append(f"{which}: {key} is {result[key]:.3g} but may be {limit:g} at most")
    for task, count in off.items():
        if SAME_PHYSICS and count > OFF_SHARE * frames[task]:
            found.append(f"{task}: {count} of {frames[task]} frames are off but {OFF_SHARE:.0%} may be at most")
    return found


def recordings(folder: str | Path | None = None) -> list[Path]:
    """The recordings in a folder, or those of the package. Raises ``UserError`` where there are none."""
    found = sorted(Path(folder or RECORDINGS).glob("*.npz"))
    if not found:
        raise UserError(f"{folder or RECORDINGS} holds no recordings; give a folder with files <Task>_seed<N>.npz.")
    return found


def load(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a recording. Raises ``UserError`` if the file cannot be read or lacks one."""
    try:
        with np.load(path) as file:
            record = dict(file)
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be read as a recording (.npz): {error}.") from error
    missing = [name for name in ARRAYS if name not in record]
    if missing:
        raise UserError(f"{path} is no recording: it lacks the arrays {', '.join(missing)}.")
    try:
        meta = json.loads(str(record["meta_json"]))
        find_task(str(meta["task"]))
        int(meta["seed"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no recording: its meta_json names no task and seed ({error!r}).") from error
    return record


def extract(source: str | Path, target: str | Path, frames: int | None = None) -> None:
    """Write a smaller copy of a recording: just the arrays that ``compare`` uses, of all or the first ``frames``.

    A shortened copy has no numbers of the random stream at its end: they were recorded at the end of the original only.
    """
    record = load(source)
    total = len(record["action"])
    frames = min(frames or total, total)
    kept: dict[str, np.ndarray] = {}
    for name, array in record.items():
        if name in STATES + STATES_OF_SOME:
            kept[name] = array[: frames + 1]
        elif name in FRAMES or name.startswith(COSTS):
            kept[name] = array[:frames]
        elif name in START or name.startswith(MODEL) or (name == END and frames == total):
            kept[name] = array
        elif name.startswith((IMAGES, PICTURES)) and int(name.rpartition("_")[2]) <= frames:
            kept[name] = array
    np.savez_compressed(target, allow_pickle=False, **kept)


# ---- at reset --------------------------------------------------------------------------------------------------------


def _compare_model(world: World, record: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Names in the order of the model, its arrays, and where the cameras are."""
    model = world.model
    counts = {"body": model.nbody, "geom": model.ngeom, "jnt": model.njnt, "cam": model.ncam}
    ours = {kind: [getattr(model, kind)(i).name for i in range(count)] for kind, count in counts.items()}
    if any(names != record[f"{kind}_names"].tolist() for kind, names in ours.items()):
        return {"names": 1.0, "model": np.inf, "cameras": np.inf}
    arrays = {name.removeprefix(MODEL): array for name, array in record.items() if name.startswith(MODEL)}
    poses = ((world.data.cam_xpos, record["cam_xpos_0000"]), (world.data.cam_xmat, record["cam_xmat_0000"]))
    return {
        "names": 0.0,
        "model": max([_difference(model, name, theirs) for name, theirs in arrays.items()], default=0.0),
        "cameras": max(float(np.abs(mine - theirs).max()) for mine, theirs in poses),
    }


def _difference(model: mujoco.MjModel, name: str, theirs: np.ndarray) -> float:
    """Largest difference of an array of the model, where it means something."""
    ours = np.array(getattr(model, name), np.float64)
    if name == "eq_data":  # not the weld's torque scale: another number in MuJoCo 3 has the effect of 1 in 2.3
        ours, theirs = ours[:, :10], theirs[:, :10]
    if ours.shape != theirs.shape:
        return np.inf
    means = np.ones(theirs.shape, bool)
    if name in ("cam_pos", "cam_quat"):  # a tracking camera keeps its offset in the world, whatever these say
        means[model.cam_mode == int(mujoco.mjtCamLight.mjCAMLIGHT_TRACK)] = False
    elif name == "body_ipos":  # the goal is left out of inertia
        means[model.body_mass == 0] = False
    elif name == "actuator_biasprm":  # read by affine actuators only
        means[model.actuator_biastype == int(mujoco.mjtBias.mjBIAS_NONE)] = False
    return float(np.abs(ours - theirs)[means].max(initial=0.0))


def _compare_reset(env: SafetyEnv, record: Mapping[str, np.ndarray]) -> dict[str, float]:
    layout = np.array([env.world.layout[str(name)] for name in record["layout_names"]])
    # A gremlin and its mocap body share one rotation.
    names = [str(name).removesuffix("obj").removesuffix("mocap") for name in record["rot_names"]]
    rotations = np.array([env.world.rotations[name] for name in names])
    state = env.random_state()
    same = np.array_equal(np.asarray(state[1]), record["rng_state_after_reset_key"])
    same = same and int(state[2]) == int(record["rng_state_after_reset_pos"])
    return {
        "layout": float(np.abs(layout - record["layout_after_reset_xy"]).max()),
        "rotation": float(np.abs(rotations - record["rot_values"]).max()),
        "stream_start": float(not same),
    }
