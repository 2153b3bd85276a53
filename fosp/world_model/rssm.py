"""Recurrent state-space model: deterministic memory h and categorical state z (arXiv 2010.02193, 2301.04104)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fosp.nets import native
from fosp.nets.distributions import mix_uniform, straight_through
from fosp.nets.layers import MLP, GRUCell
from fosp.world_model.recurrent import Chooser, Recurrence, Rollout, Weights, library, roll


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

    def followed_by(self, later: Latent) -> Latent:
        """(N, ...), then those of T steps (T, N, ...) -> (T + 1, N, ...)."""
        return Latent(torch.cat([self.h.unsqueeze(0), later.h]), torch.cat([self.z.unsqueeze(0), later.z]))

    def flatten(self) -> Latent:
        """(B, T, ...) -> (B * T, ...)."""
        return Latent(self.h.flatten(0, 1), self.z.flatten(0, 1))


class RSSM(nn.Module):
    def __init__(
        self, embedding: int, actions: int, deter: int, groups: int, classes: int, units: int, unimix: float
    ) -> None:
        super().__init__()
        self.groups, self.classes, self.deter, self.unimix = groups, classes, deter, unimix
        self.by_hand = True  # on a processor, what is faster than PyTorch's own products and gradients
        self.at_once = True  # of that, several steps in one call of ``recurrent``
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

    def foresee(self, start: Latent, action: Tensor, noise: Tensor, rolled: Rollout | None = None) -> Latent:
        """States after each of several actions. Latent (N, ...), (L, N, A), Gumbel noise (L, N, S, K) -> (L, N, ...).

        ``rolled`` is what ``chosen`` gave, where the steps have been computed before.
        """
        if self.runs_at_once(start.h):
            h, z, _ = Recurrence.apply(
                None,
                action,
                start.h,
                start.z,
                None,
                noise,
                self.unimix,
                True,
                native.rounds(),
                rolled,
                *self._prior_weights(),
            )
            return Latent(h, z)
        states = []
        for taken, drawn in zip(action, noise, strict=True):
            start = self.imagine_step(start, taken, drawn)
            states.append(start)
        return Latent(torch.stack([s.h for s in states]), torch.stack([s.z for s in states]))

    def chosen(self, start: Latent, chooser: Chooser, noise: Tensor) -> Rollout:
        """States after actions that a policy chooses on the way, constants; only where it ``runs_at_once``."""
        keeping = torch.is_grad_enabled()
        return roll(
            self._prior_weights(),
            noise,
            self.unimix,
            True,
            keeping,
            native.rounds(),
            start=(start.h, start.z),
            chooser=chooser,
        )

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
        if self.runs_at_once(seen):
            before = nn.functional.pad(action[:, :-1], (0, 0, 1, 0)) * going.unsqueeze(-1)
            weights = self._weights(self.post_memory, self.post_out[0], self.post_out[2])
            h, z, posts = Recurrence.apply(
                seen.float(), before, None, None, going, noise, self.unimix, False, native.rounds(), None, *weights
            )
            return Latent(h, z), posts, self.prior_log_probs(h)
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

    def runs_at_once(self, x: Tensor) -> bool:
        """Whether several steps are one call of ``recurrent``, for tensors where ``x`` is."""
        return self.by_hand and self.at_once and x.is_cpu and library() is not None

    def _weights(self, memory: nn.Module, norm: nn.Module, logits: nn.Module) -> Weights:
        """What ``recurrent`` steps with: our own layers, and those which tell of the new memory what class it is in."""
        parts = (self.inputs, self.cell.gates, self.cell.norm, memory, norm, logits)
        return Weights(*[weight for part in parts for weight in part.parameters()])

    def _prior_weights(self) -> Weights:
        return self._weights(self.prior.hidden[0], self.prior.hidden[1], self.prior.out)
