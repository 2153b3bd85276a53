"""Which loss reaches which parameters, and which optimiser moves them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from builders import AGENT, B, T, batch, copied, learner, same, stir
from torch import Tensor, nn

from fosp.agent import agent as agent_module
from fosp.agent.actor import ActorScales
from fosp.agent.agent import Agent, Learner, OptimiserConfig
from fosp.world_model.loss import weighted_sum


def parts(agent: Agent) -> dict[str, list[nn.Parameter]]:
    """Every parameter of an agent that has begun expansion, under the name of its part."""
    rssm = agent.model.rssm
    assert agent.offline_actor is not None
    modules: dict[str, list[nn.Module]] = {
        "encoder": [agent.model.encoder],
        "memory": [rssm.inputs, rssm.cell],
        "posterior": [rssm.post_image, rssm.post_memory, rssm.post_out],
        "prior": [rssm.prior],
        "decoder": [agent.model.decoder],
        "reward head": [agent.model.reward_head],
        "cost head": [agent.model.cost_head],
        "continue head": [agent.model.continue_head],
        "reward Q": [agent.reward_critic.q],
        "reward V": [agent.reward_critic.v],
        "cost Q": [agent.cost_critic.q],
        "cost V": [agent.cost_critic.v],
        "reachability": [agent.reachability.head],
        "slow reward Q": [agent.reward_critic.slow_q],
        "slow reward V": [agent.reward_critic.slow_v],
        "slow cost Q": [agent.cost_critic.slow_q],
        "slow cost V": [agent.cost_critic.slow_v],
        "slow reachability": [agent.reachability.slow_head],
        "actor": [agent.actor],
        "frozen actor": [agent.offline_actor],
    }
    return {name: [p for module in group for p in module.parameters()] for name, group in modules.items()}


SEEING = {"encoder", "memory", "posterior"}
#: In a batch whose rows are all starts of episodes; only there does the divergence's own gradient show, because z
#: carries every later loss back to what was seen before.
ROUTES = {
    "image": SEEING | {"decoder"},
    "reward": SEEING | {"reward head"},
    "cost": SEEING | {"cost head"},
    "proceed": SEEING | {"continue head"},
    "kl_dynamics": {"memory", "prior"},
    "kl_representation": SEEING,
    "reward_ahead": SEEING | {"prior", "reward head"},
    "cost_ahead": SEEING | {"prior", "cost head"},
    "q_reward": {"reward Q"},
    "q_cost": {"cost Q"},
    "v_reward": {"reward V"},
    "v_cost": {"cost V"},
    "reach": {"reachability"},
    "q_reward_imagined": {"reward Q"},
    "q_cost_imagined": {"cost Q"},
    "reach_imagined": {"reachability"},
    "likelihood": {"actor"},
    "pathwise": {"actor"},
    "dynamics": {"actor"},
    "imagined": {"actor"},
    "entropy": {"actor"},
}


def make_learner(**optimiser: Any) -> Learner:
    subject = learner(optimiser=OptimiserConfig(**optimiser), actor_scales=ActorScales(imagined=1.0, dynamics=1.0))
    stir(subject.agent)
    subject.agent.expand()
    stir(subject.agent.actor, seed=5)
    return subject


def losses_of_an_update(monkeypatch: pytest.MonkeyPatch, is_first: Tensor) -> tuple[Agent, dict[str, Tensor]]:
    """All losses of one update as the learner makes them, with their graphs, before anything is stepped."""
    subject = make_learner()
    for parameter in subject.agent.parameters():
        parameter.requires_grad_(True)  # slow and frozen ones too: it must not be the flag alone that saves them
    losses: dict[str, Tensor] = {}

    def collect(named: dict[str, Tensor], scales: object) -> Tensor:
        losses.update(named)
        return weighted_sum(named, scales)

    monkeypatch.setattr(agent_module, "weighted_sum", collect)
    monkeypatch.setattr(subject, "_step", lambda name, loss: torch.zeros(()))
    subject.update(batch(is_first=is_first))
    return subject.agent, losses


def reached(agent: Agent, loss: Tensor) -> set[str]:
    """Parts with a gradient that is not exactly zero."""
    found = set()
    for name, parameters in parts(agent).items():
        gradients = torch.autograd.grad(loss.sum(), parameters, allow_unused=True, retain_graph=True)
        assert all(gradient is None or torch.isfinite(gradient).all() for gradient in gradients)
        if any(gradient is not None and gradient.any() for gradient in gradients):
            found.add(name)
    return found


def test_9_each_loss_reaches_its_parameters_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, losses = losses_of_an_update(monkeypatch, is_first=torch.ones(B, T, dtype=torch.bool))
    # Pairs do not exist where every row is a start, nor anything ahead: the other losses come from a batch without.
    monkeypatch.undo()
    inside, others = losses_of_an_update(monkeypatch, is_first=torch.zeros(B, T, dtype=torch.bool))
    assert losses.keys() == others.keys() == ROUTES.keys()
    model_losses = {"image", "reward", "cost", "proceed", "kl_dynamics", "kl_representation"}
    table = {
        name: reached(agent, losses[name]) if name in model_losses else reached(inside, others[name]) for name in ROUTES
    }
    assert table == ROUTES


def test_9_the_losses_of_behaviour_never_reach_the_world_model(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, losses = losses_of_an_update(monkeypatch, is_first=torch.zeros(B, T, dtype=torch.bool))
    model = list(agent.model.parameters())
    for name in list(ROUTES)[8:]:
        gradients = torch.autograd.grad(losses[name].sum(), model, allow_unused=True, retain_graph=True)
        assert all(gradient is None for gradient in gradients), name


def test_9_every_parameter_is_in_one_optimiser_or_is_a_copy() -> None:
    subject = make_learner()
    belongs = {id(p): name for name, group in subject.groups.items() for p in group}
    assert len(belongs) == sum(len(group) for group in subject.groups.values())  # in no two
    for name, optimiser in subject.optimisers.items():
        held = [p for group in optimiser.param_groups for p in group["params"]]
        assert [id(p) for p in held] == [id(p) for p in subject.groups[name]]
    for part, parameters in parts(subject.agent).items():
        expected = None if part.startswith(("slow", "frozen")) else "actor" if part == "actor" else "critics"
        if part in ("encoder", "memory", "posterior", "prior", "decoder") or part.endswith("head"):
            expected = "model"
        assert {belongs.get(id(p)) for p in parameters} == {expected}, part


def changed(agent: Agent, before: Mapping[str, Tensor]) -> set[str]:
    """First words of the names of the tensors that differ."""
    now = agent.state_dict()
    return {name.split(".")[0] for name, tensor in before.items() if not torch.equal(tensor, now[name])}


@pytest.mark.parametrize(
    ("group", "moved"),
    [("model", {"model"}), ("critic", {"reward_critic", "cost_critic", "reachability"}), ("actor", {"actor"})],
)
def test_9_each_optimiser_moves_its_own_part(group: str, moved: set[str]) -> None:
    rates = {f"{name}_rate": 1e-2 if name == group else 0.0 for name in ("model", "critic", "actor")}
    subject = make_learner(**rates)
    before = copied(subject.agent.state_dict())
    subject.update(batch())
    assert changed(subject.agent, before) - {"reward_range", "cost_range", "constraint"} - slow_only(group) == moved


def slow_only(group: str) -> set[str]:
    # Slow copies follow even where the critics stand still, because they were stirred apart from their originals.
    return set() if group == "critic" else {"reward_critic", "cost_critic", "reachability"}


def test_critics_stand_still_while_only_the_model_learns() -> None:
    subject = make_learner(behaviour_every=0)
    before = copied(subject.agent.state_dict())
    subject.update(batch())
    assert changed(subject.agent, before) == {"model"}


def test_the_policy_learns_in_every_second_update_where_asked() -> None:
    subject = make_learner(behaviour_every=2)
    seen = []
    for seed in range(4):
        before = copied(subject.agent.actor.state_dict())
        subject.update(batch(seed))
        seen.append(not same(subject.agent.actor.state_dict(), before))
    assert seen == [True, False, True, False]


def test_slow_copies_move_by_their_fraction_in_an_update() -> None:
    subject = make_learner(critic_rate=0.0)
    critic = subject.agent.cost_critic
    slow, fast = copied(critic.slow_q.state_dict()), copied(critic.q.state_dict())
    subject.update(batch())
    for name, tensor in critic.slow_q.state_dict().items():
        torch.testing.assert_close(tensor, torch.lerp(slow[name], fast[name], AGENT.slow_fraction))
