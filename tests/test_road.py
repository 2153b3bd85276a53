"""The whole road through the Python API, with real episodes and a policy that is far too small to learn anything."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import fosp
from fosp import api, presets
from fosp.data.store import Store
from fosp.envs import Scenario, suite_hash
from fosp.envs import env as simulator
from fosp.report import words as vocabulary
from fosp.training import checkpoint
from fosp.types import COLLECT_SEEDS, HELD_OUT_SEEDS, ONLINE_SEEDS

ROOT = Path(__file__).parents[1]
TASK = "fosp/SafetyPointGoal1-v0"
SCENARIO = "larger-hazards"
STEPS = 250
TINY = (
    "model.deter=16", "model.groups=4", "model.classes=4", "model.units=16", "model.layers=1", "model.depth=4",
    "model.decode_width=16", "model.bins=41", "agent.units=16", "agent.layers=1", "agent.bins=41", "agent.horizon=3",
    "agent.starts=4", "training.batch=2", "training.length=8", "training.latent_batch=2", "training.updates=6",
    "training.latent_updates=4", "training.log_every=2", "training.save_every=4", "training.precision=float32",
    "online.episodes=3", "online.envs=2", "online.updates_per_step=0.01",  # of 250 steps
)  # fmt: skip


#: What the README gives to fine-tuning.
ALLOWED = ("agent.constraint.budget=3", "agent.constraint.step=1e-3")


@dataclass(frozen=True)
class Road:
    """What the road left behind."""

    folder: Path
    offline: Path  # the last checkpoint of each
    cloning: Path
    tuned: Path
    document: dict[str, Any]  # of the scenario
    page: str


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    """The very lines that the README shows, with a default preset that is tiny and with few, short runs."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    folder = tmp_path_factory.mktemp("road")
    names: dict[str, Any] = {"__name__": "__main__"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(presets.PRESETS, "laptop", presets.resolve("laptop", overrides=TINY))
        with pytest.MonkeyPatch.context() as short:
            short.setattr(fosp, "collect", shortened(fosp.collect, episodes=3))
            short.setattr(fosp, "pretrain", without_environments(fosp.pretrain))
            short.setattr(fosp, "finetune", shortened(fosp.finetune, workers=0))
            short.setattr(fosp, "evaluate", shortened(fosp.evaluate, episodes=2, workers=0))
            exec(compile(code, "README.md", "exec"), names)
        runs = folder / "runs"
        document = read(runs / "results" / "evaluation" / f"{SCENARIO}.json")
        page = (folder / "report.html").read_text()
        yield Road(runs, names["offline"], names["cloning"], names["tuned"], document, page)


def shortened(call: Callable[..., Any], **given: Any) -> Callable[..., Any]:
    return lambda *words, **options: call(*words, **{**options, **given})


def without_environments(call: Callable[..., Any]) -> Callable[..., Any]:
    """The call, which fails where an environment is made or moved."""

    def guarded(*words: Any, **options: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            forbid_environments(patch)
            return call(*words, **options)

    return guarded


def forbid_environments(patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("an environment was touched")

    for name in ("__init__", "reset", "step"):
        patch.setattr(simulator.SafetyEnv, name, refuse)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ------------------------------------------------------------------------------------------------------ the log


def test_the_log_holds_every_behaviour(road: Road) -> None:
    store = Store.open(road.folder / "log")
    assert [row["behaviour"] for row in store.manifest] == ["unsafe", "safe", "random"]
    assert [row["steps"] for row in store.manifest] == [STEPS] * 3
    assert {row["seed"] for row in store.manifest} < set(COLLECT_SEEDS)
    assert store.schema.task == TASK and store.has_cost


# ------------------------------------------------------------------------------------------------------ offline


def test_a_run_says_where_it_comes_from(road: Road) -> None:
    record = read(road.folder / "offline" / "run.json")
    assert record["kind"] == "pretrain" and record["task"] == TASK
    assert record["dataset"]["hash"] == Store.open(road.folder / "log").hash
    assert record["dataset"]["episodes"] == 3 and set(record["dataset"]["behaviours"]) == {"unsafe", "safe", "random"}
    assert {"command", "git", "started", "versions"} <= record.keys()
    assert yaml.safe_load((road.folder / "offline" / "config.yaml").read_text())["model"]["deter"] == 16
    clone = read(road.folder / "cloning" / "run.json")
    assert clone["kind"] == "bc" and clone["model_from"]["hash"] == checkpoint.check_files(road.offline)


def test_metrics_are_written_at_their_steps(road: Road) -> None:
    rows = lines(road.folder / "offline" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10]
    assert {"model/image", "model/reward", "model/cost", "clock/updates_per_second"} <= rows[0].keys()
    assert "model/image" not in rows[-1]  # on the encoded log the world model is at rest
    assert {"critic/q_cost", "constraint/multiplier"} <= rows[-1].keys()
    assert all(np.isfinite(value) for row in rows for value in row.values())
    assert list((road.folder / "offline" / "tensorboard").iterdir())
    # What the report has words for is what is written.
    rows += lines(road.folder / "tuned" / "metrics.jsonl")
    written = {name for row in rows for name in row if "/" in name}
    assert vocabulary._METRICS.keys() <= written
    assert {name.partition("/")[0] for name in written} == vocabulary.GROUPS.keys()


def test_checkpoints_describe_themselves(road: Road) -> None:
    assert road.offline.name == "00000010" and road.offline.resolve() == checkpoint.resolve(road.folder / "offline")
    facts = read(road.offline / "policy" / "config.json")
    assert facts["method"] == "fosp" and facts["schema"]["task"] == TASK and facts["updates"] == 10
    assert facts["action"]["shape"] == [2] and facts["observation"]["image_front"]["shape"] == [64, 64, 3]
    assert facts["dataset"]["hash"] == Store.open(road.folder / "log").hash
    held_out = suite_hash(TASK, None, HELD_OUT_SEEDS[:20])  # what `fosp evaluate` scores on, known before any score
    for path in (road.offline, road.cloning, road.tuned):
        assert read(path / "policy" / "config.json")["suites"] == {"held-out": held_out}
    checkpoint.check_files(road.offline)


def test_each_world_model_has_its_film(road: Road) -> None:
    films = [{path.name for path in (road.folder / name / "videos").iterdir()} for name in ("offline", "cloning")]
    assert films == [{"open-loop-00000004.mp4", "open-loop-00000006.mp4"}, {"open-loop-00000000.mp4"}]


def test_cloning_took_the_world_model_of_the_checkpoint(road: Road) -> None:
    ours, theirs = (checkpoint.read_tensors(path, "policy/model") for path in (road.offline, road.cloning))
    model = [name for name in ours if name.startswith("model.")]
    assert model and all((ours[name] == theirs[name]).all() for name in model)
    assert any((ours[name] != theirs[name]).any() for name in ours if name.startswith("actor."))


def test_a_finished_run_is_left_alone(road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_environments(monkeypatch)
    out = tmp_path / "offline"
    shutil.copytree(road.folder / "offline", out, symlinks=True)
    before = snapshot(out)
    path = fosp.pretrain(road.folder / "log", out)
    assert path.name == "00000010"
    after = snapshot(out)
    # A session more in run.json and in TensorBoard, nothing else.
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} - {"run.json"} == {
        name for name in after if name.startswith("tensorboard") and name not in before
    }
    assert len(read(out / "run.json")["sessions"]) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"overrides": ["agent.horizon=4"]}, ["config.yaml", "horizon: 3", "horizon: 4"]),
        ({"method": "cloning"}, ["kind", "'pretrain'", "'bc'"]),
    ],
)
def test_another_run_in_the_same_folder_is_refused(road: Road, changes: dict[str, Any], words: list[str]) -> None:
    before = snapshot(road.folder / "offline")
    with pytest.raises(fosp.UserError) as told:
        fosp.pretrain(road.folder / "log", road.folder / "offline", **changes)
    assert all(word in str(told.value) for word in ["another run", *words])
    assert snapshot(road.folder / "offline") == before


