"""Puts the sections into one HTML file that needs nothing but a browser."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fosp.report import films, sections, words
from fosp.report.load import Run, load_rollout, load_run
from fosp.types import UserError, several


def build_report(
    run_dirs: Sequence[str | os.PathLike[str]], out_html: str | os.PathLike[str], title: str | None = None
) -> Path:
    """Writes the report of one or more run folders to ``out_html`` and returns its path.

    Figures, videos and script are inside; the file stays below about 15 MB. Raises UserError where a folder is missing
    or holds nothing to show, where one of its files is damaged, or where the page cannot be written.
    """
    if not run_dirs:
        raise UserError("a report needs at least one run folder, none was given")
    runs = [load_run(Path(folder)) for folder in dict.fromkeys(Path(folder) for folder in run_dirs)]
    page = render(runs, title)
    out = Path(out_html)
    part = out.with_name(out.name + ".part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(page, encoding="utf-8")
        part.replace(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); choose another place or free space") from error
    return out


def render(runs: Sequence[Run], title: str | None = None) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=words.number, interval=words.interval, share=words.share)
    environment.globals["answers"] = words.ANSWERS
    return environment.get_template("report.html.j2").render(_contents(runs, title))


def _contents(runs: Sequence[Run], title: str | None) -> dict[str, Any]:
    documents = sections.evaluations(runs)
    colours = sections.policy_colours(documents)
    logs = sections.logs(runs)
    behaviours = {name: means for card in logs for name, means in card["behaviours"].items()}
    # Charts of training are small; rollouts are what people look at, so they get the space first.
    budget = films.Budget()
    shown, left_out = films.films(runs, budget)
    first = next((run.rollouts[0] for run in runs if run.rollouts), None)
    tasks = [document["task"] for document in documents] + [run.record.get("task") for run in runs]
    tasks = list(dict.fromkeys(task for task in tasks if task))
    names = words.listing([words.short_task(task) for task in tasks]) if tasks else "Runs"
    online = sections.online(runs)
    return {
        "title": title or f"{names}: what was learned",
        "created": words.day(datetime.now(UTC).isoformat(timespec="seconds")),
        "summary": _summary(runs, logs, online, tasks),
        "task_text": _text(runs, documents, "task"),
        "verdicts": sections.verdicts(documents, colours),
        "log": behaviours,
        "logs": logs,
        "moments": films.moments(load_rollout(first)) if first else "",
        "training": sections.training(runs),
        "training_videos": films.training_videos(runs, budget),
        "online": online,
        "films": shown,
        "left_out": left_out,
        "comparison": sections.comparison(documents, colours, behaviours),
        "reproduce": sections.reproduce(runs),
        "documents": documents,
        "missing": _missing(runs, documents),
    }


def _text(runs: Sequence[Run], documents: Sequence[dict[str, Any]], name: str) -> str:
    """What the environment says of the task or scenario, from whichever file has it."""
    found = [(document.get("texts") or {}).get(name) for document in documents]
    found += [run.record.get(f"{name}_text") for run in runs]
    return next((text for text in found if text), "")


def _summary(
    runs: Sequence[Run], logs: Sequence[dict[str, Any]], online: Sequence[dict[str, Any]], tasks: Sequence[str]
) -> str:
    """What was done, in one or two sentences."""
    kinds = {run.kind for run in runs}
    parts = []
    if kinds & {"pretrain", "finetune"}:
        episodes = logs[0]["facts"].get("episodes") if logs else None
        source = f"a log of {episodes} recorded episodes" if episodes else "a log of recorded episodes"
        name = words.short_task(tasks[0]) if tasks else "the task"
        parts.append(
            f"A policy for {name} was learned from {source} alone: camera images, actions, rewards and costs, without "
            "trying anything out in the environment."
        )
    for run in online:
        where = f"to the scenario “{run['scenario']}”" if run["scenario"] else "to the place where it is used"
        parts.append(f"It was then adapted online {where} over {several(run['episodes'], 'episodes')}.")
    return " ".join(parts)


def _missing(runs: Sequence[Run], documents: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """What the page could show but these runs do not hold, and the command that makes it."""
    checks = (
        (bool(documents), "verdict and comparison", "fosp evaluate"),
        (any(run.metrics for run in runs), "training curves", "fosp pretrain"),
        (any(run.rollouts for run in runs), "rollout videos", "fosp evaluate"),
        (any(run.episodes for run in runs), "fine-tuning", "fosp finetune"),
    )
    return [(what, command) for there, what, command in checks if not there]
