"""What acting asks of an agent's networks, twice: from the modules as they are, or from weights laid out for it.

One observation to one action is a product of a vector with each weight matrix, so its time is the reading of weights
and the launching of operations. ``LaidOut`` needs a fraction of both and computes the same numbers in another order:

* z is one-hot, so its product with a matrix is a sum of S of its rows;
* heads that look at the same state share one product as their first layer and one batched product for each further;
* the logarithm of mixed probabilities has its maximum where the logits have theirs;
* a convolution over a few pixels is one product with its weights in a row, the first with the scale of images in them;
* functions are called instead of modules, which take as long as a small operation to be called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fosp.agent.agent import Agent
from fosp.nets.layers import MLP, EnsembleMLP
from fosp.world_model import Latent
from fosp.world_model.vision import Convolution, ImageNorm, Patches, Reduce


@dataclass(frozen=True)
class Reading:
    """What the heads say of n states."""

    mean: Tensor  # (n, policies, A): of the frozen policy if there is one, and of the trained
    std: Tensor
    probability: Tensor  # of a violation ahead, (n,)
    judge: Callable[[Tensor], tuple[Tensor, Tensor]]  # actions (n, k, A) -> Q of reward and of cost, (n, k) each


class Acting(Protocol):
    def observe(self, latent: Latent, action: Tensor, images: Tensor) -> Latent:
        """The states after ``action`` (n, A), once ``images``, uint8 (n, W, W, C), are seen. Latent (n, ...)."""
        ...

    def read(self, latent: Latent) -> Reading: ...


class Plain:
    """Asks the agent's modules: the reference, and what an agent that goes on learning needs."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    def observe(self, latent: Latent, action: Tensor, images: Tensor) -> Latent:
        model = self.agent.model
        seen = model.rssm.post_image(model.encode(images))
        return model.rssm.observe_step(latent, action, seen, noise=None)[0]

    def read(self, latent: Latent) -> Reading:
        agent, features = self.agent, latent.features  # (n, F)

        def judge(actions: Tensor) -> tuple[Tensor, Tensor]:
            pairs, shape = (features.repeat_interleave(actions.shape[1], 0), actions.flatten(0, 1)), actions.shape[:2]
            return agent.reward_critic.q_value(*pairs).view(shape), agent.cost_critic.q_value(*pairs).view(shape)

        policies = [actor(features) for actor in (agent.offline_actor, agent.policy) if actor is not None]
        mean, std = (torch.stack(said, 1) for said in zip(*policies, strict=True))
        return Reading(mean, std, agent.reachability.probability(features), judge)


