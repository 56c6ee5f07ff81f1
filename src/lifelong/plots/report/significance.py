"""Whether a difference of two methods is more than chance, and means that one bad seed does not move.

Few seeds prove little: the smallest p-value of n pairs is 2/2ⁿ, whatever their differences are. See `pairs_needed`.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from pandas import Series
from scipy.stats import bootstrap, permutation_test, trim_mean

MAX_EXACT = 14
"""Up to so many pairs all 2ⁿ signs are enumerated; of more, as many are drawn as 14 pairs have."""
NUM_BOOTSTRAPS = 2000
LEVEL = 0.05


def permutation_p(differences: Iterable[float]) -> float:
    """Two-sided p-value of the paired permutation test: how often random signs give a mean as far from 0 as the own.

    It supposes that without an effect a difference is as likely as its negative, and nothing else. Exact for up to
    MAX_EXACT pairs, else from signs of a fixed seed. nan for fewer than two; nan among the differences does not count.
    """
    known = Series(differences, dtype=float).dropna().to_numpy()
    if len(known) < 2:
        return math.nan
    how = {"permutation_type": "samples", "n_resamples": 2**MAX_EXACT, "vectorized": True, "rng": 0}
    return float(permutation_test((known,), np.mean, **how).pvalue)


def pairs_needed(num_tests: int = 1, level: float = LEVEL) -> int:
    """Pairs from which on a p-value below `level` is possible, after Holm's correction for `num_tests`: 2m/2ⁿ < level.

    >>> [2 / 2**n for n in (5, 6)], pairs_needed(), pairs_needed(num_tests=19)
    ([0.0625, 0.03125], 6, 10)
    """
    return math.floor(math.log2(2 * num_tests / level)) + 1


def holm(p_values: Iterable[float]) -> Series:
    """P-values corrected for being several (Holm 1979): below α, they are wrong together at most in α of all cases.

    The k-th smallest of m is multiplied by m + 1 − k, and none is smaller than the ones before it. nan does not count.
    """
    given = Series(p_values, dtype=float)
    ordered = given.dropna().sort_values()
    corrected = (ordered * np.arange(len(ordered), 0, -1)).cummax().clip(upper=1)
    return corrected.reindex(given.index)


def iqm(*strata: Iterable[float]) -> float:
    """Interquartile mean of all values together: without the ⌊n/4⌋ lowest and highest (Agarwal et al. 2021).

    Of fewer than four values it is the mean. nan does not count.

    >>> iqm([1, 2, 3, 90]), iqm([1, 2], [3, 90])
    (2.5, 2.5)
    """
    return float(trim_mean(np.concatenate(_known(strata)), 0.25))


def iqm_interval(*strata: Iterable[float]) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the IQM, values drawn anew within each stratum (Agarwal et al. 2021).

    A stratum holds the runs of one stream; draws have a fixed seed. nan where a stratum has fewer than two values. Of
    few seeds it is too narrow: it never leaves the range of the values seen.
    """
    known = _known(strata)
    if min(map(len, known)) < 2:
        return math.nan, math.nan
    how = {"n_resamples": NUM_BOOTSTRAPS, "method": "percentile", "vectorized": True, "rng": 0}
    low, high = bootstrap(known, _iqm_along, **how).confidence_interval
    return float(low), float(high)


def _iqm_along(*strata: np.ndarray, axis: int) -> np.ndarray:
    return trim_mean(np.concatenate(strata, axis=axis), 0.25, axis=axis)


def _known(strata: Sequence[Iterable[float]]) -> list[np.ndarray]:
    return [Series(values, dtype=float).dropna().to_numpy() for values in strata]
