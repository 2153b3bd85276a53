"""Policies acting in environments, several side by side, one episode per seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fosp.data.episode import EpisodeBuilder
from fosp.types import Episode, UserError


def rollout(
    policy: Any,
    envs: Sequence[Any],
    seeds: Iterable[int],
    *,
    keep_images: bool = True,
    info: Mapping[str, Any] | None = None,
    on_step: Callable[[int], None] = lambda steps: None,
) -> Iterator[Episode]:
    """One episode per seed, yielded as soon as it ends; ``envs`` run in lockstep, so order may differ from ``seeds``.

    A ``Policy`` sees the observations of all environments at once (n, W, W, 3); a *privileged* policy (attribute
    ``privileged``) gets ``env.unwrapped.privileged()`` of each environment by itself. An environment that ends an
    episode goes on with the next seed, and its row of the carry is reset; one without a further seed idles on its last
    observation until the others are done, as the rows of a batch cannot be taken out. Actions are clipped to the bounds
    of the action space, and what was executed is what is recorded. A *seeded* policy (attribute ``seeded``) is told the
    seeds of the episodes, so that what it draws does not depend on which episodes run side by side.

    ``Episode.info`` gets ``info``, task, seed and goals (sum of ``goal_met``); ``Episode.diagnostics`` what the carry
    said on each row (NaN on the last row, where nobody acts). ``on_step`` is told after each step, and after the
    episodes that ended in it were taken, how many environments moved; it may learn, since the policy is asked anew at
    every step. Closing the generator leaves the environments open.
    """
    todo = iter(seeds)
    runs = []
    for env, seed in zip(envs, todo, strict=False):
        runs.append(_Run(env, keep_images, dict(info or {})))
        runs[-1].reset(seed)
    if not runs:
        if not envs:
            raise ValueError("rollout needs at least one environment")
        return
    actors = (_EachByItself if getattr(policy, "privileged", False) else _SideBySide)(policy, runs)
    while any(run.active for run in runs):
        actions, diagnostics = actors.act(runs)
        restart = np.zeros(len(runs), bool)  # (n,)
        moving = sum(run.active for run in runs)
        for row, run in enumerate(runs):
            if not run.active:
                continue
            episode = run.step(actions[row], diagnostics[row])
            if episode is not None:
                yield episode
                seed = next(todo, None)
                if seed is not None:
                    run.reset(seed)
                    restart[row] = True
        if restart.any():
            actors.restart(restart, runs)
        on_step(moving)


class _Run:
    """One environment and the episode that is being collected in it."""

    def __init__(self, env: Any, keep_images: bool, info: dict[str, Any]) -> None:
        self.env = env
        self.schema = env.unwrapped.schema()
        self.active = False
        self.observation: Mapping[str, np.ndarray] = {}
        self._keep_images = keep_images
        self._info = info
        space = env.action_space
        self._low, self._high = np.asarray(space.low, np.float32), np.asarray(space.high, np.float32)  # (A,)

    def reset(self, seed: int) -> None:
        self.observation, _ = self.env.reset(seed=int(seed))
        self.seed, self._goals, self.active = int(seed), 0, True
        self._builder = EpisodeBuilder(self.schema, self._keep_images)
        self._builder.start(self.observation)

    def step(self, action: np.ndarray, diagnostics: Mapping[str, np.ndarray]) -> Episode | None:
        """Executes ``action`` (A,); returns the episode if this step ended it."""
        action = np.asarray(action, np.float32)
        if action.shape != self._low.shape:
            raise UserError(
                f"the policy gives actions of shape {action.shape}, but {self.schema.task} takes {self._low.shape}; "
                "use a policy that was made for this task"
            )
        if not np.isfinite(action).all():  # clipping would let NaN through
            raise UserError(f"the policy gives the action {action.tolist()} at layout {self.seed}; it must be finite")
        action = np.clip(action, self._low, self._high)
        self._builder.act(action, diagnostics)
        self.observation, reward, terminated, truncated, info = self.env.step(action)
        terms = {name: info[f"cost_{name}"] for name in self.schema.cost_terms}
        self._builder.step(self.observation, float(reward), info["cost"], terms, bool(terminated))
        self._goals += int(info.get("goal_met", 0))
        if not (terminated or truncated):
            return None
        self.active = False
        return self._builder.build({**self._info, "task": self.schema.task, "seed": self.seed, "goals": self._goals})


class _SideBySide:
    """A policy that takes the observations of all environments in one batch and has one carry for all."""

    def __init__(self, policy: Any, runs: Sequence[_Run]) -> None:
        self._policy = policy
        self._seeded = getattr(policy, "seeded", False)
        self._carry = policy.initial(len(runs), **self._seeds(runs))

    def _seeds(self, runs: Sequence[_Run]) -> dict[str, list[int]]:
        return {"seeds": [run.seed for run in runs]} if self._seeded else {}

    def act(self, runs: Sequence[_Run]) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
        """Actions (n, A) and, for each environment, what the policy said of its row."""
        names = runs[0].schema.cameras
        observation = {name: np.stack([run.observation[name] for run in runs]) for name in names}  # (n, W, W, 3)
        actions, self._carry = self._policy.act(self._carry, observation)
        said = {name: np.asarray(value) for name, value in self._carry.diagnostics.items()}  # () or (n,)
        rows = [{name: value[row] if value.ndim else value for name, value in said.items()} for row in range(len(runs))]
        return np.asarray(actions), rows

    def restart(self, mask: np.ndarray, runs: Sequence[_Run]) -> None:
        """Rows of ``mask`` (n,) begin a new episode."""
        self._carry = self._carry.reset(mask, **self._seeds(runs))


class _EachByItself:
    """A policy with privileged state: it is asked for one environment at a time, with a carry for each."""

    def __init__(self, policy: Any, runs: Sequence[_Run]) -> None:
        self._policy = policy
        self._carries = [policy.initial() for _ in runs]

    def act(self, runs: Sequence[_Run]) -> tuple[list[np.ndarray], list[dict[str, np.ndarray]]]:
        actions: list[np.ndarray] = []
        for row, run in enumerate(runs):
            if run.active:
                action, self._carries[row] = self._policy.act(self._carries[row], run.env.unwrapped.privileged())
            else:
                action = np.zeros(0)  # an idle environment needs none
            actions.append(action)
        said = [{name: np.asarray(value) for name, value in carry.diagnostics.items()} for carry in self._carries]
        return actions, said

    def restart(self, mask: np.ndarray, runs: Sequence[_Run]) -> None:
        for row in np.flatnonzero(mask):
            self._carries[row] = self._policy.initial()
