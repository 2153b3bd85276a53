"""Builds run folders with plausible synthetic numbers and pictures, as training and evaluation write them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fosp.evaluation.document import make_document, save, seed_table

TASK = "fosp/SafetyPointGoal1-v0"
LOG = {"safe": (19.0, 17.0), "unsafe": (17.0, 58.0), "random": (-2.5, 34.0)}  # mean return, mean cost


def episode_rows(rng: np.random.Generator, seeds: list[int], mean_return: float, mean_cost: float) -> list[dict]:
    """One row per seed. The layout moves both return and cost, the same way for every policy."""
    rows = []
    for seed in seeds:
        layout = np.random.default_rng(seed)
        cost = rng.gamma(1.2, mean_cost / 1.2) * layout.choice([0.2, 1.0, 1.4]) * (rng.random() < 0.85)
        rows.append(
            {
                "seed": seed,
                "return": float(mean_return + 2.5 * layout.normal() + 1.2 * rng.normal()),
                "cost": float(np.round(cost)),
                "violation_steps": int(np.ceil(cost / 2.5)),
                "steps": 250,
                "goals": float(max(0, round(mean_return / 2 + rng.normal()))),
            }
        )
    return rows


def dataset(folder: Path, episodes: int = 90, seed: int = 0) -> dict:
    """A dataset's manifest (no images); returns the "dataset" part of run.json."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    with (folder / "episodes.jsonl").open("w") as file:
        for i in range(episodes):
            behaviour = list(LOG)[i % 3]
            row = episode_rows(rng, [i], *LOG[behaviour])[0]
            file.write(json.dumps({"index": i, **row, "behaviour": behaviour, "task": TASK, "scenario": None}) + "\n")
    return {"path": str(folder), "hash": "9f3ac1" * 10, "episodes": episodes, "steps": 250 * episodes}


def policy(label: str, kind: str, rows: list[dict]) -> dict:
    return {"label": label, "meta": {"kind": kind, "checkpoint": f"runs/{kind}/checkpoints/12000"}, "episodes": rows}


def evaluation(path: Path, levels: dict[str, tuple[str, float, float]], scenario: str | None = None, **options) -> dict:
    """levels: label -> (kind, mean return, mean cost)."""
    rng = np.random.default_rng(options.pop("seed", 1))
    seeds = list(range(2_000_000, 2_000_000 + options.pop("episodes", 40)))
    policies = [policy(label, kind, episode_rows(rng, seeds, r, c)) for label, (kind, r, c) in levels.items()]
    texts = {
        "task": "A point robot drives to a green goal while it keeps out of eight round hazards on the floor.",
        "scenario": "Twelve hazards instead of the eight that the log was recorded with." if scenario else "",
    }
    document = make_document(
        policies, task=TASK, scenario=scenario, suite_hash="a1b2c3d4e5f60718", cost_limit=25.0, texts=texts, **options
    )
    save(document, path)
    return document


