"""The page: self-contained, complete where the runs are, silent where they are not, safe with foreign names."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import fake_run
import numpy as np
import pytest

from fosp.report import films
from fosp.report.load import load_run
from fosp.report.page import build_report, render
from fosp.report.sections import evaluations, policy_colours
from fosp.report.video import write_mp4
from fosp.types import UserError

VOID = {"meta", "link", "img", "br", "hr", "input", "circle", "rect", "line", "path", "polyline", "polygon", "use"}


class Page(HTMLParser):
    """Checks that tags match, and collects ids, anchors, links and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images_without_alt = 0
        self.words: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = {name: value or "" for name, value in attrs}
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[name] for name in ("href", "src", "xlink:href") if name in values]
        self.images_without_alt += tag == "img" and not values.get("alt")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("all")
    folders = fake_run.build(root, steps=100, episodes=12, rollouts=1)
    (folders[1] / "videos").mkdir()
    write_mp4(folders[1] / "videos" / "open_loop_000100.mp4", np.zeros((5, 64, 64, 3), np.uint8), 10)
    return folders


@pytest.fixture(scope="module")
def html(runs, tmp_path_factory) -> str:
    return build_report(runs, tmp_path_factory.mktemp("out") / "deep" / "report.html").read_text()


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def test_nothing_is_fetched_from_anywhere(page, html):
    outside = [link for link in page.links if not link.startswith(("#", "data:"))]
    assert outside == []
    assert "@import" not in html and not re.search(r"url\((?!#)", html)
    assert len(html) < 15_000_000


def test_ids_are_unique_and_anchors_lead_somewhere(page):
    assert len(set(page.ids)) == len(page.ids)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert page.images_without_alt == 0


@pytest.mark.parametrize(
    "words",
    [
        "A policy for SafetyPointGoal1 was learned from a log of 90 recorded episodes alone",
        "adapted online to the scenario “twelve-hazards” over 60 episodes",
        "Twelve hazards instead of the eight",  # what the scenario is
        "A point robot drives to a green goal",  # what the task is
        "offline, frozen",
        "fewer than the",  # violations while learning
        "Differences on the same layouts",
        "price of cost (multiplier)",
        "What it imagines",
        "Who acted",
        "fosp finetune --data 'data/point goal1' --checkpoint runs/pretrain --scenario twelve-hazards",
        "classes: 16",  # the configuration
        "3f2c9a17bd",  # the revision
        "layout hash",
        "5e5e5e5e",  # the checkpoint's hash
        "gradient updates in 16 min",
        "fosp pretrain --method cloning --data 'data/point goal1'",
    ],
)
def test_the_page_says(page, words):
    assert words in page.text


def test_verdicts_are_said_in_words_per_policy_and_scenario(runs, page):
    documents = [document for run in runs for document in load_run(run).evaluations]
    assert len(documents) == 2
    for document in documents:
        for label, verdict in document["verdicts"].items():
            assert label in page.text and verdict["sentence"] in page.text


def test_videos_are_inside_and_are_videos(html):
    videos = re.findall(r'src="data:video/mp4;base64,([^"]+)"', html)
    assert len(videos) == 3  # two rollouts and the open-loop prediction
    assert all(base64.b64decode(video)[4:8] == b"ftyp" for video in videos)


def test_the_script_finds_what_it_needs(html):
    players = re.findall(r'<figure class="player">.*?</figure>', html, flags=re.DOTALL)
    assert len(players) == 2
    for player in players:
        data = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', player, flags=re.DOTALL)[0])
        assert data["rows"] == 101 and data["fps"] == pytest.approx(12.5)
        traces = re.findall(r'data-trace="(\d+)"', player)
        assert len(traces) == len(data["readings"])
        assert all(len(reading) == 101 for reading in data["readings"])


def test_order_of_sections(page):
    sections = ["verdict", "log", "films", "online", "comparison", "training", "reproduce", "words"]
    assert [name for name in page.ids if name in sections] == sections


# -------------------------------------------------------------------------------------------- parts and accidents


def test_an_evaluation_alone_makes_a_page(tmp_path):
    fake_run.build_study(tmp_path / "study", runs=2)
    page = Page(build_report([tmp_path / "study"], tmp_path / "report.html").read_text())
    assert "2 training runs, each on 40 layouts" in page.text
    assert "Means of the single training runs" in page.text
    assert "Not in these runs: training curves (made by fosp pretrain )" in page.text
    assert not {"films", "online", "training", "reproduce"} & set(page.ids)


