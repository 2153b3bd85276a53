"""fosp behaviours"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tyro

FORMAT = "fosp-behaviours/1"
#: Modules of the environments that draw, compare or adapt: a row does not depend on them.
NO_MATTER = ("adapter.py", "lidar.py", "parity.py", "render.py", "replay.py", "sheet.py", "vector.py", "viewer.py")
#: In the order of the table.
NAMES = ("safe", "unsafe", "random")

#: What one process measures at a time: a task and a behaviour.
Job = tuple[str, str]


@dataclass(frozen=True)
class Options:
    """Play the scripted behaviours without drawing images and tell their return and cost. A rerun goes on."""

    tasks: tyro.conf.Positional[tuple[str, ...]] = ()
    """Registered tasks, for example SafetyCarGoal2; none is all of them."""
    behaviours: tuple[str, ...] = NAMES
    """Which behaviours."""
    episodes: int = 50
    """Layouts of each task, one episode each, the same for all behaviours."""
    seed: int = 900_000
    """Seed of the first layout; the others follow. Layouts of evaluations are refused."""
    scenario: str | None = None
    """Named change of the tasks; none is the tasks as they are."""
    json: Path | None = None
    """File that gets each row of the table as soon as it is measured; rows that it has already are kept."""
    workers: int = 1
    """Processes; 0 works in this one."""


def run(options: Options) -> int:
    from fosp.cli.progress import Progress
    from fosp.cli.tables import show
    from fosp.evaluation.document import save

    jobs = check(options)
    document = _begin(options)
    todo = [job for job in jobs if job not in _done(document)]
    with Progress("behaviours", len(jobs), "rows", start=len(jobs) - len(todo)) as progress:
        for row in _measure(todo, options):
            document["rows"].append(row)
            document["rows"].sort(key=lambda row: (row["task"], NAMES.index(row["behaviour"])))
            if options.json is not None:
                save(document, options.json)
            progress.advance(1)
    show(_table(document, jobs))
    return 0


def check(options: Options) -> list[Job]:
    """What is to be measured. Raises UserError for what cannot be, before the first second is spent."""
    from fosp.envs import TASKS, find_scenario, find_task
    from fosp.types import COLLECT_SEEDS, UserError, unknown

    for name in options.behaviours:
        if name not in NAMES:
            raise unknown("behaviour", name, NAMES)
    if options.episodes < 1:
        raise UserError(f"--episodes {options.episodes} must be at least 1")
    for seed in (options.seed, options.seed + options.episodes - 1):
        if seed not in COLLECT_SEEDS:
            raise UserError(f"layout seed {seed} must lie in {COLLECT_SEEDS[0]}..{COLLECT_SEEDS[-1]}; change --seed")
    if options.workers < 0:
        raise UserError(f"--workers {options.workers} must not be negative")
    tasks = [find_task(name) for name in options.tasks] or list(TASKS.values())
    for task in tasks:
        find_scenario(options.scenario).change(task)
    return [(task.name, name) for task in tasks for name in dict.fromkeys(options.behaviours)]


# ---------------------------------------------------------------------------------------------------- measuring


def measure(job: Job, scenario: str | None, seeds: Sequence[int]) -> dict[str, Any]:
    """A row: means with 95 % bootstrap intervals over layouts, the mean of each cost term, and every episode."""
    import time

    import numpy as np

    from fosp.cli import wire
    from fosp.data.episode import summary
    from fosp.data.rollout import rollout
    from fosp.envs.scripted import make_behaviour
    from fosp.evaluation.statistics import mean_interval

    began, (task, behaviour) = time.process_time(), job
    # Nobody looks at the observation, and the lidar is the one that draws nothing.
    env, episodes, terms = wire.make_env(task, scenario, observation="lidar"), [], []
    for episode in rollout(make_behaviour(behaviour), [env], seeds, keep_images=False):
        episodes.append({"seed": episode.info["seed"], **summary(episode), "goals": episode.info["goals"]})
        terms.append({name: float(values.sum()) for name, values in episode.cost_terms.items()})
    env.close()
    random = np.random.default_rng(0)
    means = {name: mean_interval([e[name] for e in episodes], random).to_json() for name in ("return", "cost", "goals")}
    return {
        "task": task,
        "behaviour": behaviour,
        **means,
        "terms": {name: float(np.mean([found[name] for found in terms])) for name in terms[0]},
        "processor_seconds": round(time.process_time() - began, 1),
        "episodes": episodes,
    }


def _measure(jobs: Sequence[Job], options: Options) -> Iterator[dict[str, Any]]:
    """The rows, in the order in which they are done."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    from fosp.data.workers import end_with_parent

    one = partial(measure, scenario=options.scenario, seeds=range(options.seed, options.seed + options.episodes))
    if options.workers == 0 or not jobs:
        yield from map(one, jobs)
        return
    # Spawned, because what this process has loaded may not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(options.workers, len(jobs)), context, end_with_parent)
    try:
        for future in as_completed([pool.submit(one, job) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# ---------------------------------------------------------------------------------------------- file and table


def _begin(options: Options) -> dict[str, Any]:
    """The document without rows, or the one that the file holds, if it was begun in the same way."""
    from fosp.types import UserError

    header = {
        "format": FORMAT,
        "scenario": options.scenario,
        "seed": options.seed,
        "layouts": options.episodes,
        "code": _code(),
    }
    if options.json is None or not options.json.exists():
        return {**header, "rows": []}
    try:
        document = json.loads(options.json.read_text(encoding="utf-8"))
        differs = next((key for key, value in header.items() if document.get(key) != value), None)
        _done(document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"--json {options.json} holds no rows of behaviours ({error!r}); name another file") from error
    if differs is not None:
        raise UserError(
            f"--json {options.json} was made with {differs} {document.get(differs)!r}, not {header[differs]!r}; "
            "name another file or delete it"
        )
    return document


def _code() -> str:
    """A digest of the behaviours and the world: rows of two versions do not belong in one table."""
    import hashlib

    from fosp import envs

    folder = Path(envs.__file__).parent
    files = sorted(file for file in folder.rglob("*.py") if file.name not in NO_MATTER)
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _done(document: dict[str, Any]) -> set[Job]:
    return {(row["task"], row["behaviour"]) for row in document["rows"]}


def _table(document: dict[str, Any], jobs: Sequence[Job]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from fosp.evaluation.table import number
    from fosp.types import several

    where = document["scenario"] or "the tasks as they are"
    title = f"behaviours on {several(document['layouts'], 'layouts')}, {where}"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.caption = "means over episodes with 95 % intervals; % of the unsafe return"
    table.add_column("task", no_wrap=True)
    table.add_column("", no_wrap=True)
    for name in ("return", "%", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = {(row["task"], row["behaviour"]): row for row in document["rows"]}
    task = None
    for job in jobs:
        if task not in (None, job[0]):
            table.add_section()
        row, unsafe = rows[job], rows.get((job[0], "unsafe"))
        share = f"{100 * row['return']['mean'] / unsafe['return']['mean']:.0f}" if unsafe else "-"
        name = "" if task == job[0] else job[0].removeprefix("Safety")
        table.add_row(name, job[1], number(row["return"]), share, number(row["cost"]))
        task = job[0]
    return table
