"""Progress: the rate, the time left, and how little is printed where there is no terminal."""

from __future__ import annotations

import io

import pytest

from fosp.cli.progress import LINE_SECONDS, Progress, duration_text, rate_text
from fosp.types import several


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_are_sparse_and_carry_rate_and_time_left() -> None:
    clock, out = Clock(), io.StringIO()
    with Progress("pretrain", 1000, unit="updates", stream=out, clock=clock) as progress:
        for _ in range(500):
            clock.now += 0.1
            progress.advance(loss=0.123456)
    lines = out.getvalue().splitlines()
    assert 4 <= len(lines) - 1 <= 50 / LINE_SECONDS
    assert lines[0].startswith("pretrain: 1")
    assert "10 updates/s" in lines[0]
    assert "1 min 30 s left" in lines[0]
    assert "loss 0.123" in lines[0]
    assert lines[-1] == "pretrain: 500 updates in 50 s, 10 updates/s"


def test_what_an_earlier_run_did_counts_as_done_but_not_as_speed() -> None:
    clock, out = Clock(), io.StringIO()
    with Progress("pretrain", 1000, stream=out, clock=clock, start=900) as progress:
        clock.now += 20
        progress.advance(10)
        assert progress.done == 910
        assert progress.rate == pytest.approx(0.5)
        assert progress.seconds_left == pytest.approx(180)
    assert "910/1000 steps, 91 %, 2 s each, 3 min 00 s left" in out.getvalue()


def test_the_rate_follows_the_last_minute() -> None:
    clock = Clock()
    with Progress("x", 10**6, stream=io.StringIO(), clock=clock) as progress:
        for _ in range(2000):
            clock.now += 0.1  # 10 a second
            progress.advance()
        for _ in range(600):
            clock.now += 0.2  # 5 a second, for two minutes
            progress.advance()
        assert progress.rate == pytest.approx(5, rel=0.05)
        assert len(progress._marks) < 100


def test_a_stop_says_how_far_it_came_and_lets_the_error_through() -> None:
    clock, out = Clock(), io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        with Progress("collect", 150, unit="episodes", stream=out, clock=clock) as progress:
            clock.now += 4
            progress.advance(8)
            raise KeyboardInterrupt
    assert out.getvalue().splitlines()[-1] == "collect: stopped at 8/150 episodes in 4 s, 2 episodes/s"


def test_without_a_known_end_there_is_no_time_left() -> None:
    clock, out = Clock(), io.StringIO()
    with Progress("x", None, stream=out, clock=clock) as progress:
        clock.now += LINE_SECONDS
        progress.advance(30)
        assert progress.seconds_left is None
        progress.message("a word between")
    assert "30 steps, 3 steps/s" in out.getvalue()
    assert "left" not in out.getvalue()
    assert "a word between\n" in out.getvalue()


def test_nothing_done_is_no_division_by_zero() -> None:
    out = io.StringIO()
    with Progress("x", 0, stream=out, clock=Clock()) as progress:
        progress.advance(0)
    assert out.getvalue() == "x: 0 steps in 0 s\n"


def test_a_terminal_gets_a_bar() -> None:
    clock, out = Clock(), Terminal()
    with Progress("pretrain", 4, unit="updates", stream=out, clock=clock) as progress:
        for _ in range(4):
            clock.now += 1
            progress.advance(cost=1.5)
            progress.message("saved [checkpoint]")
    assert "4/4 updates" in out.getvalue()
    assert "1 updates/s" in out.getvalue()
    assert "saved [checkpoint]" in out.getvalue()
    assert "\x1b[" in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3599.6, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_one_is_no_plural() -> None:
    stream = io.StringIO()
    with Progress("collect", 1, "episodes", stream=stream) as progress:
        progress.advance()
    assert "1 episode in" in stream.getvalue()
    assert [several(n, "layouts") for n in (0, 1, 2)] == ["0 layouts", "1 layout", "2 layouts"]


def test_rates_read_well() -> None:
    assert rate_text(1234.5, "steps") == "1234 steps/s"
    assert rate_text(4.321, "steps") == "4.32 steps/s"
    assert rate_text(0.1, "episodes") == "10 s each"
