"""Draw why a penalty keeps a task: python scripts/landscape.py methods=finetune,ewc:100,l2:10 out=landscape

For each method (name:strength; the name alone takes its default), on the plane through the weights after task 1, after
task 2 and after joint training: both tasks' training losses, the penalty's ellipses and the path that training took;
below, the losses at the true points of that path. Writes <out>/landscape.png and prints what the picture shows.

Beside the options of train.py (dataset=permuted dataset.num_tasks=2, seed=1 …; the stream must have two tasks):
methods; out, a folder; samples of a task that the losses are means over (500); points along a side of the grid (41).
A penalty acts by its proximal step, so that any strength can be drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from landscape_figure import Panel, landscape_figure
from lifelong.config.build import build
from lifelong.config.checks import check
from lifelong.config.schema import ConfigError
from lifelong.data.examples import Examples
from lifelong.data.seeds import derived_generator
from lifelong.data.stream import TaskStream
from lifelong.experiment.errors import composed
from lifelong.experiment.run import load, make_stream, run_experiment
from lifelong.methods.penalty import Penalty
from lifelong.models.learner import Learner
from lifelong.plots.figures import save_figure
from lifelong.plots.landscape import Footprints, Plane, losses, penalty_on
from own_options import own_options, run_script, whole_number

OWN = {"methods": "finetune,ewc:100,ewc:1e5,l2:10", "out": "landscape", "samples": "500", "points": "41"}
SMALL = {
    "dataset": ("dataset/source=digits", "dataset.angles=[0,60]"),
    "backbone": ("backbone.widths=[32]",),
    "optimizer": ("optimizer=sgd", "optimizer.lr=0.1"),
    "trainer": ("trainer=cpu", "trainer.max_epochs=30"),
}
"""What is set unless the command chooses another group."""
EVERY = 4
"""Optimiser steps between two points of a path."""


@dataclass(frozen=True)
class Walk:
    """Both tasks learned with one method.

    Attributes:
        scale: c · strength.
        matrix: (2, 2) test accuracies.
    """

    name: str
    stream: TaskStream
    learner: Learner
    footprints: Footprints
    scale: float
    matrix: Tensor

    @property
    def path(self) -> Tensor:
        """(steps, P) of the second task; its first point are the weights after task 1."""
        return self.footprints.path(1)


def walk(method: str, overrides: Sequence[str], root: str) -> Walk:
    """Train `name:strength`, or `name` at its default strength.

    Raises:
        ConfigError: a setting outside what is allowed, or a stream of other than two tasks.
    """
    name, colon, strength = method.partition(":")
    config = composed(
        [*overrides, f"method={name}", *([f"method.strength={strength}"] if colon else []), "logger=none"]
    )
    config.root, config.progress = root, False
    if "step" in config.method:
        config.method.step = "proximal"
    check(config)
    stream = make_stream(config)
    if stream.num_tasks != 2:
        raise ConfigError(f"dataset must have two tasks to be drawn, got {stream.num_tasks}")
    footprints = Footprints(EVERY)
    result = run_experiment(config, callbacks=[footprints])
    strength = result.metrics["strength"]
    said = f"{name}, λ = {strength:g}" if strength else name
    penalty: Penalty = build(config.method, "method")
    return Walk(said, stream, load(result.folder), footprints, penalty.coefficient * strength, result.matrix)


def measured(walks: Sequence[Walk], joint: Walk, num_samples: int, num_points: int) -> list[Panel]:
    """Every method on its own plane, all over one grid of coordinates."""
    samples = [drawn(joint.stream.task(j).train, num_samples) for j in range(2)]
    best = joint.path[-1]
    planes = [Plane.through(walk.path[0], walk.path[-1], best) for walk in walks]
    shown = [plane.coordinates(torch.cat([walk.path, best[None]])) for plane, walk in zip(planes, walks, strict=True)]
    x, y = sides(torch.cat(shown), num_points)
    return [
        panel(walk, plane, best, samples, x, y, torch.cartesian_prod(x, y))
        for walk, plane in zip(walks, planes, strict=True)
    ]


def panel(
    walk: Walk, plane: Plane, best: Tensor, samples: Sequence[Examples], x: Tensor, y: Tensor, grid: Tensor
) -> Panel:
    """grid: (X·Y, 2), the pairs of x and y; best: (P,), the weights after joint training."""
    anchor, importance = walk.footprints.anchors[1], walk.footprints.importances[1]
    return Panel(
        name=walk.name,
        x=x,
        y=y,
        losses=[task_losses(walk, j, plane.points(grid), samples[j]).view(len(x), len(y)) for j in range(2)],
        penalty=penalty_on(plane, anchor, importance).scaled(walk.scale),
        path=plane.coordinates(walk.path),
        joint=plane.coordinates(best),
        steps=walk.footprints.steps[1],
        losses_along=[task_losses(walk, j, walk.path, samples[j]) for j in range(2)],
        penalty_along=walk.scale * ((walk.path - anchor).square() @ importance),
        height=float(plane.height(walk.path).max()),
    )


def drawn(examples: Examples, num: int) -> Examples:
    """`num` of them, or all if there are fewer."""
    return examples.subset(torch.randperm(len(examples), generator=derived_generator(0, 0))[:num])


def sides(points: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Coordinates of a grid's two sides, with room around the points (N, 2)."""
    low, high = points.amin(0), points.amax(0)
    room = 0.3 * float((high - low).max())
    x, y = (torch.linspace(float(a) - room, float(b) + room, num) for a, b in zip(low, high, strict=True))
    return x.to(torch.float64), y.to(torch.float64)


