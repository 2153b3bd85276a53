"""Tries to draw one picture with MuJoCo and prints, as a JSON line, with what it was drawn or why it was not.

Run in a process of its own (``python -m fosp.cli.gl_probe``), because MuJoCo chooses its GL back end once, at import,
and because a broken driver may end the process. MUJOCO_GL names the back end; where it is unset, fosp's own choice is
tried. Shadows and multisampling are off, as in the quality that learning uses.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import sys
import time
from typing import Any

SIZE = 64
PICTURES = 20
SCENE = """
<mujoco>
  <visual><quality offsamples="0" shadowsize="0"/></visual>
  <worldbody>
    <light pos="0 0 3"/>
    <geom type="plane" size="4 4 .1" rgba=".2 .4 .8 1"/>
    <geom type="sphere" size=".5" pos="0 0 .5" rgba=".9 .3 .1 1"/>
    <camera name="view" pos="0 -3 2" xyaxes="1 0 0 0 .55 .83"/>
  </worldbody>
</mujoco>
"""


def draw() -> dict[str, Any]:
    """Back end, name of the renderer, and median milliseconds per picture. Raises whatever the GL stack raises."""
    importlib.import_module("fosp.envs")  # first: sets MUJOCO_GL as the environments do, and MuJoCo reads it at import
    import mujoco

    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = mujoco.Renderer(model, SIZE, SIZE)
    times = []
    for _ in range(PICTURES):
        began = time.perf_counter()
        renderer.update_scene(data, camera="view")
        picture = renderer.render()
        times.append(time.perf_counter() - began)
    if picture.std() < 1.0:
        raise RuntimeError("the picture is of one colour: nothing was drawn")
    return {"renderer": renderer_name(), "milliseconds": 1000 * statistics.median(times)}


def renderer_name() -> str:
    """What GL calls itself, for example "llvmpipe (LLVM 15.0.6, 256 bits)"; empty where it does not tell."""
    try:
        from OpenGL import GL

        name: Any = GL.glGetString(GL.GL_RENDERER)
        return name.decode(errors="replace") if name else ""
    except Exception:  # a name is a nicety, the picture is there
        return ""


def chosen() -> str:
    """The back end that MuJoCo takes with the environment variables of this process."""
    name = os.environ.get("MUJOCO_GL", "").strip().lower()
    return {"darwin": "cgl", "win32": "wgl"}.get(sys.platform, "glfw") if name in ("", "1", "on", "true") else name


def main() -> None:
    try:
        found = draw()
    except BaseException as error:
        text = " ".join(str(error).split())
        found = {"error": f"{type(error).__name__}: {text}" if text else type(error).__name__}
    print(json.dumps({"backend": chosen(), **found}), flush=True)
    os._exit(0)  # without the destructors: some drivers crash there, which says nothing about drawing


if __name__ == "__main__":
    main()
