"""Environments of the original Safety-Gymnasium, for users who have it, behind the interface of this package.

Not tested here: a real Safety-Gymnasium. It pins ``mujoco==2.3.3`` and ``gymnasium==0.28.1`` and does not install
beside this package; it takes a port of it to current versions. The tests run a stand-in with its interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from fosp.envs.env import CAMERAS, SafetyEnv
from fosp.envs.tasks import TASKS, Task
from fosp.types import Schema, UserError

#: Keys of the original's info that begin like cost terms but are none: the sum, which it returns as the cost anyway,
#: and the mark of a simulation that failed, whose cost of 1 is returned too.
NO_TERMS = ("cost_sum", "cost_exception")


def from_safety_gymnasium(
    env: Any,
    *,
    action_repeat: int = 4,
    image_size: int = 64,
    cost_terms: Sequence[str] | None = None,
    task: str | None = None,
) -> SafetyGymnasiumEnv:
    """Wrap what ``safety_gymnasium.make("SafetyPointGoal1-v0", render_mode="rgb_array")`` returns.

    Take the plain ids (not "...Vision", which draw an image of their own, and not "...Gymnasium", which lose the sixth
    value), without ``autoreset``, from git main (1.0.0 has no camera ``vision_back``), and draw nothing with them
    before: the original keeps the size of the first image that it drew. The environment is reset once.

    Parameters
        action_repeat: frames per step; reward and cost are summed over them, the image is taken after the last.
        image_size: height and width of the images, pixels.
        cost_terms: names of the parts of the cost, the keys ``cost_<term>`` of the original's info. It leaves some out
            in some frames (``cost_buttons`` while the timer runs), so they must be known in advance. None: those of the
            task of the same name in this package.
        task: the name that datasets and checkpoints will bear. None: "safety_gymnasium/<id>", so that nothing is taken
            for a product of this package's own tasks; give "fosp/SafetyPointGoal1-v0" to run their checkpoints.

    Raises: ``UserError`` for an environment of another kind, a missing camera or an unknown task without cost_terms.
    """
    return SafetyGymnasiumEnv(env, action_repeat, image_size, cost_terms, task)


class SafetyGymnasiumEnv(gymnasium.Env[Any, np.ndarray]):
    """See ``from_safety_gymnasium``.

    Observations, and ``cost``, ``cost_<term>``, ``goal_met`` and ``frames`` in info, are as in ``SafetyEnv``: the same
    keys at reset and at every step. There are no reward terms, since the original does not tell them. ``terminated``
    and ``truncated`` are the original's: its time limit is a truncation. Scripted behaviours do not work here: they
    need ``privileged()``, the state behind the images.

    What is used of the original, besides ``reset``, ``step``, ``close``, ``action_space`` and ``spec.id``:
    ``unwrapped.task`` with its ``model``, ``num_steps``, ``sim_conf.frameskip_binom_n`` and ``render``.
    """

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(
        self, env: Any, action_repeat: int, image_size: int, cost_terms: Sequence[str] | None, task: str | None
    ) -> None:
        self._env, self._original = env, _task_of(env)
        self._name = name = env.unwrapped.spec.id if env.unwrapped.spec else type(env.unwrapped).__name__
        if not 1 <= action_repeat <= 1000 or not 1 <= image_size <= 4096:
            values = f"action_repeat is {action_repeat} and image_size {image_size}"
            raise UserError(f"{values} but they must lie in 1..1000 and 1..4096.")
        self.action_repeat, self.image_size = action_repeat, image_size
        twin = _twin(name)
        if cost_terms is None and twin is None:
            raise UserError(f"Environment '{name}' has no twin here; say its parts of the cost by cost_terms=(...).")
        self._terms = tuple(cost_terms if cost_terms is not None else twin.costs if twin else ())
        self._mirror = SafetyEnv(twin).schema().mirror if twin else ()
        self._task_id = task or f"safety_gymnasium/{name}"
        image = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space = spaces.Dict({name: image for name in CAMERAS})
        self._low, self._high = np.asarray(env.action_space.low), np.asarray(env.action_space.high)  # (A,)
        self.action_space = spaces.Box(self._low.astype(np.float32), self._high.astype(np.float32), dtype=np.float32)
        env.reset()  # builds the model
        self._require_cameras()
        self._see()  # fails now rather than in the first episode

    def schema(self) -> Schema:
        """What is seen and what can be done here."""
        size, original = self.image_size, self._original
        frame = float(original.model.opt.timestep) * original.sim_conf.frameskip_binom_n
        return Schema(
            task=self._task_id,
            cameras={name: (size, size, 3) for name in CAMERAS},
            action_size=len(self._low),
            action_repeat=self.action_repeat,
            step_seconds=frame * self.action_repeat,
            max_steps=-(-int(original.num_steps) // self.action_repeat),
            cost_terms=self._terms,
            mirror=self._mirror,
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode. Without a seed the original's random stream goes on."""
        super().reset(seed=seed)
        self._env.reset(seed=seed)
        return self._see(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """``action_repeat`` frames with the same action, shape (A,), clipped to the bounds of the action space."""
        action = np.asarray(action, np.float64)
        if action.shape != self.action_space.shape or not np.isfinite(action).all():
            raise ValueError(f"action must be {self.action_space.shape} finite numbers, got {action!r}")
        action = np.clip(action, self._low, self._high)
        info, total, terminated, truncated = self._info(), 0.0, False, False
        for _ in range(self.action_repeat):
            reward, terminated, truncated = self._frame(action, info)
            total += reward
            if terminated or truncated:
                break
        return self._see(), total, terminated, truncated, info

    def close(self) -> None:
        """Close the original."""
        self._env.close()

    # ---- the original -----------------------------------------------------------------------------------------------

    def _frame(self, action: np.ndarray, info: dict[str, Any]) -> tuple[float, bool, bool]:
        """One step of the original, its costs added to ``info``; returns reward, terminated, truncated."""
        values = self._env.step(action)
        if len(values) != 6:
            raise UserError(
                f"A step of '{self._name}' returned {len(values)} values instead of Safety-Gymnasium's 6; "
                "make it by safety_gymnasium.make with an id without 'Gymnasium'."
            )
        _, reward, cost, terminated, truncated, theirs = values
        if "final_observation" in theirs:
            raise UserError(f"'{self._name}' resets itself, so its last images are lost; make it with autoreset=False.")
        info["cost"] += float(cost)
        info["goal_met"] += float(theirs.get("goal_met", False))
        info["frames"] += 1
        for key, value in theirs.items():
            if key.startswith("cost_") and key not in NO_TERMS:
                if key not in info:
                    known = ", ".join(self._terms) or "none"
                    raise UserError(f"'{self._name}' reports '{key}', but cost_terms is {known}; add it to cost_terms.")
                info[key] += float(value)
        return float(reward), bool(terminated), bool(truncated)

    def _info(self) -> dict[str, Any]:
        return {"cost": 0.0, **{f"cost_{term}": 0.0 for term in self._terms}, "goal_met": 0.0, "frames": 0}

    def _see(self) -> dict[str, np.ndarray]:
        """The images of the present state, uint8 (W, W, 3) each, in memory of their own."""
        size = self.image_size
        seen = {}
        for name, camera in CAMERAS.items():
            # An empty cost: a positive one would draw a red ball around the agent.
            image = self._original.render(width=size, height=size, mode="rgb_array", camera_name=camera, cost={})
            if np.shape(image) != (size, size, 3):
                raise UserError(
                    f"'{self._name}' drew an image of shape {np.shape(image)} where image_size is {size}; the original "
                    "keeps the size of its first image, so make a new environment and draw nothing before."
                )
            seen[name] = np.array(image, np.uint8)
        return seen

    def _require_cameras(self) -> None:
        """The original draws a free camera, without a word, where the one that was asked for is missing."""
        model = self._original.model
        there = [model.camera(i).name for i in range(model.ncam)]
        for camera in CAMERAS.values():
            if camera not in there:
                raise UserError(
                    f"'{self._name}' has no camera '{camera}' but {', '.join(there)}; take Safety-Gymnasium from git "
                    "main of September 2023 or later."
                )


def _task_of(env: Any) -> Any:
    """The original's task, which holds the model and draws."""
    found = getattr(env.unwrapped, "task", None)
    if not hasattr(found, "render"):
        kind = type(env.unwrapped).__name__
        raise UserError(f"A '{kind}' is no environment of Safety-Gymnasium: its unwrapped has no task that renders.")
    return found


def _twin(name: str) -> Task | None:
    """This package's task of the same name, if there is one: "SafetyPointGoal1-v0" is "fosp/SafetyPointGoal1-v0"."""
    return TASKS.get(f"fosp/{name.rpartition('/')[2]}")
