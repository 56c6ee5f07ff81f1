"""Reports from run folders: seeds are averaged, what differs is kept apart, what is unfinished is listed."""

import csv
import itertools
import json
import math
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

import report as script
import table
from lifelong.config.schema import compose
from lifelong.plots.report.grid import holes
from lifelong.plots.report.interval import Estimate, estimate, mean_and_std
from lifelong.plots.report.page import FIGURES, write_report
from lifelong.plots.report.plots import mean_curves, mean_matrix, pareto_front
from lifelong.plots.report.runs import grouped, read_runs
from lifelong.plots.report.sections import Section, sections
from lifelong.plots.report.tables import latex
from lifelong.runs.identity import setting
from run_folders import NAMES, finished, unfinished


def only_section(root: Path) -> Section:
    (section,) = sections(read_runs(root))
    return section


def labels(section: Section) -> list[str]:
    return [line.label for line in section.lines]


# Reading ------------------------------------------------------------------------------------------------------------


def test_runs_are_read_in_every_state(tmp_path: Path) -> None:
    finished(tmp_path, "seed=0")
    unfinished(tmp_path, "seed=1")
    (unfinished(tmp_path, "seed=2") / "error.txt").write_text("DivergedError: train/loss is nan\nmore\n")
    (finished(tmp_path, "seed=3") / "metrics.json").write_text("{")
    (unfinished(tmp_path, "seed=4") / "config.yaml").write_text("a: [")
    runs = read_runs(tmp_path)
    assert [run.state for run in runs] == ["finished", "unfinished", "failed", "damaged", "damaged"]
    assert [run.seed for run in runs] == [0, 1, 2, 3, None]
    assert runs[1].reason == "interrupted or still running: 0 tasks learned"
    assert runs[2].reason == "DivergedError: train/loss is nan"


def test_folder_without_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no run folder below"):
        read_runs(tmp_path)


def test_groups_keep_what_differs_apart() -> None:
    runs = [{"m": "a", "s": 0}, {"m": "b", "s": 0}, {"m": "a", "s": 1}]
    assert {key: len(members) for key, members in grouped(runs, ["m"]).items()} == {("a",): 2, ("b",): 1}


# Numbers ------------------------------------------------------------------------------------------------------------


def test_spread_is_the_sample_standard_deviation() -> None:
    mean, std = mean_and_std([1.0, 2.0, 4.0])
    assert mean == pytest.approx(7 / 3)
    assert std == pytest.approx(statistics.stdev([1.0, 2.0, 4.0]))
    assert str(mean_and_std([1.0])[1]) == "nan"


def test_interval_is_students_by_the_printed_table() -> None:
    """t(0.975; 2) = 4.303 and t(0.975; 9) = 2.262, as every textbook prints."""
    for values, t in (([1.0, 2.0, 4.0], 4.303), ([float(i) for i in range(10)], 2.262)):
        value = estimate(values)
        assert value is not None
        assert value.mean == pytest.approx(statistics.fmean(values))
        assert value.half_width == pytest.approx(t * statistics.stdev(values) / math.sqrt(len(values)), rel=2e-4)


def test_interval_holds_the_truth_19_times_in_20() -> None:
    samples = np.random.default_rng(0).normal(3.0, 2.0, size=(2000, 3))
    intervals = [estimate(sample) for sample in samples]
    share = statistics.fmean(abs(i.mean - 3.0) <= i.half_width for i in intervals if i)
    assert share == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 2000))


def test_single_value_has_no_interval_and_none_has_no_estimate() -> None:
    assert estimate([]) is None
    assert estimate([None]) is None
    single = estimate([0.5, None])
    assert single is not None
    assert (single.n, single.text(100)) == (1, "50.0")
    assert Estimate(0.5, 0.01, 3).text(100) == "50.0 ± 1.0"


def test_pareto_front_is_what_nothing_dominates() -> None:
    points = [tuple(p) for p in np.random.default_rng(0).integers(0, 12, size=(60, 2)).tolist()]

    def dominated(p: tuple[int, int]) -> bool:
        return any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in points)

    front = pareto_front(points)
    assert sorted(front) == [i for i, p in enumerate(points) if not dominated(p)]
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


# What is averaged, what is kept apart --------------------------------------------------------------------------------


