"""The mechanism of the configuration: overrides, YAML, differences; on a tree made up for the purpose."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fosp.config import diff, flatten, from_tree, from_yaml, load, override, to_yaml
from fosp.types import UserError


@dataclass(frozen=True)
class Net:
    depth: int = 16
    rate: float = 1e-4
    widths: tuple[int, ...] = (64, 32)
    limits: tuple[float, float] = (0.0, 1.0)
    activation: Literal["silu", "relu"] = "silu"


@dataclass(frozen=True)
class Model:
    net: Net = field(default_factory=Net)
    scales: dict[str, float] = field(default_factory=lambda: {"image": 1.0, "cost": 2})
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.clip is not None and self.clip > 10 * self.net.depth:
            raise ValueError("clip may be at most ten times the depth")


@dataclass(frozen=True)
class Run:
    model: Model = field(default_factory=Model)
    seed: int = 0
    resume: bool = True
    name: str = "run"
    note: str | None = None
    device: str | int = "cpu"


text = st.text(max_size=12) | st.text(alphabet="a \n\r\t\x85\u2028\ufeff:#'\"-", max_size=6)
finite = st.floats(allow_nan=False)
nets = st.builds(
    Net,
    depth=st.integers(10, 100),
    rate=finite,
    widths=st.lists(st.integers()).map(tuple),
    limits=st.tuples(finite, finite),
    activation=st.sampled_from(["silu", "relu"]),
)
models = st.builds(
    Model,
    net=nets,
    scales=st.fixed_dictionaries({"image": finite, "cost": finite}),
    clip=st.none() | st.floats(-1e9, 100),
)
runs = st.builds(
    Run,
    model=models,
    seed=st.integers(),
    resume=st.booleans(),
    name=text,
    note=st.none() | text | st.sampled_from(["none", "null", "~", "", "1e-4", "yes", "0x1f", "2026-01-01"]),
    device=st.integers() | text | st.sampled_from(["1", "none"]),
)


@given(runs)
def test_yaml_gives_back_an_equal_configuration(run: Run) -> None:
    again = from_yaml(to_yaml(run), Run())
    assert again == run
    assert flatten(again) == flatten(run)
    assert [type(v) for v in flatten(again).values()] == [type(v) for v in flatten(run).values()]


@given(runs)
def test_every_leaf_can_be_given_as_an_override(run: Run) -> None:
    leaves = flatten(run)
    # Text cannot spell these: a str that looks like another member of its union.
    spelled = {k: v for k, v in leaves.items() if k not in ("note", "device")}
    assignments = [f"{k}={','.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in spelled.items()]
    assert override(Run(note=run.note, device=run.device), assignments) == run


@given(runs, runs)
def test_diff_names_exactly_what_differs(a: Run, b: Run) -> None:
    changes = diff(a, b)
    assert (changes == {}) == (a == b)
    for key, (left, right) in changes.items():
        assert flatten(a)[key] == left
        assert flatten(b)[key] == right


def value_of(assignment: str) -> Any:
    return flatten(override(Run(), [assignment]))[assignment.partition("=")[0]]


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("seed=7", 7),
        ("seed=-1_000", -1000),
        ("resume=off", False),
        ("resume=True", True),
        ("model.net.rate=3e-5", 3e-5),
        ("model.net.rate=1", 1.0),
        ("model.net.widths=8", (8,)),
        ("model.net.widths=(8, 4)", (8, 4)),
        ("model.net.widths=[8,4,2]", (8, 4, 2)),
        ("model.net.widths=", ()),
        ("model.net.limits=-1,.5", (-1.0, 0.5)),
        ("model.net.activation=ReLU", "relu"),
        ("model.scales.cost=5", 5.0),
        ("model.clip=none", None),
        ("model.clip=3", 3.0),
        ("name=", ""),
        ("name=none", "none"),
        ("name=a=b", "a=b"),
        ("note=none", None),
        ("note=12", "12"),
        ("device=2", 2),
        ("device=cuda:0", "cuda:0"),
    ],
)
def test_override_reads_the_value_as_its_field_says(assignment: str, value: Any) -> None:
    read = value_of(assignment)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("seed=x", ["seed", "'x'", "whole number"]),
        ("seed=1.5", ["seed", "'1.5'", "whole number"]),
        ("resume=2", ["resume", "'2'", "true or false"]),
        ("model.net.rate=fast", ["model.net.rate", "'fast'", "a number"]),
        ("model.net.rate=nan", ["model.net.rate", "'nan'"]),
        ("model.net.widths=8,x", ["model.net.widths", "'8,x'", "each a whole number"]),
        ("model.net.limits=1", ["model.net.limits", "2 values"]),
        ("model.net.activation=tanh", ["model.net.activation", "silu, relu"]),
        ("model.clip=x", ["model.clip", "a number or none"]),
        ("model.scales.cost=x", ["model.scales.cost", "a number"]),
        ("model=x", ["model", "group", "model.net.depth"]),
        ("model.net.deth=3", ["'model.net.deth'", "'model.net.depth'"]),
        ("rate=3", ["'rate'", "'model.net.rate'"]),
        ("rat=3", ["'rat'", "'model.net.rate'"]),
        ("model.scales.imgae=3", ["'model.scales.image'"]),
        ("seed.x=3", ["seed"]),
        ("seed", ["'seed'", "key=value"]),
        ("=1", ["key=value"]),
        ("model.clip=1000", ["model.clip=1000.0", "ten times the depth"]),
    ],
)
def test_a_wrong_override_is_one_sentence_with_key_value_and_what_is_right(assignment: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        override(Run(), [assignment])
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_overrides_take_effect_together() -> None:
    """A check across fields sees the final state: each of the two alone, in this order, would be refused."""
    run = override(Run(), ["model.clip=500", "model.net.depth=50"])
    assert (run.model.clip, run.model.net.depth) == (500.0, 50)
    assert override(Run(), ["seed=1", "seed=2"]).seed == 2


def test_nothing_given_is_changed() -> None:
    base = Run()
    override(base, ["model.scales.cost=9", "model.net.depth=3"])
    assert base == Run()
    assert base.model.scales == {"image": 1.0, "cost": 2}


def test_yaml_goes_over_a_preset_and_keeps_the_rest() -> None:
    preset = replace(Run(), seed=5)
    run = from_yaml("model: {net: {rate: 1e-5}}\nname: x\n", preset)
    assert (run.seed, run.name, run.model.net.rate, run.model.net.depth) == (5, "x", 1e-5, 16)
    assert from_yaml("", preset) is preset


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: {net: {deth: 3}}", ["'model.net.deth'", "'model.net.depth'"]),
        ("seed: 1.0", ["seed", "1.0", "whole number"]),
        ("seed: true", ["seed", "True", "whole number"]),
        ("name: 3", ["name", "3", "a text"]),
        ("model: {scales: {cost: [1]}}", ["model.scales.cost"]),
        ("- 1", ["list"]),
        ("a: [", ["not valid YAML", "line"]),
        ("resume: maybe", ["resume", "'maybe'", "true or false"]),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Any, text: str, words: list[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load(path, Run())
    assert str(path) in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_missing_file_is_a_users_mistake(tmp_path: Any) -> None:
    with pytest.raises(UserError, match="missing.yaml"):
        load(tmp_path / "missing.yaml", Run())


def test_a_field_of_a_type_that_no_file_can_hold_is_a_bug_that_shows() -> None:
    @dataclass(frozen=True)
    class Odd:
        values: Any = None

    with pytest.raises(TypeError, match="may not be of type"):
        from_tree(Odd(), {"values": 1})
