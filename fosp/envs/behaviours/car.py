"""The Car: drive forward or backward, turn on the spot, or stop; nothing between, as its motors saturate at once."""

from __future__ import annotations

import cmath
import math
from functools import lru_cache

import numpy as np

from fosp.envs.behaviours.drivers import Roll, wrap
from fosp.envs.behaviours.view import Complex, State, Style, View

STOP, FORWARD, BACKWARD, LEFT, RIGHT, BEND_LEFT, BEND_RIGHT = range(7)
#: Torque with which a wheel is meant to turn: far above saturation, and below 1 so that noise shows to both sides.
TORQUE, HALF = 0.8, 0.01  # of saturation
#: By command: (left, right), the wheels.
WHEELS = np.array(
    [
        (0, 0),
        (TORQUE, TORQUE),
        (-TORQUE, -TORQUE),
        (TORQUE, -TORQUE),
        (-TORQUE, TORQUE),
        (-HALF, -TORQUE),
        (-TORQUE, -HALF),
    ]
)
#: What the speed along the nose (m/s) and the yaw rate (rad/s) tend to under each command.
SPEED = np.array([0.0, 0.78, -0.8, 0.0, 0.0, -0.5, -0.5])
TURN = np.array([0.0, 0.0, 0.0, 1.38, -1.38, 0.42, -0.42])
#: Seconds in which they come nearer by a factor e: the speed where it is positive and negative, the yaw rate.
SPEED_TIME = np.array([(0.075, 0.155, 0.23, 0.11, 0.11, 0.2, 0.2), (0.075, 0.155, 0.42, 0.19, 0.19, 0.3, 0.3)])
TURN_TIME = 0.045
#: A Car that rolls back turns faster: rad/s of yaw rate per m/s.
BACK_TURN = 1.5


class CarDriver:
    """A manoeuvre is a row of commands, one per step."""

    horizon, top_speed, top_turn = 1.9, 0.8, float(TURN[LEFT])
    nose, girth = 0.175, 0.19
    tool, tool_width, tool_angle, bend, holds = 0.16, 0.2, math.pi, 1.5, (0.2, 0.5)  # the broad rear bumper

    def drive(self, state: State, place: np.ndarray, thrust: float = 0.0) -> np.ndarray:
        """Turns first, until one more step would not make the direction better; on the way a little is let be."""
        offset = place - state["agent_xy"]
        error = wrap(math.atan2(offset[1], offset[0]) - state["agent_heading"])
        if thrust < 0 or (thrust == 0 and abs(error) > math.pi / 2):
            thrust, error = -1.0, wrap(error + math.pi)
        step = TURN[LEFT] * state["step_seconds"]
        rolls = abs(complex(*state["agent_velocity_xy"])) > SPEED[FORWARD] / 2
        if abs(error) > max(step / 2, math.atan2(0.15, math.hypot(*offset)) if rolls else 0.0):
            return WHEELS[LEFT if error > 0 else RIGHT]
        return WHEELS[BACKWARD if thrust < 0 else FORWARD]

    def spin(self, state: State) -> np.ndarray:
        return WHEELS[LEFT if state["agent_yaw_rate"] >= 0 else RIGHT]

    def manoeuvres(self, state: State, view: View, last: np.ndarray | None, steps: int) -> np.ndarray:
        if view.style is Style.PUSH:
            plans = _pushing_library(steps)
            return plans if last is None else np.concatenate([np.append(last[1:], last[-1])[None], plans])
        if view.style is Style.PARK:
            plans = _parking_library(steps)
        else:
            plans = _library(steps, float(state["step_seconds"]), waits=state["gremlin_orbit"] > 0)
        return plans if last is None else np.concatenate([_continued(last), plans])

    def roll_out(self, state: State, plans: np.ndarray, steps: int) -> Roll:
        dt, yaw = float(state["step_seconds"]), np.full(len(plans), float(state["agent_heading"]))
        along = complex(*state["agent_velocity_xy"]) * cmath.exp(-1j * float(state["agent_heading"]))
        speed, turn = np.full(len(plans), along.real), np.full(len(plans), float(state["agent_yaw_rate"]))
        place = np.zeros(len(plans), complex)
        path, heading = np.zeros((len(plans), steps), complex), np.zeros((len(plans), steps))
        keep_speed, keep_turn = np.exp(-dt / SPEED_TIME), math.exp(-dt / TURN_TIME)
        slide = SPEED_TIME * (1 - keep_speed)  # metres of rolling on per m/s within one step
        for k in range(steps):
            command = plans[:, k]
            back = (speed < 0).astype(int)
            aim = TURN[command] * (1 + BACK_TURN / TURN[LEFT] * np.maximum(-speed, 0.0))
            angle = aim * dt + (turn - aim) * TURN_TIME * (1 - keep_turn)
            turn = aim + (turn - aim) * keep_turn
            gap = speed - SPEED[command]
            place = place + (SPEED[command] * dt + gap * slide[back, command]) * np.exp(1j * (yaw + angle / 2))
            speed = SPEED[command] + gap * keep_speed[back, command]
            yaw = yaw + angle
            path[:, k], heading[:, k] = place, yaw
        return Roll(path, heading, speed * np.exp(1j * yaw))

    def remaining(self, roll: Roll, distance: np.ndarray, direction: Complex, style: Style) -> np.ndarray:
        """A turn of at most a right angle, as it drives backward as well, then the way; what is pushed turns slowly."""
        error = np.abs(np.angle(direction * np.exp(-1j * roll.heading[:, -1])))
        approach = (roll.velocity * direction.conj()).real
        start = SPEED_TIME[0, FORWARD] * (1 - approach / SPEED[FORWARD])
        turn = (
            (math.pi - error) / TURN[BEND_LEFT]
            if style is Style.PUSH
            else np.minimum(error, math.pi - error) / TURN[LEFT]
        )
        return turn + start + distance / SPEED[FORWARD]

    def follow(self, state: State, plan: np.ndarray) -> np.ndarray:
        return WHEELS[plan[0]]