def test_seeds_alone_are_averaged(tmp_path: Path) -> None:
    finished(tmp_path, "seed=0", learned=0.8)
    finished(tmp_path, "seed=1", learned=0.9)
    finished(tmp_path, "seed=0", "trainer.max_epochs=3", learned=0.5)
    finished(tmp_path, "seed=0", "memory=uniform", learned=0.6)
    finished(tmp_path, "seed=0", "dataset.angles=[0,1,2]", learned=0.7)
    plain, longer = sections(read_runs(tmp_path))[::-1]
    assert labels(plain) == [
        "ewc memory=uniform trainer.max_epochs=10",
        "ewc trainer.max_epochs=10",
        "ewc trainer.max_epochs=3",
    ]
    learning = [line.entries[0].measure("learning_accuracy") for line in plain.lines]
    assert [(value.n, round(value.mean, 6)) for value in learning if value] == [(1, 0.6), (2, 0.85), (1, 0.5)]
    assert longer.title == "rotated · digits · domain-incremental · dataset.angles=[0, 1, 2]"
    assert plain.slug != longer.slug


def test_best_strength_is_chosen_by_validation_among_those_with_all_seeds(tmp_path: Path) -> None:
    for seed in (0, 1):
        for strength, test, val in ((1, 0.9, 0.5), (10, 0.6, 0.7)):
            finished(tmp_path, f"method.strength={strength}", f"seed={seed}", learned=test, val_average_accuracy=val)
    finished(tmp_path, "method.strength=100", "seed=0", learned=0.9, val_average_accuracy=0.99)
    (line,) = only_section(tmp_path).lines
    assert line.best is not None
    assert line.best.strength == 10


def test_without_validation_data_no_strength_is_chosen(tmp_path: Path) -> None:
    for strength in (1, 10):
        finished(tmp_path, f"method.strength={strength}", val_average_accuracy=None)
    finished(tmp_path, "method=mas", val_average_accuracy=None)
    ewc, mas = only_section(tmp_path).lines
    assert ewc.best is None
    assert mas.best is mas.entries[0]


def test_mean_matrix_is_the_mean_of_every_cell(tmp_path: Path) -> None:
    finished(tmp_path, "seed=0", learned=0.9, forgets=0.2)
    finished(tmp_path, "seed=1", learned=0.7, forgets=0.1)
    entry = only_section(tmp_path).lines[0].entries[0]
    names, percent = mean_matrix(entry)
    one, other = (run.matrix[1] for run in entry.runs)
    assert names == list(NAMES)
    for (i, j), value in np.ndenumerate(percent):
        assert value == pytest.approx(100 * (one[i][j] + other[i][j]) / 2)


def test_tasks_in_other_orders_are_named_by_their_place(tmp_path: Path) -> None:
    finished(tmp_path, "dataset.order=shuffle", "seed=0")
    finished(tmp_path, "dataset.order=shuffle", "seed=1", names=NAMES[::-1])
    assert mean_matrix(only_section(tmp_path).lines[0].entries[0])[0] == ["task 1", "task 2", "task 3"]


def test_curves_of_methods_with_other_numbers_of_steps_share_an_axis(tmp_path: Path) -> None:
    finished(tmp_path, "method=ewc", steps=10)
    finished(tmp_path, "method=joint", steps=40)
    ewc, joint = (mean_curves(line.entries[0]) for line in only_section(tmp_path).lines)
    assert ewc == joint
    assert [list(curve) for curve in ewc] == [[0.5, 1, 1.5, 2, 2.5, 3], [1.5, 2, 2.5, 3], [2.5, 3]]
    assert ewc[0][1].mean == pytest.approx(0.9)


# What is missing -----------------------------------------------------------------------------------------------------


def sweep(root: Path, grid: dict[str, list[float]], seeds: tuple[int, ...] = (0,)) -> list[str]:
    for method, strengths in grid.items():
        for strength in strengths:
            for seed in seeds:
                finished(root, f"method={method}", f"method.strength={strength}", f"seed={seed}")
    return holes(only_section(root))


def test_full_grid_has_no_holes(tmp_path: Path) -> None:
    assert sweep(tmp_path, {"ewc": [1, 10], "mas": [1, 10]}, seeds=(0, 1)) == []


def test_strength_of_the_same_sweep_is_missed(tmp_path: Path) -> None:
    assert sweep(tmp_path, {"ewc": [1, 10, 100], "si": [1, 100]}) == ["si, strength 10: no run of any seed"]


def test_strength_is_missed_in_multiples_of_the_methods_own(tmp_path: Path) -> None:
    """EWC's own strength is 1000, that of MAS 1: factors 0.1, 1, 10."""
    assert sweep(tmp_path, {"ewc": [100, 1000, 10000], "mas": [0.1, 10]}) == ["mas, strength 1: no run of any seed"]


def test_methods_of_sweeps_of_their_own_and_at_their_default_miss_nothing(tmp_path: Path) -> None:
    assert sweep(tmp_path, {"ewc": [3, 30, 300], "mas": [1], "si": [0.5, 0.7, 2]}) == []


