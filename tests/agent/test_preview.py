"""Open-loop predictions: what is seen, what is only imagined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builders import SCHEMA, WIDTH, agent, episode, stir

from fosp.agent.preview import open_loop
from fosp.types import Episode


@pytest.mark.parametrize("decode_width", [8, 16])
def test_shapes_and_origins(decode_width: int) -> None:
    subject = agent(model=replace(agent().model.config, decode_width=decode_width))
    pictures, origin = open_loop(subject, SCHEMA, episode(rows=11), context=2, horizon=3)
    assert origin.tolist() == [0, 1, 2, 2, 2, 5, 6, 7, 7, 7, 10]
    assert pictures.keys() == SCHEMA.cameras.keys()
    assert all(p.shape == (11, WIDTH, WIDTH, 3) and p.dtype == np.uint8 for p in pictures.values())


def changed(original: Episode, row: int) -> Episode:
    images = {name: image.copy() for name, image in original.images.items()}
    for image in images.values():
        image[row] = 255 - image[row]
    return replace(original, images=images)


def test_imagined_rows_have_not_seen_their_images() -> None:
    subject = agent()
    stir(subject)
    stir(subject.model.rssm.post_image, size=5.0)  # else one image more or less moves no class of z
    original = episode(rows=8)
    base, _ = open_loop(subject, SCHEMA, original, context=2, horizon=10)
    unseen, _ = open_loop(subject, SCHEMA, changed(original, 4), context=2, horizon=10)
    seen, _ = open_loop(subject, SCHEMA, changed(original, 1), context=2, horizon=10)
    for name in SCHEMA.cameras:
        np.testing.assert_array_equal(base[name], unseen[name])
        np.testing.assert_array_equal(base[name][0], seen[name][0])
        assert (base[name][1:] != seen[name][1:]).any()


def test_each_camera_gets_its_own_picture() -> None:
    subject = agent()
    subject.model.decode = lambda features: (  # type: ignore[method-assign]
        features.new_zeros(len(features), WIDTH, WIDTH, 6) + features.new_tensor([0, 0, 0, 1, 1, 1])
    )
    pictures, _ = open_loop(subject, SCHEMA, episode(rows=4))
    assert not pictures["image_front"].any() and (pictures["image_back"] == 255).all()


def test_the_action_of_the_row_before_moves_the_prediction() -> None:
    subject = agent()
    stir(subject)
    original = episode(rows=6)
    action = original.action.copy()
    action[3] = -action[3]
    base, _ = open_loop(subject, SCHEMA, original, context=1, horizon=10)
    other, _ = open_loop(subject, SCHEMA, replace(original, action=action), context=1, horizon=10)
    np.testing.assert_array_equal(base["image_front"][:4], other["image_front"][:4])
    assert (base["image_front"][4:] != other["image_front"][4:]).any()
