"""The text of docs/ablations.md: every number and word of comparison computed from docs/data/ablations.csv."""

import math
import statistics
from collections.abc import Iterable, Sequence

from studies.ablations_figures import arms
from studies.ablations_plan import ABLATIONS, Ablation
from studies.results_stats import Row, by_seed, listed, plus_minus, settled, signed, values

INTRODUCTION = """# Ablations

Made by `python scripts/ablations.py` from [data/ablations.csv](data/ablations.csv) (a line per run, with its run id);
no number here is typed. `python scripts/ablations.py NAME` trains what is missing of one of them. Test accuracies after
the last task in points of 100, ± the 95 % confidence interval over seeds (Student's t). Where λ varies, arms are
compared at the λ that is best on validation data. A difference is *settled* if the interval of its mean, paired by
seed, leaves zero out (each by itself: nothing is corrected for there being many); it is settled for these strengths and
these orders of tasks, whose choice no interval covers.
"""
Arms = dict[str, list[Row]]


def by_x(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["x"], []).append(row)
    return found


def best_rows(rows: Sequence[Row], arm: str) -> list[Row]:
    """The arm's runs, at the x where it does best on validation data if its x is λ (no run of which failed)."""
    at = by_x(row for row in rows if row["arm"] == arm)
    sound = [members for members in at.values() if not any(row["failed"] for row in members)]
    return max(sound, key=lambda members: statistics.fmean(values(members, "val_average_accuracy")), default=[])


def compared(rows: Sequence[Row], ablation: Ablation) -> Arms:
    """label → the runs it is compared by."""
    by_strength = ablation.axis == "λ"
    found = {a: best_rows(rows, a) if by_strength else [r for r in rows if r["arm"] == a] for a in arms(rows)}
    return {arm: members for arm, members in found.items() if values(members, "average_accuracy")}


def page(rows: Sequence[Row]) -> str:
    parts = [INTRODUCTION.strip()]
    for ablation in ABLATIONS.values():
        own = [row for row in rows if row["ablation"] == ablation.name]
        parts.append(f"## {ablation.question}")
        if not own:
            parts.append(f"Not run: `python scripts/ablations.py {ablation.name}`.")
            continue
        seeds = len({row["seed"] for row in own})
        parts.append(f"{ablation.setting}; {seeds} seeds, {len(own)} runs.")
        parts.append(f"![{ablation.question}](ablation_{ablation.name}.png)")
        found = compared(own, ablation)
        if found:
            parts.append(table(ablation, own, found))
        parts.append(" ".join(sentences(ablation, own, found)))
    return "\n\n".join(parts) + "\n"


# Table ----------------------------------------------------------------------------------------------------------------


