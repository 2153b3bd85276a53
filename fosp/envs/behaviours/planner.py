"""Short-horizon planning with full knowledge of the state: the brain of the behaviour ``safe``.

Some hundred manoeuvres of the agent's driver are rolled out at once with the agent's dynamics in closed form; the first
action of the best is taken, and the next step plans anew. Beyond the horizon a map of ways around what stands tells
how far it still is.

Letters here: P manoeuvres, T steps of the horizon, M obstacles. Plane vectors are complex numbers x + iy, relative to
the agent, in metres.
"""

from __future__ import annotations

import cmath

import numpy as np

from fosp.envs.behaviours.drivers import Driver, Roll, wrap_all
from fosp.envs.behaviours.view import BLOCK, Complex, Discs, State, Style, View
from fosp.envs.behaviours.waymap import WayMap, way_map

#: Parking: what a metre beside the way in and a radian of heading are worth, metres; from how near the latter and the
#: speed at the end count, metres; what a metre per second of that is worth, metres; how fast an error vanishes, m/s.
BESIDE, ASKEW, NEAR, BRAKE, PARKING_SPEED = 2.0, 0.1, 0.2, 0.2, 0.5
#: Searching: seconds that a metre from where it began is worth.
STRAYING = 0.3
#: In which part of a blurred disc's depth (1 at the centre) harm becomes certain, inverse.
BLUR = 3.0
#: Half width of the way in at its end, metres; it widens by 45 degrees to either side.
WAY_IN = 0.1


