"""C beside the Python that calls it: compiled at first use for the processor at hand, kept, and shared by all runs.

Some loops have so little to do in each step that what surrounds an operation of PyTorch takes longer than the
operation. They are written in C with OpenMP, whose threads are PyTorch's own. Without a C compiler nothing is lost but
time: whoever calls does the same with PyTorch.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

FLAGS = (
    "-O3", "-march=native", "-mprefer-vector-width=512", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared",
    "-fPIC",
)  # fmt: skip
HEADERS = Path(__file__).parent


def compiler() -> str | None:
    """The C compiler: what CC names, else cc; None where there is none."""
    return shutil.which(os.environ.get("CC", "cc"))


def supported() -> bool:
    """Whether the flags are known to this machine's compilers."""
    return platform.machine() in ("x86_64", "AMD64")


@cache
def library(source: Path) -> ctypes.CDLL | None:
    """The functions of a C file, compiled unless that was done before; None, after a warning, where it cannot be."""
    cc = compiler()
    if cc is None or not supported():
        return None
    cpu = Path("/proc/cpuinfo")
    flags = [line for line in cpu.read_text().splitlines() if line.startswith("flags")][:1] if cpu.exists() else []
    text = b"".join(path.read_bytes() for path in (source, *sorted(HEADERS.glob("*.h"))))
    key = hashlib.sha256(text + repr((FLAGS, cc, flags, platform.machine())).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fosp"
    name = f"{source.stem}-{key}.so"
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return _loaded(cc, source, folder / name)
        except OSError:  # a home that cannot be written to, or from which nothing may be run
            with tempfile.TemporaryDirectory(prefix="fosp-") as other:
                return _loaded(cc, source, Path(other) / name)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[0]
        warnings.warn(f"{source.name} could not be compiled, so that learning is slower ({reason})", stacklevel=2)
        return None


def _loaded(cc: str, source: Path, built: Path) -> ctypes.CDLL:
    if not built.exists():
        build(cc, source, built)
    return ctypes.CDLL(str(built))


def build(cc: str, source: Path, built: Path) -> None:
    """To a name of its own first: other processes may do the same at this moment. CalledProcessError, OSError."""
    handle, made = tempfile.mkstemp(".so", dir=built.parent)
    os.close(handle)
    try:
        subprocess.run(
            [cc, *FLAGS, f"-I{HEADERS}", str(source), "-o", made, "-lm"], check=True, capture_output=True, text=True
        )
        os.replace(made, built)
    finally:
        Path(made).unlink(missing_ok=True)


@cache
def beside(module: str) -> ctypes.CDLL | None:
    """What the C file beside a module (its ``__file__``) gives, or None where it cannot be compiled."""
    return library(Path(module).with_suffix(".c"))


def rounds() -> bool:
    """Whether autocast asks a processor for bfloat16."""
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def address(tensor: Tensor | None) -> int | None:
    """Of the first number, for a pointer; None for null. ValueError where the numbers do not lie in one piece."""
    if tensor is None:
        return None
    if not tensor.is_contiguous():
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} does not lie in one piece")
    return tensor.data_ptr()
