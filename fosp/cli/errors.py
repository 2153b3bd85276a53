"""What an exception means to the person at the terminal: a sentence and an exit code, or a bug."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from fosp.types import UserError

EXIT_FAILED = 1  # not the user's mistake: a full disk, a check that found something, a bug
EXIT_USER = 2
EXIT_STOPPED = 130  # as a shell reports Ctrl-C

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_TAKEN = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)  # a file where a folder is wanted, or the like


def explain(error: BaseException) -> tuple[str, int] | None:
    """The sentence to print and the code to exit with; None for a bug, which deserves its traceback.

    A full disk is looked for in the causes too, because libraries wrap it (safetensors keeps only the text).
    """
    if isinstance(error, UserError):
        full = any(isinstance(cause, OSError) and cause.errno in _FULL for cause in _chain(error))
        return " ".join(str(error).split()), EXIT_FAILED if full else EXIT_USER
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "stopped; rerun the same command to go on", EXIT_STOPPED
    for cause in _chain(error):
        name = _file_of(cause)
        if isinstance(cause, OSError) and cause.errno in _FULL or os.strerror(errno.ENOSPC) in str(cause):
            where = f" while writing {name!r}" if name else ""
            return f"the disk is full{where}; make room and rerun the same command to go on", EXIT_FAILED
        if isinstance(cause, OSError) and cause.errno == errno.EFBIG or os.strerror(errno.EFBIG) in str(cause):
            where = f" {name!r}" if name else ""
            return f"a file{where} may not grow so large here; raise `ulimit -f` and rerun to go on", EXIT_FAILED
    if isinstance(error, OSError) and error.errno in (*_DENIED, *_TAKEN) and _file_of(error):
        reason = os.strerror(error.errno or 0).lower()
        also = " or change its permissions" if error.errno in _DENIED else ""
        return f"cannot use {_file_of(error)!r}: {reason}; choose another place{also}", EXIT_USER
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from or during, each once."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _file_of(error: BaseException) -> str:
    name = getattr(error, "filename", None)
    return os.fsdecode(name) if isinstance(name, str | bytes) else ""
