"""``RSSM.observe`` with its gradient written out: the same numbers up to rounding, in half the time on a processor.

A step has some forty operations on a handful of rows, so that autograd's bookkeeping takes longer than the mathematics,
and the gradient of every weight is computed, and added to the last one, anew at each step. Here nothing is recorded,
and each weight gets its gradient in one product over all steps. All in float32: so few rows gain nothing by less.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd

_ops: Any = torch.ops.aten
EPS = 1e-3  # of every layer norm


class Filter(torch.autograd.Function):
    """Posterior states of sequences, time in front.

    seen (T, B, units), action of the row before (T, B, A), ``keep`` (T, B, 1) = 0 where an episode begins, Gumbel noise
    (T, B, S, K), share of the uniform distribution, then weights: inputs (units, S K + A), gates (3 D, units + D),
    memory (units, D), out (S K, units) and its bias, each of the first three followed by gain and offset of its norm.
    -> h (T, B, D), z (T, B, S, K), log-probabilities (T, B, S, K). Gradients: of ``seen`` and the weights.
    """

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(
        ctx: Any, seen: Tensor, action: Tensor, keep: Tensor, noise: Tensor, unimix: float, *weights: Tensor
    ) -> tuple[Tensor, ...]:  # fmt: skip
        w_in, gain_in, offset_in, w_gates, gain_gates, offset_gates, w_memory, gain, offset, w_out, bias = weights
        _, batch, groups, classes = noise.shape
        acted = action @ w_in[:, groups * classes :].t()  # (T, B, units)
        w_state = w_in[:, : groups * classes]
        h = seen.new_zeros(batch, w_memory.shape[1])
        z = seen.new_zeros(batch, groups * classes)
        kept: list[tuple[Tensor, ...]] = []
        hs, zs, posts = [], [], []
        for t, going in enumerate(keep):
            h_before, z_before = h * going, z * going
            x = torch.addmm(acted[t], z_before, w_state.t())
            x_normed, *x_moments = torch.native_layer_norm(x, x.shape[-1:], gain_in, offset_in, EPS)
            both = torch.cat([torch.nn.functional.silu(x_normed), h_before], -1)
            gates = both @ w_gates.t()
            normed, *moments = torch.native_layer_norm(gates, gates.shape[-1:], gain_gates, offset_gates, EPS)
            reset, candidate, update = normed.chunk(3, -1)
            reset, update = torch.sigmoid(reset), torch.sigmoid(update - 1.0)
            fresh = torch.tanh(reset * candidate)
            h = torch.lerp(h_before, fresh, update)
            y = torch.addmm(seen[t], h, w_memory.t())
            y_normed, *y_moments = torch.native_layer_norm(y, y.shape[-1:], gain, offset, EPS)
            hidden = torch.nn.functional.silu(y_normed)
            probs = torch.softmax(torch.addmm(bias, hidden, w_out.t()).view(batch, groups, classes), -1)
            mixed = probs * (1 - unimix) + unimix / classes
            log_probs = torch.log(mixed)
            index = (log_probs + noise[t]).argmax(-1, keepdim=True)
            one_hot = torch.zeros_like(mixed).scatter_(-1, index, 1.0)
            z = one_hot.flatten(1)
            hs.append(h)
            zs.append(one_hot)
            posts.append(log_probs)
            if any(ctx.needs_input_grad):
                kept.append((
                    h_before, z_before, x, x_normed, *x_moments, both, gates, *moments, reset, candidate, update,
                    fresh, y, y_normed, *y_moments, hidden, probs, mixed,
                ))  # fmt: skip
        ctx.kept, ctx.unimix, ctx.weights = kept, unimix, weights
        h_all = torch.stack(hs)
        ctx.save_for_backward(action, keep, h_all)
        return h_all, torch.stack(zs), torch.stack(posts)

    @staticmethod
    @custom_bwd(device_type="cpu")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Back through time. ``d_x`` is the derivative of the loss with respect to x."""
        d_hs, d_zs, d_posts = gradients
        action, keep, h_all = ctx.saved_tensors
        w_in, gain_in, offset_in, w_gates, gain_gates, offset_gates, w_memory, gain, offset, w_out, _ = ctx.weights
        units, states = w_memory.shape[0], d_zs[0, 0].numel()
        w_state = w_in[:, :states]
        d_h, d_z = torch.zeros_like(h_all[0]), torch.zeros_like(d_zs[0])
        passed: list[tuple[Tensor, ...]] = []
        for t in range(len(keep) - 1, -1, -1):
            (
                h_before, _, x, x_normed, x_mean, x_scale, _, gates, mean, scale, reset, candidate, update, fresh,
                y, y_normed, y_mean, y_scale, _, probs, mixed,
            ) = ctx.kept[t]  # fmt: skip
            # Straight through: the sample's gradient is that of the probabilities.
            d_mixed = torch.addcdiv(d_zs[t] + d_z, d_posts[t], mixed)
            d_logits = _ops._softmax_backward_data(d_mixed * (1 - ctx.unimix), probs, -1, probs.dtype).flatten(1)
            d_y_normed = _ops.silu_backward(d_logits @ w_out, y_normed)
            d_y = _norm_backward(d_y_normed, y, y_mean, y_scale, gain, offset)
            d_h = torch.addmm(d_hs[t] + d_h, d_y, w_memory)
            d_fresh = _ops.tanh_backward(d_h * update, fresh)
            d_reset = _ops.sigmoid_backward(d_fresh * candidate, reset)
            d_update = _ops.sigmoid_backward(d_h * (fresh - h_before), update)
            d_normed = torch.cat([d_reset, d_fresh * reset, d_update], -1)
            d_gates = _norm_backward(d_normed, gates, mean, scale, gain_gates, offset_gates)
            d_both = d_gates @ w_gates
            d_x_normed = _ops.silu_backward(d_both[:, :units], x_normed)
            d_x = _norm_backward(d_x_normed, x, x_mean, x_scale, gain_in, offset_in)
            d_h = (d_h - d_h * update + d_both[:, units:]) * keep[t]
            d_z = (d_x @ w_state * keep[t]).view_as(d_z)
            passed.append((d_x_normed, d_x, d_normed, d_gates, d_y_normed, d_y, d_logits))
        d_x_normed, d_x, d_normed, d_gates, d_y_normed, d_y, d_logits = map(_rows, zip(*reversed(passed), strict=True))
        (
            _, z_before, x, _, x_mean, x_scale, both, gates, mean, scale, *_, y, _, y_mean, y_scale, hidden, _, _,
        ) = map(_rows, zip(*ctx.kept, strict=True))  # fmt: skip
        d_weights = (
            d_x.t() @ torch.cat([z_before, action.flatten(0, 1)], -1),
            *_affine_backward(d_x_normed, x, x_mean, x_scale, gain_in, offset_in),
            d_gates.t() @ both,
            *_affine_backward(d_normed, gates, mean, scale, gain_gates, offset_gates),
            d_y.t() @ h_all.flatten(0, 1),
            *_affine_backward(d_y_normed, y, y_mean, y_scale, gain, offset),
            d_logits.t() @ hidden,
            d_logits.sum(0),
        )
        return d_y.view(*h_all.shape[:2], units), None, None, None, None, *d_weights


def _rows(steps: tuple[Tensor, ...]) -> Tensor:
    """T tensors (B, ...) -> (T * B, ...)."""
    return torch.cat(steps)


def _norm_backward(d_out: Tensor, x: Tensor, mean: Tensor, scale: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    """Derivative with respect to the input of a layer norm."""
    shape = x.shape[-1:]
    return _ops.native_layer_norm_backward(d_out, x, shape, mean, scale, gain, offset, [True, False, False])[0]


def _affine_backward(
    d_out: Tensor, x: Tensor, mean: Tensor, scale: Tensor, gain: Tensor, offset: Tensor
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Derivatives with respect to gain and offset of a layer norm."""
    shape = x.shape[-1:]
    return _ops.native_layer_norm_backward(d_out, x, shape, mean, scale, gain, offset, [False, True, True])[1:]
