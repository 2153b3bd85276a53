"""The only writer of a dataset: what is written in which order, and how a half-written append is taken back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fosp.data.files import ArraySpec, array_file, lock, sync_folder, write_all
from fosp.types import UserError


class Writer:
    """Holds the lock, the manifest and the files of the chunk that grows. The store says what is committed."""

    def __init__(self, path: Path, specs: Mapping[str, ArraySpec]) -> None:
        """Takes the lock. Raises UserError where another process has it or the folder cannot be written."""
        self._path = path
        self._specs = specs
        self._manifest = -1  # file descriptors
        self._files: dict[str, int] = {}
        self._chunk = -1  # the chunk that _files belong to
        self._lock = lock(path)

    def prepare(self, manifest_bytes: int, chunk_rows: Sequence[int]) -> None:
        """Opens the files and cuts off what an interrupted append left behind the committed state.

        ``manifest_bytes``: committed length of the manifest; ``chunk_rows``: committed rows of each chunk.
        """
        try:
            self._manifest = os.open(self._path / "episodes.jsonl", os.O_RDWR | os.O_CREAT, 0o644)
            if chunk_rows:
                self._open_chunk(len(chunk_rows) - 1)
            self.cut_surplus(manifest_bytes, chunk_rows)
            sync_folder(self._path)
        except OSError as error:
            raise UserError(f"{self._path}: cannot be written ({error.strerror}); check owner and disk") from error

    def write(self, chunk: int, row: int, arrays: Mapping[str, np.ndarray], line: bytes, manifest_bytes: int) -> None:
        """Writes the arrays at ``row`` of ``chunk`` and, once they are on the disk, the manifest line that commits.

        Raises whatever the system raises; the caller then calls ``cut_surplus``.
        """
        self._open_chunk(chunk)
        for name, array in arrays.items():
            write_all(self._files[name], array.reshape(-1).view(np.uint8).data, row * self._specs[name].row_bytes)
        for file in self._files.values():
            os.fsync(file)
        write_all(self._manifest, memoryview(line), manifest_bytes)
        os.fsync(self._manifest)

    def cut_surplus(self, manifest_bytes: int, chunk_rows: Sequence[int]) -> None:
        """Back to the committed state: manifest, the chunk being written, chunks that no episode is in."""
        os.ftruncate(self._manifest, manifest_bytes)  # first: no line may ever name rows that are gone
        os.fsync(self._manifest)
        if self._chunk >= len(chunk_rows):
            self._close_chunk()
        for name, file in self._files.items():
            os.ftruncate(file, chunk_rows[self._chunk] * self._specs[name].row_bytes)
        for folder in (self._path / "chunks").glob("[0-9]*"):
            if int(folder.name) >= len(chunk_rows):
                shutil.rmtree(folder)

    def close(self) -> None:
        """Gives up the lock, last."""
        self._close_chunk()
        for file in (self._manifest, self._lock):
            if file >= 0:
                os.close(file)
        self._manifest = self._lock = -1

    def _open_chunk(self, chunk: int) -> None:
        if self._chunk == chunk:
            return
        self._close_chunk()
        folder = array_file(self._path, chunk, "").parent
        folder.mkdir(parents=True, exist_ok=True)
        self._chunk = chunk
        for name in self._specs:
            self._files[name] = os.open(array_file(self._path, chunk, name), os.O_RDWR | os.O_CREAT, 0o644)
        for parent in (folder, folder.parent, self._path):
            sync_folder(parent)

    def _close_chunk(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files, self._chunk = {}, -1
