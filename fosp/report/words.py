"""Numbers and findings in words, for readers who were not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

#: What an answer means on the page: (short heading, mark, CSS class).
ANSWERS = {
    "yes": ("Within the cost limit", "✓", "good"),
    "no": ("Over the cost limit", "✗", "bad"),
    "not enough episodes": ("Not enough episodes", "?", "open"),
}

KINDS = {"pretrain": "Offline pretraining", "finetune": "Online fine-tuning", "bc": "Behaviour cloning"}

#: Groups of metrics by the part of the name before the slash: title, how to read the curves, whether shown at once.
GROUPS = {
    "model": (
        "World model",
        "Errors of the model that predicts pictures, rewards and costs. They fall, then flatten.",
        True,
    ),
    "critic": ("Critics", "Errors of the forecasts of future reward and cost, learned on logged actions.", True),
    "reach": (
        "Danger estimate",
        "The predicted probability of a violation, and the share of violated steps.",
        True,
    ),
    "imagined": (
        "Imagination",
        "Reward and cost that the policy expects of itself, per step or, where the name says so, per episode.",
        False,
    ),
    "actor": ("Policy", "What drives the choice of actions. These need not fall.", False),
    "constraint": (
        "Safety constraint",
        "The multiplier is the price of cost: it rises while the policy is over its budget and falls again below it.",
        True,
    ),
    "online": (
        "Acting and learning at the same time",
        "Updates per step, and how long one waited for the other.",
        False,
    ),
    "clock": ("Speed", "Gradient updates per second.", False),
}

_METRICS = {
    "model/image": "picture error",
    "model/reward": "reward error",
    "model/cost": "cost error",
    "model/proceed": "episode-end error",
    "model/kl_dynamics": "surprise (prior → posterior)",
    "model/kl_representation": "surprise (posterior → prior)",
    "constraint/multiplier": "price of cost (multiplier)",
    "clock/updates_per_second": "updates per second",
    "reach/probability": "predicted probability of a violation",
    "reach/violated": "share of violated steps in the batches",
}


def metric_title(name: str) -> str:
    return _METRICS.get(name) or name.partition("/")[2].replace("_", " ") or name


def number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """A number for people: a real minus sign, no '-0.0', a dash where there is none."""
    if value is None:
        return "–"
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def interval(value: Mapping[str, Any], *, percent: bool = False, sign: bool = False) -> str:
    """'[10.1, 14.5]', or '' where there is none."""
    if value.get("low") is None or value.get("high") is None:
        return ""
    scale, digits = (100.0, 0) if percent else (1.0, 1)
    low, high = (number(scale * value[name], digits, sign) for name in ("low", "high"))
    return f"[{low}, {high}]"


def share(value: Mapping[str, Any]) -> str:
    return "–" if value["mean"] is None else f"{100 * value['mean']:.0f}\u00a0%"


def short_task(task: str) -> str:
    """'fosp/SafetyPointGoal1-v0' -> 'SafetyPointGoal1'."""
    return task.rpartition("/")[2].partition("-v")[0] or "unknown task"


def place(document: Mapping[str, Any]) -> str:
    """Where policies were evaluated, as a heading."""
    scenario = document.get("scenario")
    return f"scenario “{scenario}”" if scenario else "usual layouts"


def layouts(document: Mapping[str, Any]) -> str:
    names = {
        "held-out": "layouts that nobody has learned from",
        "online": "layouts met during fine-tuning",
        "collection": "layouts of the log",
    }
    count = len(document.get("seeds") or document["policies"][0].get("episodes", ()))
    runs = f"{document['runs']} training runs, each on " if "runs" in document else ""
    return f"{runs}{count} {names.get(str(document.get('layouts')), 'layouts')}"


def comparison(pair: Mapping[str, Any]) -> str:
    """A paired comparison as a sentence: what is clear and what may be chance."""
    gain, risk, lowered = pair["return"], pair["cost"], pair.get("cost_reduction") or {}
    part = ""
    if lowered.get("mean") is not None and pair["excludes_zero"]["cost"] and abs(lowered["mean"]) < 10:
        part = f", {abs(100 * lowered['mean']):.0f}\u00a0% {'less' if lowered['mean'] > 0 else 'more'}"
    return (
        f"cost {_change(risk, pair['excludes_zero']['cost'], part)}; "
        f"return {_change(gain, pair['excludes_zero']['return'])}."
    )


def _change(value: Mapping[str, Any], clear: bool, part: str = "") -> str:
    word = "higher" if value["mean"] > 0 else "lower"
    size = number(abs(value["mean"]))
    if value.get("low") is None or value.get("high") is None:
        return f"{size} {word} (one episode, no interval)"
    ends = sorted(abs(value[name]) for name in ("low", "high"))
    if clear:
        return f"{size} {word}{part} (95 % interval {number(ends[0])} to {number(ends[1])} {word})"
    return f"not clearly different ({number(value['low'], sign=True)} to {number(value['high'], sign=True)})"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def count(value: float) -> str:
    """Thousands apart: 37 500."""
    return f"{value:,.0f}".replace(",", "\u202f")


def day(text: str) -> str:
    try:
        return datetime.fromisoformat(text).strftime("%-d %B %Y, %H:%M")
    except (TypeError, ValueError):
        return str(text)


def listing(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
