"""What the files of a dataset look like, byte by byte; ``store.py`` says when they are written and read."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fosp.types import Schema, UserError

FORMAT = "fosp-dataset/1"
_CHECK = b',"check":"%s"}\n'  # ends each manifest line: start of the SHA-256 of what stands before it
_CHECK_LENGTH = len(_CHECK) - 2 + 8


@dataclass(frozen=True)
class ArraySpec:
    """dtype and shape of one row of an array file."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * int(np.prod(self.shape, dtype=np.int64))


def array_specs(schema: Schema, cost: bool = True) -> dict[str, ArraySpec]:
    """The array files of a dataset with this schema, in the order in which the SHA-256 of an episode runs over them."""
    specs = {name: ArraySpec("|u1", shape) for name, shape in schema.cameras.items()}
    numbers = {"action": ArraySpec("<f4", (schema.action_size,)), "reward": ArraySpec("<f4", ())}
    if cost:
        numbers["cost"] = ArraySpec("<f4", ())
    if cost and schema.cost_terms:
        numbers["cost_terms"] = ArraySpec("<f4", (len(schema.cost_terms),))
    numbers["flags"] = ArraySpec("|b1", (3,))
    bad = [name for name in specs if name in numbers or not name.replace("_", "").replace("-", "").isalnum()]
    if bad:
        raise UserError(f"camera name {bad[0]!r} cannot name an array file; use letters, digits, _ or -")
    return specs | numbers


def new_folder(path: Path) -> None:
    """Makes the empty folder of a new dataset. Raises UserError where it cannot be made or holds something else."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        other = [entry.name for entry in path.iterdir() if entry.name not in ("lock", "dataset.json.part")]
    except OSError as error:
        raise UserError(f"{path}: cannot become a dataset folder ({error.strerror}); choose another one") from error
    if other:
        raise UserError(f"{path} is not empty (it holds {sorted(other)[0]}); choose a new folder for a new dataset")


def write_description(path: Path, schema: Schema, specs: Mapping[str, ArraySpec], created: Mapping[str, Any]) -> None:
    """Writes dataset.json under a temporary name first, so that it is whole or absent."""
    description = {
        "format": FORMAT,
        "schema": schema.to_json(),
        "arrays": {name: {"dtype": spec.dtype, "shape": spec.shape} for name, spec in specs.items()},
        "created": {"time": datetime.now(UTC).isoformat(timespec="seconds"), **created},
    }
    part = path / "dataset.json.part"
    with part.open("w") as file:
        json.dump(description, file, indent=2, default=plain)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path / "dataset.json")
    sync_folder(path)


def read_description(path: Path) -> dict[str, Any]:
    """Contents of dataset.json, checked."""
    file = path / "dataset.json"
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; give the folder of a dataset, one is made by `fosp collect`")
    if not file.is_file():
        raise UserError(f"{path} is not a dataset: it has no dataset.json; give a folder made by `fosp collect`")
    try:
        description = json.loads(file.read_text())
        if description["format"] != FORMAT:
            raise UserError(f"{file} has format {description['format']!r}, but this version reads {FORMAT!r}")
        arrays = {name: ArraySpec(a["dtype"], tuple(a["shape"])) for name, a in description["arrays"].items()}
        if arrays != array_specs(Schema.from_json(description["schema"]), "cost" in arrays):
            raise ValueError("its arrays do not belong to its schema")
        dict(description["created"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged ({error!r}); restore it from a copy or collect again") from error
    return description


def lock(path: Path) -> int:
    """Takes the lock of the only writer and returns its file descriptor. The system frees it when the process ends."""
    try:
        fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); check its owner and the disk") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise UserError(f"dataset {path} is being written by process {owner}; wait until it ends, or end it") from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def encode_row(row: Mapping[str, Any]) -> bytes:
    """A manifest line, with a check of its own at the end."""
    body = json.dumps(row, separators=(",", ":"), default=plain).encode()[:-1]
    return body + _CHECK % hashlib.sha256(body).hexdigest()[:8].encode()


def decode_rows(file: Path, first: int, lines: Sequence[bytes]) -> list[dict[str, Any]]:
    """The manifest rows of lines, the first that of episode ``first``. Raises UserError where they are not as written.

    All lines are one text for the JSON reader: it is faster so, and the names of the values are in memory only once.
    """
    bodies = []
    for line in lines:
        body, end = line[:-_CHECK_LENGTH], line[-_CHECK_LENGTH:]
        if end != _CHECK % hashlib.sha256(body).hexdigest()[:8].encode():
            break
        bodies.append(body)
    rows = json.loads(b"[" + b"},".join(bodies) + (b"}]" if bodies else b"]"))
    for index, row in enumerate(rows, first):
        if row["index"] != index:
            raise _damaged(file, index)
    if len(rows) < len(lines):
        raise _damaged(file, first + len(rows))
    return rows


def _damaged(file: Path, index: int) -> UserError:
    return UserError(
        f"{file} is damaged at line {index + 1}, the row of episode {index}; restore it from a copy, or delete the "
        "lines from there on to keep the episodes before"
    )


def checksums(arrays: Mapping[str, np.ndarray]) -> tuple[str, dict[str, int]]:
    """SHA-256 over the bytes of all arrays, and CRC-32 of each, which tells the damaged file."""
    digest, crcs = hashlib.sha256(), {}
    for name, array in arrays.items():
        data = array.reshape(-1).view(np.uint8).data
        digest.update(data)
        crcs[name] = zlib.crc32(data)
    return digest.hexdigest(), crcs


def write_all(file: int, data: memoryview, offset: int) -> None:
    """``os.pwrite`` until all bytes are written; it may write less than it was given."""
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written


def array_file(path: Path, chunk: int, name: str) -> Path:
    """Where the rows of array ``name`` in ``chunk`` lie."""
    return path / "chunks" / f"{chunk:06d}" / f"{name}.bin"


def sync_folder(path: Path) -> None:
    """A new file is safe only when the folder that names it is on the disk too."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def plain(value: Any) -> Any:
    """NumPy values in JSON."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{value!r} ({type(value).__name__}) is not a JSON value")
