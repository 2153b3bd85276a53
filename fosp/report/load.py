"""Run folders into plain records. What is absent is empty here; what is damaged is a UserError with its name."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fosp.types import UserError

EVALUATION_FORMATS = ("fosp-evaluation/1", "fosp-seed-table/1")
_SUMMARY = ("return", "cost", "over_limit", "violation_steps", "worst_cost")  # what the page shows of each policy


@dataclass(frozen=True)
class Curve:
    """One metric over training: n points."""

    step: np.ndarray  # (n,) gradient updates
    value: np.ndarray  # (n,)


@dataclass(frozen=True)
class Run:
    """What lies in one run folder."""

    path: Path
    record: dict[str, Any]  # run.json
    config: str  # config.yaml as text
    metrics: dict[str, Curve]
    seconds: float  # training time, 0 where unknown
    evaluations: list[dict[str, Any]]
    rollouts: list[Path]
    videos: list[Path]
    episodes: list[dict[str, Any]]  # online episodes of fine-tuning
    frozen: list[dict[str, Any]]  # the frozen offline policy on the same layouts
    checkpoints: list[dict[str, Any]]  # manifests, oldest first
    log: list[dict[str, Any]] = field(default_factory=list)  # manifest rows of the dataset, where it is still there

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def kind(self) -> str:
        """pretrain, finetune, bc, or "" where the folder holds an evaluation only."""
        return str(self.record.get("kind") or "")

    @property
    def dataset(self) -> dict[str, Any]:
        return self.record.get("dataset") or {}


@dataclass(frozen=True)
class Rollout:
    """One recorded episode, T rows. Arrays that were not recorded are None."""

    meta: dict[str, Any]
    images: dict[str, np.ndarray]  # camera -> uint8 (T, W, W, 3), "image_front" ...
    imagined: dict[str, np.ndarray]  # the same cameras, predicted by the world model
    imagined_from: np.ndarray | None  # (T,) row at which the prediction shown at t began
    overview: np.ndarray | None  # uint8 (T, W', W', 3), a view for people
    reward: np.ndarray  # (T,)
    cost: np.ndarray  # (T,)
    traces: dict[str, np.ndarray]  # violation_probability, reward_value, cost_value: (T,)
    chosen: np.ndarray | None  # (T,) 0 frozen offline policy, 1 online policy; None where there is one policy only

    def __len__(self) -> int:
        return len(self.reward)


def load_run(path: Path) -> Run:
    """Reads a run folder. Raises UserError where it is missing, empty of anything to show, or damaged."""
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; give run folders, made by `fosp pretrain`, `finetune` or `evaluate`")
    record = read_json(path / "run.json") if (path / "run.json").exists() else {}
    metrics, seconds = _metrics(path / "metrics.jsonl")
    run = Run(
        path=path,
        record=record,
        config=_text(path / "config.yaml"),
        metrics=metrics,
        seconds=seconds,
        evaluations=[_evaluation(file) for file in sorted((path / "evaluation").glob("*.json"))],
        rollouts=sorted((path / "rollouts").glob("*.npz")),
        videos=sorted((path / "videos").glob("*.mp4")),
        episodes=read_jsonl(path / "episodes.jsonl", needs=("return", "cost")),
        frozen=read_jsonl(path / "frozen.jsonl", needs=("return", "cost")),
        checkpoints=_checkpoints(path / "checkpoints"),
        log=_log(path, record),
    )
    if not (record or run.evaluations or run.rollouts or run.metrics):
        raise UserError(f"{path} is not a run folder: it has no run.json, evaluation/, rollouts/ or metrics.jsonl")
    return run


def read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or cannot be read ({error}); restore it or make it again") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} holds a {type(data).__name__}, expected a JSON object; restore it or make it again")
    return data


def read_jsonl(path: Path, needs: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Rows of a file that is appended to; [] where there is no such file.

    A last line without a newline is what a killed writer leaves behind, and is ignored; any other damage is an error.
    """
    if not path.exists():
        return []
    rows = []
    lines = _text(path).split("\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path} is damaged at line {number} ({error}); restore it or delete that line") from error
        if not isinstance(row, dict) or any(name not in row for name in needs):
            raise UserError(f"{path}, line {number} is not a row with {' and '.join(needs) or 'names'}; restore it")
        rows.append(row)
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged or cannot be read ({error}); restore it or make it again") from error


