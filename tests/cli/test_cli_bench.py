"""fosp bench: what is counted is what was done, and each measurement runs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fosp.cli import bench, wire
from fosp.cli.bench import Options, act, data, env, limit, machine, online, synthetic, train
from fosp.cli.main import main
from fosp.data.sampler import Sampler
from fosp.data.store import Store
from fosp.types import UserError

#: A configuration whose update takes milliseconds.
SMALL = (
    "model.deter=8", "model.groups=2", "model.classes=4", "model.units=8", "model.depth=8", "model.bins=5",
    "agent.units=8", "agent.bins=5", "agent.horizon=2", "agent.starts=4", "training.batch=2", "training.length=3",
)  # fmt: skip


# ----------------------------------------------------------------------------------------------- counting and timing


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_operations_of_products_and_convolutions_count_with_their_gradients(precision: str) -> None:
    convolution = torch.nn.Conv2d(3, 8, 4, 2, 1, bias=False)
    linear = torch.nn.Linear(8 * 16, 10, bias=False)
    images = torch.randn(5, 3, 8, 8)

    def update() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            out = linear(convolution(images).flatten(1))
        out.float().square().sum().backward()

    forward_convolution = 2 * 5 * (8 * 4 * 4) * (3 * 4 * 4)
    forward_linear = 2 * 5 * 128 * 10
    # Back: the convolution's weights (its input needs no gradient), the product's weights and input.
    assert train.flop(update) == {"convolution": 2 * forward_convolution, "matmul": 3 * forward_linear}
    assert train.flop(update, 3) == {"convolution": 6 * forward_convolution, "matmul": 9 * forward_linear}


def test_the_share_of_the_ceiling_is_the_time_that_the_products_alone_would_take() -> None:
    work, best = {"matmul": 10.0, "convolution": 5.0}, {"matmul": 100.0, "convolution": 50.0}
    found = train._row("x", [2.0, 4.0, 3.0], work, best, 1.5, 7_000_000)
    assert found["median"] == 3 and found["low"] == 2 and found["high"] == 4
    assert found["share"] == pytest.approx((10 / 100 + 5 / 50) * 3)
    assert found["remark"] == "15.0 GFLOP, 60 % of ceiling, 1.5 cores, 7 MB"


def test_ceilings_are_of_the_right_order() -> None:
    found = machine.ceilings(torch.device("cpu"), "float32", 0.0)
    assert found.keys() == {"matmul", "convolution"}
    assert all(0.1 < value < 1e5 for value in found.values())  # GFLOP/s


def test_rates_are_calls_per_second() -> None:
    calls = []

    def once() -> None:
        calls.append(time.perf_counter())
        time.sleep(0.01)

    found, cores = machine.rates(once, step=3, repeats=4, seconds=0.06)
    counted = len(calls) - 6  # the first two steps warm up
    assert len(found) == 4 and counted % (4 * 3) == 0 and counted >= 12
    assert all(10 < rate < 100 for rate in found)  # 100 on a machine that does nothing else
    assert cores < 0.5  # it sleeps


def test_peak_memory_is_that_of_the_process_alone() -> None:
    mine = np.ones(40_000_000)  # 320 MB, resident
    assert machine.peak_bytes() > mine.nbytes
    assert machine.fresh(machine.peak_bytes) < 200e6  # and not what its parent had when it began


def test_digits() -> None:
    assert [bench.digits(x) for x in (870.0, 12.0, 1.5, 0.5, 0.02)] == [0, 1, 2, 3, 4]


# ---------------------------------------------------------------------------------------------------------- measuring


def test_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new" / "speed.json"
    words = ["--preset", "laptop", "--precision", "float32", "--repeats", "2", "--seconds", "0", "--device", "cpu"]
    changes = [*SMALL, "model.decode_width=64", "training.latent_batch=2"]
    assert main(["bench", "train", *words, "--set", *changes, "--json", str(file)]) == 0
    document = json.loads(file.read_text())
    assert document["machine"]["cores"] == os.cpu_count() and document["machine"]["versions"]["torch"]
    # Where bfloat16 is emulated, what counts as its ceiling takes minutes to measure and is no ceiling.
    quick, kind = ("bfloat16", "bfloat16") if wire.has_bfloat16(torch.device("cpu")) else ("auto", "float32")
    here = train._measure("laptop", [*changes, f"training.precision={quick}"], "cpu", 2, 0)
    rows = [*document["rows"], *here]
    kinds = [(row["precision"], row["stage"]) for row in rows]
    assert kinds == [(p, s) for p in ("float32", kind) for s in ("images", "encoded log")]
    assert ["reference path" in row["name"] for row in rows] == [True, True, False, False]
    for row in rows:
        assert row["low"] <= row["median"] <= row["high"] and len(row["samples"]) == 2
        assert row["seconds_per_update"] == pytest.approx(1 / row["median"])
        assert row["gflop"]["matmul"] > 0 and (row["gflop"]["convolution"] > 0) == (row["stage"] == "images")
        assert 0 < row["share"] < 1 and 50e6 < row["peak_bytes_before"] <= row["peak_bytes"] < 3e9
        assert row["config"]["model"]["deter"] == 8 and row["config"]["training"]["precision"] in ("float32", quick)
    # Off the reference path, products with one-hot columns are sums of rows, which do not count, the written gradient
    # has one more for the state before the first row, and a convolution by phases computes a border that is cut off.
    assert 0.5 * rows[0]["gflop"]["matmul"] < rows[2]["gflop"]["matmul"] < 1.0001 * rows[0]["gflop"]["matmul"]
    assert 0.5 * rows[1]["gflop"]["matmul"] < rows[3]["gflop"]["matmul"] < rows[1]["gflop"]["matmul"]
    assert rows[0]["gflop"]["convolution"] == pytest.approx(rows[2]["gflop"]["convolution"], rel=0.1)
    assert "train laptop" in capsys.readouterr().out


def test_act(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(act, "CALLS", 12)
    monkeypatch.setattr(act, "WARM_UP", 2)
    monkeypatch.setattr(act, "fresh", lambda function, *arguments: function(*arguments))
    rows = act.measure(Options(preset=("tiny",), repeats=3, device="cpu"))
    assert [(row["expansion"], row["frozen"]) for row in rows] == [(False, True), (True, True), (True, False)]
    for row in rows:
        assert row["calls"] == 12 and len(row["samples"]) == 3
        assert 0 < row["low"] <= row["median"] <= row["p90"] <= row["p99"] <= row["worst"]


def test_env(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, "RESETS", 2)
    rows = env.measure(Options(repeats=3, seconds=0))
    found = {row["name"]: row for row in rows}
    for quality in ("fast", "faithful"):
        own = found[f"env {quality}"]
        for to, name in (("plain", env.PLAIN), ("bare", env.BARE), ("least", env.LEAST)):
            ratios = sorted(x / y for x, y in zip(own["samples"], found[name]["samples"], strict=True))
            assert len(ratios) == 3 and own[f"ratio_to_{to}"] == pytest.approx(ratios[1])
        assert len(found[f"env {quality}, reset"]["samples"]) == 6
    alone, both = (found[f"env fast, vector of {count}"]["samples"] for count in (1, 2))
    scaling = sorted(x / y for x, y in zip(both, alone, strict=True))[1]
    assert found["env fast, vector of 2"]["scaling"] == pytest.approx(scaling) and len(rows) == 9


def test_data_over_numbers_of_episodes(tmp_path: Path) -> None:
    file = tmp_path / "cost.png"
    options = Options(episodes=(3, 40), repeats=2, seconds=0, folder=tmp_path, plot=file)
    rows = data.measure(options)
    assert [(row["kind"], row["episodes"], row["unit"]) for row in rows] == [
        (kind, count, unit) for kind, _, _ in data.KINDS for count in (3, 40) for unit in ("ms", "s")
    ]
    assert file.stat().st_size > 5000
    assert os.listdir(tmp_path) == ["cost.png"]  # the stores are gone


def test_data_from_a_store_that_is_learned_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SMALL_GB", 0.001)
    monkeypatch.setattr(data, "fresh", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(limit, "_parents", lambda: iter(()))  # as where the system lets nobody make a group
    options = Options(episodes=(), gigabytes=0.013, limit_gb=1000, repeats=1, seconds=0, set=SMALL, folder=tmp_path)
    rows = {row["name"]: row for row in data.measure(options)}
    small, large = rows["learn from small store, tiny"], rows["learn from large store, tiny"]
    assert large["ratio"] == pytest.approx(large["median"] / small["median"])
    assert large["limited_by"] == "no limit possible: pages dropped" and small["limited_by"] == "no limit"
    assert large["store_bytes"] >= 0.013e9 > 2 * small["store_bytes"] / 3
    assert os.listdir(tmp_path) == []


def test_online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "fresh", lambda function, *arguments: function(*arguments))
    changes = (*SMALL, "online.envs=2", "online.updates_per_step=0.75")
    alone, beside = online.measure(Options(repeats=2, seconds=0, set=changes, folder=tmp_path, device="cpu"))
    assert beside["ratio"] == pytest.approx(beside["median"] / alone["median"])
    assert len(alone["samples"]) == len(beside["samples"]) == 2 and 0 < beside["learner_waited"] < 1
    assert (beside["envs"], beside["updates_per_step"], beside["steps_of_an_episode"]) == (2, 0.75, 2)
    spent = beside["processor_s_per_update"]
    assert spent["alone"] > 0 and spent["beside"] > 0 and spent["actor"] > 0
    assert os.listdir(tmp_path) == []


# ------------------------------------------------------------------------------------------------- stores and limits


def test_a_store_of_holes_is_a_store(tmp_path: Path) -> None:
    path = tmp_path / "log"
    synthetic.write_holes(path, episodes=50, rows=251, side=64)  # two chunks
    store = Store.open(path)
    assert len(store) == 50 and store.num_bytes > 300e6 and {row["chunk"] for row in store.manifest} == {0, 1}
    assert sum(file.stat().st_blocks for file in path.rglob("*.bin")) * 512 < 1e6  # of the disk
    assert not Sampler(store, 2, 5, 0).sample().images["image_back"].any()


def test_a_written_store_holds_what_its_hashes_say(tmp_path: Path) -> None:
    store = synthetic.write_store(tmp_path / "log", 0.007)
    assert len(store) == 2 and store.num_bytes >= 0.007e9
    store.verify()
    assert Sampler(store, 2, 5, 0).sample().images["image_back"].std() > 50


def in_memory(path: Path) -> float:
    """Seconds that reading a file takes is no measure; what the system says is: pages of it that are in memory."""
    import ctypes
    import mmap

    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        pages = -(-len(view) // mmap.PAGESIZE)
        present = (ctypes.c_ubyte * pages)()
        held = ctypes.c_char.from_buffer(view)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mincore(ctypes.c_void_p(ctypes.addressof(held)), ctypes.c_size_t(len(view)), present) == 0
        del held
    return sum(page & 1 for page in present) / pages


@pytest.mark.skipif(not Path("/proc/self/cgroup").exists(), reason="page cache of Linux")
def test_evicted_pages_are_gone(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "x.bin"
    file.parent.mkdir()
    file.write_bytes(os.urandom(2**20))
    assert in_memory(file) > 0.9
    limit.evict(tmp_path)
    assert in_memory(file) < 0.1


def read_in_group(group: limit.Group, path: Path) -> dict[str, int]:
    group.join()
    for _ in range(2):
        with path.open("rb") as file:
            while file.read(2**20):
                pass
    return group.facts()


def test_a_group_limits_the_page_cache(tmp_path: Path) -> None:
    file = tmp_path / "x.bin"
    file.write_bytes(bytes(150 * 2**20))
    limit.evict(tmp_path)
    bound = 64 * 2**20
    with limit.group(bound) as group:
        if group is None:
            pytest.skip("this user may not make control groups")
        found = machine.fresh(read_in_group, group, file)
    assert found["bytes_in_use"] <= bound and found["times_at_limit"] > 0
    assert found["bytes_of_page_cache"] > 2**20
    assert not group.path.exists()


# ----------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(what=("trian",)), "'trian'; did you mean 'train'"),
        (Options(preset=("tniy",)), "'tniy'; did you mean 'tiny'"),
        (Options(precision=("float16",)), "'float16'; did you mean 'bfloat16'"),
        (Options(set=("model.detr=3",)), "model.detr"),
        (
            Options(preset=("small",), set=("model.decode_width=24",)),
            "model.decode_width is 24; it must be a power of two",
        ),
        (Options(repeats=0), "--repeats 0 must be at least 1"),
        (Options(seconds=-1), "--seconds -1"),
        (Options(episodes=(5, 0)), "--episodes 0 must be at least 1"),
        (Options(limit_gb=4), "--limit-gb 4 needs --gigabytes"),
        (Options(gigabytes=-4), "--gigabytes -4"),
        (Options(what=("act",), plot=Path("x.png")), "--plot x.png goes with data, not with act"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(options: Options, words: str) -> None:
    with pytest.raises(UserError, match=words):
        bench.check(options)


def test_a_disk_that_is_too_small_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--gigabytes 1e.* does not fit on the disk"):
        data.measure(Options(episodes=(), gigabytes=1e9, folder=tmp_path))
    with pytest.raises(UserError, match="missing is not there"):
        data.measure(Options(folder=tmp_path / "missing"))
