"""Figures of a section: what strength does, stability against plasticity, accuracy matrices and curves of the lines.

A line keeps its colour in all figures of a section; what has no strength to vary (finetune, joint) is grey. Shaded
bands and bars are 95 % confidence intervals over seeds, from three seeds on: of two they are 12.7 standard errors to
either side, and would hide all else. The tables have those too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lifelong.plots.figures import CHARACTER, SLANTED, annotate, empty_figure, line_style
from lifelong.plots.report.interval import Estimate, estimate
from lifelong.plots.report.runs import validation_curves
from lifelong.plots.report.sections import Entry, Line, Section, described, has_strength

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEASURES = {
    "average_accuracy": "average accuracy (%)",
    "forgetting": "forgetting (points)",
    "intransigence": "intransigence (points)",
    "learning_accuracy": "learning accuracy (%)",
}
MIN_SEEDS = 3
GREYS = ("0.15", "0.4", "0.6")
DASHES: tuple[Any, ...] = ("--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)))


def styles(section: Section) -> dict[str, dict[str, Any]]:
    """Of every line's label: colour, dash and marker."""
    coloured = [line.label for line in section.lines if has_strength(line)]
    grey = [line.label for line in section.lines if not has_strength(line)]
    found = {label: line_style(i) for i, label in enumerate(coloured)}
    for i, label in enumerate(grey):
        dash = {"color": GREYS[i % len(GREYS)], "linestyle": DASHES[i % len(DASHES)]}
        found[label] = {**line_style(0), **dash, "marker": "X"}
    return found


def _ordered(section: Section) -> list[Line]:
    """What has a strength first: legends and panels end with the references."""
    return sorted(section.lines, key=lambda line: not has_strength(line))


def strength_figure(section: Section) -> Figure | None:
    """A panel per measure over the strength λ, its axis logarithmic; what has no strength or strength 0 is a horizontal
    line. None if no line was run at two strengths."""
    if not any(len(line.swept) > 1 for line in section.lines):
        return None
    keys = [key for key in MEASURES if key != "intransigence" or section.has_intransigence]
    num_rows, num_columns = (1, 3) if len(keys) == 3 else (2, 2)
    width, height = _legend_size(section)
    size = 3.9 * num_columns + width, max(3.4 * num_rows, height)
    figure = empty_figure(*size, f"What strength does: {section.title}")
    style = styles(section)
    panels = figure.subplots(num_rows, num_columns, sharex=True).flatten()
    for axes, key in zip(panels, keys, strict=True):
        for line in _ordered(section):
            _over_strength(axes, line, key, style[line.label])
        axes.set_xscale("log")
        axes.set_ylabel(MEASURES[key])
        axes.set_ylim(*_around([100 * value.mean for _, entry in section.entries if (value := entry.measure(key))]))
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
    for axes in panels[-num_columns:]:
        axes.set_xlabel("strength λ")
    _legend(figure, panels[0])
    return figure


def _over_strength(axes: Axes, line: Line, key: str, style: dict[str, Any]) -> None:
    points = [(e.strength, estimate) for e in line.swept if (estimate := e.measure(key))]
    if points:
        _band(axes, [x for x, _ in points], [y for _, y in points], style, label=line.label)
    for entry in line.finished:
        if entry.strength == 0 and (level := entry.measure(key)):
            zero = {"color": style["color"], "linestyle": style["linestyle"], "linewidth": 1.3, "zorder": 2}
            axes.axhline(100 * level.mean, label=described(line, 0), **zero)
            if level.n >= MIN_SEEDS:
                low, high = (100 * (level.mean + side * level.half_width) for side in (-1, 1))
                axes.axhspan(low, high, color=style["color"], alpha=0.08, linewidth=0)


def _band(axes: Axes, x: Sequence[float], y: Sequence[Estimate], style: dict[str, Any], label: str) -> None:
    """A line in percent with its intervals as a ribbon."""
    mean = 100 * np.array([value.mean for value in y])
    half = 100 * np.array([_drawn(value) for value in y])
    axes.plot(x, mean, label=label, zorder=3, **style)
    axes.fill_between(x, mean - half, mean + half, color=style["color"], alpha=0.1, linewidth=0)


def _drawn(value: Estimate) -> float:
    """The half width that is shown: nan, which draws nothing, below three seeds."""
    return value.half_width if value.n >= MIN_SEEDS else math.nan


