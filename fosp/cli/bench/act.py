"""How long one observation takes to become one action: batch 1, one thread, as on a robot."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fosp.cli.bench.machine import fresh, row

if TYPE_CHECKING:
    from fosp.cli.bench import Options

CALLS = 1000  # of each kind, over all repeats
WARM_UP = 100


def measure(options: Options) -> list[dict[str, Any]]:
    """Rows for each preset: one policy and safe policy expansion, and the latter by the reference path."""
    kinds = (("one policy", False, True), ("expansion", True, True), ("expansion, reference path", True, False))
    return [
        fresh(_measure, preset, name, expand, frozen, options.device, options.repeats)
        for preset in options.preset or ("small", "paper")
        for name, expand, frozen in kinds
    ]


def _measure(preset: str, name: str, expand: bool, frozen: bool, device: str, repeats: int) -> dict[str, Any]:
    """Milliseconds per call: the samples of the row are the medians of the repeats, percentiles are over all calls."""
    import numpy as np
    import torch

    from fosp.agent.policy import AgentPolicy
    from fosp.cli import wire
    from fosp.cli.bench import synthetic
    from fosp.presets import resolve

    torch.set_num_threads(1)
    agent = wire.build_learner(resolve(preset), synthetic.schema(), wire.pick_device(device)).agent
    if expand:
        agent.expand()
    policy = AgentPolicy(agent, synthetic.schema(), frozen=frozen)
    rng = np.random.default_rng(0)
    seen = [synthetic.observation(rng) for _ in range(10)]
    carry, times, work = policy.initial(), [], []
    for call in range(WARM_UP + max(CALLS, repeats)):
        began, began_work = time.perf_counter(), time.process_time()
        _, carry = policy.act(carry, seen[call % len(seen)])
        times.append(1000 * (time.perf_counter() - began))
        work.append(1000 * (time.process_time() - began_work))
    kept = np.array(times[WARM_UP:])
    medians = [float(np.median(part)) for part in np.array_split(kept, repeats)]
    p90, p99 = (float(np.quantile(kept, share)) for share in (0.9, 0.99))
    return row(f"act {preset}, {name}", "ms", medians, f"p90 {p90:.2f}, p99 {p99:.2f} ms, {len(kept)} calls") | {
        "what": "act", "preset": preset, "expansion": expand, "frozen": frozen, "calls": len(kept),
        "median": float(np.median(kept)), "p90": p90, "p99": p99, "worst": float(kept.max()), "precision": "float32",
        "threads": 1,
        "processor_ms": float(np.median(work[WARM_UP:])),  # less than the median where something else had the core
    }  # fmt: skip
