"""The plane of stability and plasticity: tracks of the lines over their strengths, and what none of them exceeds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from pandas import DataFrame, Index

from lifelong.plots.report.labels import Label, name_points, strength_text
from lifelong.plots.report.names import ENTRY
from lifelong.plots.report.tables import interval

Style = dict[str, Any]
PLACE = ["learning_accuracy", "stability"]
HALO: Style = {"color": "0.75", "linewidth": 4, "marker": "o", "markersize": 15, "alpha": 0.6, "zorder": 1}
FAINT_HALO = HALO | {"linewidth": 3, "marker": ""}
RING: Style = {"color": "0.3", "marker": "o", "markersize": 13, "markerfacecolor": "none", "linestyle": "", "zorder": 4}
SMALL = 0.6
"""Of the size of markers, in a panel that is one of many."""


def means(finished: DataFrame) -> DataFrame:
    """PLACE of each entry, over its seeds."""
    return finished.groupby(ENTRY)[PLACE].mean()


def draw_plane(axes: Axes, finished: DataFrame, style: dict[str, Style], chosen: Index, *, small: bool) -> None:
    """The tracks of the lines of `style`, a ring around their chosen entries, and the Pareto front of all lines.

    small: the panel is one of many, and its front a line without markers.
    """
    scale, ours = SMALL if small else 1.0, finished[finished["line"].isin(style)]
    for line, members in ours.groupby("line"):
        _track(axes, members, style[line], scale)
    ringed = means(ours)
    axes.plot(*ringed[ringed.index.isin(chosen)].to_numpy().T, **RING | {"markersize": RING["markersize"] * scale})
    rivals = means(finished[finished["method"] != "joint"]).to_numpy()
    axes.plot(*rivals[pareto_front(rivals.tolist())].T, drawstyle="steps-pre", **(FAINT_HALO if small else HALO))


def name_strengths(axes: Axes, members: DataFrame, style: dict[str, Style], chosen: Index, *, small: bool) -> None:
    """Write λ beside every entry that has one and room, the chosen ones first; `axes` as name_points needs them."""
    scale, found = SMALL if small else 1.0, []
    for line, runs in members.groupby("line"):
        entries = means(runs)
        for (entry, (x, y)), diameter in zip(entries.iterrows(), _diameters(len(entries), scale), strict=True):
            radius = scale * RING["markersize"] / 2 if entry in chosen else diameter / 2
            if entry[2] > 0:
                label = Label(x, y, strength_text(entry[2]), style[line]["color"], radius)
                found.append((entry not in chosen, label))
    name_points(axes, [label for _, label in sorted(found, key=lambda pair: pair[0])])


def _track(axes: Axes, members: DataFrame, style: Style, scale: float) -> None:
    """The entries of a line joined by strength, with their intervals; a larger marker for a larger strength."""
    entries = members.groupby("strength")
    x, y = (entries[key].mean().to_numpy() for key in PLACE)
    wide, high = ([interval(values)[1] - values.mean() for _, values in entries[key]] for key in PLACE)
    axes.plot(x, y, **{**style, "linewidth": 1, "marker": ""})
    axes.errorbar(x, y, xerr=wide, yerr=high, fmt="none", color=style["color"], alpha=0.35, zorder=2)
    areas = _diameters(len(x), scale) ** 2
    axes.scatter(x, y, areas, marker=style["marker"], color=style["color"], zorder=3)


def _diameters(num: int, scale: float) -> np.ndarray:
    """Of the markers of a line's entries, points: from 4 to 10, scaled."""
    return scale * (4 + 6 * np.arange(num) / max(num - 1, 1))


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points no other one beats or equals in both coordinates while beating it in one, by the first.

    >>> pareto_front([(1, 1), (0, 2), (0.5, 0.5), (2, 0)])
    [1, 0, 3]
    """
    order = sorted(range(len(points)), key=lambda i: (-points[i][0], -points[i][1]))
    front: list[int] = []
    for i in order:
        if not front or points[i][1] > points[front[-1]][1] or points[i] == points[front[-1]]:
            front.append(i)
    return front[::-1]