def test_a_log_that_has_grown_is_another_log(road: Road, tmp_path: Path) -> None:
    shutil.copytree(road.folder / "log", tmp_path / "log")
    with Store.open(tmp_path / "log", append=True) as store:
        store.append(store.episode(0))
    with pytest.raises(fosp.UserError, match="dataset"):
        fosp.pretrain(tmp_path / "log", road.folder / "offline")


# ------------------------------------------------------------------------------------------------------- online


def test_fine_tuning_made_episodes_and_compares_them(road: Road) -> None:
    learned, frozen = (lines(road.folder / "tuned" / f"{name}.jsonl") for name in ("episodes", "frozen"))
    assert {row["seed"] for row in learned} == {row["seed"] for row in frozen} == set(ONLINE_SEEDS[:3])
    assert [row["episode"] for row in learned] == [0, 1, 2]
    assert [row["env_steps"] for row in learned] == [STEPS, 2 * STEPS, 3 * STEPS]
    assert all(0 <= row["chosen_online"] <= 1 for row in learned)
    assert all(row["steps"] == STEPS for row in learned + frozen)
    store = Store.open(road.folder / "tuned" / "episodes")
    assert [row["return"] for row in store.manifest] == [pytest.approx(row["return"], rel=1e-5) for row in learned]
    assert store.created["scenario"] == SCENARIO


