"""The losses of the world model: what each says at hand-made predictions, and which row it speaks of."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import pytest
import torch
from builders import WIDTH, B, T, batch, flags, images, noise, stir, world_model
from torch import Tensor, nn

from fosp.types import Batch
from fosp.world_model import Latent, ModelScales, WorldModel, ahead_loss, model_loss
from fosp.world_model.loss import weighted_sum


def losses_of(model: WorldModel, data: Batch) -> tuple[dict[str, Tensor], Latent]:
    size, rows = data.reward.shape
    return model_loss(
        model, images(data), data.action, data.reward, data.cost, data.is_first, data.is_terminal, noise(size, rows)
    )


def foreseen(model: WorldModel, latents: Latent, data: Batch, rows: list[int], steps: int) -> dict[str, Tensor]:
    fields = (data.action, data.reward, data.cost, data.is_first)
    return ahead_loss(model, latents, *fields, torch.tensor(rows), noise(steps, len(rows)))


@pytest.fixture
def model() -> WorldModel:
    model = world_model()
    stir(model)
    return model


def test_every_loss_has_a_scale_and_a_number_for_each_row(model: WorldModel) -> None:
    losses, latents = losses_of(model, batch())
    ahead = foreseen(model, latents, batch(), rows=[0, T], steps=3)
    assert losses.keys() | ahead.keys() == asdict(ModelScales()).keys()
    assert all(loss.shape == (B, T) and torch.isfinite(loss).all() for loss in losses.values())
    assert all(loss.shape == (3, 2) and torch.isfinite(loss).all() for loss in ahead.values())
    assert latents.h.requires_grad  # whoever takes them as constants has to say so


def test_of_some_rows_only_the_image_loss_is_what_it_is_of_all(model: WorldModel) -> None:
    data, chosen = batch(), torch.tensor([1, 4])
    size, rows = data.reward.shape
    fields = data.action, data.reward, data.cost, data.is_first, data.is_terminal, noise(size, rows)
    everything, some = (model_loss(model, images(data), *fields, which)[0] for which in (None, chosen))
    torch.testing.assert_close(some.pop("image"), everything.pop("image")[:, chosen])
    torch.testing.assert_close(some, everything)


def test_weighted_sum_by_hand_and_with_a_name_missing() -> None:
    losses = {"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([10.0])}
    assert weighted_sum(losses, {"a": 0.5, "b": 2.0}).item() == pytest.approx(21.0)
    for scales in ({"a": 1.0}, {"a": 1.0, "b": 1.0, "c": 1.0}):
        with pytest.raises(KeyError, match="scales"):
            weighted_sum(losses, scales)


def test_8_a_time_limit_yields_continue_1(model: WorldModel) -> None:
    # Row 3 ends one episode by its time limit, row 5 ends another by a terminal state.
    data = batch(size=1, is_last=flags(T, 3, 5), is_first=flags(T, 4), is_terminal=flags(T, 5))
    nn.init.zeros_(model.continue_head.out.weight)
    nn.init.constant_(model.continue_head.out.bias, 5.0)  # says "goes on" everywhere
    losses, latents = losses_of(model, data)
    right, wrong = -math.log(1 / (1 + math.exp(-5))), 5 - math.log(1 / (1 + math.exp(-5)))
    torch.testing.assert_close(losses["proceed"], torch.tensor([[right] * 5 + [wrong]]))
    assert model.continues(latents.features).min() > 0.99


def test_8_a_model_trained_on_time_limits_says_that_they_continue() -> None:
    model = world_model()
    data = batch(size=2, is_last=torch.cat([flags(T, 5)] * 2), is_terminal=torch.cat([flags(T), flags(T, 5)]))
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        losses, latents = losses_of(model, data)
        optimiser.zero_grad()
        losses["proceed"].mean().backward()
        optimiser.step()
    proceed = model.continues(latents.features).detach()
    assert proceed[0].min() > 0.8 and proceed[1, :5].min() > 0.8  # the time limit is row 5 of the first sequence
    assert proceed[1, 5] < 0.2


@pytest.mark.parametrize("weight", [1.0, 10.0])
def test_rows_with_a_violated_frame_have_a_weight_of_their_own(weight: float) -> None:
    model = world_model(costly_weight=weight)
    stir(model)
    cost = torch.tensor([[0.0, 0.5, 1.0, 4.0, 0.0, 0.0]])
    losses, latents = losses_of(model, batch(size=1, cost=cost))
    plain = model.twohot.loss(model.cost_head(latents.features), cost)
    torch.testing.assert_close(losses["cost"] / plain, torch.tensor([[1.0, 1.0, weight, weight, 1.0, 1.0]]))


@pytest.mark.parametrize("decode_width", [8, 16])
def test_image_loss_counts_every_pixel_that_was_seen(decode_width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Predictions that are off by 0.1 everywhere cost 0.01 for each channel of each pixel, pooled or not.
    model = world_model(decode_width=decode_width)
    data = batch()
    target = model.reconstruction_target(images(data).flatten(0, 1))
    monkeypatch.setattr(model, "decode_raw", lambda features: target + 0.1)
    losses, _ = losses_of(model, data)
    torch.testing.assert_close(losses["image"], torch.full((B, T), 0.01 * WIDTH * WIDTH * 6), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["image", "reward", "cost", "proceed"])
def test_each_row_is_predicted_from_its_own_state(
    model: WorldModel, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[Tensor] = []

    def encode(data: Tensor) -> Tensor:
        embedded.append(type(model).encode(model, data).detach().requires_grad_())
        return embedded[-1]

    monkeypatch.setattr(model, "encode", encode)
    losses, _ = losses_of(model, batch(size=1))
    (gradient,) = torch.autograd.grad(losses[name][0, 2], embedded[-1])
    assert gradient[0, 2].abs().max() > 0
    assert torch.equal(gradient[0, 3:], torch.zeros_like(gradient[0, 3:]))


def test_free_nats_stop_the_gradient_of_a_small_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    model = world_model()
    with torch.no_grad():  # posterior and prior both uniform
        for layer in (model.rssm.post_out[-1], model.rssm.prior.out):
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    losses, _ = losses_of(model, batch())
    for name in ("kl_dynamics", "kl_representation"):
        assert torch.equal(losses[name], torch.ones(B, T))
        total, parameters = losses[name].sum(), list(model.parameters())
        gradients = torch.autograd.grad(total, parameters, allow_unused=True, retain_graph=True)
        assert all(gradient is None or not gradient.any() for gradient in gradients)


def test_both_divergences_are_of_the_posterior_from_the_prior(model: WorldModel) -> None:
    data = batch()
    losses, latents = losses_of(model, data)
    embedding = model.encode(images(data))
    _, post, prior = model.observe(embedding, data.action, data.is_first, noise())
    kl = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=post), torch.distributions.Categorical(logits=prior)
    ).sum(-1)
    assert kl.max() > 1  # else there is nothing to see
    for name in ("kl_dynamics", "kl_representation"):
        torch.testing.assert_close(losses[name], kl.clamp(min=1.0))


def test_loss_changes_no_input(model: WorldModel) -> None:
    data = batch()
    parts: dict[str, Any] = {**data.images, "action": data.action, "reward": data.reward, "cost": data.cost}
    before = {name: tensor.clone() for name, tensor in parts.items()}
    losses_of(model, data)
    assert all(torch.equal(parts[name], before[name]) for name in parts)


def test_what_is_foreseen_is_compared_with_the_row_it_speaks_of(monkeypatch: pytest.MonkeyPatch) -> None:
    # A world that remembers the sum of all first actions, where the reward is that sum and the loss is the difference.
    model = world_model()
    model.reward_head = model.cost_head = nn.Identity()  # type: ignore[assignment]

    def step(latent: Latent, action: Tensor, drawn: Tensor) -> Latent:
        return Latent(latent.h + action[:, :1], latent.z)

    model.rssm.by_hand = False  # one step after the other
    monkeypatch.setattr(model.rssm, "imagine_step", step)
    monkeypatch.setattr(model.twohot, "loss", lambda features, target: features[..., 0] - target)
    action = torch.zeros(1, T, 2)
    action[0, :, 0] = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    reward, cost = torch.arange(T, dtype=torch.float32).view(1, T), torch.full((1, T), 0.5)
    latents = Latent(torch.full((1, T, 1), 100.0), torch.zeros(1, T, 1, 1))
    data = batch(size=1, action=action, reward=reward, cost=cost)
    losses = foreseen(model, latents, data, rows=[1, 2], steps=3)
    assert losses["reward_ahead"].T.tolist() == [[102 - 2, 106 - 3, 114 - 4], [104 - 3, 112 - 4, 128 - 5]]
    assert losses["cost_ahead"].T.tolist() == [[101.5, 105.5, 113.5], [103.5, 111.5, 127.5]]
    cut = foreseen(model, latents, batch(size=1, action=action, reward=reward, is_first=flags(T, 3)), [1, 3], 2)
    assert cut["reward_ahead"].T.tolist() == [[100.0, 0.0], [108 - 4, 124 - 5]]  # row 3 begins another episode
    assert not foreseen(model, latents, data, rows=[], steps=0)["reward_ahead"].any()
