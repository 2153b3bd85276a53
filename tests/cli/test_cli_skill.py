"""Minutes until a policy beats its log: real training on a tiny log, with scores that are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builders
import pytest
import torch

from fosp import api
from fosp.cli import skill
from fosp.cli.skill import Options
from fosp.data.store import Store
from fosp.presets import PRESETS, resolve
from fosp.training import checkpoint
from fosp.types import UserError

TINY = (
    "model.deter=16", "model.groups=4", "model.classes=4", "model.units=16", "model.layers=1", "model.depth=4",
    "model.decode_width=8", "model.stem=2", "model.bins=41", "agent.units=16", "agent.layers=1", "agent.bins=41",
    "agent.horizon=3", "agent.starts=4", "agent.ahead=2", "training.batch=2", "training.length=8",
    "training.latent_batch=2", "training.updates=4", "training.latent_updates=6", "training.precision=float32",
)  # fmt: skip


def row(
    preset: str, seed: int, minutes: float, beats: bool, vary: str = "", gain: float = 0.0, cost: float = 0.0
) -> dict[str, Any]:
    return {
        "preset": preset, "vary": vary, "seed": seed, "minutes": minutes, "beats_log": beats,
        "return": {"mean": gain}, "cost": {"mean": cost},
    }  # fmt: skip


def test_the_first_checkpoint_that_beats_the_log_counts_and_a_seed_that_never_does_counts_as_never() -> None:
    rows = [row("a", 0, 3.0, False), row("a", 0, 4.0, True), row("a", 0, 5.0, False), row("b", 0, 1.0, True)]
    rows += [row("a", 1, 6.0, True), row("a", 2, 2.0, False), row("a", 2, 1.0, True, vary="c=1")]
    found = skill.summary(rows, "a")
    assert (found["minutes"], found["median"]) == ({0: 4.0, 1: 6.0, 2: None}, 6.0)
    assert skill.summary(rows, "a", "c=1")["minutes"] == {2: 1.0}
    rows[4]["beats_log"] = False
    assert skill.summary(rows, "a")["median"] is None


def test_the_end_is_the_mean_of_the_last_three_scores_of_each_seed() -> None:
    rows = [row("a", 0, float(i), False, gain=g, cost=10 * g) for i, g in enumerate((100.0, 1.0, 2.0, 6.0))]
    rows += [row("a", 1, 0.0, False, gain=5.0, cost=2.0)]
    end = skill.summary(rows, "a")["end"]
    assert end == {"return": {"mean": 4.0, "seeds": {0: 3.0, 1: 5.0}}, "cost": {"mean": 16.0, "seeds": {0: 30, 1: 2}}}


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The checkpoints that were scored, while logs, networks and scores are as small as can be."""
    scored: list[Path] = []

    def collect(task: str, out: Path, **options: Any) -> Store:
        if (out / "dataset.json").exists():
            return Store.open(out)
        store = Store.create(out, builders.SCHEMA)
        for seed in range(2):
            store.append(builders.episode(seed))
        return store

    def evaluate(paths: dict[str, Path], **options: Any) -> dict[str, Any]:
        (path,) = paths.values()
        scored.append(path)
        updates = int(checkpoint.read_config(path)["updates"])
        value = {"mean": float(updates), "low": updates - 1.0, "high": updates + 1.0, "n": 2}
        none = {"mean": -1.0, "low": -1.0, "high": -1.0, "n": 2}
        return {"policies": [{"summary": {"return": value, "cost": none}}]}

    monkeypatch.setattr(api, "collect", collect)
    monkeypatch.setattr(api, "evaluate", evaluate)
    monkeypatch.setitem(PRESETS, "laptop", resolve("laptop", overrides=TINY))
    return scored


