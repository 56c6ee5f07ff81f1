"""Draw why a penalty keeps a task: python scripts/landscape.py methods=finetune,ewc:100,l2:10 out=landscape

For each method (name:strength; the name alone takes its default), on the plane through the weights after task 1, after
task 2 and after joint training: both tasks' training losses, the penalty's ellipses and the path that training took;
below, the losses at the true points of that path. Writes <out>/landscape.png and prints what the picture shows.

Beside the options of train.py (dataset=permuted dataset.num_tasks=2, seed=1 …; the stream must have two tasks):
methods; out, a folder; samples of a task that the losses are means over (500); points along a side of the grid (41).
A penalty acts by its proximal step, so that any strength can be drawn. Not kfac_ewc: its quadratic is not diagonal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from omegaconf import DictConfig
from pandas import DataFrame
from torch import Tensor

from lifelong.config.build import build
from lifelong.config.checks import check
from lifelong.config.schema import ConfigError, folded
from lifelong.data.examples import Examples
from lifelong.data.seeds import derived_generator
from lifelong.data.stream import TaskStream
from lifelong.experiment.errors import composed
from lifelong.experiment.load import load
from lifelong.experiment.parts import make_stream
from lifelong.experiment.run import run_experiment
from lifelong.methods.penalty import Penalty
from lifelong.methods.quadratic import Diagonal
from lifelong.models.learner import Learner
from lifelong.plots.figures import COLOURS, empty_figure, save_figure
from lifelong.plots.landscape import Footprints, Plane, losses, penalty_on
from own_options import own_options, run_script, whole_number
from terminal import print_table

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
LOSSES, PENALTIES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2), (0.1, 0.4, 1.6)
"""Contours, nats; the legend names the penalty's."""
FLOOR = 0.02
"""Lowest loss that the curves show, nats."""
FINE = 601
"""Points along a side of the grid on which the penalty's ellipses, thinner than the losses' valleys, are drawn."""
BLUE, ORANGE, GREEN = COLOURS[:3]
POINTS: dict[str, dict[str, Any]] = {
    "θ*₁, after task 1": {"marker": "o", "color": "white", "markersize": 8},
    "θ after task 2": {"marker": "s", "color": ORANGE, "markersize": 8},
    "joint training": {"marker": "*", "color": GREEN, "markersize": 14},
}
CURVES: dict[str, dict[str, Any]] = {
    "loss on task 1": {"color": BLUE, "linewidth": 2},
    "loss on task 2": {"color": ORANGE, "linewidth": 1.5},
    "penalty (ellipses at 0.1, 0.4, 1.6 nats)": {"color": "black", "linewidth": 1, "linestyle": "--"},
}
HEADINGS = ["method", "task 1 loss", "task 2 loss", "task 1 acc.", "task 2 acc.", "walked", "off the plane"]


@dataclass
class Walk:
    """Both tasks learned with one method; samples: of each task, what losses are means over.

    scale: c · strength; 0 without a penalty. matrix: (2, 2) test accuracies.
    """

    name: str
    stream: TaskStream
    learner: Learner
    footprints: Footprints
    scale: float
    matrix: Tensor
    samples: list[Examples]

    @property
    def path(self) -> Tensor:
        """(N, P) weights while the second task was learned; the first are those after task 1."""
        return self.footprints.path(1)

    def losses(self, task: int, points: Tensor) -> Tensor:
        """Mean training loss of a task at points (N, P), (N,), over the columns visible when it is tested last."""
        self.learner.show(self.stream.visible(1, task))
        return losses(self.learner, points, self.samples[task])

    def plane(self, best: Tensor) -> Plane:
        """Through both ends of the path and `best`; raises ConfigError if they lie on a line."""
        try:
            return Plane.through(self.path[0], self.path[-1], best)
        except ValueError as error:
            what = "end off the line from task 1's weights to joint training's"
            raise ConfigError(f"methods must {what}, got {self.name}") from error

    @cached_property
    def along(self) -> list[Tensor]:
        """Both losses and the penalty at the true points of the path, (N,) each."""
        penalty = (self.path - self.footprints.anchors[1]).square() @ self.footprints.importances[1]
        return [self.losses(0, self.path), self.losses(1, self.path), self.scale * penalty]


