"""One page that holds everything, without script or network; beside it the figures and tables as files."""

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lifelong.plots.figures import save_figure
from lifelong.plots.report.grid import holes
from lifelong.plots.report.plots import curves_figure, matrices_figure, plane_figure, strength_figure
from lifelong.plots.report.runs import Run, read_runs
from lifelong.plots.report.sections import Section, sections
from lifelong.plots.report.tables import (
    cost_headings,
    cost_rows,
    latex,
    matrices_csv,
    measures_shown,
    result_rows,
    runs_csv,
    summary_csv,
)
from lifelong.runs.atomic import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "report"
PAGE = "index.html"
FIGURES: dict[str, tuple[Callable[[Section], "Figure | None"], str]] = {
    "strength": (
        strength_figure,
        "Mean over seeds at each strength; band: 95 % confidence interval (from three seeds on), which may "
        "run out of the picture. Horizontal: methods without a strength, and strength 0.",
    ),
    "plane": (
        plane_figure,
        "Plasticity is the learning accuracy: mean test accuracy on each task just after learning it. "
        "Stability is 100 minus forgetting. A marker per method and strength, larger for a larger strength, joined by "
        "strength; bars: 95 % confidence intervals (from three seeds on), which may run out of the picture. "
        "Pareto front: means that no other one reaches or exceeds on both axes, but for joint, which keeps all data.",
    ),
    "matrices": (
        matrices_figure,
        "Mean test accuracy over seeds, each method at its best strength by validation. "
        "Row: after learning; column: tested on.",
    ),
    "curves": (
        curves_figure,
        "Mean validation accuracy on each task from when it is first met, each method at its best strength by "
        "validation; band: 95 % confidence interval (from three seeds on). Task k is learned between k − 1 and k.",
    ),
}  # fmt: skip


def write_report(folder: Path) -> Path:
    """Read the runs below `folder`, write <folder>/report/ and return where its page is. The page comes last.

    Raises:
        FileNotFoundError: no run below `folder`.
    """
    runs = read_runs(folder)
    made = sections(runs)
    target = folder / FOLDER
    target.mkdir(exist_ok=True)
    drawn = [_draw(section, target) for section in made]
    tables = {"summary.csv": summary_csv(made), "runs.csv": runs_csv(runs), "matrices.csv": matrices_csv(made)}
    tables |= {f"{section.slug}.tex": latex(section) for section in made if section.entries}
    page = render(str(folder), runs, made, drawn)
    for name, text in {**tables, PAGE: page}.items():
        with atomic_write(target / name) as file:
            file.write(text)
    return target / PAGE


def _draw(section: Section, target: Path) -> list[dict[str, str]]:
    """Write the section's figures as SVG and PNG; what the page needs of each."""
    shown = []
    for name, (draw, caption) in FIGURES.items():
        figure = draw(section) if section.entries else None
        if figure is not None:
            figure.draw_without_rendering()  # the layout settles in its second round
            paths = [target / f"{section.slug}-{name}{suffix}" for suffix in (".svg", ".png")]
            for path in paths:
                save_figure(figure, path)
            data = base64.b64encode(paths[0].read_bytes()).decode()
            shown.append({"data": data, "alt": figure.get_suptitle(), "caption": caption})
    return shown


def render(title: str, runs: Sequence[Run], made: Sequence[Section], drawn: Sequence[list[dict[str, str]]]) -> str:
    """The page's text. drawn: of each section its figures."""
    problems = [run for run in runs if not run.finished]
    lacking = [(section.title, found) for section in made if (found := holes(section))]
    environment = Environment(
        loader=PackageLoader("lifelong.plots.report", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html").render(
        title=f"Report: {title}",
        num_runs=len(runs),
        num_finished=len(runs) - len(problems),
        num_problems=len(problems) + sum(len(found) for _, found in lacking),
        problems=problems,
        holes=lacking,
        sections=[_shown(section, figures) for section, figures in zip(made, drawn, strict=True)],
    )


def _shown(section: Section, figures: list[dict[str, str]]) -> dict[str, Any]:
    """What the page says of a section."""
    entries, rows = [entry for _, entry in section.entries], result_rows(section)
    devices = {str(run.metrics.get("device", "an unknown device")) for entry in entries for run in entry.finished}
    return {
        "title": section.title,
        "slug": section.slug,
        "rows": rows,
        "chosen": any(row["best"] for row in rows),
        "headings": list(measures_shown(section).values()),
        "validated": any(entry.measure("val_average_accuracy") for entry in entries),
        "single": any(len(entry.finished) == 1 for entry in entries),
        "intransigence": section.has_intransigence,
        "figures": figures,
        "costs": cost_rows(section),
        "cost_headings": cost_headings(),
        "devices": ", ".join(sorted(devices)),
    }
