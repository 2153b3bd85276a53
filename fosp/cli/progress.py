"""How far long work has come, how fast it goes and how long it will take: a bar on a terminal, sparse lines elsewhere.

    with Progress("pretrain", 8000, unit="updates", start=1200) as progress:
        ...
        progress.advance(loss=0.31)

Nothing runs in the background: the bar is redrawn when the work advances, so no thread holds a lock while processes
fork.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

from fosp.types import several

LINE_SECONDS = 10.0  # between two lines where there is no terminal
DRAW_SECONDS = 0.2  # between two drawings of the bar
RATE_SECONDS = 60.0  # the rate is that of the last minute, so that it follows the work and the time left does not jump


class Progress:
    """Progress of one piece of work, as a context manager.

    ``total`` is None where the end is not known; ``start`` is what an earlier run of the same command has already done,
    so that it counts as done but not into the rate. ``stream`` is where it is shown, stderr by default: stdout is for
    results.
    """

    def __init__(
        self,
        name: str,
        total: int | None,
        unit: str = "steps",
        *,
        start: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.total, self.unit, self.start, self.done = name, total, unit, start, start
        self.fields: dict[str, Any] = {}
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque()  # (time, done), the last minute of them
        self._began = self._shown = 0.0
        self._bar: RichProgress | None = None

    def __enter__(self) -> Progress:
        self._began = self._clock()
        self._shown = self._began
        self._marks.append((self._began, self.done))
        if self._stream.isatty():
            text = TextColumn("{task.fields[text]}", markup=False)
            self._bar = RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                text,
                console=Console(file=self._stream),
                auto_refresh=False,
            )
            self._bar.start()
            self._bar.add_task(self.name, total=self.total, completed=self.done, text="")
        return self

    def advance(self, n: int = 1, **fields: Any) -> None:
        """``n`` more are done; ``fields`` are shown beside the count until others replace them."""
        self.done += n
        self.fields.update(fields)
        now = self._clock()
        self._mark(now)
        if now - self._shown >= (DRAW_SECONDS if self._bar else LINE_SECONDS):
            self._shown = now
            self._show()

    def message(self, text: str) -> None:
        """Print a line above the bar, or between the lines."""
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._show()
            self._bar.stop()
            self._bar = None
        if kind is not None and self.done == self.start:
            return  # it never began: what went wrong is told elsewhere
        seconds = self._clock() - self._began
        what = several(self.done, self.unit) if kind is None else f"stopped at {self._count()}"
        rate = (self.done - self.start) / seconds if seconds > 0 else 0.0
        speed = f", {rate_text(rate, self.unit)}" if rate else ""
        self.message(f"{self.name}: {what} in {duration_text(seconds)}{speed}")

    @property
    def rate(self) -> float:
        """Done per second over the last minute; 0 while nothing is known."""
        (first, before), (last, now) = self._marks[0], self._marks[-1]
        return (now - before) / (last - first) if last > first else 0.0

    @property
    def seconds_left(self) -> float | None:
        if self.total is None or not self.rate:
            return None
        return max(0, self.total - self.done) / self.rate

    def _mark(self, now: float) -> None:
        # One mark a second is enough for the rate, and keeps the queue short however fast the work is.
        if len(self._marks) > 1 and now - self._marks[-2][0] < 1.0:
            self._marks.pop()
        self._marks.append((now, self.done))
        while len(self._marks) > 2 and now - self._marks[0][0] > RATE_SECONDS:
            self._marks.popleft()

    def _count(self) -> str:
        return several(self.done, self.unit) if self.total is None else f"{self.done}/{self.total} {self.unit}"

    def _line(self) -> str:
        parts = [self._count()]
        if self.total:
            parts.append(f"{100 * self.done / self.total:.0f} %")
        if self.rate:
            parts.append(rate_text(self.rate, self.unit))
        if self.seconds_left is not None:
            parts.append(f"{duration_text(self.seconds_left)} left")
        parts += [
            f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in self.fields.items()
        ]
        return ", ".join(parts)

    def _show(self) -> None:
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=self.done, text=self._line(), refresh=True)
        else:
            self.message(f"{self.name}: {self._line()}")


def rate_text(rate: float, unit: str) -> str:
    """``12.5 updates/s``, or ``4.0 s per update`` where that is easier to grasp."""
    if rate >= 1:
        return f"{rate:.3g} {unit}/s" if rate < 1000 else f"{rate:.0f} {unit}/s"
    return f"{1 / rate:.3g} s each"


def duration_text(seconds: float) -> str:
    """``48 s``, ``12 min 30 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
