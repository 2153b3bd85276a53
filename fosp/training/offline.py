"""Offline training: a log, a learner, a clock. No environment is in scope."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import torch

from fosp.parallel import ALONE, Team
from fosp.training import checkpoint
from fosp.training.interrupt import held_back
from fosp.training.log import Run
from fosp.types import Batch

_ACTING = "acting/"  # in front of names in the state of a checkpoint


@dataclass(frozen=True)
class TrainingConfig:
    batch: int = 16  # B, sequences
    length: int = 32  # T, rows
    updates: int = 20_000  # of the whole agent, on images
    latent_updates: int = 0  # then of critics and policy, on the encoded log, with the world model at rest
    latent_batch: int = 32  # sequences of a batch of those
    # Last share of the updates of each stage of pretraining in which the learning rates fall in a line towards zero.
    decay: float = 0.0
    # End by the clock if that comes first, 0 for none. All time counts in which the command ran, before a restart too:
    # updates, acting, encoding, saving, films. The two stages of pretraining share it as they share their updates.
    minutes: float = 0.0
    precision: str = "auto"  # float32, bfloat16, or auto: bfloat16 where the processor has it
    compile: bool | None = None  # compile what computes losses (takes minutes once); none: on a GPU
    log_every: int = 50
    save_every: int = 1000
    keep: int = 3  # newest checkpoints that are kept, 0 for all


class Learner(Protocol):
    """What the loops need of an agent that learns."""

    updates: int
    skipped_steps: int  # of optimisers; an update makes several

    def update(self, batch: Any) -> Mapping[str, torch.Tensor]: ...
    def heed(self, cost_per_episode: float) -> None: ...
    def scale_rates(self, share: float) -> None: ...
    def weights(self) -> dict[str, torch.Tensor]: ...
    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]: ...
    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None: ...
    def load_state(self, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any]) -> None: ...


class Source(Protocol):
    """Gives batches of arrays, or (an encoded log) whatever the learner takes as it is."""

    def sample(self) -> Any: ...
    def refresh(self, episodes: int | None = None) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def to_tensors(batch: Batch, device: torch.device | str) -> Batch:
    """A batch of arrays, or of tensors of any place, as tensors on ``device``."""
    return _each(batch, lambda array: torch.as_tensor(array).to(device, non_blocking=True))


def pinned(batch: Batch) -> Batch:
    """In memory from which a GPU copies by itself, while this process does something else."""
    return _each(batch, lambda array: torch.as_tensor(array).pin_memory())


def _each(batch: Batch, change: Callable[[Any], torch.Tensor]) -> Batch:
    parts = {k: change(v) for k, v in vars(batch).items() if k != "images"}
    return Batch(images={k: change(v) for k, v in batch.images.items()}, **parts)


class Trainer:
    """Ties learner, sampler and run folder together: one step, when to log, when to save, how to go on after a stop.

    Of a ``team`` of processes only the leading one reads and writes the run folder.
    """

    def __init__(
        self, learner: Learner, sampler: Source, run: Run, config: TrainingConfig, device: torch.device | str,
        describe: Mapping[str, Any], team: Team = ALONE,
    ) -> None:  # fmt: skip
        self.learner, self.sampler, self.run, self.config, self.team = learner, sampler, run, config, team
        self.device, self.describe = device, dict(describe)
        self.seconds = 0.0  # of updates in all sessions
        self.encoded_at: int | None = None  # updates before the second stage of pretraining, None until it begins
        self.within_update = False  # stays so where an update did not come to its end
        self._resumed: dict[str, Any] | None = None  # state of the sampler of the second stage
        #: Round of fine-tuning that was stopped while acting, and the weights that it acts with, older than learned.
        self.acting: tuple[int, dict[str, torch.Tensor]] = -1, {}
        self._sums: dict[str, tuple[torch.Tensor | float, int]] = {}  # of metrics since the last row, and how many
        self._count, self._since = 0, time.perf_counter()
        self._elapsed_before, self._began = 0.0, time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds of all sessions, whatever they were spent on."""
        return self._elapsed_before + time.perf_counter() - self._began

    def enter_encoded_log(self, sampler: Source) -> None:
        """Begin the second stage; where it had begun before a restart, go on with its very next batch."""
        self.sampler = sampler
        if self.encoded_at is None:
            self.encoded_at = self.learner.updates
        if self._resumed is not None:
            sampler.load_state_dict(self._resumed)
            self._resumed = None

    def resume(self) -> bool:
        """Go on from the newest checkpoint of the run folder, if it has one."""
        found = self.team.hand_round(self._saved() if self.team.leads else None)
        if found is not None:
            weights, tensors, numbers = found
            self.learner.load_weights(weights)
            self.learner.load_state(tensors, numbers["learner"])
            acting = {name.removeprefix(_ACTING): w for name, w in tensors.items() if name.startswith(_ACTING)}
            self.acting = numbers.get("acting_in", -1), acting
            self.encoded_at = numbers["encoded_at"]
            if self.encoded_at is not None:
                self._resumed = numbers["sampler"]
            else:
                self.sampler.load_state_dict(numbers["sampler"])
            self.seconds, self._elapsed_before = numbers["seconds"], numbers["elapsed"]
        if self.team.leads:
            self.run.open_metrics(from_step=-1 if found is None else self.learner.updates)
        return found is not None

    def _saved(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, Any]] | None:
        """Weights, state and numbers of the newest checkpoint."""
        if not (self.run.checkpoints / "last").exists():
            return None
        path = checkpoint.resolve(self.run.checkpoints)
        weights = checkpoint.read_tensors(path, "policy/model")
        return weights, checkpoint.read_tensors(path, "training_state/state"), checkpoint.read_numbers(path)

    @held_back()
    def step(self) -> None:
        """One update, which Ctrl-C does not cut in two; logs the mean of the metrics since the last row."""
        self.within_update = True
        began = time.perf_counter()
        batch = self.sampler.sample()
        metrics = self.learner.update(to_tensors(batch, self.device) if isinstance(batch, Batch) else batch)
        for name, value in metrics.items():  # not every update has every metric
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + value, count + 1
        self.within_update = False
        self._count += 1
        self.seconds += time.perf_counter() - began
        if self.learner.updates % self.config.log_every == 0:
            self._log()

    def _log(self) -> None:
        now = time.perf_counter()
        totals = self.team.mean([torch.as_tensor(total) for total, _ in self._sums.values()])
        counts = {name: count for name, (_, count) in self._sums.items()}
        values = {name: float(total) / counts[name] for name, total in zip(counts, totals, strict=True)}
        values["clock/updates_per_second"] = self._count / (now - self._since)
        values["clock/seconds"] = self.seconds
        values["clock/skipped_steps"] = self.learner.skipped_steps
        if self.team.leads:
            self.run.metrics(self.learner.updates, values)
        self._sums, self._count, self._since = {}, 0, now

    def save(self, acting_in: int = -1, acting: Mapping[str, torch.Tensor] = MappingProxyType({})) -> Path:
        """A checkpoint; ``acting``: weights by name that the round ``acting_in`` acts with."""
        if not self.team.leads:
            return checkpoint.folder_of(self.run.checkpoints, self.learner.updates)
        tensors, learner = self.learner.state()
        tensors = {**tensors, **{_ACTING + name: weight for name, weight in acting.items()}}
        return checkpoint.save(
            self.run.checkpoints,
            self.learner.updates,
            self.describe,
            self.learner.weights(),
            tensors,
            {
                "learner": learner,
                "sampler": self.sampler.state_dict(),
                "encoded_at": self.encoded_at,
                "acting_in": acting_in if acting else -1,
                "seconds": self.seconds,
                "elapsed": self.elapsed,
            },
            keep=self.config.keep,
        )

    def save_stopped(self, acting_in: int = -1, acting: Mapping[str, torch.Tensor] = MappingProxyType({})) -> None:
        """After Ctrl-C. Where a second one broke an update off, the newest checkpoint is what a rerun goes on from."""
        if not self.within_update:
            self.save(acting_in, acting)

    @property
    def out_of_time(self) -> bool:
        return self._used(1.0)

    @property
    def first_stage_ended(self) -> bool:
        """Whether pretraining has made the updates of its first stage, or used that stage's share of the minutes."""
        config = self.config
        share = config.updates / max(1, config.updates + config.latent_updates)
        by_clock = config.latent_updates > 0 and self._used(share)
        return self.encoded_at is not None or self.learner.updates >= config.updates or by_clock

    @property
    def rate(self) -> float:
        """Share of the learning rates with which pretraining makes its next update."""
        config, begun = self.config, self.encoded_at or 0
        updates = config.updates if self.encoded_at is None else config.latent_updates
        left = begun + updates - self.learner.updates
        return min(1.0, left / (config.decay * updates)) if config.decay > 0 else 1.0

    @property
    def pretrained(self) -> bool:
        """Whether pretraining has come to its end."""
        first = self.config.updates if self.encoded_at is None else self.encoded_at
        return self.out_of_time or self.learner.updates >= first + self.config.latent_updates

    def _used(self, share: float) -> bool:
        return self.config.minutes > 0 and self.elapsed >= share * 60 * self.config.minutes


