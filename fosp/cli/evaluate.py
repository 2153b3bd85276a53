"""fosp evaluate"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Options:
    """Score checkpoints on the same held-out layouts, with intervals and paired differences."""

    checkpoints: tyro.conf.Positional[tuple[str, ...]]
    """Run folders or checkpoints, each as PATH or LABEL=PATH."""
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
    from fosp.types import UserError

    if options.record and options.out is None:
        raise UserError(f"--record {options.record} needs --out, the folder that gets the rollouts")
    values = vars(options).copy()
    as_json = values.pop("json")
    named: dict[str, str] = {}
    for word in values.pop("checkpoints"):
        label, equals, path = word.partition("=")
        label, path = (label, path) if equals else (api._label(word), word)
        if label in named:
            raise UserError(f"two checkpoints have the label {label!r}; give each its own as LABEL=PATH")
        named[label] = path
    document = api.evaluate(named, **values)
    if as_json:
        import json

        print(json.dumps(document))
    else:
        show(format_document(document))
    return 0
