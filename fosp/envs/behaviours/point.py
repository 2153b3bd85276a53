"""The Point: turn towards one heading with forward, backward or no thrust, then towards another and push forward."""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fosp.envs.behaviours.drivers import Roll, wrap, wrap_all
from fosp.envs.behaviours.view import Complex, State, Style, View

#: As measured: free speed under full thrust (m/s), mass over damping (s), and the fastest turn (rad/s).
TOP_SPEED, SPEED_TIME, TURN_LIMIT = 1.5, 0.52, 3.0
#: Yaw rate per unit of the second action, rad/s (linear up to 0.95, where it saturates).
TURN_RATE = 3.16
#: How far from straight the nose may be turned in a box's notch, radians.
MOST_ASKEW = 0.5


class PointDriver:
    """A manoeuvre is a row (first, second, thrust, switch, after): turn to ``first`` with ``thrust`` (-1, 0, 1) for
    ``switch`` steps, then to ``second`` with thrust ``after``. Headings are world yaws."""

    horizon, top_speed, top_turn = 1.1, TOP_SPEED, TURN_LIMIT
    nose, girth = 0.15, 0.13
    tool, tool_width, tool_angle, bend, holds = nose, 0.1, 0.0, 0.6, (0.5, 0.8)  # the nose
    first_headings, second_headings, switch = 8, 4, 3

    def drive(self, state: State, place: np.ndarray, thrust: float = 1.0) -> np.ndarray:
        """The turn takes two steps."""
        offset = place - state["agent_xy"]
        error = wrap(math.atan2(offset[1], offset[0]) - state["agent_yaw"] + (math.pi if thrust < 0 else 0.0))
        turn = error / (TURN_RATE * state["step_seconds"] * 2)
        return np.array([thrust * math.cos(error), turn])

    def spin(self, state: State) -> np.ndarray:
        return np.array([0.0, math.copysign(1.0, state["agent_yaw_rate"])])

    def manoeuvres(self, state: State, view: View, last: np.ndarray | None, steps: int) -> np.ndarray:
        goal, aim = cmath.phase(view.goal - view.here), cmath.phase(view.aim)
        if view.style is Style.PARK:
            plans = _parking_library() + (goal, 0.0, 0.0, 0.0, 0.0)
            plans[:, 1] = np.where(plans[:, 1] > 0, aim, plans[:, 0])
        else:
            plans = _library(self.first_headings, self.second_headings, self.switch) + (goal, goal, 0.0, 0.0, 0.0)
        if last is not None:
            plans = np.concatenate([_advanced(last) + _NEAR, plans])
        if view.style is Style.PUSH:  # only forward, and never so askew that the nose would leave the notch
            plans = plans[plans[:, 2] > 0]
            plans[:, 0] = aim + np.clip(wrap_all(plans[:, 0] - aim), -MOST_ASKEW, MOST_ASKEW)
        return plans

    def roll_out(self, state: State, plans: np.ndarray, steps: int) -> Roll:
        dt, velocity = float(state["step_seconds"]), complex(*state["agent_velocity_xy"])
        yaw, thrust = _turns(plans, float(state["agent_yaw"]), TURN_LIMIT * dt, steps)  # (P, T)
        push: Complex = thrust * np.exp(1j * yaw)  # (P, T)
        motion = _motion(steps, dt)
        path: Complex = push @ motion.place + motion.coast * velocity  # (P, T)
        final: Complex = push @ motion.speed + motion.slow * velocity  # (P,)
        return Roll(path, yaw, final)

    def remaining(self, roll: Roll, distance: np.ndarray, direction: Complex, style: Style) -> np.ndarray:
        approach = (roll.velocity * direction.conj()).real  # (P,) m/s along the way
        # From speed u, full thrust covers x in about (x + SPEED_TIME * (TOP_SPEED - u)) / TOP_SPEED seconds.
        return (distance + SPEED_TIME * (TOP_SPEED - approach)) / TOP_SPEED

    def follow(self, state: State, plan: np.ndarray) -> np.ndarray:
        """Thrust -1, 0, 1 becomes proportional control of the speed."""
        first, second, thrust, switch, after = (float(number) for number in plan)
        heading, thrust = (first, thrust) if switch >= 1 else (second, after)
        error = wrap(heading - state["agent_yaw"])
        speed = (state["agent_velocity_xy"] * (math.cos(state["agent_yaw"]), math.sin(state["agent_yaw"]))).sum()
        push = thrust * TOP_SPEED - speed
        return np.array([push, error / (TURN_RATE * state["step_seconds"])])


def _advanced(plan: np.ndarray) -> np.ndarray:
    """The same manoeuvre one step later. Once in its second stage, that becomes the first of nothing to come."""
    first, second, thrust, switch, after = plan
    return np.array([first, second, thrust, switch - 1, after] if switch >= 2 else [second, second, after, 0, after])


@lru_cache(maxsize=8)
def _library(first_headings: int, second_headings: int, switch: int) -> np.ndarray:
    """Manoeuvres with headings relative to the direction of the goal, (P, 5)."""
    ones = 2 * math.pi * np.arange(first_headings) / first_headings
    twos = 2 * math.pi * np.arange(second_headings) / second_headings
    rows = [(a, b, t, switch, 1.0) for a in ones for b in twos for t in (1.0, -1.0)]
    rows += [(a, a, 0.0, switch, 1.0) for a in ones]
    return np.array(rows)


@lru_cache(maxsize=1)
def _parking_library() -> np.ndarray:
    """The same, (P, 5), but with a flag for the second heading: 1 for where the nose shall point, 0 for the first."""
    ones = 2 * math.pi * np.arange(8) / 8
    rows = [
        (a, b, t, n, c)
        for a in ones
        for b in (0, 1)
        for t in (1, 0.4, -0.4, -1)
        for n in (2, 4, 7)
        for c in (0.4, 0, -0.4)
    ]
    return np.array([*rows, *((a, 1, 0, n, c) for a in ones for n in (2, 4) for c in (0.4, 0, -0.4))], float)


#: Steps from the last manoeuvre to its neighbours; the first is the manoeuvre itself.
_NEAR = np.array(
    [(0, 0, 0, 0, 0), (-0.1, -0.1, 0, 0, 0), (0.1, 0.1, 0, 0, 0)]
    + [(a, b, 0, 0, 0) for a in (-0.25, 0.25) for b in (-0.25, 0.25)]
    + [(0, b, 0, n, 0) for b in (-1.8, -1.0, -0.4, 0.4, 1.0, 1.8) for n in (0, 2, 5, 9)],
    dtype=float,
)


def _turns(plans: np.ndarray, start: float, turn: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Yaw in the middle of each step and thrust, (P, T) each; the Point turns at most ``turn`` radians per step."""
    first, second, thrust, switch, late = (plans[:, i : i + 1] for i in range(5))  # (P, 1) each
    step = np.arange(steps)[None]
    one = wrap_all(first - start)  # (P, 1)
    limit = turn * np.minimum(step + 0.5, switch)
    before = np.clip(one, -limit, limit)  # stops growing when the second stage begins
    limit = turn * np.maximum(step - switch + 0.5, 0.0)
    after = np.clip(wrap_all(second - start - before[:, -1:]), -limit, limit)
    return start + before + after, np.where(step < switch, thrust, late)


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
