"""Images in and out: shapes, colours, pooling, precision."""

from __future__ import annotations

import pytest
import torch
from builders import WIDTH, batch, generator, images, stir, world_model
from torch import nn

from fosp.world_model.pixels import ImageError
from fosp.world_model.vision import (
    ColourWhitening,
    Convolution,
    Decoder,
    Encoder,
    Enlarge,
    ImageNorm,
    Patches,
)


@pytest.mark.parametrize(("width", "stem"), [(16, 2), (16, 4), (64, 2), (64, 4)])
def test_encoder_and_decoder_meet_in_the_middle(width: int, stem: int) -> None:
    encoder = Encoder(channels=6, width=width, depth=4, stem=stem)
    x = torch.randint(0, 256, (3, width, width, 6), dtype=torch.uint8)
    before = x.clone()
    embedding = encoder(x)
    assert embedding.shape == (3, encoder.size) and encoder.size == 16 * 4 * width // 8
    assert torch.equal(x, before)
    decoder = Decoder(features=10, channels=6, width=width, depth=4)
    assert decoder(torch.randn(3, 10)).shape == (3, 6, width, width)


def test_each_image_is_encoded_by_itself() -> None:
    model = world_model()
    data = images(batch())
    base = model.encode(data)
    data[1, 2] = 255 - data[1, 2]
    changed = model.encode(data)
    differs = (base - changed).abs().amax(-1) > 1e-4
    assert differs.nonzero().tolist() == [[1, 2]]


def test_patches_are_a_convolution_with_stride_4() -> None:
    patches = Patches(channels=6, outputs=5, size=4)
    conv = nn.Conv2d(6, 5, 4, 4, bias=False)
    with torch.no_grad():  # (outputs, rows, columns, channels) -> (outputs, channels, rows, columns)
        conv.weight.copy_(patches.linear.weight.view(5, 4, 4, 6).permute(0, 3, 1, 2))
    x = torch.randint(0, 256, (2, 16, 16, 6), dtype=torch.uint8)
    expected = conv((x / 255 - 0.5).permute(0, 3, 1, 2))
    torch.testing.assert_close(patches(x), expected, rtol=1e-4, atol=1e-5)


def test_images_are_normalised_one_by_one() -> None:
    norm = ImageNorm(5, 4)
    stir(norm)
    x = torch.randn(3, 5, 4, 4)
    expected = nn.functional.layer_norm(x[1].permute(1, 2, 0), (4, 4, 5), norm.norm.weight, norm.norm.bias, eps=1e-3)
    torch.testing.assert_close(norm(x)[1], expected.permute(2, 0, 1))


def test_the_reference_s_first_layer_reads_pixels_of_minus_half_to_half() -> None:
    first = Convolution(channels=6, outputs=5)
    x = torch.randint(0, 256, (2, 16, 16, 6), dtype=torch.uint8)
    expected = first.conv((x / 255 - 0.5).permute(0, 3, 1, 2))
    torch.testing.assert_close(first(x), expected, rtol=1e-4, atol=1e-5)


def test_target_is_the_image_in_minus_half_to_half() -> None:
    model = world_model()
    data = images(batch()).flatten(0, 1)
    before = data.clone()
    torch.testing.assert_close(model.reconstruction_target(data), data.float() / 255 - 0.5)
    assert torch.equal(data, before)


def test_target_is_pooled_where_decoding_is_coarser_than_seeing() -> None:
    model = world_model(decode_width=8)
    data = images(batch()).flatten(0, 1)
    target = model.reconstruction_target(data)
    assert target.shape == (12, 8, 8, 6)
    block = data[3, 4:6, 10:12, 5].float().mean() / 255 - 0.5
    torch.testing.assert_close(target[3, 2, 5, 5], block)
    white = torch.full((1, WIDTH, WIDTH, 6), 255, dtype=torch.uint8)  # a sum of bytes must not run over
    torch.testing.assert_close(model.reconstruction_target(white), torch.full((1, 8, 8, 6), 0.5))


@pytest.mark.parametrize("whitening", [0.0, 1.0])
@pytest.mark.parametrize("width", [8, 16])
def test_target_is_exact_where_the_networks_compute_in_half_precision(whitening: float, width: int) -> None:
    # Whitening blows a pale tint up; rounding the colours before would make it noise.
    model = world_model(whitening=whitening, decode_width=width)
    model.whitening.fit(colours(), whitening)
    data = images(batch()).flatten(0, 1)
    expected = model.reconstruction_target(data)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        target = model.reconstruction_target(data)
    assert target.dtype == torch.float32
    torch.testing.assert_close(target, expected)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("width", [8, 16])
