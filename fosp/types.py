"""The nouns that every room shares, and the picture of time.

Time is written down once, here; no other file shifts anything::

    row t:   o_t  r_t  c_t  is_first_t  is_last_t  is_terminal_t   |  a_t
             arrived together, caused by a_{t-1}                      chosen after seeing o_t

``r_0 = c_0 = 0``; the action of the last row is a placeholder (zeros). The reward of the pair (s_t, a_t) is therefore
``r_{t+1}``. An episode of N agent steps has N + 1 rows. A time limit is a truncation: ``is_last = 1, is_terminal = 0``;
only real termination stops the bootstrap.

Shape letters, used on every line that makes an array or a tensor:

    B  batch (sequences or environments)      T  rows of time           H  imagination horizon
    A  action dimensions                      E  embedding              D  deterministic state h
    S  categorical groups of z                K  classes per group      F  features, F = D + S * K
    C  image channels (3 per camera)          N  a flat number of states, or candidates
    W  image height and width (square)        M  members of a critic ensemble
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

#: Layout seeds are split once and for all. Collection may use the first range only, fine-tuning the second; the third
#: is for evaluation and nothing else, so that no policy is ever scored on a layout that it, or its log, has met.
COLLECT_SEEDS = range(0, 1_000_000)
ONLINE_SEEDS = range(1_000_000, 2_000_000)
HELD_OUT_SEEDS = range(2_000_000, 3_000_000)


class UserError(Exception):
    """A mistake that the user can mend: one sentence naming the file or option, its value, and what would be right.

    The command line prints the sentence without a traceback and exits with code 2.
    """


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that does not exist: names the nearest that does, or all of them where none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(names) or 'nothing: there are none'}"
    return UserError(f"unknown {kind} {name!r}; {hint}")


def several(count: int, things: str) -> str:
    """``several(1, "episodes")`` is "1 episode"."""
    return f"{count} {things.removesuffix('s') if count == 1 else things}"


@dataclass(frozen=True)
class Schema:
    """What is seen and what can be done; equal for a dataset, a checkpoint and the environment that they fit.

    ``cameras`` maps the name of a camera image to its (height, width, channels); the order of the names is the order in
    which the images are stacked on channels.
    """

    task: str  # registered id, e.g. "fosp/SafetyPointGoal1-v0"
    cameras: dict[str, tuple[int, int, int]]
    action_size: int
    action_repeat: int = 1  # simulator frames per agent step; reward and cost are summed over them
    step_seconds: float = 0.0  # duration of one agent step
    max_steps: int = 0  # agent steps after which an episode is truncated; 0 is unknown, and cannot be learned from
    cost_terms: tuple[str, ...] = ()  # named parts of the cost, the keys "cost_<term>" of info
    #: Signs of the action in a world seen through a mirror, if robot and task are the same there, else empty. The
    #: cameras must look along the plane of the mirror, so that a mirrored image is the image flipped left to right.
    mirror: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Schema:
        cameras = {name: (int(s[0]), int(s[1]), int(s[2])) for name, s in data["cameras"].items()}
        tuples = {k: tuple(data.get(k, ())) for k in ("cost_terms", "mirror")}
        rest = {k: v for k, v in data.items() if k != "cameras" and k not in tuples}
        return Schema(cameras=cameras, **tuples, **rest)


@dataclass(frozen=True)
class Episode:
    """One episode, T rows in the order of the picture of time. ``images`` may be empty where only numbers are kept."""

    images: dict[str, np.ndarray]  # camera -> uint8 (T, W, W, 3)
    action: np.ndarray  # float32 (T, A)
    reward: np.ndarray  # float32 (T,)
    cost: np.ndarray  # float32 (T,)
    is_first: np.ndarray  # bool (T,)
    is_last: np.ndarray  # bool (T,)
    is_terminal: np.ndarray  # bool (T,)
    cost_terms: dict[str, np.ndarray] = field(default_factory=dict)  # term -> float32 (T,)
    diagnostics: dict[str, np.ndarray] = field(default_factory=dict)  # what the policy said of itself, (T,) each
    info: dict[str, Any] = field(default_factory=dict)  # JSON values: task, scenario, seed, behaviour, goals, ...

    def __len__(self) -> int:
        return len(self.reward)


@dataclass(frozen=True)
class Batch:
    """B sequences of T rows, cut from episodes by the sampler. NumPy arrays from the sampler, tensors in learning."""

    images: dict[str, Any]  # camera -> uint8 (B, T, W, W, 3)
    action: Any  # float32 (B, T, A)
    reward: Any  # float32 (B, T)
    cost: Any  # float32 (B, T)
    is_first: Any  # bool (B, T)
    is_last: Any  # bool (B, T)
    is_terminal: Any  # bool (B, T)


@runtime_checkable
class Policy(Protocol):
    """Chooses actions. Has no hidden state: what it remembers lies in the carry that the caller keeps.

    ``initial()`` starts one episode and ``act`` then takes single images (W, W, 3) and returns an action (A,);
    ``initial(n)`` starts n episodes side by side and ``act`` takes (n, W, W, 3) and returns (n, A). The returned carry
    has an attribute ``diagnostics``, a dict of arrays () or (n,), for instance ``violation_probability``.
    """

    def initial(self, batch: int | None = None) -> Any: ...

    def act(self, carry: Any, observation: Mapping[str, np.ndarray]) -> tuple[np.ndarray, Any]: ...