def pretrain(
    trainer: Trainer,
    encode: Callable[[], Source],
    progress: Callable[[int], AbstractContextManager],
    on_save: Callable[[Path, int], None] = lambda path, updates: None,
) -> Path:
    """``config.updates`` updates on images, then ``config.latent_updates`` on the log as ``encode`` gives it then.

    Checkpoints on the way, on Ctrl-C, and at the end; returns the last one. ``progress(updates so far)`` gives a
    context with ``advance(n, **shown)``; ``on_save`` looks at each checkpoint and is told how many updates its world
    model has had, in the leading process of a team.
    """
    path, encoded = None, False
    config, learner, team = trainer.config, trainer.learner, trainer.team
    with progress(learner.updates) as bar:
        try:
            while not team.agree(trainer.pretrained):  # each has a clock of its own
                if not encoded and team.agree(trainer.first_stage_ended):
                    trainer.enter_encoded_log(encode())
                    encoded = True
                learner.scale_rates(trainer.rate)
                with held_back():
                    trainer.step()
                    bar.advance(1)
                if learner.updates % config.save_every == 0:
                    path = _save(trainer, on_save)
        except KeyboardInterrupt:
            trainer.save_stopped()
            raise
    if path is None or int(path.name) != learner.updates:
        path = _save(trainer, on_save)
    trainer.run.close()
    team.agree(False)  # nobody returns before the last checkpoint is there
    return path


def _save(trainer: Trainer, on_save: Callable[[Path, int], None]) -> Path:
    path = trainer.save()
    if trainer.team.leads:
        on_save(path, trainer.learner.updates if trainer.encoded_at is None else trainer.encoded_at)
    return path
