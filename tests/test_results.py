"""The tables of the results page: every number a run's, and redrawn from docs/data alone."""

import json
import math
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest
from pandas import DataFrame

import results
from lifelong.config.schema import ConfigError
from lifelong.experiment.errors import composed
from lifelong.plots.report.runs import read_runs
from lifelong.runs.identity import identifier
from results import at_commit, changes, collect, current, of_further_seeds
from run_folders import failed, finished, finished_as, unfinished
from studies.pages import kept, power, read_csv, renew
from studies.protocols import DATA, Protocol, Published, protocol, with_seed
from studies.tables import distance, overview, page_tables, results_table

MNIST = protocol("hsu_split_class", "mnist")
NAN = "DivergedError: train/loss is nan at step 9 (task 4, perm3)"
NO_TUNING = DataFrame(columns=["method", "strength", "seconds"])


def rows_of(compat: str, **accuracies: list[float]) -> DataFrame:
    """A row per seed; nan: diverged."""
    rows = [
        {"method": method, "seed": seed, "average_accuracy": value, "failed": NAN if math.isnan(value) else ""}
        for method, values in accuracies.items()
        for seed, value in enumerate(values)
    ]
    return DataFrame(rows).assign(compat=compat, forgetting=0.1, strength=10.0, seconds=1800.0)


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
    again = results.main([str(docs), "--docs", str(docs)]).read_text()
    assert made == again
    assert "by hand\n" in made
    assert "by hand too\n" in made
    assert "old" not in made
    assert "**changed here:** " in made
    assert "backbone.widths=[8] " in made
    rows = read_csv(docs / "data" / "results.csv")
    assert set(rows["method"]) == {"finetune", "ewc", "joint"}
    for row in rows.itertuples():
        folder = tuning / "results" / "hsu_split_class" / "digits" / row.compat / row.method / row.run_id
        metrics = json.loads((folder / "metrics.json").read_text())
        assert row.average_accuracy == pytest.approx(metrics["average_accuracy"], rel=1e-5)
        assert (row.commit, row.code, row.environment) == tuple(metrics[k] for k in ("commit", "code", "environment"))
        python, script, *overrides = shlex.split(row.command)
        assert (python, script) == ("python", "train.py")
        assert identifier(composed(overrides)) == row.run_id
    grid = read_csv(docs / "data" / "tuning.csv")
    means = grid.groupby("strength")["val_average_accuracy"].mean()
    assert set(grid.loc[grid["chosen"] == "yes", "strength"]) <= set(means.index[means == means.max()])


@pytest.mark.system
def test_what_is_found_again_replaces_its_rows_alone(tuning: Path, docs: Path, tmp_path: Path) -> None:
    results.main([str(tuning), "--docs", str(docs)])
    column = Path("results", "hsu_split_class", "digits", "right", "ewc")
    place = tmp_path / "fewer" / column
    place.mkdir(parents=True)
    (gone, kept) = sorted((tuning / column).glob("ewc-*"))
    shutil.copytree(kept, place / kept.name)
    results.main([str(tmp_path / "fewer"), "--docs", str(docs)])
    rows = read_csv(docs / "data" / "results.csv")
    assert kept.name in set(rows["run_id"])
    assert gone.name not in set(rows["run_id"])
    assert set(rows["method"]) == {"finetune", "ewc", "joint"}


def test_cell_whose_sweep_has_not_begun_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "results" / "hsu_split_class" / "mnist" / "right" / "ewc").mkdir(parents=True)
    before = [read_csv(DATA / f"{name}.csv") for name in ("results", "tuning")]
    for old, new in zip(before, collect(tmp_path, *before), strict=True):
        assert set(new["run_id"]) == set(old["run_id"])


def put(root: Path, plan: Protocol, strength: float, learned: float, *, choosing: bool = False) -> None:
    """Runs of `ewc` at seeds 0 and 1, where scripts/tune.py has them."""
    for seed in (0, 1):
        config = with_seed([*plan.of_row("ewc", "right"), *(plan.choose if choosing else [])], seed, strength)
        place = root / plan.place("ewc", "right") / ("choose" if choosing else "")
        finished_as(place, config, learned=learned, forgets=0.0, strength=strength)


