"""The sequence store: an append-only, memory-mapped folder of episodes that survives a crash at any byte.

::

    dataset.json              format, schema, arrays (dtype and shape of one row), how it was made
    episodes.jsonl            the manifest: one line per episode; a line that ends in a newline is committed
    lock                      held (flock) by the only writer; contains its process id
    chunks/000000/<array>.bin raw rows (little endian, C order) of whole episodes, closed at about 256 MB
                              arrays: <camera> (H, W, C), action (A,), reward (), cost (), cost_terms (terms,),
                              flags (3,) = is_first, is_last, is_terminal

An append writes the arrays, waits until they are on the disk, and then writes the manifest line (``writer.py``). So at
every instant the manifest names complete episodes only; what lies behind them (rows without a line, half a line) is
ignored by readers and cut off by the next writer.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fosp.data.episode import summary, validate
from fosp.data.files import (
    array_file,
    array_specs,
    checksums,
    decode_rows,
    encode_row,
    new_folder,
    read_description,
    write_description,
)
from fosp.data.reader import Reader
from fosp.data.writer import Writer
from fosp.types import Episode, Schema, UserError

CHUNK_BYTES = 256 * 2**20
#: Chunks mapped at a time, per store, for whole episodes. Each array of one holds a file descriptor.
OPEN_CHUNKS = 8
_PLACE = ("index", "chunk", "start", "rows", "sha256", "crc32")  # what a manifest row says about files


class Store:
    """A dataset on disk. Made by ``create`` (for writing) or ``open`` (for reading, or with ``append=True`` for both).

    One writer at a time; any number of readers beside it, which see later episodes after ``refresh()``. Reading is safe
    from several threads.
    """

    def __init__(self, path: Path, append: bool) -> None:
        self.path = path
        self._description = read_description(path)
        self.schema = Schema.from_json(self._description["schema"])
        self.has_cost = "cost" in self._description["arrays"]
        self.specs = array_specs(self.schema, self.has_cost)
        self.manifest: list[dict[str, Any]] = []
        self._num_rows = 0
        self._manifest_bytes = 0
        self._digest = hashlib.sha256()
        self._chunk_rows: list[int] = []
        self._maps: OrderedDict[int, dict[str, np.ndarray]] = OrderedDict()
        self._maps_lock = threading.Lock()
        self._reader = Reader(path, self.specs)
        self._writer = Writer(path, self.specs) if append else None  # takes the lock before anything is read
        try:
            self.refresh()
            if self._writer is not None:
                self._writer.prepare(self._manifest_bytes, self._chunk_rows)
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------------------------------------ open and close

    @staticmethod
    def create(
        path: str | os.PathLike[str], schema: Schema, *, created: Mapping[str, Any] | None = None, cost: bool = True
    ) -> Store:
        """A new, empty dataset opened for appending. ``created``: JSON values that say how it is made, e.g. scenario.

        ``cost=False`` makes a dataset that does not know its cost; learning with a constraint refuses it.
        Raises UserError where the folder already holds something.
        """
        path = Path(path)
        specs = array_specs(schema, cost)
        new_folder(path)
        write_description(path, schema, specs, created or {})
        return Store(path, append=True)

    @staticmethod
    def open(path: str | os.PathLike[str], *, append: bool = False) -> Store:
        """An existing dataset. Raises UserError where it is missing, damaged (by size), or already being written."""
        return Store(Path(path), append)

    def close(self) -> None:
        """Gives up the lock and the open files; arrays that were handed out stay valid."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        with self._maps_lock:
            self._maps.clear()
        self._reader.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------- reading

    def __len__(self) -> int:
        return len(self.manifest)

    @property
    def num_steps(self) -> int:
        """Agent steps: rows minus one per episode."""
        return self._num_rows - len(self.manifest)

    @property
    def num_bytes(self) -> int:
        """Bytes of all committed rows."""
        return self._num_rows * sum(spec.row_bytes for spec in self.specs.values())

    @property
    def hash(self) -> str:
        """SHA-256 of the committed manifest (`sha256sum episodes.jsonl`), which holds the SHA-256 of every episode."""
        return self._digest.hexdigest()

    @property
    def created(self) -> dict[str, Any]:
        """How the dataset was made: ``time`` and what ``create`` was told."""
        return dict(self._description["created"])

    def episode(self, index: int) -> Episode:
        """Episode ``index``; the arrays are read-only views of the files. Without a stored cost, cost is NaN."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"episode {index} of {len(self)}")
        row = self.manifest[index]
        arrays = self.read(index, 0, row["rows"])
        flags = arrays["flags"]
        names = self.schema.cost_terms if self.has_cost else ()
        terms = {name: arrays["cost_terms"][:, k] for k, name in enumerate(names)}
        return Episode(
            images={name: arrays[name] for name in self.schema.cameras},
            action=arrays["action"],
            reward=arrays["reward"],
            cost=arrays["cost"] if self.has_cost else np.full(row["rows"], np.nan, np.float32),
            is_first=flags[:, 0],
            is_last=flags[:, 1],
            is_terminal=flags[:, 2],
            cost_terms=terms,
            info={name: value for name, value in row.items() if name not in _PLACE},
        )

    def read(self, index: int, low: int, high: int) -> dict[str, np.ndarray]:
        """Rows low..high of episode ``index``: array name -> view (high - low, ...)."""
        row = self.manifest[index]
        low, high = row["start"] + low, row["start"] + high
        return {name: array[low:high] for name, array in self._chunk(row["chunk"], high).items()}

    def expect(self, index: int, low: int, high: int) -> None:
        """Rows low..high of episode ``index`` will be read soon, by ``read_into``."""
        row = self.manifest[index]
        self._reader.expect(row["chunk"], row["start"] + low, row["start"] + high)

    def read_into(self, index: int, low: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Rows from ``low`` on of episode ``index`` into contiguous ``arrays`` (rows, ...): array name -> memory."""
        row = self.manifest[index]
        for name, array in arrays.items():
            self._reader.read(row["chunk"], name, row["start"] + low, array)

    def _chunk(self, chunk: int, rows: int) -> dict[str, np.ndarray]:
        """The mapped arrays of a chunk, at least ``rows`` long (the chunk being written grows: it is mapped again)."""
        with self._maps_lock:
            arrays = self._maps.get(chunk)
            if arrays is None or len(arrays["flags"]) < rows:
                arrays = {}
                for name, spec in self.specs.items():
                    file, shape = array_file(self.path, chunk, name), (self._chunk_rows[chunk], *spec.shape)
                    try:
                        arrays[name] = np.memmap(file, spec.dtype, "r", shape=shape).view(np.ndarray)
                    except (OSError, ValueError) as error:
                        raise UserError(f"{file} cannot be read ({error}); restore it or collect again") from error
                self._maps[chunk] = arrays
                while len(self._maps) > OPEN_CHUNKS:
                    self._maps.popitem(last=False)
            self._maps.move_to_end(chunk)
            return arrays

    def refresh(self) -> None:
        """Takes in the episodes committed since (by another process). Raises UserError on damage that sizes show."""
        file = self.path / "episodes.jsonl"
        if not file.exists() and not self.manifest:
            return
        first = len(self.manifest)
        try:
            with file.open("rb") as handle:
                handle.seek(self._manifest_bytes)
                while lines := list(islice(handle, 4096)):
                    if not lines[-1].endswith(b"\n"):  # not committed
                        lines.pop()
                    for row, line in zip(decode_rows(file, len(self.manifest), lines), lines, strict=True):
                        self._commit(row, line)
        except OSError as error:
            raise UserError(f"{file} cannot be read ({error.strerror}); restore it from a copy") from error
        self._check_sizes(first)

    def _commit(self, row: dict[str, Any], line: bytes) -> None:
        """Takes a committed manifest row and its line into memory."""
        if row["chunk"] >= len(self._chunk_rows):
            self._chunk_rows.extend([0] * (row["chunk"] + 1 - len(self._chunk_rows)))
        self._chunk_rows[row["chunk"]] = row["start"] + row["rows"]
        self._manifest_bytes += len(line)
        self._digest.update(line)
        self._num_rows += row["rows"]
        self.manifest.append(row)

    def _check_sizes(self, first: int) -> None:
        """Every file must be long enough for the rows that episodes from ``first`` on have in it."""
        for chunk in sorted({row["chunk"] for row in self.manifest[first:]}):
            for name, spec in self.specs.items():
                file, need = array_file(self.path, chunk, name), self._chunk_rows[chunk] * spec.row_bytes
                have = file.stat().st_size if file.exists() else -1
                if have < need:
                    hurt = next(
                        row for row in self.manifest
                        if row["chunk"] == chunk and (row["start"] + row["rows"]) * spec.row_bytes > have
                    )  # fmt: skip
                    what = "is missing" if have < 0 else f"is damaged, it has {have} bytes of {need}"
                    raise UserError(f"{file} {what}, from episode {hurt['index']} on; restore it or collect again")

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Reads every byte and compares it with the hashes. Raises UserError with the first damaged file, episode."""
        for row in self.manifest:
            digest, crcs = checksums(self.read(row["index"], 0, row["rows"]))
            if digest != row["sha256"]:
                hurt = [name for name in self.specs if crcs[name] != row["crc32"].get(name)]
                file = array_file(self.path, row["chunk"], hurt[0]) if hurt else self.path / "episodes.jsonl"
                raise UserError(
                    f"{file} is damaged: episode {row['index']} (seed {row.get('seed')}) does not have the content "
                    "that was recorded; restore it from a copy or collect again"
                )
            if progress is not None:
                progress(row["index"] + 1, len(self))

    def require(self, schema: Schema, *, cost: bool = True) -> None:
        """Raises UserError, naming both values, unless this dataset can be used where ``schema`` is expected.

        Compares task, camera images, action size, action repeat and, unless ``cost=False``, that costs were recorded.
        """
        for what, found, wanted in (
            ("is of task", self.schema.task, schema.task),
            ("has images", _sizes(self.schema), _sizes(schema)),
            ("has action size", self.schema.action_size, schema.action_size),
            ("has action repeat", self.schema.action_repeat, schema.action_repeat),
        ):
            if found != wanted:
                raise UserError(f"dataset {self.path} {what} {found}, but {wanted} is expected here")
        if cost:
            self.require_cost()

    def require_cost(self) -> None:
        """Raises UserError where the dataset does not know its cost."""
        if not self.has_cost:
            raise UserError(f"dataset {self.path} has no cost; safe learning needs a cost for each step")

    # ------------------------------------------------------------------------------------------------------- writing

    def append(self, episode: Episode) -> int:
        """Writes one episode and returns its index; when this returns, it is on the disk.

        Raises ValueError for an episode that does not fit the schema, UserError where the disk is full; whatever is
        raised, the episodes before stay valid and the next append works.
        """
        if self._writer is None:
            raise UserError(f"dataset {self.path} is open for reading only; open it with append=True to write")
        validate(episode, self.schema, cost=self.has_cost)
        arrays = self._arrays(episode)
        sha256, crc32 = checksums(arrays)
        chunk, start = self._place(len(episode))
        place = {"index": len(self), "chunk": chunk, "start": start, "rows": len(episode), "sha256": sha256}
        row = {**episode.info, **summary(episode), **place, "crc32": crc32}
        if not self.has_cost:
            row.update(cost=None, violation_steps=None)
        line = encode_row(row)
        try:
            self._writer.write(chunk, start, arrays, line, self._manifest_bytes)
        except BaseException as error:
            self._writer.cut_surplus(self._manifest_bytes, self._chunk_rows)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(
                    f"{self.path}: the disk is full; {len(self)} episodes are kept, free at least "
                    f"{sum(array.nbytes for array in arrays.values()) / 1e6:.0f} MB for each further one and run again"
                ) from error
            raise
        (row,) = decode_rows(self.path, place["index"], [line])  # as a reader would see it
        self._commit(row, line)
        return place["index"]

    def _arrays(self, episode: Episode) -> dict[str, np.ndarray]:
        """The rows of an episode as they lie in the files: array name -> (T, ...), contiguous."""
        arrays: dict[str, np.ndarray] = {**episode.images, "action": episode.action, "reward": episode.reward}
        arrays["flags"] = np.stack([episode.is_first, episode.is_last, episode.is_terminal], axis=1)  # (T, 3)
        if self.has_cost:
            arrays["cost"] = episode.cost
        if "cost_terms" in self.specs:
            arrays["cost_terms"] = np.stack([episode.cost_terms[name] for name in self.schema.cost_terms], axis=1)
        return {name: np.ascontiguousarray(arrays[name], spec.dtype) for name, spec in self.specs.items()}

    def _place(self, rows: int) -> tuple[int, int]:
        """(chunk, first row) of the next episode: the last chunk, or a new one where it would grow too large."""
        if not self._chunk_rows:
            return 0, 0
        used = self._chunk_rows[-1]
        full = (used + rows) * sum(spec.row_bytes for spec in self.specs.values()) > CHUNK_BYTES
        return (len(self._chunk_rows), 0) if full else (len(self._chunk_rows) - 1, used)


def _sizes(schema: Schema) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in schema.cameras.items()) or "none"
