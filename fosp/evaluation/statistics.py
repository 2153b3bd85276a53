"""What may be concluded from a handful of episodes: intervals, shares, tails, paired differences, a verdict.

Pure functions of arrays. Whatever resamples takes a ``numpy.random.Generator``; vectors and pairs are sorted first, so
that the result depends on the numbers and the generator but not on the order in which the episodes were run.

Letters here: N episodes (one per layout), R trained runs (seeds of the learner), L layouts, Z bootstrap resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE = 0.95
RESAMPLES = 5000
_CHUNK = 2_000_000  # numbers resampled at once, so that a long series does not fill the memory
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval around it, from n numbers. ``low`` and ``high`` are NaN where n is 1."""

    mean: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """NaN has no place in JSON and becomes null."""
        return {"mean": finite(self.mean), "low": finite(self.low), "high": finite(self.high), "n": self.n}

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0.0 or self.high < 0.0


def finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _sample(values: ArrayLike) -> np.ndarray:  # (N,)
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"a sample is a non-empty vector of finite numbers, not {array.shape} {array.ravel()[:5]}")
    return np.sort(array)


# ---------------------------------------------------------------------------------------------------- means


def resampled_means(values: ArrayLike, rng: np.random.Generator, resamples: int = RESAMPLES) -> np.ndarray:  # (Z,)
    """Means of Z resamples of N numbers, drawn with replacement."""
    sample = _sample(values)
    rows = max(1, _CHUNK // sample.size)
    parts = [
        sample[rng.integers(0, sample.size, (min(rows, resamples - start), sample.size))].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    return np.concatenate(parts)


def _bca_levels(sample: np.ndarray, draws: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Bias-corrected and accelerated percentile levels of the mean (Efron & Tibshirani 1993, eq. 14.9-14.15).

    alpha' = Phi(z0 + (z0 + z_alpha) / (1 - a (z0 + z_alpha))), z0 = Phi^-1(share of resampled means below the mean),
    a = sum d^3 / (6 (sum d^2)^1.5) with d the jackknife deviations; for a mean d_i is proportional to x_i - mean.
    """
    mean = sample.mean()
    below = np.mean(draws < mean) + 0.5 * np.mean(draws == mean)  # ties count half: counts of costs are discrete
    z0 = _NORMAL.inv_cdf(float(np.clip(below, 0.5 / draws.size, 1 - 0.5 / draws.size)))
    d = (sample - mean) / np.abs(sample - mean).max()  # a has no unit; scaled, tiny costs do not underflow
    a = float(np.sum(d**3) / (6.0 * np.sum(d**2) ** 1.5))
    z = z0 + np.array([_NORMAL.inv_cdf(float(level)) for level in levels])
    return np.array([_NORMAL.cdf(float(value)) for value in z0 + z / (1.0 - a * z)])


def mean_quantiles(
    values: ArrayLike, levels: ArrayLike, rng: np.random.Generator, *, method: str = "bca", resamples: int = RESAMPLES
) -> np.ndarray:
    """Bootstrap bounds of the mean at one-sided ``levels``, e.g. (0.025, 0.975); ``method`` "bca" or "percentile"."""
    sample, wanted = _sample(values), np.atleast_1d(np.asarray(levels, np.float64))
    if method not in ("bca", "percentile"):
        raise ValueError(f"method is 'bca' or 'percentile', not {method!r}")
    if sample[0] == sample[-1]:  # no spread, nothing to resample; also spares BCa a division by zero
        return np.full(wanted.shape, sample[0])
    draws = resampled_means(sample, rng, resamples)
    return np.quantile(draws, _bca_levels(sample, draws, wanted) if method == "bca" else wanted)


def mean_interval(
    values: ArrayLike,
    rng: np.random.Generator,
    *,
    confidence: float = CONFIDENCE,
    method: str = "bca",
    resamples: int = RESAMPLES,
) -> Interval:
    """Mean with a two-sided bootstrap interval. BCa is the default because episode costs are skewed."""
    sample = _sample(values)
    mean = float(sample.mean())
    if sample.size == 1:
        return Interval(mean, math.nan, math.nan, 1)
    tail = (1.0 - confidence) / 2.0
    low, high = mean_quantiles(sample, (tail, 1.0 - tail), rng, method=method, resamples=resamples)
    return Interval(mean, float(low), float(high), sample.size)


def studentized_bounds(
    values: ArrayLike, confidence: float, rng: np.random.Generator, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """One-sided lower and upper bound of the mean by the bootstrap-t (Efron & Tibshirani 1993, section 12.5).

    (mean - q(confidence) se, mean - q(1 - confidence) se) with q the quantiles of t* = (mean* - mean) / se*. Of the
    bootstrap bounds this one follows skewed samples best. A resample without spread has t* = -inf or inf, so that a
    bound may be infinite: then too few episodes stand behind the mean to say how far it reaches.
    """
    sample = _sample(values)
    n, mean, error = sample.size, sample.mean(), sample.std(ddof=1)
    if error == 0.0:
        return float(mean), float(mean)
    parts = []
    rows = max(1, _CHUNK // n)
    for start in range(0, resamples, rows):
        drawn = sample[rng.integers(0, n, (min(rows, resamples - start), n))]  # (Z, N)
        shift, spread = drawn.mean(axis=1) - mean, drawn.std(axis=1, ddof=1)
        parts.append(np.where(spread > 0.0, shift / np.where(spread > 0.0, spread, 1.0), np.copysign(np.inf, shift)))
    # Quantiles that are members of the sample: nothing can be interpolated between a number and infinity.
    low, high = np.quantile(np.concatenate(parts), (confidence, 1.0 - confidence), method="inverted_cdf")
    return float(mean - low * error), float(mean - high * error)


def t_quantile(level: float, dof: int) -> float:
    """Quantile of Student's t with an integer number of degrees of freedom.

    With theta = atan(t / sqrt(dof)), the probability A(theta) = P(|T| <= t) is a finite sum of powers of cos(theta)
    (Abramowitz & Stegun 26.7.3 for odd, 26.7.4 for even dof), exact for every dof; theta is found by bisection.
    """
    if dof < 1 or not 0.0 < level < 1.0:
        raise ValueError(f"a t quantile needs dof >= 1 and a level inside (0, 1), not {dof} and {level}")
    odd = dof % 2

    def central(theta: float) -> float:
        cos2, term, total = math.cos(theta) ** 2, (math.cos(theta) if odd else 1.0), 0.0
        for k in range(2 + odd, dof + 1, 2):
            total += term
            term *= cos2 * (k - 1) / k
        return (theta + math.sin(theta) * total) * 2.0 / math.pi if odd else math.sin(theta) * total

    wanted = abs(2.0 * level - 1.0)
    low, high = 0.0, math.pi / 2.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if central(middle) < wanted else (low, middle)
    return math.copysign(math.sqrt(dof) * math.tan(0.5 * (low + high)), level - 0.5)


def cvar(costs: ArrayLike, share: float = 0.1) -> float:
    """Conditional value at risk: the mean of the worst ``share`` of the costs (Rockafellar & Uryasev 2002).

    (1 / (share N)) (sum of the floor(share N) largest + the left-over fraction of the next); the largest one if
    share N <= 1.
    """
    worst = _sample(costs)[::-1]
    count = max(share * worst.size, 1.0)
    weight = np.clip(count - np.arange(worst.size), 0.0, 1.0)
    return float(worst @ weight / count)


def cvar_interval(
    costs: ArrayLike,
    rng: np.random.Generator,
    share: float = 0.1,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> Interval:
    """CVaR with a percentile bootstrap interval. A tail of a tail: with few episodes the upper end is optimistic."""
    sample = _sample(costs)
    if sample.size == 1:
        return Interval(float(sample[0]), math.nan, math.nan, 1)
    count = max(share * sample.size, 1.0)
    weight = np.clip(count - np.arange(sample.size), 0.0, 1.0) / count
    draws = np.sort(sample[rng.integers(0, sample.size, (resamples, sample.size))], axis=1)[:, ::-1] @ weight
    return _percentile(cvar(sample, share), draws, confidence, sample.size)


def _percentile(estimate: float, draws: np.ndarray, confidence: float, n: int) -> Interval:
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(draws, (tail, 1.0 - tail))
    return Interval(float(estimate), float(low), float(high), n)


# --------------------------------------------------------------------------------------------------- shares


def wilson(count: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Share count / n with the score interval of Wilson (1927), which stays inside [0, 1] and works at 0 and n.

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    """
    if n < 1 or not 0 <= count <= n:
        raise ValueError(f"a share needs 0 <= count <= n and n >= 1, not {count} of {n}")
    z = _NORMAL.inv_cdf(0.5 + confidence / 2.0)
    p = count / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low = 0.0 if count == 0 else max(0.0, centre - half)  # exactly, not 1e-17
    high = 1.0 if count == n else min(1.0, centre + half)
    return Interval(p, low, high, n)


def rule_of_three(n: int, confidence: float = CONFIDENCE) -> float:
    """Upper bound of the share of an event that was never seen in n trials: 1 - (1 - confidence)^(1/n), about 3/n.

    Hanley & Lippman-Hand, JAMA 249 (1983) 1743.
    """
    if n < 1:
        raise ValueError(f"the rule of three needs at least one trial, not {n}")
    return 1.0 - (1.0 - confidence) ** (1.0 / n)


# -------------------------------------------------------------------------------------------------- pairs


def _pair(a: ArrayLike, b: ArrayLike) -> np.ndarray:  # (N, 2), in an order that depends on the pairs alone
    pairs = np.stack([np.asarray(a, np.float64), np.asarray(b, np.float64)], axis=-1)
    if pairs.ndim != 2 or not len(pairs) or not np.isfinite(pairs).all():
        raise ValueError(f"a paired comparison needs two finite vectors of one length, not {pairs.shape}")
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def paired_difference(
    a: ArrayLike, b: ArrayLike, rng: np.random.Generator, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> Interval:
    """Mean of a_i - b_i, both on layout i, with a BCa interval: what all layouts share cancels out."""
    pairs = _pair(a, b)
    return mean_interval(pairs[:, 0] - pairs[:, 1], rng, confidence=confidence, resamples=resamples)


def relative_reduction(
    a: ArrayLike, b: ArrayLike, rng: np.random.Generator, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> Interval:
    """1 - mean(a) / mean(b): by which part a lowers the cost of the reference b on the same layouts.

    The interval is the percentile bootstrap of the ratio over pairs. All NaN where the reference has no cost at all;
    resamples in which it has none are left out.
    """
    pairs = _pair(a, b)
    n = len(pairs)
    if pairs[:, 1].mean() <= 0.0:
        return Interval(math.nan, math.nan, math.nan, n)
    estimate = 1.0 - pairs[:, 0].mean() / pairs[:, 1].mean()
    if n == 1:
        return Interval(float(estimate), math.nan, math.nan, 1)
    drawn = pairs[rng.integers(0, n, (resamples, n))].mean(axis=1)  # (Z, 2)
    drawn = drawn[drawn[:, 1] > 0.0]
    return _percentile(float(estimate), 1.0 - drawn[:, 0] / drawn[:, 1], confidence, n)


# ------------------------------------------------------------------------------------------ runs x layouts


def _matrix(scores: ArrayLike) -> np.ndarray:  # (R, L)
    array = np.asarray(scores, np.float64)
    if array.ndim != 2 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"scores are a finite (runs, layouts) matrix, not of shape {array.shape}")
    return array


def interquartile_mean(values: ArrayLike) -> float:
    """Mean of the middle half of all values: the lowest and highest floor(n / 4) are dropped, as rliable does."""
    flat = np.sort(np.asarray(values, np.float64).ravel())
    cut = flat.size // 4
    return float(flat[cut : flat.size - cut].mean())


def stratified_bootstrap(
    scores: ArrayLike,
    rng: np.random.Generator,
    statistic: Callable[[np.ndarray], float] = interquartile_mean,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = 2000,
) -> Interval:
    """Statistic of (R, L) scores; runs are resampled within each layout (Agarwal et al. 2021, rliable).

    The layouts are a fixed set here: the interval says how the result would vary with the learner's seed.
    """
    matrix = np.sort(_matrix(scores), axis=0)
    runs, layouts = matrix.shape
    rows = rng.integers(0, runs, (resamples, runs, layouts))
    draws = np.array([statistic(np.take_along_axis(matrix, rows[i], axis=0)) for i in range(resamples)])
    return _percentile(statistic(matrix), draws, confidence, matrix.size)


def crossed_mean(
    scores: ArrayLike, rng: np.random.Generator, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> Interval:
    """Mean of (R, L) scores; runs and layouts are both resampled (the pigeonhole bootstrap, Owen 2007).

    Says how the mean would vary with other seeds of the learner AND other layouts. Known to be conservative in the
    layouts; with three runs the part of the runs is still only roughly known. R = 1 is the plain bootstrap of layouts.
    """
    matrix = _matrix(scores)
    if matrix.size == 1:
        return Interval(float(matrix[0, 0]), math.nan, math.nan, 1)
    (draws,) = _crossed_means(rng, resamples, matrix)
    return _percentile(float(matrix.mean()), draws, confidence, matrix.size)


def _crossed_means(rng: np.random.Generator, resamples: int, *matrices: np.ndarray) -> list[np.ndarray]:  # each (Z,)
    """Means of (R, L) matrices over the same resampled runs and layouts.

    Two weighted sums instead of Z resampled matrices: w_r' S w_l / (R L), weights are multinomial counts.
    """
    runs, layouts = matrices[0].shape
    run_weight = rng.multinomial(runs, np.full(runs, 1 / runs), resamples)  # (Z, R)
    layout_weight = rng.multinomial(layouts, np.full(layouts, 1 / layouts), resamples)  # (Z, L)
    return [np.einsum("zr,rl,zl->z", run_weight, m, layout_weight, optimize=True) / m.size for m in matrices]


def crossed_reduction(
    a: ArrayLike, b: ArrayLike, rng: np.random.Generator, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> Interval:
    """``relative_reduction`` of (R, L) costs, run i of a beside run i of b; resampled as in ``crossed_mean``."""
    first, second = _matrix(a), _matrix(b)
    if first.shape != second.shape:
        raise ValueError(f"a paired comparison needs matrices of one shape, not {first.shape} and {second.shape}")
    if second.mean() <= 0.0:
        return Interval(math.nan, math.nan, math.nan, first.size)
    estimate = 1.0 - first.mean() / second.mean()
    if first.size == 1:
        return Interval(float(estimate), math.nan, math.nan, 1)
    lower, upper = _crossed_means(rng, resamples, first, second)
    return _percentile(float(estimate), 1.0 - lower[upper > 0.0] / upper[upper > 0.0], confidence, first.size)


def crossed_cvar(
    costs: ArrayLike, rng: np.random.Generator, share: float = 0.1, *, confidence: float = CONFIDENCE,
    resamples: int = 2000,
) -> Interval:  # fmt: skip
    """CVaR of all (R, L) costs together; runs and layouts are both resampled, as in ``crossed_mean``."""
    matrix = _matrix(costs)
    if matrix.size == 1:
        return Interval(float(matrix[0, 0]), math.nan, math.nan, 1)
    runs, layouts = (rng.integers(0, n, (resamples, n)) for n in matrix.shape)  # (Z, R), (Z, L)
    draws = np.array([cvar(matrix[np.ix_(*drawn)].ravel(), share) for drawn in zip(runs, layouts, strict=True)])
    return _percentile(cvar(matrix.ravel(), share), draws, confidence, matrix.size)


def probability_of_improvement(
    a: ArrayLike, b: ArrayLike, rng: np.random.Generator, *, confidence: float = CONFIDENCE, resamples: int = 2000
) -> Interval:
    """Probability that a run of a scores higher than a run of b on a layout drawn at random; a tie counts one half.

    a (R, L), b (R', L), or vectors (L,) for one run each. Mean over layouts of the Mann-Whitney statistic over runs
    (Agarwal et al. 2021); layouts are resampled. For costs pass the negative numbers.
    """
    first, second = (_matrix(np.atleast_2d(np.asarray(x, np.float64))) for x in (a, b))
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"both sides need the same layouts, not {first.shape[1]} and {second.shape[1]}")
    above = (first[:, None] > second[None]) + 0.5 * (first[:, None] == second[None])  # (R, R', L)
    return mean_interval(above.mean(axis=(0, 1)), rng, confidence=confidence, method="percentile", resamples=resamples)


# ----------------------------------------------------------------------------------------- normalised scores


def normalised_return(value: float, lowest: float, highest: float) -> float:
    """(R - Rmin) / (Rmax - Rmin), Rmin and Rmax over the episodes of the log (DSRL, Liu et al. 2023, eq. 2)."""
    if not highest > lowest:
        raise ValueError(f"the log's highest return {highest} must lie above its lowest {lowest}")
    return (value - lowest) / (highest - lowest)


def normalised_cost(value: float, limit: float, eps: float = 1.0) -> float:
    """(C + eps) / (limit + eps), safe if at most 1 (DSRL, Liu et al. 2023; eps lets a limit of zero work)."""
    if limit < 0.0 or eps <= 0.0:
        raise ValueError(f"a cost limit is not negative and eps is positive, not {limit} and {eps}")
    return (value + eps) / (limit + eps)
