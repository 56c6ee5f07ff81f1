"""The picture of scripts/landscape.py: a column per method, its plane above and the losses along its path below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from lifelong.plots.figures import COLOURS
from lifelong.plots.landscape import Quadratic

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN = COLOURS[:3]
LOSSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Contours of the task losses, nats."""
PENALTIES = (0.1, 0.4, 1.6)
"""The penalty's ellipses, nats."""
START: dict[str, Any] = {"marker": "o", "color": "white", "markersize": 8}
END: dict[str, Any] = {"marker": "s", "color": ORANGE, "markersize": 8}
JOINT: dict[str, Any] = {"marker": "*", "color": GREEN, "markersize": 14}
CURVES: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "linewidth": 2},
    {"color": ORANGE, "linewidth": 1.5},
    {"color": "black", "linewidth": 1, "linestyle": "--"},
)
"""Of task 1, task 2 and the penalty."""
FLOOR = 0.02
"""Lowest loss that the curves show, nats."""


@dataclass(frozen=True)
class Panel:
    """What is known of one method on its plane; lengths are distances between weights, losses and penalty in nats.

    Attributes:
        x, y: (X,), (Y,) coordinates of the grid.
        losses: of both tasks on the grid, (X, Y) each; penalty: a function of the coordinates.
        path: (N, 2) where training on task 2 went, projected; steps: (N,) its optimiser steps.
        joint: (2,) weights after joint training.
        losses_along, penalty_along: at the true points of the path, (N,) each.
        height: largest distance of the path from the plane.
    """

    name: str
    x: Tensor
    y: Tensor
    losses: list[Tensor]
    penalty: Quadratic
    path: Tensor
    joint: Tensor
    steps: list[int]
    losses_along: list[Tensor]
    penalty_along: Tensor
    height: float


def landscape_figure(panels: Sequence[Panel], names: Sequence[str]) -> Figure:
    """All panels to one scale. names: of the two tasks."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    x, y = panels[0].x, panels[0].y
    width = 2.9
    height = width * float((y[-1] - y[0]) / (x[-1] - x[0]))
    figure = Figure(figsize=(width * len(panels) + 1.6, height + 3.9), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1)  # type: ignore[union-attr, call-arg]
    FigureCanvasAgg(figure)
    planes, curves = figure.subplots(
        2, len(panels), squeeze=False, sharex="row", sharey="row", height_ratios=[height, 2]
    )
    filled: Any = None
    for above, below, panel in zip(planes, curves, panels, strict=True):
        filled = _draw_plane(above, panel)
        _draw_losses(below, panel)
    planes[0].set_ylabel("distance towards joint training")
    curves[0].set(ylabel="along the path (nats)", yscale="log")
    curves[0].set_ylim(bottom=FLOOR)  # once all curves are there: it ends the scaling to what comes later
    bar = figure.colorbar(filled, ax=list(planes), ticks=LOSSES, label="loss on task 1 (nats)", pad=0.01)
    bar.ax.set_yticklabels([f"{level:g}" for level in LOSSES])
    bar.ax.minorticks_off()
    figure.suptitle(f"From task 1 ({names[0]}) to task 2 ({names[1]}), axes in distances between weights")
    figure.legend(handles=_legend(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _draw_plane(axes: Axes, panel: Panel) -> Any:
    """Returns what a colour bar is made from."""
    from matplotlib.colors import LogNorm

    x, y = panel.x.numpy(), panel.y.numpy()
    one, two = (loss.numpy().T for loss in panel.losses)
    filled = axes.contourf(x, y, one, LOSSES, cmap="Blues", norm=LogNorm(LOSSES[0], LOSSES[-1]), extend="both")
    lines = axes.contour(x, y, two, LOSSES, colors=ORANGE, linewidths=1)
    axes.clabel(lines, fontsize=7, fmt=lambda level: f"{level:g}")
    for level in PENALTIES:
        axes.plot(*panel.penalty.ellipse(level).numpy().T, color="black", linewidth=0.9, linestyle="--")
    axes.plot(*panel.path.numpy().T, color="black", linewidth=2.2, zorder=4)
    for point, style in ((panel.path[0], START), (panel.path[-1], END), (panel.joint, JOINT)):
        axes.plot(*point.tolist(), linestyle="none", markeredgecolor="black", zorder=5, **style)
    axes.set_title(panel.name)
    axes.set(aspect="equal", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    axes.set_xlabel("distance towards θ after task 2")
    return filled


def _draw_losses(axes: Axes, panel: Panel) -> None:
    curves = (*panel.losses_along, panel.penalty_along)
    for values, style in zip(curves, CURVES, strict=True):
        axes.plot(panel.steps, np.maximum(values.numpy(), FLOOR / 2), **style)
    axes.set_xlabel("optimiser step of task 2")
    axes.grid(axis="y", color="0.9")


def _legend() -> list[Artist]:
    from matplotlib.lines import Line2D

    contours = ", ".join(f"{level:g}" for level in PENALTIES)
    points = {"θ*₁, after task 1": START, "θ after task 2": END, "joint training": JOINT}
    labels = ("loss on task 1", "loss on task 2", f"penalty (ellipses at {contours} nats)")
    return [
        *(Line2D([], [], linestyle="none", markeredgecolor="black", label=word, **s) for word, s in points.items()),
        Line2D([], [], color="black", linewidth=2.2, label="path of task 2, projected"),
        *(Line2D([], [], label=word, **style) for word, style in zip(labels, CURVES, strict=True)),
    ]
