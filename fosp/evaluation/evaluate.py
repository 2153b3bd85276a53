"""Runs policies on the same held-out layouts in parallel processes and writes down what happened.

What a policy is and what an environment is are arguments: ``make_policy()`` and ``make_env()``, picklable so that each
worker process builds its own. A worker steps a group of environments in lockstep with one batched policy.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

import numpy as np

from fosp.data.collect import rollout
from fosp.data.episode import summary
from fosp.data.workers import end_with_parent, shared_cores
from fosp.evaluation.document import Row, make_document
from fosp.types import HELD_OUT_SEEDS, Episode, Policy, UserError

#: What is evaluated: a label, a picklable maker of the policy, and JSON values that say where it comes from.
Entry = tuple[str, Callable[[], Policy], Mapping[str, Any]]
#: progress(label, episodes done of all policies, episodes in all)
Progress = Callable[[str, int, int], None]


class Recording(NamedTuple):
    """Which of the evaluated episodes are kept, and how. Picklable: ``keep`` runs in the process that acted.

    ``keep(index of the policy, policy, episode with images, pictures)``; the pictures (T, W, W, 3) are for people:
    ``env.unwrapped.picture()`` at each row.
    """

    seeds: frozenset[int]
    keep: Callable[[int, Any, Episode, np.ndarray], None]


def evaluate(
    entries: Sequence[Entry],
    make_env: Callable[[], Any],
    seeds: Sequence[int],
    *,
    task: str,
    cost_limit: float,
    scenario: str | None = None,
    suite_hash: str = "",
    texts: Mapping[str, str] | None = None,
    workers: int = 1,
    envs_per_worker: int = 8,
    progress: Progress | None = None,
    allow_any_seeds: bool = False,
    recording: Recording | None = None,
) -> dict[str, Any]:
    """One episode per policy and layout seed, summed up in the JSON document described in ``document.py``.

    ``task``, ``scenario``, ``suite_hash`` and ``texts`` ({"task": ..., "scenario": ...}, a sentence each for people)
    name what ``make_env`` makes; they are written down, not used. ``workers=0`` runs everything in this process.
    Raises UserError for seeds outside ``HELD_OUT_SEEDS`` (unless ``allow_any_seeds``), for repeated seeds or labels,
    and when a worker process dies; whatever a policy or environment raises in a worker is raised here.
    ``recording`` keeps some of the very episodes that are scored.
    """
    seeds = [int(seed) for seed in seeds]
    _check(entries, seeds, workers, envs_per_worker, allow_any_seeds)
    # As many groups for each worker as for the next one, so that none works alone in the end.
    crew = max(workers, 1)
    group = math.ceil(len(seeds) / (crew * math.ceil(len(seeds) / (crew * envs_per_worker))))
    jobs = [(entry, tuple(seeds[i : i + group])) for entry in range(len(entries)) for i in range(0, len(seeds), group)]
    rows: list[dict[int, Row]] = [{} for _ in entries]
    total = len(entries) * len(seeds)
    makers = [make_policy for _, make_policy, _ in entries]
    for entry, finished in _run(makers, make_env, jobs, workers, recording):
        rows[entry].update({row["seed"]: row for row in finished})
        if progress is not None:
            progress(entries[entry][0], sum(map(len, rows)), total)
    policies = [
        {"label": label, "meta": dict(meta), "episodes": [rows[i][seed] for seed in seeds]}
        for i, (label, _, meta) in enumerate(entries)
    ]
    return make_document(
        policies, task=task, scenario=scenario, suite_hash=suite_hash, cost_limit=cost_limit, texts=texts
    )


def _check(entries: Sequence[Entry], seeds: list[int], workers: int, envs: int, allow_any_seeds: bool) -> None:
    labels = [label for label, _, _ in entries]
    if not entries or not seeds:
        raise UserError(f"evaluation needs at least one policy and one episode, not {len(entries)} and {len(seeds)}")
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise UserError(f"two policies have the label {twice[0]!r}; give each its own, e.g. with LABEL=CHECKPOINT")
    if len(set(seeds)) < len(seeds):
        raise UserError("a layout seed occurs twice; give each layout once, or the interval would be too narrow")
    outside = [seed for seed in seeds if seed not in HELD_OUT_SEEDS]
    if outside and not allow_any_seeds:
        span = f"{HELD_OUT_SEEDS.start} to {HELD_OUT_SEEDS.stop - 1}"
        raise UserError(f"layout seed {outside[0]} may have been learned from; held-out layouts have seeds {span}")
    if workers < 0 or envs < 1:
        raise UserError(f"evaluation needs --workers >= 0 and envs_per_worker >= 1, not {workers} and {envs}")


# ----------------------------------------------------------------------------------------------- running jobs

Job = tuple[int, tuple[int, ...]]  # index of the policy, layout seeds


class _Worker:
    """What one process keeps between jobs: environments (dear to build) and the policy used last."""

    def __init__(
        self, makers: Sequence[Callable[[], Policy]], make_env: Callable[[], Any], recording: Recording | None
    ) -> None:
        self._makers, self._make_env = makers, make_env
        self._recording = recording or Recording(frozenset(), lambda *_: None)
        self._envs: list[Any] = []
        self._policy: tuple[int, Policy] | None = None

    def run(self, job: Job) -> list[Row]:
        entry, seeds = job
        while len(self._envs) < len(seeds):
            self._envs.append(self._make_env())
        if self._policy is None or self._policy[0] != entry:
            self._policy = (entry, self._makers[entry]())
        policy, envs = self._policy[1], dict(zip(seeds, self._envs, strict=False))
        pictures: dict[int, list[np.ndarray]] = {seed: [] for seed in seeds if seed in self._recording.seeds}

        def look(_: int = 0) -> None:
            for seed, seen in pictures.items():
                seen.append(envs[seed].unwrapped.picture())

        for seed in pictures:
            envs[seed].reset(seed=seed)  # to the state in which its episode begins
        look()
        episodes = list(rollout(policy, list(envs.values()), seeds, keep_images=bool(pictures), on_step=look))
        for e in episodes:
            seen = pictures.get(e.info["seed"])
            if seen is not None:  # an environment that has ended stands still until the others have
                self._recording.keep(entry, policy, e, np.stack(seen[: len(e)]))
        return [{"seed": int(e.info["seed"]), **summary(e), "goals": float(e.info.get("goals", 0.0))} for e in episodes]

    def close(self) -> None:
        for env in self._envs:
            env.close()
        self._envs = []


_worker: _Worker | None = None  # of a worker process; set once by its initializer


def _start_worker(
    makers: Sequence[Callable[[], Policy]], make_env: Callable[[], Any], recording: Recording | None
) -> None:
    global _worker
    end_with_parent()
    _worker = _Worker(makers, make_env, recording)


def _run_job(job: Job) -> list[Row]:
    assert _worker is not None
    return _worker.run(job)


def _run(
    makers: Sequence[Callable[[], Policy]], make_env: Callable[[], Any], jobs: Sequence[Job], workers: int,
    recording: Recording | None,
) -> Iterator[tuple[int, list[Row]]]:  # fmt: skip
    """Yields (index of the policy, rows) as the jobs end, in any order."""
    if workers == 0:
        worker = _Worker(makers, make_env, recording)
        try:
            for job in jobs:
                yield job[0], worker.run(job)
        finally:
            worker.close()
        return
    workers = min(workers, len(jobs))
    # Spawned, not forked: a process that has already used OpenGL or a thread pool does not survive a fork.
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _start_worker, (makers, make_env, recording)
    )
    try:
        with shared_cores(workers):
            futures: dict[Future[list[Row]], Job] = {pool.submit(_run_job, job): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future][0], future.result()
    except BrokenProcessPool as error:
        raise UserError(
            f"an evaluation process died (often: out of memory); try again with --workers {max(1, workers // 2)}"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
