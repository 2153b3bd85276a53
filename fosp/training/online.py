"""Online fine-tuning: act, store, learn, in turn, with a fixed ratio of updates to agent steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fosp.data.episode import summary
from fosp.training.log import Run
from fosp.training.offline import Trainer
from fosp.types import Episode


@dataclass(frozen=True)
class OnlineConfig:
    episodes: int = 200  # end of fine-tuning, or training.minutes, whichever comes first
    envs: int = 4  # environments side by side
    updates_per_step: float = 0.25  # updates of the learner per agent step of one environment
    offline_share: float = 0.5  # of each batch that comes from the offline log
    fresh_actor: bool = False  # start the online policy anew instead of from the offline one
    save_every: int = 20  # episodes


class Store(Protocol):
    """The episodes of this fine-tuning, kept for ever."""

    def __len__(self) -> int: ...
    def append(self, episode: Episode) -> int: ...
    def episode(self, index: int) -> Episode: ...


#: Acts in one environment per seed; calls back with the number of agent steps just made; yields each ended episode.
Act = Callable[[Sequence[int], Callable[[int], None]], Iterator[Episode]]


def finetune(
    trainer: Trainer,
    act: Act,
    store: Store,
    seeds: Sequence[int],
    config: OnlineConfig,
    progress: Callable[[int], AbstractContextManager],
    on_episode: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Path:
    """Fine-tune over an episode per seed, in groups of ``config.envs``; what has a row in ``episodes.jsonl`` is done.

    Learning starts when the first group has ended, because before that there is nothing new to learn. Each episode is a
    row in ``episodes.jsonl``. Whatever stops the run, episodes and the newest checkpoint stay and the run can go on.
    Returns the last checkpoint.
    """
    rows = _complete_rows(trainer.run, store)
    known, done = {row["episode"] for row in rows}, {row["seed"] for row in rows}
    todo = [seed for seed in seeds if seed not in done]  # episodes of a group may have ended in any order
    env_steps = sum(row["steps"] for row in rows)
    # What a crash took back is learned again, and what was learned in a group that Ctrl-C cut off counts.
    credit = config.updates_per_step * sum(row["steps"] for row in rows[config.envs :]) - trainer.learner.updates

    def learn(steps: int) -> None:
        nonlocal credit
        if len(store) < config.envs:
            return
        credit += steps * config.updates_per_step
        while credit >= 1:
            trainer.step()
            credit -= 1

    with progress(len(store)) as bar:
        try:
            learn(0)
            while todo and len(store) < config.episodes and not trainer.out_of_time:
                count = min(config.envs, config.episodes - len(store))
                group, todo = todo[:count], todo[count:]
                for episode in act(group, learn):
                    index = store.append(episode)
                    env_steps += len(episode) - 1
                    row = _row(index, episode, env_steps)
                    if index not in known:
                        trainer.run.append("episodes.jsonl", row)
                    on_episode(row)
                    bar.advance(1, ret=round(row["return"], 1), cost=round(row["cost"], 1))
                trainer.sampler.refresh()
                if len(store) % config.save_every < len(group):
                    trainer.save()
        except KeyboardInterrupt:
            trainer.save_stopped()
            raise
    path = trainer.save()
    trainer.run.close()
    return path


def _complete_rows(run: Run, store: Store) -> list[dict[str, Any]]:
    """The rows of ``episodes.jsonl``; one that a crash kept from following its episode into the store is written."""
    rows = run.rows("episodes.jsonl")
    for index in sorted(set(range(len(store))) - {row["episode"] for row in rows}):
        episode = store.episode(index)  # which does not know who chose its actions
        rows.append(_row(index, episode, sum(row["steps"] for row in rows) + len(episode) - 1))
        run.append("episodes.jsonl", rows[-1])
    return rows


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