def _metrics(path: Path) -> tuple[dict[str, Curve], float]:
    """Every metric of metrics.jsonl, and the seconds that training took up to the last row."""
    steps: dict[str, list[float]] = {}
    values: dict[str, list[float]] = {}
    rows = read_jsonl(path, needs=("step",))
    for row in rows:
        for name, value in row.items():
            if name not in ("step", "time") and isinstance(value, int | float):
                steps.setdefault(name, []).append(row["step"])
                values.setdefault(name, []).append(value)
    curves = {name: Curve(np.array(steps[name], np.float64), np.array(values[name], np.float64)) for name in steps}
    clock = curves.get("clock/seconds")
    return curves, float(clock.value[-1]) if clock else 0.0


def _evaluation(path: Path) -> dict[str, Any]:
    document = read_json(path)
    if document.get("format") not in EVALUATION_FORMATS:
        known = " or ".join(map(repr, EVALUATION_FORMATS))
        raise UserError(f"{path} has format {document.get('format')!r}, expected {known}; evaluate again")
    missing = [name for name in ("task", "policies", "comparisons", "verdicts", "cost_limit") if name not in document]
    if not missing:
        missing = [name for p in document["policies"] for name in _SUMMARY if name not in p.get("summary", {})]
    if missing:
        raise UserError(f"{path} is damaged: it has no {missing[0]!r}; evaluate again")
    return document


def _checkpoints(folder: Path) -> list[dict[str, Any]]:
    """The manifests of the numbered checkpoints, each with its "name"."""
    found = [d for d in folder.glob("*/manifest.json") if d.parent.name.isdigit()]
    return [{"name": file.parent.name, **read_json(file)} for file in sorted(found, key=lambda f: int(f.parent.name))]


def _log(path: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
    """The dataset's manifest where it can still be found: as given, or relative to the run folder."""
    given = (record.get("dataset") or {}).get("path")
    if not given:
        return []
    for folder in (Path(given), path / given):
        if (folder / "episodes.jsonl").exists():
            return read_jsonl(folder / "episodes.jsonl", needs=("return",))
    return []


# ------------------------------------------------------------------------------------------------------ rollouts


def load_rollout(path: Path) -> Rollout:
    """Reads one recorded episode. Raises UserError where arrays are missing or of other lengths, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(str(arrays.pop("meta_json")))
        length = len(arrays["reward"])
        wrong = [name for name, array in arrays.items() if array.shape[:1] != (length,)]
        if wrong or "cost" not in arrays or length == 0:
            raise ValueError(f"{wrong[0]} has not {length} rows" if wrong else "no rows or no cost")
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a recorded rollout or is damaged ({error}); record it again") from error
    chosen = arrays.get("chosen")
    return Rollout(
        meta={"label": path.stem, **meta},
        images=dict(_with_prefix(arrays, "image_", "image_")),
        imagined=dict(_with_prefix(arrays, "imagined_", "image_", without=("imagined_from",))),
        imagined_from=arrays.get("imagined_from"),
        overview=arrays.get("overview"),
        reward=np.nan_to_num(arrays["reward"].astype(np.float64)),
        cost=np.nan_to_num(arrays["cost"].astype(np.float64)),
        traces={
            name: arrays[name].astype(np.float64)
            for name in ("violation_probability", "reward_value", "cost_value")
            if name in arrays and np.isfinite(arrays[name]).any()
        },
        chosen=chosen if chosen is not None and (chosen >= 0).any() else None,
    )


def _with_prefix(
    arrays: dict[str, np.ndarray], prefix: str, new: str, without: tuple[str, ...] = ()
) -> Iterator[tuple[str, np.ndarray]]:
    for name, array in arrays.items():
        if name.startswith(prefix) and name not in without:
            yield new + name.removeprefix(prefix), array
