"""Online fine-tuning: while one group of episodes is acted, the updates that the group before has earned are made.

Round r acts group r with the weights as they are when the round begins, and learns, from the groups before r, what
their agent steps have earned by the fixed ratio. A round ends when both are through, whoever is ahead waits. So what is
learned from, and who acted, follows from counted steps alone: acting in another process at the same time, or in this
one afterwards, gives the same run to the bit, and so does a run that was stopped and goes on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from fosp.data.episode import summary
from fosp.training.log import Run
from fosp.training.offline import Trainer
from fosp.types import Episode


@dataclass(frozen=True)
class OnlineConfig:
    episodes: int = 200  # end of fine-tuning, or training.minutes, whichever comes first
    envs: int = 4  # environments side by side: the episodes of a group
    updates_per_step: float = 0.25  # updates of the learner per agent step of one environment
    offline_share: float = 0.5  # of each batch that comes from the offline log
    fresh_actor: bool = False  # start the online policy anew instead of from the offline one
    # Episodes last acted whose mean cost the constraint answers; 0 for imagined cost, which differs from what happens
    # by a factor that no log can tell, least of all where the constraints are new. [ours]
    cost_window: int = 20
    # Last share of the rounds in which the learning rates fall in steps towards zero, as in pretraining. [ours]
    decay: float = 0.0
    save_every: int = 20  # episodes


class Store(Protocol):
    """The episodes of this fine-tuning, kept for ever."""

    @property
    def manifest(self) -> list[dict[str, Any]]: ...
    def append(self, episode: Episode) -> int: ...


class Actor(Protocol):
    """Acts one group of episodes at a time, one environment each (``fosp.training.actors``)."""

    @property
    def seconds(self) -> float:
        """What acting the last group took."""
        ...

    def begin(self, weights: Mapping[str, Tensor], seeds: Sequence[int]) -> None:
        """Start to act the layouts ``seeds`` with a learner's ``weights`` as they are now."""
        ...

    def ended(self, wait: bool) -> list[Episode]:
        """Episodes that have ended since this was asked last; with ``wait`` all that are still to come."""
        ...


def finetune(
    trainer: Trainer,
    actor: Actor,
    store: Store,
    seeds: Sequence[int],
    config: OnlineConfig,
    progress: Callable[[int], AbstractContextManager],
    on_episode: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Path:
    """Fine-tune over an episode per seed, in groups of ``config.envs``; what has a row in ``episodes.jsonl`` is done.

    Learning starts when the first group has ended, because before that there is nothing new to learn, and goes on for
    a round after the last one, so that every step has been paid for. Whatever stops the run, whole groups and the
    newest checkpoint stay, and a rerun ends as a run without the stop. Returns the last checkpoint.
    """
    seeds = seeds[: config.episodes]
    book = _Book(trainer.run, store, on_episode)
    with progress(len(book.rows)) as bar:
        for begin in range(0, len(seeds) + config.envs, config.envs):  # the last round has no group
            if trainer.out_of_time:
                break
            group, earlier = seeds[begin : begin + config.envs], seeds[:begin]
            due = math.floor(config.updates_per_step * book.steps(earlier) + 1e-6)
            if book.holds(group) and trainer.learner.updates >= due:
                continue  # of an earlier session
            trainer.sampler.refresh(len(earlier))
            trainer.learner.scale_rates(_rate(begin, len(seeds), config))
            if earlier and config.cost_window > 0:
                trainer.learner.heed(book.cost(earlier[-config.cost_window :]))
            waited = _round(trainer, actor, book, begin, group, due, bar)
            ratio = {"online/updates_per_step": trainer.learner.updates / max(1, book.steps(earlier))}
            trainer.run.metrics(trainer.learner.updates, ratio | waited)
            if begin // config.save_every < (begin + len(group)) // config.save_every:
                trainer.save()
    path = trainer.save()
    trainer.run.close()
    return path


def _rate(begin: int, episodes: int, config: OnlineConfig) -> float:
    """Share of the learning rates in the round that begins after so many of the episodes. The last has no group."""
    rounds, done = -(-episodes // config.envs) + 1, begin // config.envs
    return min(1.0, (rounds - done) / (config.decay * rounds)) if config.decay > 0 else 1.0


def _round(
    trainer: Trainer, actor: Actor, book: _Book, begin: int, group: Sequence[int], due: int, bar: Any
) -> dict[str, float]:  # fmt: skip
    """Act ``group``, unless that was done before a crash, and learn until ``due`` updates are made.

    ``begin``: episodes of the groups before. Returns the seconds that the one had to wait for the other.
    """
    began, acts = time.perf_counter(), not book.holds(group)
    held, acting = trainer.acting
    if held != begin:  # else this round was stopped, and goes on with the weights that it began with
        acting = {name: weight.detach().to("cpu", copy=True) for name, weight in trainer.learner.weights().items()}
    try:
        if acts:
            actor.begin(acting, group)
        while trainer.learner.updates < due:
            trainer.step()
            if acts:
                book.note(actor.ended(wait=False), bar)
        learned = time.perf_counter()
        if acts:
            book.note(actor.ended(wait=True), bar)
    except KeyboardInterrupt:
        trainer.save_stopped(begin, {} if book.holds(group) else acting)  # who acts this group has learned since
        raise
    now = time.perf_counter()
    return {"online/learner_waited": now - learned, "online/actor_waited": now - began - actor.seconds * acts}


class _Book:
    """What was experienced: the store, and a row for each episode in ``episodes.jsonl``."""

    def __init__(self, run: Run, store: Store, on_episode: Callable[[dict[str, Any]], None]) -> None:
        self._run, self._store, self._on_episode = run, store, on_episode
        self.rows = {row["seed"]: row for row in run.rows("episodes.jsonl")}
        self._stored = {row["seed"]: index for index, row in enumerate(store.manifest)}

    def holds(self, seeds: Sequence[int]) -> bool:
        return all(seed in self.rows for seed in seeds)

    def steps(self, seeds: Sequence[int]) -> int:
        """Agent steps of these episodes."""
        return sum(self.rows[seed]["steps"] for seed in seeds)

    def cost(self, seeds: Sequence[int]) -> float:
        """Mean of these episodes."""
        return sum(self.rows[seed]["cost"] for seed in seeds) / len(seeds)

    def note(self, episodes: Sequence[Episode], bar: Any) -> None:
        """Keep episodes; those that were kept before their group was cut off come a second time, the same."""
        for episode in episodes:
            seed = episode.info["seed"]
            if seed in self.rows:
                continue
            if seed not in self._stored:
                self._stored[seed] = self._store.append(episode)
            env_steps = sum(row["steps"] for row in self.rows.values()) + len(episode) - 1
            row = self.rows[seed] = _row(self._stored[seed], episode, env_steps)
            self._run.append("episodes.jsonl", row)
            self._on_episode(row)
            bar.advance(1, ret=round(row["return"], 1), cost=round(row["cost"], 1))


def _row(index: int, episode: Episode, env_steps: int) -> dict[str, Any]:
    chosen = episode.diagnostics.get("chosen")
    share = float((chosen[:-1] == 1).mean()) if chosen is not None else None
    return {
        "episode": index,
        "seed": episode.info["seed"],
        **summary(episode),
        "goals": episode.info.get("goals", 0),
        "chosen_online": share,
        "env_steps": env_steps,  # of all episodes so far
        "time": time.time(),
    }
