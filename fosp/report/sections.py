"""The contents of the page, section by section, from what the runs hold; a section without contents is empty."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fosp.report import figures, words
from fosp.report.load import Run

_KIND_COLOURS = {"pretrain": figures.FROZEN, "finetune": figures.ONLINE, "bc": figures.SERIES[2]}
_OTHER_COLOURS = figures.SERIES[3:]


def evaluations(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """All evaluation documents: usual layouts first, then by scenario.

    Copies, and repetitions of the same policies (label and meta) on the same layouts, appear once: the newest.
    """
    newest: dict[str, dict[str, Any]] = {}
    for document in (document for run in runs for document in run.evaluations):
        who = [(policy["label"], policy.get("meta")) for policy in document["policies"]]
        names = ("format", "task", "scenario", "suite_hash", "layouts", "seeds")
        key = json.dumps([[document.get(name) for name in names], who])
        if key not in newest or str(document.get("created")) >= str(newest[key].get("created")):
            newest[key] = document
    order = sorted(newest.values(), key=lambda d: str(d.get("created")))
    return sorted(order, key=lambda d: (d["task"], d.get("scenario") or "", d.get("layouts") != "held-out"))


def policy_colours(documents: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A colour per label, the same in all figures: that of its kind (frozen and online as everywhere on the page), or
    the next free one where two policies of a kind meet in a document."""
    colours: dict[str, str] = {}
    for document in documents:
        taken = {colours[p["label"]] for p in document["policies"] if p["label"] in colours}
        for policy in document["policies"]:
            if policy["label"] in colours:
                continue
            own = _KIND_COLOURS.get(str((policy.get("meta") or {}).get("kind")))
            free = [c for c in (own, *_OTHER_COLOURS, *_KIND_COLOURS.values()) if c and c not in taken]
            colours[policy["label"]] = free[0] if free else figures.MUTED
            taken.add(colours[policy["label"]])
    return colours


# ----------------------------------------------------------------------------------------------------- 1 verdicts


