"""The run folder: configuration, command, versions, metrics as JSONL and TensorBoard."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from fosp.types import UserError


def _git_revision() -> str | None:
    """Revision of the source tree that runs, with "+changes" where it differs from the commit; None outside a clone."""
    here = Path(__file__).resolve().parent
    try:
        revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        changes = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return revision.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("fosp", "torch", "mujoco", "gymnasium", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


class Run:
    """A run folder open for writing. Metrics written after the step that a resumed run starts from are dropped."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._metrics = None
        self._board = None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def begin(self, config_yaml: str, facts: Mapping[str, Any]) -> None:
        """Create the folder, or make sure that what lies there is the same run. UserError where it is another one.

        The same run has the same configuration and the same facts; facts that are dicts have a "hash" to compare.
        """
        if (self.path / "dataset.json").exists():
            raise UserError(f"--out {self.path} is a dataset; give another folder for the run")
        self.path.mkdir(parents=True, exist_ok=True)
        config, record = self.path / "config.yaml", self.path / "run.json"
        if config.exists():
            self._same("config.yaml", *_first_difference(config.read_text(), config_yaml))
        held = _read_record(record) if record.exists() else {"sessions": []}
        for name in [name for name in facts if name in held]:  # in the order of the facts: causes before hashes
            self._same(name, _identity(held[name]), _identity(facts[name]))
        started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        entry = {"command": ["fosp", *sys.argv[1:]], "git": _git_revision(), "started": started, "versions": versions()}
        document = {**facts, **entry, "sessions": [*held["sessions"], entry]}
        _replace(config, config_yaml)
        _replace(record, json.dumps(document, indent=1) + "\n")

    def _same(self, name: str, held: Any, now: Any) -> None:
        if held != now:
            raise UserError(
                f"--out {self.path} holds another run: {name} says {held!r} there and {now!r} here; give the same "
                "options to go on with it, or another folder"
            )

    def open_metrics(self, from_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, wanted only here

        file = self.path / "metrics.jsonl"
        kept = [line for line in _whole_lines(file) if json.loads(line)["step"] <= from_step]
        _replace(file, "".join(line + "\n" for line in kept))
        self._metrics = file.open("a", buffering=1)
        self._board = SummaryWriter(str(self.path / "tensorboard"), purge_step=from_step + 1)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        assert self._metrics is not None and self._board is not None, "open_metrics comes first"
        row = {"step": step, "time": time.time(), **{k: float(f"{v:.6g}") for k, v in values.items()}}
        self._metrics.write(_line(row))
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """One more line in ``<run>/<name>``."""
        path = self.path / name
        text = path.read_bytes() if path.exists() else b""
        if not text.endswith(b"\n") and text:  # a line that a crash cut short would swallow this one
            os.truncate(path, text.rfind(b"\n") + 1)
        with path.open("a") as file:
            file.write(_line(row))

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The whole lines of ``<run>/<name>``."""
        return [json.loads(line) for line in _whole_lines(self.path / name)]

    def close(self) -> None:
        if self._metrics is not None and self._board is not None:
            self._metrics.close()
            self._board.close()


def _line(row: Mapping[str, Any]) -> str:
    """A row as JSON, which knows no NaN and no infinity: they become null."""
    known = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
    return json.dumps(known, allow_nan=False) + "\n"


def _whole_lines(file: Path) -> list[str]:
    """Lines that a crash did not cut short."""
    if not file.exists():
        return []
    text = file.read_text()
    return [line for line in text[: text.rfind("\n") + 1].splitlines() if line]


def _replace(file: Path, text: str) -> None:
    """Write under a temporary name and rename: whenever the process dies, the file is the old one or the new one."""
    temporary = file.with_name(f"{file.name}.tmp")
    temporary.write_text(text)
    temporary.replace(file)


def _read_record(file: Path) -> dict[str, Any]:
    """run.json of an earlier session."""
    try:
        record = json.loads(file.read_text())
        if not isinstance(record["sessions"], list):
            raise ValueError("sessions is no list")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error!r}); restore it, or give another folder for the run") from error
    return record


def _identity(fact: Any) -> Any:
    return fact.get("hash") if isinstance(fact, Mapping) else fact


def _first_difference(held: str, now: str) -> tuple[str, str]:
    """The first pair of lines that are not equal, ("", "") where there is none."""
    pairs = zip_longest(held.splitlines(), now.splitlines(), fillvalue="")
    return next(((a.strip(), b.strip()) for a, b in pairs if a != b), ("", ""))
