"""A limit on the memory of a process, page cache included, set by the system; and what to do where it sets none.

Limits of a process (``ulimit``) know nothing of the page cache, which is where the files of a store lie. A control
group does: it pays for every page that its processes are the first to touch, and gives up old ones when it must.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


class Group:
    """A memory control group below that of this process."""

    def __init__(self, path: Path, second: bool) -> None:
        self.path = path
        self._second = second  # version 2 of control groups

    def join(self) -> None:
        """Puts the calling process into the group; what it touches from now on counts."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def facts(self) -> dict[str, int]:
        """Bytes in use now, of these page cache, and how often the group was at its limit."""
        stat = dict(line.split()[:2] for line in (self.path / "memory.stat").read_text().splitlines())
        if self._second:
            events = dict(line.split() for line in (self.path / "memory.events").read_text().splitlines())
            used, cache, full = (self.path / "memory.current").read_text(), stat["file"], events["max"]
        else:
            used, cache = (self.path / "memory.usage_in_bytes").read_text(), stat["cache"]
            full = (self.path / "memory.failcnt").read_text()
        return {"bytes_in_use": int(used), "bytes_of_page_cache": int(cache), "times_at_limit": int(full)}


@contextmanager
def group(limit: int) -> Iterator[Group | None]:
    """A group with a limit in bytes, gone afterwards; None where the system does not let this user make one."""
    made = _make(limit)
    try:
        yield made
    finally:
        if made is not None:
            with suppress(OSError):  # a process that would not end is in it
                made.path.rmdir()


def _make(limit: int) -> Group | None:
    for parent, second in _parents():
        path = parent / f"fosp-bench-{uuid.uuid4().hex[:8]}"
        try:
            path.mkdir()
        except OSError:
            continue
        try:
            (path / ("memory.max" if second else "memory.limit_in_bytes")).write_text(str(limit))
            return Group(path, second)
        except OSError:  # the controller is not handed down to here
            path.rmdir()
    return None


def _parents() -> Iterator[tuple[Path, bool]]:
    """Folders of the memory group of this process, and whether they are of version 2."""
    file = Path("/proc/self/cgroup")
    for line in file.read_text().splitlines() if file.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield _ROOT / path.lstrip("/"), True
        elif "memory" in controllers.split(","):
            yield _ROOT / "memory" / path.lstrip("/"), False


def evict(folder: Path) -> None:
    """Asks the system to forget the pages of all files of a folder; those of files that are mapped stay."""
    for file in folder.rglob("*.bin"):
        number = os.open(file, os.O_RDONLY)
        try:
            os.fsync(number)  # what is not on the disk yet would stay
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(number)
