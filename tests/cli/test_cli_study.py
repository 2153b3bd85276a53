"""A study: which steps are taken where, what a rerun does, its tables, and workers that are lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from builders import SCHEMA, episode

from fosp import api
from fosp.cli import fleet, study
from fosp.cli.road import Plan, Road, drive
from fosp.data.store import Store
from fosp.evaluation.document import make_document, save
from fosp.training import checkpoint
from fosp.types import UserError

TASKS = ("SafetyPointGoal1", "SafetyCarGoal2")


class FakeApi:
    """Leaves what the real functions leave, as far as a study reads it, and notes what was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.fails_at = ""
        for name in ("collect", "pretrain", "finetune", "evaluate", "write_report"):
            monkeypatch.setattr(api, name, getattr(self, name))

    def note(self, what: str, out: Path) -> None:
        if self.fails_at and self.fails_at in f"{what} {out}":
            raise UserError("the disk is on fire")
        self.calls.append(what)
        (out.parent if what.startswith("collect") else out).mkdir(parents=True, exist_ok=True)

    def collect(self, task: str, out: Path, **_: Any) -> Any:
        self.note(f"collect {task}", out)
        make_log(out.parent)
        return SimpleNamespace(close=lambda: None)

    def pretrain(self, data: Path, out: Path, **_: Any) -> None:
        assert data.exists()
        self.note(out.name, out)

    def finetune(self, source: Path, out: Path, *, seed: int, **_: Any) -> None:
        assert source.exists()
        self.note("finetune", out)
        for name, cost in (("episodes", 1.0), ("frozen", 3.0)):
            rows = [{**row, "chosen_online": 0.5} for row in self.rows(cost)]
            (out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def evaluate(self, runs: Mapping[str, Path], *, task: str, scenario: str | None, out: Path, **_: Any) -> None:
        assert all(run.exists() for run in runs.values())
        self.note(f"evaluate {', '.join(runs)}", out)
        policies = [{"label": label, "meta": {}, "episodes": self.rows(i)} for i, label in enumerate(runs)]
        made = make_document(policies, task=task, scenario=scenario, cost_limit=10.0, suite_hash="abc")
        save(made, out / "evaluation" / f"{scenario or 'nominal'}.json")

    def write_report(self, runs: list[Path], out: Path, *, title: str) -> None:
        assert all(run.exists() for run in runs)
        self.note("report", out.parent)
        out.write_text(title)

    @staticmethod
    def rows(cost: float) -> list[dict[str, Any]]:
        same = {"return": 7.0, "cost": float(cost), "violation_steps": int(cost > 0), "steps": 10, "goals": 1.0}
        return [{"seed": seed, **same} for seed in range(2_000_000, 2_000_006)]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    return FakeApi(monkeypatch)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_one_task_lies_where_it_always_lay(fake: FakeApi, tmp_path: Path) -> None:
    assert study.run(study.Options("pointgoal1", out=tmp_path, seeds=(0, 4))) == 0
    steps = ["collect", "pretrain", "cloning", "finetune", "evaluate", "report"]
    assert fake.calls[:4] == ["collect fosp/SafetyPointGoal1-v0", "offline", "cloning", "finetune"]
    assert fake.calls[4:7] == ["evaluate cloning, offline", "evaluate offline, fine-tuned", "report"]
    for seed in (0, 4):
        folder = tmp_path / f"seed-{seed}"
        assert list(read(folder / "road.json")) == steps
        assert {path.name for path in folder.iterdir()} == {
            "log", "offline", "cloning", "finetuned", "evaluation", "report.html", "plan.json", "road.json"
        }  # fmt: skip
    results = tmp_path / "results"
    found = read(results / "study.json")
    assert found["seeds"] == [0, 4] and found["plan"]["task"] == "fosp/SafetyPointGoal1-v0"
    assert {name: table["runs"] for name, table in found["tables"].items()} == {"nominal": 2, "larger-hazards": 2}
    assert [row["seed"] for row in found["learning"]] == [0, 4] and found["learning"][0]["layouts"] == 6
    page = (results / "README.md").read_text()
    assert [row["seed"] for row in found["offline"]] == [0, 4] and found["offline"][0]["imagined_cost"] is None
    assert set(found["offline"][0]["log"]) == {"fake", "all"} and "| seed | fake | all | imagined cost |" in page
    assert "\n## larger-hazards: 2 runs, 6 held-out layouts each (suite abc)\n" in page and "| 4 | 6 |" in page
    assert {path.name for path in results.iterdir()} == {
        "README.md", "study.json", "report-seed-0.html", "report-seed-4.html"
    }  # fmt: skip


def test_several_tasks_are_told_apart(fake: FakeApi, tmp_path: Path) -> None:
    study.run(study.Options("pointgoal1", out=tmp_path, seeds=(0,), tasks=TASKS))
    assert [call for call in fake.calls if "collect" in call] == [f"collect fosp/{task}-v0" for task in TASKS]
    assert all((tmp_path / task / "seed-0" / "offline").is_dir() for task in TASKS)
    found = read(tmp_path / "results" / "study.json")
    assert {name: row["tables"]["nominal"]["task"] for name, row in found["tasks"].items()} == {
        task: f"fosp/{task}-v0" for task in TASKS
    }
    page = (tmp_path / "results" / "README.md").read_text()
    assert page.index("## SafetyPointGoal1\n") < page.index("### nominal") < page.index("## SafetyCarGoal2\n")
    assert (tmp_path / "results" / "report-SafetyCarGoal2-seed-0.html").exists()


def test_a_study_goes_on_where_it_stopped(fake: FakeApi, tmp_path: Path) -> None:
    options = study.Options("pointgoal1", out=tmp_path, seeds=(0, 1))
    fake.fails_at = f"finetune {tmp_path / 'seed-1'}"
    with pytest.raises(UserError, match="on fire"):
        study.run(options)
    assert list(read(tmp_path / "seed-1" / "road.json")) == ["collect", "pretrain", "cloning"]
    fake.fails_at, fake.calls = "", []
    study.run(options)
    evaluations = ["evaluate cloning, offline", "evaluate offline, fine-tuned"]
    assert fake.calls == ["report", "finetune", *evaluations, "report"]


def test_a_folder_keeps_its_plan_and_seed(fake: FakeApi, tmp_path: Path) -> None:
    study.run(study.Options("pointgoal1", out=tmp_path, seeds=(0,)))
    fake.calls = []
    with pytest.raises(UserError, match=r"seed-0 holds another road: pretrain is .* here; give the same options"):
        study.run(study.Options("pointgoal1", out=tmp_path, seeds=(0,), pretrain=("training.updates=8000",)))
    first = study.STUDIES["pointgoal1"]
    with pytest.raises(UserError, match="holds another road: seed is 0 there and 1 here"):
        drive(Road(first, tmp_path / "seed-0", 1), print)
    assert not fake.calls
    (tmp_path / "seed-0" / "plan.json").unlink()  # nothing says what was done here
    with pytest.raises(UserError, match="seed is 'unknown' there"):
        drive(Road(first, tmp_path / "seed-0", 0), print)


def test_the_seconds_of_a_stopped_step_are_counted(fake: FakeApi, tmp_path: Path) -> None:
    road = Road(study.STUDIES["pointgoal1"], tmp_path, 0)
    fake.fails_at = f"finetune {tmp_path}"
    with pytest.raises(UserError, match="on fire"):
        drive(road, print)
    (tmp_path / ".finetune.seconds").write_text("100.0")
    fake.fails_at = ""
    drive(road, print)
    assert 100 <= road.seconds["finetune"] < 110 and not (tmp_path / ".finetune.seconds").exists()
    drive(road, print)
    assert road.seconds["report"] < 10


def test_a_method_that_comes_later_is_added(fake: FakeApi, tmp_path: Path) -> None:
    options = study.Options("pointgoal1", out=tmp_path, seeds=(0,), methods=("fosp",))
    study.run(options)
    assert "cloning" not in fake.calls and "evaluate offline" in fake.calls
    fake.calls = []
    study.run(replace(options, methods=("fosp", "cloning")))
    assert fake.calls == ["cloning", "evaluate cloning, offline", "evaluate offline, fine-tuned", "report"]
    study.run(replace(options, out=tmp_path / "other", methods=("cloning",)))
    found = read(tmp_path / "other" / "results" / "study.json")
    assert list(found["tables"]) == ["nominal"] and found["methods"] == ["cloning"]
    assert "fine-tuning" not in (tmp_path / "other" / "results" / "README.md").read_text().lower()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ("cloninng",)}, "'cloninng'; did you mean 'cloning'"),
        ({"methods": ()}, "at least one of --methods"),
        ({"tasks": ("SafetyPointGaol1",)}, "SafetyPointGoal1"),
        ({"workers": -1}, "--workers -1"),
        ({"workers": 2, "ray": "auto"}, "give one of them"),
        ({"workers": 2}, "Ray, which is not installed"),
        ({"ray": "auto"}, "Ray, which is not installed"),
    ],
)
def test_wrong_options_are_told_before_anything_runs(
    fake: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=words):
        study.run(replace(study.Options("pointgoal1", out=tmp_path / "out"), **changes))
    assert fake.calls == []


