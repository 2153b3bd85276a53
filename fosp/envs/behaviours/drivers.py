"""How each agent is driven: manoeuvres, where they lead, and the actions that carry them out.

One entry of ``DRIVERS`` per agent of ``fosp.envs.agents``. The figures are measured.
"""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fosp.envs.behaviours.view import Body, Complex, State, Style, View


@dataclass(frozen=True)
class Roll:
    """Where manoeuvres lead, relative to where the agent is now."""

    path: Complex  # (P, T) positions after each step
    heading: np.ndarray  # (P, T) of the nose, radians
    velocity: Complex  # (P,) at the end, m/s


class Driver(Body, Protocol):
    """What behaviours need of an agent. Angles in radians, metres, seconds; actions (A,) need not be clipped."""

    horizon: float  # seconds that a manoeuvre looks ahead
    top_speed: float
    top_turn: float

    def drive(self, state: State, place: np.ndarray, thrust: float = ...) -> np.ndarray:
        """Action that turns the nose (the tail where thrust is -1) to a place (2,) and drives once it points there.

        By default it goes there with whichever end is quicker.
        """
        ...

    def spin(self, state: State) -> np.ndarray:
        """Action that turns on the spot, on in the direction in which it turns already, else to the left."""
        ...

    def manoeuvres(self, state: State, view: View, last: np.ndarray | None, steps: int) -> np.ndarray:
        """Candidates for the next ``steps`` steps, (P, ...): a library, the last manoeuvre and its neighbours."""
        ...

    def roll_out(self, state: State, plans: np.ndarray, steps: int) -> Roll:
        """Where manoeuvres (P, ...) lead."""
        ...

    def remaining(self, roll: Roll, distance: np.ndarray, direction: Complex, style: Style) -> np.ndarray:
        """Expected seconds from the end of each manoeuvre over a way of so many metres that begins in a direction."""
        ...

    def follow(self, state: State, plan: np.ndarray) -> np.ndarray:
        """Action that begins a manoeuvre."""
        ...


def wrap(angle: float) -> float:
    """The same angle in (-pi, pi]."""
    return cmath.phase(cmath.exp(1j * angle))


def wrap_all(angle: np.ndarray) -> np.ndarray:
    """The same angles in [-pi, pi)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi
