from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_world import SCHEMA, assert_same, episode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fosp.data import files, writer
from fosp.data import store as store_module
from fosp.data.store import Store
from fosp.types import Schema, UserError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def fill(path: Path, seeds: range, chunk_rows: int = 10**6) -> Store:
    """Appends episodes of 6 + seed % 3 rows, each chunk at most ``chunk_rows`` long; returns a reader."""
    row_bytes = sum(spec.row_bytes for spec in files.array_specs(SCHEMA).values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "CHUNK_BYTES", chunk_rows * row_bytes)
        with Store.open(path, append=True) if path.exists() else Store.create(path, SCHEMA) as store:
            for seed in seeds:
                store.append(episode(seed, rows=6 + seed % 3))
    return Store.open(path)


@pytest.mark.parametrize("chunk_rows", [10**6, 20, 1])
def test_round_trip_over_chunks(path: Path, chunk_rows: int) -> None:
    fill(path, range(4), chunk_rows)
    store = fill(path, range(4, 9), chunk_rows)  # opened again in between
    assert len(store) == 9 and store.num_steps == sum(5 + seed % 3 for seed in range(9))
    for seed in range(9):
        assert_same(store.episode(seed), episode(seed, rows=6 + seed % 3))
        assert store.episode(seed).info.items() >= episode(seed).info.items()
    chunks = sorted(folder.name for folder in (path / "chunks").iterdir())
    assert len(chunks) == {10**6: 1, 20: 5, 1: 9}[chunk_rows] and chunks[0] == "000000"
    assert {row["chunk"] for row in store.manifest} == {int(name) for name in chunks}
    store.verify()
    assert store.num_bytes == sum(file.stat().st_size for file in path.glob("chunks/*/*.bin"))


def test_views_are_mapped_and_cannot_be_written(path: Path) -> None:
    images = fill(path, range(1)).episode(0).images["image_front"]
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 1
    assert images.base is not None and isinstance(images.base.base, np.memmap)


def test_manifest_row(path: Path) -> None:
    store = fill(path, range(3))
    row, written = store.manifest[2], episode(2, rows=8)
    assert row["index"] == 2 and row["chunk"] == 0 and row["start"] == 13 and row["rows"] == 8
    assert row["return"] == pytest.approx(written.reward.sum()) and row["cost"] == written.cost.sum()
    assert row["violation_steps"] == (written.cost > 0).sum() and row["seed"] == 2
    flags = np.stack([written.is_first, written.is_last, written.is_terminal], 1)
    terms = np.stack([written.cost_terms["hazards"], written.cost_terms["vases"]], 1)
    content = [*written.images.values(), written.action, written.reward, written.cost, terms, flags]
    assert row["sha256"] == hashlib.sha256(b"".join(array.tobytes() for array in content)).hexdigest()
    assert store.hash == hashlib.sha256((path / "episodes.jsonl").read_bytes()).hexdigest()


def test_reader_sees_later_episodes_after_refresh(path: Path) -> None:
    reader = fill(path, range(2))
    early = reader.episode(1)
    writer_ = fill(path, range(2, 5))
    assert len(reader) == 2
    reader.refresh()
    assert len(reader) == 5 and reader.hash == writer_.hash
    assert_same(reader.episode(4), episode(4, rows=7))
    assert_same(early, episode(1, rows=7))


def test_writer_reads_what_it_has_written(path: Path) -> None:
    with Store.create(path, SCHEMA) as store:
        for seed in range(4):
            assert store.append(episode(seed)) == seed
            assert_same(store.episode(seed), episode(seed))
        assert store.manifest == Store.open(path).manifest


# ------------------------------------------------------------------------------------------------------------- crashes


def content(path: Path) -> dict[str, bytes]:
    files = (file for file in path.rglob("*") if file.is_file() and file.name != "lock")
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


