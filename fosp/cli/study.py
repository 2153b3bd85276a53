"""fosp study"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from fosp.cli.road import METHODS, Plan, Road, drive, short

STUDIES = {
    "pointgoal1": Plan(
        episodes=300,
        scenario="larger-hazards",
        preset="laptop",
        pretrain=(
            "model.depth=16",
            "training.updates=5000",
            "training.latent_updates=1500",
            "agent.actor_scales.likelihood=0.15",
            "agent.constraint.budget=6",
            "agent.constraint.penalty=0.1",
            "agent.constraint.step=1e-3",
        ),
        cloning=("training.latent_updates=3000",),
        finetune=("online.episodes=60", "online.updates_per_step=0.08", "online.decay=0"),
        layouts=40,
    ),
}


@dataclass(frozen=True)
class Options:
    """The whole road at full length over tasks, seeds and methods: each task and seed has its own log and learning."""

    name: tyro.conf.Positional[str]
    """Which study: pointgoal1."""
    out: Path = Path("runs/study")
    """Folder for everything; a rerun goes on where the last one stopped."""
    tasks: tuple[str, ...] = ()
    """Tasks instead of the study's own, such as SafetyPointGoal1 SafetyCarGoal2; each has a folder of its own."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the roads."""
    methods: tuple[str, ...] = tuple(METHODS)
    """What is compared: fosp, cloning."""
    results: Path | None = None
    """Folder that gets the tables and pages, small enough to be committed; none is OUT/results."""
    pretrain: tuple[str, ...] = ()
    """Values put over the study's own for pretraining, such as training.updates=4000; the result says so."""
    finetune: tuple[str, ...] = ()
    """The same for fine-tuning, such as online.episodes=100."""
    device: str = "auto"
    """cpu, cuda or auto."""
    workers: int = 0
    """Steps that run side by side on this machine, as Ray workers; 0 takes one after the other, without Ray."""
    ray: str | None = None
    """Address of a Ray cluster that takes the steps, such as auto; OUT must lie where all its machines see it."""
    threads: int = 0
    """Threads of each worker; 0 shares the cores of this machine among them, and is 1 on a cluster."""


def run(options: Options) -> int:
    from fosp.cli.progress import duration_text

    roads = _roads(options)
    if options.workers or options.ray is not None:
        _travel(options, [road for rows in roads.values() for road in rows])
    results = options.results or options.out / "results"
    results.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    for task, rows in roads.items():
        for road in rows:
            seconds = drive(road, print) if not options.workers and options.ray is None else road.seconds
            print(f"{f'{task} ' if options.tasks else ''}seed {road.seed}: {duration_text(sum(seconds.values()))}")
            part = f"{task}-" if options.tasks else ""
            shutil.copy(road.out / "report.html", results / f"report-{part}seed-{road.seed}.html")
        found[task] = _joined(rows)
    plan = vars(next(iter(roads.values()))[0].plan)
    about: dict[str, Any] = {"plan": plan, "seeds": list(options.seeds), "methods": list(options.methods)}
    if options.tasks:
        about["plan"] = {name: value for name, value in plan.items() if name != "task"}
        about["tasks"] = found
    else:
        (alone,) = found.values()
        about |= alone
    (results / "study.json").write_text(json.dumps(about, indent=1) + "\n")
    text = _markdown(options.name, found, grouped=bool(options.tasks))
    (results / "README.md").write_text(text)
    print(text)
    return 0


def _roads(options: Options) -> dict[str, list[Road]]:
    """Task -> a road for each seed. UserError for whatever could stop one of them later."""
    from fosp.envs import find_scenario, find_task
    from fosp.types import UserError, unknown

    if options.name not in STUDIES:
        raise unknown("study", options.name, STUDIES)
    for method in options.methods:
        if method not in METHODS:
            raise unknown("method", method, METHODS)
    if not options.methods or not options.seeds:
        raise UserError("a study needs at least one of --methods and one of --seeds")
    if options.workers < 0 or options.threads < 0:
        raise UserError(f"--workers {options.workers} and --threads {options.threads} must not be negative")
    if options.workers and options.ray is not None:
        both = f"--workers {options.workers} is for this machine and --ray {options.ray} for a cluster"
        raise UserError(f"{both}; give one of them")
    base = STUDIES[options.name]
    base = replace(base, pretrain=base.pretrain + options.pretrain, finetune=base.finetune + options.finetune)
    roads: dict[str, list[Road]] = {}
    for task in map(find_task, options.tasks or (base.task,)):
        find_scenario(base.scenario).change(task)  # UserError where it does not fit
        name = short(task.id)
        folder = options.out / name if options.tasks else options.out
        roads[name] = [
            Road(replace(base, task=task.id), folder / f"seed-{seed}", seed, options.device, options.methods)
            for seed in dict.fromkeys(options.seeds)
        ]
    return roads


