"""``fosp doctor``: tries what fosp needs of a machine and prints the fix for what does not work."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fosp.cli import checks
from fosp.cli.checks import Check
from fosp.cli.errors import EXIT_FAILED

Section = Literal["gl", "codec", "devices", "versions", "paths", "machine"]

_COLOURS = {"ok": "green", "off": "dim", "warn": "yellow", "FAIL": "bold red"}
_PLAIN_WIDTH = 140  # where the output is no terminal and so has no width


@dataclass(frozen=True)
class Options:
    """Tries the GL back ends, the video codec, the devices, the package versions and the places to write to.

    Prints a table and, for whatever fails, the command that mends it. Exit code 1 if something essential fails.
    """

    out: Path = Path("runs")
    """where you mean to write results; tried for writing and for room"""
    only: tuple[Section, ...] = ()
    """these sections only"""
    json: bool = False
    """print one JSON object instead of the table"""


def run(options: Options) -> int:
    found = examine(options.out, options.only or get_args(Section))
    good = all(check.status != "FAIL" for check in found)
    if options.json:
        print(json.dumps({"ok": good, "checks": [asdict(check) for check in found]}, indent=2))
    else:
        show(found, Console())
    return 0 if good else EXIT_FAILED


def examine(out: Path, sections: Sequence[str]) -> list[Check]:
    trials: dict[str, Callable[[], list[Check]]] = {
        "gl": checks.check_gl,
        "codec": checks.check_codec,
        "devices": checks.check_devices,
        "versions": checks.check_versions,
        "paths": lambda: checks.check_paths(out),
        "machine": checks.check_machine,
    }
    return [check for name in trials if name in sections for check in trials[name]()]


def show(found: Sequence[Check], console: Console) -> None:
    """The table, then the fixes on lines of their own, so that they can be copied whole."""
    if not console.is_terminal:
        console = Console(file=console.file, width=_PLAIN_WIDTH)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("section", "what", "", "found"):
        table.add_column(column, overflow="fold")
    previous = ""
    for check in found:
        section = check.section if check.section != previous else ""
        previous = check.section
        table.add_row(section, Text(check.name), Text(check.status, _COLOURS[check.status]), Text(check.detail))
    console.print(table)
    broken = [check for check in found if check.fix]
    if broken:
        console.print("\nWhat to do:", style="bold")
        for check in broken:
            console.print(
                f"  {check.section}, {check.name}:  {check.fix}", markup=False, highlight=False, soft_wrap=True
            )
    if any(check.status == "FAIL" for check in found):
        console.print("\nSomething essential does not work here yet.", style="bold red")
    elif not broken:
        console.print("\nEverything works.", style="green")
