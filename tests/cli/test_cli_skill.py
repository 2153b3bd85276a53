"""Minutes until a policy beats its log: real training on a tiny log, with scores that are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builders
import pytest

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


def row(preset: str, seed: int, minutes: float, beats: bool) -> dict[str, Any]:
    return {"preset": preset, "seed": seed, "minutes": minutes, "beats_log": beats}


def test_the_first_checkpoint_that_beats_the_log_counts_and_a_seed_that_never_does_counts_as_never() -> None:
    rows = [row("a", 0, 3.0, False), row("a", 0, 4.0, True), row("a", 0, 5.0, False), row("b", 0, 1.0, True)]
    rows += [row("a", 1, 6.0, True), row("a", 2, 2.0, False)]
    assert skill.summary(rows, "a") == {"preset": "a", "minutes": {0: 4.0, 1: 6.0, 2: None}, "median": 6.0}
    rows[4]["beats_log"] = False
    assert skill.summary(rows, "a")["median"] is None


def test_every_checkpoint_of_the_second_stage_is_scored_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scored: list[str] = []

    def collect(task: str, out: Path, **options: Any) -> Store:
        if (out / "dataset.json").exists():
            return Store.open(out)
        store = Store.create(out, builders.SCHEMA)
        for seed in range(2):
            store.append(builders.episode(seed))
        return store

    def evaluate(paths: dict[str, Path], **options: Any) -> dict[str, Any]:
        (label,) = paths
        scored.append(label)
        updates = int(checkpoint.read_config(paths[label])["updates"])
        value = {"mean": float(updates), "low": updates - 1.0, "high": updates + 1.0, "n": 2}
        none = {"mean": -1.0, "low": -1.0, "high": -1.0, "n": 2}
        return {"policies": [{"summary": {"return": value, "cost": none}}]}

    monkeypatch.setattr(api, "collect", collect)
    monkeypatch.setattr(api, "evaluate", evaluate)
    monkeypatch.setitem(PRESETS, "laptop", resolve("laptop", overrides=TINY))
    options = Options(seeds=(0,), log_episodes=2, layouts=2, every=2, out=tmp_path)
    assert skill.run(options) == 0
    assert scored == ["00000006", "00000008", "00000010"]  # at 2 and 4 the policy has not begun
    found = json.loads((tmp_path / "results" / "skill.json").read_text())
    log = found["rows"][0]["log"]["return"]
    assert [r["beats_log"] for r in found["rows"]] == [r["updates"] > log for r in found["rows"]]
    assert (tmp_path / "results" / "skill.png").stat().st_size > 5000
    assert "laptop" in capsys.readouterr().out
    assert skill.run(options) == 0
    assert len(scored) == 3
    assert json.loads((tmp_path / "results" / "skill.json").read_text())["rows"] == found["rows"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(layouts=0), "--layouts 0"),
        (Options(every=-1), "--every -1"),
        (Options(preset=("labtop",)), "'laptop'"),
        (Options(seeds=()), "--seeds"),
        (Options(set=("agent.horizn=3",)), "agent.horizon"),
    ],
)
def test_mistakes_are_told_at_once(options: Options, words: str) -> None:
    with pytest.raises(UserError, match=words):
        skill.run(options)
