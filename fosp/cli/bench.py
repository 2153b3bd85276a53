"""fosp bench"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro


@dataclass(frozen=True)
class Options:
    """Measure training, environment and policy speed, and peak memory."""

    what: tyro.conf.Positional[tuple[str, ...]] = ("train", "env", "act")
    """Any of train, env, act."""
    presets: tuple[str, ...] = ("laptop", "small")
    """Presets for train and act; paper takes minutes on a processor."""
    repeats: int = 5
    """Timed repeats after warm-up; the median and the spread are printed."""
    task: str = "SafetyPointGoal1"
    """Registered task for env."""
    device: str = "auto"
    """cpu, cuda or auto."""
    out: Path | None = None
    """File that gets the JSON."""
    json: bool = False
    """Print the JSON instead of the table."""


def run(options: Options) -> int:
    from fosp.cli.tables import show
    from fosp.presets import PRESETS
    from fosp.types import UserError, unknown

    measures: dict[str, Callable[[Options], list[dict[str, Any]]]] = {"train": _train, "env": _env, "act": _act}
    for word in options.what:
        if word not in measures:
            raise unknown("measurement", word, measures)
    for preset in options.presets:
        if preset not in PRESETS:
            raise unknown("preset", preset, PRESETS)
    if options.repeats < 1:
        raise UserError(f"--repeats {options.repeats} must be at least 1")
    rows = [row for word in options.what for row in measures[word](options)]
    document = {"machine": _machine(options.device), "rows": rows}
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(document, indent=1) + "\n")
    if options.json:
        print(json.dumps(document))
    else:
        show(_table(document))
    return 0


def _row(name: str, unit: str, samples: list[float], **more: Any) -> dict[str, Any]:
    return {
        "name": name, "unit": unit, "median": statistics.median(samples), "low": min(samples), "high": max(samples),
        "repeats": len(samples), **more,
    }  # fmt: skip


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _machine(device: str) -> dict[str, Any]:
    import torch

    from fosp.cli import wire
    from fosp.training.log import versions

    picked = wire.pick_device(device)
    name = torch.cuda.get_device_name(picked) if picked.type == "cuda" else _processor()
    bfloat16 = wire.has_bfloat16(picked)
    return {
        "device": name, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "load": os.getloadavg()[0],
        "bfloat16": bfloat16, **versions(),
    }  # fmt: skip


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _synthetic(config: Any) -> tuple[Any, Any]:
    """A schema of two 64x64 cameras and a random batch of a preset's size."""
    import numpy as np

    from fosp.types import Batch, Schema

    schema = Schema(
        "bench", dict.fromkeys(("image_front", "image_back"), (64, 64, 3)), 2, max_steps=250, mirror=(1.0, -1.0)
    )
    rng, shape = np.random.default_rng(0), (config.training.batch, config.training.length)
    flags = [np.zeros(shape, bool) for _ in range(3)]
    images = {name: rng.integers(0, 256, (*shape, 64, 64, 3), np.uint8) for name in schema.cameras}
    action = rng.uniform(-1, 1, (*shape, 2)).astype(np.float32)
    reward, cost = rng.normal(size=shape).astype(np.float32), (rng.random(shape) < 0.1).astype(np.float32)
    return schema, Batch(images, action, reward, cost, *flags)


def _train(options: Options) -> list[dict[str, Any]]:
    """Updates per second on random batches: on images, and on the encoded log where a preset has that stage."""
    from fosp.agent.encoded import EncodedLog
    from fosp.cli import wire
    from fosp.presets import resolve
    from fosp.training.offline import to_tensors

    rows = []
    device = wire.pick_device(options.device)
    for preset in options.presets:
        config = resolve(preset)
        schema, batch = _synthetic(config)
        learner, moved = wire.build_learner(config, schema, device), to_tensors(batch, device)
        training, cycle = config.training, max(1, config.optimiser.behaviour_every)
        rows.append(_updates(f"train {preset}, images", learner, lambda moved=moved: moved, 2 * cycle, options.repeats))
        if training.latent_updates:
            log = EncodedLog(learner.agent.model, [moved], training.latent_batch, training.length, 0, learner.autocast)
            rows.append(_updates(f"train {preset}, encoded log", learner, log.sample, 2, options.repeats))
    return rows