class LaidOut:
    """Asks copies of the weights. What the agent learns later it does not know."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        rssm, encoder = agent.model.rssm, agent.model.encoder
        kinds: dict[type, Callable[[Any], Callable[[Tensor], Tensor]]] = {  # images have channels last throughout
            Convolution: lambda layer: _Convolution(layer.conv, 1 / 255, 127.5),  # as ``centre_pixels``
            Patches: lambda layer: lambda images: layer(images).permute(0, 2, 3, 1),
            ImageNorm: lambda layer: _Norm(layer.norm), nn.SiLU: lambda layer: _silu, Reduce: _Convolution,
        }  # fmt: skip
        self._encoder = [kinds[type(layer)](layer) for layer in (encoder.stem, *encoder.layers)]
        norms: tuple[Any, ...] = rssm.inputs[1], rssm.cell.norm, rssm.post_out[0]
        linears: tuple[Any, ...] = rssm.cell.gates, rssm.post_memory, rssm.post_image, rssm.post_out[2]
        self._norm_in, self._norm_gates, self._norm_out = map(_Norm, norms)
        self._gates, self._memory, image, self._out = (linear.weight.detach().T for linear in linears)
        self._out_bias = linears[-1].bias.detach()
        side = encoder.END  # embeddings have channels first, which are last here
        # A product of one row with a matrix is quicker where the latter's columns lie in one piece.
        self._image = image.unflatten(0, (-1, side, side)).permute(3, 1, 2, 0).flatten(1).contiguous().T
        self._groups, self._classes, size = rssm.groups, rssm.classes, rssm.groups * rssm.classes
        device = rssm.post_image.weight.device
        self._offset = torch.arange(0, size, rssm.classes, device=device)  # (S,), the row of each group's class 0
        inputs = rssm.inputs[0]
        assert isinstance(inputs, nn.Linear)
        first = inputs.weight.detach().T  # (S * K + A, units)
        self._input_z, self._input_action = first[:size].contiguous(), first[size:].contiguous()

        actors = [actor for actor in (agent.offline_actor, agent.policy) if actor is not None]
        self._small = _Stack.of([*(actor.net for actor in actors), agent.reachability.head])
        self._critics = _Stack.of([agent.reward_critic.q, agent.cost_critic.q])
        self._actors, self._units = len(actors), agent.config.units
        size, stacks = agent.model.feature_size, (self._small, self._critics)
        both = torch.cat([_side_by_side(stack.weights[0][:, :size]) for stack in stacks], 1)  # (F, heads * units)
        self._first_h, self._first_z = both[: rssm.deter].contiguous(), both[rssm.deter :].contiguous()
        self._first_action = _side_by_side(self._critics.weights[0][:, size:])  # (A, 2M * units)

    def observe(self, latent: Latent, action: Tensor, images: Tensor) -> Latent:
        seen = images
        for layer in self._encoder:
            seen = layer(seen)
        x = torch.addmm(self._times_z(latent.z, self._input_z), action, self._input_action)
        gates = self._norm_gates(torch.cat([_silu(self._norm_in(x)), latent.h], -1) @ self._gates)
        reset, candidate, update = gates.chunk(3, -1)  # as in GRUCell
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        h = torch.lerp(latent.h, candidate, torch.sigmoid(update - 1.0))
        hidden = _silu(self._norm_out(torch.addmm(h @ self._memory, seen.flatten(1), self._image)))
        logits = torch.addmm(self._out_bias, hidden, self._out).view(-1, self._groups, self._classes)
        z = torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
        return Latent(h, z)

    def read(self, latent: Latent) -> Reading:
        first = torch.addmm(self._times_z(latent.z, self._first_z), latent.h, self._first_h)  # (n, heads * units)
        small, critics = first.tensor_split([self._small.heads * self._units], 1)
        out = self._small(small.unflatten(1, (-1, self._units)).transpose(0, 1))  # (heads, n, 2A)
        actor = self.agent.policy
        mean, std = actor.distribution(out[: self._actors].transpose(0, 1))
        probability = torch.sigmoid(out[-1, :, 0])

        def judge(actions: Tensor) -> tuple[Tensor, Tensor]:
            pairs = critics.unsqueeze(1) + actions @ self._first_action  # (n, k, 2M * units)
            logits = self._critics(pairs.view(-1, self._critics.heads, self._units).transpose(0, 1))
            agent, shape = self.agent, actions.shape[:2]
            reward, cost = agent.reward_critic.twohot.mean(logits).chunk(2)  # (M, n * k) each; both have the same bins
            return agent.reward_critic.worst_value(reward).view(shape), agent.cost_critic.worst_value(cost).view(shape)

        return Reading(mean, std, probability, judge)

    def _times_z(self, z: Tensor, rows: Tensor) -> Tensor:
        """One-hot z (n, S, K), or zeros before the first step, times ``rows`` (S * K, ...) -> (n, ...)."""
        hot, index = z.max(-1)  # (n, S)
        index, bags = (index + self._offset).flatten(), torch.arange(0, hot.numel(), self._groups, device=z.device)
        return torch.embedding_bag(rows, index, bags, mode=0, per_sample_weights=hot.flatten())[0]  # 0: sums


def _silu(x: Tensor) -> Tensor:
    """In place: what comes before it is not needed again."""
    return nn.functional.silu(x, inplace=True)


class _Norm:
    """A layer norm without its module."""

    def __init__(self, layer: nn.LayerNorm) -> None:
        weight, bias = layer.weight.detach().contiguous(), layer.bias.detach().contiguous()
        self._rest = layer.normalized_shape, weight, bias, layer.eps

    def __call__(self, x: Tensor) -> Tensor:
        return torch.layer_norm(x, *self._rest)


class _Convolution:
    """Kernel 4, stride 2, padding 1, of ``scale * (x - zero)``. (n, W, W, C) -> (n, W / 2, W / 2, c).

    For few pixels the library spends most of its time on bringing the weights into an order of its own.
    """

    FEW = 2**17  # numbers in all windows; measured

    def __init__(self, layer: nn.Conv2d, scale: float = 1.0, zero: float = 0.0) -> None:
        self._weight, self._zero = layer.weight.detach() * scale, zero
        self._bias = -zero * self._weight.sum((1, 2, 3))
        self._matrix = self._weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous()  # (16 * C, c)

    def __call__(self, x: Tensor) -> Tensor:
        n, width, _, channels = x.shape
        side = width // 2
        x = nn.functional.pad(x.float(), (0, 0, 1, 1, 1, 1), value=self._zero)  # (n, W + 2, W + 2, C)
        if n * side**2 * 16 * channels > self.FEW:
            return torch.conv2d(x.permute(0, 3, 1, 2), self._weight, self._bias, 2).permute(0, 2, 3, 1)
        image, line, pixel, _ = x.stride()
        windows = x.as_strided((n, side, side, 4, 4 * channels), (image, 2 * line, 2 * pixel, line, 1))
        return torch.addmm(self._bias, windows.reshape(n * side**2, -1), self._matrix).view(n, side, side, -1)


class _Stack(NamedTuple):
    """Perceptrons of equal depth and width as one; those with fewer outputs have zeros in the columns they lack."""

    weights: list[Tensor]  # (heads, in, out) of each layer
    gains: list[Tensor]  # (heads, 1, units) of each layer norm
    offsets: list[Tensor]
    bias: Tensor  # (heads, 1, out)

    @staticmethod
    def of(nets: Sequence[MLP | EnsembleMLP]) -> _Stack:
        parts = [_layers(net) for net in nets]
        width = max(part.bias.shape[-1] for part in parts)

        def join(tensors: Sequence[Tensor]) -> Tensor:
            return torch.cat(list(tensors)).contiguous()

        def widen(tensor: Tensor) -> Tensor:
            return nn.functional.pad(tensor, (0, width - tensor.shape[-1]))

        hidden = [join(layer) for layer in zip(*(part.weights[:-1] for part in parts), strict=True)]
        return _Stack(
            [*hidden, join([widen(part.weights[-1]) for part in parts])],
            [join(layer) for layer in zip(*(part.gains for part in parts), strict=True)],
            [join(layer) for layer in zip(*(part.offsets for part in parts), strict=True)],
            join([widen(part.bias) for part in parts]),
        )

    @property
    def heads(self) -> int:
        return len(self.bias)

    def __call__(self, y: Tensor) -> Tensor:
        """(heads, n, units), the sums of the first layer -> (heads, n, out)."""
        for weight, gain, offset in zip(self.weights[1:], self.gains, self.offsets, strict=True):
            y = torch.addcmul(offset, torch.layer_norm(y, y.shape[-1:], None, None, 1e-3), gain)
            y = torch.bmm(nn.functional.silu(y), weight)
        return y + self.bias


def _layers(net: MLP | EnsembleMLP) -> _Stack:
    """The weights of a perceptron, or of several."""
    if isinstance(net, EnsembleMLP):
        weights, gains, offsets = ([t.detach() for t in part] for part in (net.weights, net.gains, net.offsets))
        return _Stack(weights, gains, offsets, net.bias.detach())
    linears = [layer for layer in net.hidden if isinstance(layer, nn.Linear)]
    norms = [layer for layer in net.hidden if isinstance(layer, nn.LayerNorm)]
    return _Stack(
        [layer.weight.detach().T[None] for layer in (*linears, net.out)],
        [norm.weight.detach()[None, None] for norm in norms],
        [norm.bias.detach()[None, None] for norm in norms],
        net.out.bias.detach()[None, None],
    )


def _side_by_side(weight: Tensor) -> Tensor:
    """(heads, in, units) -> (in, heads * units)."""
    return weight.transpose(0, 1).flatten(1)
