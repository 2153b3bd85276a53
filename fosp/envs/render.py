"""Off-screen pictures of a model from its cameras, in two qualities.

``faithful`` draws as the original did: four samples per pixel and the floor's reflection. ``fast`` drops both, which
leaves everything visible and costs a fraction of the time; the images then differ by about 2 of 255 grey levels, nearly
all of it at edges. No object casts a shadow in either, because the only light does not.
"""

from __future__ import annotations

import atexit
import importlib
import math
import os
import threading
from collections.abc import Sequence
from typing import Any, Literal, get_args

import mujoco
import numpy as np

from fosp.types import UserError

Quality = Literal["fast", "faithful"]
QUALITIES: tuple[str, ...] = get_args(Quality)

_SAMPLES = {"fast": 0, "faithful": 4}
_REFLECTION = {"fast": False, "faithful": True}
#: Into how many (slices, stacks, quads) round things are cut; most of the time of ``fast`` goes into these triangles.
#: Cylinders look the same with fewer stacks; only the outline of the agent's own ball changes by a few pixels.
_TRIANGLES = {"fast": (28, 10, 1), "faithful": (28, 16, 4)}
_MAX_GEOMS = 1000
_DRAWN, _HIDDEN = 0, 5  # geom groups

_contexts = threading.local()
_drawing_process: int | None = None  # the first process, of this one and its ancestors, that drew


def _use_context() -> Any:
    """Make this thread's GL context current, creating it on first use, and return it.

    All painters of a thread share one context: switching contexts between environments would cost more than drawing.
    Raises: ``UserError`` where nothing can be drawn, and in a child forked after its parent drew (it would hang).
    """
    global _drawing_process
    if _drawing_process not in (None, os.getpid()):
        raise UserError(
            f"Process {os.getpid()} was forked after its parent had drawn images, which GL does not survive; "
            "start worker processes with the method 'spawn'."
        )
    if not hasattr(_contexts, "context"):
        _contexts.context = _create_context()
        _drawing_process = os.getpid()
    _contexts.context.make_current()
    return _contexts.context


def _create_context() -> Any:
    try:
        context = _context_class()(64, 64)
        context.make_current()
    except Exception as error:
        raise _cannot_draw(error) from error
    atexit.register(_free_context, context, os.getpid())
    return context


def _context_class() -> Any:
    if os.environ.get("MUJOCO_GL", "").lower() == "egl":
        # MuJoCo chose its class at import, and that may have been before this package set the variable.
        return importlib.import_module("mujoco.egl").GLContext
    return mujoco.GLContext


def _cannot_draw(error: Exception) -> UserError:
    return UserError(
        f"MUJOCO_GL={os.environ.get('MUJOCO_GL') or '(unset)'} cannot draw on this machine "
        f"({error or type(error).__name__}); install the EGL/Mesa libraries or set MUJOCO_GL=osmesa; "
        "`fosp doctor` says which is missing."
    )


def _free_context(context: Any, process: int) -> None:
    if process == os.getpid():
        context.free()


