"""Agent steps per second of the environment, against a plain loop over physics and renderer."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from fosp.cli.bench.machine import rates, row

if TYPE_CHECKING:
    from fosp.cli.bench import Options

QUALITIES = ("fast", "faithful")
FRAMES, PHYSICS_STEPS = 4, 10  # of an agent step
RESETS = 10
PROCESSES = 2


def measure(options: Options) -> list[dict[str, Any]]:
    """Rows of both qualities, of resets, of the plain loop, and of two processes side by side."""
    from fosp.cli import wire

    makers = {quality: partial(wire.make_env, options.task, None, quality) for quality in QUALITIES}
    plain = _plain(makers["fast"], options)
    rows = []
    for quality, make in makers.items():
        alone = _steps(quality, make, options)
        ratio = alone["median"] / plain["median"]
        rows.append(alone | {"ratio_to_plain": ratio, "remark": f"{ratio:.2f} times the plain loop"})
        rows.append(_resets(quality, make, options))
    rows.append(plain)
    several = _side_by_side(makers["fast"], options)
    scaling = several["median"] / rows[0]["median"]
    rows.append(several | {"scaling": scaling, "remark": f"{scaling:.2f} times one process"})
    return [{**found, "what": "env", "task": options.task} for found in rows]


def _steps(quality: str, make: Any, options: Options) -> dict[str, Any]:
    """Steps with random actions, resets at the ends of episodes included."""
    import numpy as np

    env, rng = make(), np.random.default_rng(0)
    env.reset(seed=0)

    def step() -> None:
        _, _, terminated, truncated, _ = env.step(rng.uniform(-1, 1, env.action_space.shape))
        if terminated or truncated:
            env.reset()

    found, _ = rates(step, 10, options.repeats, options.seconds)
    env.close()
    return row(f"env {quality}", "agent steps/s", found)


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


def _plain(make: Any, options: Options) -> dict[str, Any]:
    """What one would write first: ``mujoco.Renderer`` and ``mj_step`` on the same model, without a task."""
    import numpy as np

    from fosp.envs import CAMERAS

    env, rng = make(), np.random.default_rng(0)
    env.reset(seed=0)
    import mujoco  # after fosp.envs, which tells it how to draw where there is no display

    model, data = env.world.model, env.world.data
    renderer = mujoco.Renderer(model, env.image_size, env.image_size)

    def step() -> None:
        for _ in range(FRAMES):
            data.ctrl[:] = rng.uniform(-1, 1, model.nu)
            mujoco.mj_step(model, data, PHYSICS_STEPS)
        for camera in CAMERAS.values():
            renderer.update_scene(data, camera)
            renderer.render()

    found, _ = rates(step, 10, options.repeats, options.seconds)
    renderer.close()
    env.close()
    return row("env, plain mujoco.Renderer loop", "agent steps/s", found, f"{len(CAMERAS)} cameras, {FRAMES} frames")


def _side_by_side(make: Any, options: Options) -> dict[str, Any]:
    """Agent steps of all processes of an ``AsyncVectorEnv`` together."""
    import gymnasium
    import numpy as np

    env = gymnasium.vector.AsyncVectorEnv([make] * PROCESSES, context="spawn")
    env.reset(seed=0)
    rng, shape = np.random.default_rng(0), env.action_space.shape
    found, _ = rates(
        lambda: env.step(rng.uniform(-1, 1, shape).astype(np.float32)), 10, options.repeats, options.seconds
    )
    env.close()
    return row(f"env fast, {PROCESSES} processes", "agent steps/s", [PROCESSES * rate for rate in found])
