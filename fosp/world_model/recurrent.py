"""Several steps of the recurrent state-space model at once on a processor, with their gradient: ``recurrent.c``.

The numbers are those of ``RSSM.observe_step`` and ``imagine_step`` up to rounding, which are one computation: without
an image, the prior's layers stand where the posterior's did. A step has some forty operations on a handful of rows, so
that PyTorch's bookkeeping takes longer than the mathematics. What is kept is float32; under autocast the factors of
large products are rounded where the processor multiplies bfloat16. The gradient of a weight is one product over all
steps, by PyTorch, in the precision that autocast says.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd

from fosp.nets import native

_POINTER, _INT = ctypes.c_void_p, ctypes.c_int64
MAX_LAYERS = 4  # of a policy


class _Layer(ctypes.Structure):
    _fields_ = [(name, _POINTER) for name in ("weight", "gain", "offset")]


_KEPT = (
    "x_hat", "x_scale", "both", "gates_hat", "gates_scale", "reset", "update", "fresh", "y_hat", "y_scale", "hidden",
    "probs",
)  # fmt: skip


class _Forward(ctypes.Structure):
    _fields_ = [
        *((name, _INT) for name in ("steps", "rows", "row_stride", "step_stride", "threads", "half")),
        *((name, _INT) for name in ("memory", "groups", "classes", "units", "actions", "actor_units", "actor_layers")),
        ("unimix", ctypes.c_double),
        *((name, _POINTER) for name in ("action", "keep", "seen", "noise", "start_memory", "start_class")),
        *((name, _Layer) for name in ("inputs", "gates", "post")),
        *((name, _POINTER) for name in ("logits", "bias")),
        ("actor", _Layer * MAX_LAYERS),
        *((name, _POINTER) for name in ("actor_out", "actor_bias", "actor_noise", "first_action", "exploring")),
        *((name, ctypes.c_double) for name in ("min_std", "max_std")),
        *((name, _POINTER) for name in ("h", "z", "log_probs", *_KEPT)),
    ]


class _Backward(ctypes.Structure):
    _fields_ = [
        ("f", _Forward),
        *((name, _POINTER) for name in ("d_h", "d_z", "d_log_probs")),
        *((name, _POINTER) for name in ("d_x", "d_gates", "d_y", "d_logits", "d_action")),
        *((name, _POINTER) for name in ("d_start_h", "d_start_z", "d_norms")),
    ]


class Weights(NamedTuple):
    """inputs (U, S K + A), gates (3 D, U + D), memory (U, D), each with gain and offset of its norm; then the logits'
    (S K, U) and their bias. As in ``nn.Linear``: (outputs, inputs)."""

    inputs: Tensor
    inputs_gain: Tensor
    inputs_offset: Tensor
    gates: Tensor
    gates_gain: Tensor
    gates_offset: Tensor
    memory: Tensor
    memory_gain: Tensor
    memory_offset: Tensor
    logits: Tensor
    bias: Tensor

    def fill(self, into: _Forward, turned: bool) -> list[Tensor]:
        """Pointers of ``into``; ``turned``: to weights (inputs, outputs). Returns what must live as long."""
        inputs, gates, memory, logits = (
            w.detach().t().contiguous() if turned else w.detach().contiguous()
            for w in (self.inputs, self.gates, self.memory, self.logits)
        )
        into.inputs = _layer(inputs, self.inputs_gain, self.inputs_offset)
        into.gates = _layer(gates, self.gates_gain, self.gates_offset)
        into.post = _layer(memory, self.memory_gain, self.memory_offset)
        into.logits, into.bias = native.address(logits), native.address(self.bias)
        return [inputs, gates, memory, logits]


@dataclass(frozen=True)
class Chooser:
    """A Gaussian policy on states: mean tanh(.), standard deviation from its bounds, its sample clipped to [-1, 1]."""

    layers: Sequence[tuple[Tensor, Tensor, Tensor]]  # weight (U', F), then (U', U'); gain, offset; MAX_LAYERS at most
    out: Tensor  # (2 A, U')
    bias: Tensor
    std: tuple[float, float]  # least and most
    noise: Tensor  # (T, N, A), standard normal
    first_action: Tensor  # (N, A), of the rows that explore
    exploring: Tensor  # (N,) bool


def _layer(weight: Tensor, gain: Tensor, offset: Tensor) -> _Layer:
    return _Layer(*map(native.address, (weight, gain, offset)))


def library() -> ctypes.CDLL | None:
    """What the C beside this gives, or None where it cannot be compiled."""
    return native.beside(__file__)


@dataclass(frozen=True)
class Rollout:
    """What the steps gave; cells are (B, T) or, with time in front, (T, B)."""

    h: Tensor  # (cells, D)
    z: Tensor  # (cells, S, K)
    log_probs: Tensor  # (cells, S, K)
    action: Tensor  # (cells, A), before each state
    kept: dict[str, Tensor]  # for the gradient


@torch.no_grad()
def roll(
    weights: Weights, noise: Tensor, unimix: float, time_first: bool, keeping: bool, half: bool, *,
    action: Tensor | None = None, keep: Tensor | None = None, seen: Tensor | None = None,
    start: tuple[Tensor, Tensor] | None = None, chooser: Chooser | None = None,
) -> Rollout:  # fmt: skip
    """All steps. ``action``, cells (A), or a ``chooser`` of them; ``start`` = h (N, D) and one-hot z (N, S, K) or zero.

    noise, cells (S, K); ``keep``, cells, 0 where nothing comes from the row before; ``seen``, cells (units), what the
    posterior makes of images. ``keeping``: for a gradient. ``half``: factors of products may be rounded to bfloat16.
    """
    compiled = library()
    assert compiled is not None
    cells, (groups, classes) = tuple(noise.shape[:2]), noise.shape[2:]
    units, memory = weights.memory.shape
    actions = weights.inputs.shape[1] - groups * classes
    f, new = _sizes(cells, time_first, weights, groups, classes, unimix, half), noise.new_empty
    action = new((*cells, actions)) if action is None else action.contiguous()
    sizes = (units, 1, units + memory, 3 * memory, 1, memory, memory, memory, units, 1, units, groups * classes)
    kept = {name: new((*cells, size)) for name, size in zip(_KEPT, sizes, strict=True)} if keeping else {}
    found = {"h": new((*cells, memory)), "z": new(noise.shape), "log_probs": new(noise.shape)}
    alive: list[Any] = weights.fill(f, turned=True)
    read = {"noise": noise.contiguous(), "keep": keep, "seen": seen, "action": action}
    for name, tensor in {**read, **kept, **found}.items():
        alive.append(tensor if tensor is None else tensor.contiguous())
        setattr(f, name, native.address(alive[-1]))
    if start is not None:
        alive += [start[0].float().contiguous(), start[1].argmax(-1).int().contiguous()]
        f.start_memory, f.start_class = map(native.address, alive[-2:])
    if chooser is not None:
        f.actor_units, f.actor_layers = chooser.out.shape[1], len(chooser.layers)
        turned = [(w.t().contiguous(), gain, offset) for w, gain, offset in chooser.layers]
        f.actor = (_Layer * MAX_LAYERS)(*[_layer(*layer) for layer in turned])
        f.min_std, f.max_std = chooser.std
        for name, tensor in (
            ("actor_out", chooser.out.t().contiguous()), ("actor_bias", chooser.bias),
            ("actor_noise", chooser.noise.contiguous()), ("first_action", chooser.first_action.contiguous()),
            ("exploring", chooser.exploring.byte()),
        ):  # fmt: skip
            alive.append(tensor)
            setattr(f, name, native.address(tensor))
        alive.append(turned)
    compiled.forward(ctypes.byref(f))
    return Rollout(**found, action=action, kept=kept)


def _sizes(
    cells: tuple[int, ...], time_first: bool, weights: Weights, groups: int, classes: int, unimix: float, half: bool
) -> _Forward:  # fmt: skip
    units, memory = weights.memory.shape
    steps, rows = cells if time_first else cells[::-1]
    strides = (1, rows) if time_first else (steps, 1)
    return _Forward(
        steps, rows, *strides, torch.get_num_threads(), half, memory, groups, classes, units,
        weights.inputs.shape[1] - groups * classes, unimix=unimix,
    )  # fmt: skip


class Recurrence(torch.autograd.Function):
    """States of sequences or rollouts, as ``roll`` gives them, which may have been called before (``rolled``).

    seen, action, start h and z (or None) and the weights have gradients; z's is that of the probabilities.
    -> h (cells, D), z (cells, S, K), log-probabilities (cells, S, K).
    """

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(
        ctx: Any, seen: Tensor | None, action: Tensor, start_h: Tensor | None, start_z: Tensor | None,
        keep: Tensor | None, noise: Tensor, unimix: float, time_first: bool, half: bool, rolled: Rollout | None,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        start = None if start_h is None or start_z is None else (start_h, start_z)
        if rolled is None:
            rolled = roll(
                Weights(*weights), noise, unimix, time_first, any(ctx.needs_input_grad), half, action=action,
                keep=keep, seen=seen, start=start,
            )  # fmt: skip
        h, z, log_probs, action = rolled.h, rolled.z, rolled.log_probs, rolled.action
        ctx.kept, ctx.unimix, ctx.time_first, ctx.half = rolled.kept, unimix, time_first, half
        ctx.save_for_backward(h, z, action, start_z, keep, *weights)
        return h, z, log_probs

    @staticmethod
    @custom_bwd(device_type="cpu")
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore
        h, z, action, start_z, keep, *rest = ctx.saved_tensors
        weights, kept, time_first = Weights(*rest), ctx.kept, ctx.time_first
        cells, (groups, classes) = tuple(z.shape[:2]), z.shape[2:]
        f, new = _sizes(cells, time_first, weights, groups, classes, ctx.unimix, ctx.half), h.new_empty
        alive: list[Any] = [weights.fill(f, turned=False), keep if keep is None else keep.contiguous()]
        for name, tensor in kept.items():
            setattr(f, name, native.address(tensor))
        f.keep = native.address(alive[1])
        b = _Backward(f=f)
        for name, gradient, of in zip(("d_h", "d_z", "d_log_probs"), gradients, (h, z, None), strict=True):
            if gradient is None and of is not None:
                gradient = torch.zeros_like(of)
            alive.append(gradient if gradient is None else gradient.contiguous())
            setattr(b, name, native.address(alive[-1]))
        units, memory = weights.memory.shape
        states, rows = groups * classes, f.rows
        d = {
            "d_x": new((*cells, units)), "d_gates": new((*cells, 3 * memory)), "d_y": new((*cells, units)),
            "d_logits": new((*cells, states)), "d_action": torch.empty_like(action),
            "d_norms": h.new_zeros((f.threads, 4 * units + 6 * memory)),
        }  # fmt: skip
        if start_z is not None:
            d |= {"d_start_h": new((rows, memory)), "d_start_z": new((rows, groups, classes))}
        for name, tensor in d.items():
            setattr(b, name, native.address(tensor))
        compiled = library()
        assert compiled is not None
        compiled.backward(ctypes.byref(b))
        d_weights: tuple[Tensor | None, ...] = (None,) * len(weights)
        if any(ctx.needs_input_grad[-len(weights) :]):
            entry = torch.cat([before(z, start_z, keep, time_first).flatten(2), action], -1)

            def product(name: str, read: Tensor) -> Tensor:
                kind = torch.bfloat16 if ctx.half else torch.float32
                return (d[name].flatten(0, 1).to(kind).t() @ read.flatten(0, 1).to(kind)).float()

            norms = d["d_norms"].sum(0).split([units, units, 3 * memory, 3 * memory, units, units])
            d_weights = (
                product("d_x", entry), *norms[:2], product("d_gates", kept["both"]), *norms[2:4], product("d_y", h),
                *norms[4:], product("d_logits", kept["hidden"]), d["d_logits"].flatten(0, 1).sum(0),
            )  # fmt: skip
        inputs = d["d_y"], d["d_action"], d.get("d_start_h"), d.get("d_start_z")
        wanted = [gradient if asked else None for gradient, asked in zip(inputs, ctx.needs_input_grad, strict=False)]
        return *wanted, *(None for _ in range(6)), *d_weights


def before(z: Tensor, start: Tensor | None, keep: Tensor | None, time_first: bool) -> Tensor:
    """z of the step before each cell. (cells, S, K), (N, S, K) or None for zero, (cells) -> (cells, S, K)."""
    time = 0 if time_first else 1
    first = torch.zeros_like(z.select(time, 0)) if start is None else start
    shifted = torch.cat([first.unsqueeze(time), z.narrow(time, 0, z.shape[time] - 1)], time)
    return shifted if keep is None else shifted * keep[..., None, None]
