"""Pictures of analysis.json: importances, lines between task ends, representations, plasticity.

Each takes what its measure holds there (lifelong.analysis says what that is) and the T task names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lifelong.plots.figures import COLOURS, SLANTED, empty_figure, heat_map, line_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Measure = Mapping[str, Any]
MAX_LAYERS = len(COLOURS)
"""Bars of more layers show those of the largest shares, and the rest as one."""
MAX_PANELS = 8


def importance_figure(found: Measure, names: Sequence[str], title: str) -> Figure:
    """Cosine and top share as heat maps, what each task claims, and where in the network its importance lies."""
    num = len(names)
    side = min(max(3.0, 0.45 * num), 6.0)
    figure = empty_figure(2 * side + 4.5, side + 3.9, f"Importance between tasks: {title}")
    (above, below) = figure.subplots(2, 2, height_ratios=[side, 2.8])
    maps = (
        ("cosine", "cosine of two tasks' importances × 100"),
        ("top_share", "top 10 % of a row's task\nthat are in the column's (%)"),
    )
    for axes, (key, label) in zip(above, maps, strict=True):
        draw_matrix(axes, found[key], names, names)
        axes.set_title(label, fontsize=10)
    claims, claimed = 100 * np.array([found["claims"], found["claimed"]])
    before = np.concatenate([[0.0], claimed[:-1]])
    ticks = range(1, num + 1)
    below[0].bar(ticks, before, color="0.75", label="by earlier tasks")
    below[0].bar(ticks, claimed - before, bottom=before, color=COLOURS[0], label="first by this task")
    below[0].plot(ticks, claims, color=COLOURS[1], marker="o", markersize=4, label="by this task, in all")
    below[0].set(ylabel="weights claimed (%)", ylim=(0, 100))
    below[0].set_title("weights that hold 90 % of a task's importance", fontsize=10)
    shares = layer_bars(found["layers"], found["by_layer"])
    bottom = np.zeros(num)
    for i, (layer, percent) in enumerate(shares.items()):
        colour = "0.75" if layer == "others" else COLOURS[i % len(COLOURS)]
        below[1].bar(ticks, percent, bottom=bottom, label=layer, color=colour)
        bottom += percent
    below[1].set(ylabel="share of the importance (%)", ylim=(0, 100))
    below[1].set_title("importance by layer", fontsize=10)
    for axes in below:
        axes.set_xlabel("task")
        axes.set_xticks(ticks[:: math.ceil(num / 20)])
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, fontsize=8, frameon=False)
    return figure


def layer_bars(layers: Sequence[str], by_layer: Sequence[Sequence[float]]) -> dict[str, np.ndarray]:
    """(T,) percent by layer, in the network's order: the largest MAX_LAYERS, or fewer by one and "others"."""
    percent = 100 * np.array(by_layer, dtype=float)
    largest = np.argsort(-percent.mean(0), kind="stable")[: MAX_LAYERS - (len(layers) > MAX_LAYERS)]
    found = {layer: percent[:, i] for i, layer in enumerate(layers) if i in largest}
    rest = [i for i in range(len(layers)) if i not in largest]
    return found | ({"others": percent[:, rest].sum(1)} if rest else {})


def cka_figure(found: Measure, names: Sequence[str], title: str) -> Figure:
    """CKA of the features on a task between its own end and later ones, and between all ends, mean over the tasks."""
    num = len(names)
    side = min(max(3.2, 0.5 * num), 6.0)
    figure = empty_figure(2 * side + 3.2, side + 1.6, f"Representations: {title}")
    panels = figure.subplots(1, 2)
    draw_matrix(panels[0], found["own"], names, names)
    panels[0].set(xlabel="features on the task", ylabel="after learning")
    panels[0].set_title("linear CKA × 100 with the end\nof the column's own task", fontsize=10)
    draw_matrix(panels[1], np.mean(np.array(found["by_task"], dtype=float), axis=0), names, names)
    panels[1].set(xlabel="after learning", ylabel="after learning")
    panels[1].set_title("linear CKA × 100 between task ends,\nmean over all tasks' test data", fontsize=10)
    return figure


