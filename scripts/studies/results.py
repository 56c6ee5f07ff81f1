"""The tables of docs/results.md, made of docs/data/results.csv and tuning.csv: one per protocol, a row per method."""

import itertools

import numpy as np
from pandas import DataFrame, Series

from lifelong.plots.report.tables import half_width, number, plus_minus
from studies.pages import markdown, power
from studies.protocols import BOUNDS, METHODS, Protocol, protocol, read_protocols

HELD = [method for method in METHODS if method not in BOUNDS]


def gap_closed(rows: DataFrame, method: str) -> str:
    """100 (accuracy − finetune) / (joint − finetune), a ratio of means over the seeds that all three have.

    Its interval is Student's of the ratio's linearisation, (gain − share · way) / mean way for each seed. Empty where a
    bound was not run, a seed of the method failed, or joint is not above finetune.
    """
    if (rows.loc[rows["method"] == method, "failed"] != "").any():
        return ""
    table = rows.pivot(index="seed", columns="method", values="average_accuracy")
    if not {method, *BOUNDS} <= set(table):
        return ""
    table = table[[method, *BOUNDS]].dropna()
    gain, way = table[method] - table["finetune"], table["joint"] - table["finetune"]
    if table.empty or way.mean() <= 0:
        return ""
    share = gain.mean() / way.mean()
    half = 100 * half_width((gain - share * way) / way.mean())
    return number(100 * share, 0) + ("" if np.isnan(half) else f" ± {number(half, 0)}")


def results_table(plan: Protocol, rows: DataFrame, tuning: DataFrame) -> DataFrame:
    """Cells of text: a row per method that was run, on the protocol's data."""
    shown = []
    for method in METHODS:
        ours = rows[rows["method"] == method]
        if ours.empty:
            continue
        done, tried = ours[ours["failed"] == ""], tuning.loc[tuning["method"] == method, "strength"]
        around = f" ({power(tried.min())}–{power(tried.max())})" if len(tried) else ""
        lost = f" ({len(ours) - len(done)} diverged)" if len(done) < len(ours) else ""
        shown.append({
            "method": method,
            "λ (tried)": "" if method in BOUNDS else power(ours["strength"].iloc[0]) + around,
            "average accuracy": plus_minus(done["average_accuracy"]),
            "forgetting": plus_minus(done["forgetting"]),
            "learning accuracy": plus_minus(done["learning_accuracy"]),
            "gap closed, %": "" if method in BOUNDS else gap_closed(rows, method),
            "seconds": number(done["seconds"].mean(), 0),
            "seeds": f"{len(done)}{lost}",
            f"published ({plan.source}; MNIST)": f"{plan.published[method]:g}" if method in plan.published else "",
        })  # fmt: skip
    return DataFrame(shown)


def overview(tables: dict[tuple[str, str], DataFrame]) -> DataFrame:
    """The shares of the gap closed: a row per protocol, a column per method."""
    shown = []
    for (name, data), rows in tables.items():
        cells = {method: _gap_or_divergence(rows, method) for method in HELD}
        if any(cells.values()):
            title = protocol(name, data).data_title.split(" (")[0]
            shown.append({"gap closed, %": f"{name}, {title}", **cells, "seeds": str(rows["seed"].nunique())})
    return DataFrame(shown)


def _gap_or_divergence(rows: DataFrame, method: str) -> str:
    lost: Series = rows.loc[rows["method"] == method, "failed"] != ""
    return f"{lost.sum()} of {len(lost)} diverged" if lost.any() else gap_closed(rows, method)


def described(plan: Protocol, rows: DataFrame, tuning: DataFrame) -> str:
    """What was run, above a table."""
    changed = "; ".join(dict.fromkeys(filter(None, rows["changed"])))
    lines = [f"`{' '.join([*plan.overrides, *plan.penalties])}`" + f"; **changed here:** `{changed}`" * bool(changed)]
    if len(tuning):
        seeds = ", ".join(map(str, sorted(tuning["seed"].unique())))
        edge = ", ".join(dict.fromkeys(tuning.loc[tuning["at_edge"] == "yes", "method"]))
        at_edge = f"; at the end of all that may be tried: {edge}" if edge else ""
        how = f"validation accuracy with `{tuning['chosen_with'].iloc[0]}`, mean over seeds {seeds}"
        lost = (tuning["failed"] != "").sum()
        lines.append(f"Strengths: {len(tuning)} runs, {lost} of them diverged; {how}{at_edge}.")
    return "\n\n".join(lines)


def page_tables(results: DataFrame, tuning: DataFrame) -> dict[str, str]:
    """name → markdown, of every protocol and data there are rows of, and of the overview."""
    known, tables, found = read_protocols(), {}, {}
    for name, data in itertools.product(known["protocols"], known["sources"]):
        rows, grid = (table[(table["protocol"] == name) & (table["data"] == data)] for table in (results, tuning))
        if len(rows):
            plan = protocol(name, data)
            tables[name, data] = rows
            found[f"{name} {data}"] = f"{described(plan, rows, grid)}\n\n{markdown(results_table(plan, rows, grid))}"
    return {"overview": markdown(overview(tables)), **found}
