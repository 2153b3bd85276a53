"""Two processes that share every batch learn what one learns of it all, stop together and go on together."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import SCHEMA, episode

import fosp
from fosp.data.sampler import Sampler
from fosp.data.store import Store
from fosp.parallel import Team, joined
from fosp.training import checkpoint
from fosp.training.offline import Trainer

FORK = multiprocessing.get_context("fork")  # torch is imported already, and gloo begins in the child
#: Everything that an update can do is on: the mirror, both losses ahead, all ways to extract a policy, its average.
TINY = (
    "model.deter=8", "model.groups=2", "model.classes=4", "model.units=16", "model.layers=1", "model.depth=4",
    "model.decode_width=16", "model.decode_every=2", "model.bins=41", "model.whitening=1", "agent.units=16",
    "agent.layers=1", "agent.bins=41", "agent.horizon=4", "agent.starts=6", "agent.ahead=3", "agent.average=0.1",
    "agent.actor_scales.dynamics=0.5", "agent.actor_scales.imagined=0.2", "agent.constraint.budget=0",
    "optimiser.behaviour_every=2", "training.batch=4", "training.length=6", "training.latent_batch=4",
    "training.updates=6", "training.latent_updates=4", "training.log_every=1", "training.save_every=5",
    "training.precision=float32",
)  # fmt: skip


def pretrain(log: Path, out: Path, *changes: str) -> Path:
    return fosp.pretrain(log, out, preset="small", overrides=(*TINY, *changes), device="cpu")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes of several lengths: some are shorter than a window, and one ended in a terminal state."""
    store = Store.create(tmp_path_factory.mktemp("parallel") / "log", replace(SCHEMA, mirror=(1.0, -1.0)))
    for seed, rows in enumerate((11, 4, 9, 11, 3)):
        made = episode(seed, rows=rows)
        store.append(replace(made, is_terminal=made.is_last) if seed == 2 else made)
    store.close()
    return store.path


