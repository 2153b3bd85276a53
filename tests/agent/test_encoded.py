"""The encoded log: windows of states that were filtered from whole episodes, and learning from them alone."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import AGENT, MODEL, SCHEMA, agent, batch, copied, episode, generator, images, learner, same, stir
from torch import Tensor

from fosp.agent.agent import Agent
from fosp.agent.encoded import EncodedBatch, EncodedLog
from fosp.agent.mirror import mirrored
from fosp.cli import wire
from fosp.data.sampler import Sampler
from fosp.data.store import Store
from fosp.nets.distributions import gumbel
from fosp.presets import RunConfig
from fosp.training.offline import TrainingConfig
from fosp.types import Batch
from fosp.world_model import Latent


def episodes(first: int, size: int, rows: int) -> Batch:
    """Whole episodes whose reward says which episode and row it is: 100 e + t."""
    is_first, is_last = torch.zeros(2, size, rows, dtype=torch.bool)
    is_first[:, 0], is_last[:, -1] = True, True
    reward = 100.0 * torch.arange(first, first + size).unsqueeze(-1) + torch.arange(rows)
    return batch(first, size=size, rows=rows, reward=reward, is_first=is_first, is_last=is_last)


def encoded(subject: Agent, *given: Batch, size: int = 4, length: int = 5, seed: int = 0) -> EncodedLog:
    return EncodedLog(subject.model, given, size, length, seed, nullcontext)


@pytest.fixture
def subject() -> Agent:
    subject = agent()
    stir(subject)
    return subject


def test_a_window_holds_neighbouring_rows_of_one_episode(subject: Agent) -> None:
    log = encoded(subject, episodes(0, 2, 7), episodes(2, 1, 9), size=50)
    drawn = log.sample()
    assert drawn.batch.images == {}
    reward = drawn.batch.reward
    assert reward.shape == (50, 5)
    assert torch.equal(reward, reward[:, :1] + torch.arange(5))
    assert (reward[:, 0] // 100 == reward[:, -1] // 100).all()
    assert torch.equal(drawn.batch.is_first, reward % 100 == 0)
    lengths = torch.tensor([7, 7, 9])[(reward // 100).long()]
    assert torch.equal(drawn.batch.is_last, reward % 100 == lengths - 1)


def test_windows_are_uniform_over_the_rows_where_they_fit(subject: Agent) -> None:
    log = encoded(subject, episodes(0, 2, 7), episodes(2, 1, 9), size=4000)
    starts, counts = log.sample().batch.reward[:, 0].unique(return_counts=True)
    assert starts.tolist() == [0, 1, 2, 100, 101, 102, 200, 201, 202, 203, 204]
    assert counts.min() > 0.75 * 4000 / 11 and counts.max() < 1.25 * 4000 / 11


def test_states_are_those_of_the_whole_episode(subject: Agent) -> None:
    # Not of a window that begins in the dark: they have seen all that came before, as when the policy acts.
    data = episodes(0, 2, 7)
    noise = gumbel((2, 7, MODEL.groups, MODEL.classes), generator(3))
    latents, *_ = subject.model.observe(subject.model.encode(images(data)), data.action, data.is_first, noise)
    drawn = encoded(subject, data, size=20, seed=3).sample()
    which, row = (drawn.batch.reward // 100).long(), (drawn.batch.reward % 100).long()
    torch.testing.assert_close(drawn.latents.h, latents.h[which, row].detach(), rtol=1e-3, atol=1e-3)
    assert torch.equal(drawn.latents.z, latents.z[which, row].detach())
    assert drawn.latents.h.dtype == drawn.latents.z.dtype == torch.float32
    torch.testing.assert_close(drawn.batch.action, data.action[which, row])
    torch.testing.assert_close(drawn.batch.cost, data.cost[which, row])


def test_the_images_of_a_long_episode_are_read_in_pieces(subject: Agent) -> None:
    data = episodes(0, 1, 75)
    drawn = encoded(subject, data, length=75, size=1).sample()
    noise = gumbel((1, 75, MODEL.groups, MODEL.classes), generator())
    latents, *_ = subject.model.observe(subject.model.encode(images(data)), data.action, data.is_first, noise)
    torch.testing.assert_close(drawn.latents.h, latents.h.detach(), rtol=1e-3, atol=1e-3)


def test_it_goes_on_with_the_very_next_batch(subject: Agent) -> None:
    log = encoded(subject, episodes(0, 2, 7))
    log.sample()
    state = log.state_dict()
    expected = [log.sample().batch.reward for _ in range(2)]
    again = encoded(subject, episodes(0, 2, 7), seed=9)
    again.load_state_dict(state)
    assert all(torch.equal(again.sample().batch.reward, reward) for reward in expected)


@pytest.mark.parametrize("lengths", [(7, 3, 9, 2), (3, 2, 4), (7, 9)])
def test_the_windows_are_those_of_the_sampler_of_images(
    subject: Agent, tmp_path: Path, lengths: tuple[int, ...]
) -> None:
    # Also where an episode is shorter than a window: it goes on with another one, which is_first tells.
    store = stored(tmp_path / "log", lengths)
    reference = Sampler(store, 50, 5, seed=3)
    log = encoded(subject, *(whole(store, index) for index in range(len(store))), size=50, seed=3)
    for _ in range(2):
        drawn, expected = log.sample().batch, reference.sample()
        for name in EncodedLog.FIELDS:
            np.testing.assert_array_equal(getattr(drawn, name).numpy(), getattr(expected, name))
    assert expected.is_first[:, 1:].any() == (min(lengths) < 5)


def whole(store: Store, index: int) -> Batch:
    """An episode of a store as a batch of one."""
    found = store.episode(index)
    fields = {name: torch.from_numpy(np.array(getattr(found, name))[None]) for name in EncodedLog.FIELDS}
    return Batch({name: torch.from_numpy(np.array(image)[None]) for name, image in found.images.items()}, **fields)


def test_9_learning_from_states_leaves_the_world_model_as_it_is() -> None:
    made = learner()
    stir(made.agent)
    log = encoded(made.agent, episodes(0, 2, 7))
    before = copied(made.agent.state_dict())
    metrics = made.update(log.sample())
    assert made.updates == 1 and not any(name.startswith("model/") for name in metrics)
    now = made.agent.state_dict()
    moved = {name.split(".")[0] for name, tensor in before.items() if not torch.equal(tensor, now[name])}
    assert {"actor", "reward_critic", "cost_critic", "reachability"} <= moved
    assert same(
        {k: v for k, v in before.items() if k.startswith("model.")},
        {k: v for k, v in now.items() if k.startswith("model.")},
    )


def test_the_same_states_teach_the_same_whichever_way_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    # An update from images that has these posterior states moves critics and policy as an update from the states does.
    data = batch()
    first, second = learner(), learner()
    seen: list[EncodedBatch] = []
    original = first._update_behaviour

    def watch(latents: Latent, given: Batch) -> dict[str, Tensor]:
        seen.append(EncodedBatch(latents, given))
        state = first.generator.get_state()
        second.agent.model.load_state_dict(first.agent.model.state_dict())
        second.generator.set_state(state)
        return original(latents, given)

    monkeypatch.setattr(first, "_update_behaviour", watch)
    first.update(data)
    second.update(seen[0])
    assert same(first.weights(), second.weights())


# ---------------------------------------------------------------------------------------------------------------------
# From a dataset.


def stored(path: Path, lengths: tuple[int, ...]) -> Store:
    store = Store.create(path, SCHEMA)
    for seed, rows in enumerate(lengths):
        store.append(episode(seed, rows=rows))
    return store


SETTINGS = RunConfig(model=MODEL, agent=AGENT, training=TrainingConfig(length=5, latent_batch=3))


def rows_of(log: EncodedLog, name: str) -> np.ndarray:
    return log.rows[name].numpy()


@pytest.mark.parametrize("group", [1, 2, 8])
def test_every_episode_of_the_log_is_encoded_once(tmp_path: Path, group: int) -> None:
    store = stored(tmp_path / "log", (7, 9, 7, 7))
    log = wire.encode_log(learner(), store, SETTINGS, group=group)
    expected = np.concatenate([store.episode(i).reward for i in (0, 2, 3, 1)])  # by length
    np.testing.assert_array_equal(rows_of(log, "reward"), expected)
    np.testing.assert_array_equal(np.flatnonzero(rows_of(log, "is_first")), [0, 7, 14, 21])
    assert len(log.starts) == 3 * 3 + 5
    assert log.sample().batch.reward.shape == (3, 5)


def test_a_mirrored_log_is_encoded_too(tmp_path: Path) -> None:
    store = stored(tmp_path / "log", (7, 7))
    made = learner(schema=replace(SCHEMA, mirror=(1.0, -1.0)))
    log = wire.encode_log(made, store, SETTINGS, group=2)
    action = rows_of(log, "action").reshape(2, 14, 2)
    np.testing.assert_array_equal(action[1], action[0] * [1, -1])
    reward = rows_of(log, "reward").reshape(2, 14)
    np.testing.assert_array_equal(reward[0], reward[1])
    assert not np.array_equal(rows_of(log, "h")[:14], rows_of(log, "h")[14:])


def test_mirrored_states_come_from_mirrored_images() -> None:
    made = learner(schema=replace(SCHEMA, mirror=(1.0, -1.0)))
    stir(made.agent)
    data = episodes(0, 2, 7)
    direct = encoded(made.agent, mirrored(data, (1.0, -1.0)))
    both = encoded(made.agent, mirrored(mirrored(data, (1.0, -1.0)), (1.0, -1.0)))
    plain = encoded(made.agent, data)
    assert torch.equal(both.rows["h"], plain.rows["h"])
    assert not torch.equal(direct.rows["h"], plain.rows["h"])
