"""The mirrored world: images flipped, turns reversed, everything else as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from builders import SCHEMA, B, T, batch, copied, learner, same
from torch import Tensor

from fosp.agent import agent as agent_module
from fosp.agent.mirror import mirrored
from fosp.types import Batch


def parts(data: Batch) -> dict[str, Tensor]:
    return {name: value for name, value in vars(data).items() if name != "images"} | data.images


def test_images_are_flipped_left_to_right_and_turns_reversed() -> None:
    data = batch()
    before = copied(parts(data))
    other = mirrored(data, (1.0, -1.0))
    for name, image in data.images.items():
        for column in range(16):
            assert torch.equal(other.images[name][..., column, :], image[..., 15 - column, :])
    assert torch.equal(other.action[..., 0], data.action[..., 0])
    assert torch.equal(other.action[..., 1], -data.action[..., 1])
    for name in ("reward", "cost", "is_first", "is_last", "is_terminal"):
        assert torch.equal(getattr(other, name), getattr(data, name))
    assert same(parts(data), before)


def test_the_mirror_of_the_mirror_is_the_world() -> None:
    data = batch()
    assert same(parts(mirrored(mirrored(data, (1.0, -1.0)), (1.0, -1.0))), parts(data))


def learned_from(monkeypatch: pytest.MonkeyPatch, updates: int, schema: Any, **changes: Any) -> list[Tensor]:
    """Actions (B, T, A) that reached the model's loss in each update of one and the same batch; where a sequence's
    actions are another's than the batch's, so are its images."""
    seen: list[Tensor] = []
    original = agent_module.model_loss

    def watch(model: Any, images: Tensor, action: Tensor, *rest: Tensor) -> Any:
        seen.append(action)
        for row, (pixels, taken) in enumerate(zip(images, action, strict=True)):
            recorded = torch.cat([view[row] for view in batch().images.values()], -1)
            plain = torch.equal(taken, batch().action[row])
            assert torch.equal(pixels, recorded if plain else recorded.flip(-2))
        return original(model, images, action, *rest)

    monkeypatch.setattr(agent_module, "model_loss", watch)
    made = learner(schema=schema, **changes)
    for _ in range(updates):
        made.update(batch())
    return seen


def test_about_half_of_the_sequences_are_mirrored_where_the_task_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    actions = learned_from(monkeypatch, 30, replace(SCHEMA, mirror=(1.0, -1.0)))
    plain = batch().action
    turned = [torch.equal(a[row, :, 1], -plain[row, :, 1]) for a in actions for row in range(B)]
    kept = [torch.equal(a[row, :, 1], plain[row, :, 1]) for a in actions for row in range(B)]
    assert sum(turned) + sum(kept) == 30 * B  # a sequence as a whole or not at all
    assert 15 < sum(turned) < 45
    assert all(a.shape == (B, T, 2) for a in actions)


@pytest.mark.parametrize(("mirror", "wanted"), [((), True), ((1.0, -1.0), False)])
def test_nothing_is_mirrored_where_the_task_or_the_user_forbids_it(
    monkeypatch: pytest.MonkeyPatch, mirror: tuple[float, ...], wanted: bool
) -> None:
    actions = learned_from(monkeypatch, 4, replace(SCHEMA, mirror=mirror), mirror=wanted)
    assert all(torch.equal(action, batch().action) for action in actions)