def plane_figure(section: Section) -> Figure | None:
    """Stability, 1 − forgetting, over plasticity, the learning accuracy; None if no entry has both (a single task)."""
    placed = [(line, entry, x, y) for line, entry in section.entries if (xy := _place(entry)) for x, y in [xy]]
    if not placed:
        return None
    width, height = _legend_size(section)
    figure = empty_figure(6.6 + width, max(5.4, height), f"Stability and plasticity: {section.title}")
    axes = figure.add_subplot()
    style = styles(section)
    for line in _ordered(section):
        ours = [(entry, x, y) for other, entry, x, y in placed if other is line]
        _track(axes, line, ours, style[line.label])
    means = [(100 * x.mean, 100 * y.mean) for line, _, x, y in placed if line.method != "joint"]
    front = [means[i] for i in pareto_front(means)]
    axes.plot(
        [x for x, _ in front],
        [y for _, y in front],
        color="0.75",
        linewidth=6,
        alpha=0.6,
        zorder=1,
        solid_capstyle="round",
        label="Pareto front",
    )
    if any(len(line.finished) > 1 for line in section.lines):
        axes.plot([], [], "o", markersize=13, markerfacecolor="none", color="0.3", label="best by validation")
    axes.set_xlabel("plasticity: learning accuracy (%)")
    axes.set_ylabel("stability: 100 − forgetting (points)")
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.set_xlim(*_around([100 * x.mean for _, _, x, _ in placed]))
    axes.set_ylim(*_around([100 * y.mean for _, _, _, y in placed]))
    _legend(figure, axes)
    return figure


def _around(values: Sequence[float]) -> tuple[float, float]:
    """Room for the means; of few seeds the intervals can be many times as wide, and run out of the picture."""
    margin = max(2.0, 0.12 * (max(values) - min(values)))
    return min(values) - margin, max(values) + margin


def _place(entry: Entry) -> tuple[Estimate, Estimate] | None:
    plastic, forgot = entry.measure("learning_accuracy"), entry.measure("forgetting")
    if plastic is None or forgot is None:
        return None
    return plastic, Estimate(1 - forgot.mean, forgot.half_width, forgot.n)


