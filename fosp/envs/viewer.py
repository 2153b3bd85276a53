"""A window in which a person watches an environment and moves the eye with the mouse.

It only looks. MuJoCo's own viewer writes into the state (its keys reset it, its mouse pulls at bodies), so that a run
that was watched could differ from the same run unwatched.
"""

from __future__ import annotations

import atexit
import cmath
import math
import os
import sys
import time
import warnings
from typing import Any

import mujoco

from fosp.types import UserError

TITLE = "fosp: drag to turn, right button to shift, wheel to zoom, Tab for the next camera, Esc to close"
WIDTH, HEIGHT = 960, 720  # pixels
_ADVICE = "use render_mode='rgb_array'"


def has_display() -> bool:
    """Whether a window can be expected to open here. Off Linux there always is a desktop."""
    return not sys.platform.startswith("linux") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def require_display() -> None:
    """Raises ``UserError`` where no window can be opened."""
    if not has_display():
        raise UserError(f"render_mode is 'human' but there is no display; {_ADVICE}.")
    if os.environ.get("MUJOCO_GL", "").lower() == "osmesa":
        raise UserError(
            f"render_mode is 'human' but MUJOCO_GL=osmesa draws without windows; set it to egl or {_ADVICE}."
        )


def _glfw() -> Any:
    """The GLFW library, started. Raises ``UserError`` where it does not find a display."""
    import glfw  # comes with MuJoCo; loads libraries of the window system, hence only here

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GLFW tells its errors as warnings; the sentence below says them
        if not glfw.init():
            raise UserError(f"render_mode is 'human' but the display cannot be used ({_reason(glfw)}); {_ADVICE}.")
    return glfw


def _reason(glfw: Any) -> str:
    code, text = glfw.get_error()
    return text.decode(errors="replace") if text else f"GLFW error {code}"


class Window:
    """Shows a model from a free eye or from one of its cameras, not faster than in real time.

    Parameters: ``seconds`` = simulated time between two calls of ``show``. Once the person has closed the window,
    ``show`` does nothing. All calls must come from one thread, on macOS from the main thread.
    Raises: ``UserError`` where no window can be opened.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, seconds: float) -> None:
        require_display()
        self._model, self._data, self._seconds = model, data, seconds
        self._glfw = glfw = _glfw()
        glfw.default_window_hints()
        if os.environ.get("MUJOCO_GL", "").lower() == "egl":
            # One thread can switch between contexts of one kind only, and the images are drawn through EGL.
            glfw.window_hint(glfw.CONTEXT_CREATION_API, glfw.EGL_CONTEXT_API)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._window = glfw.create_window(WIDTH, HEIGHT, TITLE, None, None)
            if not self._window:
                raise UserError(f"render_mode is 'human' but no window opens ({_reason(glfw)}); {_ADVICE}.")
        glfw.make_context_current(self._window)
        glfw.swap_interval(0)  # the pace is that of the simulation
        self._scene = mujoco.MjvScene(model, maxgeom=1000)
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = 1  # by default hazards, vases and goals would be hidden
        self._camera = mujoco.MjvCamera()
        self._camera.lookat[:], self._camera.distance = 0, 7
        self._camera.azimuth, self._camera.elevation = 90, -45
        self._mouse = (0.0, 0.0)
        self._due = time.perf_counter()
        glfw.set_cursor_pos_callback(self._window, self._on_move)
        glfw.set_scroll_callback(self._window, self._on_scroll)
        glfw.set_key_callback(self._window, self._on_key)
        atexit.register(self.close)  # while there still is a library to close it with

    @property
    def open(self) -> bool:
        """False once it was closed, by a person or by ``close``."""
        return self._window is not None

    def show(self) -> None:
        """Draw the present state, react to mouse and keys, and wait until it is due."""
        if not self.open:
            return
        glfw = self._glfw
        glfw.poll_events()
        if glfw.window_should_close(self._window):
            self.close()
            return
        glfw.make_context_current(self._window)
        self._draw()
        glfw.swap_buffers(self._window)
        self._due = max(self._due + self._seconds, time.perf_counter())
        time.sleep(max(0.0, self._due - time.perf_counter()))

    def close(self) -> None:
        """Close the window; a second call does nothing."""
        if self.open:
            self._glfw.make_context_current(self._window)
            self._context.free()
            self._glfw.destroy_window(self._window)
            self._window = None
            atexit.unregister(self.close)

    def _draw(self) -> None:
        rect = mujoco.MjrRect(0, 0, *self._glfw.get_framebuffer_size(self._window))
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self._model, self._data, self._option, None, self._camera, everything, self._scene)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_WINDOW, self._context)
        mujoco.mjr_render(rect, self._scene, self._context)

    # ---- the person -------------------------------------------------------------------------------------------------

    def _on_move(self, window: Any, x: float, y: float) -> None:
        glfw, camera = self._glfw, self._camera
        dx, dy = (x - self._mouse[0]) / HEIGHT, (y - self._mouse[1]) / HEIGHT  # to the right and downwards
        self._mouse = (x, y)
        if glfw.get_mouse_button(window, glfw.MOUSE_BUTTON_LEFT) == glfw.PRESS:
            camera.azimuth -= 180 * dx
            camera.elevation = min(max(camera.elevation - 180 * dy, -90), 90)
        elif glfw.get_mouse_button(window, glfw.MOUSE_BUTTON_RIGHT) == glfw.PRESS:
            ahead = cmath.rect(camera.distance, math.radians(camera.azimuth))
            shift = dy * ahead + dx * 1j * ahead  # the floor follows the mouse
            camera.lookat[:2] += (shift.real, shift.imag)

    def _on_scroll(self, window: Any, x: float, y: float) -> None:
        self._camera.distance *= 0.9**y

    def _on_key(self, window: Any, key: int, code: int, action: int, modifiers: int) -> None:
        if action != self._glfw.PRESS:
            return
        if key == self._glfw.KEY_ESCAPE:
            self._glfw.set_window_should_close(window, True)
        elif key == self._glfw.KEY_TAB:
            self._next_camera()

    def _next_camera(self) -> None:
        """From the free eye through all cameras of the model and back."""
        camera = self._camera
        following = camera.fixedcamid + 1
        fixed = following < self._model.ncam
        camera.fixedcamid = following if fixed else -1
        camera.type = mujoco.mjtCamera.mjCAMERA_FIXED if fixed else mujoco.mjtCamera.mjCAMERA_FREE
