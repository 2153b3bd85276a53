"""Several environments side by side, each in a process of its own: ``gymnasium.make_vec`` of the registered tasks."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from fosp.types import UserError

if TYPE_CHECKING:
    from gymnasium.vector import AsyncVectorEnv


def make_vec(task: str, num_envs: int = 1, **options: Any) -> AsyncVectorEnv:
    """Gymnasium's ``AsyncVectorEnv`` of ``num_envs`` environments of a task; options as of ``SafetyEnv``.

    The processes are spawned, because GL does not survive a fork. Where there are at least as many as cores, each keeps
    to one: woken by the same process they would otherwise often share one and take turns, while another has nothing to
    do. Fewer may go where they want, as other programs may want cores too.
    Raises: ``UserError`` for an unknown task, a value out of range, and fewer than one environment.
    """
    from gymnasium.vector import AsyncVectorEnv

    if num_envs < 1:
        raise UserError(f"num_envs is {num_envs}; it must be 1 or more.")
    makers = [partial(_make, i, num_envs, os.getpid(), task, options) for i in range(num_envs)]
    return AsyncVectorEnv(makers, context="spawn")


def _make(index: int, count: int, parent: int, task: str, options: dict[str, Any]) -> Any:
    from fosp.envs.env import SafetyEnv

    # Gymnasium makes one in the parent too, to learn its spaces. macOS and Windows cannot bind a process to a core.
    if os.getpid() != parent and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if count >= len(cores):
            os.sched_setaffinity(0, {cores[index % len(cores)]})
    return SafetyEnv(task, **options)
