"""A picture of a stream: a row of training images per task. H × W pixels, R rows, S samples in a row."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lifelong.data.stream import Task, TaskStream

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TILE = 0.72  # inches
GAP = 0.3  # of a tile, between rows: the labels stand there
MARGIN = 1.7  # inches, for the names of the tasks


def preview_figure(
    stream: TaskStream, num_samples: int = 10, max_rows: int = 25, title: str = "training images"
) -> Figure:
    """Samples of each task, of distinct classes as far as there are, with output column and class above each.

    Of more than `max_rows` tasks as many are shown, evenly spaced, the first and the last among them.

    Raises:
        ValueError: num_samples < 1 or max_rows < 2, or a source of anything but images.
    """
    stream.check_images("the preview")
    if num_samples < 1 or max_rows < 2:
        raise ValueError(f"num_samples must be >= 1 and max_rows >= 2, got {num_samples!r} and {max_rows!r}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = torch.linspace(0, stream.num_tasks - 1, min(stream.num_tasks, max_rows)).round().int().tolist()
    height = TILE * (1 + GAP) * len(rows)
    title = f"{title}: {stream.num_tasks} tasks" + (f", {len(rows)} shown" if len(rows) < stream.num_tasks else "")
    lines = textwrap.wrap(title, int(10 * (MARGIN + TILE * num_samples)))
    top = 0.1 + 0.2 * len(lines)
    figure = Figure(figsize=(MARGIN + TILE * num_samples + 0.1, height + top + 0.1))
    FigureCanvasAgg(figure)
    width, total = figure.get_size_inches()
    figure.text(0.1 / width, 1 - 0.08 / total, "\n".join(lines), va="top", fontsize=10)
    axes = figure.add_axes((MARGIN / width, 0.1 / total, TILE * num_samples / width, height / total))
    axes.set(xlim=(0, num_samples), ylim=((1 + GAP) * len(rows), 0))
    axes.axis("off")
    for row, i in enumerate(rows):
        _draw_row(axes, row, stream, stream.task(i), num_samples)
    return figure


def distinct_first(labels: Tensor, num: int) -> Tensor:
    """Positions of up to `num` examples: the first of every class in order of the labels, then the second of every, …

    >>> distinct_first(torch.tensor([1, 1, 0, 1, 0]), 4).tolist()
    [2, 0, 4, 1]
    """
    order = labels.argsort(stable=True)
    counts = labels[order].unique_consecutive(return_counts=True)[1]
    starts = counts.cumsum(0) - counts
    round_of = torch.arange(len(labels)) - starts.repeat_interleave(counts)
    return order[round_of.argsort(stable=True)][:num]


def class_names(stream: TaskStream, task: Task) -> dict[int, str]:
    """What the task's output columns mean, in the words of its source."""
    source = stream.sources[task.base if len(stream.sources) > 1 else 0]
    positions, local = stream.chosen(task.base, torch.arange(len(source.classes)))
    own = range(len(source.classes)) if positions is None else positions.tolist()
    return {task.classes[c]: source.classes[g] for c, g in zip(local.tolist(), own, strict=True)}


def as_picture(image: Tensor) -> np.ndarray:
    """(H, W, 3) of an image (C, H, W); other numbers of channels than 3 are averaged to grey."""
    grey = image if len(image) == 3 else image.to(torch.float32).mean(0, keepdim=True).expand(3, -1, -1)
    return grey.numpy().astype(np.uint8).transpose(1, 2, 0)


def _draw_row(axes: Axes, row: int, stream: TaskStream, task: Task, num_samples: int) -> None:
    names = class_names(stream, task)
    samples = task.train.subset(distinct_first(task.train.labels, num_samples))
    bottom = (1 + GAP) * (row + 1)
    name = textwrap.wrap(task.name, 22, max_lines=3, placeholder="…", break_on_hyphens=True)
    text = "\n".join([*name, f"{len(task.train):,} images"])
    axes.text(-0.1, bottom - 0.5, text, ha="right", va="center", fontsize=8, parse_math=False)
    for column, (image, label) in enumerate(zip(samples.inputs, samples.labels.tolist(), strict=True)):
        extent = (column + 0.04, column + 0.96, bottom, bottom - 0.92)
        axes.imshow(as_picture(image), extent=extent, interpolation="nearest", aspect="auto")
        word = str(label) if names[label] == str(label) else f"{label} {names[label]}"
        short = word if len(word) <= 13 else word[:12] + "…"
        axes.text(column + 0.5, bottom - 0.95, short, ha="center", va="bottom", fontsize=6.5, parse_math=False)
    axes.set(xlim=(0, num_samples), ylim=(axes.get_ylim()[0], 0))
