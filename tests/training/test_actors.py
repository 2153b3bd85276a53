"""The process that acts: what it is given arrives, what goes wrong is told, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import pytest
import torch
from builders import episode
from torch import Tensor

from fosp.training.actors import Elsewhere, Here
from fosp.types import Episode, UserError


class Telling:
    """Episodes whose actions are the weight that acted; says in ``info`` where that was."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.closed = seconds, False

    def __call__(self, weights: Mapping[str, Tensor], seeds: Sequence[int]) -> Iterator[Episode]:
        for seed in seeds:
            time.sleep(self.seconds)
            if seed == 99:
                raise UserError("layout 99 is a bad one")
            if seed == 98:
                raise ZeroDivisionError("the physics exploded")
            if seed == 97:
                os.kill(os.getpid(), signal.SIGKILL)
            made = episode(seed, process=os.getpid(), threads=torch.get_num_threads())
            made.action[:] = float(weights["weight"])
            yield made

    def close(self) -> None:
        self.closed = True


def weights(value: float) -> dict[str, Tensor]:
    return {"weight": torch.tensor(value)}


@pytest.fixture
def start() -> Iterator[Callable[..., Elsewhere]]:
    made: list[Elsewhere] = []

    def start(seconds: float = 0.0) -> Elsewhere:
        made.append(Elsewhere(partial(Telling, seconds)))
        return made[-1]

    yield start
    for actor in made:
        actor.close()


def gone(process: int) -> bool:
    """Whether it has ended, within some seconds."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_acting_in_turn_waits_until_it_is_asked() -> None:
    act = Telling()
    actor = Here(lambda: act)
    actor.begin(weights(0.5), [1, 2])
    assert actor.ended(wait=False) == []
    threads = torch.get_num_threads()
    found = actor.ended(wait=True)
    assert [made.info["seed"] for made in found] == [1, 2] and found[1].action[0, 0] == 0.5
    assert {made.info["threads"] for made in found} == {1} and torch.get_num_threads() == threads
    actor.close()
    assert act.closed


def test_another_process_acts_with_the_weights_of_the_moment(start: Callable[..., Elsewhere]) -> None:
    actor, held = start(0.02), weights(0.5)
    actor.begin(held, [1, 2, 3])
    held["weight"] += 1  # what the learner does meanwhile
    first = actor.ended(wait=True)
    assert [made.info["seed"] for made in first] == [1, 2, 3]
    assert all((made.action == 0.5).all() for made in first)
    assert actor.seconds >= 3 * 0.02 and actor.ended(wait=True) == actor.ended(wait=False) == []
    actor.begin(held, [4])
    (second,) = actor.ended(wait=True)
    assert (second.action == 1.5).all() and second.info["process"] == first[0].info["process"] != os.getpid()
    assert second.info["threads"] == 1
    actor.close()
    assert gone(second.info["process"])


def test_what_goes_wrong_there_is_told_here(start: Callable[..., Elsewhere]) -> None:
    for seed, error, words in (
        (99, UserError, "layout 99"),
        (98, RuntimeError, "in the acting process.*ZeroDivisionError: the physics exploded"),
        (97, UserError, "was killed by SIGKILL .*run the same command again"),
    ):
        actor = start()
        actor.begin(weights(0), [seed])
        with pytest.raises(error, match=f"(?s){words}"):
            actor.ended(wait=True)
        with pytest.raises(UserError, match="the acting process"):
            actor.begin(weights(0), [1])
            actor.ended(wait=True)


def test_it_ends_when_nobody_hears_it(start: Callable[..., Elsewhere]) -> None:
    actor = start(0.2)
    actor.begin(weights(0), [1, 2])
    (first, *_) = actor.ended(wait=True)
    actor.begin(weights(0), [3, 4])
    assert actor._pipe is not None
    actor._pipe.close()  # as when this process is killed
    actor._pipe = None
    actor._process.join(20)
    assert actor._process.exitcode == 0 and gone(first.info["process"])
