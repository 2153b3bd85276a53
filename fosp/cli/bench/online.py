"""How much of its rate the learner keeps while the policy acts beside it: the loop of fine-tuning itself, timed."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from fosp.cli.bench.machine import fresh, rates, row

if TYPE_CHECKING:
    from fosp.cli.bench import Options


def measure(options: Options) -> list[dict[str, Any]]:
    """Two rows for each preset: the learner alone, and beside an actor with the ratio of updates to steps held."""
    rows = []
    for preset in options.preset or ("tiny",):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            rows += fresh(
                _measure, preset, list(options.set), options.device, options.task, options.repeats, options.seconds,
                Path(folder),
            )  # fmt: skip
    return rows


def _measure(
    preset: str, changes: Sequence[str], device: str, task: str, repeats: int, seconds: float, folder: Path
) -> list[dict[str, Any]]:
    """A repeat is a round of about so many seconds, with the hand-over of the weights; episodes are cut to fit."""
    from fosp.cli import wire
    from fosp.presets import resolve
    from fosp.training.actors import Elsewhere
    from fosp.training.online import finetune
    from fosp.types import ONLINE_SEEDS

    config, picked = resolve(preset, None, changes), wire.pick_device(device)
    online = config.online
    trainer, store, schema = _loop(config, task, picked, folder)
    found, cores = rates(trainer.step, 1, repeats, seconds)
    alone = statistics.median(found)
    per_step = online.updates_per_step * online.envs  # updates per step of all environments
    steps = min(schema.max_steps, max(2, round(alone * seconds / per_step))) if per_step else 2
    actor = _Clock(
        Elsewhere(partial(wire.OnlineActing, config, schema, partial(_short_env, task, steps), 0, None)), trainer
    )
    trainer.learner.updates = 0
    begun = replace(online, episodes=online.envs * (repeats + 2), save_every=10**9)
    try:
        seeds = ONLINE_SEEDS[: begun.episodes]
        finetune(trainer, actor, store, seeds, begun, lambda start: nullcontext(SimpleNamespace(advance=_nothing)))
    finally:
        actor.close()
        trainer.sampler.close()
        store.close()
    rounds = list(zip(actor.begun[1:], actor.begun[2:], strict=False))  # in the first nobody learns
    beside = [(b.updates - a.updates) / (b.time - a.time) for a, b in rounds]
    (first, last), count = (actor.begun[1], actor.begun[-1]), actor.begun[-1].updates - actor.begun[1].updates
    own, its = ((getattr(last, name) - getattr(first, name)) / count for name in ("learner", "actor"))
    about = {
        "what": "online", "preset": preset, "task": task, "changes": list(changes), "envs": online.envs,
        "updates_per_step": online.updates_per_step, "steps_of_an_episode": steps,
        "processor_s_per_update": {"alone": cores / alone, "beside": own, "actor": its},
    }  # fmt: skip
    ratio = statistics.median(beside) / alone
    waited = sum(actor.waited[1:]) / (last.time - first.time)
    remark = f"{100 * ratio:.0f} % of alone; processor {1000 * own:.0f} + {1000 * its:.0f} ms per update"
    return [
        row(f"online {preset}, learner alone", "updates/s", found, f"{cores:.1f} cores") | about,
        row(f"online {preset}, beside acting", "updates/s", beside, remark, ratio=ratio, learner_waited=waited) | about,
    ]


def _loop(config: Any, task: str, device: Any, folder: Path) -> tuple[Any, Any, Any]:
    """Trainer, store of new episodes and schema, as fine-tuning has them, around a fresh agent."""
    from fosp.agent.agent import Agent
    from fosp.cli import wire
    from fosp.data.collect import collect, default_plan
    from fosp.data.sampler import MixedSampler, Prefetcher, Sampler
    from fosp.data.store import Store
    from fosp.envs.scripted import make_behaviour
    from fosp.training.log import Run
    from fosp.training.offline import Trainer

    training = config.training
    log = collect(folder / "log", partial(wire.make_env, task), make_behaviour, default_plan(2), workers=1)
    store = Store.create(folder / "episodes", log.schema)
    sizes = training.batch, training.length
    mixed = MixedSampler(
        Sampler(log, *sizes, config.seed), Sampler(store, *sizes, config.seed + 1), config.online.offline_share
    )
    learner = wire.build_expansion(Agent(config.model, config.agent, log.schema), config, device)
    run = Run(folder / "run")
    run.begin("", {})
    trainer = Trainer(learner, Prefetcher(mixed), run, training, device, {})
    trainer.resume()
    return trainer, store, log.schema


def _short_env(task: str, steps: int) -> Any:
    """The environment of ``task`` with episodes of so many agent steps."""
    from fosp.cli import wire
    from fosp.envs import Scenario

    schema = wire.make_env(task).unwrapped.schema()
    return wire.make_env(
        task, Scenario("short", "cut", lambda task: replace(task, max_frames=steps * schema.action_repeat))
    )


def _nothing(*_: Any, **__: Any) -> None:
    return None


class _Clock:
    """An actor that notes when each round begins, and the processor time of both sides until then."""

    def __init__(self, actor: Any, trainer: Any) -> None:
        self._actor, self._trainer = actor, trainer
        self.begun: list[SimpleNamespace] = []
        self.waited: list[float] = []  # seconds of each round in which the learner had nothing to do

    @property
    def seconds(self) -> float:
        return self._actor.seconds

    def begin(self, weights: Mapping[str, Any], seeds: Sequence[int]) -> None:
        import psutil

        times = [child.cpu_times() for child in psutil.Process().children()]
        now = SimpleNamespace(
            time=time.perf_counter(), updates=self._trainer.learner.updates, learner=time.process_time(),
            actor=sum(spent.user + spent.system for spent in times),
        )  # fmt: skip
        self.begun.append(now)
        self._actor.begin(weights, seeds)

    def ended(self, wait: bool) -> list[Any]:
        began = time.perf_counter()
        found = self._actor.ended(wait)
        if wait:
            self.waited.append(time.perf_counter() - began)
        return found

    def close(self) -> None:
        self._actor.close()
