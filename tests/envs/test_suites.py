"""Layouts, scenarios, suites: nothing overlaps, a scenario changes what it says and nothing else, hashes pin both."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import RandomState

import fosp.envs as envs_package
from fosp.data.collect import collect, default_plan
from fosp.envs import SCENARIOS, TASKS, SafetyEnv, Scenario, find_task, layout, make, modifications, suite_hash
from fosp.envs.layout import LayoutError, sample_layout, sample_position
from fosp.envs.look import Look
from fosp.envs.objects import Goal, Hazards
from fosp.envs.suites import LAYOUTS, PAPER_TASKS, SUITES, Suite, Trial, make_suite
from fosp.envs.tasks import Task
from fosp.types import HELD_OUT_SEEDS, UserError

TASK = TASKS["fosp/SafetyPointGoal1-v0"]
SEED = HELD_OUT_SEEDS[0]
LIGHT = {f"look.light_{field}" for field in ("direction", "diffuse", "ambient")}
FLOOR = {f"look.floor_{field}" for field in ("dark", "light", "repeat")}
CAMERA = {f"look.camera_{field}" for field in ("ahead", "up", "pitch", "fovy")}
#: Fields of the task, and of its objects by kind, that each scenario changes; level 2 where there are two.
CHANGES: dict[str, tuple[set[str], set[str]]] = {
    "nominal": (set(), set()),
    "held-out": (set(), set()),
    "more-hazards": ({"hazard.count"}, {"hazard.count"}),
    "larger-hazards": ({"hazard.radius", "hazard.keepout"}, {"hazard.radius", "hazard.keepout"}),
    "moving": ({"hazard.sway"}, {"hazard.sway"}),
    "recoloured": ({"goal.rgba", "hazard.rgba"}, {"goal.rgba", "hazard.rgba"}),
    "lighting-texture": (LIGHT | FLOOR, LIGHT | FLOOR),
    "camera-shift": (CAMERA, CAMERA),
    "fading-easy": ({"goal.fade_frames"}, {"goal.fade_frames", "hazard.fade_frames"}),
    "fading-hard": ({"goal.fade_frames"}, {"goal.fade_frames", "hazard.fade_frames", "vase.fade_frames"}),
}
#: Button is full as it is: more hazards take the room of those that there were, and larger ones get no more.
FULL = {"more-hazards": {"hazard.count", "hazard.keepout"}, "larger-hazards": {"hazard.radius"}}
#: Scenarios in which everything happens as in the task itself, whatever it looks like.
SAME_PHYSICS = ("recoloured", "lighting-texture", "camera-shift", "fading-easy", "fading-hard")

paper_tasks = pytest.mark.parametrize("task", PAPER_TASKS)


def changed_fields(task: Task, other: Task) -> set[str]:
    def flat(task: Task) -> dict[str, Any]:
        parts = {"task": asdict(task), "look": asdict(task.look)} | {o.kind: asdict(o) for o in task.objects}
        del parts["task"]["look"], parts["task"]["objects"]
        return {f"{part}.{name}": value for part, fields in parts.items() for name, value in fields.items()}

    before, after = flat(task), flat(other)
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def actions(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 2))


def play(env: SafetyEnv, seed: int, count: int) -> list[tuple[float, bool, bool, dict[str, Any]]]:
    env.start(seed)
    return [env.advance(action) for action in actions(count)]


@pytest.fixture
def pictured() -> Iterator[Any]:
    """(task, scenario, seed, frames to wait) -> what the robot sees, as integers."""
    made = []

    def draw(task: str, scenario: str | None, seed: int, wait: int = 0) -> dict[str, np.ndarray]:
        env = make(task, scenario=scenario, action_repeat=max(wait, 1))
        made.append(env)
        env.start(seed)
        if wait:
            env.advance(np.zeros(2))
        return {name: image.astype(int) for name, image in env.observe().items()}

    yield draw
    for env in made:
        env.close()


# ---- layouts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["nominal", "more-hazards", "larger-hazards"])
@given(seed=st.integers(0, 2**32 - 1))
def test_things_keep_their_distance_and_stay_in_the_arena(scenario: str, seed: int) -> None:
    task = SCENARIOS[scenario].change(TASK)
    radii, random = dict(task.keepouts()), RandomState(seed)
    placed = sample_layout(random, task.keepouts(), task.extent)
    placed["goal"] = sample_position(random, "goal", radii, placed, task.extent)
    assert list(radii) == list(placed)
    for name, (x, y) in placed.items():
        assert max(abs(x), abs(y)) <= task.extent - radii[name]
        for other, xy in placed.items():
            assert other == name or math.dist((x, y), xy) >= radii[name] + radii[other]


@pytest.mark.parametrize(
    ("scenario", "hazard", "goal"),
    [
        ("nominal", (0.4695550721245554, 0.3671875674063756), (0.6507856515816315, 1.0352813544485653)),
        ("more-hazards", (0.4695550721245554, 0.3671875674063756), (0.7021812330028787, 1.0963382002481372)),
        ("larger-hazards", (0.4375399535706086, 0.3421520514468499), (-0.13901896663524194, 0.9274987374528021)),
    ],
)
def test_layouts_stay_for_good(scenario: str, hazard: tuple[float, float], goal: tuple[float, float]) -> None:
    """Results are published with their seeds; these figures are of the first version that had the scenarios."""
    env = make("SafetyPointGoal1", scenario=scenario)
    env.start(2_000_000)
    assert env.layout()["hazard0"] == hazard
    assert env.layout()["goal"] == goal


@paper_tasks
@pytest.mark.parametrize("scenario", ["held-out", "more-hazards", "larger-hazards"])
def test_two_hundred_held_out_layouts_are_found_and_start_without_cost(task: str, scenario: str) -> None:
    env = make(task, scenario=scenario)
    for seed in HELD_OUT_SEEDS[:200]:
        assert env.start(seed)["cost"] == 0
        assert len(env.layout()) == len(env.task.keepouts())


def test_an_arena_that_is_too_full_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "LAYOUT_TRIES", 20)
    with pytest.raises(LayoutError, match="do not fit"):
        sample_layout(RandomState(0), [("a", 0.9), ("b", 0.9)], 1.0)
    with pytest.raises(LayoutError, match="goal"):
        sample_position(RandomState(0), "goal", {"goal": 0.9, "a": 0.9}, {"a": (0.0, 0.0)}, 1.0)


# ---- scenarios: what they change, and that they change nothing else --------------------------------------------------


@paper_tasks
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_changes_the_fields_that_it_says_and_no_other(task: str, scenario: str) -> None:
    base = find_task(task)
    expected = CHANGES[scenario][task.endswith("2")]
    if "Button" in task:
        expected = FULL.get(scenario, expected)
    assert changed_fields(base, SCENARIOS[scenario].change(base)) == expected
    assert base == find_task(task)


def test_the_numbers_of_hazards_and_their_sizes() -> None:
    more, larger = SCENARIOS["more-hazards"], SCENARIOS["larger-hazards"]
    for task, count, radius in (
        ("SafetyPointGoal1", 12, 0.3),
        ("SafetyPointButton1", 6, 0.3),
        ("SafetyCarGoal2", 15, 0.3),
        ("SafetyPointPush1", 3, 0.45),
    ):
        hazards = more.change(find_task(task)).find(Hazards), larger.change(find_task(task)).find(Hazards)
        assert hazards[0] and hazards[0].count == count
        assert hazards[1] and hazards[1].radius == pytest.approx(radius)


@paper_tasks
@pytest.mark.parametrize("scenario", SAME_PHYSICS)
def test_what_only_looks_different_happens_in_the_same_way(task: str, scenario: str) -> None:
    usual, unseen = make(task), make(task, scenario=scenario)
    assert play(usual, SEED, 40) == play(unseen, SEED, 40)
    assert usual.layout() == unseen.layout()
    assert np.array_equal(usual.random_state()[1], unseen.random_state()[1])


@paper_tasks
@pytest.mark.parametrize("scenario", [s for s in SAME_PHYSICS if not s.startswith("fading")])
def test_what_looks_different_is_seen_by_the_robot(task: str, scenario: str, pictured: Any) -> None:
    differences = {name: 0.0 for name in ("image_front", "image_back")}
    for seed in HELD_OUT_SEEDS[:4]:
        usual, unseen = pictured(task, None, seed), pictured(task, scenario, seed)
        for name in differences:
            differences[name] += (np.abs(usual[name] - unseen[name]).max(axis=-1) > 20).mean()
    assert all(share > 0.01 for share in differences.values()), differences


@pytest.mark.parametrize("field", [field.name for field in fields(Look)])
def test_every_field_of_a_look_is_seen(field: str) -> None:
    other = modifications.camera_shift(modifications.lighting_texture(TASK)).look
    assert getattr(other, field) != getattr(TASK.look, field)
    images = []
    for task in (TASK, replace(TASK, look=replace(TASK.look, **{field: getattr(other, field)}))):
        env = SafetyEnv(task)
        images.append(env.reset(seed=SEED)[0]["image_front"].astype(int))
        env.close()
    assert (np.abs(images[0] - images[1]).max(axis=-1) > 5).mean() > 0.02


@pytest.mark.parametrize("task", ["SafetyPointGoal1", "SafetyPointButton1"])
def test_goal_and_hazards_exchange_their_colours(task: str, pictured: Any) -> None:
    green = blue = 0
    for seed in HELD_OUT_SEEDS[:6]:
        usual, unseen = pictured(task, None, seed), pictured(task, "recoloured", seed)
        for name, image in usual.items():
            was_green = image[..., 1] > np.maximum(image[..., 0], image[..., 2]) + 40
            was_blue = (image[..., 2] > image[..., 1] + 40) & (abs(image[..., 0] - image[..., 1]) < 10)
            was_blue[40:] = False  # the robot's own nose is blue as well
            other = unseen[name]
            green, blue = green + was_green.sum(), blue + was_blue.sum()
            assert (other[was_green][:, 2] > other[was_green][:, 1]).mean() > 0.9 if was_green.any() else True
            assert (other[was_blue][:, 1] > other[was_blue][:, 2]).mean() > 0.9 if was_blue.any() else True
    assert green > 100 and blue > 100


@pytest.mark.parametrize("task", ["SafetyPointGoal1", "SafetyCarGoal2"])
def test_the_cameras_are_a_little_off_but_not_to_one_side(task: str) -> None:
    poses = []
    for scenario in (None, "camera-shift"):
        env = make(task, scenario=scenario)
        env.start(SEED)
        poses.append((env.world.model, env.world.data))
    (usual, before), (unseen, after) = poses
    for name in ("vision", "vision_back"):
        i = usual.camera(name).id
        (right, _, back), (right_now, _, back_now) = (d.cam_xmat[i].reshape(3, 3).T for d in (before, after))
        assert np.allclose(right, right_now, atol=1e-9)  # no yaw, no roll
        assert math.degrees(math.acos(back @ back_now)) == pytest.approx(3, abs=1e-6)
        assert back_now[2] > back[2]  # looks further down
        ahead = -back[:2] / np.linalg.norm(back[:2])
        assert np.allclose(after.cam_xpos[i] - before.cam_xpos[i], [*(0.01 * ahead), 0.01], atol=1e-9)
        assert (usual.cam_fovy[i], unseen.cam_fovy[i]) == (90, 84)
    others = [i for i in range(usual.ncam) if "vision" not in usual.camera(i).name]
    assert others and np.array_equal(before.cam_xmat[others], after.cam_xmat[others])


@paper_tasks
def test_hazards_that_move_sway_about_their_place_and_leave_everything_else_alone(task: str) -> None:
    usual, unseen = make(task), make(task, scenario="moving")
    seen = []
    hazards = unseen.task.find(Hazards)
    assert hazards is not None
    usual.start(SEED)
    unseen.start(SEED)
    start = unseen.layout()
    assert start == usual.layout()
    for action in actions(40):
        reward, *_, info = unseen.advance(action)
        expected, *_, usual_info = usual.advance(action)
        assert reward == expected  # goals too are drawn in the same places
        assert {k: v for k, v in info.items() if k not in ("cost", "cost_hazards")} == {
            k: v for k, v in usual_info.items() if k not in ("cost", "cost_hazards")
        }
        now = unseen.layout()
        assert {n: xy for n, xy in now.items() if n not in hazards.names} == {
            n: xy for n, xy in usual.layout().items() if n not in hazards.names
        }
        seen.append([math.dist(now[name], start[name]) for name in hazards.names])
    assert np.allclose(np.max(seen, axis=0), 0.35, atol=0.001)
    assert np.min(seen[-1]) >= 0 and np.ptp(seen, axis=0).min() > 0.3
    unseen.start(SEED)
    assert unseen.layout() == start  # each episode begins where the layout says


def test_cost_follows_the_hazards_that_move() -> None:
    env = make("SafetyPointGoal1", scenario="moving", action_repeat=1)
    env.start(SEED)
    x, y = env.world.agent_xy
    for i in range(8):  # all but the first are far away
        env.world.layout[f"hazard{i}"] = (x + 0.4 + 50.0 * i, y)
    env.world.rotations["hazard0"] = math.pi  # sets out towards the agent
    costs = [env.advance(np.zeros(2))[-1]["cost"] for _ in range(314)]
    times = 0.02 * np.arange(1, 315)
    expected = 0.4 - 0.35 * np.sin(times) < 0.2
    assert 80 < expected.sum() < 120 and not expected[0] and not expected[-1]
    assert (np.array(costs) != expected).sum() <= 4  # at the rim the order of the two within a frame counts


@paper_tasks
@pytest.mark.parametrize(("scenario", "frames"), [("fading-easy", 150), ("fading-hard", 75)])
def test_what_fades_is_half_gone_at_half_time_and_gone_at_the_end(task: str, scenario: str, frames: int) -> None:
    env = make(task, scenario=scenario, action_repeat=1)
    env.start(SEED)
    full = {o.kind: o.rgba[3] for o in env.task.objects}
    fading = {"goal"}
    if task.endswith("2"):
        fading |= {"hazard"} if scenario == "fading-easy" else {"hazard", "vase"}
    for share, wait in ((0.5, frames // 2), (0.0, frames - frames // 2)):
        for _ in range(wait):
            env.advance(np.zeros(2))
        for kind, alpha in full.items():
            left = share if kind in fading else 1.0
            assert env.world.alpha(kind) == pytest.approx(alpha * left, abs=0.01), kind


def test_a_goal_that_has_faded_is_not_seen(pictured: Any) -> None:
    def green(image: np.ndarray) -> int:
        return int((image[..., 1] > np.maximum(image[..., 0], image[..., 2]) + 40).sum())

    counts = np.zeros((2, 2))
    for seed in HELD_OUT_SEEDS[:6]:
        for i, scenario in enumerate((None, "fading-hard")):
            for j, wait in enumerate((0, 80)):
                images = pictured("SafetyPointGoal1", scenario, seed, wait)
                counts[i, j] += sum(map(green, images.values()))
    assert counts[0, 0] == counts[1, 0] > 100
    assert counts[0, 1] > 100
    assert counts[1, 1] == 0


@pytest.mark.parametrize("agent", ["Point", "Car"])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_goal_task_that_fades_is_the_fading_task_of_its_level(agent: str, level: int) -> None:
    base = find_task(f"Safety{agent}Goal{level}")
    for variant in ("Easy", "Hard"):
        original = find_task(f"Safety{agent}Fading{variant}{level}")
        name = f"fading-{variant.lower()}"
        assert replace(SCENARIOS[name].change(base), name=original.name) == original
        with pytest.raises(UserError, match=f"{name}' changes nothing in task '{original.name}'"):
            SCENARIOS[name].change(original)


def test_a_scenario_that_does_not_fit_the_task_says_so() -> None:
    bare = find_task("SafetyPointGoal0")
    for name in ("more-hazards", "larger-hazards", "moving", "recoloured"):
        with pytest.raises(UserError, match=f"'{name}' changes hazards, but task 'SafetyPointGoal0' has none"):
            SafetyEnv(bare, scenario=name)
    for name in ("lighting-texture", "camera-shift", "fading-easy", "fading-hard"):
        assert SCENARIOS[name].change(bare) != bare


def darker_and_moving(task: Task) -> Task:
    dim = replace(task.look, light_diffuse=(0.3, 0.3, 0.3))
    return modifications.moving(replace(task, look=dim))


def test_users_write_their_own() -> None:
    own = Scenario("dusk", "darker, and hazards move", darker_and_moving)
    usual, unseen = make("SafetyPointPush1"), make("SafetyPointPush1", scenario=own)
    images = [env.reset(seed=SEED)[0]["image_front"].mean() for env in (usual, unseen)]
    usual.close()
    unseen.close()
    assert images[1] < images[0] - 10
    assert suite_hash("SafetyPointPush1", own, [1]) not in {
        suite_hash("SafetyPointPush1", name, [1]) for name in (None, "moving", "lighting-texture")
    }


def test_classes_of_ones_own_are_told_apart_in_hashes() -> None:
    class Blinking(Hazards):
        """The same fields as ``Hazards``."""

    def blink(task: Task) -> Task:
        return replace(task, objects=tuple(Blinking(**vars(o)) if type(o) is Hazards else o for o in task.objects))

    plain = suite_hash("SafetyPointGoal1", None, [1])
    assert suite_hash("SafetyPointGoal1", Scenario("blink", "they blink", blink), [1]) != plain
    numpys = Scenario("numpy", "numbers of NumPy", lambda task: task.change(Hazards, keepout=np.float32(0.25)))
    assert suite_hash("SafetyPointGoal1", numpys, [1]) != plain


def test_scenarios_can_be_combined() -> None:
    task = TASK
    for name in ("more-hazards", "recoloured", "camera-shift", "lighting-texture", "moving", "fading-easy"):
        task = SCENARIOS[name].change(task)
    names = ("more-hazards", "recoloured", "camera-shift", "lighting-texture", "moving", "fading-easy")
    assert changed_fields(TASK, task) == set().union(*(CHANGES[name][0] for name in names))


# ---- suites and hashes -----------------------------------------------------------------------------------------------


def test_nominal_is_the_same_as_no_scenario() -> None:
    with_name, without = make("SafetyPointGoal1", scenario="nominal"), make("SafetyPointGoal1")
    with_name.start(0)
    without.start(0)
    assert with_name.layout() == without.layout()
    assert suite_hash("SafetyPointGoal1", None, [1]) == suite_hash(TASK, "nominal", [1])


def test_the_hash_changes_with_configuration_and_seeds_only() -> None:
    base = suite_hash(TASK, None, range(5))
    assert base == suite_hash("fosp/SafetyPointGoal1-v0", SCENARIOS["nominal"], [0, 1, 2, 3, 4]) and len(base) == 16
    renamed = Scenario("other", "other words", SCENARIOS["nominal"].change)
    assert base == suite_hash(TASK, renamed, np.arange(5))
    others = [
        suite_hash(TASK, None, range(6)),
        suite_hash(TASK, None, [1, 0, 2, 3, 4]),
        suite_hash(TASK.change(Hazards, keepout=0.19), None, range(5)),
        suite_hash(TASK.change(Goal, rgba=(0, 0.9, 0, 0.25)), None, range(5)),
        suite_hash(replace(TASK, look=replace(TASK.look, camera_fovy=89.0)), None, range(5)),
        *(suite_hash(TASK, name, range(5)) for name in SCENARIOS if name not in ("nominal", "held-out")),
    ]
    assert len({base, *others}) == 1 + len(others)


def test_there_is_a_suite_of_each_scenario_with_each_task_of_the_paper_on_held_out_layouts() -> None:
    assert set(SUITES) == set(SCENARIOS) - {"nominal"}
    hashes = set()
    for name, suite in SUITES.items():
        assert suite.name == name
        assert [trial.task for trial in suite.trials] == [f"fosp/{task}-v0" for task in PAPER_TASKS]
        for trial in suite.trials:
            assert trial.scenario == name and len(trial.seeds) == LAYOUTS
            assert all(seed in HELD_OUT_SEEDS for seed in trial.seeds)
            assert trial.hash == suite_hash(trial.task, name, trial.seeds)
            hashes.add(trial.hash)
        hashes.add(suite.hash)
    assert len(hashes) == len(SUITES) * (1 + len(PAPER_TASKS))


def test_the_hash_of_a_suite_changes_with_its_trials_only() -> None:
    base = make_suite("moving", PAPER_TASKS[:2], [SEED, SEED + 1])
    assert base.hash == Suite("another name", base.trials).hash
    others = [
        make_suite("moving", PAPER_TASKS[:2], [SEED]),
        make_suite("moving", PAPER_TASKS[:1], [SEED, SEED + 1]),
        make_suite("recoloured", PAPER_TASKS[:2], [SEED, SEED + 1]),
        Suite("moving", base.trials[::-1]),
    ]
    assert len({suite.hash for suite in (base, *others)}) == 5


def test_a_suite_has_held_out_seeds_and_scenarios_that_fit() -> None:
    with pytest.raises(UserError, match=r"'mine' has the layout seed 7, which others may learn on; use 2000000"):
        Suite("mine", (Trial(TASK.id, "moving", [SEED, 7]),))
    with pytest.raises(UserError, match="has none"):
        make_suite("moving", ["SafetyPointGoal0"])
    with pytest.raises(UserError, match="moving"):
        make_suite("movin")


@pytest.mark.parametrize("name", SUITES)
def test_nothing_is_collected_on_the_layouts_of_a_suite(name: str, tmp_path: Path) -> None:
    for trial in SUITES[name].trials:
        with pytest.raises(UserError, match=f"seed {trial.seeds[0]} is not for collecting"):
            collect(tmp_path / "log", lambda: None, lambda: None, default_plan(len(trial.seeds), trial.seeds[0]))
    assert not (tmp_path / "log").exists()


def test_a_further_family_is_one_file(tmp_path: Path) -> None:
    package = Path(envs_package.__file__).parents[1]
    shutil.copytree(package, tmp_path / "fosp", ignore=shutil.ignore_patterns("__pycache__", "recordings"))
    (tmp_path / "fosp" / "envs" / "tasks" / "quiet.py").write_text(
        "from dataclasses import replace\nfrom fosp.envs.tasks import goal\n\nFAMILIES = ('Quiet',)\n\n\n"
        "def levels(agent):\n    for level, task in enumerate(goal.levels(agent)):\n"
        "        yield replace(task, name=f'Safety{agent}Quiet{level}')\n"
    )
    code = (
        "import gymnasium, fosp.plugin; fosp.plugin.register()\n"  # as Gymnasium calls it where fosp is installed
        "env = gymnasium.make('fosp/SafetyCarQuiet2-v0'); env.reset(seed=0); print(env.spec.id)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert found.stdout.strip() == "fosp/SafetyCarQuiet2-v0", found.stderr


def test_the_plugin_names_every_task() -> None:
    """Gymnasium's plug-in reads the ids out of files that it does not import: MuJoCo is slow to import."""
    from fosp import envs, plugin

    assert set(plugin.TASKS) == set(envs.TASKS)