def connectivity_figure(found: Measure, names: Sequence[str], title: str) -> Figure:
    """For each task but the last: test accuracy and loss on it along the lines from its own end to each later one."""
    shown = range(min(len(names) - 1, MAX_PANELS))
    columns = min(len(shown), 4)
    rows = math.ceil(len(shown) / columns)
    figure = empty_figure(2.6 * columns + 1.8, 4.4 * rows + 0.6, f"Lines between task ends: {title}")
    panels = figure.subplots(2 * rows, columns, squeeze=False)
    lines = {(line["from"], line["to"]): line for line in found["lines"]}
    highest = max(max(line["loss"][line["from"]]) for line in found["lines"])
    for axes in panels.flatten():
        axes.set_axis_off()
    for k in shown:
        above, below = panels[2 * (k // columns), k % columns], panels[2 * (k // columns) + 1, k % columns]
        for j in range(k + 1, len(names)):
            style = {**line_style(j - 1), "marker": ""}
            above.plot(found["shares"], 100 * np.array(lines[k, j]["accuracy"][k]), **style)
            below.plot(found["shares"], lines[k, j]["loss"][k], **style)
        above.set_axis_on()
        below.set_axis_on()
        above.set(title=f"on {names[k]}", ylim=(0, 102))
        above.set_xticklabels([])
        below.set(xlabel="own end (0) to later end (1)", ylim=(0, 1.05 * highest))
        for axes in (above, below):
            axes.grid(axis="y", color="0.9")
    panels[0, 0].set_ylabel("test accuracy (%)")
    panels[1, 0].set_ylabel("test loss (nats)")
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=names[j], **{**line_style(j - 1), "marker": ""}) for j in range(1, len(names))]
    figure.legend(handles=handles, loc="outside right center", title="to the end of", frameon=False)
    return figure


def plasticity_figure(found: Measure, names: Sequence[str], title: str) -> Figure:
    """Dormant units, effective rank, weight norm, and what is learned of shuffled labels, over the task ends."""
    figure = empty_figure(9.0, 6.0, f"Plasticity: {title}")
    panels = figure.subplots(2, 2).flatten()
    ticks, fresh = [k + 1 for k in found["ends"]], found["fresh"]
    drawn = (
        ("dormant_units", f"dormant units (%), τ = {found['tau']:g}", 100.0),
        ("effective_rank", "effective rank of the features", 1.0),
        ("weight_norm", "norm of the weights", 1.0),
    )
    style = {**line_style(0), "marker": "o"}
    for axes, (key, label, scale) in zip(panels, drawn, strict=False):
        axes.plot([0, *ticks], scale * np.array([fresh[key], *found[key]], dtype=float), **style)
        axes.set(ylabel=label, ylim=(0, top(axes)))
    panels[3].plot(ticks, 100 * np.array(found["shuffled_accuracy"]), label="from this task's end", **style)
    other = {**style, "color": "0.45", "linestyle": "--", "marker": "X"}
    panels[3].plot(ticks, 100 * np.array(found["fresh_shuffled_accuracy"]), label="from the fresh network", **other)
    panels[3].set(ylabel=f"shuffled labels learned (%)\nin {found['num_steps']} steps", ylim=(0, 102))
    panels[3].legend(fontsize=8, frameon=False)
    for axes in panels:
        axes.set_xlabel("tasks learned")
        axes.set_xlim(-0.2, len(names) + 0.2)
        axes.set_xticks(range(0, len(names) + 1, math.ceil(len(names) / 15)))
        axes.grid(color="0.92")
    return figure


FIGURES: dict[str, tuple[str, Callable[[Measure, Sequence[str], str], Figure]]] = {
    "overlap": ("importance.png", importance_figure),
    "connectivity": ("connectivity.png", connectivity_figure),
    "cka": ("cka.png", cka_figure),
    "plasticity": ("plasticity.png", plasticity_figure),
}
"""The file and the figure of each measure."""


def top(axes: Axes) -> float:
    """Where an axis from 0 on ends: above what is drawn, or 1 if nothing is, as where all is undefined."""
    highest = float(axes.dataLim.y1)
    return 1.08 * highest if math.isfinite(highest) and highest > 0 else 1.0


def draw_matrix(axes: Axes, shares: Any, rows: Sequence[str], columns: Sequence[str]) -> None:
    """A heat map of shares in [0, 1], undefined ones as a dash, with task names; as a number of 100 where they fit."""
    percent = 100 * np.array(shares, dtype=float)  # null becomes nan
    step = math.ceil(len(columns) / 25)
    heat_map(axes, percent, 0 if len(columns) <= 15 else None)
    axes.set_xticks(range(0, len(columns), step), columns[::step], **SLANTED)
    axes.set_yticks(range(0, len(rows), step), rows[::step])
    axes.set_aspect("equal")
