"""Bytes of camera images on their way into the networks; on a processor in one pass each: ``pixels.c``."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fosp.nets import native


def library() -> ctypes.CDLL | None:
    """What the C beside this gives, or None where it cannot be compiled."""
    return native.beside(__file__)


def stack_cameras(images: Mapping[str, Tensor], mirrored: Tensor | None = None) -> Tensor:
    """Cameras side by side on channels; in sequences ``mirrored`` (B,) left is right.

    uint8 (B, T, W, W, 3) each -> (B, T, W, W, C).
    """
    views = list(images.values())
    first = views[0]
    alike = first.is_cpu and first.dtype == torch.uint8 and first.shape[-1] == 3
    alike = alike and all((v.shape, v.dtype, v.device) == (first.shape, first.dtype, first.device) for v in views)
    compiled = library() if alike else None
    if compiled is None:
        stacked = torch.cat(views, -1)
        return stacked if mirrored is None else torch.where(mirrored.view(-1, 1, 1, 1, 1), stacked.flip(-2), stacked)
    views = [view.contiguous() for view in views]
    batch, time, lines, width, _ = views[0].shape
    stacked = torch.empty(batch, time, lines, width, 3 * len(views), dtype=torch.uint8)
    turned = None if mirrored is None else mirrored.byte()
    pointers = (ctypes.c_void_p * len(views))(*map(native.address, views))
    sizes = map(ctypes.c_int64, (len(views), batch, time, lines, width, torch.get_num_threads()))
    compiled.stack(pointers, *map(ctypes.c_void_p, map(native.address, (turned, stacked))), *sizes)
    return stacked


def centre_pixels(x: Tensor) -> Tensor:
    """uint8 -> [-127.5, 127.5], exact in the precision that is computed in, bfloat16 too.

    To divide by 255 is left to the weights: each pass over all images is dear, and a float32 copy the dearest.
    """
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
    plain = kind != "cpu" or x.dtype != torch.uint8 or dtype != torch.bfloat16 or torch.compiler.is_compiling()
    compiled = None if plain else library()
    if compiled is None:
        return x.to(dtype).sub_(127.5)
    x, y = x.contiguous(), torch.empty(x.shape, dtype=dtype)
    pointers = [ctypes.c_void_p(native.address(tensor)) for tensor in (x, y)]
    compiled.centre(*pointers, ctypes.c_int64(x.numel()), ctypes.c_int64(torch.get_num_threads()))
    return y


class ImageError(torch.autograd.Function):
    """Sum of squared differences of each image to what should be said of it, on a processor in one pass.

    At full size a target in float32 and what comes of it do not fit into a processor's cache, and then half a dozen
    passes over them cost as much as a convolution.
    """

    @staticmethod
    def takes(said: Tensor) -> bool:
        if torch.compiler.is_compiling() or not said.is_cpu or said.dtype not in (torch.float32, torch.bfloat16):
            return False
        return said.shape[3] % 3 == 0 and library() is not None

    @staticmethod
    def forward(ctx: Any, said: Tensor, images: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
        """(N, w, w, C), uint8 (N, W, W, C), the map (3, 3), (3,) of the mean colours of squares, 0 to 255 -> (N,)."""
        side = images.shape[1] // said.shape[1]
        if images.shape != (len(said), side * said.shape[1], side * said.shape[2], said.shape[3]):
            raise ValueError(f"images {tuple(images.shape)} are no multiple of what is said, {tuple(said.shape)}")
        said, images = said.contiguous(), images.contiguous()
        matrix, offset = (matrix / side**2).contiguous(), offset.contiguous()
        difference, error = torch.empty_like(said), torch.empty(len(said), dtype=torch.float32)
        pointers = map(native.address, (said, images, matrix, offset, difference, error))
        sizes = (*said.shape[:2], side, said.shape[3] // 3, said.dtype == torch.bfloat16, torch.get_num_threads())
        compiled = library()
        assert compiled is not None
        compiled.image_error(*map(ctypes.c_void_p, pointers), *map(ctypes.c_int64, sizes))
        ctx.save_for_backward(difference)
        return error

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore
        (difference,) = ctx.saved_tensors
        return difference * (2 * gradients[0]).to(difference.dtype).view(-1, 1, 1, 1), None, None, None
