"""Behaviour cloning: the policy maximises the plain log-likelihood of the log's actions, whatever they earned or cost.

Everything else (images, recurrent features, network, optimiser) is that of the agent, so that a comparison shows what
the critics, the reachability estimate and the constraint add.
"""

from __future__ import annotations

from torch import Tensor

from fosp.agent.actor import likelihood_loss
from fosp.agent.agent import Learner
from fosp.types import Batch
from fosp.world_model import Latent


class CloningLearner(Learner):
    def _update_behaviour(self, latents: Latent, batch: Batch) -> dict[str, Tensor]:
        pairs = latents.features[:, :-1].flatten(0, 1)
        mask = 1.0 - batch.is_first[:, 1:].float().flatten()
        with self.autocast():
            mean, std = self.agent.actor(pairs)
            loss = likelihood_loss(mean, std, batch.action[:, :-1].flatten(0, 1), mask).mean()
        return {"actor/likelihood": loss.detach(), "actor/grad_norm": self._step("actor", loss)}
