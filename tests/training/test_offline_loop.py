"""The offline loop: when it stops, what it writes, how it goes on, and that no environment is touched."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import AGENT, MODEL, SCHEMA, episode
from builders import learner as make_learner
from fakes import FakeLatents, FakeLearner, FakeProgress, no_board, train, trainer

from fosp.data.sampler import Prefetcher, Sampler
from fosp.data.store import Store
from fosp.training import checkpoint, offline
from fosp.training.log import Run
from fosp.training.offline import Trainer, TrainingConfig
from fosp.types import UserError


@pytest.fixture(autouse=True)
def _no_board(monkeypatch: pytest.MonkeyPatch) -> None:
    no_board(monkeypatch)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def steps(folder: Path) -> list[int]:
    return [row["step"] for row in rows(folder)]


def test_trains_to_the_last_update_and_saves_on_the_way(tmp_path: Path) -> None:
    made = trainer(tmp_path, TrainingConfig(updates=25, save_every=10, log_every=5), method="fosp")
    bar, seen = FakeProgress(), []
    path = train(made, bar, lambda path, _: seen.append(path))
    assert [int(p.name) for p in seen] == [10, 20, 25]
    assert path == seen[-1] == checkpoint.resolve(tmp_path)
    assert (bar.start, bar.done, made.learner.updates) == (0, 25, 25)
    assert steps(tmp_path) == [5, 10, 15, 20, 25]
    assert checkpoint.read_config(path)["method"] == "fosp"
    checkpoint.check_files(path)


def test_an_end_that_is_also_a_checkpoint_is_saved_once(tmp_path: Path) -> None:
    seen: list[int] = []
    made = trainer(tmp_path, TrainingConfig(updates=20, save_every=10))
    train(made, FakeProgress(), lambda path, _: seen.append(int(path.name)))
    assert seen == [10, 20]


def test_metrics_are_means_since_the_row_before(tmp_path: Path) -> None:
    made = trainer(tmp_path, TrainingConfig(updates=8, log_every=4))
    made.learner.skipped_steps = 3
    train(made, FakeProgress())
    assert [row["model/updates"] for row in rows(tmp_path)] == [2.5, 6.5]
    assert [row["clock/skipped_steps"] for row in rows(tmp_path)] == [3, 3]
    assert all(row["clock/updates_per_second"] > 0 for row in rows(tmp_path))


def test_a_metric_that_not_every_update_has_is_averaged_over_those_that_have_it(tmp_path: Path) -> None:
    # The policy may learn in every second update only, or from the middle of an interval on.
    train(trainer(tmp_path, TrainingConfig(updates=9, log_every=3)), FakeProgress())
    assert [row["actor/ten"] for row in rows(tmp_path)] == [10.0, 10.0, 10.0]


def strictly(line: str) -> dict[str, Any]:
    """JSON without the words that Python adds to it."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    return json.loads(line, parse_constant=refuse)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_metric_that_is_not_finite_is_null(tmp_path: Path, value: float) -> None:
    from fosp.report.load import load_run

    made = trainer(tmp_path, TrainingConfig(updates=2, log_every=1))
    made.run.metrics(0, {"model/loss": value, "model/kl": 1.0})
    made.run.append("episodes.jsonl", {"return": value, "cost": 0.0})
    train(made, FakeProgress())
    row = strictly((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert row["model/loss"] is None and row["model/kl"] == 1.0
    assert strictly((tmp_path / "episodes.jsonl").read_text()) == {"return": None, "cost": 0.0}
    curves = load_run(tmp_path).metrics
    assert "model/loss" not in curves and curves["model/kl"].value.tolist() == [1.0]
    trainer(tmp_path, TrainingConfig(updates=3, log_every=1))  # a rerun reads it too
    assert steps(tmp_path) == [0, 1, 2]


class Clock:
    """Time goes by in updates only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(offline.time, "perf_counter", lambda: self.now)


def test_minutes_end_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def half_a_minute(_: int) -> None:
        clock.now += 30

    config = TrainingConfig(updates=1000, minutes=2, save_every=3, log_every=1)
    path = train(trainer(tmp_path, config, FakeLearner(half_a_minute)), FakeProgress())
    assert int(path.name) == 4
    assert [row["clock/seconds"] for row in rows(tmp_path)] == [30, 60, 90, 120]
    assert rows(tmp_path)[-1]["clock/updates_per_second"] == pytest.approx(1 / 30, rel=1e-4)


def test_minutes_before_a_restart_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    config = TrainingConfig(updates=1000, minutes=2)

    def half_a_minute(_: int) -> None:
        clock.now += 30

    with pytest.raises(KeyboardInterrupt):
        train(trainer(tmp_path, config, FakeLearner(half_a_minute)), FakeProgress(stop_at=2))
    clock.now += 1000  # the night between does not count

    path = train(trainer(tmp_path, config, FakeLearner(half_a_minute)), FakeProgress())
    assert int(path.name) == 4


def test_all_that_a_run_spends_its_time_on_counts_into_the_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)

    def spend(seconds: float) -> Any:
        clock.now += seconds

    config = TrainingConfig(updates=2, latent_updates=100, minutes=4, save_every=1)
    made = trainer(tmp_path, config, FakeLearner(lambda _: spend(10)))
    # Films 20 s each, encoding 50 s: 2 x 30 + 50 + 4 x 30 < 240 s, and the next update is the last.
    train(made, FakeProgress(), on_save=lambda *_: spend(20), encode=lambda: spend(50) or FakeLatents())
    assert made.learner.updates == 7
    again = trainer(tmp_path, config, stop_at(8, AssertionError))
    assert again.elapsed >= 240 - 20 and again.seconds == 70


def test_who_looks_at_checkpoints_is_told_the_updates_of_their_world_models(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    made = trainer(tmp_path, TrainingConfig(updates=2, latent_updates=2, save_every=1), FakeLearner())
    train(made, FakeProgress(), lambda path, updates: seen.append((int(path.name), updates)), FakeLatents)
    assert seen == [(1, 1), (2, 2), (3, 2), (4, 2)]


@pytest.mark.parametrize(("minutes", "first", "second"), [(10, 16, 4), (9, 15, 3), (1000, 20, 5)])
@pytest.mark.parametrize("cut", [None, 3, 17])
def test_both_stages_have_their_part_of_the_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: int, first: int, second: int, cut: int | None
) -> None:
    # Half a minute for an update on images and for one on states: 20 of 25 updates are four fifths of the time.
    clock = Clock(monkeypatch)
    config = TrainingConfig(updates=20, latent_updates=5, minutes=minutes, save_every=100)

    def half_a_minute(_: int) -> None:
        clock.now += 30

    if cut is not None:
        with pytest.raises(KeyboardInterrupt):
            train(trainer(tmp_path, config, FakeLearner(half_a_minute)), FakeProgress(cut), encode=FakeLatents)
    made = trainer(tmp_path, config, FakeLearner(half_a_minute))
    path = train(made, FakeProgress(), encode=FakeLatents)
    assert (made.encoded_at, made.learner.updates) == (first, first + second)
    assert checkpoint.read_numbers(path)["encoded_at"] == first
    again = trainer(tmp_path, config, stop_at(first + second + 1, AssertionError))
    assert train(again, FakeProgress(), encode=FakeLatents) == path


def stop_at(update: int, error: type[BaseException]) -> FakeLearner:
    def stop(now: int) -> None:
        if now == update:
            raise error

    return FakeLearner(stop)


def test_ctrl_c_saves_and_a_rerun_goes_on(tmp_path: Path) -> None:
    config = TrainingConfig(updates=12, save_every=100, log_every=1)
    train(trainer(tmp_path / "whole", config), FakeProgress())
    with pytest.raises(KeyboardInterrupt):
        train(trainer(tmp_path / "cut", config), FakeProgress(stop_at=7))
    assert int(checkpoint.resolve(tmp_path / "cut").name) == 7
    made = trainer(tmp_path / "cut", config)
    bar = FakeProgress()
    train(made, bar)
    assert (bar.start, bar.done) == (7, 5)
    assert steps(tmp_path / "cut") == steps(tmp_path / "whole")


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """Also where the tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def presses(update: int, times: int) -> FakeLearner:
    """Ctrl-C in the middle of an update."""

    def press(now: int) -> None:
        for _ in range(times * (now == update)):
            signal.raise_signal(signal.SIGINT)

    return FakeLearner(press)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_waits_for_the_end_of_the_update(tmp_path: Path) -> None:
    config = TrainingConfig(updates=12, save_every=5, log_every=1)
    whole, made, bar = (
        trainer(tmp_path / "whole", config),
        trainer(tmp_path / "cut", config, presses(8, 1)),
        FakeProgress(),
    )
    train(whole, FakeProgress())
    with pytest.raises(KeyboardInterrupt):
        train(made, bar)
    assert int(checkpoint.resolve(tmp_path / "cut").name) == made.learner.updates == bar.done == 8
    assert steps(tmp_path / "cut") == list(range(1, 9))
    again = trainer(tmp_path / "cut", config)
    train(again, FakeProgress())
    assert torch.equal(again.learner.weights()["weight"], whole.learner.weights()["weight"])
    assert again.sampler.state_dict() == whole.sampler.state_dict()


@pytest.mark.usefixtures("hears_ctrl_c")
def test_a_second_ctrl_c_breaks_the_update_off_and_saves_nothing_of_it(tmp_path: Path) -> None:
    config = TrainingConfig(updates=12, save_every=5, log_every=1)
    learner = presses(8, 2)
    with pytest.raises(KeyboardInterrupt):
        train(trainer(tmp_path, config, learner), FakeProgress())
    assert learner.updates == 7 and int(checkpoint.resolve(tmp_path).name) == 5
    train(trainer(tmp_path, config), FakeProgress())
    assert steps(tmp_path) == list(range(1, 13))


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_is_heard_as_before_once_training_has_ended(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(trainer(tmp_path, TrainingConfig(updates=4), presses(2, 1)), FakeProgress())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    train(trainer(tmp_path, TrainingConfig(updates=4), presses(3, 2)), FakeProgress())
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_after_a_crash_the_same_updates_are_made_again(tmp_path: Path) -> None:
    # A crash saves nothing: what was logged after the last checkpoint is dropped, the same batches come again.
    config = TrainingConfig(updates=12, save_every=5, log_every=1)
    whole = trainer(tmp_path / "whole", config)
    train(whole, FakeProgress())
    with pytest.raises(RuntimeError):
        train(trainer(tmp_path / "cut", config, stop_at(9, RuntimeError)), FakeProgress())
    assert steps(tmp_path / "cut") == list(range(1, 9))
    made = trainer(tmp_path / "cut", config)
    assert made.learner.updates == 5
    assert steps(tmp_path / "cut") == list(range(1, 6))
    train(made, FakeProgress())
    assert steps(tmp_path / "cut") == list(range(1, 13))
    assert torch.equal(made.learner.weights()["weight"], whole.learner.weights()["weight"])
    assert made.sampler.state_dict() == whole.sampler.state_dict()


def test_the_second_stage_learns_from_the_encoded_log(tmp_path: Path) -> None:
    config = TrainingConfig(updates=4, latent_updates=3, log_every=1)
    encoded_after: list[int] = []

    def encode() -> FakeLatents:
        encoded_after.append(made.learner.updates)
        return FakeLatents()

    made, bar = trainer(tmp_path, config), FakeProgress()
    path = train(made, bar, encode=encode)
    assert encoded_after == [4]
    assert int(path.name) == 7 and bar.done == 7
    assert steps(tmp_path) == list(range(1, 8))
    assert made.sampler.state_dict() == {"count": 3}


def test_rates_fall_at_the_end_of_each_stage(tmp_path: Path) -> None:
    config = TrainingConfig(updates=4, latent_updates=5, decay=0.5)
    with pytest.raises(KeyboardInterrupt):
        train(trainer(tmp_path, config), FakeProgress(stop_at=3), encode=FakeLatents)
    made = trainer(tmp_path, config)
    train(made, FakeProgress(), encode=FakeLatents)
    assert made.learner.shares == pytest.approx([0.5, 1, 1, 1, 0.8, 0.4])  # type: ignore[attr-defined]


def test_rates_stay_where_no_decay_is_asked_for(tmp_path: Path) -> None:
    made = trainer(tmp_path, TrainingConfig(updates=3))
    train(made, FakeProgress())
    assert made.learner.shares == [1.0, 1.0, 1.0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("stop", [3, 4, 5, 6])
@pytest.mark.parametrize("crash", [False, True])
def test_a_rerun_finds_its_stage(tmp_path: Path, stop: int, crash: bool) -> None:
    # Stopped before, at and after the change of stages, with and without a checkpoint of that very moment.
    config = TrainingConfig(updates=4, latent_updates=3, save_every=4, log_every=1)
    whole = trainer(tmp_path / "whole", config)
    train(whole, FakeProgress(), encode=FakeLatents)
    if crash:
        with pytest.raises(RuntimeError):
            train(trainer(tmp_path / "cut", config, stop_at(stop, RuntimeError)), FakeProgress(), encode=FakeLatents)
    else:
        with pytest.raises(KeyboardInterrupt):
            train(trainer(tmp_path / "cut", config), FakeProgress(stop_at=stop), encode=FakeLatents)
    made = trainer(tmp_path / "cut", config)
    train(made, FakeProgress(), encode=FakeLatents)
    assert torch.equal(made.learner.weights()["weight"], whole.learner.weights()["weight"])
    assert made.sampler.state_dict() == whole.sampler.state_dict()
    assert steps(tmp_path / "cut") == list(range(1, 8))


def test_half_a_line_of_metrics_is_dropped(tmp_path: Path) -> None:
    config = TrainingConfig(updates=4, save_every=4, log_every=1)
    train(trainer(tmp_path, config), FakeProgress())
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "mod')
    train(trainer(tmp_path, TrainingConfig(updates=6, log_every=1)), FakeProgress())
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    config = TrainingConfig(updates=6)
    path = train(trainer(tmp_path, config), FakeProgress())
    (path / "scores.json").write_text("{}")  # evaluation notes the score of a checkpoint here
    before = rows(tmp_path) if (tmp_path / "metrics.jsonl").read_text() else []
    bar = FakeProgress()
    assert train(trainer(tmp_path, config, stop_at(7, AssertionError)), bar) == path
    assert bar.done == 0 and (path / "scores.json").exists()
    assert (rows(tmp_path) if before else []) == before


def test_a_run_with_another_configuration_is_refused(tmp_path: Path) -> None:
    Run(tmp_path).begin("sizes: tiny\n", {})
    with pytest.raises(UserError, match="another run.*tiny.*huge"):
        Run(tmp_path).begin("sizes: huge\n", {})
    Run(tmp_path).begin("sizes: tiny\n", {"kind": "pretrain"})
    document = json.loads((tmp_path / "run.json").read_text())
    assert document["kind"] == "pretrain" and len(document["sessions"]) == 2
    assert {"command", "git", "started", "versions"} <= document.keys()


def test_a_line_cut_short_does_not_spoil_the_next_one(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.append("episodes.jsonl", {"episode": 0})
    with (tmp_path / "episodes.jsonl").open("a") as file:
        file.write('{"episode": 1, "re')
    assert run.rows("episodes.jsonl") == [{"episode": 0}]
    run.append("episodes.jsonl", {"episode": 1})
    assert run.rows("episodes.jsonl") == [{"episode": 0}, {"episode": 1}]
    assert run.rows("missing.jsonl") == []


def test_a_damaged_checkpoint_stops_a_rerun_with_its_name(tmp_path: Path) -> None:
    config = TrainingConfig(updates=4)
    path = train(trainer(tmp_path, config), FakeProgress())
    (path / "training_state" / "state.json").write_text("{")
    with pytest.raises(UserError, match="state.json"):
        trainer(tmp_path, config)


class Environment:
    """Any contact with it is an error."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"offline training asked an environment for {name}")

    def __call__(self, *_: object, **__: object) -> Any:
        raise AssertionError("offline training made an environment")


def forbid_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    import gymnasium

    import fosp.envs
    import fosp.envs.env

    forbidden = Environment()
    monkeypatch.setattr(gymnasium, "make", forbidden)
    monkeypatch.setattr(gymnasium, "make_vec", forbidden)
    monkeypatch.setattr(fosp.envs, "make", forbidden)
    for name in ("__init__", "reset", "step"):
        monkeypatch.setattr(fosp.envs.env.SafetyEnv, name, lambda *_, **__: forbidden())


def test_7_offline_pretraining_makes_no_environment_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.create(tmp_path / "log", SCHEMA)
    for seed in range(4):
        store.append(episode(seed))
    forbid_environments(monkeypatch)
    sampler = Prefetcher(Sampler(store, batch_size=2, length=6, seed=0))
    run = Run(tmp_path / "run")
    run.begin("", {})
    config = TrainingConfig(updates=4, save_every=2, log_every=1)
    made = Trainer(make_learner(), sampler, run, config, "cpu", {"method": "fosp"})
    made.resume()
    try:
        train(made, FakeProgress())
    finally:
        sampler.close()
    assert made.learner.updates == 4
    assert len(rows(tmp_path / "run")) == 4


def test_7_the_whole_command_touches_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fosp import api

    with Store.create(tmp_path / "log", SCHEMA) as store:
        for seed in range(4):
            store.append(episode(seed))
    forbid_environments(monkeypatch)
    sizes = [
        *(f"model.{k}={getattr(MODEL, k)}" for k in ("deter", "groups", "classes", "units", "layers", "depth", "bins")),
        *(f"agent.{k}={getattr(AGENT, k)}" for k in ("units", "layers", "bins", "horizon", "starts")),
        "model.decode_width=16", "model.stem=2", "model.whitening=0.5", "training.batch=2", "training.length=6",
        "training.updates=2", "training.latent_updates=2", "training.latent_batch=2", "training.precision=float32",
    ]  # fmt: skip
    path = api.pretrain(tmp_path / "log", tmp_path / "run", preset="tiny", overrides=sizes, device="cpu")
    assert int(path.name) == 4
    assert checkpoint.read_config(path)["dataset"]["episodes"] == 4
