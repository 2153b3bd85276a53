"""Clips into one picture, pictures into a small file that every browser plays."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.codec.codec import Codec, UnknownCodecError
from PIL import Image

from fosp.types import UserError

#: Both may stand in an .mp4 file. H.264 plays everywhere; builds of FFmpeg without x264 still have VP9.
_CODECS = {
    "libx264": {"preset": "veryfast", "tune": "animation"},
    "libvpx-vp9": {"b": "0", "deadline": "good", "cpu-used": "3"},
}


Colour = tuple[int, int, int]
_DARK = (24, 26, 32)


@cache
def encoder() -> str:
    """The first encoder of this installation. Raises UserError where there is none."""
    for name in _CODECS:
        try:
            Codec(name, "w")
            return name
        except UnknownCodecError:
            continue
    raise UserError(f"no video encoder found ({' or '.join(_CODECS)}); reinstall PyAV with pip")


def encode(frames: Iterable[np.ndarray], fps: float, quality: int = 24) -> bytes:
    """frames uint8 (H, W, 3), one after the other (an array (T, H, W, 3) will do), as an .mp4 in memory.

    ``quality``: constant rate factor, lower is better and larger. A key frame each second, so that a browser can jump
    to any moment at once.
    """
    buffer = io.BytesIO()
    stream: av.VideoStream | None = None
    with av.open(buffer, "w", format="mp4") as container:
        for frame in frames:
            if frame.ndim != 3 or frame.shape[-1] != 3 or frame.dtype != np.uint8:
                raise ValueError(f"a video frame is uint8 (H, W, 3), not {frame.dtype} {frame.shape}")
            frame = _even(frame)
            if stream is None:
                options = {"crf": str(quality), **_CODECS[encoder()]}
                rate = Fraction(fps).limit_denominator(1000)
                stream = cast(av.VideoStream, container.add_stream(encoder(), rate=rate, options=options))
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.gop_size = max(1, round(fps))
                stream.thread_count = 1  # the same bytes on every machine
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        if stream is None:
            raise ValueError("a video needs at least one frame")
        container.mux(stream.encode())
    return buffer.getvalue()


def write_mp4(path: str | os.PathLike[str], frames: Iterable[np.ndarray], fps: float, quality: int = 24) -> Path:
    """Writes frames as ``encode`` takes them to ``path`` (temporary name, then renamed) and returns it."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(encode(frames, fps, quality))
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another place or free space") from error
    return path


def side_by_side(
    rows: Sequence[Sequence[np.ndarray]], *, size: int = 192, gap: int = 6, colour: Colour = _DARK
) -> np.ndarray:
    """A grid of clips uint8 (T, W, W, 3), e.g. [[real, imagined], [real, imagined]], as one clip uint8 (T, H', W', 3).

    All clips have T frames. Each becomes a size x size cell, magnified without smoothing where ``size`` is a multiple
    of its own width (camera pixels stay visible as what they are), else smoothly.
    """
    lengths = {len(clip) for row in rows for clip in row}
    if len(lengths) != 1:
        raise ValueError(f"clips that are shown together need the same number of frames, not {sorted(lengths)}")
    pictures = ([[clip[t] for clip in row] for row in rows] for t in range(lengths.pop()))
    return np.stack([grid(picture, size=size, gap=gap, colour=colour) for picture in pictures])


def grid(rows: Sequence[Sequence[np.ndarray]], *, size: int, gap: int = 6, colour: Colour = _DARK) -> np.ndarray:
    """Pictures uint8 (W, W, 3) in rows -> one picture uint8 (H', W', 3) of size x size cells with gaps around."""
    columns = max(len(row) for row in rows)
    canvas = np.full((gap + len(rows) * (size + gap), gap + columns * (size + gap), 3), colour, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            top, left = gap + i * (size + gap), gap + j * (size + gap)
            canvas[top : top + size, left : left + size] = resize(picture, size)
    return canvas


def resize(picture: np.ndarray, size: int) -> np.ndarray:
    """uint8 (W, W, 3) -> (size, size, 3)."""
    height, width = picture.shape[:2]
    if height == width and size % width == 0:
        return picture.repeat(size // width, axis=0).repeat(size // width, axis=1)
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS))


def _even(frame: np.ndarray) -> np.ndarray:
    """4:2:0 colour halves both sides, so they must be even: the last row or column is repeated where needed."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