def test_fine_tuning_learned(road: Road) -> None:
    assert int(road.tuned.name) == int(0.01 * 3 * STEPS)
    record = read(road.folder / "tuned" / "run.json")
    assert (record["kind"], record["scenario"]) == ("finetune", SCENARIO)
    assert record["checkpoint"]["hash"] == checkpoint.check_files(road.offline)
    facts = read(road.tuned / "policy" / "config.json")
    assert facts["expanded"] is True and facts["scenario"] == SCENARIO
    assert facts["suite_hash"] == record["suite_hash"] == suite_hash(TASK, SCENARIO, ONLINE_SEEDS[:3])
    before, after = (checkpoint.read_tensors(path, "policy/model") for path in (road.offline, road.tuned))
    actor = [name.removeprefix("actor.") for name in before if name.startswith("actor.")]
    acted = "average_actor" if f"average_actor.{actor[0]}" in before else "actor"
    # pi_off is the policy that acted, frozen
    assert all((before[f"{acted}.{name}"] == after[f"offline_actor.{name}"]).all() for name in actor)
    for trained in ("actor", acted):
        assert any((before[f"{trained}.{name}"] != after[f"{trained}.{name}"]).any() for name in actor)


def test_finished_fine_tuning_acts_no_more(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("episodes.jsonl", "frozen.jsonl", "metrics.jsonl", "checkpoints/last/manifest.json")
    before = [(road.folder / "tuned" / name).read_bytes() for name in names]
    monkeypatch.setattr(simulator.SafetyEnv, "step", None)
    given: dict[str, Any] = {"scenario": SCENARIO, "overrides": ALLOWED, "workers": 0}
    path = fosp.finetune(road.folder / "offline", road.folder / "tuned", **given)
    assert path.resolve() == road.tuned.resolve()
    assert [(road.folder / "tuned" / name).read_bytes() for name in names] == before


@pytest.mark.parametrize(
    ("changes", "word"), [({"seed": 1}, "seed"), ({"scenario": "more-hazards"}, "scenario"), ({"seed": 100}, "--seed")]
)
def test_other_fine_tuning_in_the_same_folder_is_refused(road: Road, changes: dict[str, Any], word: str) -> None:
    given = {"scenario": SCENARIO, "overrides": ALLOWED, **changes}
    with pytest.raises(fosp.UserError, match=word):
        fosp.finetune(road.folder / "offline", road.folder / "tuned", **given)


def test_fine_tuning_has_no_part_in_the_minutes_of_pretraining(road: Road, tmp_path: Path) -> None:
    run = tmp_path / "offline"
    shutil.copytree(road.folder / "offline", run, symlinks=True)
    source = checkpoint.resolve(run)
    facts = read(source / "policy" / "config.json")
    facts["config"]["training"]["minutes"] = 0.001
    (source / "policy" / "config.json").write_text(json.dumps(facts))
    digest = hashlib.sha256((source / "policy" / "config.json").read_bytes()).hexdigest()
    manifest = {**read(source / "manifest.json"), "policy/config.json": digest}
    (source / "manifest.json").write_text(json.dumps(manifest))
    given = {"scenario": SCENARIO, "data": road.folder / "log", "compare": False}
    short = ("online.episodes=2", "online.envs=1")
    fosp.finetune(run, tmp_path / "own", overrides=(*short, "training.minutes=0.001"), **given)
    assert len(Store.open(tmp_path / "own" / "episodes")) < 2  # its own minutes count
    fosp.finetune(run, tmp_path / "tuned", overrides=short, **given)
    assert len(lines(tmp_path / "tuned" / "episodes.jsonl")) == 2


def test_a_log_that_moved_is_asked_for(road: Road, tmp_path: Path) -> None:
    moved = tmp_path / "offline"
    shutil.copytree(road.folder / "offline", moved, symlinks=True)
    config = checkpoint.resolve(moved) / "policy" / "config.json"
    facts = read(config)
    facts["dataset"]["path"] = str(tmp_path / "gone")
    config.write_text(json.dumps(facts))
    with pytest.raises(fosp.UserError, match="--data"):
        fosp.finetune(moved, tmp_path / "tuned")


# --------------------------------------------------------------------------------------------------- evaluation


def test_a_scenario_of_ones_own_is_evaluated_under_its_name_and_hash(road: Road) -> None:
    own = Scenario("dusk", "twenty frames of it", lambda task: replace(task, max_frames=20))
    document = fosp.evaluate({"tuned": road.tuned}, scenario=own, episodes=1, workers=0)
    assert (document["scenario"], document["texts"]["scenario"]) == ("dusk", "twenty frames of it")
    assert document["suite_hash"] == suite_hash(TASK, own, HELD_OUT_SEEDS[:1])
    assert document["policies"][0]["episodes"][0]["steps"] == 5


def test_both_policies_met_the_same_held_out_layouts(road: Road) -> None:
    document = road.document
    assert document == read(road.folder / "results" / "evaluation" / f"{SCENARIO}.json")
    assert document["seeds"] == list(HELD_OUT_SEEDS[:2]) and document["scenario"] == SCENARIO
    assert [policy["label"] for policy in document["policies"]] == ["offline", "tuned"]
    assert [policy["meta"]["kind"] for policy in document["policies"]] == ["pretrain", "finetune"]
    for policy in document["policies"]:
        assert [row["seed"] for row in policy["episodes"]] == document["seeds"]
    (pair,) = document["comparisons"]
    assert (pair["a"], pair["b"]) == ("tuned", "offline")
    assert document["verdicts"]["offline"]["answer"] == "not enough episodes"


def test_rollouts_hold_what_the_report_shows(road: Road) -> None:
    seed = HELD_OUT_SEEDS[0]
    files = {path.name for path in (road.folder / "results" / "rollouts").iterdir()}
    shown = [("cloning", "nominal"), ("offline", "nominal"), ("offline", SCENARIO), ("tuned", SCENARIO)]
    assert files == {f"rollout_{label}_{seed}_{scenario}.npz" for label, scenario in shown}
    for label in ("offline", "tuned"):
        with np.load(road.folder / "results" / "rollouts" / f"rollout_{label}_{seed}_{SCENARIO}.npz") as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(str(arrays.pop("meta_json")))
        assert all(len(array) == STEPS + 1 for array in arrays.values())
        assert arrays["image_front"].shape[1:] == arrays["imagined_back"].shape[1:] == (64, 64, 3)
        assert arrays["overview"].dtype == np.uint8 and arrays["overview"][0].std() > 5  # not an empty picture
        probability = arrays["violation_probability"][:-1]
        assert ((probability >= 0) & (probability <= 1)).all()
        assert set(arrays["chosen"]) <= ({-1} if label == "offline" else {-1, 0, 1})
        assert (meta["seed"], meta["scenario"]) == (seed, SCENARIO)
        (scored,) = [policy for policy in road.document["policies"] if policy["label"] == label]
        row = scored["episodes"][0]  # the very episode that was scored, not one like it
        assert (row["seed"], row["return"], row["cost"]) == (seed, meta["return"], meta["cost"])
        assert meta["cost"] == arrays["cost"].sum()
        assert meta["return"] == pytest.approx(arrays["reward"].sum(), abs=1e-3)


def test_the_report_is_one_file_that_names_everything(road: Road) -> None:
    for word in ("SafetyPointGoal1", "offline", "tuned", SCENARIO, "not enough episodes", "cloning"):
        assert word.lower() in road.page.lower(), word
    assert "data:video/mp4;base64," in road.page and "<svg" in road.page
    assert not re.search(r"<(?:script|img|video|source|link)[^>]+(?:src|href)=[\"']https?:", road.page)


def test_a_score_is_run_again(road: Road) -> None:
    found = fosp.verify(road.folder / "cloning", workers=0)
    assert found["holds"] and found["episodes"] == 2
    assert found["identical"] == 2  # the same machine, the same code
    with pytest.raises(fosp.UserError, match="did you mean"):
        fosp.verify(road.folder / "cloning", suite=found["suite"][:-1] + "x")


def test_verify_notices_a_changed_file(road: Road, tmp_path: Path) -> None:
    copy = tmp_path / "checkpoint"
    shutil.copytree(road.cloning, copy)
    weights = bytearray((copy / "policy" / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "policy" / "model.safetensors").write_bytes(weights)
    with pytest.raises(fosp.UserError, match="model.safetensors differs"):
        fosp.verify(copy)


def test_a_read_only_checkpoint_can_be_scored(road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    policy = road.document["policies"][0]
    monkeypatch.setattr(Path, "write_text", refuse)
    api._note_score(tmp_path, road.document, policy, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"episodes": 0}, "--episodes 0"),
        ({"record": 1}, "--out"),
        ({"record": 3, "out": "x"}, "--record 3"),
        ({"samples": -1}, "--samples -1"),
        ({"seed": -1}, "--seed -1"),
        ({"seed": 100}, "--seed 100"),
        ({"quality": "best"}, "faithful"),
        ({"scenario": "larger-hazard"}, "larger-hazards"),
        ({"task": "fosp/SafetyPointGoal2-v0"}, "SafetyPointGoal1"),
    ],
)
def test_wrong_values_are_told_before_anything_runs(
    road: Road, changes: dict[str, Any], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulator.SafetyEnv, "step", None)
    with pytest.raises(fosp.UserError, match=word):
        fosp.evaluate([road.offline], **{"episodes": 2, **changes})


