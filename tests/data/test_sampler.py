from __future__ import annotations

import json
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_world import SCHEMA, episode

from fosp.data.sampler import MixedSampler, Prefetcher, Sampler
from fosp.data.store import Store
from fosp.types import Batch, Episode, UserError

NAMES = ("action", "reward", "cost", "is_first", "is_last", "is_terminal")


def store_of(path: Path, lengths: list[int], first_seed: int = 0) -> Store:
    with Store.open(path, append=True) if path.exists() else Store.create(path, SCHEMA) as store:
        for seed, rows in enumerate(lengths, first_seed):
            store.append(episode(seed, rows))
    return Store.open(path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_of(tmp_path / "log", [9, 4, 12, 5])


def window(batch: Batch, b: int, low: int, high: int) -> dict[str, np.ndarray]:
    rows = {name: getattr(batch, name)[b, low:high] for name in NAMES}
    return rows | {name: images[b, low:high] for name, images in batch.images.items()}


def find(rows: dict[str, np.ndarray], store: Store) -> tuple[int, int]:
    """(episode, start row) whose content these rows are; the images tell where, then everything must agree."""
    length = len(rows["reward"])
    for index in range(len(store)):
        whole: Episode = store.episode(index)
        for start in range(len(whole) - length + 1):
            if np.array_equal(whole.images["image_back"][start : start + length], rows["image_back"]):
                for name, found in rows.items():
                    source = whole.images[name] if name in whole.images else getattr(whole, name)
                    np.testing.assert_array_equal(found, source[start : start + length], err_msg=name)
                return index, start
    raise AssertionError("these rows are in no episode")


def same(a: Batch, b: Batch) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in NAMES) and all(
        np.array_equal(a.images[name], b.images[name]) for name in a.images
    )


def test_windows_are_the_rows_of_the_log_and_start_rows_are_uniform(store: Store) -> None:
    sampler = Sampler(store, batch_size=50, length=4, seed=1)
    batches = [sampler.sample() for _ in range(40)]
    counts = Counter(find(window(batch, b, 0, 4), store) for batch in batches for b in range(50))
    starts = {(index, start) for index, rows in enumerate([9, 4, 12, 5]) for start in range(rows - 3)}
    assert set(counts) == starts
    expected = 2000 / len(starts)
    chi_square = sum((counts[key] - expected) ** 2 / expected for key in starts)
    assert len(starts) == 18 and chi_square < 40.8  # the 99.9 % quantile for 17 degrees of freedom


def naive(store: Store, rng: np.random.Generator, size: int, length: int) -> list[list[tuple[int, int, int]]]:
    """For each window (episode, first row, rows) of its pieces, found by walking over all start rows."""
    starts = [
        (index, start) for index, row in enumerate(store.manifest) for start in range(max(1, row["rows"] - length + 1))
    ]
    windows = []
    for draw in rng.integers(len(starts), size=size):
        episode, start = starts[draw]
        pieces = [(episode, start, min(length, store.manifest[episode]["rows"] - start))]
        while (done := sum(piece[2] for piece in pieces)) < length:
            episode = starts[rng.integers(len(starts))][0]
            pieces.append((episode, 0, min(length - done, store.manifest[episode]["rows"])))
        windows.append(pieces)
    return windows


@pytest.mark.parametrize("length", [4, 10])
def test_windows_are_drawn_as_one_would_by_hand(store: Store, length: int) -> None:
    # In this order, too: a run that goes on after an update of the program shall see the batches that it would have.
    sampler, rng = Sampler(store, 20, length, seed=5), np.random.default_rng(5)
    for _ in range(3):
        batch = sampler.sample()
        for b, pieces in enumerate(naive(store, rng, 20, length)):
            done = 0
            for index, start, rows in pieces:
                assert find(window(batch, b, done, done + rows), store) == (index, start)
                done += rows


def test_a_batch_reads_its_own_rows_and_costs_the_same_however_many_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Watched(list):
        asked = 0

        def __getitem__(self, index: Any) -> Any:
            self.asked += 1
            return super().__getitem__(index)

        def __iter__(self) -> Any:
            raise AssertionError("a batch goes through all episodes")

    sizes = []
    preadv = os.preadv

    def watch(number: int, buffers: Any, offset: int) -> int:
        sizes.append(preadv(number, buffers, offset))
        return sizes[-1]

    seen = []
    for episodes in (3, 40):
        small = store_of(tmp_path / str(episodes), [6] * episodes)
        sampler = Sampler(small, batch_size=5, length=4, seed=0)
        small.manifest = Watched(small.manifest)
        with monkeypatch.context() as patch:
            patch.setattr(os, "preadv", watch)
            sampler.sample()
        seen.append((small.manifest.asked, len(sizes), sum(sizes)))
        sizes.clear()
    row = 4 * 4 * 3 + 2 * 4 * 3 + 2 * 4 + 4 + 4 + 3  # two images, action, reward, cost, flags
    assert seen[0] == seen[1] == (2 * 5, 6 * 5, 5 * 4 * row)


def test_arrays_are_contiguous_and_typed(store: Store) -> None:
    batch = Sampler(store, batch_size=3, length=5, seed=0).sample()
    assert batch.images["image_back"].shape == (3, 5, 2, 4, 3) and batch.action.shape == (3, 5, 2)
    for array in (*batch.images.values(), *(getattr(batch, name) for name in NAMES)):
        assert array.flags.c_contiguous and array.shape[:2] == (3, 5)
    kinds = [getattr(batch, name).dtype for name in NAMES]
    assert kinds == [np.float32] * 3 + [np.bool_] * 3


