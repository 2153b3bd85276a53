"""Checkpoints: whole whenever the process dies, refused where damaged, few."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fosp.training import checkpoint
from fosp.types import UserError


def save(folder: Path, step: int, value: float | None = None, **options: Any) -> Path:
    weights = {"a.weight": torch.full((2, 3), float(step) if value is None else value)}
    state = {"generator": torch.arange(3)}
    return checkpoint.save(folder, step, {"method": "fosp"}, weights, state, {"n": step}, **options)


def value(path: Path) -> float:
    """The number that all weights of a whole checkpoint have."""
    checkpoint.check_files(path)
    (tensor,) = checkpoint.read_tensors(path, "policy/model").values()
    assert tensor.unique().numel() == 1
    return tensor[0, 0].item()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = save(tmp_path / "checkpoints", 12)
    assert path == tmp_path / "checkpoints" / "00000012"
    assert checkpoint.read_config(path) == {"format": checkpoint.FORMAT, "updates": 12, "method": "fosp"}
    assert checkpoint.read_numbers(path) == {"n": 12}
    assert value(path) == 12
    assert torch.equal(checkpoint.read_tensors(path, "training_state/state")["generator"], torch.arange(3))


def test_names_keep_their_order(tmp_path: Path) -> None:
    # The order of the cameras is the order in which their images are stacked on channels.
    cameras = {"image_front": [16, 16, 3], "image_back": [16, 16, 3]}
    path = checkpoint.save(
        tmp_path, 1, {"schema": {"cameras": cameras}}, {"a": torch.zeros(1)}, {"b": torch.zeros(1)}, {}
    )
    assert list(checkpoint.read_config(path)["schema"]["cameras"]) == list(cameras)


def test_strides_of_any_kind_are_written(tmp_path: Path) -> None:
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    path = checkpoint.save(tmp_path, 1, {}, {"conv": weight, "turned": weight[0, :, 0].T}, {"x": torch.zeros(1)}, {})
    read = checkpoint.read_tensors(path, "policy/model")
    assert torch.equal(read["conv"], weight) and torch.equal(read["turned"], weight[0, :, 0].T)


def test_it_is_found_from_the_run_the_folder_and_itself(tmp_path: Path) -> None:
    save(tmp_path / "run" / "checkpoints", 1)
    path = save(tmp_path / "run" / "checkpoints", 2)
    for place in ("run", "run/checkpoints", "run/checkpoints/last", "run/checkpoints/00000002"):
        assert checkpoint.resolve(tmp_path / place) == path
    assert checkpoint.resolve(str(tmp_path / "run/checkpoints/00000001")).name == "00000001"


def test_a_run_can_be_moved(tmp_path: Path) -> None:
    save(tmp_path / "run" / "checkpoints", 1)
    (tmp_path / "run").rename(tmp_path / "moved")
    assert value(checkpoint.resolve(tmp_path / "moved")) == 1


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 900, 1000, 20_000, 100_000):
        save(tmp_path, step, keep=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00001000", "00020000", "00100000", "last"]
    assert value(checkpoint.resolve(tmp_path)) == 100_000


class Killed(BaseException):
    """The process ends here."""


#: Everything through which ``save`` touches the disk.
TOUCHES = [
    (Path, "mkdir"), (Path, "rename"), (Path, "unlink"), (Path, "symlink_to"), (shutil, "rmtree"),
    (checkpoint, "save_file"), (checkpoint, "_write_json"), (checkpoint, "_sync"),
]  # fmt: skip


def kill_at(monkeypatch: pytest.MonkeyPatch, moment: int) -> Callable[[], int]:
    """Die just before the ``moment``-th touch of the disk; returns how many there were so far."""
    count = 0

    def watch(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def touch(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == moment:
                raise Killed
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, touch)

    for owner, name in TOUCHES:
        watch(owner, name)
    return lambda: count


@pytest.mark.parametrize(("step", "second"), [(2, 2.0), (1, 1.0)], ids=["a new step", "the same step again"])
def test_whenever_the_process_dies_the_last_checkpoint_is_whole(tmp_path: Path, step: int, second: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        touches = kill_at(patch, -1)
        save(tmp_path / "trial", 1)
        save(tmp_path / "trial", step, second)
    assert touches() > 20
    seen = set()
    for moment in range(1, touches() + 1):
        folder = tmp_path / str(moment)
        save(folder, 1)
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, moment)
            try:
                save(folder, step, second)
            except Killed:
                pass
        seen.add(value(checkpoint.resolve(folder)))
        save(folder, 3)  # the next run goes on as if nothing had happened
        assert value(checkpoint.resolve(folder)) == 3
        assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []
    assert seen == {1.0, second}


def test_saving_the_same_state_again_keeps_what_was_noted_beside_it(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (path / "scores.json").write_text("{}")
    assert save(tmp_path, 1) == path
    assert (path / "scores.json").exists()
    save(tmp_path, 1, value=5.0)  # another state: the score does not belong to it
    assert value(path) == 5.0 and not (path / "scores.json").exists()
    shorten(path / "training_state" / "state.json")  # damaged: written anew
    save(tmp_path, 1, value=5.0)
    assert value(path) == 5.0


def test_kill_in_the_middle_of_saving(tmp_path: Path) -> None:
    # A real SIGKILL, with the temporary folder left behind half written.
    program = """
