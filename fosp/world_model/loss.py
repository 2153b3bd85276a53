"""What the world model is trained on: a dictionary of losses (B, T), a dictionary of scales with the same keys."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from fosp.nets.distributions import categorical_kl
from fosp.world_model.model import WorldModel
from fosp.world_model.rssm import Latent


@dataclass(frozen=True)
class ModelScales:
    """Weights of the losses; the first six are the reference's."""

    image: float = 1.0
    reward: float = 1.0
    cost: float = 1.0
    proceed: float = 1.0  # the continue head
    kl_dynamics: float = 0.5  # pulls the prior to the posterior
    kl_representation: float = 0.1  # pulls the posterior to the prior
    reward_ahead: float = 1.0  # reward and cost, foreseen over several steps without seeing
    cost_ahead: float = 1.0


FREE_NATS = 1.0


def ahead_loss(
    model: WorldModel, latents: Latent, action: Tensor, reward: Tensor, cost: Tensor, is_first: Tensor, rows: Tensor,
    noise: Tensor,
) -> dict[str, Tensor]:  # fmt: skip
    """How badly reward and cost are foreseen without seeing, which is what imagination lives on. [ours]

    The prior is otherwise trained for single steps and for what an image shows, of which reward and cost are a small
    part; over several steps they were lost. latents (B, T, ...) with gradients, action (B, T, A), the rest (B, T);
    rows (N,) = flat indices b T + t of the start rows, t + L < T; Gumbel noise (L, N, S, K).
    Returns losses (L, N) of the rows t + 1 .. t + L, zero from where another episode begins.
    """
    if not len(noise):
        return dict.fromkeys(("reward_ahead", "cost_ahead"), latents.h.new_zeros(1))
    steps = torch.arange(len(noise), device=rows.device).unsqueeze(-1)  # (L, 1)
    index = rows + steps + 1  # (L, N), of the rows that are foreseen
    states = model.rssm.foresee(latents.flatten()[rows], action.flatten(0, 1)[index - 1], noise)
    seen = states.features  # (L, N, F)
    mask = (1.0 - is_first.flatten()[index].float()).cumprod(0)  # (L, N)
    cost = cost.flatten()[index]
    return {
        "reward_ahead": mask * model.twohot.loss(model.reward_head(seen), reward.flatten()[index]),
        "cost_ahead": mask * _cost_weight(model, cost) * model.twohot.loss(model.cost_head(seen), cost),
    }


def _cost_weight(model: WorldModel, cost: Tensor) -> Tensor:
    return torch.where(cost >= 1.0, model.config.costly_weight, 1.0)


def model_loss(
    model: WorldModel, images: Tensor, action: Tensor, reward: Tensor, cost: Tensor, is_first: Tensor,
    is_terminal: Tensor, noise: Tensor, decoded: Tensor | None = None,
) -> tuple[dict[str, Tensor], Latent]:  # fmt: skip
    """Losses (B, T) by name, and the posterior states (B, T, ...), which still carry gradients.

    images uint8 (B, T, W, W, C), action (B, T, A), the rest (B, T), Gumbel noise (B, T, S, K). Every quantity of a row
    is predicted from that row's state, which has seen the row's images: no shift (types.py). ``decoded`` are the rows
    (R,) of each sequence whose images are reconstructed, None for all; the image loss is (B, R).
    """
    batch, time = reward.shape
    embedding = model.encode(images)  # (B, T, E)
    latents, post, prior = model.observe(embedding, action, is_first, noise)
    features = latents.features  # (B, T, F)
    flat = features.flatten(0, 1)  # (B * T, F)
    proceed = model.continue_head(flat).float().view(batch, time)
    # A time limit is no terminal state: only is_terminal counts, so a truncated episode is said to continue.
    going_on = 1.0 - is_terminal.float()
    shown, shown_images = (features, images) if decoded is None else (features[:, decoded], images[:, decoded])
    losses = {
        "image": model.image_error(shown.flatten(0, 1), shown_images.flatten(0, 1)).view(batch, -1),
        "reward": model.twohot.loss(model.reward_head(features), reward),
        "cost": _cost_weight(model, cost) * model.twohot.loss(model.cost_head(features), cost),
        "proceed": nn.functional.binary_cross_entropy_with_logits(proceed, going_on, reduction="none"),
        "kl_dynamics": categorical_kl(post.detach(), prior).clamp(min=FREE_NATS),
        "kl_representation": categorical_kl(post, prior.detach()).clamp(min=FREE_NATS),
    }
    return losses, latents


def weighted_sum(losses: dict[str, Tensor], scales: object) -> Tensor:
    """sum over names of scale x mean loss; the names must be equal, so that none is forgotten."""
    weights = scales if isinstance(scales, dict) else asdict(scales)  # type: ignore[call-overload]
    if losses.keys() != weights.keys():
        raise KeyError(f"losses {sorted(losses)} but scales {sorted(weights)}")
    return torch.stack([weights[name] * loss.mean() for name, loss in losses.items()]).sum()
