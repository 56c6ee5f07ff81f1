"""What the grid of a sweep lacks, as far as the runs that are there tell."""

from collections.abc import Sequence

from omegaconf import OmegaConf

from lifelong.config.groups import CONFIGS
from lifelong.plots.report.sections import Line, Section, described

DIGITS = 9
"""To which strengths are compared: factors times defaults are rounded."""


def holes(section: Section) -> list[str]:
    """Combinations of method, strength and seed that are absent though others of the same sweep are there.

    Every entry should have every seed of the section; every swept line the strengths of the lines it was swept with, in
    absolute terms or, as with strength_factor, as multiples of each method's own strength. A line with nothing but its
    method's own strength was not swept.
    """
    seeds = sorted({run.seed for run in section.runs if run.seed is not None})
    found = []
    for line in section.lines:
        for entry in line.entries:
            lacking = [seed for seed in seeds if seed not in {run.seed for run in entry.runs}]
            if lacking:
                found.append(f"{described(line, entry.strength)}: no run of seed {', '.join(map(str, lacking))}")
        found += [
            f"{described(line, strength)}: no run of any seed" for strength in missing_strengths(line, section.lines)
        ]
    return found


def missing_strengths(line: Line, lines: Sequence[Line]) -> list[float]:
    """Strengths that lines of the same sweep have and this one has not, in its own units."""
    own = default_strength(line.method)
    missing: set[float] = set()
    ours = strengths(line)
    for other in lines:
        theirs = strengths(other)
        if not ours - {own} or not theirs - {default_strength(other.method)}:
            continue
        unit, other_unit = own or 1.0, default_strength(other.method) or 1.0
        grids = [{_rounded(strength * scale) for strength in theirs} for scale in (1.0, unit / other_unit)]
        likest = max(grids, key=lambda grid: len(ours & grid))
        if 2 * len(ours & likest) > min(len(ours), len(theirs)):
            missing |= likest - ours
    return sorted(missing)


def strengths(line: Line) -> set[float]:
    """Those above 0, of runs in whatever state."""
    return {_rounded(entry.strength) for entry in line.entries if entry.strength > 0}


def default_strength(method: str) -> float | None:
    """The strength in configs/method/<method>.yaml; None for a method that has no such file or no strength."""
    path = CONFIGS / "method" / f"{method}.yaml"
    return OmegaConf.select(OmegaConf.load(path), "strength") if path.exists() else None


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
