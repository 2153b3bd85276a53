"""The recurrent state-space model: what a row's state has seen, and what it must not have seen."""

from __future__ import annotations

import pytest
import torch
from builders import ACTIONS, MODEL, B, T, generator, noise, stir, world_model
from torch import Tensor

from fosp.world_model import Latent, WorldModel


@pytest.fixture(params=[True, False], ids=["by hand", "autograd"])
def model(request: pytest.FixtureRequest) -> WorldModel:
    model = world_model()
    stir(model)
    model.rssm.by_hand = request.param
    return model


def sequence(model: WorldModel, size: int = B, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random embeddings (B, T, E) and actions (B, T, A)."""
    draw = generator(seed)
    embedding = torch.randn(size, T, model.encoder.size, generator=draw)
    return embedding, torch.rand(size, T, ACTIONS, generator=draw) * 2 - 1


def no_starts(size: int = B) -> Tensor:
    return torch.zeros(size, T, dtype=torch.bool)


def assert_rows(a: Latent, b: Latent, same: list[int], other: list[int]) -> None:
    """States (1, T, ...) agree in rows ``same`` and differ in rows ``other``."""
    torch.testing.assert_close(a.features[:, same], b.features[:, same])
    for row in other:
        assert not torch.allclose(a.h[:, row], b.h[:, row]), f"row {row} should differ"


def test_shapes_and_normalised_probabilities(model: WorldModel) -> None:
    latents, post, prior = model.observe(*sequence(model), no_starts(), noise())
    assert latents.h.shape == (B, T, MODEL.deter)
    assert latents.z.shape == post.shape == prior.shape == (B, T, MODEL.groups, MODEL.classes)
    assert latents.features.shape == (B, T, model.feature_size)
    for log_probs in (post, prior):
        torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(B, T, MODEL.groups))
        assert log_probs.exp().min() >= 0.99 * MODEL.unimix / MODEL.classes
    assert torch.equal(latents.z.detach().sum(-1), torch.ones(B, T, MODEL.groups))


def test_a_state_has_seen_the_action_of_the_row_before_and_none_later(model: WorldModel) -> None:
    embedding, action = sequence(model, size=1)
    base, *_ = model.observe(embedding, action, no_starts(1), noise(1))
    action[:, 2] *= -1
    changed, *_ = model.observe(embedding, action, no_starts(1), noise(1))
    assert_rows(base, changed, same=[0, 1, 2], other=[3, 4, 5])


def test_the_action_of_the_last_row_is_never_read(model: WorldModel) -> None:
    embedding, action = sequence(model, size=1)
    base, *_ = model.observe(embedding, action, no_starts(1), noise(1))
    action[:, -1] = torch.nan
    changed, *_ = model.observe(embedding, action, no_starts(1), noise(1))
    assert torch.equal(base.features, changed.features)


def test_posterior_has_seen_its_row_and_prior_has_not(model: WorldModel) -> None:
    embedding, action = sequence(model, size=1)
    _, post, prior = model.observe(embedding, action, no_starts(1), noise(1))
    embedding[:, 2] += 3.0
    _, post_after, prior_after = model.observe(embedding, action, no_starts(1), noise(1))
    torch.testing.assert_close(post[:, :2], post_after[:, :2])
    torch.testing.assert_close(prior[:, :3], prior_after[:, :3])
    assert not torch.allclose(post[:, 2], post_after[:, 2])


def test_nothing_crosses_the_start_of_an_episode(model: WorldModel) -> None:
    # Rows 3.. are a new episode: their states are those of a sequence that begins there, whatever came before.
    embedding, action = sequence(model, size=1)
    is_first = no_starts(1)
    is_first[0, 3] = True
    whole, post, prior = model.observe(embedding, action, is_first, noise(1))
    part, part_post, part_prior = model.observe(embedding[:, 3:], action[:, 3:], is_first[:, 3:], noise(1)[:, 3:])
    torch.testing.assert_close(whole.features[:, 3:], part.features)
    torch.testing.assert_close(post[:, 3:], part_post)
    torch.testing.assert_close(prior[:, 3:], part_prior)
    embedding[:, :3], action[:, :3] = embedding[:, :3] * -1, action[:, :3] * -1
    other, *_ = model.observe(embedding, action, is_first, noise(1))
    assert torch.equal(whole.features[:, 3:], other.features[:, 3:])


def test_no_gradient_crosses_the_start_of_an_episode(model: WorldModel) -> None:
    embedding, action = sequence(model, size=1)
    embedding.requires_grad_()
    is_first = no_starts(1)
    is_first[0, 3] = True
    latents, *_ = model.observe(embedding, action, is_first, noise(1))
    (gradient,) = torch.autograd.grad(latents.features[:, 3:].square().sum(), embedding)
    assert torch.equal(gradient[:, :3], torch.zeros_like(gradient[:, :3]))
    assert gradient[:, 3].abs().max() > 0


def test_the_first_row_of_a_window_is_a_start_whatever_the_log_says(model: WorldModel) -> None:
    embedding, action = sequence(model, size=1)
    marked = no_starts(1)
    marked[0, 0] = True
    a, *_ = model.observe(embedding, action, no_starts(1), noise(1))
    b, *_ = model.observe(embedding, action, marked, noise(1))
    assert torch.equal(a.features, b.features)


@pytest.mark.parametrize("start", [0, 3])
def test_other_rows_of_a_batch_do_not_move_this_row(model: WorldModel, start: int) -> None:
    embedding, action = sequence(model, size=3)
    is_first = no_starts(3)
    base, *_ = model.observe(embedding, action, is_first, noise(3))
    embedding[1:], action[1:] = embedding[1:] + 2.0, -action[1:]
    is_first[1, start] = True  # another row that begins an episode must not reset this one
    changed, *_ = model.observe(embedding, action, is_first, noise(3))
    assert torch.equal(base.features[0], changed.features[0])
    assert not torch.allclose(base.h[2], changed.h[2])


def test_filtering_a_sequence_is_filtering_step_by_step(model: WorldModel) -> None:
    # This is what a policy does while it acts.
    embedding, action = sequence(model)
    latents, post, _ = model.observe(embedding, action, no_starts(), noise())
    latent, previous = model.rssm.initial(B), torch.zeros(B, ACTIONS)
    for t in range(T):
        seen = model.rssm.post_image(embedding[:, t])
        latent, log_probs = model.rssm.observe_step(latent, previous, seen, noise()[:, t])
        previous = action[:, t]
        torch.testing.assert_close(latent.features, latents.features[:, t])
        torch.testing.assert_close(log_probs, post[:, t])


def test_gradients_pass_through_the_sampled_state(model: WorldModel) -> None:
    embedding, action = sequence(model, size=1)
    embedding.requires_grad_()
    latents, *_ = model.observe(embedding, action, no_starts(1), noise(1))
    # h of row 1 knows the image of row 0 through z only.
    (gradient,) = torch.autograd.grad(latents.h[:, 1].square().sum(), embedding)
    assert gradient[:, 0].abs().max() > 0
    assert torch.equal(gradient[:, 1:], torch.zeros_like(gradient[:, 1:]))


def test_imagination_alternates_choosing_and_stepping(model: WorldModel) -> None:
    embedding, action = sequence(model)
    latents, *_ = model.observe(embedding, action, no_starts(), noise())
    start = latents[:, -1].detach()
    steps = noise(3, B, seed=5)  # (steps, N, S, K)
    asked = []

    def choose(features: Tensor, k: int) -> Tensor:
        asked.append((k, features))
        return features[:, :ACTIONS] + k

    states, actions = model.imagine(start, choose, 3, steps)
    assert [k for k, _ in asked] == [0, 1, 2]
    assert states.h.shape == (4, B, MODEL.deter) and actions.shape == (3, B, ACTIONS)
    assert torch.equal(states.features[0], start.features)
    for k in range(3):
        assert torch.equal(asked[k][1], states[k].features)
        assert torch.equal(actions[k], states[k].features[:, :ACTIONS] + k)
        expected = model.rssm.imagine_step(states[k], actions[k], steps[k])
        assert torch.equal(states[k + 1].features, expected.features)


def test_an_imagined_step_and_an_observed_one_share_their_memory(model: WorldModel) -> None:
    start = Latent(torch.randn(B, MODEL.deter), torch.rand(B, MODEL.groups, MODEL.classes))
    action, seen = torch.rand(B, ACTIONS), torch.randn(B, MODEL.units)
    imagined = model.rssm.imagine_step(start, action, None)
    observed, _ = model.rssm.observe_step(start, action, seen, None)
    assert torch.equal(imagined.h, observed.h)
    mode = model.rssm.prior_log_probs(imagined.h).argmax(-1)
    assert torch.equal(imagined.z.argmax(-1), mode)


def test_the_written_gradient_is_that_of_autograd() -> None:
    model = world_model()
    stir(model)
    embedding, action = sequence(model)
    embedding.requires_grad_()
    is_first = no_starts()
    is_first[0, 0] = is_first[1, 2] = True
    draw = generator(1)
    found = []
    for by_hand in (False, True):
        model.rssm.by_hand = by_hand
        model.zero_grad()
        embedding.grad = None
        latents, post, prior = model.observe(embedding, action, is_first, noise())
        outputs = (latents.h, latents.z, post, prior)
        if not found:
            weights = [torch.randn(x.shape, generator=draw) for x in outputs]
        torch.stack([(x * weight).sum() for x, weight in zip(outputs, weights, strict=True)]).sum().backward()
        gradients = [x.grad for x in (embedding, *model.rssm.parameters()) if x.grad is not None]
        assert len(gradients) == 1 + len(list(model.rssm.parameters())) and all(x.any() for x in gradients)
        found.append([x.detach().clone() for x in (*outputs, *gradients)])
    for plain, written in zip(*found, strict=True):
        torch.testing.assert_close(written, plain, rtol=1e-4, atol=2e-5)


def test_under_autocast_states_and_gradients_are_float32() -> None:
    model = world_model()
    embedding, action = sequence(model)
    with torch.autocast("cpu", torch.bfloat16):
        latents, post, _ = model.observe(embedding, action, no_starts(), noise())
        latents.h.sum().backward()
    assert latents.h.dtype == latents.z.dtype == post.dtype == torch.float32
    weights = (model.rssm.cell.gates.weight, model.rssm.post_image.weight)
    assert all(weight.grad is not None and weight.grad.dtype == torch.float32 for weight in weights)
