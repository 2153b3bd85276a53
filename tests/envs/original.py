"""A stand-in with the interface of the original Safety-Gymnasium: what its classes return, not how they are made.

Its physics and its drawing are this package's own, so that what the adapter makes of it must equal ``SafetyEnv``.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np
from gymnasium import spaces

from fosp.envs import CAMERAS, make


class Original:
    """As made by ``safety_gymnasium.make``: six values per step, parts of the cost and their sum in info.

    Parameters: ``limit`` = frames until truncation; ``dies`` = frame in which it terminates; ``extra`` = what else
    stands in every info.
    """

    def __init__(
        self, task: str = "SafetyPointButton1", limit: int = 1000, dies: int = -1, extra: dict[str, Any] | None = None
    ) -> None:
        self.inner = make(task, action_repeat=1)
        self.spec = SimpleNamespace(id=f"{task}-v0")
        self.task = OriginalTask(self.inner, limit)
        self.action_space = spaces.Box(-1, 1, (2,), np.float64)
        self.limit, self.dies, self.extra = limit, dies, extra or {}
        self.frame, self.resets, self.closed = 0, [], False
        self.done = True

    @property
    def unwrapped(self) -> Original:
        return self

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.inner.start(seed)
        self.task.model = self.inner.world.model
        self.resets.append(seed)
        self.frame, self.done = 0, False
        return self.observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, float, bool, bool, dict[str, Any]]:
        assert not self.done, "Environment must be reset before stepping."
        assert action.shape == (2,) and np.abs(action).max() <= 1
        free = self.inner.world.memory.get("button_timer", 0) > 0
        reward, _, _, ours = self.inner.advance(action)
        self.frame += 1
        info = {key: value for key, value in ours.items() if key.startswith("cost_")}
        info["cost_sum"] = ours["cost"]
        if free:
            info.pop("cost_buttons", None)
        if ours["goal_met"]:
            info["goal_met"] = True
        terminated, truncated = self.frame == self.dies, self.frame >= self.limit
        self.done = terminated or truncated
        return self.observation(), reward, ours["cost"], terminated, truncated, info | self.extra

    def observation(self) -> np.ndarray:
        return np.zeros(76)

    def close(self) -> None:
        self.closed = True
        self.inner.close()


class OriginalTask:
    """The part that draws: only after the first reset, and every image in the size of its first."""

    def __init__(self, env: Any, limit: int) -> None:
        self._env = env
        self._size: tuple[int, int] | None = None
        self.num_steps = limit
        self.sim_conf = SimpleNamespace(frameskip_binom_n=10)
        self.model: Any = None

    def render(self, width: int, height: int, mode: str, camera_name: str, cost: dict[str, float]) -> np.ndarray:
        assert mode == "rgb_array" and not cost.get("cost_sum")
        self._size = self._size or (width, height)
        assert mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_CAMERA, camera_name) >= 0
        cameras = tuple(CAMERAS.values())  # both into one buffer, as SafetyEnv does: elsewhere edges round differently
        return self._env.paint(cameras, self._size[0], "fast")[cameras.index(camera_name)]


class Wrapper:
    """As the wrappers around the original: passes everything on; ``unwrapped`` is the original."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.action_space, self.spec = env.action_space, env.spec

    @property
    def unwrapped(self) -> Any:
        return self.env.unwrapped

    def reset(self, **options: Any) -> Any:
        return self.env.reset(**options)

    def step(self, action: np.ndarray) -> Any:
        return self.env.step(action)

    def close(self) -> None:
        self.env.close()


class AutoReset(Wrapper):
    """As made with ``autoreset=True``: at the end of an episode the next one has begun already."""

    def step(self, action: np.ndarray) -> Any:
        observation, reward, cost, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            last, final = observation, info
            observation, info = self.env.reset()
            info |= {"final_observation": last, "final_info": final}
        return observation, reward, cost, terminated, truncated, info


class FiveValues(Wrapper):
    """As the ids "...Gymnasium-v0": the cost stands in info."""

    def step(self, action: np.ndarray) -> Any:
        observation, reward, cost, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, info | {"cost": cost}


class RandomPolicy:
    """Sees images and acts at random; batched."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)

    def initial(self, batch: int | None = None) -> Any:
        carry = SimpleNamespace(diagnostics={}, size=batch)
        carry.reset = lambda mask: carry
        return carry

    def act(self, carry: Any, observation: Any) -> tuple[np.ndarray, Any]:
        assert set(observation) == {"image_front", "image_back"}
        return self._random.uniform(-1, 1, (carry.size, 2)), carry
