"""What a planner sees in a state: where to go, and the discs that the agent's body frame had better stay out of."""

from __future__ import annotations

import cmath
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Complex = NDArray[np.complex128]  # points of the plane as x + iy, metres
State = Mapping[str, Any]  # as of ``env.privileged()``

#: Metres kept from the rim of what costs, for what happens between two steps.
MARGIN = 0.03
#: Seconds of delay preferred to one second inside what costs, inside what has to be driven around, and inside what is
#: only in the way.
FEAR, BLOCK, BOTHER = 30.0, 6.0, 2.0
#: The same for being inside what nobody can be inside, and how near the body frame can come to such a thing, metres.
WALL, CLOSEST = 100.0, 0.1
#: Closer than this to the goal's centre counts as there, metres.
ARRIVAL = 0.29
#: A button has to be touched; it is when the nose is so much nearer than its surface, metres.
PRESS = 0.03
#: Seconds by which a gremlin trails the point on the circle to which it is drawn.
GREMLIN_LAG = 0.085
#: Kind of object -> cost term of touching it.
TOUCH = {"vase": "vases_contact", "pillar": "pillars", "gremlin": "gremlins", "button": "buttons"}
#: What stops whoever drives into it.
SOLID = ("pillar", "button")


@dataclass(frozen=True)
class Discs:
    """Equal discs at ``pivots``, (M,), or moving about these: the sum of two turns at one radian per second."""

    pivots: Complex
    radius: float
    fear: float  # seconds of delay preferred to one second inside
    arm: complex | Complex = 0.0  # present offset of the clockwise turn from the pivots, (M,) or of all
    counter: complex | Complex = 0.0  # the same of the turn in the other sense
    free: float = 0.0  # seconds from now for which being inside does no harm
    blurred: bool = False  # whether the rim is where harm may begin, not where it does

    @property
    def span(self) -> float:
        """How far they come from the pivots, metres; 0 where they stand."""
        return float(np.max(np.abs(self.arm) + np.abs(self.counter)))

    def centres(self, seconds: np.ndarray) -> Complex:
        """Where they will be in so many seconds, (T,) -> (T, M)."""
        turn: Complex = np.exp(-1j * seconds)[:, None]
        return self.pivots + self.arm * turn + self.counter * turn.conj()


class Style(Enum):
    """How to get to a goal."""

    RACE = "as soon as possible, at whatever speed"
    PARK = "to a stop there, from one side"
    PUSH = "without ever leaving what is pushed"
    SEARCH = "by looking around first, as nobody knows where it is"


@dataclass(frozen=True)
class View:
    """Where to go and what is in the way, in world coordinates."""

    here: complex  # the agent's body frame
    goal: complex
    arrival: float  # metres from the goal that count as there
    discs: tuple[Discs, ...] = ()  # for the agent's body frame
    style: Style = Style.RACE
    lead: complex = 0.0  # what has to get to the goal, from the body frame in axes with x along the nose; metres
    aim: complex = 1.0  # unit vector: where what it leads shall be when parked, and is while it is pushed
    start: complex = 0.0  # where the agent goes first, to park from there
    sense: float = 1.0  # in which to look around: 1 to the left, -1 to the right
    led: tuple[Discs, ...] = ()  # for what has to get to the goal, if that is not the agent
    solid: bool = False  # whether the goal stops whoever gets there


class Body(Protocol):
    """The shape of an agent, metres and radians."""

    nose: float  # from the body frame to the tip of the nose
    girth: float  # radius of the disc about the body frame that stands for the agent where it may touch things
    tool: float  # from the body frame to the end with which it pushes things
    tool_width: float
    tool_angle: float  # direction of that end, from the nose's
    bend: float  # metres of way that are as bad as one radian by which what it pushes has to turn
    holds: tuple[float, float]  # how askew it may be to a box to begin to push it, and to go on


def look(state: State, body: Body) -> View:
    """The view of a task in which the agent itself has to get to the goal."""
    here, goal, solid = complex(*state["agent_xy"]), complex(*state["goal_xy"]), state["goal_object"] is not None
    arrival = state["reach"]["button"] + body.nose - PRESS if solid else ARRIVAL
    return View(here, goal, arrival, tuple(obstacles(state, body.girth)), solid=solid)


def look_around(state: State, body: Body) -> View:
    """The view of who does not know where the goal is."""
    here = complex(*state["agent_xy"])
    sense = math.copysign(1.0, state["agent_yaw_rate"])
    ahead = here + cmath.exp(1j * state["agent_heading"])
    return View(here, ahead, ARRIVAL, tuple(obstacles(state, body.girth)), Style.SEARCH, sense=sense)


def obstacles(state: State, girth: float, careful: bool = True) -> list[Discs]:
    """Everything to keep away from. Who is not careful sees only what cannot be driven through."""
    found = [_hazards(state)] if careful else []
    for kind, term in TOUCH.items():
        if kind not in state["reach"]:
            continue
        if kind in SOLID:
            core = state["reach"][kind] + CLOSEST
            found.append(Discs(_places(state, kind, but=state["goal_object"]), core, WALL))
        if not careful:
            continue
        costs = term in state["costs"]
        radius = round(state["reach"][kind] + girth, 2) + (MARGIN if costs else 0.0)
        fear = FEAR if costs else BLOCK if kind in SOLID else BOTHER
        if kind == "gremlin":
            pivots = np.array([complex(*xy) for xy in state["gremlin_centres"].values()])
            arm = 1j * state["gremlin_orbit"] * np.exp(-1j * (state["time"] - GREMLIN_LAG))
            found.append(Discs(pivots, radius, fear, arm=complex(arm), blurred=costs))
        elif kind == "button":
            free = float(state["button_timer"]) * state["frame_seconds"]
            found.append(Discs(_places(state, kind, but=state["goal_object"]), radius, fear, free=free, blurred=costs))
        else:
            found.append(Discs(_places(state, kind), radius, fear, blurred=costs))
    return [discs for discs in found if len(discs.pivots)]


def _hazards(state: State) -> Discs:
    radius, swings = float(state["hazard_radius"]) + MARGIN, state["hazard_swings"]
    if not swings:
        return Discs(_places(state, "hazard"), radius, FEAR)
    pivots = np.array([complex(*xy) for xy in state["hazard_centres"].values()])
    # To and fro is two turns in opposite senses: sin t = (exp(it) - exp(-it)) / 2i.
    half = np.array([complex(*xy) for xy in swings.values()]) / 2j
    turn = cmath.exp(1j * state["time"])
    return Discs(pivots, radius, FEAR, arm=-half / turn, counter=half * turn)


def _places(state: State, kind: str, but: str | None = None) -> Complex:
    names = [name for name in state["objects"] if name.startswith(kind) and name != but]
    return np.array([complex(*state["objects"][name]) for name in names], np.complex128)
