"""Observations, batches and stores of random content, of the shapes that the environments give."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fosp.data.files import array_file, array_specs, encode_row, new_folder, write_description
from fosp.data.store import CHUNK_BYTES, Store
from fosp.types import Batch, Episode, Schema

ROWS = 251  # of an episode of 250 agent steps


def schema(side: int = 64) -> Schema:
    """Two cameras with ``side`` x ``side`` pixels and two actions, as of a Point robot."""
    size = side, side, 3
    return Schema(
        "bench",
        {"image_front": size, "image_back": size},
        2,
        max_steps=ROWS - 1,
        cost_terms=("hazards",),
        mirror=(1.0, -1.0),
    )


def observation(rng: np.random.Generator, count: int | None = None) -> dict[str, np.ndarray]:
    """Images of one environment, uint8 (W, W, 3), or of ``count``."""
    shape = () if count is None else (count,)
    return {name: rng.integers(0, 256, (*shape, *size), np.uint8) for name, size in schema().cameras.items()}


def batch(size: int, length: int) -> Batch:
    """A batch of random content, (B, T, ...)."""
    rng, shape = np.random.default_rng(0), (size, length)
    flags = [np.zeros(shape, bool) for _ in range(3)]
    images = {name: rng.integers(0, 256, (*shape, *image), np.uint8) for name, image in schema().cameras.items()}
    action = rng.uniform(-1, 1, (*shape, 2)).astype(np.float32)
    reward, cost = rng.normal(size=shape).astype(np.float32), (rng.random(shape) < 0.1).astype(np.float32)
    return Batch(images, action, reward, cost, *flags)


def episode(rng: np.random.Generator, seed: int) -> Episode:
    """An episode of random content."""
    zeros = np.zeros(ROWS, np.float32)
    reward, cost = rng.normal(size=ROWS).astype(np.float32), (rng.random(ROWS) < 0.1).astype(np.float32)
    action = rng.uniform(-1, 1, (ROWS, 2)).astype(np.float32)
    reward[0] = cost[0] = 0
    action[-1] = 0
    first, last = np.arange(ROWS) == 0, np.arange(ROWS) == ROWS - 1
    info = {"task": "bench", "scenario": None, "seed": seed, "behaviour": "random", "noise": 0.0, "goals": 0}
    images = observation(rng, ROWS)
    return Episode(images, action, reward, cost, first, last, zeros > 0, {"hazards": cost}, info=info)


def write_store(path: Path, gigabytes: float) -> Store:
    """A store of so many gigabytes (1e9 bytes) of real bytes, with the hashes of them."""
    rng = np.random.default_rng(0)
    with Store.create(path, schema()) as store:
        while store.num_bytes < gigabytes * 1e9:
            store.append(episode(rng, len(store)))
    return Store.open(path)


def write_holes(path: Path, episodes: int, rows: int, side: int) -> None:
    """A store of so many episodes whose arrays take no place on the disk: files of holes, which read as zeros.

    The manifest is a real one, except that its hashes are of nothing.
    """
    kind = schema(side)
    specs = array_specs(kind)
    new_folder(path)
    write_description(path, kind, specs, {})
    each = max(1, CHUNK_BYTES // (rows * sum(spec.row_bytes for spec in specs.values())))  # episodes of a chunk
    chunks = -(-episodes // each)
    for chunk in range(chunks):
        held = min(each, episodes - chunk * each)
        array_file(path, chunk, "").parent.mkdir(parents=True)
        for name, spec in specs.items():
            with array_file(path, chunk, name).open("wb") as file:
                file.truncate(held * rows * spec.row_bytes)
    said = {
        "task": "bench", "scenario": None, "seed": 0, "behaviour": "random", "noise": 0.0, "goals": 0,
        "steps": rows - 1, "return": 0.0, "cost": 0.0, "violation_steps": 0,
    }  # fmt: skip
    unread = {"sha256": "0" * 64, "crc32": dict.fromkeys(specs, 0)}
    with (path / "episodes.jsonl").open("wb") as file:
        for index in range(episodes):
            place = {"index": index, "chunk": index // each, "start": index % each * rows, "rows": rows}
            file.write(encode_row({**said, **place, **unread}))


def manifest_bytes(path: Path) -> int:
    return (path / "episodes.jsonl").stat().st_size
