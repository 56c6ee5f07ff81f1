"""Figures of a section: what strength does, stability against plasticity, accuracy matrices and curves of the lines.

A line keeps its colour, dash and marker in all figures; what has no strength to vary (finetune, joint) is grey. Bands
and bars are 95 % confidence intervals over seeds, from three seeds on: of two they are 12.7 standard errors to either
side, and would hide all else. The tables have those too.
"""

import math
import textwrap
from collections.abc import Iterator
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator
from pandas import DataFrame

from lifelong.plots.figures import CHARACTER, SLANTED, empty_figure, heat_map, line_style
from lifelong.plots.report.names import ENTRY, has_strength
from lifelong.plots.report.plane import FAINT_HALO, HALO, PLACE, RING, draw_plane, means, name_strengths
from lifelong.plots.report.runs import VAL, WITHIN, accuracy_curves
from lifelong.plots.report.tables import best_runs, interval, mean_matrix, summary

AXES = {
    "average_accuracy": "average accuracy (%)",
    "forgetting": "forgetting (points)",
    "intransigence": "intransigence (points)",
    "learning_accuracy": "learning accuracy (%)",
}
PALE: dict[str, Any] = {"color": "0.82", "linewidth": 1, "zorder": 0}
MANY = 8
"""Lines that one panel can show apart. Of more the best are coloured, or each has a panel of its own."""
WIDTH = 11.0
"""Of every figure, inches."""
GREYS = ("0.15", "0.45", "0.65")
DASHES: tuple[Any, ...] = ("--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)))


def styles(runs: DataFrame) -> dict[str, dict[str, Any]]:
    """Colour, dash and marker of every line, those that have a strength first: legends end with the references.

    More than MANY come by accuracy at the best strength, in validation if there is any: the best look least alike.
    """
    finished = runs[runs["state"] == "finished"]
    swept, lines = has_strength(finished), has_strength(finished).loc[lambda has: has].index
    if len(lines) > MANY:
        finished = finished.assign(score=finished["val_average_accuracy"].fillna(finished["average_accuracy"]))
        scores = finished.groupby(["line", "strength"])["score"].mean().groupby("line").max()
        lines = scores[lines].sort_values(ascending=False, kind="stable").index
    found = {line: line_style(i) for i, line in enumerate(lines)}
    for i, line in enumerate(swept.index[~swept]):
        grey = {"color": GREYS[i % len(GREYS)], "linestyle": DASHES[i % len(DASHES)], "marker": "X"}
        found[line] = line_style(0) | grey
    return found


def strength_figure(runs: DataFrame) -> Figure | None:
    """A panel per measure over the strength λ, its axis logarithmic; what has no strength or strength 0 is a horizontal
    line. Of more than MANY lines all but the best are pale. None if no line was run at two strengths."""
    finished, style = _percent(runs), styles(runs)
    swept = finished[finished["strength"] > 0]
    if not (swept.groupby("line")["strength"].nunique() > 1).any():
        return None
    keys = [key for key in AXES if finished[key].notna().any()]
    columns = 3 if len(keys) == 3 else 2
    pale = [line for line in style if line in set(swept["line"])][MANY:]
    style = {line: kind for line, kind in style.items() if line not in pale}
    legend = style | ({f"{len(pale)} others, less accurate": PALE} if pale else {})
    figure, panels = _canvas("What strength does", runs, len(keys), columns, 3.3, legend, sharex=True)
    for axes, key in zip(panels, keys, strict=False):
        for line in pale:
            axes.plot(swept[swept["line"] == line].groupby("strength")[key].mean(), **PALE)
        for line, kind in style.items():
            ours = swept[(swept["line"] == line) & swept[key].notna()]
            sns.lineplot(ours, x="strength", y=key, errorbar=interval, err_kws={"alpha": 0.1, "lw": 0}, ax=axes, **kind)
            level = finished.loc[(finished["line"] == line) & (finished["strength"] == 0), key].mean()
            axes.axhline(level, zorder=1, **{k: kind[k] for k in ("color", "linestyle")})
        _set_axes(axes, xlabel="strength λ", ylabel=AXES[key], xscale="log", ylim=_around(finished, key))
    return figure


def plane_figure(runs: DataFrame) -> Figure | None:
    """Stability, 100 − forgetting, over plasticity, the learning accuracy; None if no entry has both (one task).

    Markers are named by their strength where there is room. Each of more than MANY lines has a panel of its own, with
    the others pale.
    """
    finished, style = _percent(runs), styles(runs)
    finished = finished.assign(stability=100 - finished["forgetting"]).dropna(subset=PLACE)
    if finished.empty:
        return None
    best = summary(runs)["best"]
    chosen = best.index[best & (best.groupby("line").transform("size") > 1)]
    swept = [line for line in style if (finished.loc[finished["line"] == line, "strength"] > 0).any()]
    fixed = [line for line in style if line not in swept]
    groups = [[line] for line in swept] if len(swept) > MANY else [swept]
    small = len(groups) > 1
    legend = {line: style[line] for line in fixed} if small else style
    legend = legend | {"Pareto front": FAINT_HALO if small else HALO, "best by validation": RING}
    height, num_columns, shared = 2.6 if small else 6.0, 4 if small else 1, {"sharex": True, "sharey": True}
    figure, panels = _canvas("Stability and plasticity", runs, len(groups), num_columns, height, legend, **shared)
    for axes, lines in zip(panels, groups, strict=True):
        if small:
            axes.plot(*means(finished).to_numpy().T, **PALE | {"linestyle": "", "marker": ".", "markersize": 3})
            axes.set_title(_folded(lines[0], WIDTH / num_columns - 0.6), fontsize=9)
        draw_plane(axes, finished, {line: style[line] for line in [*lines, *fixed]}, chosen, small=small)
        labels = {"xlabel": "plasticity: learning accuracy (%)", "ylabel": "stability: 100 − forgetting (points)"}
        _set_axes(axes, **labels, xlim=_around(finished, PLACE[0]), ylim=_around(finished, PLACE[1]))
        axes.label_outer()
    for _ in range(2):  # the layout settles in its second round, and names need to know it
        figure.draw_without_rendering()
    for axes, lines in zip(panels, groups, strict=True):
        name_strengths(axes, finished[finished["line"].isin(lines)], style, chosen, small=small)
    return figure


def matrices_figure(runs: DataFrame) -> Figure | None:
    """The accuracy matrix of every line at its best strength, mean over seeds; None if no strength was chosen."""
    tables = {name: mean_matrix(members) for name, members in _best_entries(runs)}
    if not tables:
        return None
    num_tasks = max(map(len, tables.values()))
    side = max(2.1, 0.42 * num_tasks) if num_tasks <= 12 else 3.2
    num_columns = max(1, min(len(tables), int((WIDTH - 1.6) / (side + 0.2))))
    num_rows = math.ceil(len(tables) / num_columns)
    figure, panels = _canvas("Accuracy matrices", runs, len(tables), num_columns, side + 0.6, {})
    ticks = range(0, num_tasks, math.ceil(num_tasks / 20))
    for axes, (name, table) in zip(panels, tables.items(), strict=False):
        image = heat_map(axes, table.to_numpy(), 0 if num_tasks <= 12 else None)
        labels = [table.columns[k] for k in ticks if k < len(table)]
        axes.set_xticks(ticks[: len(labels)], labels, **SLANTED)
        axes.set_yticks(ticks[: len(labels)], labels)
        axes.set(xlabel="tested on", ylabel="after learning", aspect="equal")
        axes.label_outer()
        axes.tick_params(labelsize=9 if num_tasks <= 12 else 7)
        axes.set_title(_folded(name, side), fontsize=9)
    figure.colorbar(image, ax=panels, label="test accuracy (%)", ticks=range(0, 101, 20), aspect=20 * num_rows)
    return figure


def curves_figure(runs: DataFrame) -> Figure | None:
    """A panel per line at its best strength: the validation accuracy on each task while the stream is learned.

    None without validation data or a chosen strength.
    """
    return _curves_figure("Accuracy over time", runs, VAL, "validation accuracy (%)")


def within_figure(runs: DataFrame) -> Figure | None:
    """As `curves_figure`, of the accuracies within tasks; None of runs without them."""
    return _curves_figure("Accuracy within tasks", runs, WITHIN, "accuracy on a subset (%)")


def _curves_figure(what: str, runs: DataFrame, prefix: str, label: str) -> Figure | None:
    curves = {name: found for name, members in _best_entries(runs) if len(found := mean_curves(members, prefix))}
    if not curves:
        return None
    tasks = max((list(dict.fromkeys(found["task"])) for found in curves.values()), key=len)
    colours = dict(zip(tasks, sns.color_palette("viridis", len(tasks)), strict=True))
    kinds = {task: line_style(i) | {"color": colours[task], "marker": ""} for i, task in enumerate(tasks)}
    legend = {f"on {task}": kind for task, kind in kinds.items()}
    num_columns, shared = min(4, len(curves)), {"sharex": True, "sharey": True}
    figure, panels = _canvas(what, runs, len(curves), num_columns, 2.2, legend, **shared)
    for axes, (name, found) in zip(panels, curves.items(), strict=False):
        for task, points in found.groupby("task", sort=False):
            kind = kinds.get(task, line_style(0))
            if points["position"].nunique() == 1:  # tested once, at the right edge: a line would not be seen
                kind = kind | {"marker": "o", "markersize": 6, "mew": 0, "clip_on": False, "zorder": 3}
            sns.lineplot(points, x="position", y="accuracy", errorbar=interval, err_kws={"alpha": 0.12, "lw": 0},
                         ax=axes, **kind)  # fmt: skip
        axes.set_title(_folded(name, WIDTH / num_columns - 0.6), fontsize=9)
        limits = {"xlim": (0, max(len(tasks), 1)), "ylim": (0, 100)}
        _set_axes(axes, xlabel="tasks learned", ylabel=label, **limits)
        axes.xaxis.set_major_locator(MultipleLocator(math.ceil(len(tasks) / 10)))
    return figure


def mean_curves(entry: DataFrame, prefix: str = VAL) -> DataFrame:
    """Columns task, position, accuracy (%): of every run of an entry that has them; positions all of those share.

    prefix: as in `accuracy_curves`.
    """
    names, found = mean_matrix(entry).columns, []
    for run in entry.itertuples():
        curve = accuracy_curves(run.path, prefix).replace({"task": dict(zip(run.tasks, names, strict=True))})
        found += [curve.assign(accuracy=100 * curve["accuracy"])] if len(curve) else []
    if not found:
        return DataFrame(columns=["task", "position", "accuracy"])
    curves = pd.concat(found)
    return curves[curves.groupby(["task", "position"])["accuracy"].transform("size") == len(found)]


def _best_entries(runs: DataFrame) -> Iterator[tuple[str, DataFrame]]:
    """(name and number of seeds, runs) of every line's best entry."""
    chosen = dict(list(best_runs(runs).groupby("line")))
    for line in filter(chosen.__contains__, styles(runs)):
        members = chosen[line]
        seeds, strength = f"{len(members)} seed" + "s" * (len(members) > 1), members["strength"].iloc[0]
        yield f"{line}\n{f'λ = {strength:g}, ' if strength else ''}{seeds}", members


def _folded(name: str, width: float) -> str:
    """`name` with its lines cut at `width` inches of 9 points."""
    return "\n".join(textwrap.fill(line, int(width / 0.075)) for line in name.splitlines())


def _percent(runs: DataFrame) -> DataFrame:
    """The finished runs, their measures in points of 100."""
    finished = runs[runs["state"] == "finished"].copy()
    finished[list(AXES)] *= 100
    return finished


def _around(finished: DataFrame, key: str) -> tuple[float, float]:
    """Room for the means; of few seeds the intervals can be many times as wide, and run out of the picture."""
    means = finished.groupby(ENTRY)[key].mean()
    margin = max(2.0, 0.12 * (means.max() - means.min()))
    return means.min() - margin, means.max() + margin


def _canvas(
    what: str, runs: DataFrame, num: int, num_columns: int, height: float, legend: dict[str, Any], **shared: Any
) -> tuple:
    """A figure and its `num` panels, `height` inches each; the legend stands below them in as many columns as fit."""
    columns = int((WIDTH - 0.6) / (0.75 + CHARACTER * max(map(len, legend), default=1)))
    columns = max(1, min(columns, len(legend)))
    num_rows, title = math.ceil(num / num_columns), f"{what}: {runs['section'].iloc[0]}"
    figure = empty_figure(WIDTH, num_rows * height + 0.23 * math.ceil(len(legend) / columns) + 0.5, title)
    panels = figure.subplots(num_rows, num_columns, squeeze=False, **shared).flatten()
    for axes in panels[num:]:
        axes.set_axis_off()
    if legend:
        handles = [Line2D([], [], label=name, **style) for name, style in legend.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=3, frameon=False)
    return figure, panels[:num]


def _set_axes(axes: Axes, **settings: Any) -> None:
    axes.set(**settings)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
