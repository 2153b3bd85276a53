"""Behaviour cloning: the policy maximises the plain log-likelihood of the log's actions, whatever they earned or cost.

Everything else (images, recurrent features, network, optimiser) is that of the agent, so that a comparison shows what the
critics, the reachability estimate and the constraint add. With ``frozen_model`` the features come from a world model that
is trained already; otherwise it is trained alongside.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fosp.agent.actor import likelihood_loss
from fosp.agent.agent import Learner, stack_cameras
from fosp.nets.distributions import gumbel
from fosp.types import Batch
from fosp.world_model import Latent


class CloningLearner(Learner):
    def __init__(self, *args: Any, frozen_model: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.frozen_model = frozen_model

    def update(self, batch: Batch) -> dict[str, Tensor]:
        if not self.frozen_model:
            return super().update(batch)
        model = self.agent.model
        noise = gumbel((*batch.reward.shape, model.config.groups, model.config.classes), self.generator, self.device)
        with torch.no_grad(), self.autocast():
            latents, _, _ = model.observe(model.encode(stack_cameras(batch)), batch.action, batch.is_first, noise)
        metrics = self._update_behaviour(latents, batch)
        self.updates += 1
        return metrics

    def _update_behaviour(self, latents: Latent, batch: Batch) -> dict[str, Tensor]:
        pairs = latents.features[:, :-1].flatten(0, 1)
        mask = 1.0 - batch.is_first[:, 1:].float().flatten()
        with self.autocast():
            loss = likelihood_loss(self.agent.actor, pairs, batch.action[:, :-1].flatten(0, 1), mask).mean()
        return {"actor/likelihood": loss.detach(), "actor/grad_norm": self._step("actor", loss)}