def collected_from(root: Path, results: DataFrame | None = None) -> tuple[DataFrame, DataFrame]:
    empty = [read_csv(DATA / f"{name}.csv")[:0] for name in ("results", "tuning")]
    return collect(root, empty[0] if results is None else results, empty[1])


@pytest.mark.parametrize(("name", "data"), [("families_rotated", "mnist5k"), ("hsu_split_class", "digits")])
def test_chosen_strength_is_reported_though_a_run_that_chose_it_may_be_the_same(
    name: str, data: str, tmp_path: Path
) -> None:
    """It is where a protocol has no `choose`. Marks stay while the reported runs are elsewhere."""
    plan = protocol(name, data)
    for strength, learned in ((100.0, 0.8), (1000.0, 0.9), (10000.0, 0.7)):
        put(tmp_path, plan, strength, learned, choosing=True)
    put(tmp_path, plan, 1000.0, 0.9)
    reported, grid = collected_from(tmp_path)
    assert reported[["strength", "seed"]].to_numpy().tolist() == [[1000.0, 0], [1000.0, 1]]
    assert grid.loc[grid["chosen"] == "yes", "strength"].tolist() == [1000.0, 1000.0]
    for path in (tmp_path / plan.place("ewc", "right")).glob("ewc-*"):
        shutil.rmtree(path)
    again = collected_from(tmp_path, reported)
    assert again[0]["run_id"].tolist() == reported["run_id"].tolist()
    assert again[1]["chosen"].tolist() == grid["chosen"].tolist()


def test_cell_is_of_one_strength(tmp_path: Path) -> None:
    for strength in (100.0, 1000.0):
        put(tmp_path, protocol("hsu_split_class", "digits"), strength, 0.5)
    with pytest.raises(ConfigError, match=r"right/ewc must have reported runs at one strength, got 100, 1000: put"):
        collected_from(tmp_path)


def test_only_runs_that_failed_of_their_own_numbers_count(tmp_path: Path) -> None:
    failed(tmp_path, "seed=0")
    failed(tmp_path, "seed=1", reason="OSError: No space left on device")
    assert kept(read_runs(tmp_path))["seed"].tolist() == [0]


def test_folder_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^runs must be a folder, got .*rnus$"):
        results.main([str(tmp_path / "rnus")])


def test_seed_is_an_integer_beside_a_run_whose_seed_is_not_known(tmp_path: Path) -> None:
    finished(tmp_path, "seed=3")
    (unfinished(tmp_path, "seed=4") / "config.yaml").write_text("a: [")
    assert kept(read_runs(tmp_path))["seed"].map(str).tolist() == ["3"]


@pytest.mark.system  # composes all rows that are the same in both columns
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


def test_run_of_an_earlier_protocol_gives_way_to_one_of_the_same_seed() -> None:
    changed = ["", "method.margin=0.5", "method.margin=0.5", "method.margin=0.5"]
    rows = pd.DataFrame({"seed": [0, 0, 1, 2], "changed": changed})
    assert current(rows).index.tolist() == [0, 2, 3]
    assert current(rows[1:]).index.tolist() == [1, 2, 3]


@pytest.mark.system
def test_published_rows_are_of_the_protocols_as_they_are_now() -> None:
    """So that a protocol that is edited takes its rows along."""
    table = read_csv(DATA / "results.csv")
    rows = table[(table["compat"] == "published") & (table["changed"] == "")]
    for (name, data, row), of_row in rows.groupby(["protocol", "data", "method"]):
        plan = protocol(name, data)
        now = [identifier(with_seed(plan.of_row(row, "published"), seed)) for seed in of_row["seed"]]
        assert now == of_row["run_id"].tolist(), (name, row)


def test_further_seeds_stay_while_the_protocol_is_theirs() -> None:
    """Those of another λ, of another protocol and of a seed that is found anew give way."""
    lines = [(0, 1000.0, []), (1, 1000.0, []), (2, 100.0, []), (3, 1000.0, ["batch_size=64"]), (4, 1000.0, [])]
    ids = [
        identifier(composed([*MNIST.of_row("ewc", "right", strength), f"seed={seed}", *more]))
        for seed, strength, more in lines
    ]
    old = DataFrame({"seed": [seed for seed, _, _ in lines], "run_id": ids})
    found = DataFrame({"seed": [0], "strength": [1000.0]})
    assert of_further_seeds(old, found, MNIST, "right", "ewc")["seed"].tolist() == [1, 4]


