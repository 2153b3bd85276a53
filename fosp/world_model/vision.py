"""Cameras to embeddings and features back to cameras.

Images are stacked on channels. Decoding may run at a lower resolution than seeing: what lies in the latent state is
decided by what must be reconstructed, and a 32x32 target carries the obstacles of a 64x64 image at a quarter of the
work.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from fosp.nets import perceptron
from fosp.world_model.pixels import centre_pixels


class ImageNorm(nn.Module):
    """Layer norm over all activations of an image. (N, C, W, W), channels last in memory -> the same.

    The family normalises over the channels of each pixel; with a dozen channels that is one tiny row per pixel and was
    the dearest operation of an update on a processor.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm([width, width, channels], eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Stages(nn.Sequential):
    """Layers one after the other, but an ``ImageNorm`` and the SiLU behind it in one pass where that can be done."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        normed = False  # with SiLU, which comes next
        for layer in self:
            if isinstance(layer, ImageNorm) and perceptron.runs_by_hand(x, layer.norm.weight):
                rows, (gain, offset) = x.permute(0, 2, 3, 1), (p.flatten() for p in layer.norm.parameters())
                y = perceptron.NormSiLU.apply(rows.flatten(1), gain, offset)
                x, normed = y.view(rows.shape).permute(0, 3, 1, 2), True
            else:
                x, normed = x if normed else layer(x), False
        return x


def _init(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            fan = nn.init._calculate_fan_in_and_fan_out(layer.weight)
            nn.init.trunc_normal_(layer.weight, std=math.sqrt(2.0 / (fan[0] + fan[1])))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _stages(width: int, first: int) -> list[int]:
    """Strides that bring ``width`` down to 4: ``first``, then twos."""
    return [first] + [2] * int(math.log2(width // first) - 2)


class Patches(nn.Module):
    """The first layer where the stride is 4: one matrix product over 4x4 patches. (N, W, W, C) -> (N, c, w, w)."""

    def __init__(self, channels: int, outputs: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.linear = nn.Linear(channels * size * size, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n, width, _, c = x.shape
        cells = width // self.size
        x = x.view(n, cells, self.size, cells, self.size, c).transpose(2, 3).reshape(n, cells, cells, -1)
        y = nn.functional.linear(centre_pixels(x), self.linear.weight / 255)
        return y.permute(0, 3, 1, 2)  # channels last in memory


class Convolution(nn.Module):
    """The first layer of the reference: kernel 4, stride 2. (N, W, W, C) -> (N, c, w, w)."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, outputs, 4, 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(centre_pixels(x).permute(0, 3, 1, 2), self.conv.weight / 255, None, 2, 1)


class Reduce(nn.Conv2d):
    """Convolution, kernel 4, stride 2: half the side. (N, C, 2 W, 2 W) -> (N, c, W, W)."""

    MANY = 32  # inputs up to which the gradient by phases is the faster one

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 4, 2, 1, bias=False)
        self.by_phases = inputs <= self.MANY

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        if self.by_phases and x.is_cpu:
            return StridedConvolution.apply(x, self.weight)
        return super().forward(x)


