"""What `fosp doctor` tries, one function for each section of its table. Each trial does the thing itself, in small."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from fosp.cli.version import installed

Status = Literal["ok", "off", "warn", "FAIL"]  # off: not there, and not needed

BACKENDS = {"linux": ("egl", "osmesa", "glfw"), "darwin": ("cgl",), "win32": ("wgl",)}
PROBE_SECONDS = 60.0
GIB = 2**30
MEMORY_WANTED = 6 * GIB  # the peak of pretraining on 150 episodes is below 4 GB, and other programs run too
DISK_WANTED, DISK_NEEDED = 5 * GIB, GIB // 2  # a log of 150 episodes takes about 1 GB, a run with videos another

_GL_INSTALL = {
    "apt-get": "sudo apt-get install -y libegl1 libegl-mesa0 libgl1-mesa-dri libgl1 libopengl0",
    "dnf": "sudo dnf install -y mesa-libEGL mesa-dri-drivers libglvnd-opengl",
    "pacman": "sudo pacman -S --needed mesa libglvnd",
    "zypper": "sudo zypper install -y Mesa-libEGL1 Mesa-dri libglvnd",
}


@dataclass(frozen=True)
class Check:
    """One row: what was tried, how it went, and the command or step that mends it where it did not go well."""

    section: str
    name: str
    status: Status
    detail: str
    fix: str = ""


# --- gl ---------------------------------------------------------------------------------------------------------------


def probe_gl(backend: str | None) -> dict[str, Any]:
    """What ``fosp.cli.gl_probe`` says of a back end; None tries the one that the environments would take here."""
    environment = dict(os.environ) if backend is None else {**os.environ, "MUJOCO_GL": backend}
    # The folder that holds fosp goes on the path, for a checkout that is not installed.
    root = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "fosp.cli.gl_probe"]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PROBE_SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return {"backend": backend, "error": f"no picture within {PROBE_SECONDS:.0f} s"}
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
    return {"backend": backend, "error": f"the process ended with code {done.returncode}: {last}"}


def check_gl(probe: Callable[[str | None], dict[str, Any]] = probe_gl) -> list[Check]:
    """One back end has to draw, and it has to be the one that the environments take."""
    used = probe(None)
    names = [name for name in BACKENDS.get(sys.platform, ()) if name != used["backend"]]
    others = {name: probe(name) for name in names}
    rows = [_gl_row(name, result) for name, result in others.items()]
    name = used["backend"] or os.environ.get("MUJOCO_GL", "default")
    if "error" not in used:
        return [Check("gl", f"{name} (in use)", "ok", _drawn(used)), *rows]
    working = next((other for other, result in others.items() if "error" not in result), None)
    fix = f"export MUJOCO_GL={working}" if working else _gl_fix()
    return [Check("gl", f"{name} (in use)", "FAIL", _plain(used["error"]), fix), *rows]


def _gl_row(name: str, result: dict[str, Any]) -> Check:
    if "error" in result:
        return Check("gl", name, "off", f"not needed; {_plain(result['error'])}")
    return Check("gl", name, "ok", _drawn(result))


def _plain(error: str) -> str:
    """The libraries' errors that say little, in words that say what is the case."""
    if "'NoneType' object has no attribute" in error:  # PyOpenGL, where a shared library could not be loaded
        return "its shared library is not installed"
    if "OpenGL platform library has not been loaded" in error:  # MuJoCo, after GLFW made no window
        return "there is no display to draw on"
    return error


def _drawn(result: dict[str, Any]) -> str:
    return f"{result['renderer'] or 'drew a picture'}, {result['milliseconds']:.1f} ms for 64x64"


def _gl_fix() -> str:
    if os.environ.get("PYOPENGL_PLATFORM"):
        return "unset PYOPENGL_PLATFORM"
    for manager, command in _GL_INSTALL.items():
        if shutil.which(manager):
            return command
    return "install Mesa's EGL driver with your system's package manager"


# --- codec ------------------------------------------------------------------------------------------------------------


