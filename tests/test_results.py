"""The tables of the results page: every number a run's, and redrawn from docs/data alone."""

import json
import math
import shutil
import statistics
from pathlib import Path

import pandas as pd
import pytest
from pandas import DataFrame

import results
from results import gap_closed, overview, results_table
from studies.pages import power, read_csv, renew
from studies.protocols import DATA, protocol

DIGITS = protocol("hsu_split_class", "digits")
NAN = "DivergedError: train/loss is nan at step 9 (task 4, perm3)"
NO_TUNING = DataFrame(columns=["method", "strength"])


def rows_of(**accuracies: list[float]) -> DataFrame:
    """A row per seed; nan: diverged."""
    rows = [
        {"method": method, "seed": seed, "average_accuracy": value, "failed": NAN if math.isnan(value) else ""}
        for method, values in accuracies.items()
        for seed, value in enumerate(values)
    ]
    return DataFrame(rows).assign(forgetting=0.1, learning_accuracy=0.9, strength=10.0, seconds=1.0)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A page with a place for one protocol, and the files of docs/data without a row."""
    (tmp_path / "data").mkdir()
    for name in ("results", "tuning"):
        (tmp_path / "data" / f"{name}.csv").write_text((DATA / f"{name}.csv").read_text().partition("\n")[0] + "\n")
    place = "by hand\n<!-- begin hsu_split_class digits -->\nold\n<!-- end hsu_split_class digits -->\nby hand too\n"
    (tmp_path / "results.md").write_text(f"<!-- begin overview -->\n<!-- end overview -->\n{place}")
    return tmp_path


@pytest.mark.system
def test_page_is_redrawn_from_its_files_alone(tuning: Path, docs: Path) -> None:
    made = results.main([str(tuning), "--docs", str(docs)]).read_text()
    again = results.main([str(docs / "no runs"), "--docs", str(docs)]).read_text()
    assert made == again
    assert "by hand\n" in made
    assert "by hand too\n" in made
    assert "old" not in made
    assert "**changed here:** `" in made
    assert "backbone.widths=[8] " in made
    rows = read_csv(docs / "data" / "results.csv")
    assert set(rows["method"]) == {"finetune", "ewc", "joint"}
    for row in rows.itertuples():
        folder = tuning / "results" / "hsu_split_class" / "digits" / row.run_id
        metrics = json.loads((folder / "metrics.json").read_text())
        assert row.average_accuracy == pytest.approx(metrics["average_accuracy"], rel=1e-5)
    grid = read_csv(docs / "data" / "tuning.csv")
    means = grid.groupby("strength")["val_average_accuracy"].mean()
    assert set(grid.loc[grid["chosen"] == "yes", "strength"]) <= set(means.index[means == means.max()])


@pytest.mark.system
def test_what_is_found_again_replaces_its_rows_alone(tuning: Path, docs: Path, tmp_path: Path) -> None:
    results.main([str(tuning), "--docs", str(docs)])
    place = tmp_path / "fewer" / "results" / "hsu_split_class" / "digits"
    place.mkdir(parents=True)
    (gone, kept) = sorted((tuning / "results" / "hsu_split_class" / "digits").glob("ewc-*"))
    shutil.copytree(kept, place / kept.name)
    results.main([str(tmp_path / "fewer"), "--docs", str(docs)])
    rows = read_csv(docs / "data" / "results.csv")
    assert kept.name in set(rows["run_id"])
    assert gone.name not in set(rows["run_id"])
    assert set(rows["method"]) == {"finetune", "ewc", "joint"}


def test_docs_hold_the_tables_that_their_files_make(tmp_path: Path) -> None:
    """`make results` without runs changes nothing."""
    shutil.copytree(DATA, tmp_path / "data")
    for page in ("results.md", "methods.md"):
        shutil.copy(DATA.parent / page, tmp_path)
    results.main([str(tmp_path), "--docs", str(tmp_path)])
    for page in ("results.md", "methods.md"):
        assert (tmp_path / page).read_text() == (DATA.parent / page).read_text()
    for name in ("results", "tuning"):
        pd.testing.assert_frame_equal(*(read_csv(d / f"{name}.csv") for d in (DATA, tmp_path / "data")))


def test_table_without_a_place_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.md").write_text("by hand")
    renew(tmp_path / "page.md", {"new": "| a |"})
    assert (tmp_path / "page.md").read_text() == "by hand"
    assert "has no place for a table: write <!-- begin new --> and <!-- end new --> in it" in capsys.readouterr().err


def test_gap_closed_is_a_ratio_of_means_of_the_same_seeds() -> None:
    share = (10 + 20) / (40 + 40)
    rest = [(10 - share * 40) / 40, (20 - share * 40) / 40]
    half = 100 * 12.706204736 * statistics.stdev(rest) / math.sqrt(2)  # t with one degree of freedom
    found = rows_of(finetune=[0.5, 0.6, 0.0], ewc=[0.6, 0.8], joint=[0.9, 1.0, 0.1])
    assert gap_closed(found, "ewc") == f"{100 * share:.0f} ± {half:.0f}"
    others = pd.concat([rows_of(finetune=[0.5], joint=[0.9]), rows_of(ewc=[0.6]).assign(seed=7)])
    assert gap_closed(others, "ewc") == ""  # no seed in common


def test_gap_closed_is_not_said_of_survivors_nor_of_a_joint_below_finetune() -> None:
    assert gap_closed(rows_of(finetune=[0.2, 0.2], joint=[0.9, 0.9], mas=[0.5, math.nan]), "mas") == ""
    assert gap_closed(rows_of(finetune=[0.9], joint=[0.2], mas=[0.5]), "mas") == ""
    assert gap_closed(rows_of(finetune=[0.1], mas=[0.5]), "mas") == ""


def test_strengths_read_as_powers() -> None:
    values = {0.01: "0.01", 1000.0: "1000", 1e4: "1e4", 1e9: "1e9", 1e-5: "1e-5", 25000.0: "25000", 0.0: "0"}
    assert {value: power(value) for value in values} == values


def test_divergence_is_said_in_both_tables() -> None:
    rows = rows_of(finetune=[0.2, 0.2], joint=[0.9, 0.9], si=[0.5, 0.6], mas=[0.5, math.nan], l2=[math.nan] * 2)
    table = results_table(DIGITS, rows, NO_TUNING).set_index("method")
    assert table.loc["l2", ["average accuracy", "seeds"]].tolist() == ["–", "0 (2 diverged)"]
    assert table.loc["mas", ["average accuracy", "seeds"]].tolist() == ["50.0", "1 (1 diverged)"]
    (row,) = overview({("hsu_split_class", "digits"): rows}).to_dict("records")
    assert (row["mas"], row["l2"], row["si"], row["ewc"]) == ("1 of 2 diverged", "2 of 2 diverged", "50 ± 91", "")