def test_two_runs_of_one_name_need_labels(road: Road) -> None:
    with pytest.raises(fosp.UserError, match="'offline'"):
        fosp.evaluate([road.offline, road.folder / "offline" / "checkpoints" / "00000004"])


# ------------------------------------------------------------------------------------------------------- policy


def test_a_policy_is_loaded_and_acts(road: Road) -> None:
    policy = fosp.load_policy(str(road.folder / "tuned"))
    observation = {name: np.zeros((64, 64, 3), np.uint8) for name in ("image_front", "image_back")}
    first, carry = policy.act(policy.initial(), observation)
    second, carry = policy.act(carry, observation)
    assert first.shape == second.shape == (2,) and (np.abs([first, second]) <= 1).all()
    assert 0 <= float(carry.diagnostics["violation_probability"]) <= 1
    again, _ = policy.act(policy.initial(), observation)
    np.testing.assert_array_equal(first, again)  # nothing is remembered but by the carry
    many, _ = policy.act(policy.initial(3), {name: np.stack([image] * 3) for name, image in observation.items()})
    np.testing.assert_allclose(many, np.stack([first] * 3), atol=1e-5)


def test_a_trained_policy_collects(road: Road, tmp_path: Path) -> None:
    with fosp.collect(TASK, tmp_path / "log", episodes=1, seed=7, checkpoint=road.offline, workers=0) as store:
        (row,) = store.manifest
    assert (row["behaviour"], row["seed"], row["steps"]) == ("policy", 7, STEPS)
    with pytest.raises(fosp.UserError, match="checkpoint"):  # a dataset does not become a mixture
        fosp.collect(TASK, tmp_path / "log", episodes=2, seed=7, workers=0)


