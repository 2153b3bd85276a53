"""How to bring a box to the goal: get the nose between two of its posts, then drive to the goal with the box ahead.

The box has a notch in each of its four faces. With the nose in one, agent and box turn and move as one body as long as
the agent does not go back. So there are two views: that of a notch to get to, around the box, and that of a goal to
which the box has to get, on the tip of the nose.
"""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass, replace

import numpy as np

from fosp.envs.behaviours.drivers import wrap
from fosp.envs.behaviours.view import ARRIVAL, BLOCK, FEAR, Body, Discs, State, Style, View, obstacles
from fosp.envs.behaviours.waymap import way_map

#: Metres before a notch that must be free to get into it.
RUN_UP = 0.3
#: What a face costs, in metres of way: for the touch or the run-up being where it costs; for not being the present one.
BARRED, CHANGE = 3.0, 0.8
#: How far the body frame may be from where it pushes, metres along and, beyond the play of the tool, across.
ALONG, ACROSS = 0.12, 0.035
#: After so many slips, or so askew in the notch that the posts are in the way of turning straight, radians, a new
#: run-up is taken, from so many metres around its start.
SLIPS, JAMMED, NEAR_START = 2, 1.0, 0.12


@dataclass(frozen=True)
class Box:
    """The box and its notches, in world coordinates, metres."""

    centre: complex
    yaw: float
    half: float  # half side, with the posts
    depth: float  # from the centre to where the agent's tool touches
    grip: float  # from the centre to the agent's body frame then
    play: float  # how far the tool may be beside the middle of the face

    def normal(self, face: int) -> complex:
        """Outward unit vector of a face, 0..3."""
        return cmath.exp(1j * (self.yaw + face * math.pi / 2))

    def start(self, face: int) -> complex:
        """Where a run-up to a face begins."""
        return self.centre + (self.grip + RUN_UP) * self.normal(face)

    def hull(self) -> list[Discs]:
        """Discs for the agent's body frame that leave four ways in, one to each face."""
        corner = self.half / 1.5 * (1 + 1j)
        posts = self.centre + corner * np.exp(1j * (self.yaw + np.arange(4) * math.pi / 2))
        radius = 0.92 * abs(self.grip - corner)
        return [Discs(posts, radius, BLOCK), Discs(np.array([self.centre]), 0.9 * self.grip, BLOCK)]


def find_box(state: State, body: Body) -> Box:
    """The box as it stands."""
    half = state["reach"]["push_box"] / (1.5 * math.sqrt(2))
    depth = half if body.tool_width < half else 1.5 * half  # in a notch, or against the posts on both sides of it
    centre, yaw = complex(*state["objects"]["push_box"]), state["yaws"]["push_box"]
    return Box(centre, yaw, 1.5 * half, depth, depth + body.tool, abs(half - body.tool_width) / 2)


@dataclass
class Grip:
    """What is remembered of a box from step to step."""

    face: int | None = None  # at which to push it
    held: bool = False  # whether agent and box move as one
    slips: int = 0  # how often that ended since the last run-up
    retreats: bool = False  # whether the agent goes back to where run-ups begin


def look_at_box(state: State, body: Body, grip: Grip, careful: bool = True) -> View:
    """The view of a task in which a box has to get to the goal; changes ``grip``.

    Who is not careful sees only what cannot be driven through.
    """
    box, here, goal = find_box(state, body), complex(*state["agent_xy"]), complex(*state["goal_xy"])
    discs = obstacles(state, body.girth, careful)
    led = [replace(group, fear=BLOCK) for group in obstacles(state, box.half, careful)]
    _feel(grip, box, state, body, _choose_face(box, here, goal, discs, led, grip.face, body.bend))
    normal = box.normal(grip.face or 0)
    if grip.held:
        lead = (box.centre - here) * cmath.exp(-1j * state["agent_heading"])
        return View(here, goal, ARRIVAL - 0.01, tuple(discs), Style.PUSH, lead, -normal, led=tuple(led))
    around = Discs(np.array([box.centre]), box.grip + RUN_UP - 0.1, BLOCK)
    hulls, start = (*discs, *box.hull()), box.start(grip.face or 0)
    if grip.retreats:
        return View(here, start, 0.0, hulls, Style.PARK, 0.0, -normal, start, led=(around,))
    tool, touch = body.tool * cmath.exp(1j * body.tool_angle), box.centre + box.depth * normal
    return View(here, touch, 0.0, hulls, Style.PARK, tool, -normal, start, led=(around,))


def _feel(grip: Grip, box: Box, state: State, body: Body, wanted: int) -> None:
    """Find out how the agent stands to the face at which it pushes, and go over to another if that is wanted.

    Who would do so with the nose still in a notch would drag the box along, so the way leads back first.
    """
    here = complex(*state["agent_xy"])
    if grip.face is None or abs(here - box.start(grip.face)) < NEAR_START:
        grip.face, grip.slips, grip.retreats = wanted, 0, False
    normal = box.normal(grip.face)
    offset = (here - box.centre) / normal - box.grip
    askew = abs(wrap(state["agent_heading"] + body.tool_angle - cmath.phase(-normal)))
    near = abs(offset.real) < ALONG and abs(offset.imag) < box.play + ACROSS
    if grip.face != wanted and not near and not grip.retreats:
        grip.face, grip.held, grip.slips = wanted, False, 0
        return
    held, grip.held = grip.held, near and not grip.retreats and grip.face == wanted and askew < body.holds[grip.held]
    grip.slips += held and not grip.held
    if grip.slips >= SLIPS or (near and (askew > JAMMED or grip.face != wanted)):
        grip.retreats, grip.held = True, False


def _choose_face(
    box: Box, here: complex, goal: complex, discs: list[Discs], led: list[Discs], last: int | None, bend: float
) -> int:
    """The face from which the way of agent and box is shortest."""
    blocked = [(float(c.real), float(c.imag), group.radius) for group in led for c in group.pivots]
    way = way_map((goal.real, goal.imag), tuple(blocked))
    direction = complex(way.look_up(np.array([box.centre.real]), np.array([box.centre.imag]))[1][0])
    price = []
    for face in range(4):
        normal = box.normal(face)
        around = abs(cmath.phase((here - box.centre) / normal)) * (box.grip + RUN_UP / 2)
        turn = abs(cmath.phase(-normal / (direction or 1.0)))
        barred = sum(_inside(place, discs) for place in (box.start(face), box.centre + box.grip * normal))
        price.append(around + bend * turn + BARRED * barred + CHANGE * (face != last))
    return int(np.argmin(price))


def _inside(place: complex, discs: list[Discs]) -> bool:
    return any((np.abs(group.pivots - place) < group.radius).any() for group in discs if group.fear >= FEAR)
