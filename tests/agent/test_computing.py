"""Ways to compute an update: compiled, and in bfloat16, against the reference in plain float32."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from builders import agent, batch, stir

from fosp.agent.actor import ActorScales
from fosp.agent.agent import Learner, OptimiserConfig
from fosp.cli import wire
from fosp.types import Batch, UserError
from fosp.world_model import ahead_loss

CPU = torch.device("cpu")
#: Every way to extract a policy has a part in the losses.
SCALES = ActorScales(dynamics=0.5, imagined=0.1)


def learner(
    precision: str = "float32", compiled: Callable[..., Any] | None = None, rate: float = 3e-4, **changes: Any
) -> Learner:  # fmt: skip
    optimiser = OptimiserConfig(model_rate=rate, critic_rate=rate, actor_rate=rate)
    made = agent(0, actor_scales=SCALES, horizon=2, ahead=1, **changes)
    return Learner(made, optimiser, 0, CPU, wire.pick_autocast(precision, CPU), compiled)


def losses(made: Learner, data: Batch) -> dict[str, float]:
    """Of one update."""
    return {name: float(value) for name, value in made.update(data).items()}


# -------------------------------------------------------------------------------------------------------- compiling


def compare(compiled: Callable[..., Any]) -> None:
    """Two updates with those of the reference; the second sees what the first has learned, so gradients too."""
    made, eager = learner(compiled=compiled), learner()
    for seed in range(2):
        data = batch(seed, rows=3)
        found, expected = losses(made, data), losses(eager, data)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_compiled_and_eager_give_the_same_losses() -> None:
    """What a user of --compile gets, but of one function: for all, g++ takes minutes."""
    wrap = wire.pick_compiler(True, CPU) if shutil.which("g++") else pytest.skip("no g++ here, which compiling needs")
    assert wrap is not None
    compare(lambda function: wrap(function) if function is ahead_loss else function)


def test_all_functions_differentiated_ahead_of_time_give_the_same_losses() -> None:
    compare(partial(torch.compile, backend="aot_eager", fullgraph=True, dynamic=False))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_all_that_computes_losses_can_be_compiled_as_a_whole(precision: str) -> None:
    """Traced without a break, once for each function; what the graphs compute is then left to PyTorch itself."""
    traced: list[int] = []

    def count(graph: torch.fx.GraphModule, examples: Any) -> Any:
        traced.append(len(graph.graph.nodes))
        return graph.forward

    made = learner(precision, compiled=partial(torch.compile, backend=count, fullgraph=True, dynamic=False))
    eager = learner(precision)
    eager.agent.model.leave_to_autograd()  # what is compiled are the plain loop and the plain convolution
    with pytest.MonkeyPatch.context() as patch:
        for name in ("nets.perceptron", "nets.twohot", "world_model.pixels"):  # and nothing of it in C
            patch.setattr(f"fosp.{name}.library", lambda: None)
        for seed in range(3):
            data = batch(seed, rows=3)
            assert losses(made, data) == losses(eager, data)
    assert len(traced) == 5 and min(traced) > 20


def test_a_processor_without_a_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="--compile needs a C.. compiler"):
        wire.pick_compiler(True, CPU)
    assert wire.pick_compiler(False, CPU) is wire.pick_compiler(None, CPU) is None  # the default on a processor


def test_on_a_gpu_compiling_is_the_default() -> None:
    chosen = wire.pick_compiler(None, torch.device("cuda"))
    assert isinstance(chosen, partial) and chosen.keywords["mode"] == "reduce-overhead"
    assert wire.pick_compiler(False, torch.device("cuda")) is None


# -------------------------------------------------------------------------------------------------------- precision

#: What a model loss may differ by in the first update, as a share of its value; measured are 0.0004 at most.
FIRST_BAND = 0.003
#: What its mean over the last quarter of a short run may differ by; measured are 0.0006 at most.
LAST_BAND = 0.01
MODEL_LOSSES = ("image", "reward", "cost", "proceed")


def test_first_losses_in_bfloat16_are_those_of_float32() -> None:
    both = learner(), learner("bfloat16")
    for made in both:
        stir(made.agent.model, size=0.05)  # fresh heads are constant, whatever they read
    exact, short = (losses(made, batch(0)) for made in both)
    assert exact.keys() == short.keys() and exact != short
    for name in exact:
        if name.startswith("model/") and name != "model/grad_norm":
            assert short[name] == pytest.approx(exact[name], rel=FIRST_BAND), name


def test_bfloat16_does_not_harm_learning() -> None:
    """Same data, same number of updates: it ends where float32 ends, far from where both began."""
    data = [batch(seed) for seed in range(4)]
    runs = {}
    for precision in ("float32", "bfloat16"):
        made = learner(precision, rate=3e-3)
        rows = [losses(made, data[update % 4]) for update in range(80)]
        assert made.skipped_steps == 0
        runs[precision] = {
            name: (sum(row[f"model/{name}"] for row in part) / len(part))
            for name in MODEL_LOSSES
            for part in [rows[-20:]]
        } | {"first image": rows[0]["model/image"]}
    exact, short = runs["float32"], runs["bfloat16"]
    assert exact["image"] < 0.8 * exact["first image"]
    for name in MODEL_LOSSES:
        assert short[name] == pytest.approx(exact[name], rel=LAST_BAND), name


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the C library of GNU has this setting")
@pytest.mark.parametrize("kept", [True, False])
def test_freed_memory_serves_the_next_tensor(kept: bool) -> None:
    """Pages that are got from the system anew are counted as faults."""
    code = (
        "import resource, torch; from fosp.cli import wire\n"
        f"if {kept}: wire.keep_memory()\n"
        "faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(20):\n"
        "    torch.ones(2**26, dtype=torch.uint8)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) * resource.getpagesize() / 2**26)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    tensors = float(done.stdout)  # so many of the twenty were made of new pages
    assert tensors < 5 if kept else tensors > 15
