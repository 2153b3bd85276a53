"""The world model as verbs on latent states: encode, observe, imagine, and what its heads predict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fosp.nets.distributions import TwoHot
from fosp.nets.layers import MLP
from fosp.world_model.rssm import RSSM, Latent
from fosp.world_model.vision import ColourWhitening, Decoder, Encoder, SquaredError


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the world model. The ``paper`` preset is the reference's 26 M parameters."""

    deter: int = 256  # D
    groups: int = 16  # S
    classes: int = 16  # K
    units: int = 256
    layers: int = 2  # hidden layers of the reward, cost and continue heads
    depth: int = 16  # channels of the first convolution, doubled at every stage
    stem: int = 2  # stride of the first convolution: 2 as the reference, 4 to spend less on the largest activation
    decode_width: int = 64  # side of the reconstructed image; the image is pooled down to it
    whitening: float = 0.0  # share of colour whitening in the reconstruction target, 0..1
    unimix: float = 0.01
    bins: int = 127  # of every two-hot head
    # Weight of the cost loss where the step's cost is >= 1; 10 in the reference, which makes the cost head say more
    # than there is, and so what is imagined looks more dangerous than what was recorded.
    costly_weight: float = 1.0


class WorldModel(nn.Module):
    """Everything that predicts. ``channels`` = 3 per camera, ``width`` = side of the images in pixels."""

    def __init__(self, config: ModelConfig, channels: int, width: int, actions: int) -> None:
        super().__init__()
        self.config, self.width, self.actions = config, width, actions
        self.encoder = Encoder(channels, width, config.depth, config.stem)
        self.rssm = RSSM(
            self.encoder.size, actions, config.deter, config.groups, config.classes, config.units, config.unimix
        )
        self.feature_size = config.deter + config.groups * config.classes
        self.decoder = Decoder(self.feature_size, channels, config.decode_width, config.depth)
        self.whitening = ColourWhitening()
        self.twohot = TwoHot(config.bins)
        self.reward_head = MLP(self.feature_size, config.bins, config.units, config.layers, out_scale=0.0)
        self.cost_head = MLP(self.feature_size, config.bins, config.units, config.layers, out_scale=0.0)
        self.continue_head = MLP(self.feature_size, 1, config.units, config.layers)

    def encode(self, images: Tensor) -> Tensor:
        """uint8 (..., W, W, C) -> (..., E)."""
        return self.encoder(images.flatten(0, -4)).view(*images.shape[:-3], -1)

    def reconstruction_target(self, images: Tensor) -> Tensor:
        """uint8 (N, W, W, C) -> what the decoder should say, float32 (N, w, w, C) with w = decode_width."""
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 blurs the pale tints of a bright floor
            small = self._pooled(images)
            return self.whitening(small) if self.config.whitening else small.sub_(0.5)

    def _pooled(self, images: Tensor) -> Tensor:
        """uint8 (N, W, W, C) -> [0, 1], (N, w, w, C)."""
        cells, side = self.config.decode_width, self.width // self.config.decode_width
        if side == 1:
            return images.float().mul_(1 / 255)
        n, _, _, c = images.shape
        # Rows first, in whole lines, then the neighbours within a line as a product: strided sums over bytes are slow.
        lines = images.view(n, cells, side, -1).sum(2, dtype=torch.int16)
        pool = torch.eye(c, device=images.device).repeat(side, 1) / (255 * side**2)  # (side * C, C)
        return (lines.float().view(-1, side * c) @ pool).view(n, cells, cells, c)

    def decode_raw(self, features: Tensor) -> Tensor:
        """(N, F) -> in the space of the target, (N, w, w, C)."""
        return self.decoder(features).permute(0, 2, 3, 1)

    def image_error(self, features: Tensor, images: Tensor) -> Tensor:
        """Squared error of the reconstruction, summed over each image. (N, F), uint8 (N, W, W, C) -> (N,).

        An error summed over a pooled image stands for (W / w)^2 pixels each.
        """
        said = self.decode_raw(features)
        if torch.compiler.is_compiling():  # a compiler makes one pass of it by itself, and knows no such function
            error = (said.float() - self.reconstruction_target(images)).square().sum((1, 2, 3))
        else:
            error = SquaredError.apply(said, lambda rows: self.reconstruction_target(images[rows]))
        return error * (self.width / self.config.decode_width) ** 2

    def decode(self, features: Tensor) -> Tensor:
        """(N, F) -> colours in [0, 1], (N, w, w, C)."""
        out = self.decode_raw(features).float()
        return self.whitening.undo(out) if self.config.whitening else (out + 0.5).clamp(0, 1)

    def observe(
        self, embedding: Tensor, action: Tensor, is_first: Tensor, noise: Tensor
    ) -> tuple[Latent, Tensor, Tensor]:
        return self.rssm.observe(embedding, action, is_first, noise)

    def imagine(
        self, start: Latent, choose: Callable[[Tensor, int], Tensor], steps: int, noise: Tensor | None
    ) -> tuple[Latent, Tensor]:
        """Roll out without seeing. ``choose(features (N, F), k)`` gives the k-th action (N, A).

        start (N, ...), Gumbel noise (steps, N, S, K) or None -> states (steps + 1, N, ...) with the start in front,
        actions (steps, N, A).
        """
        states, actions = [start], []
        for k in range(steps):
            actions.append(choose(states[-1].features, k))
            states.append(self.rssm.imagine_step(states[-1], actions[-1], None if noise is None else noise[k]))
        latents = Latent(torch.stack([s.h for s in states]), torch.stack([s.z for s in states]))
        return latents, torch.stack(actions)

    def reward(self, features: Tensor) -> Tensor:
        """Reward that arrived with the state. (..., F) -> (...)."""
        return self.twohot.mean(self.reward_head(features))

    def cost(self, features: Tensor) -> Tensor:
        """Cost that arrived with the state. (..., F) -> (...)."""
        return self.twohot.mean(self.cost_head(features))

    def continues(self, features: Tensor) -> Tensor:
        """Probability that the state is not terminal. (..., F) -> (...)."""
        return torch.sigmoid(self.continue_head(features).float().squeeze(-1))