def check_codec() -> list[Check]:
    """Encodes a few frames with the report's own function and decodes them again."""
    reinstall = f"{sys.executable} -m pip install --force-reinstall av"
    try:
        import io

        import av
        import numpy as np

        from fosp.report.video import encode, encoder

        frames = np.zeros((8, 64, 64, 3), np.uint8)
        frames[:, :, :, 0] = 30 * np.arange(8)[:, None, None]
        data = encode(frames, fps=10)
        with av.open(io.BytesIO(data), "r") as container:
            count = sum(1 for _ in container.decode(video=0))
    except Exception as error:
        return [Check("codec", "video", "FAIL", f"{type(error).__name__}: {error}", reinstall)]
    if count != len(frames):
        return [Check("codec", "video", "FAIL", f"wrote {len(frames)} frames, read {count}", reinstall)]
    return [Check("codec", "video", "ok", f"{encoder()}: {count} frames written and read")]


# --- devices ----------------------------------------------------------------------------------------------------------


def check_devices() -> list[Check]:
    """CPU threads and number formats; CUDA devices, and a GPU that this PyTorch cannot use."""
    try:
        import torch
    except Exception as error:
        fix = f"{sys.executable} -m pip install --force-reinstall torch"
        return [Check("devices", "torch", "FAIL", f"{type(error).__name__}: {error}", fix)]
    formats = cpu_formats()
    words = f"bfloat16 by {' and '.join(formats)}" if formats else "no bfloat16 in hardware"
    rows = [Check("devices", "cpu", "ok", f"{torch.get_num_threads()} threads, {words}"), _compiled_row()]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            rows.append(_cuda_row(torch, index))
    elif Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi"):
        reason = "was built without CUDA" if torch.version.cuda is None else "cannot reach the driver"
        fix = (
            f"{sys.executable} -m pip install --force-reinstall torch"
            if torch.version.cuda is None
            else "nvidia-smi  # says what is wrong with the driver"
        )
        rows.append(
            Check("devices", "cuda", "warn", f"an NVIDIA GPU is here, but torch {torch.__version__} {reason}", fix)
        )
    else:
        rows.append(Check("devices", "cuda", "off", "no GPU; everything runs on the CPU"))
    return rows


