"""Statistics of docs/results.md and docs/ablations.md: means over seeds, intervals, differences paired by seed."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from studies.protocols import METHODS

Row = dict[str, str]
CONFIDENCE = 0.95
By = dict[str, float]
"""seed → value in points of 100."""


@dataclass(frozen=True)
class Summary:
    """Of one method's runs that finished; `failed` says of each other one what it failed of."""

    method: str
    strength: float
    accuracy: By
    forgetting: By
    learning: By
    seconds: float
    failed: tuple[str, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.accuracy.values())

    @property
    def interval(self) -> float:
        return half_interval(self.accuracy.values())


@dataclass(frozen=True)
class Share:
    """Of the way from finetune to joint; half: half its interval's width, nan of a single seed."""

    share: float
    half: float

    def __str__(self) -> str:
        around = "" if math.isnan(self.half) else f" ± {rounded(100 * self.half, 0)}"
        return f"{rounded(100 * self.share, 0)}{around}"


def by_seed(rows: Iterable[Row], key: str) -> By:
    """Of the runs that finished, in points of 100; the mean of a seed's runs where it has several."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if not row["failed"] and row[key]:
            found.setdefault(row["seed"], []).append(100 * float(row[key]))
    return {seed: statistics.fmean(of_seed) for seed, of_seed in found.items()}


def values(rows: Iterable[Row], key: str) -> list[float]:
    """Of the runs that finished, in points of 100."""
    return [100 * float(row[key]) for row in rows if not row["failed"] and row[key]]


def half_interval(values: Iterable[float]) -> float:
    """Half the width of Student's 95 % confidence interval of the mean; nan for a single value."""
    values = list(values)
    if len(values) < 2:
        return math.nan
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    return float(quantile * statistics.stdev(values) / math.sqrt(len(values)))


def summaries(rows: Sequence[Row]) -> dict[str, Summary]:
    """Of the methods that have a finished run, in the order of METHODS."""
    result = {}
    for method in METHODS:
        members = [row for row in rows if row["method"] == method]
        done = [row for row in members if not row["failed"]]
        if done:
            result[method] = Summary(
                method,
                float(done[0]["strength"]),
                by_seed(done, "average_accuracy"),
                by_seed(done, "forgetting"),
                by_seed(done, "learning_accuracy"),
                statistics.fmean(float(row["seconds"]) for row in done),
                tuple(row["failed"] for row in members if row["failed"]),
            )
    return result


def differences(these: Mapping[str, float], those: Mapping[str, float]) -> list[float]:
    """These less those, of the seeds that both have."""
    return [these[seed] - those[seed] for seed in these if seed in those]


def settled(pairs: Sequence[float]) -> bool:
    """Whether the interval of the mean leaves zero out."""
    half = half_interval(pairs)
    return not math.isnan(half) and abs(statistics.fmean(pairs)) > half


def gap_closed(summary: Summary, found: Mapping[str, Summary]) -> Share | None:
    """(accuracy − finetune) / (joint − finetune), a ratio of means over the seeds that all three have.

    Its interval is Student's of the ratio's linearisation, (gain − share · way) / mean way for each seed. None where a
    bound was not run, a seed failed, or joint is not above finetune.
    """
    low, high = found.get("finetune"), found.get("joint")
    if low is None or high is None or summary.failed:
        return None
    seeds = [seed for seed in summary.accuracy if seed in low.accuracy and seed in high.accuracy]
    gains = [summary.accuracy[seed] - low.accuracy[seed] for seed in seeds]
    ways = [high.accuracy[seed] - low.accuracy[seed] for seed in seeds]
    if not seeds or statistics.fmean(ways) <= 0:
        return None
    share = statistics.fmean(gains) / statistics.fmean(ways)
    rest = [(gain - share * way) / statistics.fmean(ways) for gain, way in zip(gains, ways, strict=True)]
    return Share(share, half_interval(rest))


def rounded(value: float, decimals: int) -> str:
    """Never "-0"."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


def plus_minus(values: Iterable[float]) -> str:
    values = list(values)
    half = half_interval(values)
    return rounded(statistics.fmean(values), 1) + ("" if math.isnan(half) else f" ± {half:.1f}")


def signed(pairs: Sequence[float]) -> str:
    return plus_minus(pairs) if statistics.fmean(pairs) < 0 else f"+{plus_minus(pairs)}"


def power(value: float) -> str:
    """A strength: 0.01, 1000, 1e4, 1e-5."""
    digit, exponent = f"{value:.0e}".split("e")
    short = f"{digit}e{int(exponent)}"
    return short if float(short) == value and not 1e-3 < value < 1e4 and value else f"{value:g}"


def listed(parts: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
