"""fosp bench"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

#: What is measured, in this order.
WORDS = ("train", "act", "env", "data", "online")


@dataclass(frozen=True)
class Options:
    """Measure updates of the learner, acting, the environment, the data path, and learning beside acting. With no word
    all of them, briefly.

    Each measurement of train, act, data and online runs in a fresh process of its own, whose peak memory
    nobody shares.
    """

    what: tyro.conf.Positional[tuple[str, ...]] = ()
    """Any of train, act, env, data, online."""
    preset: tuple[str, ...] = ()
    """Presets: by default laptop, tiny and small for train, small and paper for act, tiny for data and online."""
    precision: tuple[str, ...] = ("auto",)
    """Precisions of train: float32, bfloat16, auto."""
    set: tuple[str, ...] = ()
    """Changes of the configuration of train, data and online, as a.b=c."""
    device: str = "auto"
    """Device of train, act and the learner of online: cpu, cuda or auto."""
    repeats: int = 5
    """Timed repeats after warm-up; their median and range are told."""
    seconds: float = 2.0
    """Least duration of a repeat."""
    task: str = "SafetyPointGoal1"
    """Registered task of env and online."""
    episodes: tuple[int, ...] = (100, 1000, 10_000, 100_000)
    """Numbers of episodes over which data measures the cost of a batch."""
    gigabytes: float = 0.0
    """data also writes so large a store and learns from it (real bytes, takes as much of the disk)."""
    limit_gb: float = 0.0
    """Memory, page cache included, that the system allows while learning from that store, 0 for all there is."""
    folder: Path | None = None
    """Where data and online put their stores while they run; the system's place for temporary files by default."""
    plot: Path | None = None
    """PNG that gets the cost of a batch against the number of episodes."""
    json: Path | None = None
    """File that gets all figures, and those that the table leaves out."""


def run(options: Options) -> int:
    from fosp.cli.bench import machine
    from fosp.cli.tables import show

    check(options)
    if not options.what:  # what one waits for while looking on
        brief = {"repeats": min(options.repeats, 5), "seconds": min(options.seconds, 0.5)}
        options = replace(options, what=WORDS, preset=options.preset or ("tiny",), episodes=(100, 10_000), **brief)
    facts = machine.facts(options.device)
    rows = [row for word in WORDS if word in options.what for row in _measure(word)(options)]
    document = {"format": "fosp-bench/1", "machine": facts, "load_after": machine.load(), "rows": rows}
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    show(table(document))
    return 0


def check(options: Options) -> None:
    """Raises UserError for what cannot be measured, before the first second is spent."""
    from fosp.cli import limits
    from fosp.cli.bench import synthetic
    from fosp.presets import PRESETS, resolve
    from fosp.types import UserError, unknown

    for word in options.what:
        if word not in WORDS:
            raise unknown("measurement", word, WORDS)
    for preset in options.preset:
        if preset not in PRESETS:
            raise unknown("preset", preset, PRESETS)
    for precision in options.precision:
        if precision not in ("auto", "float32", "bfloat16"):
            raise unknown("precision", precision, ("auto", "float32", "bfloat16"))
    for preset in options.preset or ("tiny",):
        limits.check_images(resolve(preset, None, options.set), synthetic.schema(), "the random batch")
    if options.repeats < 1:
        raise UserError(f"--repeats {options.repeats} must be at least 1")
    if options.seconds < 0:
        raise UserError(f"--seconds {options.seconds:g} must not be negative")
    if any(count < 1 for count in options.episodes):
        raise UserError(f"--episodes {min(options.episodes)} must be at least 1")
    if options.limit_gb and not options.gigabytes:
        raise UserError(
            f"--limit-gb {options.limit_gb:g} needs --gigabytes, the size of the store that is learned from"
        )
    if options.gigabytes < 0 or options.limit_gb < 0:
        raise UserError(f"--gigabytes {options.gigabytes:g} and --limit-gb {options.limit_gb:g} must not be negative")
    if options.plot is not None and options.what and "data" not in options.what:
        raise UserError(f"--plot {options.plot} goes with data, not with {' '.join(options.what)}")


def _measure(word: str) -> Callable[[Options], list[dict[str, Any]]]:
    import importlib

    return importlib.import_module(f"fosp.cli.bench.{word}").measure


def table(document: dict[str, Any]) -> Any:
    """The rows of a document and what machine they are of, for the terminal."""
    from rich.table import Table

    machine = document["machine"]
    shown = Table(
        title=f"{machine['device']}; {machine['processor']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB",
        caption=f"median and range of repeats; {machine['load']:.1f} processes wanted a core in the minute before, "
        f"{document['load_after']:.1f} in the last, these measurements included",
    )
    for column in ("", "median", "lowest", "highest", "unit", ""):
        shown.add_column(column, justify="left" if column in ("", "unit") else "right")
    for row in document["rows"]:
        values = [f"{row[key]:.{digits(row['median'])}f}" for key in ("median", "low", "high")]
        shown.add_row(row["name"], *values, row["unit"], row["remark"])
    return shown


def digits(value: float) -> int:
    """Decimals that show three digits of ``value``."""
    return next((count for count, limit in enumerate((100, 10, 1, 0.1)) if abs(value) >= limit), 4)
