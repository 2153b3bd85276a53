"""Recurrent state-space model: deterministic memory h and categorical state z (arXiv 2010.02193, 2301.04104)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fosp.nets.distributions import mix_uniform, straight_through
from fosp.nets.layers import MLP, GRUCell
from fosp.world_model.filtering import Filter


class Latent(NamedTuple):
    """One state, or any stack of them."""

    h: Tensor  # float32 (..., D)
    z: Tensor  # float32 (..., S, K), one-hot

    @property
    def features(self) -> Tensor:
        """(..., F)"""
        return torch.cat([self.h, self.z.flatten(-2)], -1)

    def __getitem__(self, index) -> Latent:  # type: ignore[override]  # rows, not fields: the fields have names
        return Latent(self.h[index], self.z[index])

    def detach(self) -> Latent:
        return Latent(self.h.detach(), self.z.detach())

    def flatten(self) -> Latent:
        """(B, T, ...) -> (B * T, ...)."""
        return Latent(self.h.flatten(0, 1), self.z.flatten(0, 1))


class RSSM(nn.Module):
    def __init__(
        self, embedding: int, actions: int, deter: int, groups: int, classes: int, units: int, unimix: float
    ) -> None:
        super().__init__()
        self.groups, self.classes, self.deter, self.unimix = groups, classes, deter, unimix
        self.by_hand = True  # on a processor, filter with the gradient that ``filtering`` writes out
        self.inputs = nn.Sequential(
            nn.Linear(groups * classes + actions, units, bias=False), nn.LayerNorm(units, eps=1e-3), nn.SiLU()
        )
        self.cell = GRUCell(units, deter)
        self.prior = MLP(deter, groups * classes, units, 1)
        # The posterior's first layer is split by its inputs, so that the part that sees images runs once for all T.
        self.post_image = nn.Linear(embedding, units, bias=False)
        self.post_memory = nn.Linear(deter, units, bias=False)
        self.post_out = nn.Sequential(nn.LayerNorm(units, eps=1e-3), nn.SiLU(), nn.Linear(units, groups * classes))

    def initial(self, batch: int, device: torch.device | str = "cpu") -> Latent:
        h = torch.zeros(batch, self.deter, device=device)
        return Latent(h, torch.zeros(batch, self.groups, self.classes, device=device))

    def advance(self, latent: Latent, action: Tensor) -> Tensor:
        """Memory after an action. Latent (N, ...), (N, A) -> h (N, D)."""
        return self.cell(self.inputs(torch.cat([latent.z.flatten(-2), action], -1)), latent.h)

    def prior_log_probs(self, h: Tensor) -> Tensor:
        """(..., D) -> (..., S, K)."""
        logits = self.prior(h)
        return mix_uniform(logits.view(*logits.shape[:-1], self.groups, self.classes), self.unimix)

    def posterior_log_probs(self, h: Tensor, seen: Tensor) -> Tensor:
        """(N, D), (N, units) from ``post_image`` -> (N, S, K)."""
        logits = self.post_out(self.post_memory(h) + seen)
        return mix_uniform(logits.view(*logits.shape[:-1], self.groups, self.classes), self.unimix)

    def imagine_step(self, latent: Latent, action: Tensor, noise: Tensor | None) -> Latent:
        """The next state without seeing it. Latent (N, ...), (N, A), Gumbel noise (N, S, K) or None for the mode."""
        h = self.advance(latent, action)
        return Latent(h, straight_through(self.prior_log_probs(h), noise))

    def observe_step(self, latent: Latent, action: Tensor, seen: Tensor, noise: Tensor | None) -> tuple[Latent, Tensor]:
        """The next state after seeing it; also its log-probabilities (N, S, K)."""
        h = self.advance(latent, action)
        log_probs = self.posterior_log_probs(h, seen)
        return Latent(h, straight_through(log_probs, noise)), log_probs

    def observe(
        self, embedding: Tensor, action: Tensor, is_first: Tensor, noise: Tensor
    ) -> tuple[Latent, Tensor, Tensor]:
        """Filter sequences. The state of row t has seen o_t and the action a_{t-1} of the row before.

        embedding (B, T, E), action (B, T, A), is_first (B, T), Gumbel noise (B, T, S, K)
        -> posterior states (B, T, ...), posterior and prior log-probabilities (B, T, S, K).
        Nothing crosses a row with is_first, nor the start of the sequence: state and action before it are zero.
        """
        batch, time = is_first.shape
        seen = self.post_image(embedding)  # (B, T, units)
        going = 1.0 - is_first.float()  # (B, T)
        if self.by_hand and seen.is_cpu:
            latents, posts = self._filter(seen, action, going, noise)
            return latents, posts, self.prior_log_probs(latents.h)
        latent = self.initial(batch, embedding.device)
        previous = torch.zeros_like(action[:, 0])  # (B, A)
        hs, zs, posts = [], [], []
        for t in range(time):
            keep = going[:, t, None]  # (B, 1)
            latent = Latent(latent.h * keep, latent.z * keep.unsqueeze(-1))
            latent, log_probs = self.observe_step(latent, previous * keep, seen[:, t], noise[:, t])
            previous = action[:, t]
            hs.append(latent.h)
            zs.append(latent.z)
            posts.append(log_probs)
        latents = Latent(torch.stack(hs, 1), torch.stack(zs, 1))
        return latents, torch.stack(posts, 1), self.prior_log_probs(latents.h)

    def _filter(self, seen: Tensor, action: Tensor, going: Tensor, noise: Tensor) -> tuple[Latent, Tensor]:
        """The loop of ``observe`` by ``Filter``: (B, T, units), (B, T, A), (B, T), (B, T, S, K)."""
        keep = going.unsqueeze(-1)
        before = nn.functional.pad(action[:, :-1], (0, 0, 1, 0)) * keep
        rows = [x.transpose(0, 1) for x in (seen.float(), before, keep, noise)]
        parts = (self.inputs, self.cell.gates, self.cell.norm, self.post_memory, self.post_out)
        weights = [weight for part in parts for weight in part.parameters()]
        h, z, log_probs = (x.transpose(0, 1) for x in Filter.apply(*rows, self.unimix, *weights))
        return Latent(h, z), log_probs