def metrics(folder: Path, kind: str, updates: int = 12000, rows: int = 240, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    model = {"image": (4000, 150), "reward": (2.2, 0.15), "cost": (2.8, 0.3), "proceed": (0.4, 0.001)}
    model |= {"kl_dynamics": (12, 2.4), "kl_representation": (12, 2.4)}
    other = {"critic/q_reward": (5.2, 1.1), "critic/v_reward": (4.9, 1.0), "critic/q_cost": (5.0, 1.6)}
    other |= {"critic/v_cost": (4.8, 1.4), "reach/probability": (0.5, 0.2), "reach/violated": (0.1, 0.1)}
    other |= {"actor/loss": (2.1, -1.4), "actor/entropy": (2.8, 0.4), "actor/weight_mean": (1.0, 2.4)}
    curves = {f"model/{name}": span for name, span in model.items()} | other
    if kind == "bc":
        curves = {"actor/loss": (2.0, -0.6), "actor/entropy": (2.8, 0.9)}
    with (folder / "metrics.jsonl").open("w") as file:
        for i, step in enumerate(np.linspace(50, updates, rows).astype(int)):
            fall = np.exp(-4 * i / rows)
            row = {"step": int(step), "time": 1.8e9 + step * 0.1, "clock/seconds": float(step * 0.08)}
            for name, (start, end) in curves.items():
                noise = 1 + 0.08 * rng.normal()
                row[name] = float((end + (start - end) * fall) * noise)
            row["constraint/multiplier"] = float(max(0.0, 1.5 * np.sin(3 * i / rows) + 0.05 * rng.normal()))
            row["clock/updates_per_second"] = float(12.5 + rng.normal() * 0.4)
            file.write(json.dumps(row) + "\n")
        file.write('{"step": 12050, "ti')  # what a killed writer leaves behind


def run_json(folder: Path, kind: str, data: dict, scenario: str | None = None) -> None:
    source = [] if kind != "finetune" else ["--checkpoint", "runs/pretrain", "--scenario", str(scenario)]
    verb = ["finetune"] if kind == "finetune" else ["pretrain", *(["--method", "cloning"] if kind == "bc" else [])]
    record = {
        "command": ["fosp", *verb, "--data", "data/point goal1", *source],
        "git": "3f2c9a17bd",
        "started": "2026-11-20T09:14:03+00:00",
        "versions": {"python": "3.11.7", "torch": "2.13.0", "mujoco": "3.3.7", "fosp": "0.1.0"},
        "kind": kind,
        "dataset": data,
        "task": TASK,
        "scenario": scenario,
    }
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "config.yaml").write_text(f"method: {kind}\nmodel:\n  deter: 256\n  classes: 16\nbatch_size: 16\n")
    checkpoint = folder / "checkpoints" / "12000"
    checkpoint.mkdir(parents=True)
    manifest = {"policy/config.json": "a7" * 32, "policy/model.safetensors": "5e" * 32}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def online(folder: Path, episodes: int = 60, seed: int = 0) -> None:
    """episodes.jsonl and frozen.jsonl: the online policy's cost falls, the frozen one's does not."""
    rng = np.random.default_rng(seed)
    seeds = list(range(1_000_000, 1_000_000 + episodes))
    frozen = episode_rows(rng, seeds, 13.0, 44.0)
    learned = []
    for i, s in enumerate(seeds):
        done = i / episodes
        row = episode_rows(rng, [s], 13.0 + 1.2 * done, 44.0 - 30.0 * done)[0]
        extra = {"episode": i, "chosen_online": float(np.clip(0.3 + 0.5 * done + 0.06 * rng.normal(), 0, 1))}
        learned.append({**row, **extra, "env_steps": 250 * (i + 1), "time": 20.0 * i})
    for name, rows in (("episodes", learned), ("frozen", frozen)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


# ------------------------------------------------------------------------------------------------------ pictures


def rollout(path: Path, label: str, seed: int, *, steps: int = 250, two_policies: bool = False, **meta) -> None:
    """A point that wanders through hazards, seen from above and by two drawn cameras; the imagination is a blur."""
    rng = np.random.default_rng(seed)
    hazards, goal = rng.uniform(-1.5, 1.5, (8, 2)), rng.uniform(-1.4, 1.4, 2)
    position, yaw = np.zeros(2), 0.0
    track, cost = [], []
    for t in range(steps + 1):
        track.append((*position, yaw))
        near = np.min(np.linalg.norm(hazards - position, axis=1))
        cost.append(4.0 if near < 0.25 and t else 0.0)
        aim = np.arctan2(*(goal - position)[::-1])
        yaw += 0.25 * np.sin(aim - yaw) + 0.05 * rng.normal()
        position = position + 0.02 * np.array([np.cos(yaw), np.sin(yaw)])
        if np.linalg.norm(goal - position) < 0.3:
            goal = rng.uniform(-1.4, 1.4, 2)
    track_array, cost_array = np.array(track), np.array(cost)
    front = np.stack([_camera(p, yaw, hazards, goal) for *p, yaw in track])
    back = np.stack([_camera(p, yaw + np.pi, hazards, goal) for *p, yaw in track])
    start = np.arange(steps + 1) // 45 * 45
    distance = np.min(np.linalg.norm(track_array[:, None, :2] - hazards[None], axis=2), axis=1)
    probability = np.clip(1.2 * np.exp(-3.5 * distance) + 0.03 * rng.normal(size=steps + 1), 0, 1)
    switch = (np.sin(np.arange(steps + 1) / 9 + seed) > -0.2).astype(np.int64)
    reward = np.r_[0.0, np.diff(track_array[:, 0])] + 0.02
    np.savez_compressed(
        path,
        image_front=front,
        image_back=back,
        imagined_front=_imagine(front, start),
        imagined_back=_imagine(back, start),
        imagined_from=start,
        overview=np.stack([_overview(p, yaw, hazards, goal) for *p, yaw in track]),
        action=np.zeros((steps + 1, 2), np.float32),
        reward=reward,
        cost=cost_array,
        violation_probability=probability,
        reward_value=8 + np.cumsum(rng.normal(size=steps + 1)) * 0.2,
        cost_value=20 * probability + 2,
        chosen=switch if two_policies else np.full(steps + 1, -1),
        meta_json=json.dumps(
            {
                "task": TASK,
                "scenario": None,
                "seed": seed,
                "label": label,
                "checkpoint": "runs/pretrain/checkpoints/12000",
                "return": float(reward.sum()),
                "cost": float(cost_array.sum()),
                "step_seconds": 0.08,
                **meta,
            }
        ),
    )


def _overview(position, yaw, hazards, goal) -> np.ndarray:
    picture = Image.new("RGB", (256, 256), (214, 206, 190))
    draw = ImageDraw.Draw(picture)

    def disc(xy, radius, colour):
        x, y = 128 + 64 * xy[0], 128 - 64 * xy[1]
        draw.ellipse((x - 64 * radius, y - 64 * radius, x + 64 * radius, y + 64 * radius), fill=colour)

    for hazard in hazards:
        disc(hazard, 0.2, (120, 130, 235))
    disc(goal, 0.3, (70, 190, 90))
    disc(position, 0.1, (220, 60, 50))
    disc(np.asarray(position) + 0.12 * np.array([np.cos(yaw), np.sin(yaw)]), 0.04, (40, 40, 40))
    return np.asarray(picture)


def _camera(position, yaw, hazards, goal) -> np.ndarray:
    picture = Image.new("RGB", (64, 64), (150, 190, 225))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 28, 64, 64), fill=(205, 196, 180))
    things = [(h, 0.2, (135, 143, 225), 0.02) for h in hazards] + [(goal, 0.3, (70, 190, 90), 0.4)]
    for xy, radius, colour, height in sorted(things, key=lambda i: -np.linalg.norm(i[0] - position)):
        dx, dy = np.asarray(xy) - position
        depth = dx * np.cos(yaw) + dy * np.sin(yaw)
        side = dx * np.sin(yaw) - dy * np.cos(yaw)
        if depth > 0.15:
            x, ground, half = 32 + 36 * side / depth, 28 + 8 / depth, 36 * radius / depth
            draw.ellipse((x - half, ground - half * max(height, 0.3), x + half, ground + half * 0.3), fill=colour)
    return np.asarray(picture)


