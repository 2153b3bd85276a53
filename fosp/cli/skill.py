"""fosp skill"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Options:
    """Minutes of offline pretraining until a policy beats its log, in mean return and mean cost on held-out layouts.

    Every checkpoint is scored, after training, so that scoring takes no time from it. A rerun goes on where the last
    one stopped.
    """

    preset: tuple[str, ...] = ("laptop",)
    """Presets, one curve each."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each seed has its own log and its own learning; the layouts are the same."""
    task: str = "SafetyPointGoal1"
    """Registered task."""
    log_episodes: int = 150
    """Episodes of each log, unsafe : safe : random = 1 : 1 : 1."""
    layouts: int = 20
    """Held-out layouts of each score."""
    every: int = 250
    """Updates from one checkpoint to the next."""
    set: tuple[str, ...] = ()
    """Changes of the configuration, as a.b=c."""
    out: Path = Path("runs/skill")
    """Folder for logs and runs."""
    results: Path | None = None
    """Folder that gets skill.json and skill.png; none is OUT/results."""
    device: str = "auto"
    """cpu, cuda or auto."""


def run(options: Options) -> int:
    from fosp.cli.bench import machine
    from fosp.cli.tables import show

    check(options)
    rows = [row for preset in options.preset for seed in options.seeds for row in scores(options, preset, seed)]
    document = {
        "format": "fosp-skill/1", "machine": machine.facts(options.device), "set": list(options.set), "rows": rows,
        "skill": [summary(rows, preset) for preset in options.preset],
    }  # fmt: skip
    results = options.results or options.out / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / "skill.json").write_text(json.dumps(document, indent=1) + "\n")
    plot(rows, results / "skill.png")
    show(table(document))
    return 0


def check(options: Options) -> None:
    """Raises UserError for what would only fail after minutes of work."""
    from fosp.presets import resolve
    from fosp.types import UserError

    for preset in options.preset:
        resolve(preset, None, options.set)
    for name in ("log_episodes", "layouts", "every"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)} must be at least 1")
    if not options.preset or not options.seeds:
        raise UserError("--preset and --seeds need at least one value each")


def scores(options: Options, preset: str, seed: int) -> list[dict[str, Any]]:
    """A row for each checkpoint of one run whose policy has begun to learn, in the order of training."""
    from fosp import api
    from fosp.data.inspect import show as look
    from fosp.training import checkpoint
    from fosp.training.log import Run

    log, folder = options.out / f"log-{seed}", options.out / f"{preset}-{seed}"
    api.collect(options.task, log, episodes=options.log_episodes, seed=10_000 * seed).close()
    changes = (*options.set, f"seed={seed}", f"training.save_every={options.every}", "training.keep=0")
    api.pretrain(log, folder, preset=preset, overrides=changes, device=options.device)
    known, total = Run(folder), look(log).total
    done = {row["updates"]: row for row in known.rows("skill.jsonl") if row["layouts"] == options.layouts}
    for path in sorted(known.checkpoints.iterdir()):
        if not path.name.isdigit() or int(path.name) in done or not _acts(path):
            continue
        scored = api.evaluate({path.name: path}, task=options.task, episodes=options.layouts)["policies"][0]["summary"]
        row = {
            "preset": preset, "seed": seed, "updates": int(path.name), "layouts": options.layouts,
            "minutes": checkpoint.read_numbers(path)["elapsed"] / 60, "return": scored["return"],
            "cost": scored["cost"], "log": {"return": total.return_mean, "cost": total.cost_mean},
        }  # fmt: skip
        row["beats_log"] = row["return"]["mean"] > total.return_mean and row["cost"]["mean"] < total.cost_mean
        known.append("skill.jsonl", row)
        done[row["updates"]] = row
    return [done[updates] for updates in sorted(done)]


def _acts(path: Path) -> bool:
    """Whether the policy of a checkpoint has learned at all: in two stages it begins with the second."""
    from fosp.training import checkpoint

    config = checkpoint.read_config(path)["config"]
    return bool(config["optimiser"]["behaviour_every"]) or checkpoint.read_numbers(path)["encoded_at"] is not None


def summary(rows: Sequence[dict[str, Any]], preset: str) -> dict[str, Any]:
    """Minutes of each seed to the first checkpoint that beats its log, None where none does, and their median."""
    own = [row for row in rows if row["preset"] == preset]
    minutes = {
        seed: min((row["minutes"] for row in own if row["seed"] == seed and row["beats_log"]), default=None)
        for seed in sorted({row["seed"] for row in own})
    }
    middle = statistics.median([float("inf") if value is None else value for value in minutes.values()])
    return {"preset": preset, "minutes": minutes, "median": None if middle == float("inf") else middle}


def table(document: dict[str, Any]) -> Any:
    """Minutes to skill by preset and seed, for the terminal."""
    from rich.table import Table

    machine = document["machine"]
    shown = Table(title=f"minutes until the policy beats its log; {machine['processor']}, {machine['cores']} cores")
    for column in ("preset", "seed", "minutes"):
        shown.add_column(column, justify="left" if column == "preset" else "right")
    for found in document["skill"]:
        for seed, minutes in [*found["minutes"].items(), ("median", found["median"])]:
            shown.add_row(found["preset"], str(seed), "not reached" if minutes is None else f"{minutes:.1f}")
    return shown


def plot(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Return and cost against minutes, a line for each run with its 95 % interval, the mean of the logs dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    presets = list(dict.fromkeys(row["preset"] for row in rows))
    for axes, name in zip(figure.subplots(1, 2), ("return", "cost"), strict=True):
        for preset, colour in zip(presets, ("#1b6ca8", "#c44e00", "#3a7d44", "#7a58b5"), strict=False):
            own = [row for row in rows if row["preset"] == preset]
            for i, seed in enumerate(sorted({row["seed"] for row in own})):
                curve = [row for row in own if row["seed"] == seed]
                minutes = [row["minutes"] for row in curve]
                low, high = ([row[name][end] for row in curve] for end in ("low", "high"))
                axes.fill_between(minutes, low, high, color=colour, alpha=0.12, linewidth=0)
                label = preset if i == 0 else None
                axes.plot(minutes, [row[name]["mean"] for row in curve], "o-", color=colour, markersize=3, label=label)
        level = statistics.mean(row["log"][name] for row in rows)
        axes.axhline(level, color="#6a6e78", linestyle="--", linewidth=1, label="log")
        axes.set(xlabel="minutes of offline training", ylabel=f"{name} per episode, held-out layouts")
        axes.set_xlim(left=0)
        axes.grid(True, alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(file, dpi=150)
