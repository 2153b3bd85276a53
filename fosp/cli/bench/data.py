"""The data path: what a batch costs whatever the number of episodes, and what a store larger than memory costs."""

from __future__ import annotations

import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fosp.cli.bench.limit import Group, evict, group
from fosp.cli.bench.machine import fresh, peak_bytes, rates, row

if TYPE_CHECKING:
    from fosp.cli.bench import Options

#: Kinds of stores whose episodes are counted up: name, rows of an episode, side of its images.
KINDS = (("small images, in memory", 16, 8), ("real size, not in memory", 251, 64))
BATCH, LENGTH = 8, 32  # of the preset tiny
SHORT = 8  # windows of the small kind, whose episodes are short
FILL = 1.5  # so many times the limit is read before anything is timed
SMALL_GB = 0.3  # the store that the large one is compared with


def measure(options: Options) -> list[dict[str, Any]]:
    """Rows of the cost of a batch, and with ``--gigabytes`` of learning from a large store."""
    from fosp.types import UserError

    if options.folder is not None and not options.folder.is_dir():
        raise UserError(f"--folder {options.folder} is not there; give a folder on the disk that shall be measured")
    rows = []
    with tempfile.TemporaryDirectory(prefix="fosp-bench-", dir=options.folder) as folder:
        for kind, length, side in KINDS:
            for count in options.episodes:
                rows += _count_up(Path(folder) / "store", kind, count, length, side, options)
        if options.plot is not None:
            plot(rows, options.plot)
        if options.gigabytes:
            rows += _large(Path(folder), options)
    return [{**found, "what": "data"} for found in rows]


# ------------------------------------------------------------------------------------------- number of episodes


def _count_up(path: Path, kind: str, count: int, length: int, side: int, options: Options) -> list[dict[str, Any]]:
    from fosp.cli.bench import synthetic

    synthetic.write_holes(path, count, length, side)
    rows = fresh(_sample, path, kind, count, side, options.repeats)
    shutil.rmtree(path)
    return rows


def _sample(path: Path, kind: str, count: int, side: int, repeats: int) -> list[dict[str, Any]]:
    """Milliseconds of a batch, and of opening the store.

    Pages of the real size are dropped before each repeat, so that few episodes are not in memory either: what is told
    is the time with all pages made anew, holes as they are.
    """
    import numpy as np

    from fosp.data.sampler import Sampler
    from fosp.data.store import Store

    before = peak_bytes()
    began = time.perf_counter()
    store = Store.open(path)
    opened, manifest = time.perf_counter() - began, peak_bytes() - before
    small = side < 64
    sampler = Sampler(store, BATCH, SHORT if small else LENGTH, seed=0)
    costs = []
    for repeat in range(repeats + 1):
        if not small:
            evict(path)
        times = []
        for _ in range(200 if small else 20):  # 20 of real size are 126 MB: of 100 episodes few rows come twice
            began = time.perf_counter()
            sampler.sample()
            times.append(1000 * (time.perf_counter() - began))
        if repeat:
            costs.append(float(np.median(times)))
    about = {"kind": kind, "episodes": count, "store_bytes": store.num_bytes}
    size = f"{store.num_bytes / 1e9:.3g} GB"
    return [
        row(f"batch of {count} episodes, {kind}", "ms", costs, size) | about,
        row(f"open {count} episodes, {kind}", "s", [opened], f"{manifest / 1e6:.0f} MB") | about | {"bytes": manifest},
    ]


def plot(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Cost of a batch against the number of episodes, both logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for (kind, _, _), colour in zip(KINDS, ("#1b6ca8", "#c44e00"), strict=True):
        found = sorted(
            (r["episodes"], r["median"], r["low"], r["high"]) for r in rows if r["unit"] == "ms" and r["kind"] == kind
        )
        counts, middle, low, high = (list(part) for part in zip(*found, strict=True))
        axes.fill_between(counts, low, high, color=colour, alpha=0.25, linewidth=0)
        axes.plot(counts, middle, "o-", color=colour, label=kind)
    axes.set(xscale="log", yscale="log", xlabel="episodes in the store", ylabel=f"ms per batch of {BATCH} windows")
    top = max(r["high"] for r in rows if r["unit"] == "ms")
    bottom = min(r["low"] for r in rows if r["unit"] == "ms")
    axes.set_ylim(bottom / 3, 3 * top)
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)


# ------------------------------------------------------------------------------------------ larger than memory


