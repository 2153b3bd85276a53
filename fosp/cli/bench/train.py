"""Updates per second of the learner, what they compute, and what they take of memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fosp.cli.bench.machine import ceilings, fresh, peak_bytes, rates, row, synchronise

if TYPE_CHECKING:
    from fosp.cli.bench import Options


def measure(options: Options) -> list[dict[str, Any]]:
    """Rows of every preset and precision, on random batches that lie in memory."""
    presets = options.preset or ("laptop", "tiny", "small")
    rows = []
    for preset in presets:
        for precision in options.precision:
            changes = [*options.set, f"training.precision={precision}"]
            rows += fresh(_measure, preset, changes, options.device, options.repeats, options.seconds)
    return rows


def _measure(preset: str, changes: Sequence[str], device: str, repeats: int, seconds: float) -> list[dict[str, Any]]:
    """Rows of one configuration: learning from images and, where the preset does that too, from the encoded log."""
    import torch

    from fosp.agent.encoded import EncodedLog
    from fosp.cli import wire
    from fosp.cli.bench import synthetic
    from fosp.presets import resolve
    from fosp.training.offline import to_tensors

    config, picked = resolve(preset, None, changes), wire.pick_device(device)
    training, before = config.training, peak_bytes()
    learner = wire.build_learner(config, synthetic.schema(), picked)
    batch = to_tensors(synthetic.batch(training.batch, training.length), picked)
    stages: dict[str, tuple[Callable[[], Any], int]] = {
        "images": (lambda: batch, config.optimiser.behaviour_every or 1)
    }
    if training.latent_updates:
        log = EncodedLog(
            learner.agent.model, [batch], training.latent_batch, training.length, config.seed, learner.autocast
        )
        stages["encoded log"] = log.sample, 1
    found = []
    for stage, (sample, cycle) in stages.items():

        def update(sample: Callable[[], Any] = sample) -> None:
            learner.update(sample())
            synchronise(picked)

        with torch.compiler.set_stance(
            "force_eager"
        ):  # of what is compiled, nothing is dispatched that could be counted
            learner.agent.model.rssm.at_once = False  # nor of the steps that are computed in C
            work = {name: count / cycle / 1e9 for name, count in flop(update, cycle).items()}
            learner.agent.model.rssm.at_once = True
        samples, cores = rates(update, cycle, repeats, seconds)
        peak = torch.cuda.max_memory_allocated(picked) if picked.type == "cuda" else peak_bytes()
        found.append((stage, samples, work, cores, peak))
    bfloat16 = training.precision == "bfloat16" or training.precision == "auto" and wire.has_bfloat16(picked)
    precision = "bfloat16" if bfloat16 else "float32"
    plain = training.precision == "float32" and picked.type == "cpu"
    how = precision + (", compiled" if learner.compiled else ", reference path" if plain else "")
    best = ceilings(picked, precision, min(1.0, seconds))  # last, as it takes memory too
    about = {
        "what": "train", "preset": preset, "precision": precision, "changes": list(changes),
        "compiled": learner.compiled, "threads": torch.get_num_threads(), "config": _tree(config),
        "ceiling_gflop_per_s": best, "peak_bytes_before": 0 if picked.type == "cuda" else before,
    }  # fmt: skip
    return [
        _row(f"train {preset}, {how}, {stage}", samples, work, best, cores, peak) | {"stage": stage, **about}
        for stage, samples, work, cores, peak in found
    ]


def _row(
    name: str, found: list[float], work: dict[str, float], best: dict[str, float], cores: float, peak: int
) -> dict[str, Any]:
    """``work`` in GFLOP and ``best`` in GFLOP/s, of matrix products and of convolutions."""
    result = row(name, "updates/s", found)
    alone = sum(work[kind] / best[kind] for kind in work)  # seconds that the products would take at their best
    share = alone * result["median"]
    return result | {
        "remark": f"{sum(work.values()):.1f} GFLOP, {100 * share:.0f} % of ceiling, {cores:.1f} cores, "
        f"{peak / 1e6:.0f} MB",
        "seconds_per_update": 1 / result["median"], "gflop": work, "share": share, "cores_busy": cores,
        "peak_bytes": peak,
    }  # fmt: skip


def flop(call: Callable[[], Any], times: int = 1) -> dict[str, int]:
    """Floating point operations of ``times`` calls, counted by ``torch.utils.flop_counter`` as they are dispatched.

    Two for each multiplication with addition; products and convolutions with their gradients, under autocast too.
    Nothing else counts: element by element, an update does much, but not many operations.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        for _ in range(times):
            call()
    found = {"matmul": 0, "convolution": 0}
    for operation, count in counter.get_flop_counts().get("Global", {}).items():
        found["convolution" if "conv" in str(operation) else "matmul"] += count
    return found


def _tree(config: Any) -> dict[str, Any]:
    from fosp import config as mechanism

    return {name: part for name, part in mechanism.to_tree(config).items() if name != "online"}
