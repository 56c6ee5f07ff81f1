"""Pictures of a run: the accuracy matrix as a heat map, and the accuracy on every task while the stream is learned.

Figures are made through the object-oriented API, never pyplot, so nothing stays open between the jobs of a sweep.
matplotlib is imported inside the functions: it costs half a second that a run without pictures does not pay.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np
from torch import Tensor

from lifelong.runs.atomic import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

# Okabe & Ito (2008), safe for colour-blind readers; without their yellow, which is lost on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v")
SLANTED: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
CHARACTER = 0.085  # inches, the mean width at 10 points


class Point(TypedDict):
    """Accuracy in [0, 1] on task `task` (0-based) after optimiser step `step` of the whole stream."""

    step: int
    task: int
    accuracy: float


Turn = tuple[str, int, int]
"""What was learned, and its first and last step."""


def accuracy_matrix_figure(R: Tensor, names: Sequence[str], title: str) -> Figure:
    """Heat map of R (rows so far, T), accuracies in [0, 1]: a row per task learned, a column per task tested on.

    The scale is always 0-100 %, so that pictures of different runs compare. Cells carry their number: with one
    decimal up to 12 tasks, whole up to 25, none beyond.
    """
    percent = 100 * np.asarray(R.detach().cpu(), dtype=np.float64)
    if percent.ndim != 2 or not 1 <= len(percent) <= percent.shape[1] or percent.shape[1] != len(names):
        raise ValueError(f"R must have shape (1..T, T) with T = {len(names)} names, got {tuple(R.shape)}")
    num_rows, num_tasks = percent.shape
    cell = 0.62 if num_tasks <= 12 else 0.36
    label = CHARACTER * max(len(name) for name in names)
    rotated = label > 0.9 * cell
    width = max(5.0, cell * num_tasks + label + 1.8)
    height = max(2.4, cell * num_rows + (0.8 * label if rotated else 0.2) + 1.2)
    figure = empty_figure(width, height, title)
    axes = figure.add_subplot()
    image = heat_map(axes, percent, 1 if num_tasks <= 12 else 0 if num_tasks <= 25 else None)
    axes.set_xticks(range(num_tasks), names, **(SLANTED if rotated else {}))
    axes.set_yticks(range(num_rows), names[:num_rows])
    axes.set_xlabel("tested on")
    axes.set_ylabel("after learning")
    figure.colorbar(image, ax=axes, label="test accuracy (%)", ticks=range(0, 101, 20))
    return figure


def accuracy_curves_figure(
    points: Sequence[Point],
    names: Sequence[str],
    turns: Sequence[Turn],
    title: str,
    accuracy: str = "validation accuracy",
) -> Figure:
    """Accuracy on every task against the optimiser steps of the stream, a line per task; accuracy: what it is called.

    turns: what was learned so far, in order; they are drawn as separators with the name on top.
    """
    curves = {task: _curve(points, task) for task in sorted({point["task"] for point in points})}
    legend = CHARACTER * max(len(names[task]) for task in curves)
    top = CHARACTER * max(len(name) for name, _, _ in turns)
    start = min(turns[0][1], *(steps[0] for steps, _ in curves.values()))
    end = max(turns[-1][2], *(steps[-1] for steps, _ in curves.values()))
    slanted = top > 6 * min(last - first for _, first, last in turns) / max(end - start, 1)
    height = max(3.2, 0.215 * len(curves) + 0.5) + (0.8 * top if slanted else 0.2) + 1.0
    figure = empty_figure(8.2 + legend, height, title)
    axes = figure.add_subplot()
    every = max(1, max(len(steps) for steps, _ in curves.values()) // 25)
    for task, (steps, percent) in curves.items():
        axes.plot(steps, percent, label=names[task], markevery=every, clip_on=False, zorder=3, **line_style(task))
    axes.set_xlim(start, max(end, start + 1))
    axes.set_ylim(0, 100)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(f"{accuracy} (%)")
    axes.grid(axis="y", color="0.9")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0, title="tested on", handlelength=3)
    _mark_turns(axes, turns, slanted=slanted)
    return figure


def save_figure(figure: Figure, path: Path | str) -> None:
    """Write a PNG of 150 dots per inch, or an SVG if `path` says so: whole or not at all.

    The same figure gives the same bytes: a report made again changes no file that need not change.
    """
    import matplotlib

    path, canvas = Path(path), cast(Any, figure.canvas)
    with atomic_write(path, "wb") as file, matplotlib.rc_context({"svg.hashsalt": "lifelong"}):
        if path.suffix == ".svg":
            figure.savefig(file, format="svg", dpi=150, metadata={"Date": None})
        else:  # savefig would draw it twice; nearly as small, packed four times as fast
            figure.set_dpi(150)
            canvas.print_png(file, pil_kwargs={"compress_level": 1})


def empty_figure(width: float, height: float, title: str) -> Figure:
    """A figure on the Agg canvas; the title is folded where it would be cut off, and has its room beyond height.

    width, height: inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = textwrap.wrap(title, int(width / (1.3 * CHARACTER)))
    figure = Figure(figsize=(width, height + 0.2 * len(lines)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("\n".join(lines))
    return figure


def heat_map(axes: Axes, percent: np.ndarray, decimals: int | None) -> AxesImage:
    """Draw percentages (rows, columns) on a scale of 0 to 100; decimals: of the cells' numbers, None: without numbers.

    They are black on light cells and white on dark ones (relative luminance as in WCAG 2).
    """
    image = axes.imshow(percent, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    colours = image.cmap(percent / 100)
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)[..., :3]
    light = linear @ np.array([0.2126, 0.7152, 0.0722]) > 0.179  # where black and white contrast equally
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9 if decimals else 7}
    for (row, column), value in np.ndenumerate(percent[: None if decimals is not None else 0]):
        ink = "black" if light[row, column] or np.isnan(value) else "white"
        axes.text(column, row, "–" if np.isnan(value) else f"{value:.{decimals}f}", color=ink, **style)
    return image


def _curve(points: Sequence[Point], task: int) -> tuple[list[int], list[float]]:
    curve = sorted((point["step"], 100 * point["accuracy"]) for point in points if point["task"] == task)
    return [step for step, _ in curve], [percent for _, percent in curve]


def line_style(index: int) -> dict[str, Any]:
    """Colour, dash and marker of the line of a task, or of whatever is counted; two share all three only 140 apart."""
    cycle = index // len(COLOURS)
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": LINE_STYLES[cycle % len(LINE_STYLES)],
        "marker": MARKERS[cycle % len(MARKERS)],
        "markersize": 4,
        "linewidth": 1.5,
    }


def _mark_turns(axes: Axes, turns: Sequence[Turn], *, slanted: bool) -> None:
    for index, (_, first, last) in enumerate(turns):
        if index:
            axes.axvline(first, color="0.6", linewidth=0.8, zorder=1)
        if index % 2:
            axes.axvspan(first, last, color="0.96", zorder=0)
    top = axes.secondary_xaxis("top")
    centres = [(first + last) / 2 for _, first, last in turns]
    top.set_xticks(centres, [name for name, _, _ in turns], **(SLANTED | {"ha": "left"} if slanted else {}))
    top.tick_params(length=0)
    top.set_xlabel("while learning")
