from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_world import SCHEMA, episode
from PIL import Image

from fosp.data.inspect import inspect, show
from fosp.data.pictures import _spread, _violations, draw_sheet
from fosp.data.store import Store
from fosp.types import Episode, UserError

ROWS = 40


def violating(seed: int, steps: list[int], **info: Any) -> Episode:
    """An episode of 40 rows with a cost at the given rows only."""
    cost = np.isin(np.arange(ROWS), steps).astype(np.float32)
    return replace(
        episode(seed, ROWS, **info), cost=cost, cost_terms={"hazards": cost, "vases": np.zeros(ROWS, np.float32)}
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Store.create(tmp_path / "log", SCHEMA, created={"scenario": "dark"}) as store:
        store.append(violating(0, [5, 20, 21], behaviour="unsafe", noise=0.5))
        store.append(violating(1, [], behaviour="safe", noise=0.25))
        store.append(violating(2, [15, 18], behaviour="unsafe", noise=0.0))
        store.append(violating(3, [3], behaviour="random"))
    return tmp_path / "log"


def test_show_sums_up_by_behaviour(path: Path) -> None:
    overview, store = show(path), Store.open(path)
    assert overview.task == SCHEMA.task and overview.scenario == "dark" and overview.hash == store.hash
    assert overview.steps == 4 * 39 and overview.size == store.num_bytes
    assert [group.behaviour for group in overview.groups] == ["random", "safe", "unsafe"]
    unsafe = overview.groups[2]
    assert (unsafe.episodes, unsafe.steps, unsafe.cost_mean, unsafe.noises) == (2, 78, 2.5, (0.0, 0.5))
    assert unsafe.violation_share == pytest.approx(5 / 78)
    assert unsafe.return_mean == pytest.approx(np.mean([store.episode(k).reward.sum() for k in (0, 2)]))
    assert overview.total.episodes == 4 and overview.total.cost_mean == 1.5
    header, rows = overview.table()
    assert [len(row) for row in rows] == [len(header)] * 4
    assert rows[-1][0] == "all" and rows[2][header.index("cost")] == "2.5"
    assert overview.facts()["size"] == "4 episodes, 156 agent steps, 0.0 MB"


def test_pictures_are_drawn(path: Path, tmp_path: Path) -> None:
    files = inspect(path, tmp_path / "pictures")
    names = ["return_against_cost.png", "violations.png", "actions.png", "before_violations.png"]
    assert [file.name for file in files] == names
    for file in files:
        with Image.open(file) as picture:
            assert picture.width > 500 and np.asarray(picture.convert("L")).std() > 5  # not an empty sheet


def test_sheet_shows_beginnings_of_violations_after_clean_frames(path: Path) -> None:
    store = Store.open(path)
    groups = {
        "random": [store.manifest[3]],  # too early: fewer than ten frames before
        "safe": [store.manifest[1]],
        "unsafe": [store.manifest[0], store.manifest[2]],
    }
    cases = [(row["index"], step) for row, step in _violations(store, groups)]
    assert cases == [(0, 20), (2, 15)]  # not 5 (too early), 21 (goes on), 18 (within ten steps of 15)
    sheet = draw_sheet(store, groups)
    assert sheet is not None
    shown = [axes.images[0].get_array() for block in sheet.subfigs for axes in block.axes]
    assert len(shown) == 2 * 2 * 6
    np.testing.assert_array_equal(shown[0], store.episode(0).images["image_front"][10])
    np.testing.assert_array_equal(shown[11], store.episode(0).images["image_back"][20])  # the violation itself
    assert draw_sheet(store, {"safe": [store.manifest[1]]}) is None


def test_many_episodes_are_thinned_evenly() -> None:
    assert _spread(3, 5) == [0, 1, 2] and _spread(0, 5) == []
    assert _spread(101, 5) == [0, 25, 50, 75, 100]


def test_what_cannot_be_drawn_is_told(path: Path, tmp_path: Path) -> None:
    Store.create(tmp_path / "empty", SCHEMA).close()
    assert show(tmp_path / "empty").total.episodes == 0
    with pytest.raises(UserError, match="holds no episodes yet"):
        inspect(tmp_path / "empty", tmp_path / "pictures")
    with pytest.raises(UserError, match="no such folder"):
        show(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="pictures cannot be written"):
        inspect(path, tmp_path / "file")
    with Store.create(tmp_path / "unknown", SCHEMA, cost=False) as store:
        store.append(episode(0))
    assert show(tmp_path / "unknown").table()[1][0][5:] == ["unknown", "unknown"]
    with pytest.raises(UserError, match="has no cost"):
        inspect(tmp_path / "unknown", tmp_path / "pictures")
