"""fosp suites"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from fosp.envs.suites import Suite


@dataclass(frozen=True)
class Options:
    """List the suites of unseen scenarios, or draw them."""

    task: str | None = None
    """Registered task, for example SafetyCarGoal2; none is the five tasks of the paper."""
    episodes: int = 20
    """Layouts of each, as of `fosp evaluate`, whose results then carry the hashes that are listed."""
    picture: Path | None = None
    """Write a contact sheet to this file instead: one row per task, one frame per scenario."""
    json: bool = False
    """Print one JSON object instead of the table."""


def run(options: Options) -> int:
    suites, unfit = _suites(options)
    if options.picture is not None:
        _draw(suites, options.picture)
        print(options.picture)
    elif options.json:
        import json

        print(json.dumps({suite.name: _facts(suite) for suite in suites}))
    else:
        from fosp.cli.tables import show

        for table in _tables(suites):
            show(table)
        for sentence in unfit:
            print(sentence)
    return 0


def _suites(options: Options) -> tuple[list[Suite], list[str]]:
    """The suites, and a sentence for each that does not fit the task."""
    from fosp.envs.suites import PAPER_TASKS, SUITES, make_suite
    from fosp.envs.tasks import find_task
    from fosp.types import HELD_OUT_SEEDS, UserError

    if not 1 <= options.episodes <= len(HELD_OUT_SEEDS):
        raise UserError(f"--episodes {options.episodes} must lie between 1 and {len(HELD_OUT_SEEDS)}")
    tasks = PAPER_TASKS if options.task is None else (find_task(options.task).id,)
    suites, unfit = [], []
    for name in SUITES:
        try:
            suites.append(make_suite(name, tasks, HELD_OUT_SEEDS[: options.episodes]))
        except UserError as error:
            unfit.append(str(error))
    return suites, unfit


def _facts(suite: Suite) -> dict[str, object]:
    trials = [{"task": trial.task, "seeds": list(trial.seeds), "hash": trial.hash} for trial in suite.trials]
    return {"hash": suite.hash, "trials": trials}


def _tables(suites: list[Suite]) -> Iterator[Table]:
    """What each scenario changes; the hashes. Two tables, because one would be wider than a terminal."""
    from rich.table import Table

    from fosp.envs.suites import SCENARIOS
    from fosp.envs.tasks import find_task

    meanings = Table("scenario", "what it changes", title="unseen scenarios")
    hashes = Table("scenario", "task", "layout seeds", "hash", title="suites: layouts on which nothing is learned")
    for suite in suites:
        meanings.add_row(suite.name, SCENARIOS[suite.name].text)
        for trial in suite.trials:
            name, seeds = "" if trial is not suite.trials[0] else suite.name, trial.seeds
            hashes.add_row(name, find_task(trial.task).name, f"{len(seeds)} from {seeds[0]}", trial.hash)
        if len(suite.trials) > 1:
            hashes.add_row("", "all", "", suite.hash)
        hashes.add_section()
    yield from (meanings, hashes)


def _draw(suites: list[Suite], path: Path) -> None:
    from fosp.types import UserError

    if path.suffix != ".png":
        raise UserError(f"--picture {path} must end in .png")
    path.parent.mkdir(parents=True, exist_ok=True)
    from fosp.envs.sheet import contact_sheet

    contact_sheet([trial for suite in suites for trial in suite.trials]).savefig(path)