class StridedConvolution(torch.autograd.Function):
    """What ``Reduce`` computes, its gradient with respect to the input by phases: twice as fast as oneDNN's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """(N, C, 2 W, 2 W), (c, C, 4, 4) -> (N, c, W, W), in the precision that autocast says."""
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        ctx.dtypes = x.dtype, weight.dtype
        x, kernel = x.to(kind), weight.to(kind)
        ctx.save_for_backward(x, kernel)
        return nn.functional.conv2d(x, kernel, None, 2, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor]:  # pyright: ignore
        x, kernel = ctx.saved_tensors
        kind, weight_kind = ctx.dtypes
        gradient = gradients[0].to(x.dtype)
        _, by_weight, _ = torch.ops.aten.convolution_backward(
            gradient, x, kernel, None, [2, 2], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False]
        )
        by_x = enlarge_by_phases(gradient, kernel, None).to(kind) if ctx.needs_input_grad[0] else None
        return by_x, by_weight.to(weight_kind)


class Encoder(nn.Module):
    """Down to 4x4 in steps of 2. uint8 (N, W, W, C) -> (N, E).

    The reference has kernel 4 and stride 2 throughout (``stem`` 2). A ``stem`` of 4 looks at 4x4 patches first and so
    leaves out the largest activation, which is where a processor without much memory bandwidth spends its time.
    Channels double at every stage and reach the same top.
    """

    END = 4  # side of the last stage

    def __init__(self, channels: int, width: int, depth: int, stem: int) -> None:
        super().__init__()
        strides = _stages(width, stem)
        top = depth * width // 8  # what stride 2 throughout would reach
        sizes = [top // 2**i for i in reversed(range(len(strides)))]
        self.stem = Convolution(channels, sizes[0]) if stem == 2 else Patches(channels, sizes[0], stem)
        width //= stem
        blocks: list[nn.Module] = [ImageNorm(sizes[0], width), nn.SiLU()]
        for inputs, outputs in zip(sizes, sizes[1:], strict=False):
            width //= 2
            blocks += [Reduce(inputs, outputs), ImageNorm(outputs, width), nn.SiLU()]
        self.layers = Stages(*blocks)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.size = top * self.END**2
        _init(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.stem(x)).flatten(1)


class Enlarge(nn.ConvTranspose2d):
    """Transposed convolution, kernel 4, stride 2: twice the side. (N, C, W, W) -> (N, c, 2 W, 2 W)."""

    FEW = 16  # outputs up to which ``PhasedConvolution`` is the faster one

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__(inputs, outputs, 4, 2, 1, bias=bias)
        self.by_phases = outputs <= self.FEW

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        if self.by_phases and x.is_cpu:
            return PhasedConvolution.apply(x, self.weight, self.bias)
        return super().forward(x)


def enlarge_by_phases(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """A transposed convolution, kernel 4, stride 2, for a processor: two to three times as fast as oneDNN's own.

    Each pixel of the result has one of four phases (odd or even row, odd or even column), and those of a phase are a
    plain convolution with a 2x2 kernel: one convolution with four times the outputs gives all, and they are sorted in.
    (N, C, W, W), (C, c, 4, 4), (c,) -> (N, c, 2 W, 2 W), all of one type.
    """
    n, inputs, side, _ = x.shape
    outputs = kernel.shape[1]
    # Row 2i - 1 + p of the result is row i - 1 of x times row 2 + p of the kernel, and row i times row p.
    phases = kernel.view(inputs, outputs, 2, 2, 2, 2).flip(2, 4).permute(3, 5, 1, 0, 2, 4).flatten(0, 2)
    phases = phases.reshape(4 * outputs, inputs, 2, 2).contiguous(memory_format=torch.channels_last)
    wide = None if bias is None else bias.repeat(4)
    y = nn.functional.conv2d(x, phases, wide, padding=1).permute(0, 2, 3, 1)  # (N, W + 1, W + 1, 4 c)
    y = y.reshape(n, side + 1, side + 1, 2, 2, outputs).transpose(2, 3).reshape(n, 2 * side + 2, -1, outputs)
    return y[:, 1:-1, 1:-1].permute(0, 3, 1, 2)


class PhasedConvolution(torch.autograd.Function):
    """What ``Enlarge`` computes, for a processor and few outputs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(N, C, W, W), (C, c, 4, 4), (c,) -> (N, c, 2 W, 2 W), in the precision that autocast says."""
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        x, kernel = x.to(kind), weight.to(kind)
        ctx.save_for_backward(x, kernel)
        ctx.dtypes = weight.dtype, None if bias is None else bias.dtype
        return enlarge_by_phases(x, kernel, None if bias is None else bias.to(kind))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # pyright: ignore
        x, kernel = ctx.saved_tensors
        kind, bias_kind = ctx.dtypes
        gradient = gradients[0].to(x.dtype)
        by_x, by_weight, _ = torch.ops.aten.convolution_backward(
            gradient, x, kernel, None, [2, 2], [1, 1], [1, 1], True, [0, 0], 1, [True, True, False]
        )
        by_bias = None
        if bias_kind is not None:  # whole images first: sums over rows of so few numbers are slow
            image = gradient.permute(0, 2, 3, 1).reshape(len(gradient), -1).sum(0)
            by_bias = image.view(-1, gradient.shape[1]).sum(0, dtype=bias_kind)
        return by_x, by_weight.to(kind), by_bias


class Decoder(nn.Module):
    """The way back, from features to the mean of the image. (N, F) -> (N, C, W, W). W may be less than was seen."""

    def __init__(self, features: int, channels: int, width: int, depth: int) -> None:
        super().__init__()
        strides = _stages(width, 2)
        self.top = depth * width // 8
        self.dense = nn.Linear(features, 16 * self.top)
        sizes = [self.top // 2**i for i in range(len(strides))]
        blocks: list[nn.Module] = []
        for i, (inputs, outputs) in enumerate(zip(sizes, [*sizes[1:], channels], strict=True)):
            last = i == len(sizes) - 1
            blocks.append(Enlarge(inputs, outputs, bias=last))
            if not last:
                blocks += [ImageNorm(outputs, 8 * 2**i), nn.SiLU()]
        self.layers = Stages(*blocks).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        _init(self)

    def forward(self, features: Tensor) -> Tensor:
        x = self.dense(features).view(-1, 4, 4, self.top).permute(0, 3, 1, 2)  # channels last already
        return self.layers(x)


class ColourWhitening(nn.Module):
    """Linear map of colours that gives every colour direction of the data the same variance.

    Brightness (sky, floor, checkers) carries nearly all squared error of an image although what matters, a pale
    tint of the floor, lies across it. Reconstructing whitened colours weights every direction alike without knowing
    what an obstacle looks like. ``strength`` 0 leaves colours as they are, 1 whitens fully. [ours]
    """

    mean: Tensor
    matrix: Tensor
    inverse: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("matrix", torch.eye(3))
        self.register_buffer("inverse", torch.eye(3))

    def fit(self, colours: Tensor, strength: float, floor: float = 0.01) -> None:
        """Set from colours (N, 3) in [0, 1]; directions with less spread than ``floor`` are not blown up further.

        The mean squared size of the data is left as it was, so that loss scales keep their meaning.
        """
        mean = colours.mean(0)
        values, vectors = torch.linalg.eigh((colours - mean).T @ (colours - mean) / len(colours))
        spread = values.clamp(min=0).sqrt().clamp(min=floor)
        gain = spread**-strength
        gain = gain * torch.sqrt(values.sum() / (values * gain**2).sum())
        self.mean.copy_(mean)
        self.matrix.copy_(vectors @ torch.diag(gain) @ vectors.T)
        self.inverse.copy_(vectors @ torch.diag(1 / gain) @ vectors.T)

    def forward(self, images: Tensor) -> Tensor:
        """(N, W, W, C) in [0, 1], cameras stacked as RGB RGB ..., -> whitened, zero mean."""
        gain, offset = self.affine()
        return torch.addmm(offset, images.view(-1, 3), gain).view(images.shape)

    def affine(self) -> tuple[Tensor, Tensor]:
        """(3, 3), (3,): a row of colours times the first plus the second is whitened."""
        return self.matrix.T, -(self.mean @ self.matrix.T)

    def undo(self, whitened: Tensor) -> Tensor:
        """Back to colours in [0, 1]. (N, W, W, C)."""
        pixels = whitened.float().reshape(-1, 3)
        return (pixels @ self.inverse.T + self.mean).view(whitened.shape).clamp(0, 1)