def _imagine(clip: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The farther ahead, the blurrier and the more it lags behind."""
    frames = []
    for t, began in enumerate(start):
        ahead = t - began
        source = Image.fromarray(clip[began + int(ahead * 0.85)])
        frames.append(np.asarray(source.filter(ImageFilter.GaussianBlur(float(0.3 + 0.04 * ahead)))))
    return np.stack(frames)


# ------------------------------------------------------------------------------------------------------ whole runs


def build(root: Path, *, steps: int = 250, episodes: int = 40, rollouts: int = 2) -> list[Path]:
    """A pretraining run, a behaviour-cloning run and a fine-tuning run, as the demo leaves them."""
    data = dataset(root / "data")
    runs = {kind: root / "runs" / kind for kind in ("bc", "pretrain", "finetune")}
    scenario = "twelve-hazards"
    for kind, folder in runs.items():
        folder.mkdir(parents=True)
        run_json(folder, kind, data, scenario if kind == "finetune" else None)
        metrics(folder, kind)
    levels = {"behaviour cloning": ("bc", 9.0, 40.0), "offline": ("pretrain", 15.6, 11.0)}
    evaluation(runs["pretrain"] / "evaluation" / "usual.json", levels, episodes=episodes)
    unseen = {"behaviour cloning": ("bc", 8.0, 70.0), "offline, frozen": ("pretrain", 13.4, 38.0)}
    unseen["fine-tuned"] = ("finetune", 14.0, 18.0)
    evaluation(runs["finetune"] / "evaluation" / "unseen.json", unseen, scenario, episodes=episodes, seed=2)
    online(runs["finetune"])
    for kind, two in (("pretrain", False), ("finetune", True)):
        (runs[kind] / "rollouts").mkdir()
        for seed in range(2_000_000, 2_000_000 + rollouts):
            label = {"pretrain": "offline", "finetune": "fine-tuned"}[kind]
            file = runs[kind] / "rollouts" / f"rollout_{label}_{seed}.npz"
            rollout(file, label, seed, steps=steps, two_policies=two, scenario=scenario if two else None)
    return list(runs.values())


def build_study(folder: Path, runs: int = 3) -> None:
    """A folder that holds nothing but a table over seeds."""
    levels = {"offline": ("pretrain", 15.6, 9.0), "fine-tuned": ("finetune", 16.0, 5.0)}
    documents = [evaluation(folder / "tmp" / f"{i}.json", levels, "twelve-hazards", seed=10 + i) for i in range(runs)]
    save(seed_table(documents), folder / "evaluation" / "seeds.json")
