"""Batches from the memory of a device are those that the files give, now and after a restart."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import SCHEMA, episode

from fosp.cli import wire
from fosp.data.sampler import MixedSampler, Prefetcher, Sampler
from fosp.data.store import Store
from fosp.training import resident
from fosp.training.offline import to_tensors
from fosp.training.resident import Resident
from fosp.types import Batch

LENGTH = 6


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Episodes of several lengths, one of them shorter than a window."""
    store = Store.create(tmp_path / "log", SCHEMA)
    for seed, rows in enumerate((11, 4, 7, 6)):
        store.append(episode(seed, rows=rows))
    return store


def assert_equal(a: Batch, b: Batch) -> None:
    """Tensors of the same values, shapes, dtypes and order of cameras."""
    a, b = to_tensors(a, "cpu"), to_tensors(b, "cpu")
    assert list(a.images) == list(b.images) == list(SCHEMA.cameras)
    pairs = [(a.images[name], b.images[name]) for name in a.images]
    pairs += [(getattr(a, name), getattr(b, name)) for name in vars(a) if name != "images"]
    for x, y in pairs:
        assert x.dtype == y.dtype and x.shape == y.shape
        assert torch.equal(x.nan_to_num(-5), y.nan_to_num(-5))


def test_batches_are_those_of_the_files(store: Store) -> None:
    files, held = Sampler(store, 3, LENGTH, seed=1), Resident(Sampler(store, 3, LENGTH, seed=1), "cpu")
    firsts = 0
    for _ in range(30):
        batch = held.sample()
        assert_equal(batch, files.sample())
        firsts += int(batch.is_first[:, 1:].sum())
    assert firsts > 0  # windows that go on with another episode have come up
    state = json.loads(json.dumps(held.state_dict()))
    assert state == files.state_dict()
    expected = held.sample()
    held.sample()
    held.load_state_dict(state)
    assert_equal(held.sample(), expected)


def test_new_episodes_are_held_after_refresh(store: Store) -> None:
    files, held = Sampler(store, 3, LENGTH, seed=1), Resident(Sampler(store, 3, LENGTH, seed=1), "cpu")
    old = held.state_dict()
    store.append(episode(9, rows=30))
    for count in (None, 2):
        assert_equal(held.sample(), files.sample())
        held.refresh(count)
        files.refresh(count)
        for _ in range(5):
            assert_equal(held.sample(), files.sample())
    held.load_state_dict(old)
    files.load_state_dict(old)
    assert_equal(held.sample(), files.sample())


def test_cost_stays_unknown_where_the_log_does_not_know_it(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "log", SCHEMA, cost=False)
    store.append(episode(0))
    assert Resident(Sampler(store, 2, LENGTH, 0), "cpu").sample().cost.isnan().all()


def test_where_a_log_lies_follows_from_device_and_memory(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler, gpu = Sampler(store, 2, LENGTH, 0), torch.device("cuda")
    assert not resident.fits(store, torch.device("cpu"))
    for free, answer in ((2 * store.num_bytes, True), (2 * store.num_bytes - 2, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10**12))
        assert resident.fits(store, gpu) is answer
    mixed = MixedSampler(sampler, Sampler(store, 2, LENGTH, 1), 0.5)
    for source in (wire.source_of(sampler, torch.device("cpu")), wire.source_of(mixed, torch.device("cpu"))):
        assert isinstance(source, Prefetcher)
        source.close()
    monkeypatch.setattr(wire, "fits", lambda store, device: True)
    assert isinstance(wire.source_of(sampler, torch.device("cpu")), Resident)


def test_batches_are_prepared_in_the_background(store: Store) -> None:
    threads = set()

    def prepare(batch: Batch) -> Batch:
        threads.add(threading.current_thread())
        return to_tensors(batch, "cpu")

    plain, source = Sampler(store, 2, LENGTH, 3), Prefetcher(Sampler(store, 2, LENGTH, 3), prepare=prepare)
    for _ in range(3):
        batch = source.sample()
        assert isinstance(batch.reward, torch.Tensor)
        assert_equal(batch, plain.sample())
    assert source.state_dict() == plain.state_dict()
    source.close()
    assert threads and threading.current_thread() not in threads
    assert isinstance(plain.sample().reward, np.ndarray)
