"""What the grid of a sweep lacks, as far as the runs that are there tell."""

from collections.abc import Iterable

from omegaconf import OmegaConf
from pandas import DataFrame

from lifelong.config.groups import CONFIGS
from lifelong.plots.report.names import entry_name


def missing(section: DataFrame) -> list[str]:
    """Combinations of line, strength and seed that are absent though others of the same sweep are there.

    Every entry should have every seed of the section; every line of which several strengths, or one that is not its
    method's own, were run should have the strengths of the lines it was swept with: in absolute terms or, as with
    strength_factor, as multiples of each method's own strength.
    """
    seeds = set(section["seed"].dropna())
    grids = {line: _Grid(members) for line, members in section.groupby("line")}
    found = []
    for line, members in section.groupby("line"):
        for strength, runs in members.groupby("strength"):
            if lacking := sorted(seeds - set(runs["seed"])):
                found.append(f"{entry_name(line, strength)}: no run of seed {', '.join(f'{s:g}' for s in lacking)}")
        others = set().union(*(grids[line].lacks(other) for other in grids.values()))
        found += [f"{entry_name(line, strength)}: no run of any seed" for strength in sorted(others)]
    return found


class _Grid:
    """The strengths above 0 of a line, rounded: factors times defaults come with the dust of floats."""

    def __init__(self, members: DataFrame) -> None:
        path = CONFIGS / "method" / f"{members['method'].iloc[0]}.yaml"
        own = OmegaConf.select(OmegaConf.load(path), "strength") if path.exists() else None
        self.unit = own or 1.0
        self.strengths = self._scaled(members["strength"][members["strength"] > 0], 1.0)
        self.swept = bool(self.strengths - {own})

    @staticmethod
    def _scaled(strengths: Iterable[float], factor: float) -> set[float]:
        return {float(f"{strength * factor:.9g}") for strength in strengths}

    def lacks(self, other: "_Grid") -> set[float]:
        """What `other` has beside most of ours, in absolute terms or in multiples of the methods' own strengths."""
        if not (self.swept and other.swept):
            return set()
        theirs = [self._scaled(other.strengths, factor) for factor in (1.0, self.unit / other.unit)]
        likest = max(theirs, key=lambda grid: len(grid & self.strengths))
        shared = len(likest & self.strengths)
        return likest - self.strengths if 2 * shared > min(len(self.strengths), len(likest)) else set()