import os, signal, sys, torch
from pathlib import Path
from fosp.training import checkpoint
folder = Path(sys.argv[1])
def save(step):
    checkpoint.save(folder, step, {}, {"a": torch.full((2, 3), float(step))}, {"b": torch.zeros(1)}, {})
save(1)
write = checkpoint._write_json
def deadly(path, data):
    if path.name == "state.json":
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, data)
checkpoint._write_json = deadly
save(2)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=Path(__file__).parents[2], timeout=120)
    assert done.returncode == -signal.SIGKILL
    left = [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]
    assert left == [".writing-00000002"]
    assert value(checkpoint.resolve(tmp_path)) == 1
    save(tmp_path, 2)
    assert value(checkpoint.resolve(tmp_path)) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000001", "00000002", "last"]


def shorten(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def garble(file: Path) -> None:
    file.write_bytes(b"\x00\xff{{" + file.read_bytes()[4:])


DAMAGES = [shorten, garble, Path.unlink, lambda file: file.write_text("[1, 2]")]


@pytest.mark.parametrize("damage", DAMAGES, ids=["shortened", "garbled", "missing", "something else"])
@pytest.mark.parametrize(
    ("file", "read"),
    [
        ("policy/config.json", checkpoint.read_config),
        ("policy/model.safetensors", lambda path: checkpoint.read_tensors(path, "policy/model")),
        ("training_state/state.safetensors", lambda path: checkpoint.read_tensors(path, "training_state/state")),
        ("training_state/state.json", checkpoint.read_numbers),
        ("manifest.json", checkpoint.check_files),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: Any, file: str, read: Any) -> None:
    path = save(tmp_path, 1)
    damage(path / file)
    with pytest.raises(UserError, match=file.rpartition("/")[2]) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_found_by_the_manifest(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    first = checkpoint.check_files(path)
    file = path / "policy" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match="model.safetensors differs from its manifest"):
        checkpoint.check_files(path)
    with pytest.raises(UserError, match="model.safetensors differs from its manifest"):
        checkpoint.read_tensors(path, "policy/model")  # the file is as long as it was, and safetensors reads it
    checkpoint.read_tensors(path, "training_state/state")
    assert first != checkpoint.check_files(save(tmp_path, 2))


def test_an_older_or_newer_format_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    config = json.loads((path / "policy" / "config.json").read_text())
    (path / "policy" / "config.json").write_text(json.dumps({**config, "format": "fosp-checkpoint/9"}))
    with pytest.raises(UserError, match="fosp-checkpoint/9"):
        checkpoint.read_config(path)


def test_places_without_a_checkpoint_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist"):
        checkpoint.resolve(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no checkpoint"):
        checkpoint.resolve(tmp_path)
