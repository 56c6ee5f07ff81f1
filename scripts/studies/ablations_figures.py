"""The figures of docs/ablations.md."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from lifelong.plots.figures import COLOURS, MARKERS, empty_figure, save_figure
from studies.ablations_plan import Ablation
from studies.results_stats import Row, half_interval, values

ACCURACY = "average accuracy (%)"
HIGHEST_CROSSES, CROSSES_APART = 0.17, 0.045  # of the axes' height


def draw(ablation: Ablation, rows: Sequence[Row], docs: Path) -> None:
    """docs/ablation_NAME.png."""
    if ablation.axis == "λ":
        figure = empty_figure(8, 3.8, ablation.question)
        curves(figure.add_subplot(), rows)
    else:
        names = list(dict.fromkeys(place(row) for row in rows))
        figure = empty_figure(8, 1.0 + 0.19 * len(names), ablation.question)
        points(figure.add_subplot(), rows, names)
    save_figure(figure, docs / f"ablation_{ablation.name}.png")


def place(row: Row) -> tuple[str, str]:
    return row["arm"], row["x"]


def arms(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["arm"] for row in rows))


def curves(axes: Axes, rows: Sequence[Row]) -> None:
    """Mean accuracy over λ. A λ at which a run failed is left out of the curve and crossed below; an arm whose λ is 0
    has no place on the logarithmic axis and is a level line."""
    names = arms(rows)
    families = list(dict.fromkeys(name.split(",")[0] for name in names))
    for name in names:
        own = [row for row in rows if row["arm"] == name]
        number = families.index(name.split(",")[0])
        style = {"color": COLOURS[number], "linestyle": "--" if name.endswith("proximal") else "-"}
        if [row["x"] for row in own] == ["0"] * len(own):
            axes.axhline(statistics.fmean(values(own, "average_accuracy")), label=name, color="0.3", linestyle=":")
        else:
            curve(axes, own, {**style, "label": name, "marker": MARKERS[number], "markersize": 4})
            crosses(axes, own, COLOURS[number], number)
    if any(row["failed"] for row in rows):
        low, high = axes.get_ylim()
        axes.set_ylim(low - 0.28 * (high - low), high)  # room for the crosses
        cross = Line2D([], [], marker="x", color="0.3", linestyle="none", label="a run diverged")
        axes.add_artist(axes.legend(handles=[cross], loc="lower left", fontsize=8))
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xlabel("λ (line: mean over seeds; band: lowest to highest)")
    axes.set_ylabel(ACCURACY)
    axes.grid(color="0.93")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=3.5)


def curve(axes: Axes, rows: Sequence[Row], style: dict[str, object]) -> None:
    at = {x: [row for row in rows if row["x"] == x] for x in dict.fromkeys(row["x"] for row in rows)}
    sound = {
        float(x): values(members, "average_accuracy")
        for x, members in at.items()
        if not any(r["failed"] for r in members)
    }
    axes.plot(list(sound), [statistics.fmean(v) for v in sound.values()], **style)  # type: ignore[arg-type]
    low, high = [min(v) for v in sound.values()], [max(v) for v in sound.values()]
    axes.fill_between(list(sound), low, high, alpha=0.15, color=str(style["color"]), linewidth=0)


def crosses(axes: Axes, rows: Sequence[Row], colour: str, number: int) -> None:
    """Where a run failed, near the bottom of the axes, the families below one another."""
    lost = sorted({float(row["x"]) for row in rows if row["failed"]})
    height = HIGHEST_CROSSES - CROSSES_APART * number
    axes.plot(lost, [height] * len(lost), "x", color=colour, transform=axes.get_xaxis_transform(), markersize=5)


def points(axes: Axes, rows: Sequence[Row], names: Sequence[tuple[str, str]]) -> None:
    """A row of points, a point per seed, for each name, with the interval of their mean."""
    families = list(dict.fromkeys(arm.rsplit(",", 1)[0] for arm, _ in names))
    for position, name in enumerate(reversed(names)):
        own = values([row for row in rows if place(row) == name], "average_accuracy")
        colour = COLOURS[families.index(name[0].rsplit(",", 1)[0])]
        if own:
            axes.plot(own, [position] * len(own), "o", color=colour, alpha=0.35, markersize=4)
            axes.errorbar(statistics.fmean(own), position, xerr=half_interval(own), fmt="|", color=colour, capsize=3)
    axes.set_yticks(range(len(names)), [", ".join(filter(None, name)) for name in reversed(names)], fontsize=8)
    axes.set_xlabel(f"{ACCURACY}; points: seeds; bar: 95 % interval of their mean")
    axes.grid(axis="x", color="0.93")