def test_short_episodes_are_joined_at_marked_cuts(store: Store) -> None:
    sampler = Sampler(store, batch_size=64, length=10, seed=0)  # fits into the episode of 12 rows only, 3 starts
    firsts: Counter[tuple[int, int]] = Counter()
    batch = sampler.sample()
    for b in range(64):
        cuts = [0, *(t for t in range(1, 10) if batch.is_first[b, t]), 10]
        pieces = [find(window(batch, b, low, high), store) for low, high in zip(cuts, cuts[1:], strict=False)]
        assert all(start == 0 for _, start in pieces[1:])
        assert all(batch.is_last[b, cut - 1] for cut in cuts[1:-1])  # an episode is left at its end only
        firsts[pieces[0]] += 1
    assert set(firsts) == {(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (3, 0)}


def test_exact_restart_through_json(store: Store) -> None:
    sampler = Sampler(store, batch_size=4, length=4, seed=7)
    for _ in range(3):
        sampler.sample()
    state = json.loads(json.dumps(sampler.state_dict()))
    expected = [sampler.sample() for _ in range(5)]
    again = Sampler(store, batch_size=4, length=4, seed=99)
    again.load_state_dict(state)
    assert all(same(again.sample(), batch) for batch in expected)
    assert not same(expected[0], expected[1])


def test_new_episodes_are_seen_after_refresh_only(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with Store.create(path, SCHEMA) as store:
        sampler = Sampler(store, batch_size=30, length=4, seed=0)
        with pytest.raises(UserError, match="holds no episodes"):
            sampler.sample()
        store.append(episode(0))
        sampler.refresh()
        state = sampler.state_dict()
        expected = sampler.sample()
        store.append(episode(1))
        assert {find(window(sampler.sample(), b, 0, 4), store)[0] for b in range(30)} == {0}
        sampler.refresh()
        batch = sampler.sample()
        assert {find(window(batch, b, 0, 4), store)[0] for b in range(30)} == {0, 1}
        sampler.load_state_dict(state)  # restart from before the second episode
        assert same(sampler.sample(), expected)
    state["episodes"] = 5
    with pytest.raises(UserError, match="has 2 episodes, but the run that is resumed had seen 5"):
        sampler.load_state_dict(state)


def test_cost_stays_unknown_where_the_log_does_not_know_it(tmp_path: Path) -> None:
    with Store.create(tmp_path / "log", SCHEMA, cost=False) as store:
        store.append(episode(0))
        assert np.isnan(Sampler(store, 2, 3, 0).sample().cost).all()


def test_mixed_batches_hold_fixed_shares(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "online"
    with Store.create(path, SCHEMA) as online:
        mixed = MixedSampler(Sampler(store, 8, 4, 0), Sampler(online, 3, 4, 1), fraction=0.75)
        batch = mixed.sample()
        assert [find(window(batch, b, 0, 4), store) for b in range(8)]  # nothing online yet: all from the log
        online.append(episode(100))
        mixed.refresh()
        state = json.loads(json.dumps(mixed.state_dict()))
        expected = mixed.sample()
        for b in range(8):
            find(window(expected, b, 0, 4), store if b < 6 else online)
        mixed.sample()
        mixed.load_state_dict(state)
        assert same(mixed.sample(), expected)


def test_prefetching_changes_nothing_but_the_time(store: Store) -> None:
    before = set(threading.enumerate())  # other tests leave threads of libraries behind
    plain = Sampler(store, 4, 4, 3)
    prefetcher = Prefetcher(Sampler(store, 4, 4, 3), ahead=3)
    assert set(threading.enumerate()) - before
    for _ in range(10):
        assert same(prefetcher.sample(), plain.sample())
    assert prefetcher.state_dict() == plain.state_dict()  # of batches taken, though more lie ready
    state = json.loads(json.dumps(prefetcher.state_dict()))
    expected = [prefetcher.sample() for _ in range(4)]
    prefetcher.load_state_dict(state)
    assert all(same(prefetcher.sample(), batch) for batch in expected)
    prefetcher.close()
    assert not set(threading.enumerate()) - before
    with pytest.raises(ValueError, match="closed"):
        prefetcher.sample()


def test_prefetcher_refreshes_at_the_batch_that_was_taken(tmp_path: Path) -> None:
    with Store.create(tmp_path / "log", SCHEMA) as store:
        store.append(episode(0))
        plain, prefetcher = Sampler(store, 4, 4, 3), Prefetcher(Sampler(store, 4, 4, 3))
        for seed in range(1, 4):
            assert same(prefetcher.sample(), plain.sample())
            store.append(episode(seed))
            plain.refresh()
            prefetcher.refresh()
        for _ in range(5):
            assert same(prefetcher.sample(), plain.sample())
        prefetcher.close()


def test_prefetcher_hands_over_errors(tmp_path: Path) -> None:
    with Store.create(tmp_path / "log", SCHEMA) as store:
        prefetcher = Prefetcher(Sampler(store, 4, 4, 3))
        for _ in range(2):
            with pytest.raises(UserError, match="holds no episodes"):
                prefetcher.sample()
        store.append(episode(0))
        prefetcher.refresh()
        assert prefetcher.sample().reward.shape == (4, 4)
        prefetcher.close()


def test_senseless_sizes_are_told(store: Store) -> None:
    for batch_size, length in ((0, 4), (4, 1)):
        with pytest.raises(UserError, match=f"batch size {batch_size} and length {length}"):
            Sampler(store, batch_size, length, 0)
    with pytest.raises(UserError, match="fraction 1.5"):
        MixedSampler(Sampler(store, 4, 4, 0), Sampler(store, 4, 4, 0), 1.5)
