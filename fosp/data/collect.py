"""Collecting a dataset: worker processes act, this process alone writes; interrupted anywhere, a rerun goes on."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from fosp.data.files import new_folder
from fosp.data.rollout import rollout
from fosp.data.store import Store
from fosp.data.workers import Job, Recipe, in_order
from fosp.types import COLLECT_SEEDS, Schema, UserError

__all__ = ["Job", "collect", "default_plan", "rollout"]

#: progress(episodes of the plan in the dataset, episodes of the plan, manifest row of the newest, empty at first)
Progress = Callable[[int, int, Mapping[str, Any]], None]


def default_plan(
    episodes: int,
    seed: int = 0,
    noises: Sequence[float] = (0.0, 0.2, 0.4),
    mix: Sequence[str] = ("unsafe", "safe", "random"),
) -> list[Job]:
    """``episodes`` jobs on layouts seed, seed + 1, ...: the behaviours of ``mix`` in turn, each through all ``noises``.

    The "random" behaviour knows no noise; its jobs have noise 0.
    """
    if episodes < 1 or not mix or not noises:
        raise UserError(f"a plan needs at least one episode, behaviour and noise, not {episodes}, {mix} and {noises}")
    plan = []
    for k in range(episodes):
        behaviour, noise = mix[k % len(mix)], noises[k // len(mix) % len(noises)]
        plan.append(Job(seed + k, behaviour, 0.0 if behaviour == "random" else float(noise)))
    return plan


def collect(
    out: str | os.PathLike[str],
    make_env: Callable[[], Any],
    make_behaviour: Callable[..., Any],
    plan: Sequence[Job],
    *,
    workers: int = 1,
    scenario: str | None = None,
    created: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Store:
    """Collects the episodes of ``plan`` into the dataset ``out`` and returns it, opened for reading.

    ``make_env()`` and ``make_behaviour(name, seed=, noise=)`` must be picklable; each of ``workers`` spawned processes
    builds its environment once and a policy for each episode. ``workers=0`` runs everything in this process. Episodes
    are written in the order of the plan whichever worker is faster, so the same plan gives the same dataset, also when
    it was interrupted. Jobs whose (seed, behaviour, noise) the dataset holds already are skipped.

    ``scenario`` and ``created`` (JSON values) are recorded; where ``out`` exists they and the schema must be the same.
    Raises UserError for seeds that are not for collection, a dataset of something else, a full disk, a worker that
    died; KeyboardInterrupt with a sentence at Ctrl-C. Whatever is raised, what was written stays valid.
    """
    plan = [Job(int(seed), str(behaviour), float(noise)) for seed, behaviour, noise in plan]
    _check(plan, workers)
    origin = json.loads(json.dumps({"scenario": scenario, **(created or {})}))  # as it will be read back
    path = Path(out)
    store = None
    if (path / "dataset.json").exists():
        store = Store.open(path, append=True)
    else:
        new_folder(path)  # a folder that cannot be used is better known before the work than after
    try:
        held = _held(store)
        if store is not None:
            _same_origin(store, origin)
        todo = [job for job in plan if job not in held]
        done = len(plan) - len(todo)
        if progress is not None:
            progress(done, len(plan), {})
        recipe = Recipe(make_env, make_behaviour, {"scenario": scenario, "versions": _versions()})
        with closing(in_order(recipe, todo, workers)) as items:
            for item in items:
                if isinstance(item, Schema):  # what the environment of a worker turned out to be
                    if store is None:
                        store = Store.create(path, item, created=origin)
                    _same_schema(store, item)
                    continue
                assert store is not None  # a worker says its schema before its first episode
                row = store.manifest[store.append(item)]
                done += 1
                if progress is not None:
                    progress(done, len(plan), row)
    except KeyboardInterrupt as error:
        kept = f"{0 if store is None else len(store)} episodes are kept in {path}"
        raise KeyboardInterrupt(f"stopped; {kept}, run the same command again to go on") from error
    finally:
        if store is not None:
            store.close()
    return Store.open(path)


def _check(plan: Sequence[Job], workers: int) -> None:
    if not plan:
        raise UserError("there is nothing to collect: the plan has no episodes")
    if workers < 0:
        raise UserError(f"workers {workers} must not be negative")
    first, last = COLLECT_SEEDS[0], COLLECT_SEEDS[-1]
    for job in plan:
        if job.seed not in COLLECT_SEEDS:
            raise UserError(
                f"layout seed {job.seed} is not for collecting, use {first} to {last}: the others are kept for "
                "fine-tuning and for held-out evaluation"
            )
    if len(set(plan)) < len(plan):
        twice = next(job for index, job in enumerate(plan) if job in plan[:index])
        raise UserError(f"the plan has {twice} more than once; each episode can be collected once")


def _held(store: Store | None) -> set[Job]:
    rows = store.manifest if store is not None else []
    return {Job(row["seed"], row["behaviour"], row["noise"]) for row in rows if {"behaviour", "noise"} <= row.keys()}


def _same_origin(store: Store, created: Mapping[str, Any]) -> None:
    """A dataset must not silently become a mixture."""
    for name, value in created.items():
        held = store.created.get(name)
        if not (isinstance(value, dict) and isinstance(held, dict) and held.get("hash") == value["hash"]):
            _same(store, name, held, value)


def _same_schema(store: Store, schema: Schema) -> None:
    held = store.schema.to_json()
    for name, value in schema.to_json().items():
        _same(store, name, held[name], value)


def _same(store: Store, name: str, held: Any, now: Any) -> None:
    if held != now:
        raise UserError(
            f"dataset {store.path} was made with {name} {held!r}, but now it is {now!r}; choose another folder, or the "
            "same value to add episodes"
        )


def _versions() -> dict[str, str]:
    """Versions of what decides how an episode goes, as far as it is installed as a package."""
    found = {}
    for name in ("fosp", "gymnasium", "mujoco", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
