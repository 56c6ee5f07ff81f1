"""Reports from run folders: seeds are averaged, what differs is kept apart, what is unfinished is listed."""

import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas import DataFrame

from lifelong.plots.report import plots
from lifelong.plots.report.page import write_report
from lifelong.plots.report.plane import pareto_front
from lifelong.plots.report.plots import mean_curves
from lifelong.plots.report.runs import WITHIN, accuracy_curves, missing, notes, read_runs
from lifelong.plots.report.tables import half_width, mean_matrix, shown_measures, summary
from run_folders import NAMES, failed, finished, unfinished


def means(runs: DataFrame, key: str) -> dict[str, float]:
    """Of the only strength of each line, rounded."""
    return {line: round(value, 6) for (_, line, _), value in summary(runs)[key].items()}


def test_runs_are_read_in_every_state(tmp_path: Path) -> None:
    finished(tmp_path, "seed=0")
    unfinished(tmp_path, "seed=1")
    failed(tmp_path, "seed=2", reason="DivergedError: train/loss is nan")
    (finished(tmp_path, "seed=3") / "metrics.json").write_text("{")
    (unfinished(tmp_path, "seed=4") / "config.yaml").write_text("a: [")
    runs = read_runs(tmp_path).sort_values("path")
    assert list(runs["state"]) == ["finished", "unfinished", "failed", "damaged", "damaged"]
    assert runs["seed"].tolist()[:4] == [0, 1, 2, 3]
    assert pd.isna(runs["seed"].iloc[4])
    assert runs["reason"].tolist()[1:3] == [
        "interrupted or still running; tasks learned: 0",
        "DivergedError: train/loss is nan",
    ]


def test_interval_is_students_by_the_printed_table() -> None:
    """t(0.975; 2) = 4.303 and t(0.975; 9) = 2.262, as every textbook prints; nan does not count."""
    for values, t in (([1.0, 2.0, 4.0], 4.303), ([float(i) for i in range(10)], 2.262)):
        half = t * statistics.stdev(values) / math.sqrt(len(values))
        assert half_width([*values, math.nan]) == pytest.approx(half, rel=2e-4)
    assert math.isnan(half_width([1.0]))


def test_pareto_front_is_what_nothing_dominates() -> None:
    points = [tuple(p) for p in np.random.default_rng(0).integers(0, 12, size=(60, 2)).tolist()]

    def dominated(p: tuple[int, int]) -> bool:
        return any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in points)

    front = pareto_front(points)
    assert sorted(front) == [i for i, p in enumerate(points) if not dominated(p)]
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


def test_seeds_alone_are_averaged(tmp_path: Path) -> None:
    finished(tmp_path, "seed=0", learned=0.8)
    finished(tmp_path, "seed=1", learned=0.9)
    finished(tmp_path, "seed=0", "trainer.max_epochs=3", learned=0.5)
    finished(tmp_path, "seed=0", "memory=uniform", learned=0.6)
    finished(tmp_path, "seed=0", "dataset.angles=[0,1,2]", learned=0.7)
    runs = read_runs(tmp_path)
    given, plain = (members for _, members in runs.groupby("section"))
    assert means(plain, "learning_accuracy") == {
        "ewc memory=uniform trainer.max_epochs=10": 0.6,
        "ewc trainer.max_epochs=10": 0.85,
        "ewc trainer.max_epochs=3": 0.5,
    }
    assert given["section"].iloc[0] == "rotated · digits · domain-incremental · dataset.angles=[0, 1, 2]"


def test_a_copy_of_a_run_is_no_further_seed(tmp_path: Path) -> None:
    """The same run under another name; what W&B keeps inside a run's folder is no run at all."""
    for name, seed in (("a", 0), ("a", 1), ("b", 0)):
        path = finished(tmp_path / name, f"seed={seed}")
    inside = path / "wandb" / "run-1" / "files" / "config.yaml"
    inside.parent.mkdir(parents=True)
    inside.write_text("wandb_version: 1\n")
    runs = read_runs(tmp_path)
    assert summary(runs)["seeds"].tolist() == [2]
    assert runs.loc[runs["state"] == "copy", "path"].tolist() == [path]
    assert f"1 copies of runs in other folders are counted once: {path}" in notes(runs)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "2 of 2 runs finished" in page


