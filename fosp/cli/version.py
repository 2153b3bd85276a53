"""``fosp version``: what a result depends on, read from the installed packages without importing them."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from fosp import __version__

PACKAGES = ("torch", "mujoco", "gymnasium", "numpy")


@dataclass(frozen=True)
class Options:
    """Prints the versions of fosp, Python and the packages that results depend on."""

    json: bool = False
    """print one JSON object"""


def installed(package: str) -> str | None:
    """The version of an installed distribution; None where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def versions() -> dict[str, str | None]:
    packages = {package: installed(package) for package in PACKAGES}
    return {"fosp": __version__, "python": platform.python_version(), **packages}


def run(options: Options) -> int:
    found = versions()
    if options.json:
        print(json.dumps(found))
    else:
        for package, number in found.items():
            print(f"{package:<10} {number or 'not installed'}")
    return 0
