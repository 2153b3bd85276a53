"""fosp evaluate"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Options:
    """Score checkpoints on the same held-out layouts, with intervals and paired differences."""

    checkpoints: tyro.conf.Positional[tuple[str, ...]] = ()
    """Run folders or checkpoints, each as PATH or LABEL=PATH."""
    checkpoint: tuple[str, ...] = ()
    """The same, named."""
    task: str | None = None
    """Registered task; none is that of the first checkpoint."""
    scenario: str | None = None
    """Named change of the task."""
    episodes: int = 20
    """Held-out layouts, one episode each."""
    seed: int = 0
    """Chooses another set of held-out layouts."""
    cost_limit: float = 10.0
    """Cost per episode that the verdict speaks of."""
    samples: int | None = None
    """Further candidates that each policy proposes to the critics; none is what it was trained with."""
    quality: str = "fast"
    """Rendering: fast or faithful."""
    out: Path | None = None
    """Folder that gets evaluation/<scenario>.json and, with --record, rollouts for the report."""
    record: int = 0
    """Record rollouts on so many of the layouts (needs --out)."""
    workers: int | None = None
    """Processes; none is one per core."""
    json: bool = False
    """Print the whole document as JSON instead of tables."""


def run(options: Options) -> int:
    from fosp import api
    from fosp.cli.tables import show
    from fosp.evaluation.table import format_document

    values = vars(options).copy()
    as_json = values.pop("json")
    named = api.by_label(map(_label_and_path, values.pop("checkpoints") + values.pop("checkpoint")))
    document = api.evaluate(named, **values)
    if as_json:
        import json

        print(json.dumps(document))
    else:
        show(format_document(document))
    return 0


def _label_and_path(word: str) -> tuple[str, str]:
    label, equals, path = word.partition("=")
    return (label, path) if equals and not Path(word).exists() else ("", word)
