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
import os
import threading
from collections.abc import Iterable, Sequence
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
#: Drawing contexts of painters that moved to another thread, or were closed in one. What they hold can be freed only
#: where their GL context is current, and Python would do it in whatever thread lets go of them: so nobody does.
_left_behind: list[Any] = []
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
        f"({error or type(error).__name__}); install the EGL/Mesa libraries or set MUJOCO_GL to egl or osmesa; "
        "`fosp doctor` says which is missing."
    )


def _free_context(context: Any, process: int) -> None:
    if process == os.getpid():
        context.free()
        if getattr(_contexts, "context", None) is context:
            del _contexts.context  # painters that are let go of later have nothing to free


class _Views:
    """What cameras can see at most: pyramids, whose sides have the slope of half the field of view.

    Letters: V cameras, G geoms of the model.
    """

    def __init__(self, model: mujoco.MjModel, cameras: Sequence[int]) -> None:
        self.cameras = np.array(cameras, dtype=int)
        self._mirror = np.array([[[1.0, 1.0, 1.0]], [[1.0, 1.0, -1.0]]])  # nothing, and the floor
        self.slope = np.tan(np.radians(model.cam_fovy[self.cameras]) / 2)[:, None]  # (V, 1)
        self.radius = model.geom_rbound.copy()  # (G,), 0 for planes
        self.planes = self.radius == 0
        self._margin = self.radius * np.sqrt(1 + np.square(self.slope))  # (V, G)
        cylinder = model.geom_type == mujoco.mjtGeom.mjGEOM_CYLINDER
        #: Square of the distance below which a cylinder is near, 0 for all else, (G,).
        self._near = np.where(cylinder, model.geom_size[:, 1] / _NEAR, 0.0) ** 2
        root = model.body_rootid[model.geom_bodyid]
        robots = model.body_rootid[model.cam_bodyid[self.cameras]]
        #: Geoms that do not belong to the robot which carries the camera, (V, G) bool.
        self._others = (root != robots[:, None]) & ~self.planes

    def choose(self, model: mujoco.MjModel, data: mujoco.MjData, share: float) -> tuple[np.ndarray, ...]:
        """Which geoms each camera needs, (V, G); whether it draws reflections, and whether a cylinder is near, (V,).

        A geom is needed unless its bounding sphere, and that of its mirror image in the floor, lies beyond one side of
        the pyramid. ``share``: see ``_REFLECTED``.
        """
        axes = data.cam_xmat[self.cameras].reshape(-1, 3, 3)  # columns: right, up, back
        offset = (data.geom_xpos * self._mirror)[:, None] - data.cam_xpos[self.cameras][:, None]
        seen = offset @ axes  # (2, V, G, 3), the second half of mirror images
        across = np.abs(seen[..., :2])
        drawn, reflected = (np.maximum(across[..., 0], across[..., 1]) + self.slope * seen[..., 2]) < self._margin
        if share > 0:
            large = self.radius > -share * self.slope * seen[1, ..., 2]
            solid = self._others & (model.geom_rgba[:, 3] > 0.9)
            reflected &= (reflected & large & solid).any(axis=1, keepdims=True)
            mirror = reflected.any(axis=1)
        else:
            mirror = np.ones(len(self.cameras), bool)
        near = drawn & (self._near > np.einsum("vgi,vgi->vg", offset[0], offset[0]))
        return self.planes | drawn | reflected, mirror, near.any(axis=1)


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
        self._option.geomgroup[_DRAWN] = 1  # see paint
        self._option.sitegroup[:] = 0  # the only one lies inside the agent: it cannot be seen, only paid for
        self._cameras = [self._fixed(model, name) for name in cameras]
        self._views = _Views(model, [camera.fixedcamid for camera in self._cameras])
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
            needed, mirror, near = self._views.choose(self._model, data, _REFLECTED[self._quality])
            groups_of = np.where(needed, _DRAWN, _HIDDEN)  # (V, G)
            for i, (camera, rect) in enumerate(zip(self._cameras, self._rects, strict=True)):
                # Half of all is outside of a view: the groups serve to hide it. Pixels stay the same, and drawing takes
                # less than half the time. (By themselves, the groups would hide hazards, vases and goals.)
                self._model.geom_group[:] = groups_of[i]
                self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = mirror[i]
                cylinders.choose(near=bool(near[i]))
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
            self._leave_behind()
            width, height = self._whole.width, self._whole.height
            self._context = self._make_context(self._model, width, height, self._quality)
            self._cylinders = _Cylinders(self._context, *_TRIANGLES[self._quality][:2])
            _merge_planes(self._context, self._model)
            if self._quality == "fast":
                _simplify_textures(self._context)
            self._thread_context = current
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)  # another painter's may be bound
        return self._context, self._cylinders

    def close(self) -> None:
        """Free the GL memory, where this is the thread that drew last, and no fork of it."""
        here = _drawing_process == os.getpid() and getattr(_contexts, "context", None) is self._thread_context
        if self._context is not None and self._cylinders is not None and here:
            _use_context()
            self._cylinders.free()
            self._context.free()
        else:
            self._leave_behind()
        self._context = self._cylinders = None

    def __del__(self) -> None:
        if getattr(self, "_context", None) is not None:
            self.close()

    def _leave_behind(self) -> None:
        if self._context is not None:
            _left_behind.append((self._thread_context, self._context))


