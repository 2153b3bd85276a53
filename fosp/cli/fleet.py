"""The steps of many roads side by side, on Ray workers of this machine or of a cluster."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fosp.cli.errors import explain
from fosp.cli.progress import duration_text
from fosp.cli.road import Road
from fosp.types import UserError

RETRIES = 3  # of a step whose worker died; it goes on from its last checkpoint
LEARNING = ("pretrain", "cloning", "finetune")  # steps that want a GPU where there is one
STARTS = 3  # trials of starting Ray
PATIENCE = 60.0  # seconds that stopped steps have to write a last checkpoint


@contextmanager
def connected(workers: int, address: str | None, threads: int) -> Iterator[Any]:
    """Ray, with as many workers on this machine as steps may run at a time, or the cluster at ``address``.

    UserError where Ray is not installed, or nothing answers there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray: Any = importlib.import_module("ray")  # an extra, which type checkers need not find
    except ImportError:
        raise UserError("--workers and --ray need Ray, which is not installed; try `pip install ray`") from None
    variables = {name: os.environ.get(name, str(threads)) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    try:
        if address is None:
            _start(ray, workers * threads, {"env_vars": variables})
        else:
            ray.init(address=address, runtime_env={"env_vars": variables})
    except ConnectionError as error:
        raise UserError(f"--ray {address}: no Ray cluster answers there; `ray start --head` begins one") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _start(ray: Any, cores: int, environment: dict[str, Any]) -> None:
    """Ray on this machine. It allows itself 15 to 30 seconds, which may not do where other programs have the cores."""
    for left in reversed(range(STARTS)):
        try:
            # Results are numbers: the store of objects may be small.
            memory = 100 * 2**20
            ray.init(
                address="local", num_cpus=cores, object_store_memory=memory, runtime_env=environment,
                include_dashboard=False,
            )  # fmt: skip
            return
        except Exception as error:
            if type(error) is not Exception or "timed out" not in str(error):
                raise
            ray.shutdown()
            if not left:
                raise UserError(f"Ray did not start on this machine in {STARTS} trials ({error}); try again") from error


def travel(ray: Any, roads: Sequence[Road], threads: int, tell: Callable[[str], None], gpus: float = 0) -> None:
    """Take all steps of all roads, each as soon as what it needs is done and a worker is free.

    A step whose worker dies is taken again. One that fails leaves the other roads alone; its error is raised when
    nothing else can be done. Ctrl-C stops the steps as it would stop them in a terminal.
    """
    for road in roads:
        road.begin()
    waiting = {(road, name) for road in roads for name in road.needs if not road.done(name)}
    running: dict[Any, tuple[Road, str]] = {}
    failed: list[BaseException] = []
    take = ray.remote(_step)
    try:
        while True:
            order = [(road, name) for road in roads for name in road.needs if (road, name) in waiting]
            for road, name in order:
                if not any((road, before) in waiting | set(running.values()) for before in road.needs[name]):
                    waiting.remove((road, name))
                    wanted = {"num_cpus": threads, "num_gpus": gpus if name in LEARNING else 0}
                    started = take.options(**wanted, max_retries=RETRIES, name=f"{road}: {name}")
                    running[started.remote(road, name, threads)] = road, name
            if not running:
                break
            (first, *_), _ = ray.wait(list(running))
            road, name = running[first]
            try:
                spent = ray.get(first)
                road.note(name, spent)
                tell(f"{road}: {name} done in {duration_text(spent)}")
            except ray.exceptions.RayError as error:
                failed.append(_cause(ray, error, road, name))
                tell(f"{road}: {name} failed: {(explain(failed[-1]) or (failed[-1],))[0]}")
                waiting -= {(road, after) for after in road.needs}  # the others go on
            del running[first]
    except KeyboardInterrupt:
        for step in running:
            ray.cancel(step)
        ray.wait(list(running), num_returns=len(running), timeout=PATIENCE) if running else None
        raise
    if failed:
        raise failed[0]


def _step(road: Road, name: str, threads: int) -> float:
    """What a worker does."""
    return road.step(name, workers=threads)


def _cause(ray: Any, error: Any, road: Road, name: str) -> BaseException:
    """What the step raised, or a sentence where its worker is gone for good."""
    if isinstance(error, ray.exceptions.RayTaskError):
        return error.cause
    return UserError(f"{road}: {name} lost its worker {RETRIES + 1} times ({type(error).__name__}); see {road.out}")
