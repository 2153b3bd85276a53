"""A look into a dataset: what is in it (``show``), and pictures of it (``inspect``, drawn in ``pictures.py``)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fosp.data.pictures import draw_actions, draw_returns, draw_sheet, draw_violations
from fosp.data.store import Store
from fosp.types import UserError, several


@dataclass(frozen=True)
class Group:
    """The episodes of one behaviour, or all of them."""

    behaviour: str
    noises: tuple[float, ...]
    episodes: int
    steps: int  # agent steps
    return_mean: float
    cost_mean: float  # NaN where the dataset does not know its cost
    violation_share: float  # share of agent steps with a cost


@dataclass(frozen=True)
class Overview:
    """What ``fosp data show`` tells; ``facts`` and ``table`` are ready to print."""

    path: Path
    task: str
    scenario: str | None
    episodes: int
    steps: int
    size: int  # bytes
    hash: str
    created: dict[str, Any]
    groups: list[Group]
    total: Group

    def facts(self) -> dict[str, str]:
        """Name -> value, in the order of reading."""
        count = f"{several(self.episodes, 'episodes')}, {several(self.steps, 'agent steps')}"
        return {
            "dataset": str(self.path),
            "task": self.task,
            "scenario": self.scenario or "as registered",
            "created": str(self.created.get("time", "unknown")),
            "size": f"{count}, {self.size / 1e6:.1f} MB",
            "hash": self.hash,
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows: each behaviour, then all."""
        header = ["behaviour", "noise", "episodes", "steps", "return", "cost", "steps in violation"]
        rows = [
            [
                group.behaviour,
                ", ".join(f"{noise:g}" for noise in group.noises),
                str(group.episodes),
                str(group.steps),
                f"{group.return_mean:.2f}",
                "unknown" if np.isnan(group.cost_mean) else f"{group.cost_mean:.1f}",
                "unknown" if np.isnan(group.violation_share) else f"{100 * group.violation_share:.1f} %",
            ]
            for group in [*self.groups, self.total]
        ]
        return header, rows


def show(path: str | os.PathLike[str]) -> Overview:
    """What is in the dataset, by behaviour, from the manifest alone. Raises UserError where there is none."""
    store = Store.open(path)
    behaviours = _by_behaviour(store.manifest)
    return Overview(
        path=store.path,
        task=store.schema.task,
        scenario=store.created.get("scenario"),
        episodes=len(store),
        steps=store.num_steps,
        size=store.num_bytes,
        hash=store.hash,
        created=store.created,
        groups=[_group(name, rows) for name, rows in behaviours.items()],
        total=_group("all", store.manifest),
    )


def _by_behaviour(manifest: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in manifest:
        groups.setdefault(str(row.get("behaviour", "unnamed")), []).append(row)
    return dict(sorted(groups.items()))


def _group(name: str, rows: Sequence[dict[str, Any]]) -> Group:
    steps = sum(row["steps"] for row in rows)
    costly = bool(rows) and all(row["cost"] is not None for row in rows)
    return Group(
        behaviour=name,
        noises=tuple(sorted({row["noise"] for row in rows if row.get("noise") is not None})),
        episodes=len(rows),
        steps=steps,
        return_mean=float(np.mean([row["return"] for row in rows])) if rows else float("nan"),
        cost_mean=float(np.mean([row["cost"] for row in rows])) if costly else float("nan"),
        violation_share=sum(row["violation_steps"] for row in rows) / steps if costly else float("nan"),
    )


def inspect(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> list[Path]:
    """Draws the dataset into the folder ``out`` and returns the files (PNG).

    Return against cost, violations over time, actions, and the frames before violations (where there are any).
    Raises UserError where the dataset is empty or has no cost, or ``out`` cannot be written.
    """
    store = Store.open(path)
    store.require_cost()
    if len(store) == 0:
        raise UserError(f"dataset {store.path} holds no episodes yet; collect some first")
    groups = _by_behaviour(store.manifest)
    figures = {
        "return_against_cost": draw_returns(groups),
        "violations": draw_violations(store, groups),
        "actions": draw_actions(store, groups),
        "before_violations": draw_sheet(store, groups),
    }
    folder, files = Path(out), []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            if figure is not None:
                files.append(folder / f"{name}.png")
                figure.savefig(files[-1], dpi=120, facecolor="white")
    except OSError as error:
        raise UserError(f"{folder}: pictures cannot be written ({error.strerror}); choose another folder") from error
    return files