@pytest.fixture(scope="module", params=[10**6, 8], ids=["same chunk", "new chunk"])
def append_states(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Folder content before and after the append of episode 3."""
    path = tmp_path_factory.mktemp("crash") / "log"
    fill(path, range(3), request.param)
    before = content(path)
    fill(path, range(3, 4), request.param)
    return before, content(path), request.param


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_crash_at_any_byte_of_an_append(append_states, tmp_path: Path, data: st.DataObject) -> None:
    """Arrays may be cut anywhere as long as the line is absent; the line anywhere once the arrays are there."""
    before, after, chunk_rows = append_states
    path = tmp_path / "log"
    shutil.rmtree(path, ignore_errors=True)
    line_begun = data.draw(st.booleans(), "line begun")
    for name, whole in after.items():
        start = len(before.get(name, b""))
        if name == "episodes.jsonl":
            stop = data.draw(st.integers(start, len(whole)), name) if line_begun else start
        elif name.endswith(".bin") and not line_begun:
            stop = data.draw(st.none() | st.integers(start, len(whole)), name)
            stop = (None if start == 0 else start) if stop is None else stop  # None: not even made
        else:
            stop = len(whole)
        if stop is not None:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(whole[:stop])
    committed = 4 if (path / "episodes.jsonl").read_bytes() == after["episodes.jsonl"] else 3
    reader = Store.open(path)
    assert len(reader) == committed
    reader.verify()
    if committed == 3:  # the writer cleans up: as if nothing had happened
        Store.open(path, append=True).close()
        assert content(path) == before
        fill(path, range(3, 4), chunk_rows)
    assert content(path) == after


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("chunk_rows", [10**6, 8])
def test_failed_write_is_taken_back(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, chunk_rows: int
) -> None:
    """Each write of an append fails once, halfway; the store goes on as if it had not been tried."""
    fill(path, range(2), chunk_rows)
    before = content(path)
    row_bytes = sum(spec.row_bytes for spec in files.array_specs(SCHEMA).values())
    monkeypatch.setattr(store_module, "CHUNK_BYTES", chunk_rows * row_bytes)
    with Store.open(path, append=True) as store:
        for failing in range(8):  # seven array files and the manifest
            calls = iter(range(100))

            def write(file: int, data: memoryview, offset: int, failing: int = failing, calls=calls) -> None:
                if next(calls) == failing:
                    files.write_all(file, data[: len(data) // 2], offset)
                    raise error
                files.write_all(file, data, offset)

            monkeypatch.setattr(writer, "write_all", write)
            if isinstance(error, OSError):
                with pytest.raises(UserError, match="disk is full; 2 episodes are kept"):
                    store.append(episode(2, rows=8))
            else:
                with pytest.raises(KeyboardInterrupt):
                    store.append(episode(2, rows=8))
            assert content(path) == before
        monkeypatch.setattr(writer, "write_all", files.write_all)
        store.append(episode(2, rows=8))
        store.verify()
    assert len(Store.open(path)) == 3


def test_arrays_are_on_the_disk_before_the_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[tuple[str, str]] = []

    def name(file: int) -> str:
        return Path(os.readlink(f"/proc/self/fd/{file}")).name

    def write(file: int, data: memoryview, offset: int) -> None:
        log.append(("write", name(file)))
        files.write_all(file, data, offset)

    fsync = os.fsync
    with Store.create(path, SCHEMA) as store:
        store.append(episode(0))
        monkeypatch.setattr(writer, "write_all", write)
        monkeypatch.setattr(os, "fsync", lambda file: (log.append(("sync", name(file))), fsync(file)))
        store.append(episode(1))
    arrays = {f"{array}.bin" for array in store.specs}
    line = log.index(("write", "episodes.jsonl"))
    assert {file for what, file in log[:line] if what == "sync"} == arrays
    assert not [what for what, file in log[line:] if what == "write" and file in arrays]
    assert log[-1] == ("sync", "episodes.jsonl")


# -------------------------------------------------------------------------------------------------------------- damage


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_found_and_named(append_states, tmp_path: Path, data: st.DataObject) -> None:
    _, after, _ = append_states
    path = tmp_path / "log"
    shutil.rmtree(path, ignore_errors=True)
    name = data.draw(st.sampled_from([n for n in sorted(after) if n.endswith((".bin", ".jsonl"))]), "file")
    damaged = bytearray(after[name])
    place = data.draw(st.integers(0, len(damaged) - 1), "byte")
    damaged[place] ^= 1 << data.draw(st.integers(0, 7), "bit")
    for file, whole in after.items():
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (path / file).write_bytes(damaged if file == name else whole)
    if name == "episodes.jsonl" and place == len(damaged) - 1:
        assert len(Store.open(path)) == 3  # without its newline the last line was never committed
        return
    with pytest.raises(UserError) as told:
        Store.open(path).verify()
    assert str(path / name) in str(told.value)
    if name.endswith(".bin"):
        chunk, row = int(Path(name).parent.name), place // files.array_specs(SCHEMA)[Path(name).stem].row_bytes
        manifest = [json.loads(line) for line in after["episodes.jsonl"].splitlines()]
        (hurt,) = (r for r in manifest if r["chunk"] == chunk and r["start"] <= row < r["start"] + r["rows"])
        assert f"episode {hurt['index']} " in str(told.value)


def test_lines_that_are_missing_or_in_another_order_are_told(path: Path) -> None:
    fill(path, range(4))
    first, second, *rest = (path / "episodes.jsonl").read_bytes().splitlines(keepends=True)
    for lines in ([second, first, *rest], [first, *rest]):
        (path / "episodes.jsonl").write_bytes(b"".join(lines))
        with pytest.raises(UserError, match=f"line {1 if lines[0] is second else 2}, the row of episode"):
            Store.open(path)


@pytest.mark.parametrize("array", ["image_back", "flags"])
def test_short_or_missing_file_is_found_at_open(path: Path, array: str) -> None:
    fill(path, range(3))
    file = path / "chunks" / "000000" / f"{array}.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    sizes = f"it has {len(whole) - 1} bytes of {len(whole)}"
    with pytest.raises(UserError, match=rf"{array}\.bin is damaged, {sizes}, from episode 2"):
        Store.open(path)
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="from episode 1 on"):
        Store.open(path)
    file.unlink()
    with pytest.raises(UserError, match=rf"{array}\.bin is missing, from episode 0 on"):
        Store.open(path, append=True)
    file.write_bytes(whole)
    assert len(Store.open(path, append=True)) == 3  # the refused openings gave the lock back


def test_wrong_folders_are_told(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        Store.open(path)
    with pytest.raises(UserError, match="is not a dataset"):
        Store.open(tmp_path)
    fill(path, range(1))
    with pytest.raises(UserError, match="is not empty"):
        Store.create(path, SCHEMA)
    description = json.loads((path / "dataset.json").read_text())
    for damage, words in (
        ({"format": "fosp-dataset/99"}, "format 'fosp-dataset/99', but this version reads"),
        ({"schema": {}}, "is damaged"),
        ({"arrays": {}}, "its arrays do not belong to its schema"),
    ):
        (path / "dataset.json").write_text(json.dumps(description | damage))
        with pytest.raises(UserError, match=words):
            Store.open(path)
    (path / "dataset.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        Store.open(path)


def test_requirements_name_both_values(path: Path) -> None:
    store = fill(path, range(1))
    store.require(SCHEMA)
    for change, words in (
        ({"task": "fake/Other-v0"}, "is of task fake/Line-v0, but fake/Other-v0"),
        ({"action_size": 3}, "has action size 2, but 3"),
        ({"action_repeat": 4}, "has action repeat 2, but 4"),
        ({"cameras": {"image_front": (8, 8, 3)}}, "image_front 4x4x3, image_back 2x4x3, but image_front 8x8x3"),
    ):
        with pytest.raises(UserError, match=words):
            store.require(replace(SCHEMA, **change))


def test_dataset_without_cost(path: Path) -> None:
    with Store.create(path, SCHEMA, cost=False) as store:
        store.append(replace(episode(0), cost=np.full(6, np.nan, np.float32), cost_terms={}))
    store = Store.open(path)
    assert not store.has_cost and np.isnan(store.episode(0).cost).all() and store.manifest[0]["cost"] is None
    store.verify()
    store.require(SCHEMA, cost=False)
    with pytest.raises(UserError, match="has no cost"):
        store.require(SCHEMA)


def test_one_writer_at_a_time(path: Path) -> None:
    with Store.create(path, SCHEMA) as first:
        with pytest.raises(UserError, match=f"being written by process {os.getpid()}"):
            Store.open(path, append=True)
        first.append(episode(0))
        assert len(Store.open(path)) == 1  # readers are welcome
    Store.open(path, append=True).close()


def test_the_lock_ends_with_its_process(path: Path) -> None:
    fill(path, range(1))
    code = "import os, sys, fosp.data.store as s; o = s.Store.open(sys.argv[1], append=True); os.kill(os.getpid(), 9)"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", code, str(path)], env=env).returncode == -9
    Store.open(path, append=True).close()


def test_reader_cannot_append(path: Path) -> None:
    with pytest.raises(UserError, match="open for reading only"):
        fill(path, range(1)).append(episode(1))


def with_row(array: np.ndarray, row: int, value: float) -> np.ndarray:
    changed = array.copy()
    changed[row] = value
    return changed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: {"reward": with_row(e.reward, 3, np.nan)}, "reward is not finite at row 3"),
        (lambda e: {"reward": with_row(e.reward, 0, 1)}, "reward of row 0 is 1.0"),
        (lambda e: {"cost": with_row(e.cost, 0, 1)}, "cost of row 0 is 1.0"),
        (lambda e: {"cost": with_row(e.cost, 2, -1)}, "cost is -1.0 at row 2"),
        (lambda e: {"reward": e.reward.astype(np.float64)}, "reward is float64"),
        (lambda e: {"reward": e.reward[:-1]}, r"action is float32 of shape \(6, 2\), must be .* \(5, 2\)"),
        (lambda e: {"action": with_row(e.action, 5, 1)}, "action of the last row"),
        (lambda e: {"is_first": with_row(e.is_first, 3, True)}, r"is_first is set at rows \[0, 3\]"),
        (lambda e: {"is_last": with_row(e.is_last, 5, False)}, r"is_last is set at rows \[\]"),
        (lambda e: {"is_terminal": with_row(e.is_terminal, 1, True)}, "is_terminal is set at row 1"),
        (lambda e: {"images": {"image_front": e.images["image_front"]}}, "images are"),
        (lambda e: {"cost_terms": {"hazards": e.cost}}, "cost_terms are"),
    ],
)
def test_wrong_episodes_are_refused_at_the_border(path: Path, change, words: str) -> None:
    with Store.create(path, SCHEMA) as store:
        with pytest.raises(ValueError, match=words):
            store.append(replace(episode(0), **change(episode(0))))
        assert len(store) == 0 and store.append(episode(0)) == 0


def test_camera_names_that_cannot_be_files(path: Path) -> None:
    for name in ("action", "../image"):
        with pytest.raises(UserError, match="cannot name an array file"):
            Store.create(path, Schema("t", {name: (2, 2, 3)}, 2))
