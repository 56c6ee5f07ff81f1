"""Means over seeds with their intervals: the one place where ± is made, for terminal, page, CSV and LaTeX."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from pandas import DataFrame, Series
from scipy.stats import t

from lifelong.plots.report.names import ENTRY, has_strength
from lifelong.plots.report.runs import BYTES, MEASURES, PHASES
from lifelong.plots.report.significance import holm, iqm, iqm_interval, permutation_p

DASH = "–"
MIN_SEEDS = 3
"""Of an interval that is drawn: that of two is 12.7 standard errors to either side, and would hide all else."""


def half_width(values: Iterable[float]) -> float:
    """Half the width of Student's 95 % interval of the mean, t(0.975; n − 1) · s/√n; nan for fewer than two values.

    It supposes that seeds are independent and their measures about normal. nan among `values` does not count.
    """
    known = Series(values, dtype=float).dropna()
    return float(t.ppf(0.975, len(known) - 1) * known.sem()) if len(known) > 1 else np.nan


def interval(values: Iterable[float]) -> tuple[float, float]:
    """The 95 % confidence interval as it is drawn: nan, which draws nothing, below MIN_SEEDS values."""
    known = Series(values).dropna()
    half = half_width(known) if len(known) >= MIN_SEEDS else np.nan
    return known.mean() - half, known.mean() + half


def number(value: float, digits: int = 1) -> str:
    """Fixed point, never "-0.0"; a dash for nan."""
    return DASH if pd.isna(value) else f"{round(value, digits) + 0.0:.{digits}f}"


def plus_minus(values: Iterable[float], scale: float = 100, digits: int = 1) -> str:
    """mean ± half width of the 95 % interval; the mean alone of a single value, a dash of none.

    >>> plus_minus([0.5]), plus_minus([0.49, 0.51]), plus_minus([float("nan")])
    ('50.0', '50.0 ± 12.7', '–')
    >>> plus_minus([-0.0004, 0.0])
    '0.0 ± 0.3'
    """
    known = scale * Series(values, dtype=float).dropna()
    text = number(known.mean(), digits)
    return text if len(known) < 2 else f"{text} ± {number(half_width(known), digits)}"


def summary(runs: DataFrame) -> DataFrame:
    """A row per entry, indexed by ENTRY: seeds; of each measure, in [0, 1], the mean, the half width of the 95 %
    interval (_ci95) and the number of seeds that have it (_n); and whether it is the best of its line (best)."""
    groups = runs[runs["state"] == "finished"].groupby(ENTRY)
    table = groups[list(MEASURES)].agg(["mean", half_width, "count"])
    suffixes = {"mean": "", "half_width": "_ci95", "count": "_n"}
    table.columns = [f"{key}{suffixes[kind]}" for key, kind in table.columns]
    table.insert(0, "seeds", groups.size())
    best = [_best(entries) for _, entries in table.groupby(ENTRY[:2])]
    return table.assign(best=table.index.isin([entry for entry in best if entry is not None]))


def _best(entries: DataFrame) -> tuple | None:
    """The entry of the highest mean validation accuracy; without validation data the only one, else None.

    Among those with the most finished seeds: a mean that lacks a hard seed would win.
    """
    if len(entries) == 1:
        return entries.index[0]
    scores = entries.loc[entries["seeds"] == entries["seeds"].max(), "val_average_accuracy"].dropna()
    return scores.idxmax() if len(scores) else None


def best_runs(runs: DataFrame) -> DataFrame:
    """The finished runs of each line's best entry."""
    table = summary(runs)
    chosen = runs.set_index(ENTRY).index.isin(table.index[table["best"]])
    return runs[chosen & (runs["state"] == "finished")]


def reference(runs: DataFrame) -> str | None:
    """What others are compared with: the line of the highest mean validation accuracy among those with the most runs.

    Never joint, which keeps all data; None without validation data, as test accuracy has no part in a choice.
    """
    scores = runs[runs["method"] != "joint"].groupby("line")["val_average_accuracy"].agg(["size", "mean"]).dropna()
    return str(scores.loc[scores["size"] == scores["size"].max(), "mean"].idxmax()) if len(scores) else None


def in_all_streams(best: DataFrame) -> DataFrame:
    """Of `best_runs`, those of the lines that every section has."""
    return best[best.groupby("line")["section"].transform("nunique") == best["section"].nunique()]