def verdicts(documents: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> list[dict[str, Any]]:
    """For each evaluation: a card per policy, and what the comparison of neighbours says."""
    return [
        {
            "title": f"{words.short_task(document['task'])}, {words.place(document)}",
            "text": (document.get("texts") or {}).get("scenario") or "",
            "layouts": words.layouts(document),
            "limit": document["cost_limit"],
            "cards": list(_cards(document, colours)),
            "findings": list(_findings(document)),
        }
        for document in documents
    ]


def _cards(document: Mapping[str, Any], colours: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    limit = document["cost_limit"]
    summaries = [policy["summary"] for policy in document["policies"]]
    top_cost = 1.05 * max([limit, *(s["cost"].get("high") or s["cost"]["mean"] for s in summaries)])
    top_return = 1.05 * max(s["return"].get("high") or s["return"]["mean"] for s in summaries)
    bottom_return = min([0.0, *(s["return"].get("low") or s["return"]["mean"] for s in summaries)])
    for policy in document["policies"]:
        label, summary = policy["label"], policy["summary"]
        verdict = document["verdicts"].get(label)
        if verdict is None:
            continue
        heading, mark, style = words.ANSWERS.get(verdict["answer"], (verdict["answer"], "?", "open"))
        over = summary["over_limit"]
        yield {
            "label": label,
            "colour": figures.css_variable(colours[label]),
            "answer": verdict["answer"],
            "heading": heading,
            "mark": mark,
            "style": style,
            "sentence": verdict["sentence"],
            "cost": summary["cost"],
            "return": summary["return"],
            "cost_bar": figures.interval_bar(summary["cost"], top_cost, limit, colours[label]),
            "return_bar": figures.interval_bar(summary["return"], top_return, None, colours[label], bottom_return),
            "over": f"{over['count']} of {over['n']} episodes went over the limit" if "count" in over else "",
        }


def _findings(document: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    labels = [policy["label"] for policy in document["policies"]]
    for pair in document["comparisons"]:
        if labels.index(pair["a"]) == labels.index(pair["b"]) + 1:
            yield {"a": pair["a"], "b": pair["b"], "text": words.comparison(pair)}


# ------------------------------------------------------------------------------------------------------- 2 the log


def logs(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One card per dataset that any of the runs learned from."""
    cards: dict[str, dict[str, Any]] = {}
    for run in runs:
        key = str(run.dataset.get("hash") or run.dataset.get("path") or "")
        if key and key not in cards:
            cards[key] = _log_card(run)
    return list(cards.values())


def _log_card(run: Run) -> dict[str, Any]:
    facts: dict[str, str] = {}
    card = {"path": run.dataset.get("path", ""), "facts": facts, "figure": "", "behaviours": {}}
    if run.log:
        values = {name: np.array([row.get(name) or 0 for row in run.log], np.float64) for name in ("return", "cost")}
        steps = sum(int(row.get("steps") or 0) for row in run.log)
        facts["episodes"] = words.count(len(run.log))
        facts["agent steps"] = words.count(steps)
        facts["mean return"] = words.number(float(values["return"].mean()))
        if all(row.get("cost") is not None for row in run.log):
            facts["mean cost"] = words.number(float(values["cost"].mean()))
            unsafe = np.mean(values["cost"] > 0)
            facts["episodes with a violation"] = f"{100 * unsafe:.0f} %"
        else:
            facts["cost"] = "not recorded"
        card["behaviours"] = log_means(run.log)
        facts["behaviours"] = words.listing(list(card["behaviours"])) if card["behaviours"] else "unknown"
        card["figure"] = figures.log_scatter(run.log)
    else:  # the dataset is gone or elsewhere: what the run wrote down about it
        plain = {k: v for k, v in run.dataset.items() if k not in ("path", "hash") and isinstance(v, str | int | float)}
        facts.update({k.replace("_", " "): words.count(v) if isinstance(v, int) else str(v) for k, v in plain.items()})
    if run.dataset.get("hash"):
        facts["fingerprint"] = str(run.dataset["hash"])[:16]
    return card


def log_means(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """behaviour -> (mean return, mean cost)."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        groups.setdefault(str(row.get("behaviour", "log")), []).append((row["return"], row.get("cost") or 0.0))
    means = {name: np.mean(values, axis=0) for name, values in sorted(groups.items())}
    return {name: (float(mean[0]), float(mean[1])) for name, mean in means.items()}


# ------------------------------------------------------------------------------------------------------ 3 training


def training(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The curves of each run that has metrics, in groups."""
    return [
        {
            "name": run.name,
            "kind": words.KINDS.get(run.kind, run.kind or "Training"),
            "summary": _training_summary(run),
            "groups": list(_metric_groups(run)),
        }
        for run in runs
        if run.metrics
    ]


def _training_summary(run: Run) -> str:
    updates = max(float(curve.step.max()) for curve in run.metrics.values())
    text = f"{words.count(updates)} gradient updates"
    return f"{text} in {words.duration(run.seconds)}" if run.seconds > 0 else text


def _metric_groups(run: Run) -> Iterator[dict[str, Any]]:
    names = sorted(run.metrics, key=lambda name: (name.partition("/")[0] not in words.GROUPS, ""))  # stable: as written
    prefixes = dict.fromkeys([*words.GROUPS, *(name.partition("/")[0] for name in names)])
    for prefix in prefixes:
        curves = {n: run.metrics[n] for n in names if n.partition("/")[0] == prefix and _finite(run.metrics[n].value)}
        if not curves:
            continue
        title, text, shown = words.GROUPS.get(prefix, (prefix.replace("_", " "), "", False))
        titles = {name: words.metric_title(name) for name in curves}
        alt = f"Training curves of {run.name}, {title}: " + "; ".join(
            f"{titles[name]} from {_start_end(curve.value)}" for name, curve in curves.items()
        )
        yield {
            "title": title,
            "text": text,
            "shown": shown,
            "columns": min(4, len(curves)),
            "figure": figures.training_curves(curves, titles, alt, columns=4),
        }


def _finite(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).any())


def _start_end(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    part = max(1, len(known) // 20)
    return f"{known[:part].mean():.3g} to {known[-part:].mean():.3g}"


# --------------------------------------------------------------------------------------------------- 4 fine-tuning


def online(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What happened while fine-tuning, next to the frozen policy on the same layouts."""
    return [_online(run) for run in runs if run.episodes]


def _online(run: Run) -> dict[str, Any]:
    n = min(len(run.episodes), len(run.frozen))  # a run that was stopped may lack the last frozen episodes
    sides = [("online, while learning", run.episodes[:n] or run.episodes)]
    sides += [("frozen offline policy", run.frozen[:n])] if n else []
    rows = []
    for label, episodes in sides:
        total = {name: float(sum(row.get(name) or 0 for row in episodes)) for name in ("violation_steps", "steps")}
        last = episodes[-max(1, len(episodes) // 4) :]
        rows.append(
            {
                "label": label,
                "return": words.number(_mean(episodes, "return")),
                "cost": words.number(_mean(episodes, "cost")),
                "violations": words.count(total["violation_steps"]),
                "share": f"{100 * total['violation_steps'] / total['steps']:.1f} %" if total["steps"] else "–",
                "last_return": words.number(_mean(last, "return")),
                "last_cost": words.number(_mean(last, "cost")),
            }
        )
    return {
        "name": run.name,
        "scenario": run.record.get("scenario"),
        "episodes": len(run.episodes),
        "sentence": _online_sentence(run.episodes[:n], run.frozen[:n]) if n else "",
        "rows": rows,
        "figure": figures.online_curves(run.episodes, run.frozen[:n]),
    }


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.mean([row.get(name) or 0.0 for row in rows]))


def _online_sentence(learned: Sequence[Mapping[str, Any]], frozen: Sequence[Mapping[str, Any]]) -> str:
    a, b = (sum(int(row.get("violation_steps") or 0) for row in rows) for rows in (learned, frozen))
    if a == b:
        than = "as many as"
    else:
        part = f"{100 * abs(a - b) / b:.0f}\u00a0% " if b else ""
        than = f"{part}{'fewer than' if a < b else 'more than'}"
    return (
        f"While it learned, the robot spent {words.count(a)} steps in violation over {len(learned)} episodes: "
        f"{than} the {words.count(b)} that the frozen offline policy made on the same layouts."
    )


# ---------------------------------------------------------------------------------------------------- 6 comparison


def comparison(
    documents: Sequence[Mapping[str, Any]], colours: Mapping[str, str], log: Mapping[str, tuple[float, float]]
) -> list[dict[str, Any]]:
    """Table, paired differences and figure of each evaluation."""
    return [
        {
            "title": f"{words.short_task(document['task'])}, {words.place(document)}",
            "layouts": words.layouts(document),
            "limit": document["cost_limit"],
            "rows": [
                {
                    "label": p["label"],
                    "colour": figures.css_variable(colours[p["label"]]),
                    **p["summary"],
                    "answer": (document["verdicts"].get(p["label"]) or {}).get("answer", "–"),
                }
                for p in document["policies"]
            ],  # fmt: skip
            "pairs": document["comparisons"],
            "runs": [
                {"label": p["label"], **{k: _per_run(p["runs"], k) for k in ("return", "cost")}}
                for p in document["policies"]
                if "runs" in p
            ],
            "has_log": bool(log),
            "figure": figures.cost_and_return(document, colours, log),
        }
        for document in documents
    ]


def _per_run(summaries: Sequence[Mapping[str, Any]], name: str) -> str:
    return ", ".join(words.number(summary[name]["mean"]) for summary in summaries)


# ----------------------------------------------------------------------------------------------------- 7 reproduce


def reproduce(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Everything needed to do it again."""
    return [
        {
            "name": run.name,
            "kind": words.KINDS.get(run.kind, run.kind),
            "command": shlex.join(run.record.get("command", [])),
            "facts": _facts(run),
            "checkpoints": [{"name": c["name"], "files": _hashes(c)} for c in run.checkpoints[-1:]],
            "config": run.config,
        }
        for run in runs
        if run.record or run.config
    ]


def _facts(run: Run) -> dict[str, str]:
    record = run.record
    facts = {"started": words.day(record["started"])} if record.get("started") else {}
    facts.update({name: str(record[name]) for name in ("task", "scenario", "git") if record.get(name)})
    facts.update({f"{name} version": str(value) for name, value in (record.get("versions") or {}).items()})
    if run.dataset:
        facts["dataset"] = f"{run.dataset.get('path', '')} (SHA-256 {run.dataset.get('hash', 'unknown')})"
    return facts


def _hashes(manifest: Mapping[str, Any]) -> dict[str, str]:
    """File -> SHA-256, as the manifest has them."""
    return {file: str(digest) for file, digest in manifest.items() if file != "name"}
