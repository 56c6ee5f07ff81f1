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
    lines = dict(list(section.groupby("line")))
    own = {line: _own_strength(members["method"].iloc[0]) for line, members in lines.items()}
    grids = {line: _scaled(members["strength"][members["strength"] > 0], 1.0) for line, members in lines.items()}
    swept = [line for line, grid in grids.items() if grid - {own[line]}]
    found = []
    for line, members in lines.items():
        for strength, runs in members.groupby("strength"):
            if lacking := sorted(seeds - set(runs["seed"])):
                found.append(f"{entry_name(line, strength)}: no run of seed {', '.join(f'{s:g}' for s in lacking)}")
        others = swept if line in swept else []
        ratios = [(grids[other], (1.0, (own[line] or 1.0) / (own[other] or 1.0))) for other in others]
        absent = set().union(*(_lacks(grids[line], grid, factors) for grid, factors in ratios))
        found += [f"{entry_name(line, strength)}: no run of any seed" for strength in sorted(absent)]
    return found


def _own_strength(method: str) -> float | None:
    path = CONFIGS / "method" / f"{method}.yaml"
    return OmegaConf.select(OmegaConf.load(path), "strength") if path.exists() else None


def _scaled(strengths: Iterable[float], factor: float) -> set[float]:
    """Rounded: factors times defaults come with the dust of floats."""
    return {float(f"{strength * factor:.9g}") for strength in strengths}


def _lacks(ours: set[float], theirs: set[float], factors: Iterable[float]) -> set[float]:
    """What the likest of their scaled grids has beside most of ours."""
    likest = max((_scaled(theirs, factor) for factor in factors), key=lambda grid: len(grid & ours))
    return likest - ours if 2 * len(likest & ours) > min(len(ours), len(likest)) else set()
