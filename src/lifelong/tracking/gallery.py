"""Loggers that show more than numbers: after each task the accuracy matrix and how importance is distributed."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lifelong.plots.figures import accuracy_matrix_figure
from lifelong.runs.folder import RunFolder
from lifelong.tracking.history import Row

MAX_LAYERS, NUM_BINS, TESTED = 24, 32, "test/accuracy/"
Histogram = tuple[np.ndarray, np.ndarray]
"""Counts (B,) and edges (B + 1,)."""
Matrix = Sequence[Sequence[float]]
"""(k, T): test accuracies in [0, 1] after k of T tasks."""


class Gallery(ABC):
    """A logger that is shown more after each task, takes a summary, and is closed once, at the run's end."""

    @abstractmethod
    def log_task(self, row: Row, step: int, matrix: Matrix, importance: dict[str, Histogram]) -> None:
        """The row of test accuracies after a task, what it makes the matrix, and log10 Ω of each layer."""

    @abstractmethod
    def summarise(self, metrics: Row) -> None:
        """The measures of the finished run, as in metrics.json."""

    @abstractmethod
    def close(self, status: str) -> None:
        """Nothing comes after this; status: "success" or "failed"."""


def tested(row: Row) -> list[str]:
    """Names of the tasks whose test accuracies the row holds, in the stream's order; [] for other rows."""
    return [key.removeprefix(TESTED) for key in row if key.startswith(TESTED)]


def importance_tables(folder: RunFolder) -> dict[str, dict[str, Any]]:
    """Columns and data of tables with a row per task: how its own importance overlaps with that of each other task, and
    its share in each layer; {} if the run kept none."""
    if (found := folder.read_analysis().get("overlap")) is None:
        return {}
    names = folder.read_matrix()[0]
    tables = {}
    for kind, columns in {"cosine": names, "top_share": names, "by_layer": found["layers"]}.items():
        data = [[name, *row] for name, row in zip(names, found[kind], strict=True)]
        tables[f"importance_{kind}"] = {"columns": ["task", *columns], "data": data}
    return tables


def picture(matrix: Matrix, names: Sequence[str], title: str) -> np.ndarray:
    """(H, W, 3) uint8: the accuracy matrix as a heat map."""
    canvas: Any = accuracy_matrix_figure(torch.tensor(matrix, dtype=torch.float64), names, title).canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def importance_histograms(importance: Mapping[str, Tensor]) -> dict[str, Histogram]:
    """Of log10 Ω over each tensor's positive entries, NUM_BINS bins each; the MAX_LAYERS largest tensors.

    On a logarithmic axis, since Ω spans decades and most of it lies near zero.
    """
    largest = sorted(importance, key=lambda name: importance[name].numel(), reverse=True)[:MAX_LAYERS]
    found = {}
    for name in (n for n in importance if n in largest):
        exponents = importance[name][importance[name] > 0].double().log10().cpu()
        if len(exponents):
            counts, edges = torch.histogram(exponents, NUM_BINS)
            found[name] = (counts.long().numpy(), edges.numpy())
    return found
