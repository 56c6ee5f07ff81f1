"""A picture of a stream: a row of training images per task. H × W pixels, R rows, S samples in a row."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lifelong.data.stream import Task, TaskStream

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TILE, MARGIN = 0.75, 2.0
"""Inches, of an image and for the names of the tasks."""
ROW = 1.3
"""Height of a row in tiles: labels stand between rows."""


def preview_figure(
    stream: TaskStream, num_samples: int = 10, max_rows: int = 25, title: str = "training images"
) -> Figure:
    """Samples of each task, of distinct classes as far as there are, with output column and class above each.

    Of more than `max_rows` tasks as many are shown, evenly spaced, the first and the last among them.
    Raises ValueError for num_samples < 1 or max_rows < 2, or a source of anything but images.
    """
    stream.check_images("the preview")
    if num_samples < 1 or max_rows < 2:
        raise ValueError(f"num_samples must be >= 1 and max_rows >= 2, got {num_samples!r} and {max_rows!r}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = torch.linspace(0, stream.num_tasks - 1, min(stream.num_tasks, max_rows)).round().int().tolist()
    title = f"{title}: {stream.num_tasks} tasks" + (f", {len(rows)} shown" if len(rows) < stream.num_tasks else "")
    width = MARGIN + TILE * num_samples
    figure = Figure(figsize=(width, TILE * ROW * len(rows) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(textwrap.fill(title, int(9 * width)), fontsize=10)
    axes, names = figure.add_subplot(frame_on=False), []
    for row, task in enumerate(map(stream.task, rows)):
        words, bottom = class_names(stream, task), ROW * (row + 1)
        names.append(f"{textwrap.fill(task.name, 22, max_lines=3, placeholder='…')}\n{len(task.train):,} images")
        samples = task.train.subset(distinct_first(task.train.labels, num_samples))
        for column, (image, label) in enumerate(zip(samples.inputs, samples.labels.tolist(), strict=True)):
            extent = (column + 0.04, column + 0.96, bottom, bottom - 0.92)
            axes.imshow(as_picture(image), extent=extent, interpolation="nearest", aspect="auto")
            word = str(label) if words[label] == str(label) else f"{label} {words[label]}"
            short = word if len(word) <= 13 else word[:12] + "…"
            axes.text(column + 0.5, bottom - 0.95, short, ha="center", va="bottom", fontsize=6.5, parse_math=False)
    axes.set(xlim=(0, num_samples), ylim=(ROW * len(rows), 0), xticks=[], aspect="equal")
    axes.set_yticks([ROW * row + 0.8 for row in range(len(rows))], names, fontsize=8, parse_math=False)
    axes.tick_params(length=0)
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
    source = stream.source(task.base)
    positions, local = stream.chosen(task.base, torch.arange(len(source.classes)))
    own = range(len(source.classes)) if positions is None else positions.tolist()
    return {task.classes[c]: source.classes[g] for c, g in zip(local.tolist(), own, strict=True)}


def as_picture(image: Tensor) -> np.ndarray:
    """(H, W, 3) of an image (C, H, W); other numbers of channels than 3 are averaged to grey."""
    grey = image if len(image) == 3 else image.to(torch.float32).mean(0, keepdim=True).expand(3, -1, -1)
    return grey.numpy().astype(np.uint8).transpose(1, 2, 0)