def _large(folder: Path, options: Options) -> list[dict[str, Any]]:
    """Sampling and learning from a small store without a limit, then from the large one with it."""
    from fosp.cli.bench import synthetic
    from fosp.types import UserError

    free, need = shutil.disk_usage(folder).free, (options.gigabytes + SMALL_GB) * 1e9
    if need > 0.95 * free:
        raise UserError(
            f"--gigabytes {options.gigabytes:g} does not fit on the disk of {folder.parent}, which has "
            f"{free / 1e9:.0f} GB free; give another --folder"
        )
    rows, limit = [], round(1e9 * options.limit_gb)
    for name, size, bound in (("small store", SMALL_GB, 0), ("large store", options.gigabytes, limit)):
        path, began = folder / "store", time.perf_counter()
        store = synthetic.write_store(path, size)
        written = time.perf_counter() - began
        rows.append(row(f"write {name}", "MB/s", [store.num_bytes / 1e6 / written], f"{store.num_bytes / 1e9:.1f} GB"))
        store.close()
        evict(path)  # the pages that were just written are the writer's, and would not count
        with _bounded(bound) as held:
            rows += fresh(_learn, path, name, bound, held, (options.preset or ("tiny",))[0], options)
        shutil.rmtree(path)
    for kind in ("sample", "learn"):
        small, large = (
            next(r for r in rows if r["name"].startswith(f"{kind} from {size}")) for size in ("small", "large")
        )
        large["ratio"] = large["median"] / small["median"]
        large["remark"] = f"{100 * large['ratio']:.0f} % of the small store's rate; {large['remark']}"
    return rows


@contextmanager
def _bounded(limit: int) -> Iterator[Group | None]:
    if not limit:
        yield None
        return
    with group(limit) as made:
        yield made


def _learn(
    path: Path, name: str, limit: int, held: Group | None, preset: str, options: Options
) -> list[dict[str, Any]]:
    """Batches per second of the sampler alone, and updates per second of a learner that it feeds."""
    if held is not None:
        held.join()
    from fosp.cli import wire
    from fosp.data.sampler import Prefetcher, Sampler
    from fosp.data.store import Store
    from fosp.presets import resolve
    from fosp.training.offline import to_tensors

    config, device = resolve(preset, None, options.set), wire.pick_device(options.device)
    training = config.training
    store = Store.open(path)
    source: Any = Sampler(store, training.batch, training.length, seed=0)
    size = training.batch * training.length * store.num_bytes / (store.num_steps + len(store))
    if limit and held is None:
        source = _Forgetful(source, path, max(1, int((limit - peak_bytes()) / size)))
    for _ in range(math.ceil(FILL * min(limit, store.num_bytes) / size)):  # until old pages must go for new ones
        source.sample()
    sampled, _ = rates(source.sample, 1, options.repeats, options.seconds)
    learner = wire.build_learner(config, store.schema, device)
    prefetcher = Prefetcher(source)
    cycle = config.optimiser.behaviour_every or 1
    learned, cores = rates(
        lambda: learner.update(to_tensors(prefetcher.sample(), device)), cycle, options.repeats, options.seconds
    )
    prefetcher.close()
    how = "no limit"
    if limit:
        how = f"control group of {limit / 1e9:g} GB" if held is not None else "no limit possible: pages dropped"
    about = {
        "preset": preset, "limit_bytes": limit, "limited_by": how, "batch_bytes": size, "store_bytes": store.num_bytes,
        "peak_bytes": peak_bytes(), "group": held.facts() if held is not None else None,
    }  # fmt: skip
    rate = f"{statistics.median(sampled) * size / 1e6:.0f} MB/s"
    return [
        row(f"sample from {name}", "batches/s", sampled, f"{rate}, {how}") | about,
        row(f"learn from {name}, {preset}", "updates/s", learned, f"{cores:.1f} cores, {how}") | about,
    ]


class _Forgetful:
    """A sampler whose store is dropped from the page cache again and again: a stand-in where no limit can be set.

    It bounds what can be cached, but the pages go all at once and not the oldest first; it does not bound the process.
    """

    def __init__(self, sampler: Any, path: Path, every: int) -> None:
        self._sampler, self._path, self._every, self._count = sampler, path, every, 0

    def sample(self) -> Any:
        self._count += 1
        if self._count % self._every == 0:
            evict(self._path)
        return self._sampler.sample()

    def state_dict(self) -> dict[str, Any]:
        return self._sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sampler.load_state_dict(state)

    def refresh(self, episodes: int | None = None) -> None:
        self._sampler.refresh(episodes)
