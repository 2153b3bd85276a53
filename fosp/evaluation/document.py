"""The JSON document of an evaluation, and the one that joins several runs of a method (seeds of the learner).

::

    {"format": "fosp-evaluation/1", "task", "scenario", "suite_hash", "seeds": [...], "layouts", "cost_limit",
     "created", "texts": {"task", "scenario"},
     "policies": [{"label", "meta": {...},
                   "episodes": [{"seed", "return", "cost", "violation_steps", "steps", "goals"}],
                   "summary": {name: {"mean", "low", "high", "n"}}}],
     "comparisons": [{"a", "b", "return": {...}, "cost": {...}, "cost_reduction": {...}, "improvement": {...},
                      "excludes_zero": {"return", "cost"}}],
     "verdicts": {label: {"answer", "sentence", "low", "high"}}}

All differences are a minus b on the same layouts. Intervals are 95 %, from a generator seeded with 0: the same episodes
give the same document. A number that does not exist (an interval of one episode) is null.
A joined document has the format "fosp-seed-table/1", "runs": how many, and per policy "runs": the summary of each
run, instead of "episodes".
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from fosp.evaluation import statistics as st
from fosp.evaluation.verdict import verdict
from fosp.types import COLLECT_SEEDS, HELD_OUT_SEEDS, ONLINE_SEEDS, UserError

FORMAT = "fosp-evaluation/1"
SEED_TABLE_FORMAT = "fosp-seed-table/1"

Row = dict[str, Any]  # one episode: seed, return, cost, violation_steps, steps, goals


def make_document(
    policies: Sequence[Mapping[str, Any]],
    *,
    task: str,
    cost_limit: float,
    scenario: str | None = None,
    suite_hash: str = "",
    texts: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Summaries, paired comparisons (each policy with each one before it) and verdicts of finished episodes.

    ``policies``: label, meta, episodes; all must have the same layouts in the same order. Needs no environment, so it
    also joins rows that fine-tuning wrote. Raises UserError where the layouts differ.
    """
    seeds = [row["seed"] for row in policies[0]["episodes"]]
    for policy in policies:
        if [row["seed"] for row in policy["episodes"]] != seeds:
            raise UserError(
                f"policies {policies[0]['label']!r} and {policy['label']!r} were not run on the same layouts; "
                "evaluate them together"
            )
    columns = {p["label"]: {k: _column(p["episodes"], k) for k in ("return", "cost")} for p in policies}
    return {
        "format": FORMAT,
        "task": task,
        "scenario": scenario,
        "suite_hash": suite_hash,
        "seeds": seeds,
        "layouts": _layouts(seeds),
        "cost_limit": float(cost_limit),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "texts": dict(texts or {}),
        "policies": [
            {
                "label": p["label"],
                "meta": dict(p.get("meta") or {}),
                "episodes": list(p["episodes"]),
                "summary": summarise(p["episodes"], cost_limit),
            }
            for p in policies
        ],
        "comparisons": [_compare(a, columns[a], b, columns[b]) for b, a in combinations(columns, 2)],
        "verdicts": {label: verdict(c["cost"], cost_limit).to_json() for label, c in columns.items()},
    }


def summarise(rows: Sequence[Row], cost_limit: float) -> dict[str, Any]:
    """The figures of one policy: means with BCa intervals, shares with Wilson intervals and their counts."""
    rng = np.random.default_rng(0)
    cost = _column(rows, "cost")
    steps, violations = _column(rows, "steps"), _column(rows, "violation_steps")
    over = int(np.count_nonzero(cost > cost_limit))
    unsafe = int(np.count_nonzero(cost > 0))
    return {
        "return": st.mean_interval(_column(rows, "return"), rng).to_json(),
        "cost": st.mean_interval(cost, rng).to_json(),
        "goals": st.mean_interval(_column(rows, "goals"), rng).to_json(),
        "worst_cost": st.cvar_interval(cost, rng).to_json(),
        "over_limit": {**st.wilson(over, len(rows)).to_json(), "count": over},
        "with_violation": {**st.wilson(unsafe, len(rows)).to_json(), "count": unsafe},
        # Steps of one episode hang together, so the share is averaged over episodes, not over steps.
        "violation_steps": st.mean_interval(violations / np.maximum(steps, 1), rng).to_json(),
        "normalised_cost": st.normalised_cost(float(cost.mean()), cost_limit),
    }


def _column(rows: Sequence[Row], name: str) -> np.ndarray:  # (N,)
    return np.array([row.get(name) or 0.0 for row in rows], np.float64)


def _layouts(seeds: Sequence[int]) -> str:
    """Which range of layouts the seeds belong to, for the reader."""
    ranges = {"held-out": HELD_OUT_SEEDS, "online": ONLINE_SEEDS, "collection": COLLECT_SEEDS}
    return next((name for name, span in ranges.items() if all(seed in span for seed in seeds)), "mixed")


