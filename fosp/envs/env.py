"""Physics and task as a Gymnasium environment with two cameras, a reward, and a cost in ``info``.

One frame, in order: ten physics steps; reward (with the test whether the goal is reached); cost; only then the next
goal is placed. So reward and cost speak of the state *before* the goal moves and the image shows the *new* goal.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.random import RandomState

from fosp.envs.layout import LayoutError, sample_layout, sample_rotations
from fosp.envs.objects import Hazards
from fosp.envs.render import QUALITIES, Painter
from fosp.envs.suites import Scenario, find_scenario
from fosp.envs.tasks import Task, find_task
from fosp.envs.world import PHYSICS_STEPS, World
from fosp.types import Schema, UserError

#: Name in the observation -> camera of the model.
CAMERAS = {"image_front": "vision", "image_back": "vision_back"}
#: A frame's reward is clipped to this range; it never matters in the tasks as they are.
REWARD_LIMIT = 10.0

Observation = dict[str, np.ndarray]


class SafetyEnv(gymnasium.Env[Any, np.ndarray]):
    """A safe navigation task seen through two cameras.

    Parameters
        task: a registered id or short name, or a task configuration.
        action_repeat: frames per step; reward and cost are summed over them, the image is taken after the last.
        quality: "fast" or "faithful" images, see ``fosp.envs.render``.
        image_size: height and width of the observed images, pixels.
        scenario: name of a scenario or a scenario, see ``fosp.envs.suites``; None is the task as it is.
        render_mode: None, or "rgb_array": ``render`` gives a 256x256 picture for people.

    ``info`` has the same keys at reset and at every step: ``cost``, ``cost_<term>``, ``reward_<term>``, ``goal_met``
    (how often, within the step), ``frames``. An episode is truncated after ``task.max_frames`` frames. It is
    terminated only if no place for the next goal can be found, which does not happen in the registered tasks.
    Raises: ``UserError`` for unknown names and values out of range.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 12.5}

    def __init__(
        self,
        task: str | Task = "SafetyPointGoal1",
        action_repeat: int = 4,
        quality: str = "fast",
        image_size: int = 64,
        scenario: str | Scenario | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.scenario = find_scenario(scenario)
        self.base_task = find_task(task) if isinstance(task, str) else task
        self.task = self.scenario.change(self.base_task)
        self._check(action_repeat, quality, image_size, render_mode)
        self.action_repeat, self.quality, self.image_size = action_repeat, quality, image_size
        self.render_mode = render_mode
        self.world = World(self.task)
        self.step_seconds = self.world.agent.timestep * PHYSICS_STEPS * action_repeat
        self.metadata = {**self.metadata, "render_fps": 1.0 / self.step_seconds}
        image = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space = spaces.Dict({name: image for name in CAMERAS})
        self.action_space = spaces.Box(-1.0, 1.0, (self.world.model.nu,), np.float32)
        self._random: RandomState | None = None
        self._painters: dict[tuple[Any, ...], Painter] = {}
        self._costly = [o for o in self.task.objects if set(o.costs) & set(self.task.costs)]
        self._frame = 0
        self._distances: dict[str, float] = {}

    def _check(self, action_repeat: int, quality: str, image_size: int, render_mode: str | None) -> None:
        if quality not in QUALITIES:
            raise UserError(f"quality is '{quality}' but must be one of {', '.join(QUALITIES)}.")
        if not 1 <= action_repeat <= self.task.max_frames:
            raise UserError(f"action_repeat is {action_repeat} but must lie in 1..{self.task.max_frames}.")
        if not 1 <= image_size <= 4096:
            raise UserError(f"image_size is {image_size} but must lie in 1..4096 pixels.")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UserError(f"render_mode is '{render_mode}' but must be None or 'rgb_array'.")

    # ---- Gymnasium ----------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode. A seed decides the layout and all later goals; without one the stream goes on."""
        info = self.start(seed)
        return self.observe(), info

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """``action_repeat`` frames with the same action, shape (A,), clipped to [-1, 1]."""
        reward, terminated, truncated, info = self.advance(action)
        return self.observe(), reward, terminated, truncated, info

    def render(self) -> Any:
        """A 256x256 picture for people, or None without a render mode."""
        return self.picture() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Free the GL memory."""
        for painter in self._painters.values():
            painter.close()
        self._painters.clear()

    # ---- the same without images: for planners and measurements ---------------------------------------------------

    def start(self, seed: int | None = None) -> dict[str, Any]:
        """``reset`` without drawing; returns info."""
        super().reset(seed=seed)
        if seed is not None:
            self._random = RandomState(seed)
        elif self._random is None:
            self._random = RandomState(int(self.np_random.integers(2**32)))
        task, random = self.task, self._random
        keepouts = task.keepouts()
        layout = sample_layout(random, keepouts, task.extent)
        self.world.place(layout, sample_rotations(random, [name for name, _ in keepouts]))
        task.new_goal(self.world, random)  # the goal of the layout is thrown away, as in the original
        self._distances = task.distances(self.world)
        self._frame = 0
        self.world.forward()
        costs = self._costs()
        self.world.forward()
        if any(costs.values()):
            raise RuntimeError(f"layout of seed {seed} starts in violation: {costs}")
        return self._info(costs)

    def advance(self, action: np.ndarray) -> tuple[float, bool, bool, dict[str, Any]]:
        """``step`` without drawing; returns reward, terminated, truncated, info."""
        if self._random is None:
            raise RuntimeError("step was called before reset")
        control = np.asarray(action, np.float64)
        if control.shape != self.action_space.shape or not np.isfinite(control).all():
            raise ValueError(f"action must be {self.action_space.shape} finite numbers, got {action!r}")
        control = np.clip(control, -1.0, 1.0)
        reward, terminated, truncated = 0.0, False, False
        info = self._info({})
        for _ in range(self.action_repeat):
            frame_reward, terminated = self._advance_frame(control, self._random, info)
            reward += frame_reward
            truncated = self._frame >= self.task.max_frames
            if terminated or truncated:
                break
        return reward, terminated, truncated, info

    def observe(self) -> Observation:
        """The images of the present state, uint8 (W, W, 3) each, in memory of their own."""
        images = self._painter(tuple(CAMERAS.values()), self.image_size, self.quality).paint(self.world.data)
        return dict(zip(CAMERAS, images, strict=True))

    def picture(self, camera: str = "fixedfar", size: int = 256) -> np.ndarray:
        """A picture for people from any camera of the model, uint8 (size, size, 3), always in faithful quality."""
        return self._painter((camera,), size, "faithful").paint(self.world.data)[0]

    def _painter(self, cameras: tuple[str, ...], size: int, quality: str) -> Painter:
        key = (cameras, size, quality)
        if key not in self._painters:
            self._painters[key] = Painter(self.world.model, cameras, size, quality)
        return self._painters[key]

    # ---- what others may know ---------------------------------------------------------------------------------------

    def random_state(self) -> tuple[Any, ...]:
        """State of the random stream that decides layouts and goals, as of ``RandomState.get_state``."""
        if self._random is None:
            raise RuntimeError("the random stream begins with the first reset")
        return tuple(self._random.get_state(legacy=True))

    def schema(self) -> Schema:
        """What is seen and what can be done here."""
        return Schema(
            task=self.task.id,
            cameras=dict.fromkeys(CAMERAS, (self.image_size, self.image_size, 3)),
            action_size=self.world.model.nu,
            action_repeat=self.action_repeat,
            step_seconds=self.step_seconds,
            max_steps=-(-self.task.max_frames // self.action_repeat),
            cost_terms=self.task.costs,
            mirror=self.world.agent.mirror,
        )

    def layout(self) -> dict[str, tuple[float, float]]:
        """Present xy of everything by name, metres."""
        positions = {name: self.world.position(name) for name in self.world.body}
        return {name: (float(p[0]), float(p[1])) for name, p in positions.items()}

    def privileged(self) -> dict[str, Any]:
        """The state behind the images, for scripted behaviours: metres, radians, seconds, world axes."""
        world = self.world
        velocity = world.agent_velocity()
        hazards = self.task.find(Hazards)
        return {
            "agent_xy": world.agent_xy.copy(),
            "agent_yaw": world.agent_yaw,
            "agent_velocity_xy": velocity[3:5],
            "agent_yaw_rate": float(velocity[2]),
            "goal_xy": world.position("goal")[:2].copy(),
            "step_seconds": self.step_seconds,
            "hazard_radius": hazards.radius if isinstance(hazards, Hazards) else 0.0,
            "objects": {
                n: world.position(n)[:2].copy() for o in self.task.objects if o.kind != "goal" for n in o.names
            },
        }

    # ---- one frame --------------------------------------------------------------------------------------------------

    def _advance_frame(self, control: np.ndarray, random: RandomState, info: dict[str, Any]) -> tuple[float, bool]:
        """One frame in the order of the module's docstring; adds to ``info``; returns reward and terminated."""
        self.world.advance(control, random)
        reward, achieved = self._reward(info)
        self.world.forward()  # repeated as in the original: each call refines where the solver starts next
        for key, value in self._costs().items():
            info[key] += value
        terminated = achieved and not self._place_next_goal(random)
        self._frame += 1
        info["frames"] += 1
        self.world.forward()
        return reward, terminated

    def _reward(self, info: dict[str, Any]) -> tuple[float, bool]:
        """Clipped reward of the frame and whether the goal is reached; adds the named terms to ``info``."""
        now = self.task.distances(self.world)
        progress = {term: self._distances[term] - distance for term, distance in now.items()}
        self._distances = now
        for term, value in progress.items():
            info[f"reward_{term}"] += value
        achieved = self.task.achieved(self.world)
        info["reward_goal"] += float(achieved)
        info["goal_met"] += float(achieved)
        total = sum(progress.values()) + float(achieved)
        return min(max(total, -REWARD_LIMIT), REWARD_LIMIT), achieved

    def _place_next_goal(self, random: RandomState) -> bool:
        """Choose another goal; no reward for the jump. Returns False if there is no place for one."""
        self.world.forward()
        self.world.refresh_layout()
        try:
            self.task.new_goal(self.world, random)
        except LayoutError:
            return False
        self._distances = self.task.distances(self.world)
        return True

    def _costs(self) -> dict[str, float]:
        """Indicators (0.0 or 1.0) of the present state: ``cost`` and one ``cost_<term>`` per active term."""
        magnitudes: dict[str, float] = {}
        for objects in self._costly:
            magnitudes |= objects.cost(self.world)
        terms = {f"cost_{term}": float(magnitudes[term] > 0) for term in self.task.costs}
        return {"cost": float(any(terms.values())), **terms}

    def _info(self, costs: dict[str, float]) -> dict[str, Any]:
        """Info with its fixed keys, all zero but the given costs."""
        info: dict[str, Any] = {"cost": 0.0}
        info |= {f"cost_{term}": 0.0 for term in self.task.costs}
        info |= costs
        info |= {f"reward_{term}": 0.0 for term in self.task.rewards}
        return info | {"goal_met": 0.0, "frames": 0}