@pytest.mark.parametrize("older", ["b" * 64, ...], ids=["other code", "no code recorded"])
def test_runs_of_different_method_code_are_not_averaged(tmp_path: Path, older: Any) -> None:
    """... drops the key, as a run of an earlier version does."""
    finished(tmp_path, "seed=0", learned=0.8)
    finished(tmp_path, "seed=1", learned=0.9, method_code=older)
    finished(tmp_path, "method=mas", "seed=0", method_code=older)
    runs = read_runs(tmp_path)
    name = "unknown" if older is ... else "bbbbbbbb"
    assert means(runs, "learning_accuracy") == {"ewc code=aaaaaaaa": 0.8, f"ewc code={name}": 0.9, "mas": 0.9}
    (warning,) = [note for note in notes(runs) if note.startswith("warning")]
    assert warning.startswith("warning: ewc (rotated · digits · domain-incremental) was run with ")
    assert f"different method code (aaaaaaaa, {name})" in warning


def test_intransigence_joins_the_joint_run_of_the_same_stream_and_seed(tmp_path: Path) -> None:
    """Learned to 0.8 and 0.85 where joint came to 0.9 and 0.95; any folder below will do, other streams will not."""
    finished(tmp_path / "a", "method=joint", "seed=0", learned=0.9)
    finished(tmp_path / "a", "method=joint", "seed=1", learned=0.95)
    finished(tmp_path / "a", "method=joint", "dataset.angles=[0,1,2]", "seed=2", learned=0.99)
    finished(tmp_path / "a", "method=joint", "method.schedule=once", "seed=2", learned=0.99)
    for seed, learned in enumerate((0.8, 0.85, 0.9)):
        finished(tmp_path / "b", "method=ewc", "memory=uniform", f"seed={seed}", learned=learned)
    runs = read_runs(tmp_path)
    ewc = runs[runs["method"] == "ewc"].sort_values("seed")
    np.testing.assert_allclose(ewc["intransigence"], [0.1, 0.1, math.nan])
    assert runs.loc[runs["method"] == "joint", "intransigence"].isna().all()
    (note,) = notes(runs)
    assert (
        note == "no intransigence for 1 of 7 runs: no finished run of method=joint differs in method and memory alone"
    )
    page = write_report(tmp_path).read_text()
    assert "10.0 ± 0.0 (n = 2)" in page
    assert "no intransigence for 1 of 7 runs" in page


def test_best_strength_is_chosen_by_validation_among_those_with_all_seeds(tmp_path: Path) -> None:
    for seed in (0, 1):
        for strength, test, val in ((1, 0.9, 0.5), (10, 0.6, 0.7)):
            finished(tmp_path, f"method.strength={strength}", f"seed={seed}", learned=test, val_average_accuracy=val)
    finished(tmp_path, "method.strength=100", "seed=0", learned=0.9, val_average_accuracy=0.99)
    table = summary(read_runs(tmp_path))
    assert [strength for (_, _, strength), best in table["best"].items() if best] == [10]


def test_without_validation_data_no_strength_is_chosen(tmp_path: Path) -> None:
    for strength in (1, 10):
        finished(tmp_path, f"method.strength={strength}", val_average_accuracy=None)
    finished(tmp_path, "method=mas", val_average_accuracy=None)
    best = summary(read_runs(tmp_path))["best"]
    assert [line for (_, line, _), chosen in best.items() if chosen] == ["mas"]
    write_report(tmp_path)


def test_mean_matrix_is_the_mean_of_every_cell(tmp_path: Path) -> None:
    finished(tmp_path, "seed=0", learned=0.9, forgets=0.2)
    finished(tmp_path, "seed=1", learned=0.7, forgets=0.1)
    runs = read_runs(tmp_path)
    one, other = runs["matrix"]
    table = mean_matrix(runs)
    assert list(table) == list(table.index) == list(NAMES)
    np.testing.assert_allclose(table, 50 * (one + other))