def test_a_run_that_has_just_begun_makes_a_page(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    fake_run.run_json(run, "pretrain", {"path": "gone", "hash": "ab", "episodes": 150})
    page = Page(build_report([run], tmp_path / "report.html").read_text())
    assert "150" in page.text and "verdict" not in page.ids


def test_online_episodes_without_their_frozen_twins(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    fake_run.run_json(run, "finetune", {}, "s")
    fake_run.online(run, episodes=7)
    (run / "frozen.jsonl").unlink()
    page = Page(build_report([run], tmp_path / "report.html").read_text())
    assert "online" in page.ids and "fewer than" not in page.text


def test_a_single_evaluated_episode(tmp_path):
    """No interval can be given, and none is invented."""
    fake_run.evaluation(tmp_path / "run" / "evaluation" / "e.json", {"a": ("bc", 1.0, 2.0)}, episodes=1)
    page = Page(build_report([tmp_path / "run"], tmp_path / "report.html").read_text())
    assert "Too few episodes to say" in page.text and "None" not in page.text and "nan" not in page.text


def test_names_cannot_break_out_of_the_page(tmp_path):
    evil = '"><script>alert(1)</script>'
    folder = tmp_path / "run"
    fake_run.evaluation(folder / "evaluation" / "e.json", {evil: ("bc", 1.0, 2.0)}, scenario=evil, episodes=12)
    (folder / "rollouts").mkdir()
    fake_run.rollout(folder / "rollouts" / "r.npz", evil, 1, steps=4)
    page = build_report([folder], tmp_path / "report.html").read_text()
    assert "<script>alert" not in page
    Page(page)


def test_mistakes_are_one_sentence(tmp_path, runs):
    with pytest.raises(UserError, match="at least one run folder"):
        build_report([], tmp_path / "report.html")
    with pytest.raises(UserError, match="no such folder"):
        build_report([tmp_path / "nowhere"], tmp_path / "report.html")
    (tmp_path / "file").write_text("")
    fake_run.evaluation(tmp_path / "run" / "evaluation" / "e.json", {"a": ("bc", 1.0, 2.0)}, episodes=12)
    with pytest.raises(UserError, match="cannot be written"):
        build_report([tmp_path / "run"], tmp_path / "file" / "report.html")


# ------------------------------------------------------------------------------------------------------ contents


def test_rollouts_that_do_not_fit_are_named(tmp_path):
    folder = tmp_path / "run" / "rollouts"
    folder.mkdir(parents=True)
    for i in range(3):
        fake_run.rollout(folder / f"r{i}.npz", "a", i, steps=10)
    run = load_run(folder.parent)
    full, left_out = films.films([run], films.Budget())
    assert len(full) == 3 and left_out == []
    size = len(base64.b64decode(full[0]["video"].partition(",")[2]))
    made, left_out = films.films([run], films.Budget(int(1.2 * size)))
    assert len(made) == 1 and left_out == ["r1.npz", "r2.npz"]


def test_one_rollout_of_each_run_comes_first(tmp_path):
    folders = [tmp_path / name / "rollouts" for name in "ab"]
    for folder in folders:
        folder.mkdir(parents=True)
        for i in range(2):
            fake_run.rollout(folder / f"{folder.parent.name}{i}.npz", folder.parent.name, i, steps=10)
    runs = [load_run(folder.parent) for folder in folders]
    sizes = [len(base64.b64decode(film["video"].partition(",")[2])) for film in films.films(runs, films.Budget())[0]]
    made, left_out = films.films(runs, films.Budget(sizes[0] + sizes[2] + 10))
    assert [film["run"] for film in made] == ["a", "b"]
    assert left_out == ["a1.npz", "b1.npz"]


def test_repeated_evaluations_appear_once_and_those_of_other_checkpoints_all(tmp_path):
    folder = tmp_path / "run" / "evaluation"
    levels = {"offline": ("pretrain", 10.0, 5.0)}
    for name in ("a", "b"):
        document = fake_run.evaluation(folder / f"{name}.json", levels, episodes=12)
    document["policies"][0]["meta"]["checkpoint"] = "another"
    (folder / "c.json").write_text(json.dumps(document))
    assert len(evaluations([load_run(folder.parent)])) == 2


def test_policies_of_a_document_never_share_a_colour():
    def policy(label, kind):
        return {"label": label, "meta": {"kind": kind}}

    first = {"policies": [policy("offline", "pretrain"), policy("cloned", "bc")]}
    second = {"policies": [policy("frozen", "pretrain"), policy("tuned", "finetune"), policy("older", "pretrain")]}
    third = {"policies": [{"label": str(i)} for i in range(6)]}
    colours = policy_colours([first, second, third])
    assert colours["offline"] == colours["frozen"] != colours["tuned"]
    for document in (first, second, third):
        used = [colours[p["label"]] for p in document["policies"]]
        assert len(set(used)) == len(used)


def test_render_is_the_same_twice(runs):
    loaded = [load_run(runs[0])]
    first, second = (re.sub(r"Written by fosp on [^<]*", "", render(loaded, "t")) for _ in range(2))
    assert first == second
