"""Bytes of camera images: stacked, mirrored, centred."""

from __future__ import annotations

import pytest
import torch
from builders import B, T, batch
from torch import Tensor

from fosp.world_model import pixels
from fosp.world_model.pixels import centre_pixels, stack_cameras


@pytest.fixture(params=["compiled", "plain"], autouse=True)
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "plain":
        monkeypatch.setattr(pixels, "library", lambda: None)
    elif pixels.library() is None:
        pytest.skip("no C compiler")
    return request.param


def test_cameras_are_stacked_in_the_order_of_the_schema() -> None:
    data = batch()
    stacked = stack_cameras(data.images)
    assert stacked.shape == (B, T, 16, 16, 6)
    assert torch.equal(stacked[..., :3], data.images["image_front"])
    assert torch.equal(stacked[..., 3:], data.images["image_back"])


def test_only_the_sequences_that_were_asked_for_are_mirrored() -> None:
    data = batch(size=3)
    given: dict[str, Tensor] = {name: image.clone() for name, image in data.images.items()}
    stacked = stack_cameras(given, torch.tensor([False, True, False]))
    for sequence, mirrored in enumerate((False, True, False)):
        plain = torch.cat([image[sequence] for image in data.images.values()], -1)
        assert torch.equal(stacked[sequence], plain.flip(-2) if mirrored else plain)
    assert all(torch.equal(given[name], image) for name, image in data.images.items())


def test_cameras_of_another_kind_are_stacked_too(how: str) -> None:
    views = {
        name: torch.randint(0, 256, (2, 3, 4, 5, colours), dtype=torch.uint8) for name, colours in (("a", 4), ("b", 1))
    }
    stacked = stack_cameras(views, torch.tensor([True, False]))
    assert torch.equal(stacked[1], torch.cat([view[1] for view in views.values()], -1))
    assert torch.equal(stacked[0], torch.cat([view[0] for view in views.values()], -1).flip(-2))
    wide = {"a": views["a"][..., :3], "b": views["a"][..., 1:]}  # three colours each, not in one piece
    assert all(view.shape[-1] == 3 and not view.is_contiguous() for view in wide.values())
    assert torch.equal(stack_cameras(wide), torch.cat(list(wide.values()), -1))
    with pytest.raises(RuntimeError, match="size"):  # not read beyond its end
        stack_cameras({"a": wide["a"], "b": wide["b"][:, :, :2]})


def test_pixels_are_centred_exactly() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(centre_pixels(levels), torch.arange(256) - 127.5)
    assert torch.equal(levels, torch.arange(256, dtype=torch.uint8))


def test_no_grey_level_is_lost_in_half_precision() -> None:
    # An obstacle is a pale tint of a bright floor, a few levels apart.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        centred = centre_pixels(torch.arange(256, dtype=torch.uint8))
    assert centred.dtype == torch.bfloat16
    assert torch.equal(centred.float(), torch.arange(256) - 127.5)
    many = torch.randint(0, 256, (3, 3333), dtype=torch.uint8)[:, 1:]  # several pieces and a rest, not in one piece
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(centre_pixels(many).float(), many - 127.5)
