"""What is declared against what is used: dependencies, pinned versions, the scripts of the set-up."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_architecture import PACKAGE, imports

ROOT = PACKAGE.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

#: Modules whose distribution has another name, or that belong to the interface of one (MuJoCo draws through PyOpenGL
#: and GLFW, Jinja2 returns MarkupSafe's strings) and so come with it.
DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml", "OpenGL": "mujoco", "glfw": "mujoco", "markupsafe": "jinja2"}


def declared() -> dict[str, Requirement]:
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    return {canonicalize_name(one.name): one for one in map(Requirement, lines)}


def pinned() -> dict[str, str]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def test_everything_declared_is_pinned_and_in_its_range() -> None:
    assert pinned().keys() == declared().keys()
    for name, version in pinned().items():
        assert declared()[name].specifier.contains(version), f"{name} {version}"


def test_everything_imported_is_declared() -> None:
    extras = [line for extra, lines in PROJECT["optional-dependencies"].items() if extra != "dev" for line in lines]
    needed = {canonicalize_name(Requirement(line).name) for line in [*PROJECT["dependencies"], *extras]}
    used = {
        (target.partition(".")[0], str(path.relative_to(ROOT)))
        for path in PACKAGE.rglob("*.py")
        for _, target in imports(path, PACKAGE)
    }
    known = {"fosp", *sys.stdlib_module_names}
    missing = {
        (module, file)
        for module, file in used
        if module not in known and canonicalize_name(DISTRIBUTIONS.get(module, module)) not in needed
    }
    assert missing == set()


@pytest.mark.parametrize("script", ["scripts/setup.sh", ".ci/run"])
def test_the_scripts_are_valid_shell(script: str) -> None:
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


def test_ci_can_be_executed() -> None:
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_the_type_marker_and_the_licence_are_there() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    for name in PROJECT["license-files"]:
        assert Path(ROOT / name).is_file()
