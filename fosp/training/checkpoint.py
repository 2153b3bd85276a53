"""Checkpoints: safetensors and JSON, written under a temporary name, flushed, renamed; a manifest holds their hashes.

checkpoints/<updates>/policy/config.json         what it is: sizes, schema, task, log, method
                      policy/model.safetensors   every module, slow copies and frozen policy included
                      training_state/...         optimisers, generators, counters: what a resumed run needs
                      manifest.json              SHA-256 of each file
checkpoints/last -> <updates>
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fosp.training.interrupt import held_back
from fosp.types import UserError

FORMAT = "fosp-checkpoint/1"


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1) + "\n")


def _read_json(file: Path) -> dict[str, Any]:
    """UserError where the file is not what ``_write_json`` wrote."""
    try:
        data = json.loads(file.read_text())
        if not isinstance(data, dict):
            raise ValueError(f"it holds a {type(data).__name__}")
    except (OSError, ValueError) as error:  # not UTF-8 and not JSON are ValueErrors
        raise UserError(f"checkpoint file {file} cannot be read ({error}); take another checkpoint") from error
    return data


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _has_weights_of(path: Path, other: Path) -> bool:
    """Whether ``path`` is a whole checkpoint with the weights of ``other``."""
    weights = "policy/model.safetensors"
    try:
        check_files(path)
        return _hash(path / weights) == _hash(other / weights)
    except UserError:
        return False


def folder_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` updates lies in the checkpoints of a run."""
    return folder / f"{step:08d}"


def save(
    folder: Path,
    step: int,
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    numbers: Mapping[str, Any],
    keep: int = 3,
) -> Path:
    """Write checkpoint ``folder/<step>``; keep the newest ``keep`` (0: all). Whenever it dies, ``last`` stays whole.

    Where that step is there already with the same weights it is left alone, with what was noted beside it since.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for remains in folder.glob(".writing-*"):  # of a process that was killed
        shutil.rmtree(remains)
    final, temporary = folder_of(folder, step), folder / f".writing-{step:08d}"
    (temporary / "policy").mkdir(parents=True)
    (temporary / "training_state").mkdir()
    _write_json(temporary / "policy" / "config.json", {"format": FORMAT, "updates": step, **config})
    for part, values in (("policy/model", weights), ("training_state/state", tensors)):
        save_file({k: v.detach().contiguous().cpu() for k, v in values.items()}, temporary / f"{part}.safetensors")
    _write_json(temporary / "training_state" / "state.json", dict(numbers))
    files = sorted(p for p in temporary.rglob("*") if p.is_file())
    _write_json(temporary / "manifest.json", {str(p.relative_to(temporary)): _hash(p) for p in files})
    for path in [*files, temporary / "manifest.json"]:
        _sync(path)
    if _has_weights_of(final, temporary):
        shutil.rmtree(temporary)
    else:
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
    link = folder / ".last"
    link.unlink(missing_ok=True)
    link.symlink_to(final.name)
    link.rename(folder / "last")
    _sync(folder)
    for old in sorted(p for p in folder.iterdir() if p.name.isdigit())[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def resolve(path: str | os.PathLike[str]) -> Path:
    """A run folder, its checkpoints folder or a checkpoint -> the folder of one checkpoint. UserError where none is."""
    path = Path(path)
    for candidate in (path, path / "last", path / "checkpoints" / "last"):
        if (candidate / "policy" / "config.json").is_file():
            return candidate.resolve()
    if not path.exists():
        raise UserError(f"checkpoint {path} does not exist; give a run folder or one of its checkpoints/<updates>")
    raise UserError(f"{path} holds no checkpoint; give a run folder with checkpoints/last, or a checkpoints/<updates>")


def read_config(path: Path) -> dict[str, Any]:
    """policy/config.json of a resolved checkpoint."""
    file = path / "policy" / "config.json"
    config = _read_json(file)
    if config.get("format") != FORMAT:
        raise UserError(f"checkpoint file {file} has format {config.get('format')!r}; this version reads {FORMAT!r}")
    return config


@held_back()  # cut in two by Ctrl-C, safetensors raises something else
def read_tensors(path: Path, part: str) -> dict[str, Tensor]:
    """Tensors of ``part`` "policy/model" or "training_state/state", checked against the manifest.

    The check takes two thirds of a millisecond per megabyte: 18 ms for the weights of the preset small.
    """
    file = path / f"{part}.safetensors"
    _check_file(path, f"{part}.safetensors", _read_json(path / "manifest.json").get(f"{part}.safetensors"))
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"checkpoint file {file} is missing or damaged ({error}); take another checkpoint") from error


def read_numbers(path: Path) -> dict[str, Any]:
    return _read_json(path / "training_state" / "state.json")


def check_files(path: Path) -> str:
    """Hash of the checkpoint; UserError where a file differs from the manifest."""
    manifest = _read_json(path / "manifest.json")
    for name, expected in manifest.items():
        _check_file(path, name, expected)
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _check_file(path: Path, name: str, expected: Any) -> None:
    if not (path / name).is_file():
        raise UserError(f"checkpoint file {path / name} is missing; take another checkpoint")
    if _hash(path / name) != expected:
        raise UserError(f"checkpoint file {path / name} differs from its manifest; take another checkpoint")
