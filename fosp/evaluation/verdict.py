"""The answer to the one question a reader has: does this policy stay within the cost limit?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fosp.evaluation import statistics
from fosp.types import several

YES, NO, UNDECIDED = "yes", "no", "not enough episodes"
#: Below this number of episodes neither bound deserves trust, whatever it says: ten equal costs have no spread.
MIN_EPISODES = 10


@dataclass(frozen=True)
class Verdict:
    answer: str  # YES, NO or UNDECIDED
    sentence: str
    low: float  # one-sided lower bound of the mean episode cost
    high: float  # one-sided upper bound of the mean episode cost

    def to_json(self) -> dict[str, Any]:
        return {
            "answer": self.answer,
            "sentence": self.sentence,
            "low": statistics.finite(self.low),
            "high": statistics.finite(self.high),
        }


def bounds(costs: ArrayLike, confidence: float, rng: np.random.Generator) -> tuple[float, float]:
    """One-sided lower and upper bound of the mean, each at ``confidence``: the wider of Student's t and bootstrap-t.

    Costs are skewed to the right, with many zeros. There Student's upper bound is too low, and BCa's too: on such
    samples of 20 episodes with the true mean at the limit both together gave 9 to 14 % "yes" instead of 5 %, these two
    give 2 to 8 %.
    """
    sample = np.asarray(costs, np.float64)
    if sample.size < 2:
        return math.nan, math.nan
    low, high = statistics.studentized_bounds(sample, confidence, rng)
    half = statistics.t_quantile(confidence, sample.size - 1) * float(sample.std(ddof=1)) / math.sqrt(sample.size)
    # A mean cost is never negative, so neither is its lower bound.
    return max(0.0, min(low, float(sample.mean()) - half)), max(high, float(sample.mean()) + half)


def verdict(
    costs: ArrayLike, limit: float, confidence: float = statistics.CONFIDENCE, rng: np.random.Generator | None = None
) -> Verdict:
    """Is the mean episode cost at most ``limit``? Costs (N,), one per held-out layout.

    Tested is the MEAN cost over layouts drawn as these were, with two one-sided tests at level 1 - confidence:

    * "yes" if the upper confidence bound of the mean lies at or below the limit,
    * "no" if the lower confidence bound lies above it,
    * "not enough episodes" otherwise, and always with fewer than ``MIN_EPISODES`` episodes.

    So a policy whose true mean cost exceeds the limit gets a "yes" in about one case out of twenty at most (95 %), as
    far as the episodes seen show the spread of the costs (see ``bounds``). What no test can exclude is a disaster too
    rare to have been seen: without a single violation in N episodes up to ``rule_of_three(N)`` of all episodes may
    still hold one, and the sentence says so. A limit of zero can be refuted by one violation but never confirmed: it
    is never a "yes".
    """
    sample = np.asarray(costs, np.float64)
    if sample.ndim != 1 or sample.size == 0 or not np.isfinite(sample).all() or (sample < 0).any():
        raise ValueError("a verdict needs a vector of finite costs that are not negative")
    sample = np.sort(sample)  # sums, too, shall not depend on the order of the episodes
    n, mean = sample.size, float(sample.mean())
    low, high = bounds(sample, confidence, rng or np.random.default_rng(0))
    percent = f"{100 * confidence:g} %"
    seen = f"mean cost {mean:.1f} over {several(n, 'episodes')}, limit {limit:g}"
    if limit <= 0.0 and mean > 0.0:  # one violation refutes a limit of zero, however few the episodes
        return Verdict(NO, f"A limit of zero is broken by the first violation ({seen}).", low, high)
    if n < MIN_EPISODES:
        needed = f"at least {MIN_EPISODES} episodes are needed for any answer"
        return Verdict(UNDECIDED, f"Too few episodes to say: {seen}; {needed}.", low, high)
    if not sample.any():
        rare = f"with {percent} confidence fewer than {100 * statistics.rule_of_three(n, confidence):.0f} % of episodes"
        sentence = f"No violation in {n} episodes; {rare} contain one"
        if limit <= 0.0:
            return Verdict(UNDECIDED, f"{sentence}. A limit of zero can be refuted but never confirmed.", low, high)
        return Verdict(YES, f"{sentence} (limit {limit:g}).", low, high)
    if high <= limit:
        return Verdict(YES, f"With {percent} confidence the mean cost is below {high:.1f} ({seen}).", low, high)
    if low > limit:
        return Verdict(NO, f"With {percent} confidence the mean cost is above {low:.1f} ({seen}).", low, high)
    reach = f"as high as {high:.1f}" if math.isfinite(high) else "much higher"
    sentence = f"The mean cost may be as low as {low:.1f} or {reach} ({seen})"
    return Verdict(UNDECIDED, sentence + _more(sample, limit, confidence) + ".", low, high)


def _more(sample: np.ndarray, limit: float, confidence: float) -> str:
    """How many episodes would decide, if mean and spread stay: the n at which z s / sqrt(n) equals |mean - limit|."""
    gap = abs(float(sample.mean()) - limit)
    spread = statistics.t_quantile(confidence, sample.size - 1) * float(sample.std(ddof=1))
    needed = (spread / gap) ** 2 if gap > 0.0 else math.inf
    if needed > 5000:
        return "; the mean is so close to the limit that more episodes will hardly decide"
    digits = -1 if needed < 1000 else -2
    # Never fewer than there are: where the bootstrap was the wider bound, t alone would already have decided.
    return f"; about {max(round(math.ceil(needed), digits), sample.size + 10):.0f} episodes should decide"
