"""Behaviour cloning: likelihood of the log's actions, and nothing else of it."""

from __future__ import annotations

from dataclasses import replace

import torch
from builders import AGENT, MODEL, SCHEMA, agent, batch

from fosp.agent.agent import OptimiserConfig
from fosp.baselines.cloning import CloningLearner
from fosp.cli import wire
from fosp.presets import RunConfig
from fosp.world_model import Latent
from fosp.world_model.vision import Enlarge

OPTIMISER = OptimiserConfig(model_rate=0.0, actor_rate=3e-3)


def latents_of(learner: CloningLearner, seed: int = 0) -> Latent:
    draw, given = torch.Generator().manual_seed(seed), batch()
    model = learner.agent.model
    size = given.reward.shape
    h = torch.randn(*size, MODEL.deter, generator=draw)
    z = torch.nn.functional.one_hot(torch.randint(MODEL.classes, (*size, MODEL.groups), generator=draw), MODEL.classes)
    assert h.shape[-1] + z[0, 0].numel() == model.feature_size
    return Latent(h, z.float())


def test_the_likelihood_of_the_logs_actions_rises() -> None:
    learner = CloningLearner(agent(), OPTIMISER, 0)
    latents, given = latents_of(learner), batch()
    losses = [float(learner._update_behaviour(latents, given)["actor/likelihood"]) for _ in range(60)]
    assert losses[-1] < losses[0] - 0.3
    mean, _ = learner.agent.actor(latents.features[:, :-1])
    untrained, _ = agent().actor(latents.features[:, :-1])
    action = given.action[:, :-1]
    assert (mean - action).abs().mean() < (untrained - action).abs().mean()


def test_it_does_not_matter_what_the_actions_earned_or_cost() -> None:
    learned = []
    for scale in (0.0, 100.0):
        learner = CloningLearner(agent(), OPTIMISER, 0)
        given = batch()
        given = replace(given, reward=scale * torch.ones_like(given.reward), cost=scale * torch.ones_like(given.cost))
        for _ in range(3):
            learner._update_behaviour(latents_of(learner), given)
        learned.append(learner.agent.actor.state_dict())
    assert all(torch.equal(learned[0][name], learned[1][name]) for name in learned[0])


def test_actions_before_the_beginning_of_an_episode_are_not_cloned() -> None:
    learner = CloningLearner(agent(), OPTIMISER, 0)
    given = batch()
    is_first = torch.zeros_like(given.is_first)
    is_first[:, 3] = True  # the action of row 2 is of no step
    action = given.action.clone()
    action[:, 2] = 0.9
    losses = [
        float(CloningLearner(agent(), OPTIMISER, 0)._update_behaviour(latents_of(learner), b)["actor/likelihood"])
        for b in (replace(given, is_first=is_first), replace(given, is_first=is_first, action=action))
    ]
    assert losses[0] == losses[1]


def test_the_reference_path_leaves_gradients_to_autograd() -> None:
    for precision, by_hand in (("float32", False), ("auto", True)):
        settings = RunConfig(model=MODEL, agent=AGENT)
        settings = replace(settings, training=replace(settings.training, precision=precision))
        made = wire.wrap_learner(agent(schema=SCHEMA), settings, torch.device("cpu"), CloningLearner)
        assert isinstance(made, CloningLearner) and made.agent.model.rssm.by_hand is by_hand
        last = made.agent.model.decoder.layers[-1]
        assert isinstance(last, Enlarge) and last.by_phases is by_hand
