"""What the world model sees and expects: reconstructions and open-loop predictions of recorded episodes, as images."""

from __future__ import annotations

import numpy as np
import torch

from fosp.agent.agent import Agent
from fosp.types import Episode, Schema
from fosp.world_model import Latent


@torch.inference_mode()
def open_loop(
    agent: Agent, schema: Schema, episode: Episode, context: int = 5, horizon: int = 45
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Predict an episode from its actions: see ``context`` rows, imagine the next ``horizon``, see again, and so on.

    Returns camera -> uint8 (T, W, W, 3) of decoded images, and the row (T,) from which each of them was imagined
    (the row itself where it was seen and only reconstructed).
    """
    device = next(agent.parameters()).device
    rows = len(episode)
    images = np.concatenate([episode.images[name] for name in schema.cameras], -1)  # (T, W, W, C)
    seen = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    embedding = agent.model.rssm.post_image(agent.model.encode(seen))  # (T, units)
    action = torch.from_numpy(np.array(episode.action)).to(device)  # (T, A)
    latent = agent.model.rssm.initial(1, device)
    previous = torch.zeros(1, schema.action_size, device=device)
    states, origin = [], np.zeros(rows, np.int64)
    for t in range(rows):
        phase = t % (context + horizon)
        if phase < context:
            latent, _ = agent.model.rssm.observe_step(latent, previous, embedding[t : t + 1], None)
            origin[t] = t
        else:
            latent = agent.model.rssm.imagine_step(latent, previous, None)
            origin[t] = t - phase + context
        states.append(latent)
        previous = action[t : t + 1]
    features = Latent(torch.cat([s.h for s in states]), torch.cat([s.z for s in states])).features
    decoded = agent.model.decode(features).permute(0, 3, 1, 2)  # (T, C, w, w)
    if decoded.shape[-1] != agent.model.width:
        decoded = torch.nn.functional.interpolate(decoded, size=agent.model.width, mode="bilinear")
    pixels = (decoded * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    parts = np.split(pixels, len(schema.cameras), -1)
    return dict(zip(schema.cameras, parts, strict=True)), origin