def test_seed_that_others_have_is_missed_and_one_that_has_begun_is_not(tmp_path: Path) -> None:
    finished(tmp_path, "method=ewc", "seed=0")
    finished(tmp_path, "method=ewc", "seed=1")
    finished(tmp_path, "method=mas", "seed=1")
    unfinished(tmp_path, "method=si", "seed=0")
    finished(tmp_path, "method=si", "seed=1")
    assert holes(only_section(tmp_path)) == ["mas, strength 1: no run of seed 0"]


# The report ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a report: two streams, five methods, a failed run and a hole."""
    root = tmp_path_factory.mktemp("runs")
    for seed in (0, 1, 2):
        for k, method in enumerate(("ewc", "mas", "online_ewc")):
            for i, strength in enumerate((1, 10, 100)):
                if (method, strength, seed) != ("mas", 100, 2):
                    learned, forgets = 0.9 - 0.1 * i + 0.02 * seed, 0.2 - 0.07 * i + 0.02 * k
                    finished(root, f"method={method}", f"method.strength={strength}", f"seed={seed}", learned=learned,
                             forgets=forgets, intransigence=0.05 * i)  # fmt: skip
        finished(root, "method=finetune", f"seed={seed}", forgets=0.3)
        finished(root, "method=joint", f"seed={seed}", forgets=0.0)
    finished(root, "method=ewc", "dataset=split", "scenario=class")
    (unfinished(root, "method=ewc", "dataset=split", "scenario=class", "seed=1") / "error.txt").write_text("<b>bad</b>")
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


@pytest.mark.system
def test_report_made_again_is_the_same_to_the_byte(written: Path) -> None:
    before = files(written)
    write_report(written)
    assert files(written) == before


def test_page_needs_nothing_but_itself(written: Path) -> None:
    page = (written / "report" / "index.html").read_text()
    assert set(re.findall(r'(?:src|href)="([^":#]*)[:#"]', page)) <= {"data", ""}
    assert "<script" not in page
    assert "url(" not in page.replace("url(#", "")


def test_page_lists_what_is_missing_and_trusts_no_text(written: Path) -> None:
    page = (written / "report" / "index.html").read_text()
    assert "&lt;b&gt;bad&lt;/b&gt;" in page
    assert "<b>bad</b>" not in page
    assert "mas, strength 100: no run of seed 2" in page
    assert "33 of 34 runs finished" in page


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_summary_says_what_the_runs_say(written: Path) -> None:
    row = next(r for r in rows_of(written / "report" / "summary.csv") if (r["line"], r["strength"]) == ("ewc", "10.0"))
    metrics = [
        run.metrics
        for run in read_runs(written)
        if (run.metrics.get("method"), run.metrics.get("strength")) == ("ewc", 10)
    ]
    values = [m["average_accuracy"] for m in metrics]
    assert float(row["average_accuracy"]) == pytest.approx(statistics.fmean(values))
    assert float(row["average_accuracy_ci95"]) == pytest.approx(
        4.303 * statistics.stdev(values) / math.sqrt(3), rel=2e-4
    )
    assert row["average_accuracy_n"] == row["seeds"] == "3"


def test_every_run_stands_in_runs_csv(written: Path) -> None:
    rows = rows_of(written / "report" / "runs.csv")
    assert [row["run"] for row in rows] == [run.path.name for run in read_runs(written)]
    assert [row["reason"] for row in rows if row["state"] == "failed"] == ["<b>bad</b>"]


def test_latex_has_a_row_of_full_width_per_entry(written: Path) -> None:
    section = sections(read_runs(written))[0]
    lines = latex(section).splitlines()
    rows = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert len(rows) == len(section.entries) == 11
    columns = next(line for line in lines if line.startswith(r"\begin{tabular}")).removesuffix("}").rpartition("{")[2]
    assert {row.count("&") for row in rows} == {len(columns) - 1}
    assert any(r"online\_ewc" in row for row in rows)
    assert sum(r"\mathbf" in row for row in rows) == 3  # a best strength of each method that has several


def test_section_without_a_finished_run_is_reported(tmp_path: Path) -> None:
    unfinished(tmp_path)
    page = write_report(tmp_path).read_text()
    assert "No run of this stream is finished" in page
    assert "0 of 1 runs finished" in page


def test_command_says_where_the_page_is_or_in_one_line_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        script.main()
    assert (stop.value.code, capsys.readouterr().err) == (1, f"error: no run folder below {tmp_path}\n")
    finished(tmp_path)
    script.main()
    assert capsys.readouterr().out == f"{tmp_path / 'report' / 'index.html'}\n"


# Figures -------------------------------------------------------------------------------------------------------------