# ------------------------------------------------------------------------------------------------------ workers

PLAN = Plan(
    episodes=3,
    scenario="larger-hazards",
    preset="small",
    pretrain=(
        "model.deter=8", "model.groups=2", "model.classes=4", "model.units=16", "model.layers=1", "model.depth=4",
        "model.decode_width=16", "model.bins=41", "agent.units=16", "agent.layers=1", "agent.bins=41",
        "agent.horizon=3", "agent.starts=4", "training.batch=2", "training.length=6", "training.updates=30",
        "training.save_every=5", "training.precision=float32",
    ),
    cloning=("training.latent_updates=2", "training.latent_batch=2", "training.length=6", "training.precision=float32"),
)  # fmt: skip


#: Where workers find this file, whose roads they take.
PATHS = os.pathsep.join(str(Path(__file__).parents[level]) for level in range(3))


class ShortRoad(Road):
    """Learning alone, from a log that is there."""

    @property
    def needs(self) -> Mapping[str, tuple[str, ...]]:
        return {"pretrain": (), "cloning": ("pretrain",)}


class BadRoad(Road):
    """Its second step cannot be taken; the one beside it can."""

    @property
    def needs(self) -> Mapping[str, tuple[str, ...]]:
        return {"begin": (), "bad": ("begin",), "good": ("begin",), "end": ("bad", "good")}

    def step(self, name: str, workers: int | None = None) -> float:
        if name == "bad":
            raise UserError("no such luck")
        (self.out / name).touch()
        return float(os.environ["OMP_NUM_THREADS"])


