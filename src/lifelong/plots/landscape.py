"""Task losses and the penalty on a plane through three solutions: why a path leaves one task's valley, or stays in it.

Legend: P parameters of the backbone, flattened in the order of `named_parameters`; a point is (P,) float64; (x, y) are
coordinates on the plane, in distances between weights.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from lifelong.data.examples import Examples
from lifelong.methods.penalty import Penalty
from lifelong.models.learner import Learner

BATCH_SIZE = 2048


@dataclass(frozen=True)
class Plane:
    """origin + x · axes[0] + y · axes[1]; origin (P,) and axes (2, P) float64, the axes orthonormal."""

    origin: Tensor
    axes: Tensor

    @classmethod
    def through(cls, a: Tensor, b: Tensor, c: Tensor) -> "Plane":
        """a is the origin, b lies on the positive x axis and c at y > 0. Three points (P,).

        Raises:
            ValueError: the points lie on a line, to rounding.
        """
        q, r = torch.linalg.qr(torch.stack([b - a, c - a], dim=1).to(torch.float64))
        if r.diagonal().abs().min() <= 1e-9 * r.abs().max():
            raise ValueError("points must not lie on a line: no plane goes through them alone")
        return cls(a.to(torch.float64), (q * r.diagonal().sign()).T)

    def coordinates(self, points: Tensor) -> Tensor:
        """(x, y) of the feet of points (..., P) on the plane, (..., 2)."""
        return (points - self.origin) @ self.axes.T

    def points(self, coordinates: Tensor) -> Tensor:
        """(..., P) at coordinates (..., 2)."""
        return self.origin + coordinates @ self.axes

    def height(self, points: Tensor) -> Tensor:
        """Distance of points (..., P) from the plane, (...,)."""
        return (points - self.points(self.coordinates(points))).norm(dim=-1)


def flat(params: Mapping[str, Tensor], backbone: nn.Module) -> Tensor:
    """(P,) of tensors by parameter name; 0 for a parameter of the backbone that has none."""
    held = [params.get(name, torch.zeros_like(p)) for name, p in backbone.named_parameters()]
    return parameters_to_vector(held).detach().to("cpu", torch.float64)


def weights_of(backbone: nn.Module) -> Tensor:
    """Its weights as a point (P,)."""
    return flat(dict(backbone.named_parameters()), backbone)


def penalty_on(plane: Plane, coordinates: Tensor, anchor: Tensor, importance: Tensor) -> Tensor:
    """Σ_i Ω_i (θ_i − θ*_i)² at coordinates (..., 2), (...,) float64; anchor θ* and importance Ω are (P,) float64.

    A quadratic in the coordinates: no point (..., P) is made.
    """
    weighted, off = plane.axes * importance, plane.origin - anchor
    curved = ((coordinates @ (weighted @ plane.axes.T)) * coordinates).sum(-1)
    return curved + 2 * coordinates @ (weighted @ off) + importance @ off.square()


@torch.no_grad()
def losses(learner: Learner, points: Tensor, examples: Examples) -> Tensor:
    """Mean loss on the examples with the backbone's weights at each of the points (M, P): (M,) float64.

    Every sample weighs the same, however the batches are cut. In eval mode, buffers and visible columns as they are;
    the learner itself is left alone.
    """
    probe = copy.deepcopy(learner).eval()
    chunks = [chunk.to(learner.device) for chunk in examples.chunks(BATCH_SIZE)]
    batches = [(probe.as_input(chunk.inputs), chunk.labels) for chunk in chunks]
    found = torch.zeros(len(points), dtype=torch.float64)
    for m, point in enumerate(points):
        vector_to_parameters(point.to(learner.device, torch.float32), probe.backbone.parameters())
        found[m] = sum(probe.loss(x, y).item() * len(y) for x, y in batches)
    return found / len(examples)


class Footprints(Callback):
    """Where training goes, and what holds it: lifelong.run(..., callbacks=[footprints]).

    Attributes:
        steps: for each task the optimiser steps at which the weights were noted, its first and last included.
        points: for each task the weights (P,) there.
        anchors, importances: for each task the θ* and Ω (P,) that the penalty held while it was learned; zeros where
            it held none.
    """

    def __init__(self, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every must be an integer >= 1, got {every!r}")
        self.every = every
        self.steps: list[list[int]] = []
        self.points: list[list[Tensor]] = []
        self.anchors: list[Tensor] = []
        self.importances: list[Tensor] = []

    def path(self, task: int) -> Tensor:
        """The weights noted while a task was learned, (steps, P)."""
        return torch.stack(self.points[task])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        backbone: Any = pl_module.backbone
        held = [callback for callback in trainer.callbacks if isinstance(callback, Penalty)]  # type: ignore[attr-defined]
        self.anchors.append(flat(held[0].anchor if held else {}, backbone))
        self.importances.append(flat(held[0].importance_shown if held else {}, backbone))
        self.steps.append([])
        self.points.append([])
        self.on_train_end(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        if trainer.global_step % self.every == 0:
            self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step not in self.steps[-1][-1:]:
            self.steps[-1].append(trainer.global_step)
            self.points[-1].append(weights_of(pl_module.backbone))  # type: ignore[arg-type]
