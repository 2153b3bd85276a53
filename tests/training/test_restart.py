"""Exact restart: the state of learner and sampler goes through files and comes back bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders import SCHEMA, batch, copied, episode, learner, same
from fakes import FakeProgress, no_board, train

from fosp.agent.agent import Learner, OptimiserConfig
from fosp.data.sampler import Prefetcher, Sampler
from fosp.data.store import Store
from fosp.training import checkpoint
from fosp.training.log import Run
from fosp.training.offline import Trainer, TrainingConfig


@pytest.fixture(autouse=True)
def _no_board(monkeypatch: pytest.MonkeyPatch) -> None:
    no_board(monkeypatch)


def trained(folder: Path, store: Store, updates: int, *, expand: bool = False, prefetch: bool = False) -> Learner:
    """A run of ``updates`` in ``folder``, or the rest of them where it holds a checkpoint, as a new process does it."""
    torch.manual_seed(1000 + updates)  # a process never has the global generator of the one before
    made = learner(seed=updates, optimiser=OptimiserConfig(model_rate=1e-3)) if expand else learner()
    if expand:
        made.agent.expand()
    sampler = Sampler(store, batch_size=2, length=6, seed=0)
    run = Run(folder)
    run.begin("", {})
    source = Prefetcher(sampler) if prefetch else sampler
    trainer = Trainer(made, source, run, TrainingConfig(updates=updates, save_every=100), "cpu", {})
    trainer.resume()
    train(trainer, FakeProgress())
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
    first = copied(trained(tmp_path / "cut", store, 3, prefetch=prefetch).weights())
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


def test_10_an_expanded_agent_restarts_exactly(tmp_path: Path, store: Store) -> None:
    def run(folder: str, updates: int) -> Learner:
        return trained(tmp_path / folder, store, updates, expand=True)

    torch.manual_seed(0)
    source = learner()
    source.agent.expand()
    for folder in ("whole", "cut"):  # both go on from the same expanded agent
        checkpoint.save(
            tmp_path / folder / "checkpoints", 0, {}, source.weights(), source.state()[0],
            {"learner": source.state()[1], "sampler": Sampler(store, 2, 6, 0).state_dict(), "seconds": 0.0},
        )  # fmt: skip
    whole = run("whole", 4)
    run("cut", 2)
    cut = run("cut", 4)
    assert same(cut.weights(), whole.weights())
    frozen = {name: t for name, t in cut.weights().items() if name.startswith("offline_actor.")}
    assert frozen and all(torch.equal(t, source.weights()[name]) for name, t in frozen.items())


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
