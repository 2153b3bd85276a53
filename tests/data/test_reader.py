from __future__ import annotations

import os
import resource
import threading
from pathlib import Path

import numpy as np
import pytest
from fake_world import SCHEMA, episode

from fosp.data import files, reader
from fosp.data import store as store_module
from fosp.data.store import Store
from fosp.types import Schema, UserError

LARGE = Schema("fake/Large-v0", {"image_front": (64, 64, 3)}, 2)  # rows that are worth the disk's attention


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset of six episodes, each in a chunk of its own."""
    monkeypatch.setattr(store_module, "CHUNK_BYTES", 1)
    with Store.create(tmp_path / "log", SCHEMA) as store:
        for seed in range(6):
            store.append(episode(seed, rows=6 + seed))
    return tmp_path / "log"


def rows_of(store: Store, index: int, low: int, high: int) -> dict[str, np.ndarray]:
    return {name: np.array(rows) for name, rows in store.read(index, low, high).items()}


def memory(store: Store, rows: int) -> dict[str, np.ndarray]:
    """Arrays full of what is in no file."""
    return {name: np.full((rows, *spec.shape), 7, spec.dtype) for name, spec in store.specs.items()}


def test_rows_arrive_where_they_are_wanted(path: Path) -> None:
    store = Store.open(path)
    for index, low, high in ((0, 0, 6), (3, 2, 5), (5, 10, 11), (5, 4, 4)):
        arrays = memory(store, high - low)
        store.expect(index, low, high)
        store.read_into(index, low, arrays)
        for name, expected in rows_of(store, index, low, high).items():
            np.testing.assert_array_equal(arrays[name], expected, err_msg=name)
    whole = memory(store, 10)
    store.read_into(2, 0, {name: array[1:9] for name, array in whole.items()})
    for name, expected in rows_of(store, 2, 0, 8).items():
        np.testing.assert_array_equal(whole[name][1:9], expected)
        assert (whole[name][[0, 9]] == np.full((), 7, whole[name].dtype)).all()


def test_a_file_that_gives_little_at_a_time_is_read_to_the_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda number, buffers, offset: preadv(number, [buffers[0][:5]], offset))
    store = Store.open(path)
    arrays = memory(store, 6)
    store.read_into(0, 0, arrays)
    np.testing.assert_array_equal(arrays["image_front"], rows_of(store, 0, 0, 6)["image_front"])


def test_memory_that_would_be_copied_is_refused(path: Path) -> None:
    store = Store.open(path)
    scattered = np.zeros((6, 4, 4, 6), np.uint8)[..., ::2]
    with pytest.raises(ValueError, match="not contiguous"):
        store.read_into(0, 0, {"image_front": scattered})


def test_a_file_cut_short_or_gone_is_named(path: Path) -> None:
    # Through a memory map this would kill the process.
    store = Store.open(path)
    file = files.array_file(path, 1, "reward")
    os.truncate(file, 8)
    with pytest.raises(UserError, match=r"000001/reward\.bin cannot be read \(it ends at byte 8\)"):
        store.read_into(1, 0, memory(store, 7))
    files.array_file(path, 2, "action").unlink()
    with pytest.raises(UserError, match=r"000002/action\.bin cannot be read \(No such file"):
        store.read_into(2, 0, memory(store, 8))


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux lists them")
def test_few_files_are_open_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_MOST", 3)
    before = open_files()
    store = Store.open(path)
    for index in (0, 5, 1, 4, 2, 3, 0):
        arrays = memory(store, 6)
        store.read_into(index, 0, arrays)
        np.testing.assert_array_equal(arrays["reward"], rows_of(store, index, 0, 6)["reward"])
        assert open_files() <= before + 3 + len(store.specs) * store_module.OPEN_CHUNKS
    assert len(store._reader._files) == 3
    store.close()
    assert open_files() == before
    store.read_into(1, 0, memory(store, 6))  # a closed store opens again what it needs


def test_the_share_of_a_small_limit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, most in ((1024, 256), (resource.RLIM_INFINITY, 4096), (10**6, 4096)):
        monkeypatch.setattr(resource, "getrlimit", lambda what, limit=limit: (limit, limit))
        assert reader.Reader(path, {})._most == most


def test_threads_read_beside_each_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # With one file held open, each thread closes, all the time, what another one is about to read.
    monkeypatch.setattr(reader, "_MOST", 1)
    store = Store.open(path)
    expected = [rows_of(store, index, 0, 6) for index in range(6)]
    wrong: list[str] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for index in rng.integers(6, size=100):
                arrays = memory(store, 6)
                store.read_into(int(index), 0, arrays)
                wrong.extend(name for name in arrays if not np.array_equal(arrays[name], expected[index][name]))
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system takes no advice")
def test_the_disk_is_told_what_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.create(tmp_path / "log", LARGE) as store:
        store.append(episode(0, rows=9, schema=LARGE))
    told = []
    monkeypatch.setattr(os, "posix_fadvise", lambda number, *rest: told.append(rest))
    store = Store.open(tmp_path / "log")
    store.expect(0, 2, 6)
    row = 64 * 64 * 3
    # Whole images are read where they are wanted and nowhere else; of small arrays what lies beside is wanted too.
    assert told == [(0, 0, os.POSIX_FADV_RANDOM), (2 * row, 4 * row, os.POSIX_FADV_WILLNEED)]
    store.read_into(0, 0, {"action": np.empty((9, 2), np.float32)})
    assert len(told) == 2