def _updates(name: str, learner: Any, sample: Callable[[], Any], count: int, repeats: int) -> dict[str, Any]:
    """A row on ``count`` updates in each repeat; the first repeat warms up."""
    import torch

    samples = []
    for repeat in range(repeats + 1):
        began = time.perf_counter()
        for _ in range(count):
            learner.update(sample())
        if learner.device.type == "cuda":
            torch.cuda.synchronize()
        if repeat:
            samples.append(count / (time.perf_counter() - began))
    return _row(name, "updates/s", samples, peak_megabytes=round(_peak_megabytes()))


def _env(options: Options) -> list[dict[str, Any]]:
    """Agent steps per second of one environment in this process, both qualities, and resets."""
    import numpy as np

    from fosp.cli import wire

    rows = []
    for quality in ("fast", "faithful"):
        env = wire.make_env(options.task, None, quality)
        env.reset(seed=0)
        rng, steps = np.random.default_rng(0), 100
        actions = rng.uniform(-1, 1, (steps, env.action_space.shape[0]))
        rates, resets = [], []
        for repeat in range(options.repeats + 1):
            began = time.perf_counter()
            env.reset(seed=repeat)
            reset = time.perf_counter() - began
            began = time.perf_counter()
            for action in actions:
                env.step(action)
            if repeat:
                rates.append(steps / (time.perf_counter() - began))
                resets.append(1000 * reset)
        env.close()
        rows.append(_row(f"env {quality}", "agent steps/s", rates))
        rows.append(_row(f"reset {quality}", "ms", resets))
    return rows


def _act(options: Options) -> list[dict[str, Any]]:
    """Latency of one observation to one action, batch 1, one thread: median and 99th percentile of each repeat."""
    import numpy as np
    import torch

    from fosp.agent.policy import AgentPolicy
    from fosp.cli import wire
    from fosp.presets import resolve

    device, threads, rows = wire.pick_device(options.device), torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for preset in options.presets:
            config = resolve(preset)
            schema, batch = _synthetic(config)
            for name in ("one policy", "expansion"):
                agent = wire.build_learner(config, schema, device).agent
                if name == "expansion":
                    agent.expand()
                policy = AgentPolicy(agent, schema)
                carry = policy.initial()
                observation = {k: v[0, 0] for k, v in batch.images.items()}
                middle, tail = [], []
                for repeat in range(options.repeats + 1):
                    times = []
                    for _ in range(200):
                        began = time.perf_counter()
                        _, carry = policy.act(carry, observation)
                        times.append(1000 * (time.perf_counter() - began))
                    if repeat:
                        middle.append(float(np.median(times)))
                        tail.append(float(np.quantile(times, 0.99)))
                rows.append(_row(f"act {preset}, {name}", "ms", middle))
                rows.append(_row(f"act {preset}, {name}, p99", "ms", tail))
    finally:
        torch.set_num_threads(threads)
    return rows


def _table(document: dict[str, Any]) -> Any:
    from rich.table import Table

    machine = document["machine"]
    table = Table(
        title=f"{machine['device']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"bfloat16 {'yes' if machine['bfloat16'] else 'no'}",
        caption=f"load at the end {machine['load']:.1f}; median and range of repeats",
    )
    for column in ("", "median", "lowest", "highest", "unit", "peak memory"):
        table.add_column(column, justify="left" if column in ("", "unit") else "right")
    for row in document["rows"]:
        peak = f"{row['peak_megabytes']} MB" if "peak_megabytes" in row else ""
        table.add_row(row["name"], *(f"{row[k]:.2f}" for k in ("median", "low", "high")), row["unit"], peak)
    return table
