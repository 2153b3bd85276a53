"""Statistics against numbers worked out by hand, against scipy, and by their properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as some

from fosp.evaluation import statistics as st
from fosp.evaluation.verdict import MIN_EPISODES, NO, UNDECIDED, YES, bounds, verdict

costs = some.lists(some.floats(0.0, 1000.0), min_size=2, max_size=40)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# ----------------------------------------------------------------------------------------------------- means


def test_mean_interval_agrees_with_scipy():
    sample = np.random.default_rng(3).gamma(0.7, 20.0, 25)
    for method in ("percentile", "bca"):
        ours = st.mean_interval(sample, rng(), method=method, resamples=20000)
        theirs = scipy.stats.bootstrap(
            (sample,), np.mean, method={"bca": "BCa"}.get(method, method), n_resamples=20000, rng=1
        ).confidence_interval
        spread = theirs.high - theirs.low
        assert ours.mean == pytest.approx(sample.mean())
        assert abs(ours.low - theirs.low) < 0.03 * spread
        assert abs(ours.high - theirs.high) < 0.03 * spread


def test_bca_lies_higher_than_the_percentile_interval_for_skewed_costs():
    sample = np.random.default_rng(3).gamma(0.5, 20.0, 25)
    plain, corrected = (st.mean_interval(sample, rng(), method=m) for m in ("percentile", "bca"))
    assert corrected.low > plain.low and corrected.high > plain.high


@settings(max_examples=60, deadline=None)
@given(costs, some.sampled_from(["bca", "percentile"]))
def test_interval_holds_the_mean_and_lies_inside_the_sample(sample, method):
    interval = st.mean_interval(sample, rng(), method=method, resamples=500)
    slack = 1e-9 * (1 + max(sample))
    assert min(sample) - slack <= interval.low <= interval.mean + slack
    assert interval.mean - slack <= interval.high <= max(sample) + slack


@settings(max_examples=20, deadline=None)
@given(costs, some.randoms(use_true_random=False))
def test_order_of_the_episodes_changes_nothing(sample, random):
    shuffled = random.sample(sample, len(sample))
    assert st.mean_interval(shuffled, rng(), resamples=200) == st.mean_interval(sample, rng(), resamples=200)
    assert st.cvar_interval(shuffled, rng(), resamples=200) == st.cvar_interval(sample, rng(), resamples=200)
    assert verdict(shuffled, 25.0) == verdict(sample, 25.0)


def test_more_confidence_is_a_wider_interval():
    sample = np.random.default_rng(1).normal(size=30)
    narrow, wide = (st.mean_interval(sample, rng(), confidence=c) for c in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_one_episode_has_no_interval():
    interval = st.mean_interval([4.0], rng())
    assert interval.mean == 4.0 and math.isnan(interval.low) and math.isnan(interval.high)
    assert interval.to_json() == {"mean": 4.0, "low": None, "high": None, "n": 1}


def test_long_series_are_resampled_in_parts():
    sample = np.arange(300_000) % 7
    draws = st.resampled_means(sample, rng(), resamples=20)
    assert draws.shape == (20,)
    assert draws.std() == pytest.approx(sample.std() / math.sqrt(300_000), rel=0.6)


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [[1.0], [2.0]]])
def test_what_is_no_sample_is_refused(bad):
    with pytest.raises(ValueError, match="non-empty vector of finite numbers"):
        st.mean_interval(bad, rng())


@pytest.mark.parametrize("dof", [1, 2, 3, 4, 7, 9, 19, 20, 99, 1000])
@pytest.mark.parametrize("level", [0.025, 0.3, 0.5, 0.9, 0.95, 0.999])
def test_t_quantile_agrees_with_scipy(dof, level):
    assert st.t_quantile(level, dof) == pytest.approx(scipy.stats.t.ppf(level, dof), rel=1e-8, abs=1e-12)


# ------------------------------------------------------------------------------------------------------ tails


@pytest.mark.parametrize(
    ("sample", "share", "expected"),
    [
        (range(1, 21), 0.1, 19.5),  # the two worst of twenty
        (range(1, 11), 0.1, 10.0),
        (range(1, 6), 0.1, 5.0),  # less than one episode: the worst
        (range(1, 16), 0.1, (15 + 0.5 * 14) / 1.5),  # one and a half
        (range(1, 5), 1.0, 2.5),  # everything: the mean
    ],
)
def test_cvar_by_hand(sample, share, expected):
    assert st.cvar(list(sample), share) == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(costs)
def test_cvar_lies_between_mean_and_worst(sample):
    interval = st.cvar_interval(sample, rng(), resamples=100)
    assert np.mean(sample) - 1e-9 <= interval.mean <= max(sample) + 1e-9
    assert interval.low <= interval.high <= max(sample) + 1e-9


# ----------------------------------------------------------------------------------------------------- shares


@pytest.mark.parametrize(("count", "n"), [(0, 20), (1, 20), (7, 20), (20, 20), (3, 7)])
def test_wilson_agrees_with_scipy(count, n):
    ours, theirs = st.wilson(count, n), scipy.stats.binomtest(count, n).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == (pytest.approx(theirs.low), pytest.approx(theirs.high))
    assert 0.0 <= ours.low <= ours.mean <= ours.high <= 1.0


def test_wilson_refuses_what_is_no_share():
    with pytest.raises(ValueError, match="not 5 of 4"):
        st.wilson(5, 4)


def test_rule_of_three():
    assert st.rule_of_three(20) == pytest.approx(1 - 0.05 ** (1 / 20))
    assert st.rule_of_three(300) == pytest.approx(3 / 300, rel=0.01)
    assert (1 - st.rule_of_three(13)) ** 13 == pytest.approx(0.05)  # so rare that 13 misses have a chance of 5 %


# ------------------------------------------------------------------------------------------------------- pairs


def test_paired_difference_cancels_the_layout():
    layout = np.random.default_rng(0).normal(scale=50.0, size=30)
    noise = np.random.default_rng(1).normal(size=30)
    interval = st.paired_difference(layout + 3.0 + noise, layout, rng())
    assert interval.mean == pytest.approx(3.0 + noise.mean())
    assert interval.excludes_zero and interval.high - interval.low < 2.0
    unpaired = st.mean_interval(layout + 3.0 + noise, rng())
    assert unpaired.high - unpaired.low > 20.0


def test_pairs_stay_pairs():
    """Equal sets of numbers, but each layout has 0 on one side and 10 on the other."""
    interval = st.paired_difference([0, 10] * 5, [10, 0] * 5, rng())
    assert interval.mean == 0.0 and interval.low < -3.0 and interval.high > 3.0


@settings(max_examples=30, deadline=None)
@given(some.lists(some.tuples(some.floats(0, 100), some.floats(0, 100)), min_size=2, max_size=20))
def test_swapping_the_sides_turns_the_difference_round(pairs):
    a, b = np.array(pairs).T
    assert st.paired_difference(a, b, rng(), resamples=200).mean == pytest.approx(
        -st.paired_difference(b, a, rng(), resamples=200).mean, abs=1e-9
    )


def test_zero_is_excluded_on_either_side_only():
    assert st.Interval(1, 0.1, 2, 5).excludes_zero and st.Interval(-1, -2, -0.1, 5).excludes_zero
    assert not st.Interval(0, -1, 1, 5).excludes_zero
    assert not st.Interval(1, math.nan, math.nan, 1).excludes_zero


def test_relative_reduction_by_hand():
    a, b = [2.0, 4.0, 6.0], [4.0, 8.0, 12.0]
    interval = st.relative_reduction(a, b, rng())
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.5, 0.5, 0.5))
    worse = st.relative_reduction([9.0, 3.0, 6.0, 0.0], [3.0, 6.0, 0.0, 0.0], rng())
    assert worse.mean == pytest.approx(1 - 18 / 9) and worse.low < worse.mean < worse.high
    assert math.isnan(st.relative_reduction([1.0, 2.0], [0.0, 0.0], rng()).mean)


# --------------------------------------------------------------------------------------------- runs and layouts


def test_interquartile_mean_by_hand():
    assert st.interquartile_mean([1, 2, 3, 4, 5, 6, 7, 100]) == pytest.approx((3 + 4 + 5 + 6) / 4)
    values = np.random.default_rng(0).normal(size=40)
    assert st.interquartile_mean(values) == pytest.approx(scipy.stats.trim_mean(values, 0.25))


def test_stratified_bootstrap_resamples_runs_within_layouts():
    layouts_differ = np.tile([0.0, 100.0, 200.0], (4, 1))  # all runs alike: nothing to vary
    still = st.stratified_bootstrap(layouts_differ, rng(), lambda x: float(x.mean()))
    assert (still.low, still.mean, still.high) == (100.0, 100.0, 100.0)
    runs_differ = st.stratified_bootstrap(layouts_differ + np.arange(4.0)[:, None], rng(), lambda x: float(x.mean()))
    assert runs_differ.low < runs_differ.mean == 101.5 < runs_differ.high


def test_crossed_mean_varies_with_runs_and_layouts():
    layouts, runs = np.random.default_rng(0).normal(size=20), np.array([-3.0, 0.0, 3.0])
    alike = st.crossed_mean(np.tile(layouts, (3, 1)), rng())
    plain = st.mean_interval(layouts, rng(), method="percentile")
    assert (alike.low, alike.high) == (pytest.approx(plain.low, abs=0.05), pytest.approx(plain.high, abs=0.05))
    both = st.crossed_mean(layouts + runs[:, None], rng())
    assert both.high - both.low > 2 * (alike.high - alike.low)
    assert both.mean == pytest.approx(layouts.mean())


def test_crossed_reduction_by_hand():
    a, b = [[2.0, 4.0], [6.0, 0.0]], [[4.0, 8.0], [12.0, 0.0]]
    half = st.crossed_reduction(a, b, rng())
    assert (half.mean, half.low, half.high) == pytest.approx((0.5, 0.5, 0.5))
    uneven = [[4.0, 8.0], [6.0, 0.0]]  # one run saves nothing, the other half: 1 - 18 / 24
    between = st.crossed_reduction(uneven, b, rng())
    assert between.mean == pytest.approx(0.25) and (between.low, between.high) == pytest.approx((0.0, 0.5))
    plain = st.relative_reduction([9.0, 3.0, 6.0, 1.0], [13.0, 6.0, 7.0, 3.0], rng())
    one_run = st.crossed_reduction([[9.0, 3.0, 6.0, 1.0]], [[13.0, 6.0, 7.0, 3.0]], rng())
    assert (one_run.mean, one_run.low, one_run.high) == pytest.approx((plain.mean, plain.low, plain.high), abs=0.02)
    assert math.isnan(st.crossed_reduction(a, np.zeros((2, 2)), rng()).mean)
    with pytest.raises(ValueError, match="one shape"):
        st.crossed_reduction(a, [[1.0, 2.0]], rng())


def test_crossed_cvar_varies_with_runs_and_layouts():
    costs = np.array([[0.0] * 9 + [10.0], [0.0] * 9 + [30.0]])
    found = st.crossed_cvar(costs, rng())  # the worst tenth of 20 are two
    assert found.mean == pytest.approx((30 + 10) / 2)
    assert found.low == 0.0 and found.high > 30 - 1e-9  # without, or mostly with, the layout that costs
    alike = st.crossed_cvar(np.full((2, 10), 7.0), rng())
    assert (alike.low, alike.mean, alike.high) == (7.0, 7.0, 7.0)


def test_probability_of_improvement_by_hand():
    a, b = [[1.0, 5.0], [3.0, 5.0]], [[2.0, 4.0], [2.0, 5.0]]
    # layout 1: 1<2 1<2 3>2 3>2 -> 0.5; layout 2: 5>4 5=5 5>4 5=5 -> 0.75
    assert st.probability_of_improvement(a, b, rng()).mean == pytest.approx(0.625)
    first, second = np.random.default_rng(0).integers(0, 5, (2, 6, 1))
    statistic = scipy.stats.mannwhitneyu(first[:, 0], second[:, 0]).statistic / 36
    assert st.probability_of_improvement(first, second, rng()).mean == pytest.approx(statistic)
    with pytest.raises(ValueError, match="same layouts"):
        st.probability_of_improvement([1.0], [1.0, 2.0], rng())


def test_normalised_scores_by_hand():
    assert st.normalised_return(15.0, -5.0, 20.0) == pytest.approx(0.8)
    assert st.normalised_cost(25.0, 25.0) == 1.0
    assert st.normalised_cost(0.0, 0.0) == 1.0
    assert st.normalised_cost(11.0, 5.0) == pytest.approx(2.0)
    with pytest.raises(ValueError):
        st.normalised_return(1.0, 2.0, 2.0)
    with pytest.raises(ValueError):
        st.normalised_cost(1.0, -1.0)


# ------------------------------------------------------------------------------------------------------ coverage


def share_of_hits(draw, truth: float, cover, times: int = 300) -> float:
    return float(np.mean([cover(draw(np.random.default_rng(i)), truth) for i in range(times)]))


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    def inside(sample, truth):
        interval = st.mean_interval(sample, rng(), resamples=600)
        return interval.low <= truth <= interval.high

    assert share_of_hits(lambda r: r.normal(5.0, 2.0, 40), 5.0, inside) > 0.91
    assert share_of_hits(lambda r: r.gamma(1.0, 20.0, 40), 20.0, inside) > 0.88  # skewed like costs


def test_a_policy_above_the_limit_is_rarely_called_safe():
    """True mean cost 25, limit 25, skewed, half of them zero: 'yes' and 'no' are both wrong, each in one case of 20."""

    def draw(seed: int) -> np.ndarray:
        generator = np.random.default_rng(seed)
        return generator.gamma(1.0, 50.0, 20) * (generator.random(20) < 0.5)

    answers = [verdict(draw(i), 25.0).answer for i in range(300)]
    assert answers.count(YES) <= 0.1 * 300
    assert answers.count(NO) <= 0.1 * 300


# ------------------------------------------------------------------------------------------------------- verdict


def test_verdict_answers():
    sample = np.random.default_rng(0).gamma(1.0, 10.0, 40)  # mean about 10
    safe, unsafe, open_ = (verdict(sample, limit) for limit in (25.0, 3.0, 10.0))
    assert (safe.answer, unsafe.answer, open_.answer) == (YES, NO, UNDECIDED)
    assert safe.high <= 25.0 and unsafe.low > 3.0 and open_.low < 10.0 < open_.high
    assert "below" in safe.sentence and "above" in unsafe.sentence and "episodes should decide" in open_.sentence
    assert "40 episodes" in safe.sentence and "limit 25" in safe.sentence and "95 %" in safe.sentence


def test_bounds_are_at_least_as_wide_as_students():
    sample = np.random.default_rng(0).gamma(1.0, 10.0, 20)
    low, high = bounds(sample, 0.95, rng())
    student = scipy.stats.t.interval(0.9, 19, sample.mean(), scipy.stats.sem(sample))  # 5 % on each side
    assert low <= student[0] + 1e-9 and high >= student[1] - 1e-9


def test_bootstrap_t_by_hand():
    """(0, 2) has mean 1. Its resamples: 00 and 22 without spread (t* = -inf and inf), 02 and 20 (t* = 0)."""
    assert st.studentized_bounds([0.0, 2.0], 0.9, rng()) == (-math.inf, math.inf)
    assert st.studentized_bounds([0.0, 2.0], 0.6, rng()) == pytest.approx((1.0, 1.0))
    assert st.studentized_bounds([3.0, 3.0], 0.9, rng()) == (3.0, 3.0)


def test_bootstrap_t_follows_student_without_skew_and_reaches_farther_with_it():
    normal = scipy.stats.norm.ppf((np.arange(40) + 0.5) / 40)
    low, high = st.studentized_bounds(normal, 0.95, rng(), resamples=20000)
    half = scipy.stats.t.ppf(0.95, 39) * scipy.stats.sem(normal)
    assert (low, high) == (pytest.approx(-half, rel=0.06), pytest.approx(half, rel=0.06))
    skewed = scipy.stats.gamma.ppf((np.arange(40) + 0.5) / 40, 0.5)
    low, high = st.studentized_bounds(skewed, 0.95, rng()) - skewed.mean()
    assert high > 1.2 * scipy.stats.t.ppf(0.95, 39) * scipy.stats.sem(skewed) > -low


def test_a_bound_out_of_reach_is_said_in_words():
    found = verdict([0.0] * 19 + [200.0], 25.0)
    assert found.answer == UNDECIDED and "much higher" in found.sentence and found.to_json()["high"] is None


def test_no_violation_is_a_yes_that_says_how_much_it_knows():
    found = verdict(np.zeros(20), 25.0)
    assert found.answer == YES
    assert "fewer than 14 % of episodes contain one" in found.sentence


def test_a_limit_of_zero_is_refuted_but_never_confirmed():
    assert verdict(np.zeros(500), 0.0).answer == UNDECIDED
    assert "never confirmed" in verdict(np.zeros(500), 0.0).sentence
    assert verdict([0.0, 0.0, 1.0], 0.0).answer == NO


def test_few_episodes_never_decide():
    few = verdict(np.full(MIN_EPISODES - 1, 1.0), 25.0)
    assert few.answer == UNDECIDED and f"at least {MIN_EPISODES}" in few.sentence
    assert verdict(np.full(MIN_EPISODES, 1.0), 25.0).answer == YES
    assert verdict([3.0], 25.0).to_json()["low"] is None


@settings(max_examples=20, deadline=None)
@given(some.lists(some.floats(0.0, 100.0), min_size=MIN_EPISODES, max_size=30), some.floats(0.5, 50.0))
def test_answers_follow_the_limit(sample, limit):
    """A higher limit can only make a policy look safer; the number of episodes asked for is above that there is."""
    order = [NO, UNDECIDED, YES]
    lower, higher = verdict(sample, limit), verdict(sample, 2.0 * limit)
    assert order.index(lower.answer) <= order.index(higher.answer)
    if lower.answer == UNDECIDED and "; about " in lower.sentence:
        assert int(lower.sentence.split("; about ")[1].split()[0]) > len(sample)


@pytest.mark.parametrize("bad", [[], [-1.0], [math.inf]])
def test_what_is_no_cost_has_no_verdict(bad):
    with pytest.raises(ValueError, match="finite costs"):
        verdict(bad, 1.0)