def asked(method: str, overrides: Sequence[str]) -> tuple[str, DictConfig]:
    """Returns the name and what to train for `name:strength`, or for `name` at its default strength.

    Raises:
        ConfigError: a setting outside what is allowed, a stream of other than two tasks, or a penalty not diagonal.
    """
    name, colon, strength = method.partition(":")
    chosen = [f"method={name}", *([f"method.strength={strength}"] if colon else [])]
    config = composed([*overrides, *chosen, "logger=none"])
    config.progress = False
    if "step" in config.method:
        config.method.step = "proximal"
    check(config)
    penalty = build(config.method, "method")
    if isinstance(penalty, Penalty) and not isinstance(penalty.quadratic, Diagonal):
        raise ConfigError(f"methods must have diagonal penalties to be drawn, got {name}")
    if (tasks := make_stream(config).num_tasks) != 2:
        raise ConfigError(f"dataset must have two tasks to be drawn, got {tasks}")
    return name, folded(config)


def walk(name: str, config: DictConfig, root: str, num_samples: int) -> Walk:
    """Train what `asked` returns, in a folder in root."""
    config.root = root
    stream, penalty = make_stream(config), build(config.method, "method")
    footprints = Footprints(EVERY)
    result = run_experiment(config, callbacks=[footprints])
    scale = penalty.coefficient * penalty.strength if isinstance(penalty, Penalty) else 0.0
    said = f"{name}, λ = {config.method.strength:g}" if scale else name
    whole = [stream.task(j).train for j in range(2)]
    samples = [e.subset(torch.randperm(len(e), generator=derived_generator(0, 0))[:num_samples]) for e in whole]
    learner = load(result.folder, config.trusted, stream.as_input)
    return Walk(said, stream, learner, footprints, scale, result.matrix, samples)


def landscape_figure(walks: Sequence[Walk], best: Tensor, num_points: int) -> Figure:
    """A column per method, its plane above and its losses below, all to one scale; best: (P,) after joint training."""
    planes = [walk.plane(best) for walk in walks]
    ends = sides([plane.coordinates(torch.cat([w.path, best[None]])) for w, plane in zip(walks, planes, strict=True)])
    names, width = walks[0].stream.names, 2.9
    height = width * (ends[1][1] - ends[1][0]) / (ends[0][1] - ends[0][0])
    title = f"From task 1 ({names[0]}) to task 2 ({names[1]}), axes in distances between weights"
    in_a_row = 4 if len(walks) > 3 else len(walks)  # entries of the legend
    figure = empty_figure(width * len(walks) + 1.6, height + 3.7 + 0.8 * (in_a_row < 4), title)
    figure.get_layout_engine().set(h_pad=0.1)  # type: ignore[union-attr, call-arg]
    rows = figure.subplots(2, len(walks), squeeze=False, sharex="row", sharey="row", height_ratios=[height, 2])
    for above, below, walk, plane in zip(*rows, walks, planes, strict=True):
        filled = _draw_plane(above, walk, plane, best, ends, num_points)
        for values, style in zip(walk.along, CURVES.values(), strict=True):
            below.plot(walk.footprints.steps[1], values.clamp(min=FLOOR / 2), **style)
        below.set_xlabel("optimiser step of task 2")
        below.grid(axis="y", color="0.9")
    rows[0, 0].set_ylabel("distance towards joint training")
    rows[1, 0].set(ylabel="along the path (nats)", yscale="log")
    rows[1, 0].set_ylim(bottom=FLOOR)  # once all curves are there: it ends the scaling to what comes later
    bar = figure.colorbar(filled, ax=list(rows[0]), ticks=LOSSES, label="loss on task 1 (nats)", pad=0.01)
    bar.ax.set_yticklabels([f"{level:g}" for level in LOSSES])
    bar.ax.minorticks_off()
    legend = [
        *(Line2D([], [], linestyle="none", markeredgecolor="black", label=word, **s) for word, s in POINTS.items()),
        Line2D([], [], color="black", linewidth=2.2, label="path of task 2, projected"),
        *(Line2D([], [], label=word, **style) for word, style in CURVES.items()),
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=in_a_row, frameon=False)
    return figure


