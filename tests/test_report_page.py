"""The report's page, figures and tables: what they hold, and that nothing is cut off."""

import math
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from pandas import DataFrame

import report as script
from lifelong.experiment.errors import one_line_errors
from lifelong.plots.report.page import FIGURES, write_report
from lifelong.plots.report.runs import read_runs
from run_folders import failed, finished, unfinished

pytestmark = pytest.mark.xdist_group("report")  # whose page is made once


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a report: two streams, five methods, a failed run and a missing one."""
    root = tmp_path_factory.mktemp("runs")
    for seed in (0, 1, 2):
        for k, method in enumerate(("ewc", "mas", "online_ewc")):
            for i, strength in enumerate((1, 10, 100)):
                if (method, strength, seed) != ("mas", 100, 2):
                    learned, forgets = 0.9 - 0.1 * i + 0.02 * seed, 0.2 - 0.07 * i + 0.02 * k
                    overrides = (f"method={method}", f"method.strength={strength}", f"seed={seed}")
                    finished(root, *overrides, learned=learned, forgets=forgets, within=method == "ewc")
        finished(root, "method=finetune", f"seed={seed}", forgets=0.3)
        finished(root, "method=joint", f"seed={seed}", forgets=0.0)
    finished(root, "method=ewc", "dataset=split", "scenario=class")
    failed(root, "method=ewc", "dataset=split", "scenario=class", "seed=1", reason="<b>bad</b>")
    write_report(root)
    return root


def files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((root / "report").iterdir())}


def test_report_leaves_page_figures_and_tables(written: Path) -> None:
    names = set(files(written))
    slugs = ("rotated-digits-domain-incremental", "split-digits-class-incremental")
    assert names >= {"index.html", "summary.csv", "runs.csv", "matrices.csv", *(f"{slug}.tex" for slug in slugs)}
    assert {f"{slugs[0]}-{name}{suffix}" for name in FIGURES for suffix in (".png", ".svg")} <= names
    assert f"{slugs[1]}-strength.svg" not in names  # a single strength
    assert f"{slugs[1]}-within.svg" not in names  # evaluated at the ends of epochs alone


def test_streams_of_long_titles_have_files_of_their_own(tmp_path: Path) -> None:
    for num in (25, 30):
        finished(tmp_path, f"dataset.angles={list(range(num))}".replace(" ", ""))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    for end in (".tex", "-matrices.svg", "-matrices.png"):
        assert sum(name.endswith(end) for name in files(tmp_path)) == 2
    assert len(set(re.findall('<h2 id="(rotated[^"]*)"', page))) == 2


def test_page_needs_nothing_but_itself_lists_what_is_missing_and_trusts_no_text(written: Path) -> None:
    page = (written / "report" / "index.html").read_text()
    assert set(re.findall(r'(?:src|href)="([^":#]*)[:#"]', page)) <= {"data", ""}
    assert "<script" not in page
    assert "url(" not in page.replace("url(#", "")
    assert "&lt;b&gt;bad&lt;/b&gt;" in page
    assert "<b>bad</b>" not in page
    assert "mas, λ = 100: no run of seed 2" in page
    assert "33 of 34 runs finished" in page


def test_csv_files_say_what_the_runs_say(written: Path) -> None:
    runs = read_runs(written)
    rows = pd.read_csv(written / "report" / "summary.csv")
    (row,) = rows[(rows["line"] == "ewc") & (rows["strength"] == 10)].to_dict("records")
    values = runs.loc[(runs["line"] == "ewc") & (runs["strength"] == 10), "average_accuracy"].tolist()
    assert row["average_accuracy"] == pytest.approx(statistics.fmean(values))
    assert row["average_accuracy_ci95"] == pytest.approx(4.303 * statistics.stdev(values) / math.sqrt(3), rel=2e-4)
    assert row["average_accuracy_n"] == row["seeds"] == 3
    every = pd.read_csv(written / "report" / "runs.csv")
    assert sorted(every["path"]) == sorted(map(str, runs["path"]))
    assert every.loc[every["state"] == "failed", "reason"].tolist() == ["<b>bad</b>"]
    cells = pd.read_csv(written / "report" / "matrices.csv")
    assert len(cells) == 9 * len(rows)


def test_latex_has_a_row_of_full_width_per_entry(written: Path) -> None:
    lines = (written / "report" / "rotated-digits-domain-incremental.tex").read_text().splitlines()
    rows = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert len(rows) == 11
    columns = next(line for line in lines if line.startswith(r"\begin{tabular}")).removesuffix("}").rpartition("{")[2]
    assert {row.count("&") for row in rows} == {len(columns) - 1}
    assert any(r"online\_ewc" in row for row in rows)
    assert sum(r"\textbf" in row for row in rows) == 3  # a best strength of each method that has several


def test_command_says_where_the_page_is_or_in_one_line_why_not(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=f"^error: no run folder below {tmp_path}$"), one_line_errors():
        script.main([str(tmp_path)])
    unfinished(tmp_path)
    path = script.main([str(tmp_path)])
    assert path == tmp_path / "report" / "index.html"
    assert "No run of this stream is finished" in path.read_text()
    assert "0 of 1 runs finished" in path.read_text()


def beyond_the_limits(axis: Any) -> list[Text]:
    """Labels of ticks outside the axis, which are made and never drawn."""
    low, high = sorted(axis.get_view_interval())
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return [label for tick in ticks if not low <= tick.get_loc() <= high for label in (tick.label1, tick.label2)]


@pytest.mark.parametrize("draw", list(FIGURES.values()), ids=list(FIGURES))
def test_figure_cuts_no_text_off_and_lays_nothing_on_another(
    draw: Callable[[DataFrame], Figure | None], written: Path
) -> None:
    runs = read_runs(written)
    figure = draw(runs[runs["section"] == runs["section"].iloc[0]])
    assert figure is not None
    for _ in range(2):
        figure.draw_without_rendering()
    unseen = {label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in beyond_the_limits(axis)}
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text() and t not in unseen]
    assert [t.get_text() for t in texts if figure.bbox.count_contains(t.get_window_extent().corners()) < 4] == []
    named = [text for axes in figure.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    boxes = [text.get_window_extent() for text in (*figure.texts, *named) if text in texts]
    boxes += [legend.get_window_extent() for legend in figure.legends]
    ticks = [label for axes in figure.axes for label in axes.get_yticklabels() if label in texts]
    panels = [axes.get_window_extent() for axes in figure.axes if axes.axison]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert not any(box.overlaps(panel) for panel in panels)
        assert not any(box.overlaps(label.get_window_extent()) for label in ticks)
    assert all(figure.bbox.count_contains(legend.get_window_extent().corners()) == 4 for legend in figure.legends)