def table(ablation: Ablation, rows: Sequence[Row], found: Arms) -> str:
    by_strength = ablation.axis == "λ"
    strength = " best λ |" if by_strength else ""
    lost = " runs that diverged |" if by_strength else ""
    lines = [f"| |{strength} average accuracy | forgetting | less that of {ablation.reference.lstrip(', ')} |{lost}"]
    lines.append("|---" * (lines[0].count("|") - 1) + "|")
    for arm, members in found.items():
        cells = [arm, *([strength_of(rows, arm, members)] if by_strength else [])]
        cells += [plus_minus(by_seed(members, key).values()) for key in ("average_accuracy", "forgetting")]
        pairs = paired(ablation, arm, found)
        cells.append("" if arm.endswith(ablation.reference) or not pairs else signed(pairs))
        if by_strength:
            own = [row for row in rows if row["arm"] == arm]
            cells.append(f"{sum(bool(row['failed']) for row in own)} of {len(own)}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def strength_of(rows: Sequence[Row], arm: str, members: Sequence[Row]) -> str:
    """The arm's best λ, and whether it is the last that was tried."""
    tried = [float(x) for x in by_x(row for row in rows if row["arm"] == arm)]
    best = float(members[0]["x"])
    return f"{best:g}" + (" (end of grid)" if len(tried) > 1 and best in (min(tried), max(tried)) else "")


def paired(ablation: Ablation, arm: str, found: Arms) -> list[float]:
    """Differences from the reference; none for the reference itself."""
    beside = ablation.reference.startswith(",")
    reference = arm.split(",")[0] + ablation.reference if beside else ablation.reference
    return [] if arm == reference else differences(found[arm], found.get(reference, []), ablation.axis == "order")


def differences(members: Sequence[Row], reference: Sequence[Row], with_x: bool) -> list[float]:
    """Of average accuracies in points of 100, one for each seed; with_x: the mean of those that are paired by x."""

    def key(row: Row) -> tuple[str, str]:
        return (row["x"] if with_x else "", row["seed"])

    base = {key(row): row for row in reference if not row["failed"]}
    found: dict[str, list[float]] = {}
    for row in members:
        if not row["failed"] and key(row) in base:
            less = float(row["average_accuracy"]) - float(base[key(row)]["average_accuracy"])
            found.setdefault(row["seed"], []).append(100 * less)
    return [statistics.fmean(of_seed) for of_seed in found.values()]


# Sentences ------------------------------------------------------------------------------------------------------------


def sentences(ablation: Ablation, rows: Sequence[Row], found: Arms) -> list[str]:
    """Three: which arm ends highest, which differences are settled, and what is particular to the ablation."""
    if not found:
        return ["No run finished."]
    return [highest(found), against(ablation, found), particular(ablation, rows, found)]


def highest(found: Arms) -> str:
    means = {arm: list(by_seed(members, "average_accuracy").values()) for arm, members in found.items()}
    ordered = sorted(means, key=lambda arm: -statistics.fmean(means[arm]))
    first, last = (
        f"*{arm}* {where}, at {plus_minus(means[arm])}"
        for arm, where in ((ordered[0], "ends highest"), (ordered[-1], "lowest"))
    )
    return f"{first}, {last}."


def against(ablation: Ablation, found: Arms) -> str:
    """Which arms differ from the reference."""
    others = [arm for arm in found if paired(ablation, arm, found)]
    if not others:
        return "There is nothing to compare it with."
    reference = f"*{ablation.reference}*" if ablation.reference in found else "its" + ablation.reference[1:]
    sure = [arm for arm in others if settled(paired(ablation, arm, found))]
    unsure = [f"*{arm}*" for arm in others if arm not in sure]
    means = {arm: statistics.fmean(paired(ablation, arm, found)) for arm in sure}
    worse, better = ([f"*{arm}*" for arm in sure if (means[arm] > 0) is good] for good in (False, True))
    beside = f"than {reference}, settled by these seeds"
    said = [
        f"{listed(names)} {'end' if len(names) > 1 else 'ends'} {where} {beside}"
        for names, where in ((worse, "lower"), (better, "higher"))
        if names
    ]
    if unsure:
        it = "it" if sure else reference
        said.append(f"whether {listed(unsure)} {'differ' if len(unsure) > 1 else 'differs'} from {it} is not settled")
    text = "; ".join(said)
    return f"{text[0].upper()}{text[1:]}."


def particular(ablation: Ablation, rows: Sequence[Row], found: Arms) -> str:
    if ablation.name == "order":
        return of_order(found)
    if ablation.name == "rwalk_samplers":
        return of_budgets(found)
    if ablation.name == "steps":
        return of_steps(rows, found)
    if ablation.axis == "λ":
        return of_strengths(rows)
    spread = {arm: statistics.stdev(values(members, "average_accuracy")) for arm, members in found.items()}
    widest, narrowest = (choose(spread, key=lambda arm: spread[arm]) for choose in (max, min))
    return (
        f"The standard deviation over seeds is largest for *{widest}*, {spread[widest]:.1f} points, and smallest for"
        f" *{narrowest}*, {spread[narrowest]:.1f}."
    )


def of_strengths(rows: Sequence[Row]) -> str:
    """What a decade more or less costs at least, and how many runs diverged."""
    losses = {}
    for arm in arms(rows):
        own = by_x(row for row in rows if row["arm"] == arm)
        means = [statistics.fmean(found) for found in (values(m, "average_accuracy") for m in own.values()) if found]
        if len(means) > 1:
            first, second = sorted(means, reverse=True)[:2]
            losses[arm] = f"{first - second:.1f} points for *{arm}*"
    lost = sum(bool(row["failed"]) for row in rows)
    return (
        f"The second-best decade loses {listed(list(losses.values()))}, so that smaller differences may come of where"
        f" the decades lie; of all runs {f'{lost} diverged' if lost else 'none diverged'}."
    )


def of_steps(rows: Sequence[Row], found: Arms) -> str:
    """Shares of runs that diverged, and what the proximal step adds at each step's own best λ."""
    shares, gains = [], []
    for step in ("gradient", "proximal"):
        own = [row for row in rows if row["arm"].endswith(step)]
        lost = sum(bool(row["failed"]) for row in own)
        shares.append(f"{100 * lost / len(own):.0f} % of the {len(own)} runs by {step} step")
    for method in dict.fromkeys(arm.split(",")[0] for arm in found):
        proximal, gradient = (found.get(f"{method}, {step}", []) for step in ("proximal", "gradient"))
        if pairs := differences(proximal, gradient, with_x=False):
            gains.append(f"{signed(pairs)} for {method}")
    return f"Diverged have {listed(shares)}; at each one's best λ the proximal step adds {listed(gains)}."


def of_order(found: Arms) -> str:
    said = []
    for arm, members in found.items():
        orders = [values(own, "average_accuracy") for own in by_x(members).values()]
        between = statistics.stdev([statistics.fmean(v) for v in orders])
        within = math.sqrt(statistics.fmean([statistics.variance(v) for v in orders]))
        said.append(f"{between:.1f} and {within:.1f} for *{arm}*")
    return f"Between orders, and between seeds within an order, accuracies have standard deviations of {listed(said)}."


def of_budgets(found: Arms) -> str:
    said = []
    for name in dict.fromkeys(arm.rsplit(",", 1)[0] for arm in found):
        small, large = (found.get(f"{name}, {num}", []) for num in (10, 20))
        gain = differences(large, small, with_x=False)
        if gain:
            said.append(f"{plus_minus(gain)} points to *{name}*")
    return f"Twenty exemplars a class instead of ten add {listed(said)}."
