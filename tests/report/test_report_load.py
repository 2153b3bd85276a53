"""Run folders as they are found: whole, in part, damaged."""

from __future__ import annotations

import json
from pathlib import Path

import fake_run
import numpy as np
import pytest

from fosp.report.load import load_rollout, load_run
from fosp.types import UserError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A fine-tuning run with everything, small."""
    folder = tmp_path / "runs" / "finetune"
    folder.mkdir(parents=True)
    fake_run.run_json(folder, "finetune", fake_run.dataset(tmp_path / "data", episodes=9), "twelve-hazards")
    fake_run.metrics(folder, "finetune", rows=10)
    fake_run.online(folder, episodes=5)
    fake_run.evaluation(folder / "evaluation" / "a.json", {"offline": ("pretrain", 10.0, 5.0)}, episodes=12)
    (folder / "rollouts").mkdir()
    fake_run.rollout(folder / "rollouts" / "rollout_offline_1.npz", "offline", 1, steps=6)
    return folder


def test_everything_is_found(run):
    loaded = load_run(run)
    assert (loaded.name, loaded.kind) == ("finetune", "finetune")
    assert len(loaded.metrics["model/image"].value) == 10
    assert loaded.seconds == pytest.approx(12000 * 0.08)
    assert (len(loaded.episodes), len(loaded.frozen), len(loaded.log)) == (5, 5, 9)
    assert [document["task"] for document in loaded.evaluations] == [fake_run.TASK]
    assert [file.name for file in loaded.rollouts] == ["rollout_offline_1.npz"]
    assert loaded.checkpoints[0]["name"] == "12000"
    assert "batch_size: 16" in loaded.config


def test_a_metric_that_comes_and_goes_keeps_its_steps(tmp_path):
    rows = [{"step": 1, "a": 1.0}, {"step": 2, "a": 2.0, "b": 5.0}, {"step": 3, "b": None}, {"step": 4, "b": 6.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = load_run(tmp_path).metrics
    assert metrics["a"].step.tolist() == [1, 2]
    assert metrics["b"].step.tolist() == [2, 4]


def test_the_log_may_be_given_relative_to_the_run(run, monkeypatch):
    record = json.loads((run / "run.json").read_text())
    record["dataset"]["path"] = "../../data"
    (run / "run.json").write_text(json.dumps(record))
    assert len(load_run(run).log) == 9
    record["dataset"]["path"] = "gone"
    (run / "run.json").write_text(json.dumps(record))
    assert load_run(run).log == []


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("run.json", "{", "run.json is damaged"),
        ("run.json", "[1, 2]", "expected a JSON object"),
        ("metrics.jsonl", '{"step": 1}\n{"st\n', "metrics.jsonl is damaged at line 2"),
        ("metrics.jsonl", '{"stop": 1}\n', "metrics.jsonl, line 1 is not a row with step"),
        ("episodes.jsonl", '{"return": 1}\n', "episodes.jsonl, line 1 is not a row with return and cost"),
        ("frozen.jsonl", "nonsense\n", "frozen.jsonl is damaged at line 1"),
        ("evaluation/a.json", '{"format": "other"}', "a.json has format 'other'"),
        (
            "evaluation/a.json",
            '{"format": "fosp-evaluation/1", "task": "t"}',
            "a.json is damaged: it has no 'policies'",
        ),
        (
            "evaluation/a.json",
            '{"format": "fosp-evaluation/1", "task": "t", "policies": [{"label": "a"}], "comparisons": [], '
            '"verdicts": {}, "cost_limit": 1}',
            "a.json is damaged: it has no 'return'",
        ),
        ("checkpoints/12000/manifest.json", "", "manifest.json is damaged"),
    ],
)
def test_a_damaged_file_is_named_in_one_sentence(run, file, content, words):
    (run / file).write_text(content)
    with pytest.raises(UserError) as error:
        load_run(run)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_half_a_last_line_is_what_a_killed_writer_leaves(run):
    with (run / "episodes.jsonl").open("a") as file:
        file.write('{"episode": 5, "retu')
    assert len(load_run(run).episodes) == 5


def test_folders_that_are_no_runs_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is not a run folder"):
        load_run(tmp_path)


# ------------------------------------------------------------------------------------------------------ rollouts


def test_a_rollout_with_everything(run):
    rollout = load_rollout(run / "rollouts" / "rollout_offline_1.npz")
    assert len(rollout) == 7
    assert set(rollout.images) == set(rollout.imagined) == {"image_front", "image_back"}
    assert set(rollout.traces) == {"violation_probability", "reward_value", "cost_value"}
    assert rollout.chosen is None  # -1 everywhere: one policy only
    assert rollout.meta["label"] == "offline"


def save(path: Path, **arrays) -> Path:
    np.savez(path, **arrays)
    return path


def test_a_rollout_of_a_policy_that_says_nothing_of_itself(tmp_path):
    nothing = np.full(4, np.nan)
    arrays = {"reward": np.ones(4), "cost": np.zeros(4), "violation_probability": nothing, "meta_json": "{}"}
    rollout = load_rollout(save(tmp_path / "r.npz", **arrays))
    assert (rollout.traces, rollout.images, rollout.overview, rollout.chosen) == ({}, {}, None, None)
    assert rollout.meta["label"] == "r"


@pytest.mark.parametrize(
    "arrays",
    [
        {"reward": np.ones(4), "cost": np.zeros(4)},  # no meta
        {"reward": np.ones(4), "meta_json": "{}"},  # no cost
        {"reward": np.ones(4), "cost": np.zeros(3), "meta_json": "{}"},  # other lengths
        {"reward": np.ones(0), "cost": np.zeros(0), "meta_json": "{}"},
        {"reward": np.ones(4), "cost": np.zeros(4), "meta_json": "{"},
    ],
)
def test_what_is_no_rollout_is_named(tmp_path, arrays):
    with pytest.raises(UserError, match=r"r\.npz is not a recorded rollout or is damaged"):
        load_rollout(save(tmp_path / "r.npz", **arrays))


def test_a_damaged_rollout_is_named(run):
    file = run / "rollouts" / "rollout_offline_1.npz"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match="rollout_offline_1.npz"):
        load_rollout(file)
