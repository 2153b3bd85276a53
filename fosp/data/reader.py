"""Rows of array files straight into the caller's memory: what a sampler needs of a store that memory cannot hold.

Not through a memory map. There a page that is not in memory is read by a fault, one at a time, together with what the
read-ahead of the disk adds, which may be many times what was asked for; and a file cut short would kill the process.
"""

from __future__ import annotations

import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from fosp.data.files import ArraySpec, array_file
from fosp.types import UserError

#: Share of the process's file descriptors that one reader may hold, and how many that is at most.
_SHARE, _MOST = 0.25, 4096
_LARGE = 4096  # bytes of a row; of smaller ones many lie on a page, and reading ahead pays


class Reader:
    """Holds the array files open that were used last. Safe to use from several threads."""

    def __init__(self, path: Path, specs: Mapping[str, ArraySpec]) -> None:
        self._path, self._specs = path, specs
        self._files: OrderedDict[tuple[int, str], _File] = OrderedDict()
        self._lock = threading.Lock()
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = _MOST if allowed == resource.RLIM_INFINITY else min(_MOST, int(_SHARE * allowed))

    def expect(self, chunk: int, low: int, high: int) -> None:
        """Rows low..high of ``chunk`` are wanted soon: the disk may begin, and work on several such calls at once.

        Only for large rows; the others are few bytes, and mostly in memory.
        """
        for name, spec in self._specs.items():
            if spec.row_bytes >= _LARGE:
                file = self._file(chunk, name)
                _advise(file.number, low * spec.row_bytes, (high - low) * spec.row_bytes, "POSIX_FADV_WILLNEED")

    def read(self, chunk: int, name: str, low: int, into: np.ndarray) -> None:
        """Rows from ``low`` on of array ``name`` into ``into`` (rows, ...), contiguous and of the dtype of the file."""
        if not into.flags.c_contiguous:  # a reshape would copy, and what is read would be lost
            raise ValueError(f"rows of {name} cannot be read into memory that is not contiguous")
        file, offset = self._file(chunk, name), low * self._specs[name].row_bytes
        memory = into.reshape(-1).view(np.uint8).data
        while memory:
            try:
                count = os.preadv(file.number, [memory], offset)
            except OSError as error:
                raise self._unreadable(chunk, name, str(error.strerror)) from error
            if count == 0:
                raise self._unreadable(chunk, name, f"it ends at byte {offset}")
            memory, offset = memory[count:], offset + count

    def close(self) -> None:
        """Closes all files; the next call opens what it needs again."""
        with self._lock:
            self._files.clear()

    def _file(self, chunk: int, name: str) -> _File:
        key = chunk, name
        with self._lock:
            file = self._files.get(key)
            if file is None:
                file = self._files[key] = self._open(chunk, name)
                while len(self._files) > self._most:
                    self._files.popitem(last=False)
            self._files.move_to_end(key)
            return file

    def _open(self, chunk: int, name: str) -> _File:
        try:
            file = _File(os.open(array_file(self._path, chunk, name), os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            raise self._unreadable(chunk, name, str(error.strerror)) from error
        if self._specs[name].row_bytes >= _LARGE:
            _advise(file.number, 0, 0, "POSIX_FADV_RANDOM")
        return file

    def _unreadable(self, chunk: int, name: str, why: str) -> UserError:
        return UserError(f"{array_file(self._path, chunk, name)} cannot be read ({why}); restore it or collect again")


class _File:
    """A file descriptor that is closed when the last thread that reads from it has let go."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # os may be gone when the process ends
        close(self.number)


def _advise(file: int, offset: int, length: int, advice: str) -> None:
    if hasattr(os, "posix_fadvise"):  # not on macOS, where nothing is lost but time
        os.posix_fadvise(file, offset, length, getattr(os, advice))
