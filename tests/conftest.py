"""What all tests share: the same renderer everywhere, figures without a screen, reproducible examples in CI."""

import os
import sys
from pathlib import Path

from hypothesis import settings

if sys.platform.startswith("linux"):
    os.environ.setdefault("MUJOCO_GL", "egl")  # also where there is a display: tests open no windows
    for _name in ("DISPLAY", "WAYLAND_DISPLAY"):
        os.environ.pop(_name, None)
os.environ.setdefault("MPLBACKEND", "Agg")
# The networks here are tiny: a second thread costs more than it brings, and against a busy core many times more.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The full recordings of the original are used where they lie beside the clone; its own extracts always are.
_recordings = Path(__file__).parents[2] / "shared" / "parity"
if _recordings.is_dir():
    os.environ.setdefault("FOSP_PARITY_DIR", str(_recordings))

# No deadline: a shared machine may be slow at any moment, which says nothing about the code.
settings.register_profile("fosp", deadline=None)
settings.register_profile("fosp-ci", deadline=None, derandomize=True)
settings.load_profile("fosp-ci" if os.environ.get("CI") else "fosp")
