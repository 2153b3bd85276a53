"""The recorded state observations of the original, cut out of its recordings (see ``fosp.envs.parity``).

``python tests/envs/lidar_rows.py FOLDER`` writes the fixture anew from a folder of recordings.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from fosp.envs import SafetyEnv

FILE = Path(__file__).parents[1] / "fixtures" / "lidar.npz"

Rows = dict[str, np.ndarray]

#: Of each, the last two rows are kept: before and after the last frame.
STATES = ("time", "qpos", "qvel", "qacc_warmstart", "mocap_pos", "goal_pos", "goal_button", "button_timer")


def cut(path: Path) -> Rows:
    """What the tests need of one recording: both observations, the last action, the states around it."""
    with np.load(path) as record:
        rows = {name: record[name][-2:] for name in STATES if name in record}
        return rows | {"action": record["action"][-1]} | {n: record[n] for n in ("obs_reset", "obs_last")}


def write(folder: Path, file: Path = FILE) -> None:
    """Cut all recordings of a folder into one file."""
    found = {f"{path.stem}/{name}": rows for path in sorted(folder.glob("*.npz")) for name, rows in cut(path).items()}
    np.savez_compressed(file, allow_pickle=False, **found)


def read(file: Path = FILE) -> dict[str, Rows]:
    """Recording ("SafetyPointGoal1_seed0") -> its rows."""
    found: dict[str, Rows] = {}
    with np.load(file) as arrays:
        for name in arrays:
            recording, _, key = name.partition("/")
            found.setdefault(recording, {})[key] = arrays[name]
    return found


def restore(env: SafetyEnv, rows: Rows, row: int) -> None:
    """Put the state before (0) or after (1) the last frame into the environment, which must have been reset."""
    world = env.world
    data = world.data
    data.time, data.qpos[:], data.qvel[:] = float(rows["time"][row]), rows["qpos"][row], rows["qvel"][row]
    data.ctrl[:], data.qacc_warmstart[:] = np.clip(rows["action"], -1, 1), rows["qacc_warmstart"][row]
    if data.mocap_pos.size:
        data.mocap_pos[:] = rows["mocap_pos"][row]
    world.memory |= {name: int(rows[name][row]) for name in ("goal_button", "button_timer") if name in rows}
    x, y, _ = rows["goal_pos"][row]
    world.move("goal", (float(x), float(y)))
    data.qacc_warmstart[:] = rows["qacc_warmstart"][row]  # moving the goal has set it


if __name__ == "__main__":
    write(Path(sys.argv[1]))