def test_a_log_of_a_policy_is_of_one_checkpoint(road: Road, tmp_path: Path) -> None:
    shutil.copytree(road.folder / "offline", tmp_path / "run", symlinks=True)
    given: dict[str, Any] = {"seed": 7, "checkpoint": tmp_path / "run", "workers": 0}
    fosp.collect(TASK, tmp_path / "log", episodes=1, **given).close()
    (tmp_path / "run").rename(tmp_path / "moved")  # the same weights, wherever they lie
    with fosp.collect(TASK, tmp_path / "log", episodes=2, **{**given, "checkpoint": tmp_path / "moved"}) as store:
        assert len(store) == 2
    link = tmp_path / "moved" / "checkpoints" / "last"
    link.unlink()
    link.symlink_to("00000004")  # as if the run had gone on, or back
    with pytest.raises(fosp.UserError, match="was made with checkpoint"):
        fosp.collect(TASK, tmp_path / "log", episodes=3, **{**given, "checkpoint": tmp_path / "moved"})


# ------------------------------------------------------------------------------------------------- interruption


@pytest.fixture
def training(road: Road, tmp_path: Path) -> Iterator[Any]:
    """Starts pretraining, far too long to end, in a process of its own."""
    begun: list[subprocess.Popen[str]] = []
    settings = (*TINY, "training.updates=100000", "training.latent_updates=0", "training.save_every=20")
    words = [
        "pretrain",
        "--data",
        road.folder / "log",
        "--out",
        tmp_path / "run",
        "--preset",
        "tiny",
        "--set",
        *settings,
    ]

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "fosp", *map(str, words)]
        begun.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=_hear_ctrl_c))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.wait()


