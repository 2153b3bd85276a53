"""What a user can get wrong with each verb: one sentence that names it, exit code 2, and no traceback."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest

import fosp
from fosp import api
from fosp.cli import limits, wire
from fosp.cli.main import main
from fosp.data.store import Store
from fosp.envs import env as simulator
from fosp.presets import PRESETS, RunConfig, resolve
from fosp.training import checkpoint
from fosp.types import Schema, UserError

TASK = "fosp/SafetyPointGoal1-v0"
SCHEMA = Schema(
    task=TASK,
    cameras={"image_front": (64, 64, 3), "image_back": (64, 64, 3)},
    action_size=2,
    action_repeat=4,
    step_seconds=0.08,
    max_steps=250,
    cost_terms=("hazards",),
)
TINY = (
    "model.deter=16", "model.groups=4", "model.classes=4", "model.units=16", "model.layers=1", "model.depth=4",
    "model.stem=4", "model.decode_width=16", "agent.units=16", "agent.layers=1", "agent.horizon=3", "agent.starts=4",
    "training.batch=2", "training.length=8", "training.latent_batch=2", "training.updates=2",
    "training.latent_updates=0",
)  # fmt: skip


def write_log(path: Path, schema: Schema = SCHEMA, cost: bool = True) -> Path:
    """Three episodes of random content that fit ``schema``."""
    with Store.create(path, schema, created={"scenario": None}, cost=cost) as store:
        for seed in range(3):
            found = builders.episode(seed, rows=21, noise=0.0)
            random = np.random.default_rng(seed)
            images = {k: random.integers(0, 256, (21, *size), np.uint8) for k, size in schema.cameras.items()}
            action = random.uniform(-1, 1, (21, schema.action_size)).astype(np.float32)
            action[-1] = 0
            store.append(dataclasses.replace(found, images=images, action=action, info={**found.info, "task": TASK}))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dataset ``log`` and the run ``run``, and the variants that do not fit."""
    place = tmp_path_factory.mktemp("place")
    write_log(place / "log")
    api.pretrain(place / "log", place / "run", preset="tiny", overrides=TINY)
    write_log(place / "no-cost", cost=False)
    small = {name: (32, 32, 3) for name in SCHEMA.cameras}
    write_log(place / "small-images", dataclasses.replace(SCHEMA, cameras=small))
    odd = {name: (48, 48, 3) for name in SCHEMA.cameras}
    write_log(place / "odd-images", dataclasses.replace(SCHEMA, cameras=odd))
    write_log(place / "three-actions", dataclasses.replace(SCHEMA, action_size=3))
    Store.create(place / "empty", SCHEMA).close()
    (place / "a-file").write_text("x")
    (place / "an-empty-folder").mkdir()
    return place