def _compiled_row() -> Check:
    """Whether loops that learning on a processor takes in C could be compiled; learning is slower without."""
    from fosp.nets import native, perceptron, twohot
    from fosp.world_model import pixels, recurrent

    cc = native.compiler()
    if cc is None:
        fix = (
            "sudo apt-get install -y gcc libc6-dev" if shutil.which("apt-get") else "install a C compiler, such as gcc"
        )
        return Check("devices", "C compiler", "warn", "none (cc), so that learning on the processor is slower", fix)
    if not native.supported():
        return Check("devices", "C compiler", "off", f"no use of it on {platform.machine()}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compiled = [module.library() for module in (perceptron, twohot, pixels, recurrent)]
    if None in compiled:
        reason = str(caught[-1].message) if caught else f"{cc} could not compile what learning takes in C"
        return Check(
            "devices", "C compiler", "warn", reason, f"try {cc} on a program of yours, or name another: CC=gcc"
        )
    return Check("devices", "C compiler", "ok", f"{cc}: what learning takes in C is compiled")


def _cuda_row(torch: Any, index: int) -> Check:
    name = f"cuda:{index}"
    try:
        x = torch.ones(64, 64, device=name)
        if float((x @ x).sum()) != 64.0**3:
            raise RuntimeError("a product of two matrices came out wrong")
    except Exception as error:
        return Check("devices", name, "warn", f"{error}", "use --device cpu, or mend the driver: nvidia-smi")
    properties = torch.cuda.get_device_properties(index)
    bfloat16 = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
    return Check("devices", name, "ok", f"{properties.name}, {properties.total_memory / GIB:.0f} GiB, {bfloat16}")


def cpu_formats(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """The instruction sets of this CPU that make bfloat16 fast; empty where the system does not tell."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return []
    flags = next(
        (line.partition(":")[2].split() for line in text.splitlines() if line.startswith(("flags", "Features"))), []
    )
    return [name for name in ("amx_bf16", "avx512_bf16", "bf16") if name in flags]


# --- versions ---------------------------------------------------------------------------------------------------------


def requirements() -> tuple[str, list[Requirement]]:
    """(supported Pythons, required packages), from the installed metadata or, in a checkout, from pyproject.toml."""
    try:
        about = metadata("fosp")
        python, lines = about["Requires-Python"], about.get_all("Requires-Dist") or []
    except PackageNotFoundError:
        project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
        python, lines = project["requires-python"], project["dependencies"]
    parsed = [Requirement(line) for line in lines]
    return python, [one for one in parsed if one.marker is None or one.marker.evaluate({"extra": ""})]


def check_versions(version_of: Callable[[str], str | None] = installed) -> list[Check]:
    """Python and every required package against the range that fosp supports; what is in order shares one row."""
    python, packages = requirements()
    here = platform.python_version()
    if SpecifierSet(python).contains(here, prereleases=True):
        rows = [Check("versions", "python", "ok", here)]
    else:
        rows = [
            Check(
                "versions",
                "python",
                "FAIL",
                f"{here} is outside {python}",
                "make clean && make setup PYTHON=python3.12",
            )
        ]
    fine = []
    for one in packages:
        version = version_of(one.name)
        if version is not None and one.specifier.contains(version, prereleases=True):
            fine.append(f"{one.name} {version}")
            continue
        detail = f"{version} is outside {one.specifier}" if version else f"is missing; wanted {one.specifier}"
        if one.name == "mujoco" and version == "4.0.0":
            detail += "; this very version computes wrong accelerations"
        fix = f"{sys.executable} -m pip install '{one.name}{one.specifier}'"
        rows.append(Check("versions", one.name, "FAIL", detail, fix))
    return [*rows, Check("versions", "packages", "ok", ", ".join(fine))] if fine else rows


# --- paths ------------------------------------------------------------------------------------------------------------


def check_paths(out: Path) -> list[Check]:
    """Writes a small file to each place that fosp writes to, and looks at the room that is left."""
    choose = "choose a folder that you may write to: --out PATH"
    rows = [_write_row("working folder", Path.cwd(), "warn", choose)]
    try:
        rows.append(
            _write_row("temporary files", Path(tempfile.gettempdir()), "FAIL", "export TMPDIR=~/tmp && mkdir -p ~/tmp")
        )
    except FileNotFoundError as error:  # Python itself found no usable place
        rows.append(Check("paths", "temporary files", "FAIL", str(error), "export TMPDIR=~/tmp && mkdir -p ~/tmp"))
    place = out.expanduser().absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        return [*rows, Check("paths", f"--out {out}", "FAIL", f"{place} is a file", choose)]
    rows.append(_write_row(f"--out {out}", place, "FAIL", choose))
    free = shutil.disk_usage(place).free
    status: Status = "FAIL" if free < DISK_NEEDED else "warn" if free < DISK_WANTED else "ok"
    fix = (
        ""
        if status == "ok"
        else f"make room in {place} ({DISK_WANTED // GIB} GB are comfortable), or choose another place: --out PATH"
    )
    return [*rows, Check("paths", "free disk", status, f"{free / GIB:.1f} GB in {place}", fix)]


def _write_row(name: str, folder: Path, failure: Status, fix: str) -> Check:
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".fosp-doctor-") as file:
            file.write(bytes(65536))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Check("paths", name, failure, f"cannot write to {folder}: {error.strerror}", fix)
    return Check("paths", name, "ok", f"{folder} is writable")


# --- machine ----------------------------------------------------------------------------------------------------------


def check_machine(cgroup: Path = Path("/sys/fs/cgroup")) -> list[Check]:
    """Cores and memory that this process may use; a container's limits count where they are lower."""
    import psutil

    affinity = getattr(os, "sched_getaffinity", None)
    cores = float(len(affinity(0)) if affinity else os.cpu_count() or 1)
    quota = _first_line(cgroup / "cpu.max").split()
    if len(quota) == 2 and quota[0] != "max":
        cores = min(cores, int(quota[0]) / int(quota[1]))
    memory = psutil.virtual_memory().total
    limit = _first_line(cgroup / "memory.max")
    if limit.isdigit():
        memory = min(memory, int(limit))
    few = cores < 2
    little = memory < MEMORY_WANTED
    return [
        Check(
            "machine",
            "cores",
            "warn" if few else "ok",
            f"{cores:g}",
            "expect longer runs: the times in the README are for two cores" if few else "",
        ),
        Check(
            "machine",
            "memory",
            "warn" if little else "ok",
            f"{memory / GIB:.1f} GiB",
            "close other programs, or learn from fewer episodes: pretraining takes up to 4 GB" if little else "",
        ),
    ]


def _first_line(path: Path) -> str:
    try:
        return path.read_text().partition("\n")[0].strip()
    except OSError:
        return ""
