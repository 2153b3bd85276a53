from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from fake_world import SCHEMA, BrokenEnv, DeadlyEnv, FakeBehaviour, FakeEnv, assert_same

from fosp.data.collect import Job, collect, default_plan
from fosp.data.store import Store
from fosp.types import UserError

HERE = Path(__file__).parent
PLAN = default_plan(9)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The dataset that an uninterrupted run in one process makes."""
    return collect(tmp_path_factory.mktemp("whole") / "log", FakeEnv, FakeBehaviour, PLAN, workers=0)


def test_default_plan_mixes_evenly_and_cycles_noise() -> None:
    plan = default_plan(18, seed=40, noises=(0.0, 0.5), mix=("unsafe", "safe", "random"))
    assert [job.seed for job in plan] == list(range(40, 58))
    assert [job.behaviour for job in plan] == ["unsafe", "safe", "random"] * 6
    assert [job.noise for job in plan if job.behaviour == "safe"] == [0.0, 0.5, 0.0, 0.5, 0.0, 0.5]
    assert all(job.noise == 0.0 for job in plan if job.behaviour == "random")


def test_rows_say_how_the_episode_was_made(whole: Store) -> None:
    assert [Job(row["seed"], row["behaviour"], row["noise"]) for row in whole.manifest] == PLAN
    row = whole.manifest[0]
    assert row["task"] == SCHEMA.task and row["scenario"] is None and row["goals"] == 1
    assert "numpy" in row["versions"]
    assert row["cost"] == row["violation_steps"] == 1 and row["steps"] == 5  # "unsafe" violates on its third step
    assert row["return"] == pytest.approx(whole.episode(0).reward.sum())


def test_processes_make_the_very_same_dataset(whole: Store, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    tell = lambda done, total, row: seen.append((done, total))  # noqa: E731
    store = collect(tmp_path / "log", FakeEnv, FakeBehaviour, PLAN, workers=2, progress=tell)
    assert store.hash == whole.hash
    assert seen == [(done, 9) for done in range(10)]
    store.verify()


def test_rerun_and_longer_plan_add_only_what_is_missing(whole: Store, tmp_path: Path) -> None:
    first = collect(tmp_path / "log", FakeEnv, FakeBehaviour, PLAN[:4], workers=0)
    assert len(first) == 4
    made: list[FakeEnv] = []

    def make_env() -> FakeEnv:
        made.append(FakeEnv())
        return made[-1]

    assert collect(tmp_path / "log", make_env, FakeBehaviour, PLAN, workers=0).hash == whole.hash
    assert made[0].resets == [job.seed for job in PLAN[4:]] and made[0].closed
    assert collect(tmp_path / "log", make_env, FakeBehaviour, PLAN, workers=0).hash == whole.hash
    assert len(made) == 1  # nothing to do: no environment is built


@pytest.mark.parametrize("seed", [-1, 1_000_000, 2_000_000])
def test_seeds_of_other_purposes_are_refused(tmp_path: Path, seed: int) -> None:
    with pytest.raises(UserError, match=f"seed {seed} is not for collecting"):
        collect(tmp_path / "log", FakeEnv, FakeBehaviour, [Job(seed, "safe", 0.0)], workers=0)
    assert not (tmp_path / "log").exists()


def test_other_scenario_or_environment_is_refused(tmp_path: Path) -> None:
    collect(tmp_path / "log", FakeEnv, FakeBehaviour, PLAN[:1], workers=0, scenario="dark")
    with pytest.raises(UserError, match="scenario 'dark', but now it is 'bright'"):
        collect(tmp_path / "log", FakeEnv, FakeBehaviour, PLAN, workers=0, scenario="bright")
    other = partial(FakeEnv, schema=type(SCHEMA)(**{**SCHEMA.to_json(), "action_repeat": 4}))
    with pytest.raises(UserError, match="action_repeat 2, but now it is 4"):
        collect(tmp_path / "log", other, FakeBehaviour, PLAN, workers=0, scenario="dark")
    assert len(Store.open(tmp_path / "log")) == 1


def test_plan_with_a_repetition_and_used_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="more than once"):
        collect(tmp_path / "log", FakeEnv, FakeBehaviour, PLAN + PLAN[:1], workers=0)
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UserError, match="holds thesis.txt"):
        collect(tmp_path, FakeEnv, FakeBehaviour, PLAN, workers=0)


def test_killed_worker_is_told_and_the_rerun_completes(whole: Store, tmp_path: Path) -> None:
    make_env = partial(DeadlyEnv, tmp_path / "mark", 5)
    with pytest.raises(UserError, match="killed by SIGKILL while collecting layout 5"):
        collect(tmp_path / "log", make_env, FakeBehaviour, PLAN, workers=2)
    kept = Store.open(tmp_path / "log")
    assert [row["seed"] for row in kept.manifest] == list(range(len(kept))) and len(kept) <= 5
    assert collect(tmp_path / "log", make_env, FakeBehaviour, PLAN, workers=2).hash == whole.hash


def test_error_in_a_worker_arrives_with_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError: the physics exploded"):
        collect(tmp_path / "log", BrokenEnv, FakeBehaviour, PLAN, workers=1)


SCRIPT = """
import sys
from functools import partial
from fake_world import FakeBehaviour, FakeEnv
from fosp.data.collect import collect, default_plan

if __name__ == "__main__":
    try:
        collect(sys.argv[1], partial(FakeEnv, slow=0.01), FakeBehaviour, default_plan(400), workers=2)
    except KeyboardInterrupt as stop:
        sys.exit(str(stop))
"""


def _hear_ctrl_c() -> None:
    """A process that was started in the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _start(log: Path, script: Path) -> subprocess.Popen[str]:
    """Collects slowly in a process group of its own; returns when some episodes are there."""
    script.write_text(SCRIPT)
    path = os.pathsep.join([str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, str(script), str(log)], stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": path},
        preexec_fn=_hear_ctrl_c,
    )  # fmt: skip
    manifest = log / "episodes.jsonl"
    end = time.monotonic() + 30
    while not (manifest.exists() and manifest.read_bytes().count(b"\n") >= 5):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    return process


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes through /proc")
def test_kill_9_while_collecting_then_the_rerun_goes_on(tmp_path: Path) -> None:
    process = _start(tmp_path / "log", tmp_path / "script.py")
    workers = _children(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.communicate()
    kept = Store.open(tmp_path / "log")
    count = len(kept)
    kept.verify()
    store = collect(tmp_path / "log", FakeEnv, FakeBehaviour, default_plan(400)[: count + 3], workers=0)
    alone = collect(tmp_path / "alone", FakeEnv, FakeBehaviour, default_plan(400)[: count + 3], workers=0)
    assert len(store) == count + 3 and store.hash == alone.hash
    end = time.monotonic() + 10
    while any(map(_alive, workers)):  # they find their pipe closed and end
        assert time.monotonic() < end
        time.sleep(0.05)


def test_ctrl_c_ends_with_one_sentence_and_a_valid_dataset(tmp_path: Path) -> None:
    process = _start(tmp_path / "log", tmp_path / "script.py")
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the workers too
    _, told = process.communicate(timeout=20)
    kept = Store.open(tmp_path / "log")
    kept.verify()
    log = tmp_path / "log"
    assert told.strip() == f"stopped; {len(kept)} episodes are kept in {log}, run the same command again to go on"
    assert_same(kept.episode(3), collect(tmp_path / "one", FakeEnv, FakeBehaviour, [PLAN[3]], workers=0).episode(0))