class Painter:
    """Draws fixed cameras of one model, all in one off-screen buffer that is read back once.

    Parameters: ``cameras`` = names in the model; ``size`` = height and width in pixels; ``quality`` = see module.
    The number of a painter's cameras is small: the buffer holds their images one above the other.
    """

    def __init__(self, model: mujoco.MjModel, cameras: Sequence[str], size: int, quality: str) -> None:
        self._model = model
        self._size = size
        self._quality = quality
        self._reflection = _REFLECTION[quality]
        self._whole = mujoco.MjrRect(0, 0, size, size * len(cameras))
        self._thread_context: Any = None
        self._context: mujoco.MjrContext | None = None
        self._scene = mujoco.MjvScene(model, maxgeom=_MAX_GEOMS)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = self._reflection
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False  # nothing casts one
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = 0
        self._option.geomgroup[_DRAWN] = 1  # see _choose_visible
        self._cameras = [self._fixed(model, name) for name in cameras]
        self._rects = [mujoco.MjrRect(0, i * size, size, size) for i in range(len(cameras))]
        self._buffer = np.zeros((size * len(cameras), size, 3), np.uint8)

    @staticmethod
    def _make_context(model: mujoco.MjModel, width: int, height: int, quality: str) -> mujoco.MjrContext:
        """A drawing context whose buffer is just as large as needed: clearing a large one takes longer than drawing."""
        screen, detail = model.vis.global_, model.vis.quality
        wanted = (width, height, _SAMPLES[quality], *_TRIANGLES[quality])

        def exchange(values: tuple[int, ...]) -> tuple[int, ...]:
            before = (screen.offwidth, screen.offheight, detail.offsamples)
            before += (detail.numslices, detail.numstacks, detail.numquads)
            screen.offwidth, screen.offheight, detail.offsamples = values[:3]
            detail.numslices, detail.numstacks, detail.numquads = values[3:]
            return before

        before = exchange(wanted)
        try:
            return mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        except mujoco.FatalError as error:
            raise _cannot_draw(error) from error
        finally:
            exchange(before)

    @staticmethod
    def _fixed(model: mujoco.MjModel, name: str) -> mujoco.MjvCamera:
        index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, name)
        if index < 0:  # MuJoCo would silently draw its free camera instead
            names = ", ".join(model.camera(i).name for i in range(model.ncam))
            raise UserError(f"There is no camera '{name}'; the model has {names}.")
        camera = mujoco.MjvCamera()
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, index
        return camera

    def paint(self, data: mujoco.MjData) -> list[np.ndarray]:
        """One image per camera, uint8 (size, size, 3), row 0 at the top, in memory of its own."""
        context = self._prepare()
        groups = self._model.geom_group.copy()
        try:
            for camera, rect in zip(self._cameras, self._rects, strict=True):
                self._choose_visible(data, camera.fixedcamid)
                everything = mujoco.mjtCatBit.mjCAT_ALL
                mujoco.mjv_updateScene(self._model, data, self._option, None, camera, everything, self._scene)
                mujoco.mjr_render(rect, self._scene, context)
        finally:
            self._model.geom_group[:] = groups
        mujoco.mjr_readPixels(self._buffer, None, self._whole, context)
        size = self._size
        # GL counts rows from the bottom.
        return [self._buffer[i * size : (i + 1) * size][::-1].copy() for i in range(len(self._cameras))]

    def _prepare(self) -> mujoco.MjrContext:
        """This painter's drawing context, bound; made on first use and again after a move to another thread."""
        current = _use_context()
        if self._context is None or current is not self._thread_context:
            width, height = self._whole.width, self._whole.height
            self._context = self._make_context(self._model, width, height, self._quality)
            self._thread_context = current
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)  # another painter's may be bound
        return self._context

    def _choose_visible(self, data: mujoco.MjData, camera: int) -> None:
        """Hide the geoms outside this camera's view: pixels stay the same and drawing takes less than half the time.

        A geom is outside if its bounding sphere, and that of its mirror image in the floor, lies beyond one side of the
        view pyramid. Geom groups serve as the switch (by themselves they would hide hazards, vases and goals).
        """
        model = self._model
        radius = model.geom_rbound  # (ngeom,), 0 for planes
        slope = math.tan(math.radians(model.cam_fovy[camera]) / 2)
        eye, axes = data.cam_xpos[camera], data.cam_xmat[camera].reshape(3, 3)  # columns: right, up, back
        margin = radius * math.sqrt(1 + slope * slope)
        visible = radius == 0
        for mirror in (1.0, -1.0) if self._reflection else (1.0,):
            seen = (data.geom_xpos * (1.0, 1.0, mirror) - eye) @ axes  # (ngeom, 3)
            sides = np.abs(seen[:, :2]).max(axis=1) + slope * seen[:, 2]
            visible |= sides < margin
        model.geom_group[:] = np.where(visible, _DRAWN, _HIDDEN)

    def close(self) -> None:
        """Free the GL memory."""
        if self._context is not None and _use_context() is self._thread_context:
            self._context.free()
        self._context = None
