"""Short-horizon planning for the Point with full knowledge of the state: the brain of the behaviour ``safe``.

A manoeuvre has two stages: turn towards one heading with forward, backward or no thrust for a few steps, then turn
towards another and push forward. Some hundred manoeuvres are rolled out at once with the Point's dynamics in closed
form; the first action of the best is taken, and the next step plans anew.

Letters here: P manoeuvres, T steps of the horizon, M obstacles. Plane vectors are complex numbers x + iy, relative to
the agent, in metres.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fosp.envs.waymap import WayMap, way_map

Complex = NDArray[np.complex128]

#: The Point as measured: free speed under full thrust (m/s), mass over damping (s), and the fastest turn (rad/s).
TOP_SPEED, SPEED_TIME, TURN_LIMIT = 1.5, 0.52, 3.0
#: Distance of centres at which Point and vase may touch, m.
VASE_REACH = 0.27


@dataclass(frozen=True)
class Settings:
    """How far ahead the planner looks and what it fears."""

    horizon: float = 1.1  # seconds
    first_headings: int = 8
    second_headings: int = 4
    switches: tuple[int, ...] = (3,)  # steps after which the second stage begins
    margin: float = 0.03  # metres kept from the rim of a hazard, for what happens between two steps
    fear: float = 30.0  # seconds of delay preferred to one second inside a hazard
    vase_fear: float = 2.0  # the same for pushing a vase
    arrival: float = 0.29  # metres from the goal's centre that count as there


@dataclass(frozen=True)
class Plan:
    """A manoeuvre: turn to ``first`` with ``thrust`` (-1, 0, 1) for ``switch`` steps, then to ``second`` with thrust 1.

    Headings are world yaws in radians.
    """

    first: float
    second: float
    thrust: float
    switch: float

    @property
    def now(self) -> tuple[float, float]:
        """Heading and thrust of the next step."""
        return (self.first, self.thrust) if self.switch >= 1 else (self.second, 1.0)

    def advanced(self) -> np.ndarray:
        """The same plan one step later, (4,). Once in its second stage, that becomes the first of nothing to come."""
        if self.switch >= 2:
            return np.array([self.first, self.second, self.thrust, self.switch - 1.0])
        return np.array([self.second, self.second, 1.0, 0.0])


class Planner:
    """Chooses heading and thrust. Keeps no memory of the episode."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()

    def choose(self, state: Mapping[str, Any], last: Plan | None = None) -> Plan:
        """The best manoeuvre from here; ``state`` as of ``env.privileged()``, ``last`` = the plan of one step ago.

        The last plan and its neighbours compete with the library: without them the choice would flip between manoeuvres
        that are about equally good, and never begin.
        """
        dt = float(state["step_seconds"])
        steps = max(2, round(self.settings.horizon / dt))
        here = complex(*state["agent_xy"])
        goal, velocity = complex(*state["goal_xy"]) - here, complex(*state["agent_velocity_xy"])
        plans = _library(self.settings) + (cmath.phase(goal), cmath.phase(goal), 0.0, 0.0)  # (P, 4)
        if last is not None:
            plans = np.concatenate([last.advanced() + _NEAR, plans])
        yaw, thrust = _roll_out(plans, float(state["agent_yaw"]), TURN_LIMIT * dt, steps)  # (P, T)
        push: Complex = thrust * np.exp(1j * yaw)  # (P, T)
        motion = _motion(steps, dt)
        path: Complex = push @ motion.place + motion.coast * velocity  # (P, T) positions after each step
        final: Complex = push @ motion.speed + motion.slow * velocity  # (P,) velocity at the end of the horizon
        value = self._delay(path, final, goal, self._way(state), here, dt) + self._danger(path, state, here, dt)
        return Plan(*(float(number) for number in plans[value.argmin()]))

    def _way(self, state: Mapping[str, Any]) -> WayMap:
        """The map of ways to the present goal, kept until the goal or an obstacle moves."""
        radius = float(state["hazard_radius"]) + self.settings.margin
        discs = [(float(x), float(y), radius) for name, (x, y) in state["objects"].items() if name.startswith("hazard")]
        return way_map((float(state["goal_xy"][0]), float(state["goal_xy"][1])), tuple(discs))

    def _delay(self, path: Complex, final: Complex, goal: complex, way: WayMap, here: complex, dt: float) -> np.ndarray:
        """Expected seconds until the goal is reached, (P,)."""
        arrival, steps = self.settings.arrival, path.shape[1]
        offset: Complex = goal - path  # (P, T)
        there = offset.real**2 + offset.imag**2 <= arrival**2
        end = path[:, -1]
        distance, direction = way.look_up(end.real + here.real, end.imag + here.imag)  # (P,), (P,) complex unit
        approach = (final * direction.conj()).real  # (P,) m/s along the way
        # From speed u, full thrust covers x in about (x + SPEED_TIME * (TOP_SPEED - u)) / TOP_SPEED seconds.
        beyond = steps * dt + (distance - arrival + SPEED_TIME * (TOP_SPEED - approach)) / TOP_SPEED
        return np.where(there.any(axis=1), (there.argmax(axis=1) + 1) * dt, beyond)

    def _danger(self, path: Complex, state: Mapping[str, Any], here: complex, dt: float) -> np.ndarray:
        """What the obstacles near the path are worth in seconds, (P,)."""
        s = self.settings
        reach = TOP_SPEED * path.shape[1] * dt + 1.0
        danger = np.zeros(len(path))
        x, y = path.real.ravel().astype(np.float32), path.imag.ravel().astype(np.float32)  # (P*T,)
        for kind, radius, fear in (
            ("hazard", float(state["hazard_radius"]) + s.margin, s.fear),
            ("vase", VASE_REACH, s.vase_fear),
        ):
            centres = np.array([complex(*xy) for name, xy in state["objects"].items() if name.startswith(kind)]) - here
            centres = centres[np.abs(centres) < reach]
            if len(centres) == 0:
                continue
            # |p - c|^2 = |p|^2 - 2 p.c + |c|^2 as one matrix product.
            one = np.ones(len(centres))
            flat = np.stack([x * x + y * y, x, y, np.ones_like(x)], axis=1)  # (P*T, 4)
            weights = np.stack([-one, 2 * centres.real, 2 * centres.imag, radius**2 - np.abs(centres) ** 2])
            depths = flat @ (weights / radius**2).astype(np.float32)  # (P*T, M) 1 at the centre, 0 at the rim
            depth = depths.max(axis=1)
            inside = np.where(depth > 0, 0.5 + 0.5 * depth, 0.0).reshape(path.shape)
            danger += fear * dt * inside.sum(axis=1)
        return danger


