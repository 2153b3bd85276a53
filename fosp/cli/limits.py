"""Which numbers of a configuration make sense: a mistake shall be told before anything is built from it."""

from __future__ import annotations

from fosp import config as mechanism
from fosp.presets import RunConfig
from fosp.types import Schema, UserError

#: Settings that are counts of at least one; all other numbers only must not be negative.
_COUNTS = (
    "model.deter", "model.groups", "model.units", "model.depth", "model.decode_every",
    "agent.units", "agent.horizon", "agent.starts", "agent.expansion.hold",
    "training.batch", "training.latent_batch", "training.log_every", "training.save_every",
    "online.episodes", "online.envs", "online.save_every",
)  # fmt: skip
_PAIRS = ("model.classes", "training.length")  # at least two
#: Between 0 and 1, both included.
_SHARES = (
    "model.whitening", "model.unimix", "agent.gamma", "agent.lam", "agent.explore_first", "agent.expectile_reward",
    "agent.expectile_cost", "agent.slow_fraction", "agent.average", "agent.reach_gamma", "training.decay",
    "online.offline_share", "online.decay",
)  # fmt: skip


def check(config: RunConfig) -> None:
    """UserError for the first setting whose value cannot work, naming it, its value and what would."""
    values = mechanism.flatten(config)
    for key, value in values.items():
        least = 1 if key in _COUNTS else 2 if key in _PAIRS else 0
        if isinstance(value, int | float) and value < least:
            raise UserError(f"{key} is {value}; it must be at least {least}")
    for key in _SHARES:
        if values[key] > 1:
            raise UserError(f"{key} is {values[key]}; it must lie between 0 and 1")
    for key in ("model.bins", "agent.bins"):
        if values[key] < 3 or values[key] % 2 == 0:
            raise UserError(f"{key} is {values[key]}; it must be odd and at least 3, so that zero is a bin")
    if config.model.classes > 256:
        raise UserError(f"model.classes is {config.model.classes}; it must be at most 256")
    if config.model.stem not in (2, 4):
        raise UserError(f"model.stem is {config.model.stem}; it must be 2 or 4")


def check_images(config: RunConfig, schema: Schema, source: str) -> None:
    """UserError unless a world model of this configuration can see, and reconstruct, the images of ``schema``."""
    sizes = set(schema.cameras.values())
    height, width, _ = next(iter(sizes), (0, 0, 0))
    if len(sizes) != 1 or height != width or not _halves_to_four(width):
        found = ", ".join(f"{name} {'x'.join(map(str, size))}" for name, size in schema.cameras.items()) or "none"
        raise UserError(
            f"{source} has images {found}; the world model sees square images of one size whose side is 8, 16, 32, 64 "
            "or another power of two"
        )
    if width < 4 * config.model.stem:
        raise UserError(f"model.stem is {config.model.stem}; for images of {width}x{width} it must be {width // 4}")
    side = config.model.decode_width
    if not _halves_to_four(side) or side > width:
        raise UserError(f"model.decode_width is {side}; it must be a power of two from 8 to {width}, the image's side")


def check_shared(config: RunConfig, processes: int) -> None:
    """UserError unless every batch can be shared evenly by so many processes."""
    values = mechanism.flatten(config)
    for key in ("training.batch", "training.latent_batch", "agent.starts"):
        if values[key] % processes:
            raise UserError(
                f"{key} is {values[key]}, which {processes} processes share; take a multiple of {processes}"
            )


def _halves_to_four(side: int) -> bool:
    return side >= 8 and side & (side - 1) == 0