@pytest.mark.parametrize("history", [None, '{"step": 5, "task": 0, "val/accuracy/rot0": 0.4}\n{"step": 10, "va'])
def test_run_with_half_a_history_or_none_is_reported(tmp_path: Path, history: str | None) -> None:
    path = finished(tmp_path, "seed=0") / "history.jsonl"
    path.unlink() if history is None else path.write_text(history)
    assert "1 of 1 runs finished" in write_report(tmp_path).read_text()


def test_tasks_in_other_orders_are_named_by_their_place(tmp_path: Path) -> None:
    finished(tmp_path, "dataset.order=shuffle", "seed=0")
    finished(tmp_path, "dataset.order=shuffle", "seed=1", names=NAMES[::-1])
    runs = read_runs(tmp_path)
    assert list(mean_matrix(runs)) == ["task 1", "task 2", "task 3"]
    assert list(dict.fromkeys(mean_curves(runs)["task"])) == ["task 1", "task 2", "task 3"]


def test_curves_of_methods_with_other_numbers_of_steps_share_an_axis(tmp_path: Path) -> None:
    finished(tmp_path, "method=ewc", steps=10)
    finished(tmp_path, "method=joint", steps=40)
    ewc, joint = (mean_curves(members) for _, members in read_runs(tmp_path).groupby("line"))
    pd.testing.assert_frame_equal(ewc, joint)
    positions = [list(curve) for _, curve in ewc.groupby("task")["position"]]
    assert positions == [[0.5, 1, 1.5, 2, 2.5, 3], [1.5, 2, 2.5, 3], [2.5, 3]]
    assert ewc.loc[(ewc["task"] == "rot0") & (ewc["position"] == 1), "accuracy"].tolist() == pytest.approx([90])


def test_of_two_evaluations_after_one_step_the_curve_has_the_later_one(tmp_path: Path) -> None:
    path = finished(tmp_path, "method=ewc", within=True)
    with open(path / "history.jsonl", "a") as file:
        file.write(json.dumps({"step": 20, "task": 1, "within/rot0": 0.25}) + "\n")
    curve = accuracy_curves(path, WITHIN)
    assert curve.loc[(curve["task"] == "rot0") & (curve["position"] == 2), "accuracy"].tolist() == [0.25]
    assert accuracy_curves(finished(tmp_path, "method=si"), WITHIN).empty


def test_task_that_was_tested_once_is_a_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(tmp_path, "seed=0")
    curve = DataFrame({"task": ["rot0", "rot0", "rot30"], "position": [1, 2, 2], "accuracy": [90.0, 80.0, 85.0]})
    monkeypatch.setattr(plots, "mean_curves", lambda members, prefix: curve)
    figure = plots.curves_figure(read_runs(tmp_path))
    assert figure is not None
    lines = [(line.get_marker(), len(np.asarray(line.get_xdata()))) for line in figure.axes[0].lines]
    assert lines == [("", 2), ("o", 1)]


def test_measures_within_tasks_are_shown_if_a_run_has_them(tmp_path: Path) -> None:
    finished(tmp_path, "method=ewc")
    without = shown_measures(read_runs(tmp_path))
    finished(tmp_path, "method=si", within_min_accuracy=0.5, within_stability_gap=None)
    assert shown_measures(read_runs(tmp_path)) == [*without, "within_min_accuracy"]


def test_seed_that_others_have_is_missed_and_one_that_has_begun_is_not(tmp_path: Path) -> None:
    finished(tmp_path, "method=ewc", "seed=0")
    finished(tmp_path, "method=ewc", "seed=1")
    finished(tmp_path, "method=mas", "seed=1")
    unfinished(tmp_path, "method=si", "seed=0")
    finished(tmp_path, "method=si", "seed=1")
    assert missing(read_runs(tmp_path)) == ["mas, λ = 1: no run of seed 0"]
