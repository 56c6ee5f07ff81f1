"""One page that holds everything, without script or network; beside it the figures and tables as files."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from pandas import DataFrame

from lifelong.plots.figures import save_figure
from lifelong.plots.report.analysed import ANALYSED
from lifelong.plots.report.names import slugs
from lifelong.plots.report.plots import curves_figure, matrices_figure, plane_figure, strength_figure, within_figure
from lifelong.plots.report.runs import missing, notes, problems, read_runs
from lifelong.plots.report.significance import pairs_needed
from lifelong.plots.report.tables import (
    best_runs,
    comparison_table,
    cost_table,
    in_all_streams,
    latex,
    matrices,
    reference,
    result_table,
    shown_measures,
    summary,
)
from lifelong.runs.atomic import atomic_write

FOLDER, PAGE = "report", "index.html"
FIGURES: dict[str, Callable[[DataFrame], Figure | None]] = {
    "strength": strength_figure,
    "plane": plane_figure,
    "matrices": matrices_figure,
    "curves": curves_figure,
    "within": within_figure,
}


def write_report(folder: Path) -> Path:
    """Read the runs below `folder`, write <folder>/report/ and return where its page is. The page comes last.

    Raises:
        FileNotFoundError: no run below `folder`.
    """
    runs = read_runs(folder)
    target = folder / FOLDER
    target.mkdir(exist_ok=True)
    names = slugs(title for title in runs["section"].unique() if title)
    shown = [_section(members, target / names[title]) for title, members in runs.groupby("section") if title]
    nested = ["config", "matrix", "tasks", "analysis"]
    flat = runs.drop(columns=nested, errors="ignore").assign(path=runs["path"].map(str))
    tables = {"runs.csv": flat.to_csv(index=False)}
    if (runs["state"] == "finished").any():
        tables |= {"summary.csv": summary(runs).to_csv(), "matrices.csv": matrices(runs).to_csv(index=False)}
    tables |= {f"{section['slug']}.tex": section["latex"] for section in shown if section["rows"]}
    environment = Environment(
        loader=PackageLoader("lifelong.plots.report", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    unfinished, best = problems(runs).to_dict("records"), best_runs(runs)
    page = environment.get_template("page.html").render(
        title=f"Report: {folder}", num_runs=(runs["state"] != "copy").sum(), problems=unfinished, notes=notes(runs),
        sections=shown,
        overall=_comparison(in_all_streams(best)) if best["section"].nunique() > 1 else {},
        num_problems=len(unfinished) + sum(len(section["missing"]) for section in shown),
    )  # fmt: skip
    for name, text in {**tables, PAGE: page}.items():
        with atomic_write(target / name) as file:
            file.write(text)
    return target / PAGE


def _section(runs: DataFrame, stem: Path) -> dict[str, Any]:
    """What the page says of a section; its figures are written as SVG and PNG, STEM-name each."""
    title = str(runs["section"].iloc[0])
    said: dict[str, Any] = {"title": title, "slug": stem.name, "missing": missing(runs), "rows": []}
    finished = runs[runs["state"] == "finished"]
    if finished.empty:
        return said
    table, entries, costs = result_table(runs, shown_measures(runs)), summary(runs).reset_index(), cost_table(runs)
    best = entries["best"] & (entries.groupby("line")["best"].transform("size") > 1)
    table = table.drop(columns="seconds")
    first = ~table["method"].duplicated()
    return said | {
        "headings": list(table),
        "rows": list(zip(best, first, table.to_numpy().tolist(), strict=True)),
        "chosen": best.any(),
        "validated": finished["val_average_accuracy"].notna().any(),
        "within": finished["within_min_accuracy"].notna().any(),
        "single": (entries["seeds"] == 1).any(),
        "latex": latex(table, best, title),
        "compared": _comparison(best_runs(runs)),
        "figures": _figures(runs, stem),
        "cost_headings": list(costs),
        "costs": costs.to_numpy().tolist(),
        "devices": ", ".join(sorted(set(finished["device"].astype(str)))) if "device" in finished else "unknown",
    }


def _comparison(best: DataFrame) -> dict[str, Any]:
    """What the page says of the differences between the lines of `best`; nothing of fewer than two."""
    num_tests = best["line"].nunique() - 1
    if num_tests < 1:
        return {}
    first = reference(best)
    table = comparison_table(best, first)
    return {
        "first": first,
        "num_tests": num_tests,
        "needed": pairs_needed(),
        "needed_of_all": pairs_needed(num_tests),
        "headings": list(table),
        "rows": table.to_numpy().tolist(),
    }


def _figures(runs: DataFrame, stem: Path) -> list[dict[str, str]]:
    """Draw each figure to STEM-name.svg and .png; what the page needs of it."""
    shown = []
    for name, draw in (FIGURES | ANALYSED).items():
        figure = draw(runs)
        if figure is not None:
            figure.draw_without_rendering()  # the layout settles in its second round
            paths = [stem.with_name(f"{stem.name}-{name}{suffix}") for suffix in (".svg", ".png")]
            for path in paths:
                save_figure(figure, path)
            data = base64.b64encode(paths[0].read_bytes()).decode()
            shown.append({"data": data, "alt": figure.get_suptitle(), "name": name})
    return shown
