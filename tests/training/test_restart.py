"""Exact restart: the state of learner and sampler goes through files and comes back bit for bit."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from builders import AGENT, MODEL, SCHEMA, batch, copied, episode, learner, same
from fakes import FakeProgress, no_board, train

from fosp.agent.agent import Learner
from fosp.cli import wire
from fosp.data.sampler import Prefetcher, Sampler
from fosp.data.store import Store
from fosp.presets import RunConfig
from fosp.training import checkpoint
from fosp.training.log import Run
from fosp.training.offline import Trainer, TrainingConfig


@pytest.fixture(autouse=True)
def _no_board(monkeypatch: pytest.MonkeyPatch) -> None:
    no_board(monkeypatch)


PROCESSES = count(1000)
SETTINGS = RunConfig(
    model=MODEL, agent=AGENT, training=TrainingConfig(batch=2, length=6, latent_batch=2, save_every=100)
)


def trained(
    folder: Path, store: Store, updates: int, latent_updates: int = 0, *, stop_at: int | None = None,
    expand: bool = False, prefetch: bool = False,
) -> Learner:  # fmt: skip
    """A run in ``folder``, or the rest of it where that holds a checkpoint, as a new process does it."""
    made = learner()
    torch.manual_seed(next(PROCESSES))  # no process has the global generator of another
    if expand:
        made.agent.expand()
    sampler = Sampler(store, batch_size=2, length=6, seed=0)
    source = Prefetcher(sampler) if prefetch else sampler
    run = Run(folder)
    run.begin("", {})
    config = replace(SETTINGS.training, updates=updates, latent_updates=latent_updates)
    trainer = Trainer(made, source, run, config, "cpu", {})
    trainer.resume()
    try:
        train(trainer, FakeProgress(stop_at), encode=lambda: wire.encode_log(made, store, SETTINGS))
    except KeyboardInterrupt:
        assert made.updates == stop_at
    if isinstance(source, Prefetcher):
        source.close()
    return made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.create(tmp_path / "log", SCHEMA)
    for seed in range(4):
        store.append(episode(seed))
    return store


def files(folder: Path) -> dict[str, torch.Tensor]:
    path = checkpoint.resolve(folder)
    return checkpoint.read_tensors(path, "policy/model") | checkpoint.read_tensors(path, "training_state/state")


@pytest.mark.parametrize("prefetch", [False, True])
def test_10_k_updates_save_load_k_updates_equal_2k_updates(tmp_path: Path, store: Store, prefetch: bool) -> None:
    whole = trained(tmp_path / "whole", store, 6, prefetch=prefetch)
    first = copied(trained(tmp_path / "cut", store, 6, stop_at=3, prefetch=prefetch).weights())
    second = trained(tmp_path / "cut", store, 6, prefetch=prefetch)
    assert second.updates == whole.updates == 6
    assert not same(first, second.weights())
    assert same(second.weights(), whole.weights())
    assert same(second.state()[0], whole.state()[0]) and second.state()[1] == whole.state()[1]
    assert same(files(tmp_path / "cut"), files(tmp_path / "whole"))


def test_10_every_part_of_the_state_is_needed_and_kept() -> None:
    # Without files: what state() and weights() give is all there is, optimisers, generator, ranges, multiplier.
    def run(made: Learner, seeds: range) -> Learner:
        for seed in seeds:
            made.update(batch(seed))
        return made

    whole = run(learner(), range(6))
    half = run(learner(), range(3))
    other = learner(seed=9)
    other.update(batch(40))
    other.load_weights(copied(half.weights()))
    tensors, numbers = half.state()
    other.load_state(copied(tensors), dict(numbers))
    assert same(run(other, range(3, 6)).weights(), whole.weights())
    for part in ("generator", "model/0/exp_avg", "critics/0/exp_avg_sq", "actor/0/exp_avg", "actor/0/step"):
        assert part in tensors, part
        spoiled = learner(seed=9)
        spoiled.load_weights(copied(half.weights()))
        wrong = copied(tensors)
        if part == "generator":
            wrong[part] = torch.Generator().manual_seed(77).get_state()
        else:
            wrong[part] = wrong[part] + 1
        spoiled.load_state(wrong, dict(numbers))
        assert not same(run(spoiled, range(3, 6)).weights(), whole.weights()), part


@pytest.mark.parametrize("stop_at", [2, 3, 4])
def test_10_both_stages_restart_exactly(tmp_path: Path, store: Store, stop_at: int) -> None:
    # The log is encoded again by the same weights and with the same noise, and goes on with its very next batch.
    whole = trained(tmp_path / "whole", store, 3, 3)
    trained(tmp_path / "cut", store, 3, 3, stop_at=stop_at)
    cut = trained(tmp_path / "cut", store, 3, 3)
    assert cut.updates == 6
    assert same(cut.weights(), whole.weights())
    assert same(files(tmp_path / "cut"), files(tmp_path / "whole"))


def test_10_an_expanded_agent_restarts_exactly(tmp_path: Path, store: Store) -> None:
    whole = trained(tmp_path / "whole", store, 4, expand=True)
    trained(tmp_path / "cut", store, 4, stop_at=2, expand=True)
    cut = trained(tmp_path / "cut", store, 4, expand=True)
    assert same(cut.weights(), whole.weights())
    frozen = {name: t for name, t in cut.weights().items() if name.startswith("offline_actor.")}
    begun = learner()
    begun.agent.expand()
    assert frozen and all(torch.equal(t, begun.weights()[name]) for name, t in frozen.items())


def test_a_state_before_any_update_can_be_saved(tmp_path: Path) -> None:
    made = learner()
    tensors, numbers = made.state()
    path = checkpoint.save(tmp_path, 0, {}, made.weights(), tensors, numbers)
    other = learner(seed=1)
    other.load_weights(checkpoint.read_tensors(path, "policy/model"))
    other.load_state(checkpoint.read_tensors(path, "training_state/state"), checkpoint.read_numbers(path))
    other.update(batch())
    made.update(batch())
    assert same(made.weights(), other.weights())
