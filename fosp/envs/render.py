"""Off-screen pictures of a model from its cameras, in two qualities.

``faithful`` draws as the original did: four samples per pixel and the floor's reflection. ``fast`` draws four rows for
each row of the image without samples and averages them, and draws the reflection only of something solid and near,
which costs a fraction of the time; the images then differ by about 1.2 of 255 grey levels, nearly all of it at edges.
No object casts a shadow in either, because the only light does not.
"""

from __future__ import annotations

import atexit
import importlib
import itertools
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
#: Rows drawn per row of the image. Most edges here, the horizon above all, are near to horizontal, so that 1x4 pixels
#: differ less from four samples than 2x2 or 2x3 do.
_ROWS = {"fast": 4, "faithful": 1}
#: Nothing is drawn mirrored unless the mirror image of something opaque, the agent itself aside, has at least this
#: apparent radius, as a share of half the image's width. The mirror images of what is clear are faint.
_REFLECTED = {"fast": 0.22, "faithful": 0.0}
#: Into how many (slices, stacks, quads) balls and boxes are cut: as the original's, and as few as look like them.
_TRIANGLES = {"fast": (28, 8, 1), "faithful": (28, 16, 4)}
#: MuJoCo's shapes lie in one block of display lists (``mjrSPHERE`` to ``mjrCONE`` in its render_context.h).
_SHAPES, _CYLINDER = 8, 3
#: A cylinder is near if its half height is at least this share of its distance.
_NEAR = 0.12
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


class _View:
    """What a camera can see at most: a pyramid, whose sides have the slope of half the field of view."""

    def __init__(self, model: mujoco.MjModel, camera: int) -> None:
        self.camera = camera
        self.slope = math.tan(math.radians(model.cam_fovy[camera]) / 2)
        self.radius = model.geom_rbound.copy()  # (ngeom,), 0 for planes
        self.planes = self.radius == 0
        #: Half the height of cylinders, 0 for all else, (ngeom,).
        self.cylinders = np.where(model.geom_type == mujoco.mjtGeom.mjGEOM_CYLINDER, model.geom_size[:, 1], 0.0)
        root = model.body_rootid[model.geom_bodyid]
        #: Geoms that do not belong to the robot which carries the camera, (ngeom,) bool.
        self.others = (root != model.body_rootid[model.cam_bodyid[camera]]) & ~self.planes
        self._margin = self.radius * math.sqrt(1 + self.slope * self.slope)

    def holds(self, seen: np.ndarray) -> np.ndarray:
        """Whether bounding spheres at positions (ngeom, 3), as (right, up, back) of the camera, reach into it."""
        return np.maximum(np.abs(seen[:, 0]), np.abs(seen[:, 1])) + self.slope * seen[:, 2] < self._margin


class Painter:
    """Draws fixed cameras of one model, all in one off-screen buffer that is read back once.

    Parameters: ``cameras`` = names in the model; ``size`` = height and width in pixels; ``quality`` = see module.
    The number of a painter's cameras is small: the buffer holds their images one above the other.
    """

    def __init__(self, model: mujoco.MjModel, cameras: Sequence[str], size: int, quality: str) -> None:
        self._model = model
        self._size = size
        self._quality = quality
        self._rows = _ROWS[quality]
        height = size * self._rows
        self._whole = mujoco.MjrRect(0, 0, size, height * len(cameras))
        self._thread_context: Any = None
        self._context: mujoco.MjrContext | None = None
        self._cylinders: _Cylinders | None = None
        self._scene = mujoco.MjvScene(model, maxgeom=_MAX_GEOMS)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False  # nothing casts one
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = quality == "faithful"  # else black: nearly the same
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = 0
        self._option.geomgroup[_DRAWN] = 1  # see _choose_visible
        self._option.sitegroup[:] = 0  # the only one lies inside the agent: it cannot be seen, only paid for
        self._cameras = [self._fixed(model, name) for name in cameras]
        self._views = [_View(model, camera.fixedcamid) for camera in self._cameras]
        self._rects = [mujoco.MjrRect(0, i * height, size, height) for i in range(len(cameras))]
        self._buffer = np.zeros((height * len(cameras), size, 3), np.uint8)

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
        context, cylinders = self._prepare()
        groups = self._model.geom_group.copy()
        everything = mujoco.mjtCatBit.mjCAT_ALL
        try:
            for camera, view, rect in zip(self._cameras, self._views, self._rects, strict=True):
                cylinders.choose(near=self._choose_visible(data, view))
                mujoco.mjv_updateScene(self._model, data, self._option, None, camera, everything, self._scene)
                for eye in self._scene.camera:
                    eye.frustum_width = eye.frustum_top  # as wide as high, whatever the shape of the buffer
                mujoco.mjr_render(rect, self._scene, context)
        finally:
            self._model.geom_group[:] = groups
        mujoco.mjr_readPixels(self._buffer, None, self._whole, context)
        whole = self._buffer if self._rows == 1 else _averaged(self._buffer, self._rows)
        size = self._size
        # GL counts rows from the bottom.
        return [whole[i * size : (i + 1) * size][::-1].copy() for i in range(len(self._cameras))]

    def _prepare(self) -> tuple[mujoco.MjrContext, _Cylinders]:
        """This painter's drawing context, bound; made on first use and again after a move to another thread."""
        current = _use_context()
        if self._context is None or self._cylinders is None or current is not self._thread_context:
            width, height = self._whole.width, self._whole.height
            self._context = self._make_context(self._model, width, height, self._quality)
            self._cylinders = _Cylinders(self._context, *_TRIANGLES[self._quality][:2])
            self._thread_context = current
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)  # another painter's may be bound
        return self._context, self._cylinders

    def _choose_visible(self, data: mujoco.MjData, view: _View) -> bool:
        """Hide the geoms outside a camera's view: pixels stay the same and drawing takes less than half the time.

        Returns: whether a cylinder that can be seen is near.

        A geom is outside if its bounding sphere, and that of its mirror image in the floor, lies beyond one side of the
        view pyramid. Geom groups serve as the switch (by themselves they would hide hazards, vases and goals).
        """
        model, axes = self._model, data.cam_xmat[view.camera].reshape(3, 3)  # columns: right, up, back
        seen = (data.geom_xpos - data.cam_xpos[view.camera]) @ axes  # (ngeom, 3)
        mirrored = seen - 2 * data.geom_xpos[:, 2:] * axes[2]
        drawn, reflected = view.holds(seen), view.holds(mirrored)
        share = _REFLECTED[self._quality]
        if share > 0:
            large = view.radius > -share * view.slope * mirrored[:, 2]
            reflected &= bool((reflected & large & view.others & (model.geom_rgba[:, 3] > 0.9)).any())
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = share == 0 or bool(reflected.any())
        model.geom_group[:] = np.where(view.planes | drawn | reflected, _DRAWN, _HIDDEN)
        near = view.cylinders**2 > _NEAR**2 * np.einsum("ij,ij->i", seen, seen)
        return bool((near & drawn).any())

    def close(self) -> None:
        """Free the GL memory."""
        if self._context is not None and self._cylinders is not None and _use_context() is self._thread_context:
            self._cylinders.free()
            self._context.free()
        self._context = self._cylinders = None


