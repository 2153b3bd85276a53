"""What machine it is, how fast it can be at best, and how much memory a process has used."""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from fosp.data.workers import end_with_parent

T = TypeVar("T")


def row(name: str, unit: str, samples: Sequence[float], remark: str = "", **more: Any) -> dict[str, Any]:
    """A row of the table: the median and the range of ``samples``, and what else the JSON shall hold."""
    return {
        "name": name, "unit": unit, "median": statistics.median(samples), "low": min(samples), "high": max(samples),
        "samples": list(samples), "remark": remark, **more,
    }  # fmt: skip


def fresh(function: Callable[..., T], *arguments: Any) -> T:
    """The result of a function of a module, called in a process that has done nothing before."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        return pool.submit(function, *arguments).result()


def facts(device: str) -> dict[str, Any]:
    """Names and sizes of what figures depend on."""
    import psutil
    import torch

    from fosp.cli import wire
    from fosp.training.log import versions

    picked = wire.pick_device(device)
    processor = _processor()
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": psutil.virtual_memory().total / 1e9,
        "device": torch.cuda.get_device_name(picked) if picked.type == "cuda" else "no GPU used",
        "threads": torch.get_num_threads(),
        "bfloat16": wire.has_bfloat16(picked),
        "system": platform.platform(),
        "versions": versions(),
        "load": load(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def load() -> float:
    """Processes that wanted a core in the last minute."""
    return os.getloadavg()[0]


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def peak_bytes() -> int:
    """The most memory that this process has had resident.

    Not ``ru_maxrss`` where it can be helped: on Linux that begins with what the parent had when it started the process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def rates(once: Callable[[], Any], step: int, repeats: int, seconds: float) -> tuple[list[float], float]:
    """Calls per second of ``once`` in each repeat, and the cores that were busy on the average.

    A repeat lasts ``seconds`` or longer and consists of a multiple of ``step`` calls. The first repeat warms up: it is
    not counted, and tells how many calls the others have.
    """
    began, calls = time.perf_counter(), 0
    while calls < 2 * step or time.perf_counter() - began < min(seconds, 2.0):
        once()
        calls += 1
    each = (time.perf_counter() - began) / calls
    count = step * max(1, round(seconds / each / step))
    found, wall, work = [], 0.0, 0.0
    for _ in range(repeats):
        began, began_work = time.perf_counter(), time.process_time()
        for _ in range(count):
            once()
        found.append(count / (time.perf_counter() - began))
        wall, work = wall + count / found[-1], work + time.process_time() - began_work
    return found, work / wall


def ceilings(device: Any, precision: str, seconds: float) -> dict[str, float]:
    """GFLOP/s of a large matrix product and of a convolution, the best of what fits into ``seconds`` each.

    On a processor 2048^3 and 64 images of 64 channels, 32x32, on a GPU larger. No share of an update is above 1 by
    much: its shapes are worse than these.
    """
    import torch

    dtype, large = getattr(torch, precision), device.type == "cuda"
    size, images, channels = (8192, 1024, 128) if large else (2048, 64, 64)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    x = torch.randn(images, channels, 32, 32, device=device).to(dtype, memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3, device=device).to(dtype, memory_format=torch.channels_last)
    work = {
        "matmul": (lambda: a @ b, 2 * size**3),
        "convolution": (
            lambda: torch.nn.functional.conv2d(x, weight, padding=1),
            2 * images * 32**2 * channels**2 * 9,
        ),
    }
    return {name: _best(call, flop, device, seconds) / 1e9 for name, (call, flop) in work.items()}


def _best(call: Callable[[], Any], flop: int, device: Any, seconds: float) -> float:
    """FLOP/s of the fastest call."""
    import torch

    with torch.inference_mode():
        call()  # chooses its kernels
        best, end = 0.0, time.perf_counter() + seconds
        while not best or time.perf_counter() < end:
            synchronise(device)
            began = time.perf_counter()
            call()
            synchronise(device)
            best = max(best, flop / (time.perf_counter() - began))
    return best


def synchronise(device: Any) -> None:
    """Waits until the device has done what it was told."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
