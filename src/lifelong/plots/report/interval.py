"""Mean and spread over seeds."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """The mean of n values and its 95 % confidence interval, mean ± half_width (nan for a single value)."""

    mean: float
    half_width: float
    n: int

    def text(self, scale: float = 1, digits: int = 1) -> str:
        """mean ± half width; the mean alone if there is no interval.

        >>> Estimate(mean=0.5, half_width=0.021, n=3).text(100), Estimate(0.5, math.nan, 1).text(100)
        ('50.0 ± 2.1', '50.0')
        """
        mean = f"{scale * self.mean:.{digits}f}"
        return mean if math.isnan(self.half_width) else f"{mean} ± {scale * self.half_width:.{digits}f}"


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """Of the values that are defined; None if there are none.

    The interval is Student's: half width t(0.975; n − 1) · s/√n, s the sample standard deviation. It supposes that
    seeds are independent and their measures about normal.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    if len(known) == 1:
        return Estimate(known[0], math.nan, 1)
    from scipy.stats import t

    n = len(known)
    half_width = float(t.ppf(0.975, n - 1)) * statistics.stdev(known) / math.sqrt(n)
    return Estimate(statistics.fmean(known), half_width, n)


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (nan for a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else float("nan")