def test_every_checkpoint_of_the_second_stage_is_scored_once(
    tmp_path: Path, scored: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    options = Options(seeds=(0,), log_episodes=2, layouts=2, every=2, out=tmp_path)
    assert skill.run(options) == 0
    assert [path.name for path in scored] == ["00000006", "00000008", "00000010"]  # before, no policy has begun
    found = json.loads((tmp_path / "results" / "skill.json").read_text())
    log = found["rows"][0]["log"]["return"]
    assert [r["beats_log"] for r in found["rows"]] == [r["updates"] > log for r in found["rows"]]
    assert (tmp_path / "results" / "skill.png").stat().st_size > 5000
    assert "laptop" in capsys.readouterr().out
    assert skill.run(options) == 0
    assert len(scored) == 3
    assert json.loads((tmp_path / "results" / "skill.json").read_text())["rows"] == found["rows"]


def test_runs_that_differ_in_the_second_stage_alone_share_their_world_model(tmp_path: Path, scored: list[Path]) -> None:
    vary = ("agent.gamma=0.9 agent.average=1", "agent.gamma=0.9 agent.model_scales.image=1")
    options = Options(
        seeds=(0,), log_episodes=2, layouts=2, every=2, last=2, out=tmp_path, vary=vary, set=("model.depth=3",)
    )
    assert skill.run(options) == 0
    ends = "-0", "-agent.gamma=0.9_agent.average=1-0", "-agent.gamma=0.9_agent.model_scales.image=1-0"
    names = ["laptop" + end for end in ends]
    counts = [["00000008", "00000010"], ["00000004", "00000006"], ["00000008", "00000010"]]
    assert [path.parent.parent.name for path in scored] == [name for name in names for _ in range(2)]
    assert [path.name for path in scored] == sum(counts, [])
    plain, shared, other = (_weights(path, "model.") for path in scored[1::2])
    assert all(shared[name].equal(weight) for name, weight in plain.items())
    assert not all(other[name].equal(weight) for name, weight in plain.items())
    rows = json.loads((tmp_path / "results" / "skill.json").read_text())["rows"]
    assert [(row["vary"], row["updates"]) for row in rows] == [(v, u) for v in ("", *vary) for u in (8, 10)]
    assert checkpoint.read_config(scored[2])["config"]["agent"]["gamma"] == 0.9
    before = checkpoint.read_numbers(tmp_path / names[0] / "checkpoints" / "00000004")["elapsed"]
    assert rows[2]["minutes"] == pytest.approx((before + checkpoint.read_numbers(scored[2])["elapsed"]) / 60)


def test_what_is_learned_of_the_world_does_not_depend_on_what_is_shared(tmp_path: Path, scored: list[Path]) -> None:
    """Every setting of ``_BEHAVIOUR`` changed: the first stage is the same to the bit."""
    changes = (
        "agent.units=24", "agent.layers=2", "agent.bins=43", "agent.gamma=0.9", "agent.lam=0.5", "agent.horizon=2",
        "agent.explore_first=0", "agent.expectile_reward=0.6", "agent.slow_fraction=0.3", "agent.average=0.5",
        "agent.reach_gamma=0.5", "agent.critic_scales.q_cost=3", "agent.actor_scales.entropy=1",
        "agent.weights.clip=3", "agent.constraint.budget=1", "optimiser.critic_rate=1", "optimiser.actor_rate=1",
    )  # fmt: skip
    assert {change.split("=")[0] for change in changes if not skill._leaves_the_world(change)} == set()
    assert all(any(change.startswith(name) for change in changes) for name in skill._BEHAVIOUR)
    log = tmp_path / "log"
    api.collect("", log).close()
    worlds = []
    for i, given in enumerate(((), changes)):
        api.pretrain(log, tmp_path / str(i), overrides=("training.latent_updates=1", "training.save_every=4", *given))
        worlds.append(_weights(tmp_path / str(i) / "checkpoints" / "00000004", "model."))
    assert worlds[0] and all(worlds[1][name].equal(weight) for name, weight in worlds[0].items())


def _weights(path: Path, part: str) -> dict[str, torch.Tensor]:
    return {k: v for k, v in checkpoint.read_tensors(path, "policy/model").items() if k.startswith(part)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(layouts=0), "--layouts 0"),
        (Options(every=-1), "--every -1"),
        (Options(preset=("labtop",)), "'laptop'"),
        (Options(seeds=()), "--seeds"),
        (Options(set=("agent.horizn=3",)), "agent.horizon"),
        (Options(vary=("agent.gamma=0.9 agent.horizn=3",)), "agent.horizon"),
        (Options(last=-1), "--last -1"),
    ],
)
def test_mistakes_are_told_at_once(options: Options, words: str) -> None:
    with pytest.raises(UserError, match=words):
        skill.run(options)
