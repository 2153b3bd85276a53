"""Physics and task as a Gymnasium environment with two cameras or a lidar, a reward, and a cost in ``info``.

What happens in a frame, and in which order, stands in ``fosp.envs.referee``. An observation shows the state after it.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.random import RandomState

from fosp.envs.layout import LayoutError
from fosp.envs.lidar import StateReader
from fosp.envs.objects import BUTTON_TIMER, GOAL_BUTTON, Buttons, Goal, Gremlins, Hazards
from fosp.envs.referee import Referee
from fosp.envs.render import QUALITIES, Painter
from fosp.envs.suites import Scenario, find_scenario
from fosp.envs.tasks import Task, find_task
from fosp.envs.viewer import Window, has_display, require_display
from fosp.envs.world import PHYSICS_STEPS, World
from fosp.types import Schema, UserError

#: Name in the observation -> camera of the model.
CAMERAS = {"image_front": "vision", "image_back": "vision_back"}
#: What can be observed: a dict of the two cameras' images, or the vector of ``fosp.envs.lidar``.
OBSERVATIONS = ("images", "lidar")

#: ``dict[str, np.ndarray]`` of images, or one ``np.ndarray``.
Observation = Any


class SafetyEnv(gymnasium.Env[Any, np.ndarray]):
    """A safe navigation task seen through two cameras, or felt through sensors and a lidar.

    Parameters
        task: a registered id or short name, or a task configuration.
        action_repeat: frames per step; reward and cost are summed over them, the image is taken after the last.
        quality: "fast" or "faithful" images, see ``fosp.envs.render``.
        image_size: height and width of the observed images, pixels.
        scenario: name of a scenario or a scenario, see ``fosp.envs.suites``; None is the task as it is.
        render_mode: None; "rgb_array": ``render`` gives a 256x256 picture for people; "human": every frame is shown in
            a window, in real time.
        observation: "images", or "lidar": a flat vector, see ``fosp.envs.lidar``, and nothing is drawn.

    ``info`` has the same keys at reset and at every step: ``cost``, ``cost_<term>``, ``reward_<term>``, ``goal_met``
    (how often, within the step), ``frames``. An episode is truncated after ``task.max_frames`` frames. It is
    terminated only if no place for the next goal can be found, which does not happen in the registered tasks.
    Raises: ``UserError`` for unknown names and values out of range.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array", "human"], "render_fps": 12.5}

    def __init__(
        self,
        task: str | Task = "SafetyPointGoal1",
        action_repeat: int = 4,
        quality: str = "fast",
        image_size: int = 64,
        scenario: str | Scenario | None = None,
        render_mode: str | None = None,
        observation: str = "images",
    ) -> None:
        self.scenario = find_scenario(scenario)
        self.base_task = find_task(task) if isinstance(task, str) else task
        self.task = self.scenario.change(self.base_task)
        self._check(action_repeat, quality, image_size, render_mode, observation)
        self.action_repeat, self.quality, self.image_size = action_repeat, quality, image_size
        self.render_mode = render_mode
        self.world = World(self.task)
        self.step_seconds = self.world.agent.timestep * PHYSICS_STEPS * action_repeat
        modes = [mode for mode in self.metadata["render_modes"] if mode != "human" or has_display()]  # possible here
        self.metadata = {"render_modes": modes, "render_fps": 1.0 / self.step_seconds}
        #: Reads the state observation and names its parts; None where images are observed.
        self.reader = StateReader(self.world, self.task) if observation == "lidar" else None
        image = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        images = spaces.Dict({name: image for name in CAMERAS})
        self.observation_space = self.reader.space if self.reader else images
        self.action_space = spaces.Box(-1.0, 1.0, (self.world.model.nu,), np.float32)
        self.referee = Referee(self.task, self.world)
        self._started = False
        self._painters: dict[tuple[Any, ...], Painter] = {}
        self._window: Window | None = None

    def _check(
        self, action_repeat: int, quality: str, image_size: int, render_mode: str | None, observation: str
    ) -> None:
        if quality not in QUALITIES:
            raise UserError(f"quality is '{quality}' but must be one of {', '.join(QUALITIES)}.")
        if not 1 <= action_repeat <= self.task.max_frames:
            raise UserError(f"action_repeat is {action_repeat} but must lie in 1..{self.task.max_frames}.")
        if not 1 <= image_size <= 2048:  # eight times that, as ``fast`` needs it, is all that some GL libraries draw
            raise UserError(f"image_size is {image_size} but must lie in 1..2048 pixels.")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UserError(f"render_mode is '{render_mode}' but must be None, 'rgb_array' or 'human'.")
        if render_mode == "human":
            require_display()
        if observation not in OBSERVATIONS:
            raise UserError(f"observation is '{observation}' but must be one of {', '.join(OBSERVATIONS)}.")

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
        """A 256x256 picture for people in mode "rgb_array", else None: in mode "human" every frame is shown anyway."""
        return self.picture() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Free the GL memory and close the window."""
        if self._window is not None:
            self._window.close()
            self._window = None
        for painter in self._painters.values():
            painter.close()
        self._painters.clear()

    # ---- the same without images: for planners and measurements ---------------------------------------------------

    def start(self, seed: int | None = None) -> dict[str, Any]:
        """``reset`` without drawing; returns info."""
        super().reset(seed=seed)
        if seed is not None:
            random = RandomState(seed)
        elif self._started:
            random = self.referee.random
        else:
            random = RandomState(int(self.np_random.integers(2**32)))
        try:
            self.referee.start(random)
        except LayoutError as error:
            where = f"Task '{self.task.name}' in scenario '{self.scenario.name}'"
            raise UserError(f"{where} has no start: {error}; fewer or smaller objects would do.") from error
        self._started = True
        self._show()
        return self.referee.info()

    def advance(self, action: np.ndarray) -> tuple[float, bool, bool, dict[str, Any]]:
        """``step`` without drawing; returns reward, terminated, truncated, info."""
        if not self._started:
            raise RuntimeError("step was called before reset")
        control = self.control(action)
        reward, terminated = 0.0, False
        info = self.referee.info()
        for _ in range(self.action_repeat):
            frame_reward, terminated = self.referee.advance(control, info)
            reward += frame_reward
            self._show()
            if terminated or self.referee.truncated:
                break
        return reward, terminated, self.referee.truncated, info

    def control(self, action: np.ndarray) -> np.ndarray:
        """What the motors get for an action: clipped to [-1, 1]. Raises ``ValueError`` unless it is (A,) numbers."""
        control = np.asarray(action, np.float64)
        if control.shape != self.action_space.shape or not np.isfinite(control).all():
            raise ValueError(f"action must be {self.action_space.shape} finite numbers, got {action!r}")
        return np.clip(control, -1.0, 1.0)

    def observe(self) -> Observation:
        """What is seen of the present state, in memory of its own: images uint8 (W, W, 3) by name, or the vector."""
        if self.reader is not None:
            return self.reader.read()
        images = self.paint(tuple(CAMERAS.values()), self.image_size, self.quality)
        return dict(zip(CAMERAS, images, strict=True))

    def picture(self, camera: str = "fixedfar", size: int = 256) -> np.ndarray:
        """A picture for people from any camera of the model, uint8 (size, size, 3), always in faithful quality."""
        return self.paint((camera,), size, "faithful")[0]

    def _show(self) -> None:
        """The present state to a person, in mode "human"."""
        if self.render_mode == "human":
            if self._window is None:
                self._window = Window(self.world.model, self.world.data, self.step_seconds / self.action_repeat)
            self._window.show()

    def paint(self, cameras: tuple[str, ...], size: int, quality: str) -> list[np.ndarray]:
        """Images of the present state from cameras of the model, uint8 (size, size, 3) each."""
        key = (cameras, size, quality)
        if key not in self._painters:
            self._painters[key] = Painter(self.world.model, cameras, size, quality)
        return self._painters[key].paint(self.world.data)

    # ---- what others may know ---------------------------------------------------------------------------------------

    def random_state(self) -> tuple[Any, ...]:
        """State of the random stream that decides layouts and goals, as of ``RandomState.get_state``."""
        if not self._started:
            raise RuntimeError("the random stream begins with the first reset")
        return tuple(self.referee.random.get_state(legacy=True))

    def schema(self) -> Schema:
        """What is seen and what can be done here."""
        return Schema(
            task=self.task.id,
            cameras={} if self.reader else dict.fromkeys(CAMERAS, (self.image_size, self.image_size, 3)),
            action_size=self.world.model.nu,
            action_repeat=self.action_repeat,
            step_seconds=self.step_seconds,
            max_steps=-(-self.task.max_frames // self.action_repeat),
            cost_terms=self.task.costs,
            mirror=self._mirror(),
        )

    def _mirror(self) -> tuple[float, ...]:
        """The agent's, unless something circles in one sense, which a mirror turns round. Equal in all scenarios."""
        return () if any(o.driven for o in self.base_task.objects) else self.world.agent.mirror

    def layout(self) -> dict[str, tuple[float, float]]:
        """Present xy of everything by name, metres."""
        positions = {name: self.world.position(name) for name in self.world.body}
        return {name: (float(p[0]), float(p[1])) for name, p in positions.items()}

    def privileged(self) -> dict[str, Any]:
        """The state behind the images, for scripted behaviours: metres, radians, seconds, world axes.

        The agent: ``agent`` (its name), ``agent_xy``, ``agent_yaw`` (of its x axis), ``agent_heading`` (of its nose),
        ``agent_velocity_xy``, ``agent_yaw_rate``; measured constants ``agent_reach``, ``agent_top_speed``,
        ``agent_top_turn``. The goal: ``goal_xy``, ``goal_object`` (the button that is the goal, or None),
        ``button_timer`` (frames in which wrong buttons still cost nothing). All other things: ``objects`` (name -> xy),
        ``velocities`` and ``yaws`` (name -> xy velocity, yaw; of those that can move), ``reach`` (kind -> radius of the
        circle that contains one), ``hazard_radius`` (0 without hazards), ``hazard_centres`` and
        ``hazard_swings`` (name -> xy about which it sways, and farthest offset from there, reached first a quarter of
        2 pi seconds after the reset; empty where hazards stand), ``gremlin_orbit`` and ``gremlin_centres``
        (name -> xy that it circles around, clockwise from +y at one radian per second), ``time`` since the reset,
        ``step_seconds`` and ``frame_seconds``, ``costs`` (the terms that count).
        """
        world = self.world
        agent, velocity = world.agent, world.agent_velocity()
        others = [o for o in self.task.objects if o.kind != Goal.kind]
        moving = [name for o in others if o.free for name in o.names]
        hazards, gremlins = self.task.find(Hazards), self.task.find(Gremlins)
        return {
            "agent": self.task.agent,
            "agent_xy": world.agent_xy.copy(),
            "agent_yaw": world.agent_yaw,
            "agent_heading": world.agent_yaw + agent.nose,
            "agent_velocity_xy": velocity[3:5],
            "agent_yaw_rate": float(velocity[2]),
            "agent_reach": agent.reach,
            "agent_top_speed": agent.top_speed,
            "agent_top_turn": agent.top_turn,
            "goal_xy": world.position("goal")[:2].copy(),
            "goal_object": f"{Buttons.kind}{world.memory[GOAL_BUTTON]}" if GOAL_BUTTON in world.memory else None,
            "button_timer": world.memory.get(BUTTON_TIMER, 0),
            "time": float(world.data.time),
            "step_seconds": self.step_seconds,
            "frame_seconds": self.step_seconds / self.action_repeat,
            "costs": self.task.costs,
            "hazard_radius": hazards.radius if hazards else 0.0,
            "hazard_centres": {n: np.array(world.layout[n]) for n in hazards.names} if hazards else {},
            "hazard_swings": {n: hazards.swing(world, n) for n in hazards.names} if hazards and hazards.sway else {},
            "gremlin_orbit": gremlins.orbit if gremlins else 0.0,
            "gremlin_centres": {n: np.array(world.layout[n]) for n in gremlins.names} if gremlins else {},
            "reach": {o.kind: o.reach for o in self.task.objects},
            "objects": {n: world.position(n)[:2].copy() for o in others for n in o.names},
            "velocities": {name: world.velocity(name) for name in moving},
            "yaws": {name: world.yaw(name) for name in moving},
        }
