"""`fosp suites`: the table names what an evaluation would carry, and the picture shows every scenario."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fosp.cli.main import main
from fosp.envs import SCENARIOS, suite_hash
from fosp.envs.sheet import BOTTOM, CELL, GAP, LEFT, TOP
from fosp.envs.suites import SUITES
from fosp.types import HELD_OUT_SEEDS


def test_the_tables_fit_a_terminal_and_list_every_scenario_in_every_task_with_its_hash(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["suites"]) == 0
    printed = capsys.readouterr().out
    for name, suite in SUITES.items():
        (line,) = (line for line in printed.splitlines() if SCENARIOS[name].text in line)
        assert name in line and suite.hash in printed
        for trial in suite.trials:
            (line,) = (line for line in printed.splitlines() if trial.hash in line)
            assert trial.task.removeprefix("fosp/").removesuffix("-v0") in line
            assert f"20 from {HELD_OUT_SEEDS[0]}" in line


def test_other_tasks_and_numbers_of_layouts_have_hashes_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suites", "--task", "SafetyCarPush2", "--episodes", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == SUITES.keys()
    (trial,) = found["moving"]["trials"]
    assert trial["task"] == "fosp/SafetyCarPush2-v0"
    assert trial["seeds"] == list(HELD_OUT_SEEDS[:3])
    assert trial["hash"] == suite_hash("SafetyCarPush2", "moving", HELD_OUT_SEEDS[:3])


def test_scenarios_that_do_not_fit_a_task_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suites", "--task", "SafetyPointGoal0"]) == 0
    printed = capsys.readouterr().out
    assert "Scenario 'moving' changes hazards, but task 'SafetyPointGoal0' has none." in printed
    assert suite_hash("SafetyPointGoal0", "camera-shift", HELD_OUT_SEEDS[:20]) in printed


def test_the_picture_has_two_frames_of_each_scenario(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "sheet.png"
    assert main(["suites", "--task", "SafetyPointGoal1", "--picture", str(path)]) == 0
    assert capsys.readouterr().out.split() == [str(path)]
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    columns = len(SUITES)
    assert picture.shape[:2] == (TOP + 2 * (CELL + GAP) + BOTTOM, LEFT + columns * (CELL + GAP))
    cells = np.stack([
        [picture[TOP + row * (CELL + 1) + 4 :, LEFT + k * (CELL + GAP) + 4 :][: CELL - 8, : CELL - 8] for row in (0, 1)]
        for k in range(columns)
    ])  # (scenario, outside or inside, y, x, rgb)  # fmt: skip
    assert (cells.std(axis=(2, 3)).max(axis=-1) > 20).all()  # no frame is blank
    for i in range(columns):
        for j in range(i):
            assert np.abs(cells[i] - cells[j]).max() > 30, (list(SUITES)[i], list(SUITES)[j])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--task", "SafetyPointGaol1"], "SafetyPointGoal1"),
        (["--episodes", "0"], "--episodes 0 must lie between 1 and 1000000"),
        (["--picture", "sheet.txt"], "--picture sheet.txt must end in .png"),
    ],
)
def test_mistakes_are_one_sentence(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suites", *options]) == 2
    printed = capsys.readouterr()
    assert words in printed.err and printed.err.count("\n") == 1