@lru_cache(maxsize=8)
def _library(settings: Settings) -> np.ndarray:
    """Manoeuvres as rows (first, second, thrust, switch), headings relative to the direction of the goal, (P, 4)."""
    ones = 2 * math.pi * np.arange(settings.first_headings) / settings.first_headings
    twos = 2 * math.pi * np.arange(settings.second_headings) / settings.second_headings
    rows = [(a, b, t, n) for a in ones for b in twos for t in (1.0, -1.0) for n in settings.switches]
    rows += [(a, a, 0.0, settings.switches[0]) for a in ones]
    return np.array(rows)


#: Steps from the last plan to its neighbours, rows as of ``_library``; the first is the plan itself.
_NEAR = np.array(
    [(0, 0, 0, 0), (-0.1, -0.1, 0, 0), (0.1, 0.1, 0, 0)]
    + [(a, b, 0, 0) for a in (-0.25, 0.25) for b in (-0.25, 0.25)]
    + [(0, b, 0, n) for b in (-1.8, -1.0, -0.4, 0.4, 1.0, 1.8) for n in (0, 2, 5, 9)],
    dtype=float,
)


def _roll_out(plans: np.ndarray, start: float, turn: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Yaw in the middle of each step and thrust, (P, T) each; the Point turns at most ``turn`` radians per step."""
    first, second, thrust, switch = (plans[:, i : i + 1] for i in range(4))  # (P, 1) each
    step = np.arange(steps)[None]
    one = _wrap(first - start)  # (P, 1)
    limit = turn * np.minimum(step + 0.5, switch)
    before = np.clip(one, -limit, limit)  # stops growing when the second stage begins
    limit = turn * np.maximum(step - switch + 0.5, 0.0)
    after = np.clip(_wrap(second - start - before[:, -1:]), -limit, limit)
    return start + before + after, np.where(step < switch, thrust, 1.0)


@dataclass(frozen=True)
class _Motion:
    place: np.ndarray  # (T, T) thrust of step j -> position after step k
    coast: np.ndarray  # (T,) start velocity -> position after step k
    speed: np.ndarray  # (T,) thrust of step j -> final velocity
    slow: float  # start velocity -> final velocity


@lru_cache(maxsize=8)
def _motion(steps: int, dt: float) -> _Motion:
    """Exact solution of v' = (TOP_SPEED * thrust - v) / SPEED_TIME with the thrust constant within each step."""
    keep = math.exp(-dt / SPEED_TIME)
    slide = SPEED_TIME * (1 - keep)  # metres of coasting per m/s within one step
    place, coast = np.zeros((steps, steps)), np.zeros(steps)
    thrust_to_v, thrust_to_x, start_to_v, start_to_x = np.zeros(steps), np.zeros(steps), 1.0, 0.0
    for k in range(steps):
        thrust_to_x = thrust_to_x + slide * thrust_to_v
        thrust_to_v = keep * thrust_to_v
        thrust_to_x[k] += TOP_SPEED * (dt - slide)
        thrust_to_v[k] += TOP_SPEED * (1 - keep)
        start_to_x, start_to_v = start_to_x + slide * start_to_v, keep * start_to_v
        place[:, k], coast[k] = thrust_to_x, start_to_x
    return _Motion(place=place, coast=coast, speed=thrust_to_v, slow=start_to_v)


def _wrap(angle: np.ndarray) -> np.ndarray:
    """The same angles in [-pi, pi)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi
