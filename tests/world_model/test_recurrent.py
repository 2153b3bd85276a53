"""Several steps in one call of C: the same numbers and gradients as one step after the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders import MODEL, generator, stir, world_model

from fosp.nets import native
from fosp.nets.distributions import gumbel
from fosp.world_model import Latent
from fosp.world_model.recurrent import library

needs_compiler = pytest.mark.skipif(native.compiler() is None, reason="no C compiler")


@needs_compiler
def test_it_is_compiled_where_there_is_a_compiler() -> None:
    assert library() is not None


@needs_compiler
@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("units", [12, 48])  # fewer columns than a processor sums at once, and no multiple of them
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_what_is_foreseen_at_once_is_that_step_by_step(rows: int, units: int, threads: int) -> None:
    model = world_model(units=units, deter=40)
    stir(model)
    steps, before = 5, torch.get_num_threads()
    noise = gumbel((steps, rows, MODEL.groups, MODEL.classes), generator(1))
    index = torch.randint(MODEL.classes, (rows, MODEL.groups), generator=generator(2))
    parts = [
        torch.randn(rows, 40, generator=generator(3)),
        torch.nn.functional.one_hot(index, MODEL.classes).float(),
        torch.randn(steps, rows, model.actions, generator=generator(4)),
    ]
    found = []
    torch.set_num_threads(threads)
    try:
        for at_once in (False, True):
            model.rssm.at_once = at_once
            h, z, action = (x.clone().requires_grad_() for x in parts)
            states = model.rssm.foresee(Latent(h, z), action, noise)
            draw = generator(5)
            loss = torch.stack([(x * torch.randn(x.shape, generator=draw)).sum() for x in states]).sum()
            weights = [p for name, p in model.rssm.named_parameters() if "post" not in name]
            found.append([*states, *torch.autograd.grad(loss, [h, z, action, *weights])])
    finally:
        torch.set_num_threads(before)
    assert all(gradient.any() for gradient in found[0])
    for plain, written in zip(*found, strict=True):
        torch.testing.assert_close(written, plain, rtol=1e-3, atol=2e-5)


@needs_compiler
@pytest.mark.parametrize("units", [33, 128])  # an odd number of factors, and whole strips of columns
@pytest.mark.parametrize("seen", [False, True])
def test_at_once_under_autocast_it_is_as_near_to_the_exact_numbers_as_step_by_step(units: int, seen: bool) -> None:
    model = world_model(units=units, deter=70, groups=9, classes=8)  # more than one strip of states, and a rest
    stir(model)
    cells = (4, 9)
    noise = 1e3 * gumbel((*cells, 9, 8), generator(1))  # or rounding chooses another class here and there
    z = torch.nn.functional.one_hot(torch.randint(8, (9, 9), generator=generator(2)), 8).float()
    h, action = torch.randn(9, 70, generator=generator(3)), torch.randn(*cells, model.actions, generator=generator(4))
    embedding = torch.randn(*cells, model.encoder.size, generator=generator(5))
    begins = torch.zeros(cells, dtype=torch.bool)

    def found(at_once: bool, half: bool) -> list[torch.Tensor]:
        model.rssm.at_once = at_once
        taken = action.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            if seen:
                states, _, _ = model.observe(embedding, taken, begins, noise)
            else:
                states = model.rssm.foresee(Latent(h, z), taken, noise)
        draw = generator(6)
        loss = torch.stack([(x * torch.randn(x.shape, generator=draw)).sum() for x in states]).sum()
        other = "prior" if seen else "post"
        weights = [p for name, p in model.rssm.named_parameters() if other not in name]
        return [states.h, *torch.autograd.grad(loss, [taken, *weights])]

    exact, rounded, plain = found(False, False), found(True, True), found(False, True)
    off = [[((x - y).norm() / y.norm()).item() for x, y in zip(z, exact, strict=True)] for z in (rounded, plain)]
    assert all(one <= 1.5 * other + 2e-3 for one, other in zip(*off, strict=True)), off
    if not seen and units == 128:  # what it reads is the same then: another memory shows that the processor rounds
        compiled = library()
        assert compiled is not None
        assert torch.equal(rounded[0], found(True, False)[0]) is not bool(compiled.rounds())


@needs_compiler
def test_what_is_not_a_number_is_seen_in_the_end() -> None:
    # The step of an optimiser is left out where a gradient is not finite; nothing on the way may hide it.
    model = world_model()
    embedding = torch.randn(2, 3, model.encoder.size)
    embedding[0, 1, 0] = float("nan")
    noise = gumbel((2, 3, MODEL.groups, MODEL.classes), generator(1))
    latents, post, _ = model.observe(embedding, torch.zeros(2, 3, 2), torch.zeros(2, 3, dtype=torch.bool), noise)
    assert post[0, 1].isnan().all() and not post[1].isnan().any() and not latents.h[:, 0].isnan().any()
    gradients = torch.autograd.grad(post.sum(), list(model.rssm.post_out.parameters()))
    assert all(gradient.isnan().any() for gradient in gradients)


def test_without_a_compiler_steps_are_taken_one_by_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", str(tmp_path / "none"))
    assert native.library.__wrapped__(tmp_path / "x.c") is None
    model = world_model()
    monkeypatch.setattr("fosp.world_model.rssm.library", lambda: None)
    assert not model.rssm.runs_at_once(torch.zeros(1))


@needs_compiler
def test_what_cannot_be_compiled_is_told_and_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "wrong.c"
    source.write_text("this is not C")
    with pytest.warns(UserWarning, match=r"wrong\.c could not be compiled.*error"):
        assert native.library.__wrapped__(source) is None
    assert not list((tmp_path / "fosp").iterdir())
    source.write_text("int answer(void) { return 42; }")
    first = native.library.__wrapped__(source)
    built = list((tmp_path / "fosp").iterdir())
    assert first is not None and first.answer() == 42 and len(built) == 1
    when = built[0].stat().st_mtime_ns
    native.library.__wrapped__(source)
    assert built[0].stat().st_mtime_ns == when  # kept
    source.write_text("int answer(void) { return 43; }")
    other = native.library.__wrapped__(source)
    assert other is not None and other.answer() == 43
    monkeypatch.setenv("XDG_CACHE_HOME", str(source))  # no folder
    again = native.library.__wrapped__(source)
    assert again is not None and again.answer() == 43


def test_a_tensor_in_pieces_has_no_address() -> None:
    with pytest.raises(ValueError, match="one piece"):
        native.address(torch.zeros(4, 4)[:, 1:])
    assert native.address(None) is None
