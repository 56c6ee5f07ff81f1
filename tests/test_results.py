"""Every number of the results page is a run's, and every sentence follows from its rows."""

import csv
import json
import math
import shutil
import statistics
from pathlib import Path

import pytest

import results
from studies import results_page
from studies import results_sentences as said
from studies.protocols import protocol
from studies.results_stats import Row, differences, gap_closed, plus_minus, power, settled, summaries

DIGITS = protocol("hsu_split_class", "digits")
NAN = "DivergedError: train/loss is nan at step 9 (task 4, perm3)"


def row(method: str, seed: int, accuracy: float, failed: str = "") -> Row:
    values = {"method": method, "seed": seed, "average_accuracy": accuracy, "forgetting": 0.1, "learning_accuracy": 0.9}
    return {key: str(value) for key, value in {**values, "strength": 10, "seconds": 1, "failed": failed}.items()}


def rows_of(**accuracies: list[float]) -> list[Row]:
    return [row(method, seed, value) for method, found in accuracies.items() for seed, value in enumerate(found)]


@pytest.mark.system
def test_page_is_rebuilt_from_its_tables_alone(tuning: Path, tmp_path: Path) -> None:
    made = results.main([str(tuning.parents[3]), "--docs", str(tmp_path)]).read_text()
    again = results.main([str(tmp_path / "no runs"), "--docs", str(tmp_path)]).read_text()
    assert made == again
    assert "| online_ewc |  | not run |" in made
    assert "1,797 digits of 8 × 8 pixels" in made
    assert "**changed here:** `backbone.widths=[8] " in made
    with (tmp_path / "data" / "results.csv").open() as file:
        for found in csv.DictReader(file):
            metrics = json.loads((tuning.parent / found["run_id"] / "metrics.json").read_text())
            assert float(found["average_accuracy"]) == pytest.approx(metrics["average_accuracy"], rel=1e-5)


