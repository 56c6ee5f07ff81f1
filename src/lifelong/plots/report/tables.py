"""The report's numbers as tables: for the page, as CSV and as LaTeX."""

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from lifelong.plots.report.interval import Estimate, estimate
from lifelong.plots.report.plots import mean_matrix
from lifelong.plots.report.runs import Run
from lifelong.plots.report.sections import Entry, Section, has_strength

MEASURES = {
    "average_accuracy": "test ACC",
    "val_average_accuracy": "val ACC",
    "forgetting": "forgetting",
    "intransigence": "intransigence",
    "learning_accuracy": "learning ACC",
    "backward_transfer": "BWT",
    "forward_transfer": "FWT",
}
PHASES = ("train", "importance", "memory", "evaluation")
MEGABYTES = {"peak_memory_bytes": "peak memory (MB)", "penalty_state_bytes": "penalty state (MB)",
             "memory_bytes": "exemplars (MB)"}  # fmt: skip
UNKNOWN = "–"


def measures_shown(section: Section) -> dict[str, str]:
    """Keys and headings; forward transfer says nothing where a task's classes are masked until it is learned."""
    hidden = set() if section.has_intransigence else {"intransigence"}
    if all(entry.config.get("scenario") == "class" for _, entry in section.entries):
        hidden.add("forward_transfer")
    return {key: name for key, name in MEASURES.items() if key not in hidden}


def result_rows(section: Section) -> list[dict[str, Any]]:
    """A row per entry: label, strength, seeds, cells by measure in points of 100, whether it is its line's best by
    validation (of several), and the first of its line."""
    rows = []
    for line in section.lines:
        for i, entry in enumerate(line.finished):
            values = {key: entry.measure(key) for key in measures_shown(section)}
            rows.append({
                "label": line.label,
                "strength": f"{entry.strength:g}" if has_strength(line) else UNKNOWN,
                "seeds": len(entry.finished),
                "cells": [points(value, len(entry.finished)) for value in values.values()],
                "best": entry is line.best and len(line.finished) > 1,
                "first": i == 0,
            })  # fmt: skip
    return rows


def points(value: Estimate | None, num_seeds: int) -> str:
    """In points of 100; says so if fewer seeds have the measure than there are."""
    if value is None:
        return "undefined"
    return value.text(100) + (f" (n = {value.n})" if value.n < num_seeds else "")


def cost_headings() -> list[str]:
    return ["method", "runs", *(f"{phase} (s)" for phase in PHASES), "all (s)", *MEGABYTES.values()]


def cost_rows(section: Section) -> list[list[str]]:
    """A row per line: seconds by phase and bytes, mean ± interval over all its finished runs; the largest peak."""
    rows = []
    for line in section.lines:
        runs = [run.metrics for entry in line.finished for run in entry.finished]
        if not runs:
            continue
        phases = [[run.get(f"{phase}_seconds") for run in runs] for phase in PHASES]
        total = [sum(known) for known in ([s for s in column if s is not None] for column in zip(*phases, strict=True))]
        seconds = [value.text(1, 2) if (value := estimate(column)) else UNKNOWN for column in (*phases, total)]
        megabytes = [
            UNKNOWN if not known else f"{(max if key.startswith('peak') else statistics.fmean)(known) / 1e6:.2f}"
            for key in MEGABYTES
            for known in [[run[key] for run in runs if run.get(key) is not None]]
        ]
        rows.append([line.label, str(len(runs)), *seconds, *megabytes])
    return rows


def _csv(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows(rows)
    return text.getvalue()


def summary_csv(sections: Iterable[Section]) -> str:
    """A line per entry; of each measure, in [0, 1], the mean, the half width of the 95 % interval (empty for a single
    seed) and the number of seeds behind it."""
    headings = ["stream", "method", "line", "strength", "seeds", "best_by_validation"]
    columns = [f"{key}{suffix}" for key in MEASURES for suffix in ("", "_ci95", "_n")]
    rows = [
        [section.title, line.method, line.label, e.strength, len(e.finished), int(e is line.best), *_numbers(e)]
        for section in sections
        for line, e in section.entries
    ]
    return _csv(headings + columns, rows)


def _numbers(entry: Entry) -> list[Any]:
    found: list[Any] = []
    for value in map(entry.measure, MEASURES):
        found += ["", "", 0] if value is None else [value.mean, "" if value.n == 1 else value.half_width, value.n]
    return found


def runs_csv(runs: Iterable[Run]) -> str:
    """A line per run folder, whatever its state."""
    columns = [*MEASURES, *(f"{phase}_seconds" for phase in PHASES), *MEGABYTES]
    describing = ("method", "strength", "memory", "dataset", "source", "scenario")
    rows = [
        [r.path.name, r.state, r.reason, r.seed, r.setting if r.config else "",
         *(r.metrics.get(key) for key in (*describing, *columns))]
        for r in runs
    ]  # fmt: skip
    return _csv(["run", "state", "reason", "seed", "setting", *describing, *columns], rows)


def matrices_csv(sections: Iterable[Section]) -> str:
    """A line per cell of the mean accuracy matrix of every entry: test accuracy in [0, 1]."""
    rows = []
    for section in sections:
        for line, entry in section.entries:
            names, percent = mean_matrix(entry)
            cells = ((after, on, percent[i, j] / 100) for i, after in enumerate(names) for j, on in enumerate(names))
            rows += [[section.title, line.label, entry.strength, len(entry.finished), *cell] for cell in cells]
    return _csv(["stream", "line", "strength", "seeds", "after_learning", "tested_on", "accuracy"], rows)


def latex(section: Section) -> str:
    """A booktabs table of the section: mean ± 95 % interval in points, the best strength of each line in bold."""
    headings = ["method", r"$\lambda$", "seeds", *map(escaped, measures_shown(section).values())]
    lines = [
        "% needs \\usepackage{booktabs}",
        f"% {section.title}: points of 100, mean ± 95 % confidence interval over seeds (Student's t)",
        "% bold: the strength with the highest validation accuracy",
        rf"\begin{{tabular}}{{lrr{'r' * len(measures_shown(section))}}}",
        r"\toprule",
        " & ".join(headings) + r" \\",
        r"\midrule",
    ]  # fmt: skip
    lines += [_latex_row(row) for row in result_rows(section)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex_row(row: dict[str, Any]) -> str:
    strength = "--" if row["strength"] == UNKNOWN else row["strength"]
    cells = [strength, str(row["seeds"])]
    for cell in row["cells"]:
        number = cell.replace("±", r"\pm").replace("(n = ", r"\;(n=")
        cells.append(
            "undefined" if cell == "undefined" else rf"$\mathbf{{{number}}}$" if row["best"] else f"${number}$"
        )
    return " & ".join([escaped(row["label"]), *cells]) + r" \\"


def escaped(text: str) -> str:
    """Fit for LaTeX.

    >>> print(escaped("online_ewc & 5%"))
    online\\_ewc \\& 5\\%
    """
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
                                                  "\\": r"\textbackslash{}"}  # fmt: skip
    return "".join(special.get(c, c) for c in text)