def test_decoding_undoes_what_the_target_did(whitening: float, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = world_model(whitening=whitening, decode_width=width)
    if whitening:
        model.whitening.fit(torch.rand(500, 3, generator=generator()) * torch.tensor([1.0, 0.5, 0.1]), whitening)
    data = images(batch()).flatten(0, 1)
    target = model.reconstruction_target(data)
    monkeypatch.setattr(model, "decode_raw", lambda features: target)
    pooled = data.float().div(255).permute(0, 3, 1, 2)
    pooled = nn.functional.avg_pool2d(pooled, WIDTH // width).permute(0, 2, 3, 1)
    torch.testing.assert_close(model.decode(torch.zeros(12, 1)), pooled, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("outputs", [6, 16])
def test_convolution_by_phases_has_the_values_and_the_gradients_of_the_transposed_one(outputs: int, bias: bool) -> None:
    layer = Enlarge(8, outputs, bias).double()
    x = torch.randn(3, 8, 4, 4, dtype=torch.float64, generator=generator(), requires_grad=True)
    by_phases, plain = layer(x), nn.ConvTranspose2d.forward(layer, x)
    assert type(by_phases.grad_fn) is not type(plain.grad_fn)  # or nothing would be compared
    torch.testing.assert_close(by_phases, plain)
    upstream = torch.randn(plain.shape, dtype=torch.float64, generator=generator(1))
    inputs = [x, *layer.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(by_phases, inputs, upstream), torch.autograd.grad(plain, inputs, upstream)
    )


def test_convolution_by_phases_computes_in_the_precision_of_autocast() -> None:
    layer = Enlarge(8, 6, bias=True)
    x = torch.randn(3, 8, 4, 4, generator=generator(), requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        by_phases, plain = layer(x), nn.ConvTranspose2d.forward(layer, x)
    assert by_phases.dtype == plain.dtype == torch.bfloat16
    torch.testing.assert_close(by_phases, plain, rtol=0.02, atol=0.02)
    gradients = torch.autograd.grad(by_phases.float().square().sum(), [x, *layer.parameters()])
    assert all(gradient.dtype == torch.float32 for gradient in gradients)


@pytest.mark.parametrize("dtype, within", [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("whitening", [0.0, 1.0])
@pytest.mark.parametrize("width", [4, 8, 16])
def test_image_error_in_one_pass_has_the_value_and_the_gradient_of_the_plain_one(
    width: int, whitening: float, dtype: torch.dtype, within: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = world_model(whitening=whitening, decode_width=width)
    if whitening:
        model.whitening.fit(colours(), whitening)
    data, upstream = images(batch()).flatten(0, 1), torch.rand(12, generator=generator())
    said = torch.randn(12, width, width, 6, generator=generator()).to(dtype).requires_grad_()
    monkeypatch.setattr(model, "decode_raw", lambda features: said)
    found = []
    for by_hand in (False, True):
        model.rssm.by_hand = by_hand
        error = model.image_error(torch.zeros(12, 1), data)
        found.append([error, *torch.autograd.grad(error, said, upstream)])
    torch.testing.assert_close(found[1][0], found[0][0])
    largest = found[0][1].abs().max().item()
    torch.testing.assert_close(found[1][1], found[0][1], rtol=within, atol=within * largest)
    assert not ImageError.takes(said) or not torch.equal(found[0][0], found[1][0])  # or nothing would be compared


def colours() -> torch.Tensor:
    """Mostly brightness, with a pale tint across it."""
    draw = generator(1)
    grey = torch.rand(4000, 1, generator=draw)
    tint = torch.randn(4000, 1, generator=draw) * torch.tensor([0.05, 0.0, -0.05])
    return 0.2 + 0.5 * grey + tint + 0.02 * torch.randn(4000, 3, generator=draw)


def test_whitening_gives_all_colour_directions_the_same_variance() -> None:
    whitening, seen = ColourWhitening(), colours()
    whitening.fit(seen, strength=1.0)
    out = whitening(seen)
    covariance = torch.cov(out.T)
    size = covariance.diagonal().mean()
    torch.testing.assert_close(covariance, size * torch.eye(3), rtol=0.01, atol=1e-4)
    torch.testing.assert_close(out.mean(0), torch.zeros(3), rtol=0, atol=1e-5)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_whitening_keeps_the_size_of_the_data_and_can_be_undone(strength: float) -> None:
    whitening, seen = ColourWhitening(), colours()
    whitening.fit(seen, strength)
    out = whitening(seen)
    before = (seen - seen.mean(0)).square().sum(-1).mean()
    torch.testing.assert_close(out.square().sum(-1).mean(), before, rtol=1e-3, atol=0)
    torch.testing.assert_close(whitening.undo(out), seen.clamp(0, 1), rtol=0, atol=1e-4)
    if strength == 0:
        torch.testing.assert_close(out, seen - seen.mean(0), rtol=0, atol=1e-5)


def test_whitening_does_not_blow_up_a_direction_without_spread() -> None:
    whitening = ColourWhitening()
    grey = torch.rand(500, 1, generator=generator()).expand(-1, 3)
    whitening.fit(grey, strength=1.0, floor=0.01)
    assert torch.isfinite(whitening.matrix).all()
    gain = torch.linalg.eigvalsh(whitening.matrix)
    assert gain.max() / gain.min() < 60  # the spread of grey, about 0.5, over the floor


def test_each_camera_is_whitened_by_itself() -> None:
    whitening = ColourWhitening()
    whitening.fit(colours(), strength=1.0)
    image = torch.rand(2, 4, 4, 6, generator=generator())
    both = whitening(image)
    torch.testing.assert_close(both[..., 3:], whitening(image[..., 3:].contiguous()))
    torch.testing.assert_close(both[1, 2, 3, :3], whitening(image[1, 2, 3, :3]))
