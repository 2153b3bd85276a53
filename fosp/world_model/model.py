"""The world model as verbs on latent states: encode, observe, imagine, and what its heads predict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fosp.nets.features import Features
from fosp.nets.layers import MLP
from fosp.nets.twohot import TwoHot
from fosp.world_model.pixels import ImageError
from fosp.world_model.rssm import RSSM, Latent
from fosp.world_model.vision import ColourWhitening, Decoder, Encoder, Enlarge, Reduce


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
    decode_every: int = 1  # of so many consecutive images one is reconstructed, another one in every update
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
        self.config, self.channels, self.width, self.actions = config, channels, width, actions
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

    def leave_to_autograd(self) -> None:
        """The reference: PyTorch's own products and gradients also where ours are faster on a processor."""
        self.rssm.by_hand = False
        for layer in self.modules():
            if isinstance(layer, Enlarge | Reduce):
                layer.by_phases = False

    def features(self, latents: Latent) -> Features:
        """States (..., D), (..., S, K) as networks read them; on a processor with where their ones are.

        A state before the first row is zero and has none; among such states nothing is said of any.
        """
        values, z = latents.features, latents.z.detach()
        if not self.rssm.by_hand or not z.is_cpu:
            return Features(values)
        groups, classes = z.shape[-2:]
        # A product, since arg-max over so few is slow: with 0 .. K - 1, and with ones to see that there is one.
        asked = torch.stack([torch.arange(classes, dtype=z.dtype), torch.ones(classes, dtype=z.dtype)], -1)
        with torch.autocast("cpu", enabled=False):
            place, count = (z @ asked).unbind(-1)  # (..., S) each
        if not (count == 1).all():
            return Features(values)
        begins = self.config.deter + classes * torch.arange(groups)
        return Features(values, place.long() + begins, self.config.deter)

    def encode(self, images: Tensor) -> Tensor:
        """uint8 (..., W, W, C) -> (..., E)."""
        return self.encoder(images.flatten(0, -4)).view(*images.shape[:-3], -1)

    def reconstruction_target(self, images: Tensor) -> Tensor:
        """uint8 (N, W, W, C) -> what the decoder should say, float32 (N, w, w, C) with w = decode_width."""
        cells, side = self.config.decode_width, self.width // self.config.decode_width
        if side == 1 and not self.config.whitening:  # which a compiler makes part of the error
            return images.float().mul_(1 / 255).sub_(0.5)
        matrix, offset = self.target_map()
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 blurs the pale tints of a bright floor
            # Rows first, in whole lines, then neighbours: strided sums of bytes are slow.
            lines = images.view(len(images), cells, side, -1).sum(2, dtype=torch.int16)
            means = lines.view(len(images), cells, cells, side, -1).sum(3, dtype=torch.float32).mul_(1 / side**2)
            return torch.addmm(offset, means.view(-1, 3), matrix).view(means.shape)

    def target_map(self) -> tuple[Tensor, Tensor]:
        """Of colours in 0 .. 255: a row of them times the first (3, 3) plus the second (3,) is what should be said."""
        with torch.autocast(self.whitening.mean.device.type, enabled=False):
            gain, offset = self.whitening.affine()
        return gain / 255, offset if self.config.whitening else offset - 0.5  # never fitted: colours as they are

    def decode_raw(self, features: Tensor) -> Tensor:
        """(N, F) -> in the space of the target, (N, w, w, C)."""
        return self.decoder(features).permute(0, 2, 3, 1)

    def image_error(self, features: Tensor, images: Tensor) -> Tensor:
        """Squared error of the reconstruction, summed over each image. (N, F), uint8 (N, W, W, C) -> (N,).

        An error summed over a pooled image stands for (W / w)^2 pixels each.
        """
        said = self.decode_raw(features)
        if self.rssm.by_hand and ImageError.takes(said):
            error = ImageError.apply(said, images, *self.target_map())
        else:
            error = (said.float() - self.reconstruction_target(images)).square().sum((1, 2, 3))
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

    def reward(self, features: Tensor | Features) -> Tensor:
        """Reward that arrived with the state. (..., F) -> (...)."""
        return self.twohot.mean(self.reward_head(features))

    def cost(self, features: Tensor | Features) -> Tensor:
        """Cost that arrived with the state. (..., F) -> (...)."""
        return self.twohot.mean(self.cost_head(features))

    def continues(self, features: Tensor | Features) -> Tensor:
        """Probability that the state is not terminal. (..., F) -> (...)."""
        return torch.sigmoid(self.continue_head(features).float().squeeze(-1))