class _Cylinders:
    """Stands in for MuJoCo's cylinder, whose hundreds of triangles take most of the time and mostly change nothing.

    Flat disks look as disks of rings do. Light is computed at corners, so that the sides of something tall and near
    must be cut into ``stacks``, as MuJoCo's are; for anything else one will do.
    """

    def __init__(self, context: mujoco.MjrContext, slices: int, stacks: int) -> None:
        from OpenGL import GL  # looks for the GL library that MuJoCo has chosen when it was imported

        self._gl, self._shape = GL, context.baseBuiltin + _CYLINDER
        self._near: bool | None = None  # which of the two is chosen
        self._possible = context.rangeBuiltin == _SHAPES  # else another MuJoCo, with shapes in another order
        self._lists: Any = GL.glGenLists(2)  # a number, which PyOpenGL's types do not say
        for number, cuts in enumerate((1, stacks)):
            GL.glNewList(self._lists + number, GL.GL_COMPILE)
            self._draw(slices, cuts)
            GL.glEndList()

    def _draw(self, slices: int, stacks: int) -> None:
        """Corners (x, y, z) within -1..1, counter-clockwise seen from outside, each shape after its normal."""
        angles = 2 * np.pi * np.arange(slices + 1) / slices
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1).tolist()
        for z, ring in ((-1.0, circle[::-1]), (1.0, circle)):
            self._gl.glBegin(self._gl.GL_TRIANGLE_FAN)
            self._gl.glNormal3f(0.0, 0.0, z)
            for x, y in ring[:-1]:
                self._gl.glVertex3f(x, y, z)
            self._gl.glEnd()
        heights = np.linspace(-1.0, 1.0, stacks + 1).tolist()
        for low, high in itertools.pairwise(heights):
            self._gl.glBegin(self._gl.GL_QUAD_STRIP)
            for x, y in circle:
                self._gl.glNormal3f(x, y, 0.0)
                self._gl.glVertex3f(x, y, high)
                self._gl.glVertex3f(x, y, low)
            self._gl.glEnd()

    def choose(self, near: bool) -> None:
        """Which of the two the next picture is drawn with."""
        if self._possible and near != self._near:
            self._gl.glNewList(self._shape, self._gl.GL_COMPILE)
            self._gl.glCallList(self._lists + int(near))
            self._gl.glEndList()
            self._near = near

    def free(self) -> None:
        self._gl.glDeleteLists(self._lists, 2)


def _averaged(image: np.ndarray, rows: int) -> np.ndarray:
    """Rounded means of so many rows each: uint8 (rows * h, w, 3) to (h, w, 3)."""
    height, *rest = image.shape
    sums = image.reshape(height // rows, rows, *rest).sum(axis=1, dtype=np.uint16)
    return ((sums + rows // 2) // rows).astype(np.uint8)
