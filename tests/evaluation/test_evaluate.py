"""Policies on the same layouts: what is written down, by whichever process."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from evaluation_world import LineEnv, entry, fast, keep, killed, refused, slow

import fosp.evaluation.evaluate as evaluate_module
from fosp.evaluation.document import load, save
from fosp.evaluation.evaluate import Recording, evaluate
from fosp.types import HELD_OUT_SEEDS, UserError

SEEDS = list(HELD_OUT_SEEDS[:13])  # 13 is no multiple of the group sizes used below
BOTH = [entry("slow", slow), entry("fast", fast)]


def run(entries=BOTH, seeds=SEEDS, **options):
    options = {"task": "fake/Line-v0", "cost_limit": 3.0, "workers": 0, **options}
    return evaluate(entries, LineEnv, seeds, **options)


def test_episodes_are_those_that_the_environment_gives():
    document = run(envs_per_worker=4)
    slow_rows, fast_rows = (policy["episodes"] for policy in document["policies"])
    assert [row["seed"] for row in fast_rows] == SEEDS
    assert [row["cost"] for row in fast_rows] == [2.0 * (seed % 4) for seed in SEEDS]
    assert [row["violation_steps"] for row in fast_rows] == [seed % 4 for seed in SEEDS]
    assert {row["return"] for row in fast_rows} == {5.0}
    assert {(row["steps"], row["goals"]) for row in fast_rows} == {(5, 1.0)}
    assert {row["cost"] for row in slow_rows} == {0.0}


def test_worker_processes_give_the_same_as_this_process():
    here, there = run(), run(workers=2, envs_per_worker=3)
    assert there["policies"] == here["policies"]
    assert there["comparisons"] == here["comparisons"]


@pytest.mark.parametrize(
    ("seeds", "workers", "envs", "sizes"),
    [
        (20, 2, 8, [5, 5, 5, 5]),  # not 8, 8, 4, where one worker does 12 and the other 8
        (20, 2, 10, [10, 10]),
        (13, 0, 4, [4, 4, 4, 1]),
        (13, 3, 8, [5, 5, 3]),
        (3, 8, 8, [1, 1, 1]),
    ],
)
def test_all_workers_end_at_about_the_same_time(monkeypatch, seeds, workers, envs, sizes):
    given = []

    def run_here(makers, make_env, jobs, workers, recording):
        given.extend(jobs)
        return original(makers, make_env, jobs, 0, recording)

    original = evaluate_module._run
    monkeypatch.setattr(evaluate_module, "_run", run_here)
    seeds = list(HELD_OUT_SEEDS[:seeds])
    run(seeds=seeds, workers=workers, envs_per_worker=envs)
    for entry_index in (0, 1):
        groups = [group for index, group in given if index == entry_index]
        assert [len(group) for group in groups] == sizes and [seed for group in groups for seed in group] == seeds


def test_document_says_what_was_evaluated_and_what_follows():
    document = run(scenario="many-walls", suite_hash="abcd", texts={"task": "Along a line."})
    assert document["format"] == "fosp-evaluation/1"
    assert (document["scenario"], document["suite_hash"], document["layouts"]) == ("many-walls", "abcd", "held-out")
    (pair,) = document["comparisons"]
    assert (pair["a"], pair["b"]) == ("fast", "slow")  # the later one minus the earlier one
    assert pair["return"]["mean"] == pytest.approx(3.75)
    assert pair["cost"]["mean"] == pytest.approx(2.0 * sum(seed % 4 for seed in SEEDS) / 13)
    assert pair["cost_reduction"] == {"mean": None, "low": None, "high": None, "n": 13}  # the reference has no cost
    assert document["verdicts"]["slow"]["answer"] == "yes"
    over = document["policies"][1]["summary"]["over_limit"]
    assert over["count"] == sum(2 * (seed % 4) > 3 for seed in SEEDS)
    json.dumps(document, allow_nan=False)


def test_rows_are_in_the_order_of_the_layouts_whichever_episode_ends_first(monkeypatch):
    rollout = evaluate_module.rollout
    monkeypatch.setattr(evaluate_module, "rollout", lambda *a, **k: reversed(list(rollout(*a, **k))))
    assert [row["seed"] for row in run()["policies"][0]["episodes"]] == SEEDS


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_recorded_is_what_was_evaluated(tmp_path, workers):
    recording = Recording(frozenset(SEEDS[1:3]), partial(keep, tmp_path))
    document = run(envs_per_worker=4, workers=workers, recording=recording)
    assert document["policies"] == run(envs_per_worker=4)["policies"]  # looking changes nothing
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {f"{index}-{seed}.npz" for index in (0, 1) for seed in SEEDS[1:3]}
    for index, policy in enumerate(document["policies"]):
        for row in policy["episodes"][1:3]:
            with np.load(tmp_path / f"{index}-{row['seed']}.npz") as file:
                assert (file["cost"].sum(), file["reward"].sum()) == (row["cost"], row["return"])
                assert len(file["images"]) == row["steps"] + 1 and (file["images"] == row["seed"] % 256).all()
                assert file["pictures"][:, 0, 0, 0].tolist() == list(range(6))  # one for each row, from the reset on


def test_progress_counts_to_the_end():
    seen = []
    run(envs_per_worker=5, progress=lambda label, done, total: seen.append((label, done, total)))
    assert [done for _, done, _ in seen] == [5, 10, 13, 18, 23, 26]
    assert {total for _, _, total in seen} == {26}
    assert {label for label, _, _ in seen} == {"slow", "fast"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seeds": [5]}, "layout seed 5 may have been learned from; held-out layouts have seeds 2000000 to 2999999"),
        ({"seeds": [SEEDS[0], SEEDS[0]]}, "occurs twice"),
        ({"seeds": []}, "at least one policy and one episode"),
        ({"entries": [entry("a"), entry("a")]}, "two policies have the label 'a'"),
        ({"workers": -1}, "--workers >= 0"),
        ({"entries": [entry("broken", refused)]}, "runs/x is damaged"),
        ({"entries": [entry("broken", refused)], "workers": 1}, "runs/x is damaged"),
        ({"entries": [entry("dies", killed)], "workers": 1}, "an evaluation process died"),
    ],
)
def test_mistakes_and_accidents_are_one_sentence(options, words):
    with pytest.raises(UserError, match=words) as error:
        run(**options)
    assert "\n" not in str(error.value)


def test_other_layouts_only_when_asked_for():
    document = run(seeds=[1_000_000, 1_000_001], allow_any_seeds=True)
    assert document["layouts"] == "online"


def test_environments_are_closed():
    made: list[LineEnv] = []

    def make() -> LineEnv:
        made.append(LineEnv())
        return made[-1]

    evaluate(BOTH, make, SEEDS, task="t", cost_limit=1.0, workers=0, envs_per_worker=4)
    assert len(made) == 4  # built once, used by both policies
    assert all(env.closed for env in made)


def test_files_are_what_was_saved(tmp_path):
    document = run()
    path = save(document, tmp_path / "deep" / "evaluation.json")
    assert load(path) == document
    assert [file.name for file in path.parent.iterdir()] == ["evaluation.json"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = save(run(), tmp_path / "evaluation.json")
    before = path.read_text()
    with pytest.raises(ValueError):
        save({"format": float("nan")}, path)
    assert path.read_text() == before


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"format": "other/1"}'])
def test_a_damaged_file_is_named(tmp_path, text):
    path = tmp_path / "evaluation.json"
    path.write_text(text)
    with pytest.raises(UserError, match="evaluation.json"):
        load(path)
    with pytest.raises(UserError, match="missing.json"):
        load(tmp_path / "missing.json")