def wait_for(process: subprocess.Popen[str], path: Path, updates: int) -> None:
    end = time.monotonic() + 120
    while not any(int(found.name) >= updates for found in path.glob("checkpoints/0*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def _hear_ctrl_c() -> None:
    """A process that was started in the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_and_kill_lose_nothing(road: Road, training: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = training()
    wait_for(process, out, 20)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert told.splitlines()[-1] == "fosp: stopped; rerun the same command to go on" and "Traceback" not in told
    stopped = int(checkpoint.resolve(out).name)  # saved when it was stopped, not at the last round number
    assert f"stopped at {stopped}/100000 updates" in told

    process = training()
    wait_for(process, out, stopped + 20)
    process.kill()
    process.communicate()
    killed = int(checkpoint.resolve(out).name)
    checkpoint.check_files(checkpoint.resolve(out))
    assert killed > stopped and killed % 20 == 0

    config = out / "config.yaml"
    config.write_text(config.read_text().replace("100000", str(killed + 2)))  # the same run, but with an end
    settings = (*TINY, f"training.updates={killed + 2}", "training.latent_updates=0", "training.save_every=20")
    path = fosp.pretrain(road.folder / "log", out, preset="tiny", overrides=settings)
    assert int(path.name) == killed + 2
    steps = [row["step"] for row in lines(out / "metrics.jsonl")]
    assert steps == list(range(2, killed + 3, 2))  # nothing twice, nothing missing
    assert len(read(out / "run.json")["sessions"]) == 3
