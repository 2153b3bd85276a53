"""Charts and traces: well-formed, in the page's colours, and showing what the numbers say."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import fake_run
import numpy as np
import pytest

from fosp.report import figures, traces, words
from fosp.report.load import Curve, Rollout, load_rollout


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> str:
    return " ".join("".join(element.itertext()) for element in parse(svg).iter() if element.text)


def curve(values) -> Curve:
    return Curve(np.arange(len(values), dtype=float), np.array(values, float))


# ------------------------------------------------------------------------------------------------------- charts


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    levels = {"offline": ("pretrain", 15.0, 10.0), "online": ("finetune", 16.0, 5.0)}
    return fake_run.evaluation(tmp_path_factory.mktemp("e") / "e.json", levels, episodes=12)


@pytest.fixture(scope="module")
def charts(document):
    rows = fake_run.episode_rows(np.random.default_rng(0), list(range(12)), 10.0, 20.0)
    colours = {"offline": figures.FROZEN, "online": figures.ONLINE}
    return {
        "log": figures.log_scatter([{**row, "behaviour": ("safe", "random")[row["seed"] % 2]} for row in rows]),
        "curves": figures.training_curves(
            {"a/b": curve(np.linspace(3, 1, 40))}, {"a/b": "how < much"}, 'the "alt" <text>'
        ),
        "online": figures.online_curves([{**row, "chosen_online": 0.5} for row in rows], rows),
        "comparison": figures.cost_and_return(document, colours, {"safe": (19.0, 17.0)}),
    }


@pytest.mark.parametrize("name", ["log", "curves", "online", "comparison"])
def test_charts_are_inline_svg_with_a_name_and_theme_colours(charts, name):
    root = parse(charts[name])
    assert root.tag.endswith("svg") and root.get("role") == "img" and len(root.get("aria-label", "")) > 10
    assert "width" not in root.attrib and root.get("viewBox")
    assert "var(--muted)" in charts[name] and "var(--c" in charts[name]
    assert not set(re.findall(r"#[0-9a-f]{6}\b", charts[name])) - {"#000000", "#ffffff"}
    assert 'href="http' not in charts[name]


def test_ids_of_two_charts_never_meet(charts):
    ids = [set(re.findall(r'\bid="([^"]+)"', charts[name])) for name in ("log", "online")]
    assert ids[0] and ids[1] and not ids[0] & ids[1]
    for name in ("log", "online"):
        known = set(re.findall(r'\bid="([^"]+)"', charts[name]))
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', charts[name])) <= known


def test_charts_name_what_they_show(charts):
    assert "how < much" in texts(charts["curves"])
    assert parse(charts["curves"]).get("aria-label") == 'the "alt" <text>'
    for word in ("safe (", "random ("):
        assert word in texts(charts["log"])
    for word in ("offline", "online", "log: safe", "cost limit 25"):
        assert word in texts(charts["comparison"])


def test_the_same_data_give_the_same_chart():
    first, second = (figures.training_curves({"a/b": curve([3, 2, 1])}, {}, "alt") for _ in range(2))
    assert first == second


def test_summed_violations_end_at_their_totals(charts):
    rows = fake_run.episode_rows(np.random.default_rng(0), list(range(12)), 10.0, 20.0)
    assert str(sum(row["violation_steps"] for row in rows)) in texts(charts["online"])


def test_smooth_is_a_moving_average_that_shortens_at_the_ends():
    assert figures.smooth(np.array([0.0, 3.0, 6.0, 9.0]), 3) == pytest.approx([1.5, 3.0, 6.0, 7.5])
    assert figures.smooth(np.array([1.0, 2.0]), 1) == pytest.approx([1.0, 2.0])


def test_thin_keeps_the_mean_and_drops_what_is_not_finite():
    values = np.arange(1000.0)
    values[3] = np.nan
    thinned = figures.thin(curve(values), 100)
    assert len(thinned.value) <= 100
    assert thinned.value[-1] == pytest.approx(thinned.step[-1], abs=1e-9)
    assert thinned.value[1] == pytest.approx(np.mean(np.arange(11, 21)))


@pytest.mark.parametrize(
    ("values", "logarithmic"), [([100, 5], True), ([100, 50], False), ([1, -1], False), ([0.01, 1.5, 0.3], False)]
)
def test_log_axes_are_for_what_falls_far(values, logarithmic):
    assert figures._logarithmic(np.array(values, float)) is logarithmic


def test_interval_bar_has_dot_interval_and_limit():
    bar = figures.interval_bar({"mean": 5.0, "low": 0.0, "high": 10.0}, 10.0, 5.0, figures.FROZEN)
    root = parse(bar)
    circle = next(root.iter("circle"))
    assert circle.get("cx") == "50.0%"
    assert [e.get("x1") for e in root.iter("line") if e.get("class") == "limit"] == ["50.0%"]
    without = figures.interval_bar({"mean": 5.0, "low": None, "high": None}, 10.0, None, figures.FROZEN)
    assert "rect" not in without


# ------------------------------------------------------------------------------------------------------- traces


@pytest.fixture(scope="module")
def rollout(tmp_path_factory) -> Rollout:
    path: Path = tmp_path_factory.mktemp("r") / "r.npz"
    fake_run.rollout(path, "online", 2_000_001, steps=120, two_policies=True)
    return load_rollout(path)


def test_traces_show_violations_policies_and_imagination(rollout):
    svg, readings = traces.traces_svg(rollout)
    root = parse(svg)
    shaded = [e for e in root.iter("rect") if e.get("class") == "unsafe"]
    assert len(shaded) == len(traces.spans(rollout.cost > 0)) > 0
    assert all(len(reading) == len(rollout) for reading in readings)
    assert [e.get("data-trace") for e in root.iter("text") if e.get("class") == "reading"] == [
        str(i) for i in range(len(readings))
    ]
    for title in ("Who acted", "Predicted danger", "Cost in this step", "Return so far", "Steps imagined ahead"):
        assert title in texts(svg)
    assert rollout.chosen is not None
    assert readings[0] == [("frozen", "online")[c] for c in rollout.chosen]


def test_a_violation_is_shaded_where_it_happens(rollout):
    root = parse(traces.traces_svg(rollout)[0])
    first = int(np.flatnonzero(rollout.cost > 0)[0])
    x = next(float(e.get("x", 0)) for e in root.iter("rect") if e.get("class") == "unsafe")
    assert x == pytest.approx(traces.LEFT + (traces.RIGHT - traces.LEFT) * first / len(rollout), abs=0.1)


def test_traces_of_bare_numbers():
    bare = Rollout({}, {}, {}, None, None, np.array([0.0, -1.0, 2.0]), np.zeros(3), {}, None)
    svg, readings = traces.traces_svg(bare)
    parse(svg)
    assert readings == [["0", "0", "0"], ["0.0", "-1.0", "1.0"]]


def test_gaps_in_a_trace_are_left_out():
    values = {"reward_value": np.array([1.0, np.nan, 2.0, 3.0])}
    svg, readings = traces.traces_svg(Rollout({}, {}, {}, None, None, np.ones(4), np.zeros(4), values, None))
    assert readings[-1] == ["1.0", "", "2.0", "3.0"]
    assert "nan" not in svg


def test_spans():
    assert traces.spans(np.array([True, True, False, True])) == [(0, 1), (3, 3)]
    assert traces.spans(np.zeros(3, bool)) == []


# -------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (1.26, "1.3"), (-0.04, "0.0"), (-2.5, "−2.5")]
)  # fmt: skip
def test_numbers_for_people(value, text):
    assert words.number(value) == text


def test_comparison_in_words_separates_finding_from_chance():
    pair = {
        "cost": {"mean": -12.0, "low": -21.4, "high": -5.5},
        "return": {"mean": 0.4, "low": -0.1, "high": 0.9},
        "cost_reduction": {"mean": 0.575},
        "excludes_zero": {"cost": True, "return": False},
    }
    text = words.comparison(pair).replace("\u00a0", " ")
    assert (
        text
        == "cost 12.0 lower, 57 % less (95 % interval 5.5 to 21.4 lower); return not clearly different (−0.1 to +0.9)."
    )


def test_durations_and_names():
    assert [words.duration(s) for s in (12, 600, 7260)] == ["12 s", "10 min", "2 h 01 min"]
    assert words.short_task("fosp/SafetyPointGoal1-v0") == "SafetyPointGoal1"
    assert words.listing(["a", "b", "c"]) == "a, b and c"
    assert words.metric_title("critic/reward_q") == "reward q"
    assert words.day("nonsense") == "nonsense"