@pytest.mark.system
def test_run_whose_folder_is_gone_is_left_out_and_said(
    tuning: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = json.loads(tuning.read_text())
    gone = content["runs"]["ewc"][0]["run_id"]
    place = tmp_path / "results" / "hsu_split_class" / "digits"
    shutil.copytree(tuning.parent, place, ignore=shutil.ignore_patterns(gone, "*.pt", "*.png"))
    reported, _ = results.collect(tmp_path)
    assert gone not in {found["run_id"] for found in reported}
    assert {found["method"] for found in reported} >= {"finetune", "ewc", "joint"}
    assert f"{gone}/metrics.json is not there" in capsys.readouterr().err


def test_rows_of_older_settings_do_not_stay_beside_new_ones(tmp_path: Path) -> None:
    def found(method: str, setting: str) -> Row:
        own = {"protocol": "homework", "data": "digits", "method": method, "setting": setting}
        return {**dict.fromkeys(results.FIELDS, ""), **own, "seed": "0"}

    path = tmp_path / "results.csv"
    results.write_csv(path, (*results.FIELDS, "a column of an older version"), [found("ewc", "a"), found("si", "a")])
    assert {r["method"] for r in results.renewed(path, results.FIELDS, [found("mas", "a")])} == {"ewc", "si", "mas"}
    assert {r["method"] for r in results.renewed(path, results.FIELDS, [found("l2", "b")])} == {"l2"}
    assert results.read_csv(path) == results.renewed(path, results.FIELDS, [])


# Statistics -----------------------------------------------------------------------------------------------------------


def test_interval_is_students() -> None:
    half = 12.706204736 * statistics.stdev([60, 80]) / math.sqrt(2)  # of t with one degree of freedom
    assert summaries(rows_of(ewc=[0.6, 0.8]))["ewc"].interval == pytest.approx(half)
    assert plus_minus([-0.01, 0.01, -0.03]) == "0.0 ± 0.0"  # never minus nothing


def test_gap_closed_is_a_ratio_of_means_of_the_same_seeds() -> None:
    found = summaries(rows_of(finetune=[0.5, 0.6, 0.0], ewc=[0.6, 0.8], joint=[0.9, 1.0, 0.1]))
    share = gap_closed(found["ewc"], found)
    assert share is not None
    assert share.share == pytest.approx((10 + 20) / (40 + 40))
    rest = [(10 - share.share * 40) / 40, (20 - share.share * 40) / 40]
    assert share.half == pytest.approx(12.706204736 * statistics.stdev(rest) / math.sqrt(2))
    others = summaries([*rows_of(finetune=[0.5], joint=[0.9]), row("ewc", 7, 0.6)])
    assert gap_closed(others["ewc"], others) is None  # no seed in common


def test_gap_closed_is_not_said_of_survivors_nor_of_a_joint_below_finetune() -> None:
    lost = summaries([*rows_of(finetune=[0.2, 0.2], joint=[0.9, 0.9], mas=[0.5]), row("mas", 1, math.nan, NAN)])
    assert gap_closed(lost["mas"], lost) is None
    below = summaries(rows_of(finetune=[0.9], joint=[0.2], mas=[0.5]))
    assert gap_closed(below["mas"], below) is None


def test_settled_is_paired_by_seed() -> None:
    ours, theirs = {"0": 60.0, "1": 80.0, "2": 70.0}, {"2": 69.0, "0": 59.1, "1": 79.2}
    assert differences(ours, theirs) == pytest.approx([0.9, 0.8, 1.0])
    assert settled(differences(ours, theirs))  # though the means' own intervals overlap
    assert not settled([0.9, -0.8, 1.0])
    assert not settled([0.9])


def test_strengths_read_as_powers() -> None:
    assert [power(v) for v in (0.01, 1000.0, 1e4, 1e9, 1e-5, 25000.0, 0.0)] == [
        "0.01",
        "1000",
        "1e4",
        "1e9",
        "1e-5",
        "25000",
        "0",
    ]


# Tables ---------------------------------------------------------------------------------------------------------------


def test_method_that_diverged_is_not_shown_as_not_run() -> None:
    failed = [row("mas", seed, math.nan, NAN) for seed in (0, 1)]
    shown = results_page.table(DIGITS, failed, [], summaries(failed))
    assert "| mas | 10 | all 2 diverged |" in shown
    assert "| l2 |  | not run |" in shown


def test_overview_says_how_many_diverged() -> None:
    rows = [*rows_of(finetune=[0.2, 0.2], joint=[0.9, 0.9], si=[0.5, 0.6], mas=[0.5]), row("mas", 1, math.nan, NAN)]
    shown = results_page.overview({("hsu_split_class", "digits"): rows})
    assert "|  |  |  |  | 1 of 2 diverged | 50 ± 91 |  |  | 2 |" in shown


# Sentences ------------------------------------------------------------------------------------------------------------


def test_survivors_do_not_end_highest() -> None:
    rows = [*rows_of(ewc=[0.5, 0.5], mas=[0.9]), row("mas", 1, math.nan, NAN)]
    assert said.sentences(DIGITS, summaries(rows)).startswith("ewc ends highest of the penalties, at 50.0 ± 0.0.")


def test_rivals_and_finetune_are_told_apart_by_seed() -> None:
    found = summaries(
        rows_of(finetune=[0.5, 0.7, 0.6], ewc=[0.6, 0.8, 0.71], mas=[0.59, 0.79, 0.7], si=[0.4, 0.61, 0.5])
    )
    sound = [found[method] for method in ("ewc", "mas", "si")]
    assert said.of_rivals(found["ewc"], sound) == "Paired by seed it is above each of the others."
    worse = said.of_finetune(sound, found)
    assert worse == "Above finetune, paired by seed: ewc and mas; below it: si (-9.7 ± 1.4)."
    noisy = summaries(rows_of(ewc=[0.6, 0.8, 0.7], mas=[0.7, 0.7, 0.69]))
    assert said.of_rivals(noisy["ewc"], list(noisy.values())) == "Paired by seed it is not told apart from mas."


def test_only_a_row_below_its_published_number_by_more_than_its_interval_falls_short() -> None:
    plan = protocol("hsu_split_class", "fashion")  # ewc 19.80, joint 97.53
    short = said.sentences(plan, summaries(rows_of(ewc=[0.1, 0.1], joint=[0.99, 0.99])))
    assert "Below its published number by more than its interval: ewc (10.0 against 19.8)." in short
    assert plan.reason in short
    assert "`trainer.max_steps=5`, may explain it alone. " in said.sentences(
        plan, summaries(rows_of(ewc=[0.1, 0.1])), "trainer.max_steps=5"
    )
    within = said.sentences(plan, summaries(rows_of(ewc=[0.1, 0.25])))
    assert "No row falls short" in within
    assert plan.reason not in within


def test_published_order_counts_pairs_that_our_seeds_settle() -> None:
    found = summaries(rows_of(ewc=[0.5, 0.6], mas=[0.1, 0.2], si=[0.5, 0.59], joint=[0.8, 0.9]))
    both = list(zip(found.values(), (20.0, 30.0, 25.0, 90.0), strict=True))
    order = "Of 6 pairs of published rows our seeds settle 5: 3 in the published order, 2 against it."
    assert said.of_order(both) == order
    assert said.of_order(both[:2]) == "The one pair of published rows stands against the published order."
    assert said.of_order(both[:1]) == ""
    noisy = list(summaries(rows_of(ewc=[0.5, 0.6], mas=[0.6, 0.5], si=[0.5, 0.55])).values())
    unsure = [(summary, theirs) for summary, theirs in zip(noisy, (20.0, 30.0, 40.0), strict=True)]
    assert said.of_order(unsure) == "Of 3 pairs of published rows our seeds settle none."


def test_cause_of_divergence_is_said_only_behind_the_tasks_of_the_choice() -> None:
    failed = [row("mas", seed, math.nan, NAN) for seed in (0, 1)]
    assert "mas (2 of its seeds, at task 4) diverged, all behind the 3 tasks" in said.of_diverged(
        failed, "dataset.window=[0,3]"
    )
    assert said.of_diverged(failed, "dataset.window=[0,4]").endswith("(2 of its seeds, at task 4) diverged.")
    assert said.of_diverged(failed, "val_fraction=0.1").endswith("(2 of its seeds, at task 4) diverged.")
    assert said.of_diverged([row("mas", 0, 0.5)], "") == ""
