"""The online loop: the ratio of updates to steps, what is kept when it is stopped, and the frozen policy."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import AGENT, MODEL, SCHEMA, batch, copied, episode, learner, same
from fakes import FakeLearner, FakeProgress, TinyEnv, no_board, trainer

from fosp.agent.agent import Agent
from fosp.cli import wire
from fosp.config import to_tree
from fosp.data.sampler import MixedSampler, Prefetcher, Sampler
from fosp.data.store import Store
from fosp.presets import RunConfig
from fosp.training import checkpoint
from fosp.training.actors import Act, Elsewhere, Here
from fosp.training.log import Run
from fosp.training.offline import Trainer, TrainingConfig
from fosp.training.online import OnlineConfig, finetune
from fosp.types import Episode, UserError

STEPS = 10  # agent steps of every episode here


@pytest.fixture(autouse=True)
def _no_board(monkeypatch: pytest.MonkeyPatch) -> None:
    no_board(monkeypatch)


class FakeStore:
    def __init__(self) -> None:
        self.episodes: list[Episode] = []

    @property
    def manifest(self) -> list[dict[str, Any]]:
        return [episode.info for episode in self.episodes]

    def append(self, episode: Episode) -> int:
        self.episodes.append(episode)
        return len(self.episodes) - 1

    def episode(self, index: int) -> Episode:
        return self.episodes[index]

    @property
    def seeds(self) -> list[int]:
        return [episode.info["seed"] for episode in self.episodes]


class World:
    """Acts in lockstep; ``order`` says in which order the episodes of a group end. Fails at a given agent step.

    The first number of an episode's actions is the learner's weight that acted.
    """

    def __init__(
        self, stop_at: int | None = None, order: Callable[[list[int]], list[int]] = list,
        error: type[BaseException] = KeyboardInterrupt,
    ) -> None:  # fmt: skip
        self.groups: list[list[int]] = []
        self.steps, self.stop_at, self.order, self.error = 0, stop_at, order, error

    def __call__(self, weights: Mapping[str, torch.Tensor], seeds: Sequence[int]) -> Iterator[Episode]:
        self.groups.append(list(seeds))
        for _ in range(STEPS):
            self.steps += len(seeds)
            if self.stop_at is not None and self.steps >= self.stop_at:
                raise self.error
        for seed in self.order(list(seeds)):
            chosen = np.array([1.0] * 3 + [0.0] * 7 + [np.nan], np.float32)
            made = episode(seed, rows=STEPS + 1)
            made.action[0] = float(weights["weight"])
            made.diagnostics["chosen"] = chosen
            yield made

    def close(self) -> None:
        return None


def acting(world: Act) -> Here:
    return Here(lambda: world)


def config(**changes: Any) -> OnlineConfig:
    return OnlineConfig(**{"episodes": 12, "envs": 4, "updates_per_step": 0.25, "save_every": 8, **changes})


def test_updates_keep_their_ratio_to_steps(tmp_path: Path) -> None:
    # 3 groups x 4 environments x 10 steps x 0.25 = 30 updates: none in the first round, 10 in each of the others.
    made, store, world, bar = trainer(tmp_path), FakeStore(), World(), FakeProgress()
    path = finetune(made, acting(world), store, range(100, 200), config(), bar)
    assert world.groups == [[100, 101, 102, 103], [104, 105, 106, 107], [108, 109, 110, 111]]
    assert made.learner.updates == 30 and int(path.name) == 30
    assert made.sampler.refreshed == [0, 4, 8, 12]  # type: ignore[attr-defined]
    assert bar.done == 12 and len(store.episodes) == 12


@pytest.mark.parametrize(("ratio", "updates"), [(0.1, 12), (0.03, 3), (0.29, 34), (1.0, 120), (0.0, 0)])
def test_fractions_of_updates_are_kept_for_later(tmp_path: Path, ratio: float, updates: int) -> None:
    made = trainer(tmp_path)
    finetune(made, acting(World()), FakeStore(), range(100, 200), config(updates_per_step=ratio), FakeProgress())
    assert made.learner.updates == updates


@pytest.mark.parametrize(("window", "episodes"), [(6, [4, 6, 6]), (100, [4, 8, 12]), (0, [])])
def test_the_learner_is_told_what_the_last_episodes_cost(tmp_path: Path, window: int, episodes: list[int]) -> None:
    made, store = trainer(tmp_path), FakeStore()
    finetune(made, acting(World()), store, range(100, 200), config(cost_window=window), FakeProgress())
    costs = [float(episode.cost.sum()) for episode in store.episodes]
    expected = [np.mean(costs[: 4 * (r + 1)][-n:]) for r, n in enumerate(episodes)]
    assert len(set(costs)) > 1
    assert made.learner.heeded == pytest.approx(expected)  # type: ignore[attr-defined]


class Watched:
    """An actor whose groups end only when they are waited for; notes what it is asked, and when."""

    def __init__(self, updates: Callable[[], int]) -> None:
        self.updates, self.asked = updates, []
        self.seconds = 0.25

    def begin(self, weights: Mapping[str, torch.Tensor], seeds: Sequence[int]) -> None:
        self.asked.append(("begin", self.updates(), float(weights["weight"])))
        self.group = [episode(seed, rows=STEPS + 1) for seed in seeds]

    def ended(self, wait: bool) -> list[Episode]:
        self.asked.append(("wait" if wait else "look", self.updates(), len(self.group)))
        given = self.group if wait else self.group[:1]  # one of them after each update
        self.group = self.group[len(given) :]
        return given


def test_rates_fall_in_the_last_rounds(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole")
    finetune(whole, acting(World()), FakeStore(), range(100, 200), config(decay=0.5), FakeProgress())
    assert whole.learner.shares == [1.0, 1.0, 1.0, 0.5]  # type: ignore[attr-defined]  # three groups, and the last round
    store = FakeStore()
    with pytest.raises(KeyboardInterrupt):
        finetune(trainer(tmp_path / "cut"), acting(World(9)), store, range(100, 200), config(decay=0.5), FakeProgress())
    again = trainer(tmp_path / "cut")
    finetune(again, acting(World()), store, range(100, 200), config(decay=0.5), FakeProgress())
    assert again.learner.shares[-1] == 0.5  # type: ignore[attr-defined]
    plain = trainer(tmp_path / "plain")
    finetune(plain, acting(World()), FakeStore(), range(100, 200), config(), FakeProgress())
    assert plain.learner.shares == [1.0] * 4  # type: ignore[attr-defined]


def test_learning_goes_on_while_acting(tmp_path: Path) -> None:
    made, weights = trainer(tmp_path), []
    actor = Watched(lambda: made.learner.updates)
    made.learner.during = lambda update: weights.append(float(made.learner.weight))  # type: ignore[attr-defined]
    store = FakeStore()
    finetune(made, actor, store, range(100, 200), config(episodes=6, envs=2, updates_per_step=0.1), FakeProgress())
    assert actor.asked == [
        ("begin", 0, 0.0), ("wait", 0, 2),
        ("begin", 0, 0.0), ("look", 1, 2), ("look", 2, 1), ("wait", 2, 0),
        ("begin", 2, weights[2]), ("look", 3, 2), ("look", 4, 1), ("wait", 4, 0),  # who acts learned a round ago
    ]  # fmt: skip
    assert made.learner.updates == 6 and store.seeds == list(range(100, 106))


def test_ratio_and_waiting_are_logged(tmp_path: Path) -> None:
    made = trainer(tmp_path, TrainingConfig(log_every=1000))
    made.learner.during = lambda update: time.sleep(0.03)  # type: ignore[attr-defined]
    actor = Watched(lambda: made.learner.updates)
    finetune(made, actor, FakeStore(), range(100, 200), config(episodes=8), FakeProgress())
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["online/updates_per_step"]) for row in rows] == [(0, 0), (10, 0.25), (20, 0.25)]
    assert all(row["online/learner_waited"] < 0.2 for row in rows)  # the episodes were there
    assert rows[1]["online/actor_waited"] >= 10 * 0.03 - 0.25  # it says that it had acted for so long
    assert rows[2]["online/actor_waited"] >= 10 * 0.03  # nothing to act


def test_each_episode_is_a_row(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    store = FakeStore()
    made = trainer(tmp_path)
    finetune(made, acting(World()), store, range(100, 200), config(), FakeProgress(), on_episode=seen.append)
    rows = made.run.rows("episodes.jsonl")
    assert rows == seen
    assert [row["episode"] for row in rows] == list(range(12))
    assert [row["seed"] for row in rows] == list(range(100, 112)) == store.seeds
    assert [row["env_steps"] for row in rows] == [STEPS * k for k in range(1, 13)]
    for row, made_ in zip(rows, store.episodes, strict=True):
        assert row["return"] == pytest.approx(float(made_.reward.sum()), abs=1e-5)
        assert row["cost"] == pytest.approx(float(made_.cost.sum()))
        assert row["violation_steps"] == int((made_.cost > 0).sum()) and row["steps"] == STEPS
        assert row["chosen_online"] == pytest.approx(0.3)


def test_an_uneven_last_group_is_cut_to_the_number_of_episodes(tmp_path: Path) -> None:
    world = World()
    finetune(trainer(tmp_path), acting(world), FakeStore(), range(100, 200), config(episodes=6), FakeProgress())
    assert world.groups == [[100, 101, 102, 103], [104, 105]]


def test_minutes_of_training_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fosp.training import offline

    now = 0.0
    monkeypatch.setattr(offline.time, "perf_counter", lambda: now)

    def a_minute(_: int) -> None:
        nonlocal now
        now += 60

    made = trainer(tmp_path, TrainingConfig(minutes=5), FakeLearner(a_minute))
    finetune(made, acting(World()), FakeStore(), range(100, 200), config(), FakeProgress())
    assert made.learner.updates == 10  # to the end of the round in which time ran out


@pytest.mark.parametrize("stop_at", [20, 44, 60, 100])
def test_ctrl_c_keeps_episodes_and_updates_and_a_rerun_goes_on(tmp_path: Path, stop_at: int) -> None:
    store, made = FakeStore(), trainer(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        finetune(made, acting(World(stop_at)), store, range(100, 200), config(), FakeProgress())
    done, updates = len(store.episodes), made.learner.updates
    assert done == 4 * ((stop_at - 1) // 40)
    assert checkpoint.read_numbers(checkpoint.resolve(tmp_path))["learner"]["updates"] == updates
    again, bar, world = trainer(tmp_path), FakeProgress(), World()
    assert again.learner.updates == updates
    finetune(again, acting(world), store, range(100, 200), config(), bar)
    assert bar.start == done and bar.done == 12 - done
    assert store.seeds == list(range(100, 112))
    assert [row["seed"] for row in again.run.rows("episodes.jsonl")] == list(range(100, 112))
    assert again.learner.updates == 30  # as without the stop


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_in_an_update_leaves_an_exact_state(tmp_path: Path, times: int) -> None:
    # Once: the update comes to its end. Twice: what it had begun is not saved.
    def press(update: int) -> None:
        for _ in range(times * (update == 13)):
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    store, learner = FakeStore(), FakeLearner(press)
    try:
        with pytest.raises(KeyboardInterrupt):
            made = trainer(tmp_path, learner=learner)
            finetune(made, acting(World()), store, range(100, 200), config(), FakeProgress())
    finally:
        signal.signal(signal.SIGINT, before)
    saved = checkpoint.read_numbers(checkpoint.resolve(tmp_path))["learner"]["updates"]
    assert (learner.updates, saved) == ((13, 13) if times == 1 else (12, 10))  # 10: as of episode 8


@pytest.mark.parametrize("stop_at", [20, 44, 60, 100])
def test_after_a_crash_the_ratio_of_updates_to_steps_is_kept(tmp_path: Path, stop_at: int) -> None:
    # A crash saves no checkpoint: the episodes are still there, what was learned from them is not.
    store = FakeStore()
    rare = config(save_every=100)
    with pytest.raises(RuntimeError):
        crash = acting(World(stop_at, error=RuntimeError))
        finetune(trainer(tmp_path), crash, store, range(100, 200), rare, FakeProgress())
    again = trainer(tmp_path)
    assert again.learner.updates == 0
    finetune(again, acting(World()), store, range(100, 200), rare, FakeProgress())
    assert store.seeds == list(range(100, 112))
    assert again.learner.updates == 30


def test_steps_are_counted_where_episodes_end_early(tmp_path: Path) -> None:
    class Short(World):
        def __call__(self, weights: Mapping[str, torch.Tensor], seeds: Sequence[int]) -> Iterator[Episode]:
            yield from (episode(seed, rows=2 + seed) for seed in seeds)

    made, store = trainer(tmp_path), FakeStore()
    for episodes in (2, 4):  # the second time a run that goes on
        finetune(trainer(tmp_path), acting(Short()), store, range(4), config(episodes=episodes, envs=2), FakeProgress())
    assert [row["env_steps"] for row in made.run.rows("episodes.jsonl")] == [1, 3, 6, 10]


def test_a_stop_between_two_episodes_of_a_group_repeats_no_layout(tmp_path: Path) -> None:
    # Episodes may end in any order, so the first k that are stored need not be those of the first k seeds.
    store, made = FakeStore(), trainer(tmp_path)

    def stop(row: dict[str, Any]) -> None:
        if row["episode"] == 5:
            raise KeyboardInterrupt

    backwards = World(order=lambda seeds: seeds[::-1])
    with pytest.raises(KeyboardInterrupt):
        finetune(made, acting(backwards), store, range(100, 200), config(), FakeProgress(), on_episode=stop)
    assert len(store.episodes) == 6
    finetune(trainer(tmp_path), acting(backwards), store, range(100, 200), config(), FakeProgress())
    assert sorted(store.seeds) == list(range(100, 112))


@pytest.mark.parametrize("at", [0, 2, 5, 11])
def test_a_crash_before_the_row_of_an_episode_leaves_it_with_one(tmp_path: Path, at: int) -> None:
    store, made = Store.create(tmp_path / "episodes", SCHEMA), trainer(tmp_path / "run")
    written = made.run.append

    def crash(name: str, row: dict[str, Any]) -> None:
        if row["episode"] == at:
            raise MemoryError
        written(name, row)

    made.run.append = crash  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        finetune(made, acting(World()), store, range(100, 200), config(), FakeProgress())
    assert len(store) == at + 1  # the episode is there
    again, world = trainer(tmp_path / "run"), World()
    finetune(again, acting(world), store, range(100, 200), config(), FakeProgress())
    rows = again.run.rows("episodes.jsonl")
    assert [row["seed"] for row in rows] == [row["seed"] for row in store.manifest] == list(range(100, 112))
    assert [row["episode"] for row in rows] == list(range(12))
    assert [row["env_steps"] for row in rows] == [STEPS * k for k in range(1, 13)]
    assert [row["return"] for row in rows] == pytest.approx([row["return"] for row in store.manifest])
    assert [row["chosen_online"] for row in rows] == pytest.approx([0.3] * 12)  # its group was acted again


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    store = FakeStore()
    path = finetune(trainer(tmp_path), acting(World()), store, range(100, 200), config(), FakeProgress())
    world = World()
    assert finetune(trainer(tmp_path), acting(world), store, range(100, 200), config(), FakeProgress()) == path
    assert world.groups == [] and len(store.episodes) == 12


def test_checkpoints_come_every_so_many_episodes(tmp_path: Path) -> None:
    saved: list[int] = []
    made = trainer(tmp_path)
    original = made.save
    made.save = lambda *given: saved.append(len(store.episodes)) or original(*given)  # type: ignore[method-assign,func-returns-value]
    store = FakeStore()
    finetune(made, acting(World()), store, range(100, 200), config(episodes=24, save_every=8), FakeProgress())
    assert saved == [8, 16, 24, 24]


# ---------------------------------------------------------------------------------------------------------------------
# With a real learner, log, sampler and policy.


def offline_checkpoint(folder: Path) -> Path:
    """A checkpoint of a few offline updates."""
    made = learner()
    for seed in range(2):
        made.update(batch(seed))
    settings = RunConfig(model=MODEL, agent=AGENT)
    facts = {"method": "fosp", "schema": SCHEMA.to_json(), "config": to_tree(settings)}
    return checkpoint.save(folder, made.updates, facts, made.weights(), *made.state())


@dataclass
class Tuned:
    """Fine-tuning in ``folder``, or the rest of it where that holds a checkpoint, as a new process does it."""

    folder: Path
    source: Path
    config: OnlineConfig = OnlineConfig(episodes=6, envs=2, updates_per_step=0.2, save_every=4)
    place: type[Here] | type[Elsewhere] = Here
    stop_at_update: int = 0
    stop_at_episode: int = 0
    error: type[BaseException] = KeyboardInterrupt

    def run(self) -> Tuned:
        agent, facts = wire.load_agent(self.source)
        settings = RunConfig(model=MODEL, agent=AGENT, online=self.config)
        self.learner = wire.build_expansion(agent, settings, torch.device("cpu"))
        torch.manual_seed(next(PROCESSES))  # no process has the global generator of another
        episodes, log = self.folder / "episodes", Store.create(self.folder / next(LOGS), SCHEMA)
        log.append(episode(50))
        store = Store.open(episodes, append=True) if episodes.exists() else Store.create(episodes, SCHEMA)
        samplers = Sampler(log, 2, 6, 0), Sampler(store, 2, 6, 1)
        run = Run(self.folder / "run")
        run.begin("", {})
        sampler = Prefetcher(MixedSampler(*samplers, 0.5))
        tuning = Trainer(self.learner, sampler, run, TrainingConfig(), "cpu", {**facts, "expanded": True})
        tuning.resume()
        step = tuning.step

        def stop(now: int, at: int) -> None:
            if now == at:
                raise self.error

        tuning.step = lambda: step() or stop(self.learner.updates, self.stop_at_update)  # type: ignore[method-assign]
        seen = lambda row: stop(row["episode"] + 1, self.stop_at_episode)  # noqa: E731
        actor = self.place(partial(wire.OnlineActing, settings, SCHEMA, TinyEnv, 0, None))
        try:
            self.path = finetune(tuning, actor, store, range(9, 20), self.config, FakeProgress(), seen)
        finally:
            for used in (actor, sampler, store):
                used.close()
        return self

    def __eq__(self, other: object) -> bool:
        """The same weights, optimisers and episodes, to the bit."""
        assert isinstance(other, Tuned)
        stores = [Store.open(run.folder / "episodes") for run in (self, other)]
        parts = ("policy/model", "training_state/state")
        return stores[0].hash == stores[1].hash and all(
            same(checkpoint.read_tensors(self.path, part), checkpoint.read_tensors(other.path, part)) for part in parts
        )


PROCESSES, LOGS = count(1000), (f"log{n}" for n in count())


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return offline_checkpoint(tmp_path_factory.mktemp("offline"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Tuned:
    with pytest.MonkeyPatch.context() as patch:
        no_board(patch)
        return Tuned(tmp_path_factory.mktemp("whole"), source).run()


def test_acting_meanwhile_or_in_turn_is_the_same_run(tmp_path: Path, source: Path, whole: Tuned) -> None:
    meanwhile = Tuned(tmp_path / "meanwhile", source, place=Elsewhere).run()
    assert meanwhile.learner.updates == 10 and meanwhile == whole
    other = Tuned(tmp_path / "other", source, replace(whole.config, updates_per_step=0.3)).run()
    assert other != whole


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize(
    "moment",
    [{"stop_at_episode": n} for n in (1, 2, 3)] + [{"stop_at_update": n} for n in (1, 4, 10)],
    ids=str,
)
def test_a_stopped_run_ends_as_one_that_was_not(
    tmp_path: Path, source: Path, whole: Tuned, moment: dict[str, Any], error: type[BaseException]
) -> None:
    with pytest.raises(error):
        Tuned(tmp_path / "cut", source, **moment, error=error).run()
    assert Tuned(tmp_path / "cut", source).run() == whole


def test_the_weights_of_a_stopped_round_do_not_act_in_the_next(tmp_path: Path, source: Path, whole: Tuned) -> None:
    with pytest.raises(KeyboardInterrupt):  # the second group is half acted, its updates are made
        Tuned(tmp_path / "cut", source, stop_at_episode=3).run()
    with pytest.raises(RuntimeError):  # a crash in the third group, with no checkpoint since
        Tuned(tmp_path / "cut", source, stop_at_episode=5, error=RuntimeError).run()
    assert Tuned(tmp_path / "cut", source).run() == whole


@pytest.mark.parametrize("moment", [{"stop_at_episode": 5}, {"stop_at_update": 7}], ids=str)
def test_falling_rates_go_on_where_they_were(tmp_path: Path, source: Path, moment: dict[str, Any]) -> None:
    falling = OnlineConfig(episodes=6, envs=2, updates_per_step=0.2, save_every=4, decay=0.7)
    whole = Tuned(tmp_path / "whole", source, falling).run()
    with pytest.raises(KeyboardInterrupt):
        Tuned(tmp_path / "cut", source, falling, **moment).run()
    assert Tuned(tmp_path / "cut", source, falling).run() == whole


@pytest.mark.parametrize("fresh", [False, True])
def test_1_online_training_moves_the_trained_policy_and_never_the_frozen_one(
    tmp_path: Path, source: Path, fresh: bool
) -> None:
    config = OnlineConfig(episodes=6, envs=2, updates_per_step=0.2, fresh_actor=fresh)
    run = Tuned(tmp_path, source, config).run()
    made, path = run.learner, run.path

    def named(prefix: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}

    assert made.updates == 10
    offline = named("actor.", checkpoint.read_tensors(source, "policy/model"))
    loaded = wire.load_agent(path)[0].state_dict()
    for weights in (made.weights(), checkpoint.read_tensors(path, "policy/model"), loaded):
        frozen, trained = named("offline_actor.", weights), named("actor.", weights)
        assert same(frozen, offline)  # bit for bit
        assert frozen.keys() == trained.keys()
        assert all(not torch.equal(trained[name], frozen[name]) for name in frozen)
    assert made.agent.offline_actor is not None
    memory = {p.data_ptr() for p in made.agent.offline_actor.parameters()}
    assert not memory & {p.data_ptr() for p in made.agent.actor.parameters()}


def test_1_the_trained_policy_starts_from_the_frozen_one(tmp_path: Path) -> None:
    source = offline_checkpoint(tmp_path / "offline")
    for fresh in (False, True):
        agent, _ = wire.load_agent(source)
        offline = copied(agent.actor.state_dict())
        settings = RunConfig(model=MODEL, agent=AGENT, online=OnlineConfig(fresh_actor=fresh))
        made = wire.build_expansion(agent, settings, torch.device("cpu")).agent
        assert made.offline_actor is not None
        assert same(made.offline_actor.state_dict(), offline)
        assert same(made.actor.state_dict(), offline) is not fresh
        assert all(p.requires_grad for p in made.actor.parameters())
        assert not any(p.requires_grad for p in made.offline_actor.parameters())


@pytest.mark.parametrize("average", [1.0, 0.1])
def test_whether_an_average_acts_may_be_changed_in_fine_tuning(tmp_path: Path, average: float) -> None:
    agent, _ = wire.load_agent(offline_checkpoint(tmp_path))
    settings = RunConfig(model=MODEL, agent=replace(AGENT, average=average))
    made = wire.build_expansion(agent, settings, torch.device("cpu")).agent
    twin = Agent(MODEL, settings.agent, SCHEMA)  # as the process that acts builds it
    twin.expand()
    twin.load_state_dict(made.state_dict())
    assert (made.average_actor is None) is (average == 1.0)
    assert same(made.policy.state_dict(), made.actor.state_dict())


@pytest.mark.parametrize("mirror", [True, False])
def test_whether_the_mirrored_world_is_learned_from_may_be_changed_in_fine_tuning(mirror: bool) -> None:
    schema = replace(SCHEMA, mirror=(1.0, -1.0))
    agent = Agent(MODEL, replace(AGENT, mirror=not mirror), schema)
    settings = RunConfig(model=MODEL, agent=replace(AGENT, mirror=mirror))
    made = wire.build_expansion(agent, settings, torch.device("cpu")).agent
    assert made.mirror == ((1.0, -1.0) if mirror else ())


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (RunConfig(model=replace(MODEL, deter=16), agent=AGENT), "model.deter"),
        (RunConfig(model=MODEL, agent=replace(AGENT, units=32)), "agent.units"),
    ],
)
def test_sizes_cannot_be_changed_in_fine_tuning(tmp_path: Path, settings: RunConfig, key: str) -> None:
    # The checkpoint of the fine-tuned agent would describe networks that it does not hold.
    agent, _ = wire.load_agent(offline_checkpoint(tmp_path))
    with pytest.raises(UserError, match=key):
        wire.build_expansion(agent, settings, torch.device("cpu"))
