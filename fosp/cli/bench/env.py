"""Agent steps per second of the environment, against a plain loop over physics and renderer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from fosp.cli.bench.machine import rates, row

if TYPE_CHECKING:
    from fosp.cli.bench import Options

QUALITIES = ("fast", "faithful")
FRAMES, PHYSICS_STEPS = 4, 10  # of an agent step
RESETS = 10
PROCESSES = 2
UNIT, PLAIN, BARE = "agent steps/s", "env, plain mujoco.Renderer loop", "env, bare MuJoCo loop"
LEAST = "env, bare loop, hazards hidden"


def measure(options: Options) -> list[dict[str, Any]]:
    """Rows of both qualities, of resets, of loops without a task, and of processes side by side.

    They take turns in every repeat, and ratios are medians of the ratios within a repeat: the speed of a machine that
    others use too drifts by more than they differ.
    """
    from fosp.cli import wire

    makers = {quality: partial(wire.make_env, options.task, None, quality) for quality in QUALITIES}
    alone, several = (f"env fast, vector of {count}" for count in (1, PROCESSES))
    with ExitStack() as stack:
        loops = {f"env {quality}": _steps(make, stack) for quality, make in makers.items()}
        loops[PLAIN] = _plain(makers["fast"], stack)
        loops[BARE] = _plain(makers["fast"], stack, bare=True)
        loops[LEAST] = _plain(makers["fast"], stack, bare=True, everything=False)
        loops[alone] = _side_by_side(options.task, 1, stack)
        loops[several] = _side_by_side(options.task, PROCESSES, stack)
        found: dict[str, list[float]] = {name: [] for name in loops}
        for _ in range(options.repeats):
            for name, once in loops.items():
                found[name] += rates(once, 10, 1, options.seconds)[0]
    found[several] = [PROCESSES * rate for rate in found[several]]  # of all environments

    def ratio(name: str, to: str) -> float:
        return statistics.median(x / y for x, y in zip(found[name], found[to], strict=True))

    rows = []
    for quality, make in makers.items():
        name = f"env {quality}"
        loops_of = {"plain": PLAIN, "bare": BARE, "least": LEAST}
        ratios = {f"ratio_to_{key}": ratio(name, loop) for key, loop in loops_of.items()}
        words = "{:.2f} times the plain loop, {:.2f} times the bare one, {:.2f} times that which hides hazards".format(
            *ratios.values()
        )
        rows.append(row(name, UNIT, found[name], words, **ratios))
        rows.append(_resets(quality, make, options))
    rows.append(row(PLAIN, UNIT, found[PLAIN], f"2 cameras, {FRAMES} frames"))
    rows.append(row(BARE, UNIT, found[BARE], "the same without samples, shadows, reflections, sky"))
    rows.append(row(LEAST, UNIT, found[LEAST], "and without hazards, goal, vases: the renderer's default"))
    scaling, gain = ratio(several, alone), ratio(several, "env fast")
    words = f"{scaling:.2f} times a vector of 1, {gain:.2f} times the environment itself"
    rows.append(row(alone, UNIT, found[alone], "fosp.envs.make_vec"))
    rows.append(row(several, UNIT, found[several], words, scaling=scaling, ratio_to_env=gain))
    return [{**found, "what": "env", "task": options.task} for found in rows]


def _steps(make: Any, stack: ExitStack) -> Callable[[], None]:
    """A step with random actions, resets at the ends of episodes included."""
    import numpy as np

    env, rng = make(), np.random.default_rng(0)
    stack.callback(env.close)
    env.reset(seed=0)

    def step() -> None:
        _, _, terminated, truncated, _ = env.step(rng.uniform(-1, 1, env.action_space.shape))
        if terminated or truncated:
            env.reset()

    return step


def _resets(quality: str, make: Any, options: Options) -> dict[str, Any]:
    """Resets to other layouts, image included. The very first, which makes the drawing context, is not counted."""
    env, times = make(), []
    env.reset(seed=0)
    for seed in range(1, RESETS * options.repeats + 1):
        began = time.perf_counter()
        env.reset(seed=seed)
        times.append(1000 * (time.perf_counter() - began))
    env.close()
    return row(f"env {quality}, reset", "ms", times, f"{len(times)} layouts")


def _plain(make: Any, stack: ExitStack, bare: bool = False, everything: bool = True) -> Callable[[], None]:
    """What one would write first: ``mujoco.Renderer`` and ``mj_step`` on the same model, without a task.

    ``bare`` leaves out all that costs time and can be left out: how fast this machine is at best. Without
    ``everything`` only those groups of geoms are drawn that are if nobody asks, which most of this task is not in.
    """
    import numpy as np

    from fosp.envs import CAMERAS

    env, rng = make(), np.random.default_rng(0)
    stack.callback(env.close)
    env.reset(seed=0)
    import mujoco  # after fosp.envs, which tells it how to draw where there is no display

    model, data = env.world.model, env.world.data
    samples, model.vis.quality.offsamples = model.vis.quality.offsamples, 0 if bare else model.vis.quality.offsamples
    renderer = mujoco.Renderer(model, env.image_size, env.image_size)
    model.vis.quality.offsamples = samples
    stack.callback(renderer.close)
    option = mujoco.MjvOption()
    if everything:
        option.geomgroup[:] = 1
    if bare:
        flags = mujoco.mjtRndFlag
        for flag in (flags.mjRND_SHADOW, flags.mjRND_REFLECTION, flags.mjRND_SKYBOX, flags.mjRND_HAZE):
            renderer.scene.flags[flag] = False

    def step() -> None:
        for _ in range(FRAMES):
            data.ctrl[:] = rng.uniform(-1, 1, model.nu)
            mujoco.mj_step(model, data, PHYSICS_STEPS)
        for camera in CAMERAS.values():
            renderer.update_scene(data, camera, option)
            renderer.render()

    return step


def _side_by_side(task: str, count: int, stack: ExitStack) -> Callable[[], Any]:
    """A step of so many environments together, each in a process of its own."""
    import numpy as np

    from fosp.envs import make_vec

    env = make_vec(task, count)
    stack.callback(env.close)
    env.reset(seed=0)
    rng, shape = np.random.default_rng(0), env.action_space.shape
    return lambda: env.step(rng.uniform(-1, 1, shape).astype(np.float32))