def comparison_table(runs: DataFrame, first: str | None, key: str = "average_accuracy") -> DataFrame:
    """Cells of text, a row per line, highest first, in points of 100: its runs, how far they are from those of `first`.

    Runs are paired by stream and seed. IQM: of all runs, its 95 % bootstrap interval stratified by stream; difference:
    mean over pairs ± 95 % interval; p: of the paired permutation test; Holm: corrected for the rows of the table.
    """
    known = runs.dropna(subset=[key])
    scores = {line: 100 * own.groupby(["section", "seed"])[key].mean() for line, own in known.groupby("line")}
    base = {line: scores.get(str(first), own) for line, own in scores.items()}
    pairs = {line: (own - base[line]).dropna() if base[line] is not own else own[:0] for line, own in scores.items()}
    p = Series({line: permutation_p(differences) for line, differences in pairs.items()}, dtype=float)
    corrected, rows = holm(p), []
    for line, own in sorted(scores.items(), key=lambda item: -iqm(item[1])):
        strata = [values for _, values in own.groupby("section")]
        low, high = map(number, iqm_interval(*strata))
        row = {"method": line, "runs": str(len(own))}
        row["mean"] = plus_minus(own, 1) if len(strata) == 1 else number(own.mean())
        row["IQM"] = number(iqm(own)) + f" [{low}, {high}]" * (low != DASH)
        if first in scores:
            change = plus_minus(pairs[line], 1)
            row |= {"pairs": str(len(pairs[line])), "difference": "+" * (change[0] not in f"-{DASH}") + change}
            row |= {"p": p_text(p[line]), "Holm": p_text(corrected[line])}
        rows.append(row)
    return DataFrame(rows)


def p_text(p: float) -> str:
    """Three digits that count; a dash for nan."""
    return DASH if pd.isna(p) else f"{p:.3g}"


def shown_measures(runs: DataFrame) -> list[str]:
    """The measures that some run has; forward transfer says nothing where classes are masked until they are learned."""
    hidden = {"forward_transfer"} if (runs["scenario"].dropna() == "class").all() else set()
    return [key for key in MEASURES if key not in hidden and runs[key].notna().any()]


def result_table(runs: DataFrame, measures: Iterable[str]) -> DataFrame:
    """Cells of text, a row per entry, in points of 100; fewer seeds than the row has are said."""
    swept, rows = has_strength(runs), []
    finished = runs[runs["state"] == "finished"]
    for (_, line, strength), members in finished.groupby(ENTRY):
        row = {"method": line, "λ": f"{strength:g}" if swept[line] else DASH, "seeds": str(len(members))}
        for key in measures:
            known = members[key].count()
            row[MEASURES[key]] = plus_minus(members[key]) + f" (n = {known})" * (bool(0 < known < len(members)))
        rows.append(row | {"seconds": plus_minus(members["seconds"], 1, 0)})
    return DataFrame(rows)


def cost_table(runs: DataFrame) -> DataFrame:
    """Cells of text, a row per line: seconds by phase and megabytes, means over its finished runs; the largest peak."""
    rows = []
    for line, members in runs[runs["state"] == "finished"].groupby("line"):
        row = {"method": line, "runs": str(len(members))}
        row |= {f"{phase} (s)": plus_minus(members[f"{phase}_seconds"], 1, 2) for phase in PHASES}
        row["all (s)"] = plus_minus(members["seconds"], 1, 2)
        row |= {title: number(getattr(members[key], "max" if "peak" in key else "mean")() / 1e6, 2)
                for key, title in BYTES.items()}  # fmt: skip
        rows.append(row)
    return DataFrame(rows)


def mean_matrix(entry: DataFrame) -> DataFrame:
    """(T, T) in percent, mean over the runs of an entry; rows: after learning, columns: tested on.

    Where the seeds' tasks come in different orders, the k-th task of each stands for "task k".
    """
    names = entry["tasks"].iloc[0]
    if not all(tasks == names for tasks in entry["tasks"]):
        names = [f"task {k + 1}" for k in range(len(names))]
    return DataFrame(100 * np.mean(np.stack(entry["matrix"].tolist()), axis=0), index=names, columns=names)


def matrices(runs: DataFrame) -> DataFrame:
    """A row per cell of the mean accuracy matrix of every entry: test accuracy in [0, 1]."""
    finished = runs[runs["state"] == "finished"].groupby(ENTRY)
    tables = {entry: mean_matrix(members).stack() / 100 for entry, members in finished}
    return pd.concat(tables, names=[*ENTRY, "after_learning", "tested_on"]).rename("accuracy").reset_index()


def latex(table: DataFrame, best: Iterable[bool], title: str) -> str:
    """A booktabs table of `result_table`, its best rows in bold."""
    bold = dict(zip(table.index, best, strict=True))
    cells = table.replace({"±": r"$\\pm$", DASH: "--", r"^-(?=\d)": "$-$"}, regex=True)
    style = cells.rename(columns={"λ": r"$\lambda$"}).style.hide(axis="index").format(escape="latex-math")
    style.format_index(escape="latex-math", axis="columns")
    style.apply(lambda row: ["textbf:--rwrap" if bold[row.name] else ""] * len(row), axis=1)
    head = f"% needs \\usepackage{{booktabs}}\n% {title}: points of 100, mean ± 95 % confidence interval over seeds\n"
    note = "% bold: the strength with the highest validation accuracy\n"
    return head + note + style.to_latex(hrules=True, column_format="lr" + "r" * (len(table.columns) - 2))