@pytest.fixture(scope="module")
def alone(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    pretrain(log, out)
    return out


def together(work: Callable[[], Any], size: int = 2) -> list[int | None]:
    """Exit codes of ``size`` processes that do ``work`` as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def child(rank: int) -> None:
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), **where}
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            work()
        except KeyboardInterrupt:
            sys.exit(130)

    processes = [FORK.Process(target=child, args=(rank,)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    return [process.exitcode for process in processes]


def curve(run: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "time" and not k.startswith("clock/")} for row in rows]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read_tensors(checkpoint.resolve(run), "policy/model")


def assert_same_curve(one: Path, other: Path) -> None:
    for mine, theirs in zip(curve(one), curve(other), strict=True):
        # Wide in what is divided by the range of returns, which begins at nearly nothing.
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-4)


@pytest.fixture(scope="module")
def shared(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shared") / "run"
    assert together(lambda: pretrain(log, out)) == [0, 0]
    return out


def test_two_processes_learn_what_one_learns(alone: Path, shared: Path) -> None:
    assert_same_curve(alone, shared)
    mine, theirs = weights(alone), weights(shared)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-4, atol=1e-5, msg=lambda said, name=name: name + said)
    assert "model/reward_ahead" in curve(shared)[1] and "model/image" not in curve(shared)[-1]  # both stages


def test_one_of_them_writes(alone: Path, shared: Path) -> None:
    assert [row["step"] for row in curve(shared)] == list(range(1, 11))
    assert len(json.loads((shared / "run.json").read_text())["sessions"]) == 1
    names = [sorted(str(path.relative_to(run)) for path in run.rglob("*.*")) for run in (alone, shared)]
    board = [[name for name in found if "tfevents" in name] for found in names]
    assert len(board[0]) == len(board[1]) == 1
    assert set(names[0]) - set(board[0]) == set(names[1]) - set(board[1])


def stricken(log: Path, out: Path, number: int, update: int) -> list[int | None]:
    """Exit codes of a run whose second process gets a signal after an update."""

    def work() -> None:
        step = Trainer.step

        def strike(self: Trainer) -> None:
            step(self)
            if not self.team.leads and self.learner.updates == update:
                os.kill(os.getpid(), number)

        Trainer.step = strike  # in the child alone
        pretrain(log, out)

    return together(work)


def test_ctrl_c_stops_all_at_the_same_update_and_they_go_on_exactly(log: Path, shared: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert stricken(log, out, signal.SIGINT, update=8) == [130, 130]
    assert checkpoint.resolve(out).name == "00000008"
    assert together(lambda: pretrain(log, out)) == [0, 0]
    assert curve(out) == curve(shared)
    assert all(torch.equal(tensor, weights(shared)[name]) for name, tensor in weights(out).items())


def test_one_that_is_killed_leaves_a_whole_checkpoint(log: Path, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first, second = stricken(log, out, signal.SIGKILL, update=7)
    assert first not in (0, None) and second == -signal.SIGKILL
    path = checkpoint.resolve(out)
    assert path.name == "00000005"
    checkpoint.check_files(path)
    pretrain(log, out)  # one process goes on with what two began
    assert_same_curve(alone, out)


def test_what_processes_tell_each_other() -> None:
    def work() -> None:
        with joined(torch.device("cpu")) as team:
            me, ten = team.rank, torch.arange(10.0)
            block = team.share(ten)
            assert block.tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]][me]
            assert torch.equal(team.gather(block), ten)
            assert torch.equal(team.gather(block > 4), ten > 4)
            assert team.pick(block, torch.tensor([9, 0, 4, 5])).tolist() == [[9, 0], [4, 5]][me]
            pair = team.mean([torch.tensor(float(me)), torch.full((2, 1), 4.0 * me)])
            assert [one.tolist() for one in pair] == [0.5, [[2], [2]]]
            assert team.hand_round(f"of {me}") == "of 0"
            assert team.agree(me == 0) and not team.agree(me == 1)  # the leading one decides
            team.same("x", 3)
            if me == 1:
                with pytest.raises(fosp.UserError, match="x is 1 in process 1, but 0 in process 0"):
                    team.same("x", me)
            else:
                team.same("x", me)

    assert together(work) == [0, 0]


def test_a_mean_over_unequal_parts_is_weighted() -> None:
    index, values = torch.tensor([3, 1, 0, 2, 1, 5]), torch.arange(6.0)
    parts = [Team(rank, 3).held(index, rows=2) for rank in range(3)]
    assert [positions.tolist() for positions, _ in parts] == [[1, 2, 4], [0, 3], [5]]
    means = [weight * values[positions].mean() for positions, weight in parts]
    assert sum(means) / 3 == pytest.approx(float(values.mean()))
    positions, weight = Team(3, 4).held(index, rows=2)
    assert (len(positions), weight) == (1, 0)


def test_own_windows_are_those_of_the_whole_batch(log: Path) -> None:
    with Store.open(log) as store:
        whole = Sampler(store, 6, 6, seed=1)
        parts = [Sampler(store, 6, 6, seed=1, own=Team(rank, 3).own(6)) for rank in range(3)]
        for _ in range(5):
            batch, shares = whole.sample(), [part.sample() for part in parts]
            for name in ("reward", "is_first", "action"):
                found = np.concatenate([getattr(share, name) for share in shares])
                np.testing.assert_array_equal(found, getattr(batch, name))
            images = np.concatenate([share.images["image_back"] for share in shares])
            np.testing.assert_array_equal(images, batch.images["image_back"])
        assert all(part.state_dict() == whole.state_dict() for part in parts)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda log: pretrain(log, log / "x", "training.batch=5"), "training.batch is 5, which 2 .* multiple of 2"),
        (lambda log: pretrain(log, log / "x"), "WORLD_SIZE is 2, but RANK is not set; start .* torchrun"),
        (lambda log: fosp.finetune(log, log / "x"), "finetune runs as one process, but WORLD_SIZE is 2"),
        (lambda log: fosp.collect("fosp/SafetyPointGoal1-v0", log / "x"), "collect runs as one process"),
        (lambda log: fosp.evaluate([log]), "evaluate runs as one process"),
    ],
)
def test_what_cannot_be_shared_is_told(
    log: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[Path], Any], words: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(fosp.UserError, match=words):
        call(log)
    assert not (log / "x").exists()


def test_torchrun_starts_the_command(log: Path, alone: Path, tmp_path: Path) -> None:
    changes = ["training.updates=1", "training.latent_updates=0"]
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fosp"]
    given = ["pretrain", "--data", str(log), "--out", str(tmp_path / "run"), "--preset", "small", "--device", "cpu"]
    done = subprocess.run([*start, *given, "--set", *TINY, *changes], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("00000001") == 1  # one tells for all
    (row,) = curve(tmp_path / "run")
    assert row == pytest.approx(curve(alone)[0], rel=1e-4, abs=1e-5)