def beyond_the_limits(axis: Any) -> list[Text]:
    """Labels of ticks outside the axis, which are made and never drawn."""
    low, high = sorted(axis.get_view_interval())
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return [label for tick in ticks if not low <= tick.get_loc() <= high for label in (tick.label1, tick.label2)]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty lines of twenty tasks."""
    root = tmp_path_factory.mktemp("runs")
    names = [f"classes_{5 * i}-{5 * i + 4}" for i in range(20)]
    for k, strength in itertools.product(range(20), (1, 10)):
        overrides = (f"optimizer.lr={0.001 * (k + 1):g}", f"method.strength={strength}")
        finished(root, *overrides, names=names, learned=0.9 - 0.01 * k, forgets=0.01)
    return root


@pytest.mark.parametrize("runs", ["written", pytest.param("large", marks=pytest.mark.system)])
@pytest.mark.parametrize("draw", [draw for draw, _ in FIGURES.values()], ids=list(FIGURES))
def test_figure_cuts_no_text_off_and_keeps_its_legend_outside(
    draw: Callable[[Section], Figure | None], runs: str, request: pytest.FixtureRequest
) -> None:
    figure = draw(sections(read_runs(request.getfixturevalue(runs)))[0])
    assert figure is not None
    for _ in range(2):
        figure.draw_without_rendering()
    unseen = {label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in beyond_the_limits(axis)}
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text() and t not in unseen]
    assert [t.get_text() for t in texts if figure.bbox.count_contains(t.get_window_extent().corners()) < 4] == []
    for legend in figure.legends:
        assert figure.bbox.count_contains(legend.get_window_extent().corners()) == 4
        assert not any(legend.get_window_extent().overlaps(axes.get_window_extent()) for axes in figure.axes)
    titles = [
        text.get_window_extent() for text in (*figure.texts, *(axes.title for axes in figure.axes)) if text.get_text()
    ]
    assert not any(a.overlaps(b) for i, a in enumerate(titles) for b in titles[:i])


def test_strength_figure_shows_intransigence_where_it_is_known_alone(written: Path, tmp_path: Path) -> None:
    def ylabels(root: Path) -> list[str]:
        figure = FIGURES["strength"][0](sections(read_runs(root))[0])
        assert figure is not None
        return [axes.get_ylabel().split(" (")[0] for axes in figure.axes]

    for strength in (1, 10):
        finished(tmp_path, f"method.strength={strength}")
    assert ylabels(tmp_path) == ["average accuracy", "forgetting", "learning accuracy"]
    assert ylabels(written) == ["average accuracy", "forgetting", "intransigence", "learning accuracy"]


# The table in the terminal --------------------------------------------------------------------------------------------


def terminal_rows(monkeypatch: pytest.MonkeyPatch, capsys: Any, root: Path) -> tuple[list[list[str]], str]:
    monkeypatch.setattr(sys, "argv", ["table.py", str(root)])
    table.print_runs(None, table.table)
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines], out


def test_table_averages_seeds_alone_and_names_the_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(tmp_path, "method=ewc", "seed=0", average_accuracy=0.70)
    finished(tmp_path, "method=ewc", "seed=1", average_accuracy=0.74)
    finished(tmp_path, "method=ewc", "seed=0", "dataset.order=reversed", average_accuracy=0.20, order=[2, 1, 0])
    finished(tmp_path, "method=mas", "seed=0", average_accuracy=0.60, forgetting=None, strength=1000.0)
    unfinished(tmp_path, "method=si")
    rows, out = terminal_rows(monkeypatch, capsys, tmp_path)
    assert [row[:4] for row in rows] == [
        ["[0, 1, 2]", "ewc", "2", "72.0 ± 2.8"],
        ["[0, 1, 2]", "mas", "1", "60.0"],
        ["[2, 1, 0]", "ewc", "1", "20.0"],
    ]
    assert rows[1][5] == "undefined"
    assert "unfinished: " in out


def test_runs_of_different_settings_are_not_averaged_as_seeds(tmp_path: Path) -> None:
    for seed, name in ((0, "a"), (1, "a"), (0, "b")):
        finished(tmp_path, f"seed={seed}", setting=name)
    result = table.table([run.metrics for run in read_runs(tmp_path)])
    assert [column.header for column in result.columns][:3] == ["method", "setting", "seeds"]
    assert list(result.columns[2].cells) == ["2", "1"]


def test_setting_differs_with_everything_but_the_seed() -> None:
    plain, seeded, longer = (setting(compose(o)) for o in (["seed=0"], ["seed=5"], ["trainer.max_epochs=3"]))
    assert plain == seeded
    assert plain != longer
    assert json.dumps(plain)
