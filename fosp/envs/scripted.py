"""Behaviours that see the state behind the images: they write the logs that policies learn from.

``unsafe`` drives straight to the goal and does not know of hazards; ``safe`` plans around what costs; ``random``
wanders. Each can be mixed with exploration noise, so that a log covers more than three thin tracks.

A behaviour keeps nothing between calls except in the carry. Its random numbers follow from its seed and the first
state of the episode, so the same behaviour repeats itself on the same layout and differs between layouts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np

from fosp.envs.behaviours.car import CarDriver
from fosp.envs.behaviours.drivers import Driver, wrap
from fosp.envs.behaviours.planner import Planner
from fosp.envs.behaviours.point import PointDriver
from fosp.envs.behaviours.push import Grip, look_at_box
from fosp.envs.behaviours.view import TOUCH, State, Style, look, look_around
from fosp.types import UserError

#: Half the horizontal angle that either camera sees, radians; what lies to the sides is in neither.
HALF_VIEW = math.radians(45)

Rule = Callable[[State, "Carry"], np.ndarray]

#: By name of the agent.
DRIVERS: dict[str, Driver] = {"Point": PointDriver(), "Car": CarDriver()}


@dataclass
class Carry:
    """What a behaviour remembers within one episode."""

    random: np.random.Generator | None = None  # made from the first state
    drift: np.ndarray = field(default_factory=lambda: np.zeros(2))  # smooth noise, unit variance
    wander_steps: int = 0  # remaining steps of the present exploration burst
    seen_goal: tuple[float, float] | None = None  # the goal that a camera has shown
    plan: np.ndarray | None = None  # what ``safe`` intends
    style: Style = Style.RACE  # of the plan
    grip: Grip = field(default_factory=Grip)  # on the box to be pushed
    errand: Errand | None = None  # where a random drive leads
    diagnostics: dict[str, Any] = field(default_factory=dict)


@dataclass
class Errand:
    """A drive to a random place, forward or backward, for some steps."""

    place: np.ndarray  # xy, metres
    thrust: float  # 1 or -1
    steps: int


class Behaviour:
    """A scripted policy with the interface of ``fosp.types.Policy`` but fed with ``env.privileged()``.

    Parameters: ``rule`` and ``search`` = (state, carry) -> action (A,), where the goal is known and not; ``noise`` =
    share of the steps, in bursts of about one second, in which random ones replace the rule's, and also the size of a
    slight tremor at all other times.
    """

    privileged = True
    burst_steps = 8

    def __init__(self, name: str, rule: Rule, search: Rule, seed: int, noise: float) -> None:
        self.name, self.seed, self.noise = name, seed, noise
        self._rule, self._search = rule, search

    def initial(self, batch: int | None = None) -> Carry:
        """The carry of one episode. A behaviour acts for one environment at a time, so ``batch`` must be None."""
        if batch is not None:
            raise ValueError("a scripted behaviour acts for one environment at a time; keep one carry per environment")
        return Carry()

    def act(self, carry: Carry, state: State) -> tuple[np.ndarray, Carry]:
        """Action (2,) float32 in [-1, 1] and the carry for the next step."""
        if carry.random is None:
            carry.random = _generator(self.seed, state)
            carry.drift = carry.random.standard_normal(2)
        carry.drift = drift(carry.drift, carry.random, state["step_seconds"])
        action = self._explore(self._intend(state, carry), state, carry)
        return np.clip(action, -1.0, 1.0).astype(np.float32), carry

    def _intend(self, state: State, carry: Carry) -> np.ndarray:
        """The rule's action once a camera has shown the present goal; until then, a look around."""
        goal = (float(state["goal_xy"][0]), float(state["goal_xy"][1]))
        if in_view(state):
            carry.seen_goal = goal
        if carry.seen_goal != goal:
            return self._search(state, carry)
        return self._rule(state, carry)

    def _explore(self, action: np.ndarray, state: State, carry: Carry) -> np.ndarray:
        if self.noise <= 0 or carry.random is None:
            return action
        if carry.wander_steps > 0:
            carry.wander_steps -= 1
            return _random(state, carry)
        # Bursts of mean length L started with probability p cover a share pL / (1 + pL) of the steps.
        if carry.random.random() < self.noise / (self.burst_steps * max(1.0 - self.noise, 1e-6)):
            carry.wander_steps = int(carry.random.integers(self.burst_steps // 2, self.burst_steps * 3 // 2))
        return action + 0.2 * self.noise * carry.drift


def make_behaviour(name: str, seed: int = 0, noise: float = 0.0) -> Behaviour:
    """A behaviour by name: "safe", "unsafe" or "random" (which is noise already and ignores ``noise``).

    Raises: ``UserError`` for other names, and for noise outside [0, 1].
    """
    rules = {"safe": (_safe, _look_around), "unsafe": (_unsafe, _spin), "random": (_random, _spin)}
    if name not in rules:
        near = get_close_matches(name, rules, n=1, cutoff=0.0)
        raise UserError(f"There is no behaviour '{name}'; the nearest is '{near[0]}'.")
    if not 0.0 <= noise <= 1.0:
        raise UserError(f"The noise of behaviour '{name}' is {noise} but must lie in 0..1.")
    return Behaviour(name, *rules[name], seed, 0.0 if name == "random" else noise)


def driver(state: State) -> Driver:
    """How the agent of a state is driven. Raises: ``UserError`` for an agent that has no driver here."""
    if state["agent"] not in DRIVERS:
        raise UserError(f"The agent {state['agent']} has no scripted driver; add one to DRIVERS in {__name__}.")
    return DRIVERS[state["agent"]]


def _generator(seed: int, state: State) -> np.random.Generator:
    start = np.concatenate([state["agent_xy"], state["goal_xy"]]).astype(np.float64)
    return np.random.default_rng([seed, *start.view(np.uint32).tolist()])


def in_view(state: State) -> bool:
    """Whether a camera shows at least the middle of the goal."""
    x, y = state["goal_xy"] - state["agent_xy"]
    bearing = abs(wrap(math.atan2(y, x) - state["agent_heading"]))
    return min(bearing, math.pi - bearing) <= HALF_VIEW


def drift(value: np.ndarray, random: np.random.Generator, seconds: float, memory: float = 0.5) -> np.ndarray:
    """One step of smooth noise of unit variance that forgets itself in ``memory`` seconds. Shapes (2,)."""
    keep = math.exp(-seconds / memory)
    return keep * value + math.sqrt(1 - keep * keep) * random.standard_normal(2)


def wander(noise: np.ndarray) -> np.ndarray:
    """Turn unit-variance noise into an action that uses the whole range: forward and back, left and right."""
    return np.tanh(noise)


# ---- rules ---------------------------------------------------------------------------------------------------------


def _random(state: State, carry: Carry) -> np.ndarray:
    """Half of the time smooth noise, else a drive at full speed to a random place, every second one close to the goal.

    Noise alone is slow and seldom near a goal. In a log where all speed leads to the goal, and whoever is near arrives,
    a model takes speed for progress and nearness for arrival, and a policy learns to hover.
    """
    if carry.errand is None or carry.errand.steps <= 0:
        carry.errand = _errand(state, carry)
    carry.errand.steps -= 1
    if carry.errand.thrust == 0:
        return wander(carry.drift)
    return driver(state).drive(state, carry.errand.place, carry.errand.thrust)


def _errand(state: State, carry: Carry) -> Errand:
    random = carry.random
    assert random is not None
    everything = [*state["objects"].values(), state["goal_xy"]]
    half = 1.5 * max(float(np.abs(xy).max()) for xy in everything)
    place = random.uniform(-half, half, 2)
    if random.random() < 0.5:
        angle, distance = random.uniform(-math.pi, math.pi), random.uniform(0.3, 1.0)
        place = state["goal_xy"] + distance * np.array([math.cos(angle), math.sin(angle)])
    return Errand(place, float(random.choice((-1.0, 0.0, 0.0, 1.0))), int(random.integers(4, 20)))


def _spin(state: State, carry: Carry) -> np.ndarray:
    """Turn on the spot until a camera shows the goal."""
    carry.plan = None
    return driver(state).spin(state)


def _look_around(state: State, carry: Carry) -> np.ndarray:
    """The same, but where something must not be touched, while keeping away from it."""
    if not set(TOUCH.values()) & set(state["costs"]):
        return _spin(state, carry)
    drives = driver(state)
    if carry.style is not Style.SEARCH:
        carry.style, carry.plan = Style.SEARCH, None
    carry.plan = Planner(drives).choose(state, look_around(state, drives), carry.plan)
    return drives.follow(state, carry.plan)


def _unsafe(state: State, carry: Carry) -> np.ndarray:
    """Straight to the goal, whatever lies on the way."""
    if "push_box" in state["objects"]:
        return _plan(state, carry, careful=False)
    return driver(state).drive(state, state["goal_xy"])


def _safe(state: State, carry: Carry) -> np.ndarray:
    """Around what costs."""
    return _plan(state, carry)


def _plan(state: State, carry: Carry, careful: bool = True) -> np.ndarray:
    """Follow the best of many short manoeuvres."""
    drives, face = driver(state), carry.grip.face
    pushes = "push_box" in state["objects"]
    view = look_at_box(state, drives, carry.grip, careful) if pushes else look(state, drives)
    if (carry.grip.face, view.style) != (face, carry.style):
        carry.style, carry.plan = view.style, None
    carry.plan = Planner(drives).choose(state, view, carry.plan)
    return drives.follow(state, carry.plan)