def _compare(a: str, first: Mapping[str, np.ndarray], b: str, second: Mapping[str, np.ndarray]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    gain = st.paired_difference(first["return"], second["return"], rng)
    risk = st.paired_difference(first["cost"], second["cost"], rng)
    return {
        "a": a,
        "b": b,
        "return": gain.to_json(),
        "cost": risk.to_json(),
        "cost_reduction": st.relative_reduction(first["cost"], second["cost"], rng).to_json(),
        "improvement": {
            "return": st.probability_of_improvement(first["return"], second["return"], rng).to_json(),
            "cost": st.probability_of_improvement(-first["cost"], -second["cost"], rng).to_json(),
        },
        "excludes_zero": {"return": gain.excludes_zero, "cost": risk.excludes_zero},
    }


# -------------------------------------------------------------------------------------------------- several runs


def seed_table(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Joins evaluations of several runs of the same methods (equal labels) on the same layouts.

    Means are over runs and layouts, intervals resample both (``statistics.crossed_mean``), differences are paired by
    run and layout. Raises UserError where task, scenario, layouts or labels differ.
    """
    if not documents:
        raise UserError("a table over seeds needs at least one evaluation, none was given")
    first = documents[0]
    labels = [p["label"] for p in first["policies"]]
    for i, document in enumerate(documents):
        for name in ("task", "scenario", "suite_hash", "seeds", "cost_limit"):
            if document[name] != first[name]:
                raise UserError(f"evaluation {i + 1} differs from the first in {name}; only like can be joined")
        if [p["label"] for p in document["policies"]] != labels:
            raise UserError(f"evaluation {i + 1} has other policies than {', '.join(labels)}; evaluate the same")
    rows = {p: [document["policies"][p]["episodes"] for document in documents] for p in range(len(labels))}
    columns = {
        label: {k: np.stack([_column(run, k) for run in rows[p]]) for k in ("return", "cost", "goals")}  # (R, L)
        for p, label in enumerate(labels)
    }
    return {
        **{name: first[name] for name in ("task", "scenario", "suite_hash", "seeds", "cost_limit")},
        "format": SEED_TABLE_FORMAT,
        "layouts": first.get("layouts", _layouts(first["seeds"])),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "texts": dict(first.get("texts") or {}),
        "runs": len(documents),
        "policies": [
            {
                "label": label,
                "meta": _common_meta([document["policies"][p].get("meta") or {} for document in documents]),
                "runs": [document["policies"][p]["summary"] for document in documents],
                "summary": _summarise_runs(rows[p], columns[label], first["cost_limit"]),
            }
            for p, label in enumerate(labels)
        ],
        "comparisons": [_compare_runs(a, columns[a], b, columns[b]) for b, a in combinations(labels, 2)],
        "verdicts": {label: _verdict_runs(c["cost"], first["cost_limit"]) for label, c in columns.items()},
    }


def _common_meta(metas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all runs say alike, e.g. their kind; their checkpoints differ."""
    return {k: v for k, v in metas[0].items() if all(k in meta and meta[k] == v for meta in metas)}


def _summarise_runs(
    rows: Sequence[Sequence[Row]], columns: Mapping[str, np.ndarray], cost_limit: float
) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    cost = columns["cost"]
    share = np.stack([_column(run, "violation_steps") / np.maximum(_column(run, "steps"), 1) for run in rows])
    over, unsafe = cost > cost_limit, cost > 0
    return {
        **{name: st.crossed_mean(column, rng).to_json() for name, column in columns.items()},
        "return_iqm": st.stratified_bootstrap(columns["return"], rng).to_json(),
        "worst_cost": st.crossed_cvar(cost, rng).to_json(),
        "over_limit": _share_runs(over, rng),
        "with_violation": _share_runs(unsafe, rng),
        "violation_steps": st.crossed_mean(share, rng).to_json(),
        "normalised_cost": st.normalised_cost(float(cost.mean()), cost_limit),
    }


def _share_runs(hit: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:  # hit (R, L) bool
    """Share of episodes. Several runs on one layout are not independent, so both are resampled instead of counted.

    Where nothing, or everything, was hit there is nothing to resample: Wilson's formula with the layouts as the trials.
    """
    interval = st.crossed_mean(hit, rng)
    if not hit.any() or hit.all():
        interval = st.wilson(hit.shape[1] if hit.any() else 0, hit.shape[1])
    return {**interval.to_json(), "n": hit.size, "count": int(hit.sum())}


def _compare_runs(a: str, first: Mapping[str, np.ndarray], b: str, second: Mapping[str, np.ndarray]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    gain = st.crossed_mean(first["return"] - second["return"], rng)
    risk = st.crossed_mean(first["cost"] - second["cost"], rng)
    return {
        "a": a,
        "b": b,
        "return": gain.to_json(),
        "cost": risk.to_json(),
        "cost_reduction": st.crossed_reduction(first["cost"], second["cost"], rng).to_json(),
        "improvement": {
            "return": st.probability_of_improvement(first["return"], second["return"], rng).to_json(),
            "cost": st.probability_of_improvement(-first["cost"], -second["cost"], rng).to_json(),
        },
        "excludes_zero": {"return": gain.excludes_zero, "cost": risk.excludes_zero},
    }


def _verdict_runs(cost: np.ndarray, limit: float) -> dict[str, Any]:
    """The verdict on these runs taken together (not on a next run): their mean cost on each layout is the sample."""
    found = verdict(cost.mean(axis=0), limit)
    return {**found.to_json(), "sentence": f"Mean of {len(cost)} runs on each layout. {found.sentence}"}


# -------------------------------------------------------------------------------------------------------- files


def save(document: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Writes the document to a temporary name, then renames it: a reader never sees half of it."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8") as file:
            json.dump(document, file, indent=1, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another place or free space") from error
    return path


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a document written by ``save``. Raises UserError where it is missing, damaged or of another format."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        found = document["format"]
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give an evaluation's .json file") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not an evaluation or is damaged ({error!r}); evaluate again") from error
    if found not in (FORMAT, SEED_TABLE_FORMAT):
        raise UserError(f"{path} has format {found!r}; this version reads {FORMAT!r} and {SEED_TABLE_FORMAT!r}")
    return document