def make_log(folder: Path) -> None:
    with Store.create(folder / "log", SCHEMA) as store:
        for seed in range(3):
            store.append(episode(seed))


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    pytest.importorskip("ray", reason="Ray is not installed; pip install 'fosp[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATHS)
        with fleet.connected(workers=2, address=None, threads=1) as connected:
            yield connected


def workers_of(name: str) -> list[psutil.Process]:
    """Ray workers among the children of this process that are at a step."""
    return [child for child in psutil.Process().children(recursive=True) if _title(child).endswith(name)]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""


def wait_for(ready: Callable[[], Any]) -> Any:
    end = time.monotonic() + 300
    while not (found := ready()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def test_a_step_whose_worker_is_killed_goes_on_elsewhere(ray: Any, tmp_path: Path) -> None:
    make_log(tmp_path)
    road, told = ShortRoad(PLAN, tmp_path, 0, "cpu"), []
    sessions: list[int] = []

    def kill() -> None:
        wait_for(lambda: list(tmp_path.glob("offline/checkpoints/0*")))
        for worker in workers_of("pretrain"):
            worker.kill()
            sessions.append(worker.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    fleet.travel(ray, [road], 1, told.append)
    killer.join()
    assert len(sessions) == 1
    assert checkpoint.resolve(tmp_path / "offline").name == "00000030"
    assert len(read(tmp_path / "offline" / "run.json")["sessions"]) == 2
    assert list(road.seconds) == ["pretrain", "cloning"]
    assert [line.partition(" done")[0] for line in told] == [f"{road}: pretrain", f"{road}: cloning"]


def test_a_road_that_fails_leaves_the_others_alone(ray: Any, tmp_path: Path) -> None:
    roads = [BadRoad(PLAN, tmp_path / "a", 0), ShortRoad(PLAN, tmp_path / "b", 1, "cpu")]
    roads[0].out.mkdir()
    make_log(roads[1].out)
    changed = replace(roads[1], plan=replace(PLAN, pretrain=(*PLAN.pretrain, "training.updates=2")))
    told: list[str] = []
    with pytest.raises(UserError, match="no such luck"):
        fleet.travel(ray, [roads[0], changed], 1, told.append)
    assert roads[0].seconds == {"begin": 1.0, "good": 1.0}  # as many threads as were given
    assert list(changed.seconds) == ["pretrain", "cloning"]
    assert f"{roads[0]}: bad failed: no such luck" in told


# Workers hear of a killed driver after some three seconds, in which they may take 30 or 40 updates.
LONG = replace(PLAN, pretrain=(*PLAN.pretrain, "training.updates=200"))
DRIVER = """
from pathlib import Path
from test_cli_study import LONG, ShortRoad
from fosp.cli import fleet
with fleet.connected(workers=1, address=None, threads=1) as ray:
    fleet.travel(ray, [ShortRoad(LONG, Path({out!r}), 0, "cpu")], 1, print)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_steps_end_with_their_driver_and_go_on_with_the_next(tmp_path: Path, number: int) -> None:
    pytest.importorskip("ray", reason="Ray is not installed; pip install 'fosp[ray]'")
    make_log(tmp_path)
    command = [sys.executable, "-c", DRIVER.format(out=str(tmp_path))]
    driver = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": PATHS}, preexec_fn=_hear_ctrl_c)
    try:
        wait_for(lambda: list(tmp_path.glob("offline/checkpoints/0*")))
        children = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(number)
        driver.wait(120)
    finally:
        driver.kill()
    _, alive = psutil.wait_procs(children, timeout=120)
    assert not alive
    stopped = int(checkpoint.resolve(tmp_path / "offline").name)
    assert 5 <= stopped < 200 and not (tmp_path / "road.json").exists()
    drive(ShortRoad(LONG, tmp_path, 0, "cpu"), print)  # without Ray, too
    assert checkpoint.resolve(tmp_path / "offline").name == "00000200"


def _hear_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
