"""fosp parity"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

#: Column -> keys of ``fosp.envs.parity.compare``, of which it shows the largest.
COLUMNS: dict[str, tuple[str, ...]] = {
    "draws": ("layout", "rotation", "stream_start", "stream_end", "goal", "buttons"),
    "frame": ("state",),
    "off": ("off",),
    "reward": ("reward",),
    "cost": ("cost_term", "cost_mismatches"),
    "faithful": ("image_faithful_worst",),
    "fast": ("image_fast_worst",),
}


#: What matplotlib can write.
PICTURES = (".png", ".jpg", ".svg", ".pdf")


@dataclass(frozen=True)
class Options:
    """Replay recordings of the original Safety-Gymnasium and tell how closely the tasks agree."""

    recordings: Path | None = None
    """Folder with recordings <Task>_seed<N>.npz; none is the extracts that come with the package."""
    picture: Path | None = None
    """Write images of the original beside ours to this file, one row per task."""
    json: Path | None = None
    """Write every number to this file."""


def run(options: Options) -> int:
    from fosp.cli.progress import Progress
    from fosp.cli.tables import show
    from fosp.envs.parity import compare, recordings, shortcomings
    from fosp.types import UserError

    if options.picture is not None and options.picture.suffix.lower() not in PICTURES:
        raise UserError(f"--picture {options.picture} must end in one of {', '.join(PICTURES)}")
    album = _Album()
    results = []
    paths = recordings(options.recordings)
    with Progress("parity", len(paths), "recordings") as progress:
        for path in paths:
            album.turn(path.stem.split("_")[0])
            results.append(compare(path, album.add))
            progress.advance(1)
    failings = shortcomings(results)
    show(_table(results))
    print("\n".join(failings) or "all within the tolerances")
    if options.json is not None:
        import json

        import mujoco

        document = {"mujoco": mujoco.__version__, "results": results, "shortcomings": failings}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=1, default=float) + "\n")
    if options.picture is not None:
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        album.figure().savefig(options.picture)
        print(options.picture)
    return 1 if failings else 0


def _table(results: list[dict[str, Any]]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title="largest differences from the recordings", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("recording", no_wrap=True)
    table.caption = (
        "draws: layout, rotations, goals, random stream; 0 is to the last bit.\n"
        "frame: positions after one frame from the recorded state, in metres and\n"
        "radians, but for pairs of shapes whose contacts MuJoCo 3 computes\n"
        "differently; off: frames with such a pair that differ by more than 1e-6.\n"
        "cost: frames that differ. faithful, fast: the worst image, of 255."
    )
    table.caption_justify = "left"
    for name in ("frames", *COLUMNS):
        table.add_column(name, justify="right")
    for result in results:
        found = [max((result[key] for key in keys if key in result), default=None) for keys in COLUMNS.values()]
        cells = ["-" if value is None else f"{value:.2g}" for value in found]
        name = f"{result['task'].removeprefix('Safety')} {result['seed']}"
        table.add_row(name, str(result["frames"]), *cells)
    return table


class _Album:
    """Images of the original and ours, of the first recording of each task and its first recorded frame."""

    def __init__(self) -> None:
        self._pages: dict[str, dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]] = {}
        self._page: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] | None = None

    def turn(self, task: str) -> None:
        self._page = None if task in self._pages else self._pages.setdefault(task, {})

    def add(self, camera: str, frame: int, quality: str, ours: np.ndarray, theirs: np.ndarray) -> None:
        if self._page is not None:
            self._page.setdefault((camera, quality), (ours, theirs))

    def figure(self) -> Any:
        from matplotlib.figure import Figure

        views = [("vision", "fast"), ("vision_back", "fast"), ("fixedfar", "faithful")]
        columns = [(c, q, who) for c, q in views for who in ("original", "faithful", q)]
        columns = list(dict.fromkeys(columns))
        figure = Figure(figsize=(1.3 * len(columns), 1.38 * len(self._pages) + 0.2), layout="constrained")
        grid = figure.subplots(len(self._pages), len(columns), squeeze=False)
        for axes, (camera, _, who) in zip(grid[0], columns, strict=True):
            axes.set_title(f"{camera}\n{who}", fontsize=8)
        for row, (task, page) in zip(grid, self._pages.items(), strict=True):
            for axes, (camera, quality, who) in zip(row, columns, strict=True):
                axes.set(xticks=[], yticks=[])
                pair = page.get((camera, quality if who == "original" else who))
                if pair is not None:  # a short recording may lack one
                    axes.imshow(pair[1] if who == "original" else pair[0], interpolation="nearest")
            row[0].set_ylabel(task.removeprefix("Safety"), fontsize=8)
        return figure
