"""What docs/results.md and docs/methods.md show of the rows of docs/data: our cells beside the published ones."""

import itertools

import numpy as np
from pandas import DataFrame, Series

from lifelong.config.schema import COMPATS
from lifelong.plots.report.tables import number, plus_minus
from studies.pages import markdown, power
from studies.protocols import Protocol, Published, protocol, read_protocols

TRIED = "tried"
"""In the place of a column: runs that depart from a row as published to find a reason. They are in no table."""
NEAR = 2.0
"""Combined standard errors within which a cell agrees with the published one."""


def distance(ours: Series, published: Published) -> float:
    """|mean of `ours` − published| over the standard error of the difference; accuracies in percent.

    A side whose spread is unknown, for the source prints none or one run was made, is taken to spread as the other;
    nan where neither is known.
    """
    spreads = [ours.std(), published.sem * published.n**0.5]
    known = [spread for spread in spreads if not np.isnan(spread)]
    ours_spread, published_spread = (known[0] if np.isnan(s) and known else s for s in spreads)
    error = np.sqrt(ours_spread**2 / len(ours) + published_spread**2 / published.n)
    return float(abs(ours.mean() - published.value) / error) if error > 0 else float("nan")


def with_error(value: float, sem: float, n: int) -> str:
    """mean ± its standard error (n), in percent."""
    return number(value, 2) + ("" if np.isnan(sem) else f" ± {number(sem, 2)}") + f" ({n})"


def _ours(rows: DataFrame) -> str:
    done, lost = _accuracies(rows), (rows["failed"] != "").sum()
    mean = with_error(done.mean(), done.sem(), len(done)) if len(done) else ""
    return f"{mean}, {lost} diverged".removeprefix(", ") if lost else mean


def _accuracies(rows: DataFrame) -> Series:
    """Of the runs that finished, in percent."""
    return 100 * rows.loc[rows["failed"] == "", "average_accuracy"]


def _strength(rows: DataFrame) -> str:
    known = rows["strength"].dropna()
    return power(known.iloc[0]) if len(known) else ""


def results_table(plan: Protocol, rows: DataFrame, tuning: DataFrame) -> DataFrame:
    """Cells of text: a row per row of the protocol that was published or run."""
    shown = []
    for row in plan.every:
        ours, cell = rows[rows["method"] == row], plan.published.get(row)
        published, right = (ours[ours["compat"] == compat] for compat in COMPATS)
        if ours.empty and cell is None:
            continue
        if right.empty and len(published) and plan.place(row, "right") == plan.place(row, "published"):
            right = published
        tried = tuning.loc[tuning["method"] == row, "strength"]
        far, last = _distance(published, cell), ours if right.empty else right
        shown.append({
            "row": row,
            plan.source or "published": "" if cell is None else with_error(cell.value, cell.sem, cell.n),
            "as published": _ours(published),
            "λ": _strength(published),
            "distance": "" if np.isnan(far) else number(far, 2),
            "done right": _ours(right),
            "λ (tried)": _strength(right) + (f" ({power(tried.min())}–{power(tried.max())})" if len(tried) else ""),
            "forgetting": number(100 * last["forgetting"].mean(), 1) if len(ours) else "",
            "seconds": number(last["seconds"].mean(), 0) if len(ours) else "",
        })  # fmt: skip
    return DataFrame(shown)


def _distance(published: DataFrame, cell: Published | None) -> float:
    accuracies = _accuracies(published)
    return distance(accuracies, cell) if cell and len(accuracies) else float("nan")