@lru_cache(maxsize=8)
def _library(steps: int, dt: float, waits: bool) -> np.ndarray:
    """Turn, drive for a while, turn, drive on; where something moves by itself also wait, turn, drive: (P, T)."""
    right_angle = math.ceil(math.pi / 2 / (TURN[LEFT] * dt))  # steps
    ones, twos = range(-right_angle, right_angle + 1), range(-right_angle + 1, right_angle, 2)
    rows = set()
    for way in (FORWARD, BACKWARD):
        for one in ones:
            rows.add(_cut(_turn(one), way, steps))
            rows |= {_cut(_turn(one) + (way,) * n + _turn(two), way, steps) for n in _parts(steps) for two in twos}
            if waits:
                rows |= {_cut((STOP,) * n + _turn(one), way, steps) for n in (*_parts(steps), steps)}
    return np.array(sorted(rows))


@lru_cache(maxsize=8)
def _parking_library(steps: int) -> np.ndarray:
    """Turn, drive for a while, turn, drive for a while, turn, stop: (P, T)."""
    ones, twos = (-7, -5, -3, -2, -1, 0, 1, 2, 3, 5, 7), (-4, -2, -1, 0, 1, 2, 4)
    rows = {
        _cut(_turn(one) + (way,) * first + _turn(two) + (way,) * second + _turn(three), STOP, steps)
        for way in (FORWARD, BACKWARD)
        for one in ones
        for first in (1, 2, 4)
        for two in twos
        for second, three in ((0, 0), (2, 0), (2, -two))
    }
    return np.array(sorted(rows))


@lru_cache(maxsize=8)
def _pushing_library(steps: int) -> np.ndarray:
    """Drive, bend, drive, bend, drive on: (P, T). Turns on the spot would turn it off what it pushes."""
    ones, twos = range(-steps, steps + 1), (-4, -2, 0, 2, 4)
    rows = {
        _cut((BACKWARD,) * first + _bend(one) + (BACKWARD,) * second + _bend(two), BACKWARD, steps)
        for first in (0, 1, *_parts(steps))
        for one in ones
        for second in _parts(steps)
        for two in twos
    }
    return np.array(sorted(rows))


def _continued(last: np.ndarray) -> np.ndarray:
    """The same manoeuvre one step later, and others that begin like it, (P, T)."""
    steps, rest = len(last), tuple(last[1:])
    rows = [_cut(rest, last[-1], steps)]
    for n in range(0, steps - 1, max(steps // 6, 1)):
        rows += [_cut(rest[:n] + _turn(k), way, steps) for k in (-3, -1, 1, 3) for way in (FORWARD, BACKWARD)]
    return np.array(rows)


def _parts(steps: int) -> tuple[int, int]:
    """How long the first drive of a manoeuvre may be, steps."""
    return steps // 6, steps // 3


def _turn(count: int) -> tuple[int, ...]:
    return (LEFT if count > 0 else RIGHT,) * abs(count)


def _bend(count: int) -> tuple[int, ...]:
    return (BEND_LEFT if count > 0 else BEND_RIGHT,) * abs(count)


def _cut(commands: tuple[int, ...], way: int, steps: int) -> tuple[int, ...]:
    return (commands + (way,) * steps)[:steps]