def _travel(options: Options, roads: Sequence[Road]) -> None:
    """All steps of all roads on Ray workers."""
    import torch

    from fosp.cli.fleet import connected, travel

    threads = options.threads or max(1, (os.cpu_count() or 1) // options.workers if options.workers else 1)
    on_gpu = options.device.startswith("cuda") or (options.device == "auto" and torch.cuda.is_available())
    there = [replace(road, out=road.out.absolute()) for road in roads]  # a worker has another working folder
    with connected(options.workers, options.ray, threads) as ray:
        travel(ray, there, threads, print, gpus=float(on_gpu))


def _joined(roads: Sequence[Road]) -> dict[str, Any]:
    """What the roads of one task have found: tables over seeds by scenario, and what happened while learning."""
    from fosp.cli.tables import learning_summary
    from fosp.evaluation.document import seed_table

    documents = [road.documents() for road in roads]
    learning = [
        {"seed": road.seed, "seconds": road.seconds, **learning_summary(road.out / "finetuned")} for road in roads
    ]
    tables = {s: seed_table([found[s] for found in documents]) for s in documents[0]}
    return {"tables": tables, "learning": learning, "offline": [_offline(road) for road in roads]}


def _offline(road: Road) -> dict[str, Any]:
    """What a road learned from, by behaviour, and the cost per episode that its policy imagined in the end."""
    from fosp.data.inspect import show
    from fosp.training.log import Run

    log = show(road.out / "log")
    means = {g.behaviour: {"return": g.return_mean, "cost": g.cost_mean} for g in [*log.groups, log.total]}
    name = "constraint/cost_per_episode"
    imagined = [row[name] for row in Run(road.out / "offline").rows("metrics.jsonl") if name in row]
    return {"seed": road.seed, "log": means, "imagined_cost": imagined[-1] if imagined else None}


def _markdown(name: str, found: dict[str, dict[str, Any]], grouped: bool) -> str:
    """The tables of a study as a page: means over runs and layouts with 95 % intervals that resample both."""
    lines = [f"# Study {name}", ""]
    for task, joined in found.items():
        lines += [f"## {task}", ""] if grouped else []
        lines += _section(joined, "###" if grouped else "##")
        lines += [""] if grouped else []
    return "\n".join(lines) + "\n"


def _section(joined: dict[str, Any], heading: str) -> list[str]:
    """The tables of one task."""
    from fosp.evaluation.table import number

    learning = joined["learning"]
    behaviours = list(joined["offline"][0]["log"])
    lines = [f"{heading} What was learned from, return / cost, and what the policy imagined to cost in the end", ""]
    lines += [f"| seed | {' | '.join(behaviours)} | imagined cost |", "|---" * (2 + len(behaviours)) + "|"]
    for row in joined["offline"]:
        cells = [f"{row['log'][name]['return']:.1f} / {row['log'][name]['cost']:.1f}" for name in behaviours]
        imagined = "-" if row["imagined_cost"] is None else f"{row['imagined_cost']:.1f}"
        lines.append(f"| {row['seed']} | {' | '.join(cells)} | {imagined} |")
    lines.append("")
    for scenario, table in joined["tables"].items():
        layouts = len(table["seeds"])
        about = f"{table['runs']} runs, {layouts} held-out layouts each (suite {table['suite_hash']})"
        lines += [f"{heading} {scenario}: {about}", ""]
        lines += ["| policy | return | cost | episodes over the limit | worst 10 % cost |", "|---|---|---|---|---|"]
        for policy in table["policies"]:
            row = policy["summary"]
            cells = [number(row["return"]), number(row["cost"]), number(row["over_limit"], percent=True)]
            lines.append(f"| {policy['label']} | {' | '.join(cells)} | {number(row['worst_cost'])} |")
        lines.append("")
        for pair in table["comparisons"]:
            gain, risk = number(pair["return"], sign=True), number(pair["cost"], sign=True)
            cut = number(pair["cost_reduction"], percent=True)
            lines.append(f"* {pair['a']} minus {pair['b']}: return {gain}, cost {risk} (reduction {cut})")
        lines += [f"* {label}: {said['sentence']}" for label, said in table["verdicts"].items()]
        lines.append("")
    if any(row["layouts"] for row in learning):
        lines += [f"{heading} While fine-tuning, against the frozen policy on the same layouts", ""]
        lines += ["| seed | layouts | cost, learning | cost, frozen | difference | return difference |"]
        lines += ["|---|---|---|---|---|---|"]
    for row in learning:
        if row["layouts"]:
            pair = [number(row["learning"]["cost"]), number(row["frozen"]["cost"])]
            change = [number(row["difference"][key], sign=True) for key in ("cost", "return")]
            lines.append(f"| {row['seed']} | {row['layouts']} | {' | '.join(pair + change)} |")
    return lines
