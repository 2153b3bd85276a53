"""Who acts while the online loop learns: a process of its own, or this one in between."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol

import torch
from torch import Tensor

from fosp.data.workers import answering, how_it_ended, quiet_start
from fosp.types import Episode, UserError


class Act(Protocol):
    """Acts the layouts ``seeds`` with a learner's weights, an environment each; yields each episode as it ends."""

    def __call__(self, weights: Mapping[str, Tensor], seeds: Sequence[int]) -> Iterator[Episode]: ...
    def close(self) -> None: ...


#: By how much the process that acts gives way: enough to run where the learner leaves a core idle for a moment. A
#: learner on all cores that has to share one of them is held up as a whole, for its threads wait for each other. Not by
#: all of 19, or whatever else runs on the machine would leave it next to nothing.
_NICE = 15


class Here:
    """Acts in this process, when the episodes are waited for: learning and acting in turn."""

    def __init__(self, make: Callable[[], Act]) -> None:
        self._make = make
        self._act: Act | None = None
        self._group: tuple[Mapping[str, Tensor], Sequence[int]] = {}, ()
        self.seconds = 0.0

    def begin(self, weights: Mapping[str, Tensor], seeds: Sequence[int]) -> None:
        self._group = weights, seeds

    def ended(self, wait: bool) -> list[Episode]:
        if not wait:
            return []
        began = time.perf_counter()
        self._act = self._act or self._make()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a process of its own: the sums of more threads are other sums
        try:
            return list(self._act(*self._group))
        finally:
            torch.set_num_threads(threads)
            self.seconds = time.perf_counter() - began

    def close(self) -> None:
        if self._act is not None:
            self._act.close()


class Elsewhere:
    """Acts in a process of its own, which starts with the first group. ``make`` must be picklable."""

    def __init__(self, make: Callable[[], Act]) -> None:
        self._make = make
        self._process: Any = None
        self._pipe: Connection | None = None
        self._acting = False
        self.seconds = 0.0

    def begin(self, weights: Mapping[str, Tensor], seeds: Sequence[int]) -> None:
        pipe = self._pipe or self._start()
        arrays = {name: weight.numpy() for name, weight in weights.items()}  # tensors would be shared, not copied
        try:
            pipe.send((arrays, list(seeds)))
        except OSError as error:
            raise self._death() from error
        self._acting = True

    def ended(self, wait: bool) -> list[Episode]:
        found: list[Episode] = []
        assert self._pipe is not None
        while self._acting and (wait or self._pipe.poll()):
            try:
                said = self._pipe.recv()
            except (EOFError, OSError) as error:
                raise self._death() from error
            if isinstance(said, Exception):
                raise said
            if isinstance(said, Episode):
                found.append(said)
            else:
                self.seconds, self._acting = said, False
        return found

    def close(self) -> None:
        """Ends the process at once; what it is doing can be done again."""
        if self._pipe is not None:
            self._process.terminate()
            self._process.join()
            self._pipe.close()
            self._pipe = None

    def _start(self) -> Connection:
        # Spawned, not forked: a process that has used OpenGL or a thread pool does not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_live, args=(theirs, self._make), daemon=True)
        with quiet_start(os.cpu_count() or 1):  # one thread
            self._process.start()
        theirs.close()  # so that the death of the process ends the pipe
        return self._pipe

    def _death(self) -> UserError:
        return UserError(
            f"the acting process {self._process.pid} {how_it_ended(self._process)} (often: out of memory); what was "
            "saved is kept, run the same command again to go on"
        )


def _live(pipe: Connection, make: Callable[[], Act]) -> None:
    """Life of the process: answers weights and seeds with the episodes, then with the seconds they took."""
    os.nice(_NICE)
    torch.set_num_threads(1)
    with answering(pipe, "the acting process"):
        act = make()
        while True:
            arrays, seeds = pipe.recv()
            began = time.perf_counter()
            for episode in act({name: torch.from_numpy(array) for name, array in arrays.items()}, seeds):
                pipe.send(episode)
            pipe.send(time.perf_counter() - began)
