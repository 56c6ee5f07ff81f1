"""Figures of a section from analysis.json, of the runs that have it: what scripts/analyse.py measured of the weights.

Each line is shown at its best strength, as in the accuracy matrices, and means are over its seeds.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from pandas import DataFrame

from lifelong.plots.analysed import draw_matrix, top
from lifelong.plots.figures import empty_figure
from lifelong.plots.report.plots import GREYS, WIDTH, styles
from lifelong.plots.report.tables import best_runs, mean_matrix

MAPS = {
    "importance": ("overlap", "cosine", "Importance between tasks", "task", "cosine × 100"),
    "representation": ("cka", "own", "What is left of each task's representation", "after learning", "CKA × 100"),
}
"""Figure → measure and key, title, what rows are, what cells are."""
CURVES = {
    "dormant_units": ("dormant units (%)", 100),
    "effective_rank": ("effective rank of the features", 1),
    "weight_norm": ("norm of the weights", 1),
    "shuffled_accuracy": ("shuffled labels learned (%)", 100),
}


def measured(runs: DataFrame, measure: str) -> Iterator[tuple[str, str, list[Mapping[str, Any]], list[str]]]:
    """(line, title, the measure of each run that has it, task names) of the lines that have a best strength."""
    for line, members in best_runs(runs).groupby("line", sort=False):
        found = [each[measure] for each in members["analysis"] if measure in each]
        if found:
            names, strength = list(mean_matrix(members).columns), members["strength"].iloc[0]
            title = f"{line}, λ = {strength:g}" if strength else line
            yield line, f"{title}, {len(found)} seed{'s' * (len(found) > 1)}", found, names


def map_figure(kind: str, runs: DataFrame) -> Figure | None:
    """A T × T heat map per line, mean over seeds; None if no run has the measure."""
    measure, key, what, rows, label = MAPS[kind]
    shown = list(measured(runs, measure))
    if not shown:
        return None
    num_tasks = max(len(names) for *_, names in shown)
    side = min(max(2.3, 0.42 * num_tasks), 5.0)
    columns = max(1, min(len(shown), int(WIDTH / (side + 0.6))))
    height = math.ceil(len(shown) / columns) * (side + 1.0)
    figure = empty_figure(WIDTH, height, f"{what} ({label}): {runs['section'].iloc[0]}")
    panels = figure.subplots(math.ceil(len(shown) / columns), columns, squeeze=False).flatten()
    for axes, (_, name, found, names) in zip(panels, shown, strict=False):
        draw_matrix(axes, np.mean([np.array(each[key], dtype=float) for each in found], axis=0), names, names)
        axes.set_ylabel(rows)
        axes.set_title(name, fontsize=9)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    return figure


def plasticity_figure(runs: DataFrame) -> Figure | None:
    """A panel per measure over the tasks learned, a line per line of the section; None if no run has them."""
    shown, style = list(measured(runs, "plasticity")), styles(runs)
    if not shown:
        return None
    figure = empty_figure(WIDTH, 6.6, f"Plasticity: {runs['section'].iloc[0]}")
    for axes, (key, (label, scale)) in zip(figure.subplots(2, 2).flatten(), CURVES.items(), strict=True):
        for line, name, found, _ in shown:
            last = [np.array(each[key], dtype=float)[-len(_shared(found)) :] for each in found]
            axes.plot([k + 1 for k in _shared(found)], scale * np.mean(last, axis=0), label=name, **style[line])
        if key == "shuffled_accuracy":
            fresh = [value for *_, found, _ in shown for each in found for value in each[f"fresh_{key}"]]
            axes.axhline(scale * np.mean(fresh), color=GREYS[2], linestyle="--", label="fresh network")
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
        axes.set(xlabel="tasks learned", ylabel=label, ylim=(0, top(axes)))
        axes.xaxis.set_major_locator(MultipleLocator(math.ceil(len(shown[0][3]) / 10)))
        axes.grid(color="0.92")
    return figure


def _shared(found: list[Mapping[str, Any]]) -> list[int]:
    """The task ends that all seeds have: all of them, or the last one of a seed that kept no more."""
    return min((each["ends"] for each in found), key=len)


ANALYSED: dict[str, Callable[[DataFrame], Figure | None]] = {
    "importance": partial(map_figure, "importance"),
    "representation": partial(map_figure, "representation"),
    "plasticity": plasticity_figure,
}