def task_losses(walk: Walk, task: int, points: Tensor, examples: Examples) -> Tensor:
    """Mean training loss on a task's examples, (N,), over the columns that are visible when it is tested at the end."""
    walk.learner.show(walk.stream.visible(1, task))
    return losses(walk.learner, points, examples)


def table(walks: Sequence[Walk], panels: Sequence[Panel]) -> Table:
    result = Table(
        caption="before → after task 2; losses in nats; accuracies of 100 on test data; distances between weights"
    )
    for heading in ("method", "task 1 loss", "task 2 loss", "task 1 acc.", "task 2 acc.", "walked", "off the plane"):
        result.add_column(heading, justify="left" if heading == "method" else "right")
    for walk, panel in zip(walks, panels, strict=True):
        change = [f"{float(along[0]):.2f} → {float(along[-1]):.2f}" for along in panel.losses_along]
        accuracy = [f"{100 * a:.1f} → {100 * b:.1f}" for a, b in walk.matrix.T.tolist()]
        walked = float((walk.path[-1] - walk.path[0]).norm())
        result.add_row(walk.name, *change, *accuracy, f"{walked:.2f}", f"{panel.height:.2f}")
    return result


def main(arguments: Sequence[str]) -> Path:
    """Returns where the picture is. Raises ConfigError for a setting outside what is allowed."""
    own, overrides = own_options(arguments, OWN)
    samples, points = whole_number(own, "samples", 1), whole_number(own, "points", 2)
    for key in ("methods", "out"):
        if not own[key]:
            raise ConfigError(f"{key} must not be empty")
    groups = {override.partition("=")[0] for override in overrides}
    small = [setting for group, settings in SMALL.items() if group not in groups for setting in settings]
    overrides = [*small, *overrides]
    with TemporaryDirectory() as root:
        walks = [walk(method, overrides, root) for method in own["methods"].split(",")]
        joint = walk("joint", overrides, root)
    panels = measured(walks, joint, samples, points)
    path = Path(own["out"]) / "landscape.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(landscape_figure(panels, walks[0].stream.names), path)
    Console(width=120).print(table(walks, panels))
    return path


if __name__ == "__main__":
    run_script(main, __doc__)