class Planner:
    """Chooses manoeuvres for one kind of agent. Keeps no memory of the episode."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def choose(self, state: State, view: View, last: np.ndarray | None = None) -> np.ndarray:
        """The best manoeuvre from here, in the terms of the driver; ``last`` = the one of one step ago.

        The last one and its neighbours compete with the library: without them the choice would flip between manoeuvres
        that are about equally good, and never begin.
        """
        dt = float(state["step_seconds"])
        steps = max(2, round(self.driver.horizon / dt))
        plans = self.driver.manoeuvres(state, view, last, steps)  # (P, ...)
        roll = self.driver.roll_out(state, plans, steps)
        price = {Style.PARK: self._error, Style.SEARCH: self._blindness}.get(view.style, self._delay)
        return plans[(price(roll, view, dt) + self._danger(roll, view, dt)).argmin()]

    def _delay(self, roll: Roll, view: View, dt: float) -> np.ndarray:
        """Expected seconds until the goal is reached, (P,)."""
        path, steps = _led(roll, view), roll.path.shape[1]
        offset: Complex = view.goal - view.here - path  # (P, T)
        there = offset.real**2 + offset.imag**2 <= view.arrival**2
        end = path[:, -1]
        distance, direction = _way(view).look_up(end.real + view.here.real, end.imag + view.here.imag)
        delay = steps * dt + self.driver.remaining(roll, distance - view.arrival, direction, view.style)
        return np.where(there.any(axis=1), (there.argmax(axis=1) + 1) * dt, delay)

    def _error(self, roll: Roll, view: View, dt: float) -> np.ndarray:
        """How far from being parked it is on the way and at the end, as seconds, (P,)."""
        before: Complex = (view.goal - view.here - _led(roll, view)) / view.aim  # (P, T)
        ahead, beside = before.real, np.abs(before.imag)
        in_front = (ahead > -WAY_IN) & (beside < WAY_IN + np.maximum(ahead, 0.0))
        straight = np.where(in_front, np.abs(ahead) + BESIDE * beside, np.inf)
        points = (roll.path + view.here).ravel()
        detour = _way(view).look_up(points.real, points.imag)[0].reshape(straight.shape)
        error = np.minimum(straight, detour + abs(view.goal - view.start) - abs(view.lead))
        near = np.exp(-error / NEAR)
        askew = np.abs(np.angle(np.exp(1j * roll.heading) * view.lead / view.aim))
        error += near * ASKEW * askew
        return (error.sum(axis=1) * dt + error[:, -1] + near[:, -1] * BRAKE * np.abs(roll.velocity)) / PARKING_SPEED

    def _blindness(self, roll: Roll, view: View, dt: float) -> np.ndarray:
        """How much of a turn is left to do at the end and how far it strays, as seconds, (P,)."""
        steps = np.diff(roll.heading, axis=1, prepend=cmath.phase(view.goal - view.here))
        turned = wrap_all(steps).sum(axis=1) * view.sense
        return STRAYING * np.abs(roll.path[:, -1]) - turned / self.driver.top_turn

    def _danger(self, roll: Roll, view: View, dt: float) -> np.ndarray:
        """What the obstacles near the paths are worth in seconds, (P,)."""
        danger = np.zeros(len(roll.path))
        led = () if view.style is Style.PARK else view.led
        for path, group in ((_stopped(roll.path, view), view.discs), (_led(roll, view), led)):
            reach = self.driver.top_speed * path.shape[1] * dt + 1.0
            for discs in group:
                depth = _depth(path, discs, view.here, reach, dt)
                if depth is not None:
                    rim = np.minimum(BLUR * depth, 1.0) if discs.blurred else 0.5 + 0.5 * depth
                    inside = np.where(depth > 0, rim, 0.0)
                    danger += discs.fear * dt * inside.sum(axis=1)
        return danger


def _stopped(path: Complex, view: View) -> Complex:
    """Where the agent really is on paths (P, T) that lead to a goal which nobody drives through."""
    if not view.solid:
        return path
    offset: Complex = view.goal - view.here - path
    there = offset.real**2 + offset.imag**2 <= view.arrival**2
    steps = path.shape[1]
    last = np.where(there.any(axis=1), there.argmax(axis=1), steps - 1)  # (P,)
    return np.take_along_axis(path, np.minimum(np.arange(steps), last[:, None]), axis=1)


def _led(roll: Roll, view: View) -> Complex:
    """Positions of what has to get to the goal after each step, (P, T)."""
    return roll.path + view.lead * np.exp(1j * roll.heading) if view.lead else roll.path


def _depth(path: Complex, discs: Discs, here: complex, reach: float, dt: float) -> np.ndarray | None:
    """How deep each point of the paths lies in the deepest disc, (P, T): 1 at the centre, 0 at the rim, then negative.

    None where no disc lies within ``reach``.
    """
    centres: Complex = discs.pivots - here
    near = np.abs(centres) < reach + discs.span
    centres = centres[near]
    if len(centres) == 0:
        return None
    if discs.span:
        moved = discs.centres(dt * np.arange(1, path.shape[1] + 1))[:, near] - here  # (T, M)
        gap = path[:, :, None] - moved  # (P, T, M)
        return 1 - (gap.real**2 + gap.imag**2).min(axis=2) / discs.radius**2
    x, y = path.real.ravel().astype(np.float32), path.imag.ravel().astype(np.float32)  # (P*T,)
    # |p - c|^2 = |p|^2 - 2 p.c + |c|^2 as one matrix product.
    one = np.ones(len(centres))
    flat = np.stack([x * x + y * y, x, y, np.ones_like(x)], axis=1)  # (P*T, 4)
    weights = np.stack([-one, 2 * centres.real, 2 * centres.imag, discs.radius**2 - np.abs(centres) ** 2])
    depths = flat @ (weights / discs.radius**2).astype(np.float32)  # (P*T, M)
    depth = depths.max(axis=1).reshape(path.shape)
    if discs.free > 0:
        depth = np.where(dt * np.arange(1, path.shape[1] + 1) > discs.free, depth, -1.0)
    return depth


def _way(view: View) -> WayMap:
    """The map of ways to the present goal around what costs and stands, kept until one of them moves."""
    standing = [discs for discs in (*view.discs, *view.led) if discs.fear >= BLOCK and not discs.span]
    goal, discs = view.goal, [(complex(c), group.radius) for group in standing for c in group.pivots]
    if view.style is Style.PARK:  # beside something that moves a little at every touch: a centimetre does not matter
        goal, discs = _rounded(view.start), [(_rounded(c), radius) for c, radius in discs]
    return way_map((goal.real, goal.imag), tuple((c.real, c.imag, radius) for c, radius in discs))


def _rounded(place: complex) -> complex:
    return complex(round(place.real, 2), round(place.imag, 2))
