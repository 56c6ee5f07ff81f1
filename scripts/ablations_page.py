"""docs/ablations.md and its figures: every number and word of comparison computed from docs/data/ablations.csv."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations_plan import ABLATIONS, Ablation
from lifelong.figures import save_figure
from results_page import half_interval, plus_minus

Row = dict[str, str]
INTRODUCTION = """# Ablations

Made by `python scripts/ablations.py` from [data/ablations.csv](data/ablations.csv) (a line per run, with its run id);
no number here is typed. `python scripts/ablations.py NAME` trains what is missing of one of them. Test accuracies after
the last task in points of 100, ± the 95 % confidence interval over seeds (Student's t); where λ varies, arms are
compared at the λ that is best on validation data, and a band is all seeds.
"""


def values(rows: Sequence[Row], key: str) -> list[float]:
    """Of the runs that finished, in points of 100."""
    return [100 * float(row[key]) for row in rows if not row["failed"] and row[key]]


def labels_of(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["arm"] for row in rows))


def best_rows(rows: Sequence[Row], arm: str) -> list[Row]:
    """The arm's runs, at the x where it does best on validation data if its x is λ (no run of which failed)."""
    own = [row for row in rows if row["arm"] == arm]
    xs = [x for x in dict.fromkeys(row["x"] for row in own) if not any(r["failed"] for r in own if r["x"] == x)]
    if not xs:
        return []
    best = max(xs, key=lambda x: statistics.fmean(values([r for r in own if r["x"] == x], "val_average_accuracy")))
    return [row for row in own if row["x"] == best]


def compared(rows: Sequence[Row], ablation: Ablation) -> dict[str, list[Row]]:
    """label → the runs it is compared by."""
    by_strength = ablation.axis == "λ"
    arms = {a: best_rows(rows, a) if by_strength else [r for r in rows if r["arm"] == a] for a in labels_of(rows)}
    return {arm: members for arm, members in arms.items() if values(members, "average_accuracy")}


# Figures ------------------------------------------------------------------------------------------------------------


def draw(ablation: Ablation, rows: Sequence[Row], docs: Path) -> None:
    """docs/ablation_NAME.png."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.add_subplot()
    if ablation.axis == "λ":
        curves(axes, rows)
    elif ablation.axis:
        bars(axes, [(f"{r['arm']}, {r['x']}", r) for r in rows])
    else:
        bars(axes, [(r["arm"], r) for r in rows])
    axes.set_title(ablation.question, fontsize=9, loc="left")
    save_figure(figure, docs / f"ablation_{ablation.name}.png")


def curves(axes: Axes, rows: Sequence[Row]) -> None:
    """Mean accuracy over λ; a λ at which a run failed is left out of the curve and crossed at the bottom."""
    for number, arm in enumerate(labels_of(rows)):
        own = [row for row in rows if row["arm"] == arm]
        xs = list(dict.fromkeys(row["x"] for row in own))
        sound = [x for x in xs if not any(r["failed"] for r in own if r["x"] == x)]
        at = [values([r for r in own if r["x"] == x], "average_accuracy") for x in sound]
        style = "--" if arm.endswith("proximal") else "-"
        color = f"C{number // 2 if arm.endswith(('proximal', 'gradient')) else number}"
        axes.plot(
            [float(x) for x in sound], [statistics.fmean(v) for v in at], style, marker=".", label=arm, color=color
        )
        low = [min(v) for v in at]
        axes.fill_between([float(x) for x in sound], low, [max(v) for v in at], alpha=0.15, color=color)
        lost = [float(x) for x in xs if x not in sound]
        axes.plot(lost, [-2.0 * number] * len(lost), "x", color=color)  # below one another
    axes.set_xscale("log")
    axes.set_xlabel("λ (× at the bottom: a run diverged; band: over seeds)", fontsize=8)
    axes.set_ylabel("average accuracy")
    axes.legend(fontsize=7)


def bars(axes: Axes, named: Sequence[tuple[str, Row]]) -> None:
    """A row of points for each name, with the interval of their mean."""
    names = list(dict.fromkeys(name for name, _ in named))
    for position, name in enumerate(reversed(names)):
        own = values([row for n, row in named if n == name], "average_accuracy")
        if own:
            axes.plot(own, [position] * len(own), "o", color="C0", alpha=0.4, markersize=4)
            axes.errorbar(statistics.fmean(own), position, xerr=half_interval(own), fmt="|", color="C0", capsize=3)
    axes.set_yticks(range(len(names)), list(reversed(names)), fontsize=7)
    axes.set_xlabel("average accuracy (points: seeds; bar: 95 % interval of their mean)", fontsize=8)


# Text ---------------------------------------------------------------------------------------------------------------


def page(rows: Sequence[Row]) -> str:
    parts = [INTRODUCTION.strip()]
    for ablation in ABLATIONS.values():
        own = [row for row in rows if row["ablation"] == ablation.name]
        parts.append(f"## {ablation.question}")
        if not own:
            parts.append(f"Not run: `python scripts/ablations.py {ablation.name}`.")
            continue
        parts.append(f"{ablation.setting}; {len(own)} runs.")
        parts.append(f"![{ablation.question}](ablation_{ablation.name}.png)")
        parts.append(" ".join(sentences(ablation, own)))
    return "\n\n".join(parts) + "\n"


def sentences(ablation: Ablation, rows: Sequence[Row]) -> list[str]:
    """Three: how the arms rank, what the reference differs by seed by seed, and what is particular to the ablation."""
    arms = compared(rows, ablation)
    if not arms:
        return ["No run finished."]
    return [ranking(ablation, arms), against(ablation, arms), particular(ablation, rows, arms)]


def ranking(ablation: Ablation, arms: dict[str, list[Row]]) -> str:
    means = {arm: values(members, "average_accuracy") for arm, members in arms.items()}
    ordered = sorted(means, key=lambda arm: -statistics.fmean(means[arm]))
    by_strength = ablation.axis == "λ"
    said = [
        f"{a} {plus_minus(means[a])}" + (f" (λ = {float(arms[a][0]['x']):g})" if by_strength else "") for a in ordered
    ]
    return f"From best to worst: {', '.join(said)}."


def against(ablation: Ablation, arms: dict[str, list[Row]]) -> str:
    """Differences from the reference, paired by x and seed, and whether their interval leaves zero out."""
    if ablation.reference not in arms or len(arms) == 1:
        return ""
    said = []
    for arm, members in arms.items():
        if arm != ablation.reference:
            pairs = differences(members, arms[ablation.reference], ablation.axis == "order")
            half = half_interval(pairs)
            settled = not math.isnan(half) and abs(statistics.fmean(pairs)) > half
            spread = "" if math.isnan(half) else f" ± {half:.1f}"
            said.append(f"{arm} {statistics.fmean(pairs):+.1f}{spread}{'' if settled else ' (not settled)'}")
    return f"Against {ablation.reference}, seed by seed: {', '.join(said)}."


def differences(members: Sequence[Row], reference: Sequence[Row], by_x: bool) -> list[float]:
    def key(row: Row) -> tuple[str, str]:
        return (row["x"] if by_x else "", row["seed"])

    base = {key(row): row for row in reference if not row["failed"]}
    return [
        100 * (float(row["average_accuracy"]) - float(base[key(row)]["average_accuracy"]))
        for row in members
        if not row["failed"] and key(row) in base
    ]


def particular(ablation: Ablation, rows: Sequence[Row], arms: dict[str, list[Row]]) -> str:
    if ablation.name == "order":
        return of_order(arms)
    if ablation.name == "rwalk_samplers":
        return of_budgets(arms)
    if ablation.axis == "λ":
        return of_strengths(rows)
    spread = {arm: statistics.stdev(values(members, "average_accuracy")) for arm, members in arms.items()}
    widest = max(spread, key=lambda arm: spread[arm])
    forgets = {arm: statistics.fmean(values(members, "forgetting")) for arm, members in arms.items()}
    least = min(forgets, key=lambda arm: forgets[arm])
    return (
        f"Most over seeds varies {widest}, by {spread[widest]:.1f} points of standard deviation;"
        f" {least} forgets least ({forgets[least]:.1f})."
    )


def of_strengths(rows: Sequence[Row]) -> str:
    """Which share of the runs diverged, and over how many decades an arm stays within two points of its best."""
    said = []
    for arm in labels_of(rows):
        own = [row for row in rows if row["arm"] == arm]
        lost = sum(bool(row["failed"]) for row in own) / len(own)
        at = {
            x: values([r for r in own if r["x"] == x], "average_accuracy") for x in dict.fromkeys(r["x"] for r in own)
        }
        means = [statistics.fmean(v) for v in at.values() if v]
        within = sum(mean > max(means) - 2 for mean in means) if means else 0
        said.append(f"{arm} {100 * lost:.0f} % and {within}")
    return f"Share of runs that diverged, and number of decades within 2 points of the best: {', '.join(said)}."


def of_order(arms: dict[str, list[Row]]) -> str:
    said = []
    for arm, members in arms.items():
        orders = [
            values([r for r in members if r["x"] == x], "average_accuracy")
            for x in dict.fromkeys(r["x"] for r in members)
        ]
        between = statistics.stdev([statistics.fmean(v) for v in orders])
        within = math.sqrt(statistics.fmean([statistics.variance(v) for v in orders]))
        said.append(f"{arm} {between:.1f} and {within:.1f}")
    return f"Standard deviation between orders and, within an order, between seeds: {', '.join(said)}."


def of_budgets(arms: dict[str, list[Row]]) -> str:
    said = []
    for name in dict.fromkeys(arm.rsplit(",", 1)[0] for arm in arms):
        small, large = (arms.get(f"{name}, {num}", []) for num in (10, 20))
        gain = differences(large, small, by_x=False)
        if gain:
            said.append(f"{name} {plus_minus(gain)}")
    return f"What 20 exemplars a class add to 10: {', '.join(said)}."
