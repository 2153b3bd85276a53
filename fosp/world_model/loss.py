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


FREE_NATS = 1.0


def model_loss(
    model: WorldModel, images: Tensor, action: Tensor, reward: Tensor, cost: Tensor, is_first: Tensor,
    is_terminal: Tensor, noise: Tensor,
) -> tuple[dict[str, Tensor], Latent]:  # fmt: skip
    """Losses (B, T) by name, and the posterior states (B, T, ...), which still carry gradients.

    images uint8 (B, T, W, W, C), action (B, T, A), the rest (B, T), Gumbel noise (B, T, S, K). Every quantity of a row
    is predicted from that row's state, which has seen the row's images: no shift (types.py).
    """
    batch, time = reward.shape
    embedding = model.encode(images)  # (B, T, E)
    latents, post, prior = model.observe(embedding, action, is_first, noise)
    features = latents.features  # (B, T, F)
    flat = features.flatten(0, 1)  # (B * T, F)
    target = model.reconstruction_target(images.flatten(0, 1))
    # A squared error summed over a pooled image stands for (width / decode_width)^2 pixels each.
    pixels = (model.width / model.config.decode_width) ** 2
    error = (model.decode_raw(flat) - target).square().sum((1, 2, 3)).view(batch, time) * pixels
    cost_weight = torch.where(cost >= 1.0, model.config.costly_weight, 1.0)
    proceed = model.continue_head(flat).float().view(batch, time)
    # A time limit is no terminal state: only is_terminal counts, so a truncated episode is said to continue.
    going_on = 1.0 - is_terminal.float()
    losses = {
        "image": error,
        "reward": model.twohot.loss(model.reward_head(features), reward),
        "cost": cost_weight * model.twohot.loss(model.cost_head(features), cost),
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
