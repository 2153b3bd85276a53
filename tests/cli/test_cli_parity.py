"""fosp parity: the table, the picture, the numbers, and what it says where a recording does not agree."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from fosp.cli.main import main
from fosp.envs.parity import RECORDINGS, load


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One short recording."""
    record = load(RECORDINGS / "SafetyPointPush1_seed1.npz")
    rows = {"time", "qpos", "qvel", "qacc_warmstart", "goal_pos", "last_dists"}
    frames = {"action", "reward", "cost", "goal_met", "truncated"}
    for name in record:
        if name in rows:
            record[name] = record[name][:21]
        elif name in frames or name.startswith("info_cost_"):
            record[name] = record[name][:20]
    np.savez(tmp_path / "SafetyPointPush1_seed1.npz", allow_pickle=False, **record)
    return tmp_path


def test_a_picture_that_cannot_be_written_is_told_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["parity", "--recordings", str(folder), "--json", str(folder / "n.json"), "--picture", "parity.xyz"]
    assert main(words) == 2
    assert "--picture parity.xyz must end in" in capsys.readouterr().err and not (folder / "n.json").exists()


def test_it_writes_what_it_finds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, numbers = folder / "new" / "parity.png", folder / "new" / "parity.json"
    assert main(["parity", "--recordings", str(folder), "--picture", str(picture), "--json", str(numbers)]) == 0
    said = capsys.readouterr().out
    assert "PointPush1 1" in said and "all within the tolerances" in said
    (result,) = json.loads(numbers.read_text())["results"]
    assert result["frames"] == 20 and result["goal"] == 0 and result["images"] > 0
    image = matplotlib.image.imread(picture)
    assert image[..., :3].std() > 0.05


def test_a_recording_that_does_not_agree_is_named_and_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = next(folder.glob("*.npz"))
    record = load(path)
    record["reward"] = record["reward"] + 1e-6
    np.savez(path, allow_pickle=False, **record)
    assert main(["parity", "--recordings", str(folder)]) == 1
    assert "SafetyPointPush1, seed 1: reward is 1e-06 but may be 1e-09 at most" in capsys.readouterr().out


def test_a_folder_without_recordings_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parity", "--recordings", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    shutil.copy(__file__, tmp_path / "text.npz")
    assert main(["parity", "--recordings", str(tmp_path)]) == 2
    assert "text.npz" in capsys.readouterr().err
