"""Clips into pictures, pictures into files that a browser plays."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from fosp.report import video
from fosp.types import UserError


def ramp(frames: int = 12, height: int = 32, width: int = 48) -> np.ndarray:
    """Grey, brighter with time: what is decoded can be compared frame by frame."""
    levels = np.linspace(20, 220, frames).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (frames, height, width, 3)).copy()


def decode(data: bytes) -> tuple[np.ndarray, str, float]:
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or 0)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return np.stack(frames), stream.codec_context.pix_fmt or "", rate


@pytest.mark.parametrize("name", ["libx264", "libvpx-vp9"])
def test_what_is_encoded_can_be_decoded(name, monkeypatch):
    monkeypatch.setattr(video, "encoder", lambda: name)
    frames = ramp()
    decoded, pixels, rate = decode(video.encode(frames, 12.5))
    assert decoded.shape == frames.shape
    assert (pixels, rate) == ("yuv420p", 12.5)
    assert np.abs(decoded.astype(int) - frames).max() < 12


def test_odd_sizes_get_an_edge():
    decoded, _, _ = decode(video.encode(ramp(height=33, width=47), 10))
    assert decoded.shape[1:3] == (34, 48)


def test_coarser_is_smaller():
    noise = np.random.default_rng(0).integers(0, 255, (10, 64, 64, 3), np.uint8)
    assert len(video.encode(noise, 10, quality=40)) < len(video.encode(noise, 10, quality=20))


def test_a_second_is_enough_to_jump_to():
    """A key frame each second."""
    data = video.encode(ramp(frames=30), 10)
    with av.open(io.BytesIO(data), "r") as container:
        keys = [i for i, frame in enumerate(container.decode(video=0)) if frame.key_frame]
    assert max(np.diff(keys)) <= 10


@pytest.mark.parametrize("frames", [np.zeros((3, 8, 8)), np.zeros((3, 8, 8, 3)), np.zeros((0, 8, 8, 3), np.uint8)])
def test_what_is_no_video_is_refused(frames):
    with pytest.raises(ValueError, match="a video"):
        video.encode(frames, 10)


def test_an_installation_without_encoders_says_so(monkeypatch):
    monkeypatch.setattr(video, "_CODECS", {"no-such-encoder": {}})
    video.encoder.cache_clear()
    try:
        with pytest.raises(UserError, match="no video encoder found"):
            video.encoder()
    finally:
        video.encoder.cache_clear()


def test_write_mp4(tmp_path):
    path = video.write_mp4(tmp_path / "videos" / "a.mp4", ramp(), 10)
    assert decode(path.read_bytes())[0].shape == (12, 32, 48, 3)
    assert [file.name for file in path.parent.iterdir()] == ["a.mp4"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        video.write_mp4(tmp_path / "file" / "a.mp4", ramp(), 10)


def test_side_by_side_puts_each_clip_into_its_cell():
    clips = [np.full((5, 4, 4, 3), value, np.uint8) for value in (10, 20, 30)]
    picture = video.side_by_side([clips[:2], clips[2:]], size=8, gap=2, colour=(1, 1, 1))
    assert picture.shape == (5, 2 + 2 * 10, 2 + 2 * 10, 3)
    assert (picture[:, 2:10, 2:10] == 10).all() and (picture[:, 2:10, 12:20] == 20).all()
    assert (picture[:, 12:20, 2:10] == 30).all()
    assert (picture[:, 12:20, 12:20] == 1).all()  # no clip there
    with pytest.raises(ValueError, match="same number of frames"):
        video.side_by_side([[clips[0], clips[1][:3]]])


def test_camera_pixels_stay_pixels_and_others_are_smoothed():
    checks = (np.indices((4, 4)).sum(0) % 2 * 255).astype(np.uint8)
    picture = np.repeat(checks[..., None], 3, axis=2)
    assert set(np.unique(video.resize(picture, 12))) == {0, 255}
    assert video.resize(picture, 10).shape == (10, 10, 3)
    assert len(np.unique(video.resize(picture, 10))) > 2