def overview(tables: dict[tuple[str, str], tuple[DataFrame, DataFrame]]) -> DataFrame:
    """A row per protocol: how many published cells ours is near, with how many seeds, and the hours of all runs."""
    shown = []
    for (name, data), (rows, tuning) in tables.items():
        plan = protocol(name, data)
        as_published = rows[rows["compat"] == "published"]
        far = [_distance(as_published[as_published["method"] == row], cell) for row, cell in plan.published.items()]
        known = [value for value in far if not np.isnan(value)]
        near = sum(value <= NEAR for value in known)
        hours = (rows["seconds"].sum() + tuning["seconds"].sum()) / 3600
        shown.append({
            "protocol": name,
            "data": plan.data_title.split(" (")[0],
            "published cells": str(len(plan.published)),
            "compared": str(len(known)),
            "within 2 standard errors": f"{near} ({100 * near / len(known):.0f} %)" if known else "",
            "seeds, as published": _seeds(as_published),
            "seeds, done right": _seeds(rows[rows["compat"] == "right"]),
            "hours": number(hours, 1),
        })  # fmt: skip
    return DataFrame(shown)


def _seeds(rows: DataFrame) -> str:
    """How many a row of the table has: 5, or 3–10."""
    counts = rows.groupby("method")["seed"].nunique()
    return "–".join(map(str, sorted({counts.min(), counts.max()}))) if len(counts) else ""


def described(plan: Protocol, rows: DataFrame, tuning: DataFrame) -> str:
    """What was run, above a table."""
    pairs = dict.fromkeys(zip(rows["method"], rows["changed"], strict=True))
    changed = "; ".join(f"{method} `{how}`" for method, how in pairs if how)
    lines = [f"`{' '.join(plan.overrides)}`" + f"; **changed here:** {changed}" * bool(changed)]
    if len(tuning):
        known = sorted(tuning["seed"].unique())
        seeds = f"at seed {known[0]}" if len(known) == 1 else f"mean over seeds {', '.join(map(str, known))}"
        edge = ", ".join(dict.fromkeys(tuning.loc[tuning["at_edge"] == "yes", "method"]))
        at_edge = f"; at the end of all that may be tried: {edge}" if edge else ""
        how = f"validation accuracy with `{tuning['chosen_with'].iloc[0]}`, {seeds}"
        lost = (tuning["failed"] != "").sum()
        lines.append(f"Strengths: {len(tuning)} runs, {lost} of them diverged; {how}{at_edge}.")
    return "\n\n".join(lines)


def page_tables(results: DataFrame, tuning: DataFrame) -> dict[str, str]:
    """name → markdown, of every protocol and data there are rows of, and of the overview."""
    known, tables, found = read_protocols(), {}, {}
    for name, data in itertools.product(known["protocols"], known["sources"]):
        rows, grid = (table[(table["protocol"] == name) & (table["data"] == data)] for table in (results, tuning))
        rows = rows[rows["compat"] != TRIED]
        plan = protocol(name, data)
        if len(rows) and not plan.family:
            tables[name, data] = rows, grid
            found[f"{name} {data}"] = f"{described(plan, rows, grid)}\n\n{markdown(results_table(plan, rows, grid))}"
    return {"overview": markdown(overview(tables)), **found}


def all_methods(results: DataFrame) -> DataFrame:
    """Cells of text: a row per method, a column per stream that all methods were run on."""
    plans = [plan for name in read_protocols()["protocols"] if (plan := protocol(name, "mnist5k")).family]
    ours = results[results["protocol"].isin([plan.name for plan in plans])]
    shown = []
    for method in dict.fromkeys(row for plan in plans for row in plan.rows_of("right")):
        rows = ours[ours["method"] == method]
        if rows.empty:
            continue
        cells = {plan.family: _cell(rows[rows["protocol"] == plan.name]) for plan in plans}
        seconds, kept = number(rows["seconds"].mean(), 0), number(rows["kept_bytes"].max() / 1e6)
        shown.append({"method": method, **cells, "seconds": seconds, "kept, MB": kept})
    return DataFrame(shown)


def _cell(rows: DataFrame) -> str:
    """accuracy ± its interval, forgetting in brackets, λ, and how many runs diverged."""
    if rows.empty:
        return ""
    lost = (rows["failed"] != "").sum()
    at = "" if rows["strength"].isna().all() else f", λ {power(rows['strength'].iloc[0])}"
    diverged = f", {lost} diverged" * bool(lost)
    return f"{plus_minus(rows['average_accuracy'])} ({number(100 * rows['forgetting'].mean())}){at}{diverged}"
