"""The processes that collect: each acts in an environment of its own and sends its episodes through a pipe."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from fosp.data.rollout import rollout
from fosp.types import Episode, Schema, UserError

#: Finished episodes that may wait, per worker, for an earlier one of the plan. Bounds memory where one episode is slow.
_AHEAD = 4


class Job(NamedTuple):
    """One episode to collect. The dataset holds each job at most once."""

    seed: int
    behaviour: str
    noise: float


class Recipe(NamedTuple):
    """What a worker needs, picklable: makers of environment and policy, and what each ``Episode.info`` shall hold."""

    make_env: Callable[[], Any]
    make_behaviour: Callable[..., Any]
    info: dict[str, Any]


class _Collector:
    """Does jobs, one at a time, in one environment."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._env = recipe.make_env()
        self.schema: Schema = self._env.unwrapped.schema()

    def run(self, job: Job) -> Episode:
        policy = self._recipe.make_behaviour(job.behaviour, seed=job.seed, noise=job.noise)
        info = {**self._recipe.info, "behaviour": job.behaviour, "noise": job.noise}
        return next(rollout(policy, [self._env], [job.seed], info=info))

    def close(self) -> None:
        self._env.close()


def in_order(recipe: Recipe, jobs: Sequence[Job], workers: int) -> Generator[Schema | Episode, None, None]:
    """The schema of each worker's environment, and the episodes of ``jobs`` in their order.

    ``workers=0`` works in this process. Raises UserError when a worker dies, or what it raised. Closing the generator
    ends the workers.
    """
    if not jobs:
        return
    if workers == 0:
        collector = _Collector(recipe)
        try:
            yield collector.schema
            for job in jobs:
                yield collector.run(job)
        finally:
            collector.close()
        return
    crew = _Crew(recipe, min(workers, len(jobs)))
    try:
        yield from crew.run(jobs)
    finally:
        crew.close()


def _work(pipe: Connection, recipe: Recipe) -> None:
    """Life of a worker process: says its schema, then answers each job with an episode, or an error, until the end."""
    with answering(pipe, "a worker process"):
        collector = _Collector(recipe)
        pipe.send(collector.schema)
        while (job := pipe.recv()) is not None:
            pipe.send(collector.run(job))
        collector.close()


@contextmanager
def answering(pipe: Connection, who: str) -> Iterator[None]:
    """Life of a process that works for another: what goes wrong is sent to it, and ends this one, as does its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the parent alone decides
    try:
        yield
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone
    except UserError as error:
        pipe.send(error)
    except Exception:
        pipe.send(RuntimeError(f"in {who}:\n{traceback.format_exc()}"))


class _Crew:
    """Worker processes, each with a pipe, and the job that each is doing."""

    def __init__(self, recipe: Recipe, workers: int) -> None:
        # Spawned, not forked: a process that has used OpenGL or a thread pool does not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._processes: dict[Connection, Any] = {}
        self._ready: set[Connection] = set()  # those that have said their schema
        self._jobs: dict[Connection, tuple[int, Job]] = {}  # (position in the plan, job)
        try:
            with quiet_start(workers):
                for _ in range(workers):
                    mine, theirs = context.Pipe()
                    process = context.Process(target=_work, args=(theirs, recipe), daemon=True)
                    process.start()
                    theirs.close()  # so that the death of the worker ends the pipe
                    self._processes[mine] = process
        except BaseException:
            self.close()
            raise

    def run(self, jobs: Sequence[Job]) -> Iterator[Schema | Episode]:
        """Yields schemas as they come and episodes in the order of ``jobs``."""
        waiting = deque(enumerate(jobs))
        finished: dict[int, Episode] = {}
        idle: list[Connection] = []
        yielded = 0
        while yielded < len(jobs):
            while idle and waiting and waiting[0][0] < yielded + _AHEAD * len(self._processes):
                pipe = idle.pop()
                self._jobs[pipe] = waiting.popleft()
                self._send(pipe, self._jobs[pipe][1])
            for pipe in wait(list(self._processes)):
                assert isinstance(pipe, Connection)
                answer = self._receive(pipe)
                idle.append(pipe)
                if isinstance(answer, Schema):
                    self._ready.add(pipe)
                    yield answer
                else:
                    finished[self._jobs.pop(pipe)[0]] = answer
            while yielded in finished:
                yield finished.pop(yielded)
                yielded += 1

    def _send(self, pipe: Connection, job: Job | None) -> None:
        try:
            pipe.send(job)
        except OSError as error:
            raise self._death(pipe) from error

    def _receive(self, pipe: Connection) -> Schema | Episode:
        try:
            answer = pipe.recv()
        except (EOFError, OSError) as error:
            raise self._death(pipe) from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _death(self, pipe: Connection) -> UserError:
        process = self._processes[pipe]
        how = how_it_ended(process)
        if pipe not in self._ready:
            return UserError(
                f"worker process {process.pid} {how} before it was ready; see its message above, and in a script call "
                'this from below `if __name__ == "__main__":`'
            )
        what = f"collecting layout {self._jobs[pipe][1].seed}" if pipe in self._jobs else "waiting"
        return UserError(
            f"worker process {process.pid} {how} while {what} (often: out of memory); what was written is kept, run "
            "the same command again, with fewer workers, to go on"
        )

    def close(self) -> None:
        """Ends the workers at once; an episode that one is doing is not needed any more."""
        for pipe, process in self._processes.items():
            if pipe not in self._jobs:
                try:
                    pipe.send(None)
                except OSError:
                    pass
            else:
                process.terminate()
            pipe.close()
        for process in self._processes.values():
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()
        self._processes = {}


def end_with_parent() -> None:
    """First call of a process of a pool: it ends as soon as the one that started it does, even in the midst of work.

    A pool's process notices the end of its pool only when it asks for more work.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


def how_it_ended(process: Any) -> str:
    """For a sentence about a process whose pipe is closed."""
    process.join(5)
    code = process.exitcode or 0
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


@contextmanager
def shared_cores(workers: int) -> Iterator[None]:
    """While processes start: they shall share the cores. Thread pools read these variables once, when loaded."""
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    names = [name for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS") if name not in os.environ]
    os.environ.update(dict.fromkeys(names, threads))
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)


@contextmanager
def quiet_start(workers: int) -> Iterator[None]:
    """``shared_cores`` for processes that also ignore Ctrl-C, from their first instruction on: it is inherited."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    try:
        with shared_cores(workers):
            yield
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