@pytest.fixture(autouse=True)
def no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mistake here is told before any environment has moved."""
    monkeypatch.setattr(simulator.SafetyEnv, "step", None)


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one sentence with which the command ``words`` is refused."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (sentence,) = captured.err.splitlines()
    assert sentence.startswith("fosp: ")
    return sentence


def assert_tells(sentence: str, *parts: object) -> None:
    for part in parts:
        assert str(part) in sentence, sentence


# ------------------------------------------------------------------------------------------- tasks and options


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--task", "SafetyPointGaol1"], ["SafetyPointGaol1", "SafetyPointGoal1"]),
        (["--task", "SafetyPointGoal1", "--scenario", "larger-hazard"], ["'larger-hazards'"]),
        (["--task", "SafetyPointGoal1", "--behaviours", "saef"], ["'saef'", "'safe'"]),
        (["--task", "SafetyPointGoal1", "--noises", "2"], ["2.0", "0..1"]),
        (["--task", "SafetyPointGoal1", "--noises", "much"], ["--noises", "'much'", "a number"]),
        (["--task", "SafetyPointGoal1", "--quality", "best"], ["'best'", "fast, faithful"]),
        (["--task", "SafetyPointGoal1", "--episodes", "0"], ["at least one episode"]),
        (["--task", "SafetyPointGoal1", "--episodes", "ten"], ["--episodes", "'ten'", "a whole number"]),
        (["--task", "SafetyPointGoal1", "--workers", "-1"], ["workers -1"]),
        (["--task", "SafetyPointGoal1", "--seed", "999999", "--episodes", "2"], ["1000000", "held-out"]),
        (["--task", "SafetyPointGoal1", "--sceanrio", "nominal"], ["'--sceanrio'", "'--scenario'"]),
        (["--taks", "SafetyPointGoal1"], ["'--taks'", "'--task'"]),
    ],
)
def test_collect(words: list[str], parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_tells(refused(capsys, "collect", "--out", tmp_path / "log", *words), *parts)


def test_collect_with_a_checkpoint_that_is_none(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["collect", "--task", "SafetyPointGoal1", "--out", place / "new", "--checkpoint"]
    assert_tells(refused(capsys, *words, place / "log"), place / "log", "no checkpoint")
    assert not (place / "new").exists()


def test_collect_into_something_else(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["collect", "--task", "SafetyPointGoal1", "--episodes", "1", "--workers", "0", "--out"]
    assert_tells(refused(capsys, *words, place / "run"), place / "run", "not empty")
    assert_tells(refused(capsys, *words, place / "a-file"), place / "a-file", "choose another")
    assert_tells(refused(capsys, *words, place / "log"), place / "log", "quality")  # made in another way


# -------------------------------------------------------------------------------------------------- data sets


@pytest.mark.parametrize("verb", [["data", "show"], ["data", "inspect"], ["pretrain", "--out", "{out}", "--data"]])
@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("missing", ["no such folder", "fosp collect"]),
        ("an-empty-folder", ["not a dataset", "dataset.json"]),
        ("run", ["not a dataset"]),
        ("a-file", ["no such folder"]),
    ],
)
def test_what_is_no_dataset(
    verb: list[str], name: str, parts: list[str], place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(out=tmp_path / "out") for word in verb]
    assert_tells(refused(capsys, *words, place / name), place / name, *parts)
    assert not (tmp_path / "out").exists()


def damaged(place: Path, to: Path, name: str) -> Path:
    """A copy of the log with one file missing, cut short or changed."""
    shutil.copytree(place / "log", to)
    file = to / "chunks" / "000000" / "image_back.bin"
    if name == "missing":
        file.unlink()
    elif name == "short":
        os.truncate(file, file.stat().st_size - 1)
    elif name == "manifest":
        (to / "episodes.jsonl").write_text((to / "episodes.jsonl").read_text().replace('"seed":1', '"seed":9'))
    elif name == "description":
        (to / "dataset.json").write_text((to / "dataset.json").read_text()[:-20])
    return to


@pytest.mark.parametrize("verb", [["data", "show"], ["pretrain", "--out", "{out}", "--data"]])
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("missing", "image_back.bin is missing"),
        ("short", "image_back.bin is damaged"),
        ("manifest", "episodes.jsonl is damaged at line 2"),
        ("description", "dataset.json is damaged"),
    ],
)
def test_a_damaged_dataset(
    verb: list[str], name: str, file: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(out=tmp_path / "out") for word in verb]
    assert_tells(refused(capsys, *words, damaged(place, tmp_path / "log", name)), file)


def test_a_changed_byte_is_found_before_it_is_learned(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = damaged(place, tmp_path / "log", "")
    file = log / "chunks" / "000000" / "image_back.bin"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert_tells(refused(capsys, "data", "show", "--check", log), "image_back.bin is damaged: episode 1")
    assert main(["pretrain", "--data", str(log), "--out", str(tmp_path / "run"), "--preset", "tiny"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert_tells(told[-1], "fosp: ", "image_back.bin is damaged: episode 1")
    assert not any("Traceback" in line for line in told)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_inspect_needs_cost_and_episodes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_tells(refused(capsys, "data", "inspect", place / "no-cost"), place / "no-cost", "no cost")
    assert_tells(refused(capsys, "data", "inspect", place / "empty"), place / "empty", "no episodes")
    assert_tells(refused(capsys, "data", "inspect", place / "log", "--out", place / "a-file"), place / "a-file")


# -------------------------------------------------------------------------------------------------- pretraining


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--data", "{place}/no-cost"], ["no-cost", "has no cost"]),
        (["--data", "{place}/empty"], ["empty", "holds no episodes"]),
        (["--data", "{place}/odd-images"], ["image_front 48x48x3", "power of two"]),
        (["--data", "{place}/small-images", "--preset", "small"], ["model.decode_width is 64", "32"]),
        (["--preset", "tniy"], ["'tniy'", "'tiny'"]),
        (["--method", "clonign"], ["'clonign'", "'cloning'"]),
        (["--model-from", "{place}/log"], ["log", "no checkpoint"]),
        (["--model-from", "{place}/run", "--data", "{place}/three-actions"], ["action size 3"]),
        (["--method", "cloning", "--model-from", "{place}/run", "--data", "{place}/three-actions"], ["action size 3"]),
        (["--device", "tpu"], ["--device tpu"]),
        (["--set", "agent.horizn=3"], ["agent.horizn", "agent.horizon"]),
        (["--set", "horizon=3"], ["horizon", "agent.horizon"]),
        (["--set", "agent.horizon=soon"], ["agent.horizon", "soon"]),
        (["--set", "agent.horizon"], ["'agent.horizon'", "key=value"]),
        (["--set", "agent.horizon=0"], ["agent.horizon is 0", "at least 1"]),
        (["--set", "training.batch=0"], ["training.batch is 0"]),
        (["--set", "training.updates=-5"], ["training.updates is -5"]),
        (["--set", "training.precision=half"], ["training.precision", "bfloat16"]),
        (["--precision", "half"], ["training.precision", "'half'", "bfloat16"]),
        (["--compile", "--no-compile"], ["--compile and --no-compile", "leave one"]),
        (["--config", "{place}/missing.yaml"], ["missing.yaml", "No such file"]),
        (["--config", "{place}/log"], ["log", "directory"]),
        (["--out", "{place}/a-file"], ["a-file", "choose another place"]),
        (["--out", "{place}/log"], ["log is a dataset"]),
        (["--overrides", "seed=1"], ["'--overrides'"]),
    ],
)
def test_pretrain(
    words: list[str], parts: list[str], place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"--data": place / "log", "--out": tmp_path / "out", "--preset": "tiny"}
    given.update({flag: None for flag in words[::2] if flag in given})
    common = [str(word) for flag, value in given.items() if value is not None for word in (flag, value)]
    told = refused(capsys, "pretrain", *common, *[word.format(place=place) for word in words])
    assert_tells(told, *parts)
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_a_damaged_configuration_file(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    words = ["pretrain", "--data", place / "log", "--out", tmp_path / "out", "--config", file]
    file.write_text("agent: {horizn: 3}\n")
    assert_tells(refused(capsys, *words), "mine.yaml", "agent.horizon")
    file.write_text("agent: [\n")
    assert_tells(refused(capsys, *words), "mine.yaml", "not valid YAML")
    file.write_text("agent: {horizon: -1}\n")
    assert_tells(refused(capsys, *words), "agent.horizon is -1")


def test_a_damaged_run_folder(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(place / "run", run, symlinks=True)
    words = ["pretrain", "--data", place / "log", "--out", run, "--preset", "tiny", "--set", *TINY]
    (run / "run.json").write_text("{")
    assert_tells(refused(capsys, *words), "run.json is damaged")


def test_every_preset_is_within_its_limits() -> None:
    for name in PRESETS:
        limits.check(resolve(name))
        limits.check_images(resolve(name), SCHEMA, "the camera")


@pytest.mark.parametrize(
    "override",
    [
        "model.bins=64", "model.stem=3", "model.classes=1", "agent.gamma=1.1", "online.offline_share=1.5",
        "online.envs=0", "optimiser.critic_rate=-1", "training.decay=1.5", "agent.average=2.0", "online.cost_window=-3",
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_named(override: str) -> None:
    key, _, value = override.partition("=")
    with pytest.raises(UserError, match=f"^{key} is {value}.*; it must"):
        limits.check(resolve("tiny", overrides=[override]))


@pytest.mark.parametrize(
    ("side", "override", "fits"),
    [(64, "model.decode_width=64", True), (16, "model.decode_width=16", True), (16, "model.decode_width=32", False),
     (8, "model.decode_width=8", False), (64, "model.decode_width=24", False), (64, "model.decode_width=4", False)],
)  # fmt: skip
def test_images_that_the_world_model_can_see(side: int, override: str, fits: bool) -> None:
    schema = dataclasses.replace(SCHEMA, cameras={"a": (side, side, 3)})
    config = resolve("tiny", overrides=[override, "model.stem=4"])
    if fits:
        limits.check_images(config, schema, "x")
    else:
        with pytest.raises(UserError, match="model"):
            limits.check_images(config, schema, "x")


# ------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("verb", [["evaluate"], ["verify"], ["finetune", "--out", "{out}", "--checkpoint"]])
@pytest.mark.parametrize(
    ("name", "parts"), [("missing", ["does not exist"]), ("log", ["no checkpoint"]), ("a-file", ["no checkpoint"])]
)
def test_what_is_no_checkpoint(
    verb: list[str], name: str, parts: list[str], place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(out=tmp_path / "out") for word in verb]
    assert_tells(refused(capsys, *words, place / name), place / name, *parts)
    assert not (tmp_path / "out").exists()


def changed(place: Path, to: Path, **facts: Any) -> Path:
    """A copy of the run in whose checkpoint other things are written."""
    shutil.copytree(place / "run", to, symlinks=True)
    file = checkpoint.resolve(to) / "policy" / "config.json"
    held = json.loads(file.read_text())
    held["schema"].update(facts.pop("schema", {}))
    file.write_text(json.dumps({**held, **facts}))
    return to


@pytest.mark.parametrize("verb", ["evaluate", "finetune"])
@pytest.mark.parametrize(
    ("schema", "parts"),
    [
        ({"task": "fosp/SafetyCarGoal1-v0"}, ["task", "'fosp/SafetyCarGoal1-v0'", f"'{TASK}'"]),
        ({"cameras": {"image_front": [32, 32, 3], "image_back": [32, 32, 3]}}, ["cameras", "32", "64"]),
        ({"action_size": 3}, ["action_size 3", "2"]),
        ({"action_repeat": 2}, ["action_repeat 2", "4"]),
    ],
)
def test_a_checkpoint_for_something_else(
    verb: str, schema: dict[str, Any], parts: list[str], place: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run = changed(place, tmp_path / "other", schema=schema)
    if verb == "evaluate":
        told = refused(capsys, "evaluate", run, "--task", "SafetyPointGoal1")
    else:
        # Its weights would not fit either; here the environment is what is asked.
        monkeypatch.setattr(api.wire, "load_agent", lambda path: (None, checkpoint.read_config(path)))
        told = refused(capsys, "finetune", "--checkpoint", run, "--out", tmp_path / "x", "--task", "SafetyPointGoal1")
    assert_tells(told, run, *parts)


def test_a_damaged_checkpoint(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(place / "run", run, symlinks=True)
    weights = checkpoint.resolve(run) / "policy" / "model.safetensors"
    os.truncate(weights, 1000)
    words = ["finetune", "--checkpoint", run, "--out", tmp_path / "out"]
    assert_tells(refused(capsys, *words), "model.safetensors differs from its manifest")
    assert_tells(refused(capsys, "verify", run), "model.safetensors differs from its manifest")
    weights.unlink()
    assert_tells(refused(capsys, *words), "model.safetensors is missing")
    assert_tells(refused(capsys, "verify", run), "model.safetensors is missing")
    (weights.parent / "config.json").write_text("{")
    assert_tells(refused(capsys, "evaluate", run), "config.json cannot be read")


def test_scores_that_are_damaged_or_missing(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(place / "run", run, symlinks=True)
    assert_tells(refused(capsys, "verify", run), "no recorded score", "fosp evaluate")
    (checkpoint.resolve(run) / "scores.json").write_text('{"abc": 1}')
    assert_tells(refused(capsys, "verify", run), "scores.json is damaged")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["{place}/run", "{place}/run"], ["'run'", "LABEL=PATH"]),
        (["a={place}/run", "a={place}/run"], ["'a'", "LABEL=PATH"]),
        (["{place}/run", "--record", "1"], ["--record 1", "--out"]),
        (["{place}/run", "--episodes", "0"], ["--episodes 0"]),
        (["{place}/run", "--scenario", "no-hazards"], ["'no-hazards'", "hazards"]),
        (["{place}/run", "--task", "SafetyPointGoal9"], ["'SafetyPointGoal9'", "SafetyPointGoal"]),
        (["{place}/run", "--quality", "quick"], ["'quick'"]),
        (["{place}/run", "--cost-limit", "low"], ["--cost-limit", "'low'"]),
        (["{place}/run", "--cost-limit", "-1"], ["--cost-limit -1", "at least 0"]),
        (["{place}/run", "--cost-limit", "nan"], ["--cost-limit nan"]),
        (["{place}/run", "--out", "{place}/a-file"], ["a-file", "choose another place"]),
        (["{place}/run", "--recrod", "1"], ["'--recrod'", "'--record'"]),
        (["{place}/run", "--workers", "-1"], ["--workers"]),
        ([], ["there is no checkpoint", "run folder"]),
    ],
)
def test_evaluate(words: list[str], parts: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_tells(refused(capsys, "evaluate", *[word.format(place=place) for word in words]), *parts)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--scenario", "larger"], ["'larger-hazards'"]),
        (["--task", "SafetyPointGoal2"], ["SafetyPointGoal1"]),
        (["--set", "online.episode=3"], ["online.episode", "online.episodes"]),
        (["--set", "online.envs=0"], ["online.envs is 0"]),
        (["--set", "online.offline_share=2"], ["online.offline_share is 2"]),
        (["--seed", "100"], ["--seed 100"]),
        (["--data", "{place}/missing"], ["missing", "no such folder"]),
        (["--data", "{place}/no-cost"], ["no-cost", "no cost"]),
        (["--data", "{place}/small-images"], ["small-images", "32x32x3", "64x64x3"]),
        (["--data", "{place}/three-actions"], ["three-actions", "action size 3"]),
        (["--out", "{place}/run"], ["run", "another run"]),
        (["--out", "{place}/a-file"], ["a-file"]),
        (["--device", "cuda:99"], ["--device cuda:99"]),
        (["--precision", "half"], ["training.precision", "'half'", "bfloat16"]),
        (["--compile", "--no-compile"], ["--compile and --no-compile", "leave one"]),
    ],
)
def test_finetune(
    words: list[str], parts: list[str], place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = [] if "--out" in words else ["--out", tmp_path / "out"]
    command = ["finetune", "--checkpoint", place / "run", *out]
    assert_tells(refused(capsys, *command, *[word.format(place=place) for word in words]), *parts)


def test_a_wrong_number_of_processes_is_told_before_learning(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--checkpoint", place / "run", "--out", tmp_path / "out", "--workers", "-1"]
    assert_tells(refused(capsys, "finetune", *words), "--workers -1")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("method", "given"), [("cloning", "model.deter=32"), ("cloning", "agent.units=32"), ("fosp", "model.deter=32")]
)
def test_sizes_are_not_set_beside_those_of_a_model(
    method: str, given: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", place / "log", "--out", tmp_path / "out", "--method", method, "--model-from", place / "run"]
    told = refused(capsys, "pretrain", *words, "--set", given)
    assert_tells(told, given, "--model-from", "leave it out")


def test_what_to_do_is_learned_anew_on_the_world_model_of_another_run(place: Path, tmp_path: Path) -> None:
    changes = (*(change for change in TINY if not change.startswith("model.")), "agent.gamma=0.9", "agent.units=24")
    overrides = (*changes, "training.latent_updates=3")
    api.pretrain(place / "log", tmp_path / "out", preset="tiny", overrides=overrides, model_from=place / "run")
    (old, _), (new, facts) = wire.load_agent(place / "run"), wire.load_agent(tmp_path / "out")
    assert facts["updates"] == 3 and facts["config"]["training"]["updates"] == 0
    assert new.config.gamma == 0.9 and new.config.units == 24 and new.model.config == old.model.config
    for name, weight in new.model.state_dict().items():
        assert weight.equal(old.model.state_dict()[name]), name
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["kind"] == "pretrain"
    assert record["model_from"]["hash"] == checkpoint.check_files(checkpoint.resolve(place / "run"))
    assert "model/image" not in (tmp_path / "out" / "metrics.jsonl").read_text()


def test_cloning_is_not_fine_tuned(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = changed(place, tmp_path / "other", method="cloning")
    assert_tells(refused(capsys, "finetune", "--checkpoint", run, "--out", tmp_path / "out"), "cloning", "critics")


# --------------------------------------------------------------------------------------------------- the others


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["report", "{place}/missing"], ["missing", "no such folder"]),
        (["report", "{place}/an-empty-folder"], ["not a run folder"]),
        (["report", "{place}/run", "--out", "{place}/log"], ["log"]),
        (["report"], ["at least one run folder"]),
        (["study", "pointgaol1"], ["'pointgaol1'", "'pointgoal1'"]),
        (["study"], ["NAME"]),
        (["bench", "evn"], ["'evn'", "'env'"]),
        (["bench", "train", "--preset", "papre"], ["'papre'", "'paper'"]),
        (["bench", "env", "--task", "SafetyPointGoal9"], ["'SafetyPointGoal9'", "SafetyPointGoal"]),
        (["bench", "env", "--repeats", "0"], ["--repeats 0"]),
        (["demo", "--out", "{place}/a-file"], ["a-file"]),
        (["demo", "--seed", "x"], ["--seed", "'x'"]),
        (["doctor", "--only", "gll"], ["gl"]),
        (["evalute", "x"], ["'evalute'", "'evaluate'"]),
    ],
)
def test_other_verbs(words: list[str], parts: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_tells(refused(capsys, *[word.format(place=place) for word in words]), *parts)


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("verb", ["pretrain", "collect", "report"])
def test_a_folder_that_cannot_be_written(
    verb: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o555)
    words = {
        "pretrain": ["--data", place / "log", "--preset", "tiny"],
        "collect": ["--task", "SafetyPointGoal1", "--episodes", "1", "--workers", "0"],
        "report": [place / "run"],
    }[verb]
    assert_tells(refused(capsys, verb, *words, "--out", tmp_path / "out"), tmp_path, "ermission denied")


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ([], {}),
        (["--precision", "float32", "--no-compile"], {"precision": "float32", "compile": False}),
        (["--precision", "bfloat16", "--compile"], {"precision": "bfloat16", "compile": True}),
        (["--set", "training.precision=bfloat16", "--precision", "float32"], {"precision": "float32"}),
    ],
)
def test_how_to_compute_is_a_setting_of_the_run(
    words: list[str], settings: dict[str, Any], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Resolved(Exception):
        pass

    found = []
    monkeypatch.setattr(api.limits, "check", lambda config: found.append(config) or (_ for _ in ()).throw(Resolved))
    for verb, source in (("pretrain", ["--data", place / "log"]), ("finetune", ["--checkpoint", place / "run"])):
        with pytest.raises(Resolved):
            main([verb, *map(str, source), "--out", str(tmp_path / verb), *words])
    base = {"precision": "auto", "compile": None}
    for config in found:
        assert {name: getattr(config.training, name) for name in base} == base | settings
    assert len(found) == 2


def test_the_python_functions_raise_the_same(place: Path, tmp_path: Path) -> None:
    with pytest.raises(fosp.UserError, match="did you mean 'tiny'"):
        fosp.pretrain(place / "log", tmp_path / "out", preset="tniy")
    with pytest.raises(fosp.UserError, match="does not exist"):
        fosp.load_policy(tmp_path / "missing")
    assert RunConfig() == resolve("small")
