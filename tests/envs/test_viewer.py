"""The window for people: refused where none can open, and where one opens it shows the run without changing it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

from fosp.envs import SafetyEnv, make, render, viewer
from fosp.types import UserError

ROOT = Path(__file__).parents[2]


# ---- where there is no display -------------------------------------------------------------------------------------


@pytest.fixture
def headless(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_without_a_display_human_is_refused_with_a_sentence(headless: pytest.MonkeyPatch) -> None:
    sentence = "render_mode is 'human' but there is no display; use render_mode='rgb_array'"
    with pytest.raises(UserError, match=sentence):
        make("SafetyPointGoal1", render_mode="human")
    with pytest.raises(UserError, match=sentence):
        gymnasium.make("fosp/SafetyPointGoal1-v0", render_mode="human")
    assert make("SafetyPointGoal1").metadata["render_modes"] == ["rgb_array"]
    headless.setenv("DISPLAY", ":0")
    assert make("SafetyPointGoal1").metadata["render_modes"] == ["rgb_array", "human"]


def test_a_display_that_does_not_answer_is_refused_with_a_sentence(headless: pytest.MonkeyPatch) -> None:
    headless.setenv("DISPLAY", ":98765")
    env = make("SafetyPointGoal1", render_mode="human")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match="the display cannot be used .*98765.*; use render_mode='rgb_array'"):
            env.reset(seed=0)


def test_a_backend_without_windows_is_refused(headless: pytest.MonkeyPatch) -> None:
    headless.setenv("DISPLAY", ":0")
    headless.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(UserError, match="MUJOCO_GL=osmesa draws without windows"):
        make("SafetyPointGoal1", render_mode="human")


# ---- with a window system that is none -----------------------------------------------------------------------------


class Glfw:
    """What the window needs of GLFW, drawn into the memory of the usual off-screen context."""

    PRESS, RELEASE = 1, 0
    KEY_ESCAPE, KEY_TAB, KEY_A = 256, 258, 65
    MOUSE_BUTTON_LEFT, MOUSE_BUTTON_RIGHT = 0, 1
    CONTEXT_CREATION_API, EGL_CONTEXT_API = 1, 2

    def __init__(self, opens: bool = True) -> None:
        self.opens = opens
        self.shown: list[np.ndarray] = []
        self.hints: list[tuple[int, int]] = []
        self.pressed = -1
        self.closing = self.destroyed = False
        self.on_move: Any = None
        self.on_scroll: Any = None
        self.on_key: Any = None
        self.window: viewer.Window | None = None

    def default_window_hints(self) -> None: ...

    def window_hint(self, name: int, value: int) -> None:
        self.hints.append((name, value))

    def create_window(self, *_: Any) -> Any:
        return object() if self.opens else None

    def get_error(self) -> tuple[int, bytes]:
        return 65543, b"no visual found"

    def make_context_current(self, window: Any) -> None:
        render._use_context()

    def swap_interval(self, interval: int) -> None: ...

    def poll_events(self) -> None: ...

    def window_should_close(self, window: Any) -> bool:
        assert window is not None  # the real one would crash
        return self.closing

    def set_window_should_close(self, window: Any, value: bool) -> None:
        self.closing = value

    def get_framebuffer_size(self, window: Any) -> tuple[int, int]:
        return 64, 48

    def get_mouse_button(self, window: Any, button: int) -> int:
        return self.PRESS if button == self.pressed else self.RELEASE

    def set_cursor_pos_callback(self, window: Any, call: Any) -> None:
        self.on_move = call

    def set_scroll_callback(self, window: Any, call: Any) -> None:
        self.on_scroll = call

    def set_key_callback(self, window: Any, call: Any) -> None:
        self.on_key = call

    def swap_buffers(self, window: Any) -> None:
        assert self.window is not None
        pixels = np.zeros((48, 64, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, mujoco.MjrRect(0, 0, 64, 48), self.window._context)
        self.shown.append(pixels[::-1].copy())

    def destroy_window(self, window: Any) -> None:
        self.destroyed = True


@pytest.fixture
def glfw(monkeypatch: pytest.MonkeyPatch) -> Glfw:
    fake = Glfw()
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(viewer, "_glfw", lambda: fake)
    draw = viewer.Window._draw

    def remember(self: viewer.Window) -> None:
        fake.window = self
        draw(self)

    monkeypatch.setattr(viewer.Window, "_draw", remember)
    clock = SimpleNamespace(now=0.0, slept=[])
    clock.perf_counter = lambda: clock.now
    clock.sleep = lambda seconds: (clock.slept.append(seconds), setattr(clock, "now", clock.now + seconds))
    monkeypatch.setattr(viewer, "time", clock)
    fake.clock = clock  # type: ignore[attr-defined]
    return fake


@pytest.fixture
def env(glfw: Glfw) -> Iterator[SafetyEnv]:
    env = make("SafetyPointGoal1", render_mode="human")
    env.reset(seed=0)
    yield env
    env.close()
    assert glfw.destroyed


def test_every_frame_is_shown_and_nothing_is_hidden(env: SafetyEnv, glfw: Glfw) -> None:
    assert len(glfw.shown) == 1
    env.step(np.array([1.0, 0.5]))
    assert len(glfw.shown) == 5 and env.render() is None
    picture = glfw.shown[0].astype(int)
    red, green, blue = np.moveaxis(picture, 2, 0)
    assert ((green > red + 40) & (green > blue + 40)).sum() > 5  # the goal
    assert ((blue > red + 40) & (blue > green + 40)).sum() > 20  # the hazards
    assert ((red > green + 40) & (red > blue + 40)).sum() >= 1  # the agent
    assert not np.array_equal(glfw.shown[0], glfw.shown[-1])


def test_watching_changes_nothing(env: SafetyEnv, glfw: Glfw) -> None:
    alone = make("SafetyPointGoal1")
    a, b = env.reset(seed=1), alone.reset(seed=1)
    for action in np.random.default_rng(0).uniform(-1, 1, (5, 2)):
        assert all(np.array_equal(a[0][name], b[0][name]) for name in b[0]) and a[1:] == b[1:]
        glfw.pressed = glfw.MOUSE_BUTTON_LEFT
        glfw.on_move(None, 100 * action[0], 100 * action[1])
        glfw.on_key(None, glfw.KEY_TAB, 0, glfw.PRESS, 0)
        a, b = env.step(action), alone.step(action)
    assert np.array_equal(env.world.data.qpos, alone.world.data.qpos)
    alone.close()


def test_the_pace_is_real_time_and_a_delay_is_not_made_up(env: SafetyEnv, glfw: Glfw) -> None:
    clock = glfw.clock  # type: ignore[attr-defined]
    began = clock.now
    env.step(np.zeros(2))
    assert clock.now - began == pytest.approx(4 * 0.02)
    clock.now += 5.0  # for instance a policy that learns in between
    clock.slept.clear()
    env.step(np.zeros(2))
    assert clock.slept == pytest.approx([0.0, 0.02, 0.02, 0.02])


def test_mouse_and_keys_move_the_eye(env: SafetyEnv, glfw: Glfw) -> None:
    window = glfw.window
    assert window is not None
    camera = window._camera

    def pose() -> tuple[float, ...]:
        return camera.azimuth, camera.elevation, camera.distance, *camera.lookat

    poses = [pose()]
    glfw.on_move(None, 50, 0)
    assert pose() == poses[0]  # no button
    for button in (glfw.MOUSE_BUTTON_LEFT, glfw.MOUSE_BUTTON_RIGHT):
        glfw.pressed = button
        glfw.on_move(None, 100 * (button + 1), 30 * (button + 1))
        poses.append(pose())
    glfw.on_scroll(None, 0, 1)
    poses.append(pose())
    turned, shifted, zoomed = ([a != b for a, b in zip(*pair, strict=True)] for pair in pairwise(poses))
    assert turned == [True, True, False, False, False, False]
    assert shifted == [False, False, False, True, True, False]
    # Looking along +y, 12.5 degrees to the right of it: dragging right and down moves the centre left and ahead.
    assert poses[1][0] == pytest.approx(90 - 180 * 50 / viewer.HEIGHT) and poses[2][3] < 0 < poses[2][4]
    assert zoomed == [False, False, True, False, False, False] and poses[-1][2] < poses[-2][2]
    seen = []
    for _ in range(env.world.model.ncam + 1):
        glfw.on_key(None, glfw.KEY_TAB, 0, glfw.PRESS, 0)
        seen.append(camera.fixedcamid if camera.type == mujoco.mjtCamera.mjCAMERA_FIXED else None)
    assert seen == [*range(env.world.model.ncam), None] and pose() == poses[-1]
    glfw.on_key(None, glfw.KEY_A, 0, glfw.PRESS, 0)
    glfw.on_key(None, glfw.KEY_TAB, 0, glfw.RELEASE, 0)
    assert camera.type == mujoco.mjtCamera.mjCAMERA_FREE and not glfw.closing


def test_the_run_goes_on_when_the_window_was_closed(env: SafetyEnv, glfw: Glfw) -> None:
    glfw.on_key(None, glfw.KEY_ESCAPE, 0, glfw.PRESS, 0)
    env.step(np.zeros(2))
    assert glfw.destroyed and len(glfw.shown) == 1
    observation, *_ = env.step(np.zeros(2))
    assert observation["image_front"].std() > 5
    env.reset(seed=0)
    assert len(glfw.shown) == 1


def test_a_window_that_does_not_open_is_refused_with_a_sentence(glfw: Glfw) -> None:
    glfw.opens = False
    env = make("SafetyPointGoal1", render_mode="human")
    with pytest.raises(UserError, match=r"no window opens \(no visual found\); use render_mode='rgb_array'"):
        env.reset(seed=0)


def test_the_window_is_drawn_as_the_images_are(env: SafetyEnv, glfw: Glfw) -> None:
    egl = os.environ.get("MUJOCO_GL") == "egl"
    assert glfw.hints == ([(glfw.CONTEXT_CREATION_API, glfw.EGL_CONTEXT_API)] if egl else [])


# ---- with a window system that draws into memory -------------------------------------------------------------------

SCRIPT = """
import mujoco, numpy as np
from fosp.envs import make
alone, env = make("SafetyPointGoal1"), make("SafetyPointGoal1", render_mode="human")
alone.reset(seed=0), env.reset(seed=0)
for _ in range(3):
    a, b = alone.step(np.ones(2))[0], env.step(np.ones(2))[0]
    assert all(np.array_equal(a[name], b[name]) for name in a)
window = env._window
window._glfw.make_context_current(window._window)
window._draw()
width, height = window._glfw.get_framebuffer_size(window._window)
pixels = np.zeros((height, width, 3), np.uint8)
mujoco.mjr_readPixels(pixels, None, mujoco.MjrRect(0, 0, width, height), window._context)
green = (pixels[..., 1].astype(int) - pixels[..., 0] > 40) & (pixels[..., 1].astype(int) - pixels[..., 2] > 40)
print("shown", window.open, int(green.sum()), flush=True)
"""


@pytest.mark.skipif(not shutil.which("Xvfb"), reason="needs Xvfb")
@pytest.mark.parametrize("backend", ["egl", "glfw"])
def test_on_a_real_window_system(backend: str) -> None:
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "1024x768x24"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert server.stdout is not None
        display = server.stdout.readline().decode().strip()
        variables = {**os.environ, "DISPLAY": f":{display}", "MUJOCO_GL": backend, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=variables)
    finally:
        server.terminate()
        server.wait()
    assert done.returncode == 0, done.stderr  # also at its end, where the window is still open
    word, is_open, green = done.stdout.split()
    assert (word, is_open) == ("shown", "True") and int(green) > 2000