def test_what_was_tried_is_in_no_table() -> None:
    place = {"protocol": MNIST.name, "data": MNIST.data, "changed": ""}
    reported, tried = (rows_of(compat, ewc=[0.2]).assign(**place) for compat in ("published", "tried"))
    grid = NO_TUNING.assign(protocol="", data="")
    assert page_tables(pd.concat([reported, tried]), grid) == page_tables(reported, grid)


def test_table_without_a_place_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.md").write_text("by hand")
    renew(tmp_path / "page.md", {"new": "| a |"})
    assert (tmp_path / "page.md").read_text() == "by hand"
    assert "has no place for a table: write <!-- begin new --> and <!-- end new --> in it" in capsys.readouterr().err


def test_distance_is_in_standard_errors_of_the_difference() -> None:
    ours = pd.Series([50.0, 52.0, 54.0])  # standard deviation 2
    std, sem = Published(60.0, 3.0, "std", 9), Published(60.0, 1.0, "sem", 9)
    assert distance(ours, std) == pytest.approx(8 / math.sqrt(4 / 3 + 1))
    assert distance(ours, sem) == distance(ours, std)
    assert Published(60.0, 3.0, "population std", 10).sem == 1.0
    unknown = Published(60.0, math.nan, "std", 1)
    assert distance(ours, unknown) == pytest.approx(8 / math.sqrt(4 / 3 + 4))  # one run, spread as ours
    assert distance(pd.Series([52.0]), std) == pytest.approx(8 / math.sqrt(9 + 1))  # ours as theirs
    assert math.isnan(distance(pd.Series([52.0]), unknown))


def test_means_that_moved_between_two_tables_are_named() -> None:
    before, after = (
        rows_of("right", ewc=values, si=[0.5]).assign(protocol="p", data="d") for values in ([0.5], [0.625])
    )
    table = changes(before, pd.concat([after, rows_of("right", mas=[0.25]).assign(protocol="p", data="d")]))
    assert table.to_numpy().tolist() == [
        ["p d right ewc", "50.00", "62.50", "12.50"],
        ["p d right mas", "–", "25.00", "–"],
    ]


def test_commit_that_is_none_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^--compare must be two git commits .*, got 'no-such-commit'"):
        at_commit("no-such-commit")


def test_strengths_read_as_powers() -> None:
    values = {0.01: "0.01", 1000.0: "1000", 1e4: "1e4", 1e9: "1e9", 1e-5: "1e-5", 25000.0: "25000", 0.0: "0"}
    assert {value: power(value) for value in values} == values


def test_both_columns_stand_beside_the_published_number() -> None:
    rows = pd.concat([
        rows_of("published", finetune=[0.19, 0.20], ewc=[0.198, 0.2], si=[0.3, 0.31]),
        rows_of("right", ewc=[0.21, math.nan], mas=[math.nan] * 2),
    ])  # fmt: skip
    table = results_table(MNIST, rows, NO_TUNING).set_index("row")
    assert table.loc["ewc", "Hsu et al."] == "19.80 ± 0.02 (10)"
    assert table.loc["ewc", ["as published", "done right"]].tolist() == ["19.90 ± 0.10 (2)", "21.00 (1), 1 diverged"]
    assert table.loc["ewc", "distance"] == "0.99"
    assert table.loc["finetune", "done right"] == table.loc["finetune", "as published"]  # the same run
    assert table.loc["mas", "done right"] == "2 diverged"
    assert table.loc["gem", "as published"] == ""  # published, not run
    (row,) = overview({("hsu_split_class", "mnist"): (rows, NO_TUNING)}).to_dict("records")
    assert (row["published cells"], row["compared"], row["within 2 standard errors"]) == ("12", "3", "2 (67 %)")
    assert row["hours"] == "5.0"