def _track(axes: Axes, line: Line, points: Sequence[tuple[Entry, Estimate, Estimate]], style: dict[str, Any]) -> None:
    """Entries joined by strength, a larger marker for a larger one, the best by validation ringed."""
    if not points:
        return
    xs, ys = [100 * x.mean for _, x, _ in points], [100 * y.mean for _, _, y in points]
    axes.plot(xs, ys, label=line.label, zorder=3, **{**style, "linewidth": 1})
    for i, (entry, x, y) in enumerate(points):
        wide, high = 100 * _drawn(x), 100 * _drawn(y)
        axes.errorbar(xs[i], ys[i], xerr=wide, yerr=high, color=style["color"], alpha=0.35, linewidth=1, zorder=2)
        axes.plot(xs[i], ys[i], style["marker"], color=style["color"], markersize=4 + 6 * i / max(len(points) - 1, 1))
        if entry is line.best and len(points) > 1:
            axes.plot(xs[i], ys[i], "o", color="0.3", markerfacecolor="none", markersize=13, zorder=4)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points no other one beats or equals in both coordinates while beating it in one, by the first.

    >>> pareto_front([(1, 1), (0, 2), (0.5, 0.5), (2, 0)])
    [1, 0, 3]
    """
    order = sorted(range(len(points)), key=lambda i: (-points[i][0], -points[i][1]))
    front: list[int] = []
    for i in order:
        if not front or points[i][1] > points[front[-1]][1] or points[i] == points[front[-1]]:
            front.append(i)
    return front[::-1]


def matrices_figure(section: Section) -> Figure | None:
    """The accuracy matrix of every line at its best strength, mean over seeds; None if no strength was chosen."""
    shown = [(line, entry, *mean_matrix(entry)) for line in _ordered(section) if (entry := line.best)]
    if not shown:
        return None
    names, num_tasks = shown[0][2], len(shown[0][2])
    label = CHARACTER * max(map(len, names))
    numbered = num_tasks <= 12
    side = max(2.0, 0.46 * num_tasks) if numbered else 3.0
    num_columns = min(len(shown), max(1, int(13 / (side + 0.6))))
    num_rows = math.ceil(len(shown) / num_columns)
    width, height = num_columns * (side + 0.35) + label + 1.6, num_rows * (side + 0.65) + label + 0.4
    figure = empty_figure(width, height, f"Accuracy matrices: {section.title}")
    panels = figure.subplots(num_rows, num_columns, squeeze=False)
    for axes in panels.flatten()[len(shown) :]:
        axes.set_axis_off()
    for i, (line, entry, _, percent) in enumerate(shown):
        axes = panels.flatten()[i]
        image = axes.imshow(percent, cmap="viridis", vmin=0, vmax=100)
        title = described(line, entry.strength).replace(", strength ", "\nλ = ")
        axes.set_title(f"{title}\n{_seeds(entry)}" if "\n" not in title else f"{title}, {_seeds(entry)}", fontsize=9)
        ticks = range(0, num_tasks, math.ceil(num_tasks / 20))
        labels, none = [names[k] for k in ticks], [""] * len(ticks)
        axes.set_xticks(ticks, labels if i + num_columns >= len(shown) else none, **SLANTED)
        axes.set_yticks(ticks, labels if i % num_columns == 0 else none)
        axes.tick_params(labelsize=10 if numbered else 7)
        if numbered:
            annotate(axes, percent, image.cmap(percent / 100), decimals=False)
    figure.supxlabel("tested on", fontsize=10)
    figure.supylabel("after learning", fontsize=10)
    figure.colorbar(image, ax=panels, label="test accuracy (%)", ticks=range(0, 101, 20), aspect=15 * (num_rows + 1))
    return figure


def _seeds(entry: Entry) -> str:
    n = len(entry.finished)
    return f"{n} seed" + "s" * (n > 1)


def mean_matrix(entry: Entry) -> tuple[list[str], np.ndarray]:
    """Task names and the (T, T) matrix in percent, mean over seeds.

    Where the seeds' tasks come in different orders, the k-th task of each stands for "task k".
    """
    all_names, rows = zip(*(run.matrix for run in entry.finished), strict=True)
    same = all(names == all_names[0] for names in all_names)
    names = all_names[0] if same else [f"task {k + 1}" for k in range(len(all_names[0]))]
    return names, 100 * np.mean(rows, axis=0)


def curves_figure(section: Section) -> Figure | None:
    """A panel per task: its validation accuracy while the stream is learned, every line at its best strength.

    None without validation data or a chosen strength.
    """
    curves = {line.label: curve for line in section.lines if line.best and (curve := mean_curves(line.best))}
    if not curves:
        return None
    names = max((mean_matrix(line.best)[0] for line in section.lines if line.best), key=len)
    num_columns = 1 if len(names) <= 5 else 2
    num_rows = math.ceil(len(names) / num_columns)
    width, height = _legend_size(section)
    size = 7.2 * (1 if num_columns == 1 else 1.5) + width, max(1.55 * num_rows + 0.8, height)
    figure = empty_figure(*size, f"Accuracy over time: {section.title}")
    panels = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False).flatten()
    style = styles(section)
    for k, (name, axes) in enumerate(zip(names, panels, strict=False)):
        for line in _ordered(section):
            points = curves.get(line.label, [])
            if k < len(points) and points[k]:
                thin = {**style[line.label], "marker": "", "linewidth": 1.4}
                _band(axes, list(points[k]), list(points[k].values()), thin, described(line, line.best.strength))  # type: ignore[union-attr]
        axes.set_ylim(0, 100)
        axes.set_xlim(0, len(names))
        axes.set_xticks(range(len(names) + 1))
        axes.set_title(name if name.startswith("task ") else f"task {k + 1}: {name}", fontsize=9, loc="left")
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    figure.supxlabel("tasks learned", fontsize=10)
    figure.supylabel("validation accuracy (%)", fontsize=10)
    _legend(figure, panels[0])
    return figure


def mean_curves(entry: Entry) -> list[dict[float, Estimate]]:
    """Of the k-th task: its validation accuracy over seeds by position in the stream; positions that not all seeds have
    are left out. Empty without validation data."""
    by_run = []
    for run in entry.finished:
        curves = validation_curves(run)
        by_run.append([curves.get(name, {}) for name in run.matrix[0]])
    if not any(any(curves) for curves in by_run):
        return []
    result: list[dict[float, Estimate]] = []
    for of_task in zip(*by_run, strict=True):
        positions = sorted(set.intersection(*map(set, of_task)))
        values = {x: estimate(curve[x] for curve in of_task) for x in positions}
        result.append({x: value for x, value in values.items() if value})
    return result


def _legend_size(section: Section) -> tuple[float, float]:
    """Width and height in inches, with room for strengths behind the labels and two lines more."""
    width = 0.9 + CHARACTER * max(len(line.label) + 16 * has_strength(line) for line in section.lines)
    return width, 0.22 * (len(section.lines) + 2) + 0.4


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    kept = dict(zip(labels, handles, strict=True))
    figure.legend(kept.values(), kept.keys(), loc="outside right upper", handlelength=3)
