"""The run folder: configuration, command, versions, metrics as JSONL and TensorBoard."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
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

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._metrics = None
        self._board = None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def begin(self, config_yaml: str, facts: Mapping[str, Any]) -> None:
        """Create the folder, or make sure that what lies there is the same run. UserError where it is another one."""
        self.path.mkdir(parents=True, exist_ok=True)
        config = self.path / "config.yaml"
        if config.exists() and config.read_text() != config_yaml:
            raise UserError(
                f"--out {self.path} holds a run with another configuration; give the same options to go on with it, "
                "or another folder"
            )
        config.write_text(config_yaml)
        started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        entry = {"command": ["fosp", *sys.argv[1:]], "git": _git_revision(), "started": started, "versions": versions()}
        file = self.path / "run.json"
        history = json.loads(file.read_text())["sessions"] if file.exists() else []
        document = {**facts, **entry, "sessions": [*history, entry]}
        temporary = file.with_suffix(".tmp")
        temporary.write_text(json.dumps(document, indent=1) + "\n")
        temporary.replace(file)

    def open_metrics(self, from_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, wanted only here

        file = self.path / "metrics.jsonl"
        kept = [line for line in _whole_lines(file) if json.loads(line)["step"] <= from_step]
        temporary = file.with_suffix(".tmp")
        temporary.write_text("".join(line + "\n" for line in kept))
        temporary.replace(file)
        self._metrics = file.open("a", buffering=1)
        self._board = SummaryWriter(str(self.path / "tensorboard"), purge_step=from_step + 1)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        assert self._metrics is not None and self._board is not None, "open_metrics comes first"
        row = {"step": step, "time": time.time(), **{k: float(f"{v:.6g}") for k, v in values.items()}}
        self._metrics.write(json.dumps(row) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """One more line in ``<run>/<name>``."""
        path = self.path / name
        text = path.read_text() if path.exists() else ""
        if not text.endswith("\n"):  # a line that a crash cut short would swallow this one
            path.write_text(text[: text.rfind("\n") + 1])
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The whole lines of ``<run>/<name>``."""
        return [json.loads(line) for line in _whole_lines(self.path / name)]

    def close(self) -> None:
        if self._metrics is not None and self._board is not None:
            self._metrics.close()
            self._board.close()


def _whole_lines(file: Path) -> list[str]:
    """Lines that a crash did not cut short."""
    if not file.exists():
        return []
    text = file.read_text()
    return [line for line in text[: text.rfind("\n") + 1].splitlines() if line]
