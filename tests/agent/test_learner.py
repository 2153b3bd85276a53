"""One update: skipped where gradients are not finite, reproducible, and able to learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from builders import MODEL, B, T, agent, batch, copied, generator, learner, same, stir
from torch import Tensor

from fosp.agent.agent import Learner, OptimiserConfig, dream
from fosp.types import Batch
from fosp.world_model import Latent


def finite(subject: Learner) -> bool:
    return all(torch.isfinite(tensor).all() for tensor in subject.weights().values())


def broken(part: str) -> Batch:
    """A batch with one number that is none."""
    data = batch()
    tensor: Tensor = getattr(data, part).clone()
    tensor[1, 2] = torch.nan
    return replace(data, **{part: tensor})


def test_a_gradient_that_is_not_finite_is_skipped_and_counted() -> None:
    subject = learner()
    subject.update(batch())
    before = copied(subject.agent.model.state_dict())
    actor = copied(subject.agent.actor.state_dict())
    subject.update(broken("reward"))
    assert subject.skipped_steps == 2 and subject.updates == 2  # those of world model and critics, not the policy
    assert same(subject.agent.model.state_dict(), before)
    assert not same(subject.agent.actor.state_dict(), actor)  # its own gradient was whole
    assert finite(subject)


def test_every_image_is_reconstructed_in_some_update() -> None:
    subject = learner(model=replace(MODEL, decode_every=3))
    drawn = [subject._decoded(7) for _ in range(30)]
    assert {tuple(rows.tolist()) for rows in drawn if rows is not None} == {(0, 3), (1, 4), (2, 5)}
    assert subject._decoded(2) is not None  # a sequence shorter than that has one row all the same
    before = copied(subject.agent.model.decoder.state_dict())
    subject.update(batch())
    assert not same(subject.agent.model.decoder.state_dict(), before)
    state = subject.generator.get_state()
    assert learner()._decoded(7) is None
    assert torch.equal(subject.generator.get_state(), state)


@pytest.mark.parametrize("part", ["reward", "cost", "action"])
def test_learning_goes_on_after_a_broken_batch(part: str) -> None:
    subject = learner()
    subject.update(batch())
    subject.update(broken(part))
    skipped = subject.skipped_steps
    assert skipped > 0
    for seed in range(2):
        before = {name: copied(getattr(subject.agent, name).state_dict()) for name in ("model", "actor", "cost_critic")}
        metrics = subject.update(batch(seed))
        assert all(torch.isfinite(value) for value in metrics.values())
        for name, tensors in before.items():
            assert not same(getattr(subject.agent, name).state_dict(), tensors), f"{name} stands still"
    assert subject.skipped_steps == skipped
    assert finite(subject)


def test_8_a_time_limit_changes_no_target_and_a_terminal_state_does() -> None:
    # As the learner itself hands the flags on: only reachability may look at is_last, since nothing is known after it.
    def update(**ends: Tensor) -> dict[str, Tensor]:
        subject = learner()
        stir(subject.agent)
        flags: Any = {name: rows.clone() for name, rows in ends.items()}
        return subject.update(batch(**flags))

    last_row = torch.zeros(B, T, dtype=torch.bool)
    last_row[:, 3] = True
    base, limit, end = update(), update(is_last=last_row), update(is_last=last_row, is_terminal=last_row)
    for name in ("model/proceed", "critic/q_reward", "critic/q_cost"):
        assert limit[name] == base[name], name
        assert end[name] != base[name], name


def test_a_large_gradient_is_clipped() -> None:
    norms = []
    for clip in (1e9, 1e-3):
        subject = learner(optimiser=OptimiserConfig(clip=clip))
        seen: list[float] = []
        optimiser = subject.optimisers["model"]

        def record(*_: object, seen: list[float] = seen, subject: Learner = subject) -> None:
            gradients = [p.grad.flatten() for p in subject.groups["model"] if p.grad is not None]
            seen.append(float(torch.cat(gradients).norm()))

        optimiser.register_step_pre_hook(record)
        metrics = subject.update(batch())
        norms.append((seen[0], float(metrics["model/grad_norm"])))
    assert norms[0][0] == pytest.approx(norms[0][1], rel=1e-4)
    assert norms[1][0] == pytest.approx(1e-3, rel=1e-3) and norms[1][1] == pytest.approx(norms[0][1], rel=1e-4)


def test_scaled_rates_are_shares_of_the_configured_ones() -> None:
    subject, whole = learner(), learner()
    subject.scale_rates(0.5)
    subject.scale_rates(0.0)
    before = copied(dict(subject.agent.model.named_parameters()))
    subject.update(batch())
    assert same(dict(subject.agent.model.named_parameters()), before)
    subject.scale_rates(1.0)
    rates = [[g["lr"] for o in made.optimisers.values() for g in o.param_groups] for made in (subject, whole)]
    assert rates[0] == rates[1]


def test_updates_depend_on_seed_and_batches_alone() -> None:
    runs = []
    for noise in (1, 2):
        subject = learner()
        torch.manual_seed(noise)  # the global generator is nobody's
        for seed in range(3):
            subject.update(batch(seed))
        runs.append(subject.weights())
    assert same(*runs)
    other = Learner(agent(), OptimiserConfig(), seed=1)
    for seed in range(3):
        other.update(batch(seed))
    assert not same(runs[0], other.weights())


def test_an_update_changes_no_batch() -> None:
    data = batch()
    before = copied({name: value for name, value in vars(data).items() if name != "images"} | data.images)
    learner().update(data)
    assert same({name: value for name, value in vars(data).items() if name != "images"} | data.images, before)


def test_metrics_are_detached_numbers() -> None:
    metrics = learner().update(batch())
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())
    rooms = {name.split("/")[0] for name in metrics}
    assert {"model", "critic", "actor", "constraint", "reach"} <= rooms


def test_the_losses_fall_on_a_batch_that_is_seen_again_and_again() -> None:
    subject = learner(optimiser=OptimiserConfig(model_rate=3e-3, critic_rate=3e-3, actor_rate=3e-3))
    data = batch()
    history = [subject.update(data) for _ in range(40)]
    for name in ("model/image", "model/reward", "model/cost", "critic/q_reward", "critic/q_cost", "critic/reach"):
        early = sum(float(row[name]) for row in history[:4])
        late = sum(float(row[name]) for row in history[-4:])
        assert late < 0.95 * early, name


def test_the_policy_that_acts_is_the_average_of_the_trained_one() -> None:
    subject = learner(average=0.25)
    expected = copied(subject.agent.actor.state_dict())
    for seed in range(3):
        subject.update(batch(seed))
        trained = subject.agent.actor.state_dict()
        expected = {name: torch.lerp(tensor, trained[name], 0.25) for name, tensor in expected.items()}
    assert subject.agent.policy is subject.agent.average_actor
    for name, tensor in subject.agent.policy.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])
    subject.agent.expand()  # fine-tuning starts from the policy that acted, not from the one that was trained
    for actor in (subject.agent.offline_actor, subject.agent.actor):
        assert actor is not None and same(actor.state_dict(), subject.agent.policy.state_dict())
    assert learner().agent.average_actor is None and learner().agent.policy is not None


def test_imagination_rolls_out_the_trained_policy() -> None:
    subject = agent(explore_first=0.0)
    stir(subject, size=0.3)
    subject.expand()
    start = subject.model.rssm.initial(4)
    base = dream(subject, start, generator())
    assert subject.offline_actor is not None
    stir(subject.offline_actor, seed=1)
    assert torch.equal(dream(subject, start, generator()).action, base.action)
    stir(subject.actor, seed=2)
    assert not torch.equal(dream(subject, start, generator()).action, base.action)


def test_what_is_dreamt_is_what_the_heads_say() -> None:
    subject = agent(horizon=3)
    stir(subject)
    start = subject.model.rssm.initial(4)
    dreamt = dream(subject, start, generator())
    assert dreamt.features.values.shape == (4, 4, MODEL.deter + MODEL.groups * MODEL.classes)
    assert dreamt.action.shape == (3, 4, 2) and dreamt.action.abs().max() <= 1
    assert not dreamt.features.values.requires_grad and not dreamt.action.requires_grad
    torch.testing.assert_close(dreamt.reward, subject.model.reward(dreamt.features).detach())
    torch.testing.assert_close(dreamt.cost, subject.model.cost(dreamt.features).detach())
    torch.testing.assert_close(dreamt.proceed, subject.model.continues(dreamt.features).detach())


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.5, 50), (1.0, 100)])
def test_a_share_of_the_starts_tries_any_first_action(share: float, count: int) -> None:
    subject = agent(explore_first=share, horizon=2)
    torch.nn.init.constant_(subject.actor.net.out.bias, -50.0)  # the policy itself: mean -1 and the least spread
    dreamt = dream(subject, subject.model.rssm.initial(100), generator())
    tried = (dreamt.action > -0.5).any(-1)  # (H, N)
    assert not tried[1].any()
    assert tried[0].sum().item() == pytest.approx(count * (1 - 0.25**2), abs=8)


def test_what_follows_an_end_weighs_nothing() -> None:
    dreamt = dream(agent(horizon=3), agent().model.rssm.initial(2), generator())
    proceed = torch.tensor([[1.0, 1.0], [0.5, 1.0], [0.0, 1.0], [1.0, 1.0]])
    ended = replace(dreamt, proceed=proceed)
    assert ended.alive.tolist() == [[1.0, 1.0], [0.5, 1.0], [0.0, 1.0]]


def test_imagination_starts_at_no_terminal_state() -> None:
    subject = learner()
    is_terminal = torch.zeros(B, T, dtype=torch.bool)
    is_terminal[:, -1] = True
    latents = Latent(torch.arange(B * T, dtype=torch.float32).view(B, T, 1), torch.zeros(B, T, 1, 1))
    subject.agent.config = replace(subject.agent.config, starts=100)
    started = subject._starts(latents, batch(is_terminal=is_terminal)).h.flatten().sort().values
    assert started.tolist() == [float(i) for i in range(B * T) if i % T != T - 1]


def test_the_constraint_hears_only_of_actions_that_the_policy_chose() -> None:
    subject = learner(horizon=2)
    dreamt = dream(subject.agent, subject.agent.model.rssm.initial(2), generator())
    cost = torch.tensor([[9.0, 9.0], [9.0, 1.0], [9.0, 3.0]])
    told = replace(dreamt, cost=cost, exploring=torch.tensor([True, False]))
    assert subject._cost_per_episode(told).item() == pytest.approx(2.0 * subject.agent.steps_per_episode)