def _gl() -> Any:
    """PyOpenGL, with the errors of others forgotten: MuJoCo looks at none, and PyOpenGL would raise them as ours."""
    from OpenGL import GL  # looks for the GL library that MuJoCo has chosen when it was imported

    for _ in range(16):  # a lost context tells errors for ever
        if GL.glGetError() == GL.GL_NO_ERROR:
            break
    return GL


def _merge_planes(context: mujoco.MjrContext, model: mujoco.MjModel) -> None:
    """Draw the floor as one rectangle instead of MuJoCo's 2592 triangles: in ``fast``, a third of a picture's time.

    The many serve light that differs from place to place. Where such a lamp is, they stay.
    """
    gl = _gl()
    planes = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE)
    if hasattr(mujoco, "mjtLightType"):
        directional = model.light_type == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    else:  # before MuJoCo 3.3.3
        directional = model.light_directional
    if not directional.all():
        return
    if context.rangePlane != 1 + len(planes):
        return  # another MuJoCo, with lists in another order than: one for planes of no model, then the model's
    for number, (x, y, _) in enumerate(model.geom_size[planes].tolist(), start=1):
        if x > 0 and y > 0:  # else endless
            gl.glNewList(context.basePlane + number, gl.GL_COMPILE)
            gl.glBegin(gl.GL_QUADS)
            gl.glNormal3f(0.0, 0.0, 1.0)
            for corner in ((-x, -y), (x, -y), (x, y), (-x, y)):
                gl.glVertex3f(*corner, 0.0)
            gl.glEnd()
            gl.glEndList()


def _simplify_textures(context: mujoco.MjrContext) -> None:
    """Read the floor from one size of its texture at each pixel, not from the mean of two: a tenth faster."""
    gl = _gl()
    flat = int(mujoco.mjtTexture.mjTEXTURE_2D)
    for texture, kind in zip(context.texture[: context.ntexture], context.textureType, strict=False):
        if kind == flat:
            gl.glBindTexture(gl.GL_TEXTURE_2D, int(texture))
            gl.glTexParameteri(gl.GL_TEXTURE_2D, gl.GL_TEXTURE_MIN_FILTER, gl.GL_LINEAR_MIPMAP_NEAREST)


class _Cylinders:
    """Stands in for MuJoCo's cylinder, whose hundreds of triangles take most of the time and mostly change nothing.

    Flat disks look as disks of rings do. Light is computed at corners, so that the sides of something tall and near
    must be cut into ``stacks``, as MuJoCo's are; for anything else one will do.
    """

    def __init__(self, context: mujoco.MjrContext, slices: int, stacks: int) -> None:
        gl = _gl()
        self._shape = context.baseBuiltin + _CYLINDER
        self._near: bool | None = None  # which of the two is chosen
        self._possible = context.rangeBuiltin == _SHAPES  # else another MuJoCo, with shapes in another order
        self._lists: Any = gl.glGenLists(2)  # a number, which PyOpenGL's types do not say
        for number, cuts in enumerate((1, stacks)):
            gl.glNewList(self._lists + number, gl.GL_COMPILE)
            self._draw(gl, slices, cuts)
            gl.glEndList()

    def _draw(self, gl: Any, slices: int, stacks: int) -> None:
        """Corners (x, y, z) within -1..1, counter-clockwise seen from outside, each after its normal.

        Of single triangles, because GL then draws all of it at once: a call takes longer than its corners.
        """
        angles = 2 * np.pi * np.arange(slices + 1) / slices
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1).tolist()
        heights = np.linspace(-1.0, 1.0, stacks + 1).tolist()
        gl.glBegin(gl.GL_TRIANGLES)
        for z, ring in ((-1.0, circle[::-1]), (1.0, circle)):
            for second, third in itertools.pairwise(ring[1:-1]):
                self._triangle(gl, [((0.0, 0.0, z), (*corner, z)) for corner in (ring[0], second, third)])
        for low, high in itertools.pairwise(heights):
            for left, right in itertools.pairwise(circle):
                corners = [((*xy, 0.0), (*xy, z)) for xy, z in ((left, high), (left, low), (right, low), (right, high))]
                self._triangle(gl, corners[:3])
                self._triangle(gl, [corners[0], *corners[2:]])
        gl.glEnd()

    @staticmethod
    def _triangle(gl: Any, corners: Iterable[tuple[Sequence[float], Sequence[float]]]) -> None:
        for normal, corner in corners:
            gl.glNormal3f(*normal)
            gl.glVertex3f(*corner)

    def choose(self, near: bool) -> None:
        """Which of the two the next picture is drawn with."""
        if self._possible and near != self._near:
            gl = _gl()
            gl.glNewList(self._shape, gl.GL_COMPILE)
            gl.glCallList(self._lists + int(near))
            gl.glEndList()
            self._near = near

    def free(self) -> None:
        _gl().glDeleteLists(self._lists, 2)


def _averaged(image: np.ndarray, rows: int) -> np.ndarray:
    """Rounded means of so many rows each: uint8 (rows * h, w, 3) to (h, w, 3)."""
    height, *rest = image.shape
    sums = image.reshape(height // rows, rows, *rest).sum(axis=1, dtype=np.uint16)
    return ((sums + rows // 2) // rows).astype(np.uint8)
