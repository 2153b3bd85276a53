"""Data-parallel learning: processes that each see their share of every batch and learn as one process would of it all.

All processes draw the same numbers for the whole batch from generators in the same state, and each keeps those of its
own rows: a block of the sequences, then a block of whatever is drawn for as many of them. So what a mean over the whole
batch is in one process is here the mean of the processes' means. Whatever is no mean (percentiles, states that others
hold) is gathered. ``torchrun`` starts the processes; torch.distributed connects them and is called in this file alone.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fosp.types import UserError


class Team:
    """The processes that learn together, seen from the one of number ``rank``. A team of one does nothing."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.interrupted = False  # by a signal to this process

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and tells how far it is."""
        return self.rank == 0

    def own(self, total: int) -> slice:
        """This process's block of ``total`` rows of the whole batch. UserError where they cannot be shared evenly."""
        if total % self.size:
            raise UserError(f"{total} rows cannot be shared by {self.size} processes; take a multiple of {self.size}")
        return slice(self.rank * total // self.size, (self.rank + 1) * total // self.size)

    def share(self, drawn: Tensor, dim: int = 0) -> Tensor:
        """This process's block of what was drawn for the whole batch, along ``dim``."""
        if self.size == 1:
            return drawn
        rows = self.own(drawn.shape[dim])
        return drawn.narrow(dim, rows.start, rows.stop - rows.start)

    def gather(self, x: Tensor) -> Tensor:
        """The blocks (N, ...) of all processes as the whole (size * N, ...), constants."""
        if self.size == 1:
            return x
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(self.size)]
        dist.all_gather(parts, x.detach().contiguous())
        return torch.cat(parts)

    def pick(self, x: Tensor, index: Tensor) -> Tensor:
        """This process's share of rows ``index`` (M,) of the whole, of which it holds the block x (N, ...), constants.

        -> (M / size, ...).
        """
        if self.size == 1:
            return x[index]
        local = index - self.rank * len(x)
        held = (local >= 0) & (local < len(x))  # (M,)
        rows = x.detach()[local.clamp(0, len(x) - 1)]
        found = torch.where(held.view(-1, *[1] * (x.dim() - 1)), rows, torch.zeros_like(rows))
        dist.all_reduce(found)  # one process has the row, the others zeros
        return self.share(found)

    def held(self, index: Tensor, rows: int) -> tuple[Tensor, float]:
        """Which entries of ``index`` (M,), rows of the whole, lie in this process's block of ``rows`` rows.

        Returns their positions, and what a mean over them must be multiplied with so that the mean over the processes
        is the mean over all M. Never none: where there is none, one that counts 0.
        """
        positions = (index // rows == self.rank).nonzero().squeeze(1)
        weight = self.size * len(positions) / len(index)
        return (positions if len(positions) else positions.new_zeros(1)), weight

    def mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The mean of each tensor over the processes, in one exchange; the same to the bit in all of them."""
        if self.size == 1:
            return list(tensors)
        bucket = torch.cat([tensor.detach().flatten() for tensor in tensors])
        dist.all_reduce(bucket)
        parts = bucket.div_(self.size).split([tensor.numel() for tensor in tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    def agree(self, flag: bool) -> bool:
        """Whether the leading process says so. Raises KeyboardInterrupt in all where Ctrl-C has come to any."""
        if self.size == 1:
            return flag
        said = torch.tensor([flag and self.leads, self.interrupted], dtype=torch.int32)
        dist.all_reduce(said)
        if said[1]:
            raise KeyboardInterrupt
        return bool(said[0])

    def hand_round(self, thing: Any) -> Any:
        """What the leading process has, in all processes."""
        if self.size == 1:
            return thing
        box = [thing if self.leads else None]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def same(self, name: str, value: Any) -> None:
        """UserError where this process has another ``value`` than the leading one."""
        first = self.hand_round(value)
        if value != first:
            raise UserError(
                f"{name} is {value!r} in process {self.rank}, but {first!r} in process 0; all must be alike"
            )


#: A process by itself.
ALONE = Team()


def world_size() -> int:
    """How many processes torchrun, or whatever sets its variables, has started."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def leads() -> bool:
    """Whether this process is the leading one of those that torchrun has started, or alone."""
    return world_size() == 1 or os.environ.get("RANK") == "0"


def local_device(kind: str) -> torch.device:
    """The device of this process, "cpu" or "cuda": the GPU of its number on this machine where there are several."""
    if kind != "cuda" or world_size() == 1:
        return torch.device(kind)
    local, found = int(os.environ.get("LOCAL_RANK") or 0), torch.cuda.device_count()
    if local >= found:
        raise UserError(f"--nproc-per-node is more than {local}, but this machine has {found} GPUs; start one on each")
    return torch.device("cuda", local)


def refuse(what: str) -> None:
    """UserError where ``what`` was started as several processes."""
    if world_size() > 1:
        raise UserError(f"{what} runs as one process, but WORLD_SIZE is {world_size()}; only pretrain can be shared")


@contextmanager
def joined(device: torch.device) -> Iterator[Team]:
    """The team that this process belongs to, by the variables that torchrun sets; ``ALONE`` without them.

    Inside, Ctrl-C is noted and comes true at the next ``agree``, in all processes at the same place; a second one at
    once. On GPUs, tensors travel by NCCL; on the CPU by Gloo.
    """
    if world_size() == 1:
        yield ALONE
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UserError(f"WORLD_SIZE is {world_size()}, but {missing[0]} is not set; start the processes with torchrun")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    team = Team(dist.get_rank(), dist.get_world_size())

    def note(number: int, frame: Any) -> None:
        team.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    listens = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, note) if listens else None
    try:
        yield team
    finally:
        if listens:
            signal.signal(signal.SIGINT, before)
        dist.destroy_process_group()
