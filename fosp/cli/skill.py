"""fosp skill"""

from __future__ import annotations

import json
import re
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
    vary: tuple[str, ...] = ()
    """Further runs, each with these changes too: "a.b=c a.b=d" is one run. Where they leave the world model as it is,
    it is that of the run without them."""
    last: int = 0
    """Score no more than the last so many checkpoints, 0 for all."""
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
    curves = [(preset, vary) for preset in options.preset for vary in ("", *options.vary)]
    rows = [row for preset, vary in curves for seed in options.seeds for row in scores(options, preset, vary, seed)]
    document = {
        "format": "fosp-skill/1", "machine": machine.facts(options.device), "set": list(options.set), "rows": rows,
        "skill": [summary(rows, preset, vary) for preset, vary in curves],
    }  # fmt: skip
    results = options.results or options.out / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / "skill.json").write_text(json.dumps(document, indent=1) + "\n")
    plot([row for row in rows if not row["vary"]], results / "skill.png")
    show(table(document))
    return 0


def check(options: Options) -> None:
    """Raises UserError for what would only fail after minutes of work."""
    from fosp.presets import resolve
    from fosp.types import UserError

    for preset in options.preset:
        for vary in ("", *options.vary):
            resolve(preset, None, [*options.set, *vary.split()])
    if options.last < 0:
        raise UserError(f"--last {options.last} must be at least 0, which scores all checkpoints")
    for name in ("log_episodes", "layouts", "every"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)} must be at least 1")
    if not options.preset or not options.seeds:
        raise UserError("--preset and --seeds need at least one value each")


def scores(options: Options, preset: str, vary: str, seed: int) -> list[dict[str, Any]]:
    """A row for each checkpoint of one run whose policy has begun to learn, in the order of training."""
    from fosp import api
    from fosp.data.inspect import show as look
    from fosp.training import checkpoint
    from fosp.training.log import Run

    log, plain = options.out / f"log-{seed}", options.out / f"{preset}-{seed}"
    folder = plain.with_name(f"{preset}-{re.sub('[^A-Za-z0-9.=]+', '_', vary)}-{seed}") if vary else plain
    api.collect(options.task, log, episodes=options.log_episodes, seed=10_000 * seed).close()
    saving = (f"seed={seed}", f"training.save_every={options.every}", "training.keep=0")
    changes = [*options.set, *vary.split(), *saving]
    world = _world(plain) if vary and _leaves_the_world(vary) else None
    if world is not None:  # whose sizes are its own
        changes = [change for change in changes if not change.startswith("model.")]
    api.pretrain(log, folder, preset=preset, overrides=changes, model_from=world, device=options.device)
    known, total = Run(folder), look(log).total
    before = {"updates": 0, "elapsed": 0.0}
    if world is not None:
        before = {"updates": int(world.name), "elapsed": checkpoint.read_numbers(world)["elapsed"]}
    rows = ({"vary": vary, **row} for row in known.rows("skill.jsonl"))  # older ones do not say it
    done = {row["updates"]: row for row in rows if row["layouts"] == options.layouts}
    acting = [path for path in sorted(known.checkpoints.iterdir()) if path.name.isdigit() and _acts(path)]
    counted = {int(path.name) + before["updates"]: path for path in acting[-options.last :]}  # [-0:] are all
    for updates, path in counted.items():
        if updates in done:
            continue
        scored = api.evaluate({path.name: path}, task=options.task, episodes=options.layouts)["policies"][0]["summary"]
        row = {
            "preset": preset, "vary": vary, "seed": seed, "updates": updates, "layouts": options.layouts,
            "minutes": (before["elapsed"] + checkpoint.read_numbers(path)["elapsed"]) / 60,
            "return": scored["return"], "cost": scored["cost"],
            "log": {"return": total.return_mean, "cost": total.cost_mean},
        }  # fmt: skip
        row["beats_log"] = row["return"]["mean"] > total.return_mean and row["cost"]["mean"] < total.cost_mean
        known.append("skill.jsonl", row)
        done[updates] = row
    return [done[updates] for updates in counted]


#: What has no part in learning the world model, where that is a stage of its own.
_BEHAVIOUR = tuple(
    f"agent.{name}" for name in (
        "units", "layers", "bins", "gamma", "lam", "horizon", "explore_first", "expectile", "slow_fraction", "average",
        "reach_gamma", "critic_scales", "actor_scales", "weights", "constraint",
    )
) + ("optimiser.critic_rate", "optimiser.actor_rate")  # fmt: skip


def _leaves_the_world(vary: str) -> bool:
    """Whether changes are of the second stage alone."""
    return all(change.startswith(_BEHAVIOUR) for change in vary.split())


def _world(folder: Path) -> Path | None:
    """The checkpoint with the world model that all critics and policies of a run learned on, if it was kept."""
    from fosp.training import checkpoint

    newest = checkpoint.resolve(folder)
    if checkpoint.read_config(newest)["config"]["optimiser"]["behaviour_every"]:
        return None
    encoded_at = checkpoint.read_numbers(newest)["encoded_at"]
    path = checkpoint.folder_of(folder / "checkpoints", encoded_at or 0)
    return path if path.exists() else None


def _acts(path: Path) -> bool:
    """Whether the policy of a checkpoint has learned at all: in two stages it begins with the second."""
    from fosp.training import checkpoint

    config = checkpoint.read_config(path)["config"]
    return bool(config["optimiser"]["behaviour_every"]) or checkpoint.read_numbers(path)["encoded_at"] is not None


def summary(rows: Sequence[dict[str, Any]], preset: str, vary: str = "") -> dict[str, Any]:
    """Minutes of each seed to the first checkpoint that beats its log, None where none does, and their median.

    ``end``: return and cost in the mean over seeds of the mean of each seed's last three scores, which move by as much
    from one checkpoint to the next as they differ between configurations; and the means of the seeds.
    """
    own = [row for row in rows if row["preset"] == preset and row["vary"] == vary]
    seeds = {seed: [row for row in own if row["seed"] == seed] for seed in sorted({row["seed"] for row in own})}
    minutes = {
        seed: min((row["minutes"] for row in found if row["beats_log"]), default=None) for seed, found in seeds.items()
    }
    middle = statistics.median([float("inf") if value is None else value for value in minutes.values()])
    end = {}
    for name in ("return", "cost"):
        means = {seed: statistics.mean(row[name]["mean"] for row in found[-3:]) for seed, found in seeds.items()}
        end[name] = {"mean": statistics.mean(means.values()), "seeds": means}
    return {
        "preset": preset, "vary": vary, "minutes": minutes, "median": None if middle == float("inf") else middle,
        "end": end,
    }  # fmt: skip


def table(document: dict[str, Any]) -> Any:
    """Minutes to skill by preset and seed, for the terminal."""
    from rich.table import Table

    machine = document["machine"]
    shown = Table(title=f"minutes until the policy beats its log; {machine['processor']}, {machine['cores']} cores")
    for column in ("preset", "seed", "minutes", "return at the end", "cost"):
        shown.add_column(column, justify="left" if column == "preset" else "right", overflow="fold")
    for found in document["skill"]:
        name, end = " ".join([found["preset"], *found["vary"].split()]), found["end"]
        for seed, minutes in [*found["minutes"].items(), ("median, mean", found["median"])]:
            values = [f"{end[n]['seeds'].get(seed, end[n]['mean']):.1f}" for n in ("return", "cost")]
            shown.add_row(name, str(seed), "not reached" if minutes is None else f"{minutes:.1f}", *values)
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