def sides(coordinates: Sequence[Tensor]) -> list[tuple[float, float]]:
    """(from, to) of x and of y, with room around the points (N, 2) of every plane."""
    points = torch.cat(list(coordinates))
    low, high = points.amin(0), points.amax(0)
    room = float((high - low).max()) * 0.3
    return [(start - room, end + room) for start, end in zip(low.tolist(), high.tolist(), strict=True)]


def _draw_plane(axes: Axes, walk: Walk, plane: Plane, best: Tensor, ends: Any, num_points: int) -> Any:
    """Returns what a colour bar is made from. ends: (from, to) of x and of y."""
    (x, y), (fine_x, fine_y) = (
        [torch.linspace(start, end, num, dtype=torch.float64) for start, end in ends] for num in (num_points, FINE)
    )
    grid = plane.points(torch.cartesian_prod(x, y))
    one, two = (walk.losses(task, grid).view(len(x), len(y)).T for task in range(2))
    filled = axes.contourf(x, y, one, LOSSES, cmap="Blues", norm=LogNorm(LOSSES[0], LOSSES[-1]), extend="both")
    lines = axes.contour(x, y, two, LOSSES, colors=ORANGE, linewidths=1)
    axes.clabel(lines, fontsize=7, fmt=lambda level: f"{level:g}")
    if walk.scale:
        held = (walk.footprints.anchors[1], walk.footprints.importances[1])
        penalty = walk.scale * penalty_on(plane, torch.cartesian_prod(fine_x, fine_y), *held).view(FINE, FINE).T
        axes.contour(fine_x, fine_y, penalty, PENALTIES, colors="black", linewidths=0.9, linestyles="--")
    path = plane.coordinates(walk.path)
    axes.plot(*path.T, color="black", linewidth=2.2, zorder=4)
    for point, style in zip((path[0], path[-1], plane.coordinates(best)), POINTS.values(), strict=True):
        axes.plot(*point.tolist(), linestyle="none", markeredgecolor="black", zorder=5, **style)
    axes.set(title=walk.name, xlabel="distance towards θ after task 2", aspect="equal", xlim=ends[0], ylim=ends[1])
    return filled


def row(walk: Walk, best: Tensor) -> list[str]:
    """What the picture shows of a walk, as HEADINGS say."""
    start, end = walk.path[0], walk.path[-1]
    change = [f"{float(along[0]):.2f} → {float(along[-1]):.2f}" for along in walk.along[:2]]
    accuracy = [f"{100 * a:.1f} → {100 * b:.1f}" for a, b in walk.matrix.T.tolist()]
    height = float(walk.plane(best).height(walk.path).max())
    return [walk.name, *change, *accuracy, f"{float((end - start).norm()):.2f}", f"{height:.2f}"]


def main(arguments: Sequence[str]) -> Path:
    """Returns where the picture is. Raises ConfigError for a setting outside what is allowed."""
    own, overrides = own_options(arguments, OWN)
    samples, points = whole_number(own, "samples", 1), whole_number(own, "points", 2)
    for key in ("methods", "out"):
        if not own[key]:
            raise ConfigError(f"{key} must not be empty")
    groups = {override.partition("=")[0] for override in overrides}
    small = [setting for group, settings in SMALL.items() if group not in groups for setting in settings]
    wanted = [asked(method, [*small, *overrides]) for method in [*own["methods"].split(","), "joint"]]
    path = Path(own["out"]) / "landscape.png"
    path.parent.mkdir(parents=True, exist_ok=True)  # or an error, before any training
    with TemporaryDirectory() as root:
        # a root each: a run that is finished is not trained again
        *walks, joint = [walk(*a, f"{root}/{i}", samples) for i, a in enumerate(wanted)]
    best = joint.path[-1]
    save_figure(landscape_figure(walks, best, points), path)
    shown = DataFrame([row(walk, best) for walk in walks], columns=HEADINGS)
    caption = "before → after task 2; losses in nats; accuracies of 100 on test data; distances between weights"
    print_table(shown, caption=caption)
    return path


if __name__ == "__main__":
    run_script(main, __doc__)
