"""Loggers that show more than numbers: after each task the accuracy matrix and how importance is distributed."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lifelong.plots.figures import accuracy_matrix_figure

MAX_LAYERS, NUM_BINS = 24, 32
Histogram = tuple[np.ndarray, np.ndarray]
"""Counts (B,) and edges (B + 1,)."""


@dataclass(frozen=True)
class Shown:
    """What there is to see after a task.

    Attributes:
        matrix: (k, T) test accuracies in [0, 1] after the k tasks so far.
        names: of the T tasks.
        title: of the run.
        importance: of each penalised parameter the histogram of log10 Ω, where Ω > 0.
    """

    matrix: list[list[float]]
    names: list[str]
    title: str
    importance: dict[str, Histogram] = field(default_factory=dict)

    def picture(self) -> np.ndarray:
        """(H, W, 3) uint8, the matrix as a heat map."""
        figure = accuracy_matrix_figure(torch.tensor(self.matrix, dtype=torch.float64), self.names, self.title)
        canvas: Any = figure.canvas
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


class Gallery(ABC):
    """A logger that takes what `Shown` holds, a summary, and is closed once, at the run's end."""

    @abstractmethod
    def log_task(self, row: Mapping[str, float], step: int, shown: Shown) -> None:
        """The row of test accuracies after a task, and what there is to see."""

    @abstractmethod
    def summarise(self, metrics: Mapping[str, Any]) -> None:
        """The measures of the finished run, as in metrics.json."""

    @abstractmethod
    def close(self, success: bool) -> None:
        """Nothing comes after this."""


def importance_histograms(importance: Mapping[str, Tensor]) -> dict[str, Histogram]:
    """Of log10 Ω over each tensor's positive entries, NUM_BINS bins each; the MAX_LAYERS largest tensors.

    On a logarithmic axis, since Ω spans decades and most of it lies near zero.
    """
    largest = sorted(importance, key=lambda name: importance[name].numel(), reverse=True)[:MAX_LAYERS]
    found = {}
    for name in (n for n in importance if n in largest):
        exponents = importance[name][importance[name] > 0].double().log10()
        if exponents.numel():
            low, high = (float(v) for v in torch.aminmax(exponents))
            high = high if high > low else low + 1e-6
            counts = torch.histc(exponents, NUM_BINS, low, high).long().cpu().numpy()
            found[name] = (counts, np.linspace(low, high, NUM_BINS + 1))
    return found
