"""Permutation tests, corrections, interquartile means, against their definitions; and what scripts/compare.py says."""

import math
from pathlib import Path

import numpy as np
import pytest

import compare
from lifelong.config.schema import ConfigError
from lifelong.plots.report.page import write_report
from lifelong.plots.report.runs import read_runs
from lifelong.plots.report.significance import MAX_EXACT, holm, iqm, iqm_interval, pairs_needed, permutation_p
from lifelong.plots.report.tables import best_runs, comparison_table, in_all_streams, reference
from reference import interquartile_mean, sign_flip_p
from run_folders import finished

pytestmark = pytest.mark.xdist_group("significance")  # whose run folders are made once


@pytest.mark.parametrize("num_pairs", [2, 3, 5, 8, 11])
def test_permutation_p_is_the_share_of_all_signs(num_pairs: int) -> None:
    differences = np.random.default_rng(num_pairs).normal(0.4, 1, num_pairs).tolist()
    assert permutation_p(differences) == pytest.approx(sign_flip_p(differences), abs=1e-12)
    assert permutation_p([-d for d in differences]) == permutation_p(differences)


def test_permutation_p_of_no_difference_is_one_and_of_a_single_pair_unknown() -> None:
    assert permutation_p([0.0] * 4) == 1
    assert math.isnan(permutation_p([0.3]))
    assert math.isnan(permutation_p([0.3, math.nan]))


def test_permutation_p_of_many_pairs_is_drawn_the_same_each_time_and_near_the_normal_law() -> None:
    """Standard error of 16384 draws at p = 0.1: 0.0024; the normal law is 0.004 away at 60 pairs at most."""
    differences = [1.0] * 36 + [-1.0] * 24
    assert len(differences) > MAX_EXACT
    exact = 2 * sum(math.comb(60, k) for k in range(36, 61)) / 2**60
    assert permutation_p(differences) == permutation_p(differences) == pytest.approx(exact, abs=4 * 0.0027)


@pytest.mark.parametrize("num_tests", [1, 2, 19])
def test_smallest_p_is_below_the_level_from_the_pairs_needed_on(num_tests: int) -> None:
    """Differences of one sign are the most extreme; Holm multiplies the smallest p by the number of tests."""
    needed = pairs_needed(num_tests)
    for num_pairs, is_below in ((needed - 1, False), (needed, True)):
        smallest = permutation_p(range(1, num_pairs + 1))
        assert smallest == 2 / 2**num_pairs
        assert (holm([smallest, *[1.0] * (num_tests - 1)]).iloc[0] < 0.05) == is_below


def test_holm_is_the_printed_example() -> None:
    """0.01, 0.04, 0.03, 0.005 → 0.03, 0.06, 0.06, 0.02: 0.04 is raised to the one before it; nan does not count."""
    np.testing.assert_allclose(holm([0.01, 0.04, math.nan, 0.03, 0.005]), [0.03, 0.06, math.nan, 0.06, 0.02])
    assert holm([0.6, 0.9]).tolist() == [1, 1]


@pytest.mark.parametrize("num", [1, 3, 4, 5, 9, 16])
def test_iqm_is_the_mean_of_the_middle_half(num: int) -> None:
    values = np.random.default_rng(num).normal(size=num).tolist()
    assert iqm(values) == iqm(values[:1], values[1:]) == pytest.approx(interquartile_mean(values), abs=1e-12)


def test_bootstrap_interval_is_that_of_draws_within_each_stratum() -> None:
    """Against 20,000 draws of one stratum by another generator; both ends are known to 0.05 s/√n from 2,000 draws.

    Of two constant strata no draw differs, however far apart they are: streams are never drawn.
    """
    values = np.random.default_rng(0).normal(size=16)
    draws = np.random.default_rng(1).choice(values, (20_000, 16))
    expected = np.percentile([interquartile_mean(draw) for draw in draws.tolist()], [2.5, 97.5])
    np.testing.assert_allclose(iqm_interval(values), expected, atol=0.06)
    assert iqm_interval([1.0] * 5, [9.0] * 5) == (5.0, 5.0)
    assert all(map(math.isnan, iqm_interval([1.0, 2.0], [3.0])))


def two_streams(root: Path, *, val: bool = True) -> Path:
    """Six seeds of ewc, better by 1 to 6 points than mas, on two streams; l2 and joint on one of them."""
    for more in ((), ("dataset.angles=[0,1,2]",)):
        for seed in range(6):
            for method, learned in (("ewc", 0.80 + 0.01 * seed), ("mas", 0.79)):
                kept = {} if val else {"val_average_accuracy": None}
                finished(root, f"method={method}", f"seed={seed}", *more, learned=learned, forgets=0.0, **kept)
    finished(root, "method=l2", "seed=0", learned=0.95, forgets=0.0)
    finished(root, "method=joint", "seed=0", learned=0.99, forgets=0.0)
    return root


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_streams(tmp_path_factory.mktemp("runs"))


def test_comparison_pairs_runs_of_one_stream_and_seed(streams: Path) -> None:
    """By hand: on one stream differences −1 … −6, p = 2/64; on both 12 pairs, p = 2/4096."""
    best = best_runs(read_runs(streams))
    assert reference(best) == "ewc"
    assert set(in_all_streams(best)["line"]) == {"ewc", "mas"}
    both = comparison_table(in_all_streams(best), "ewc").set_index("method")
    assert both.loc["mas", ["runs", "pairs", "difference", "p", "Holm"]].tolist() == [
        "12", "12", "-3.5 ± 1.1", "0.000488", "0.000488",
    ]  # fmt: skip
    assert both.loc["ewc", ["IQM", "pairs", "p"]].tolist()[1:] == ["0", "–"]
    one = comparison_table(best[best["section"] == best["section"].max()], "ewc").set_index("method")
    assert one.index[0] == "joint"
    assert one.loc["mas", ["pairs", "p", "Holm", "IQM"]].tolist() == ["6", "0.0312", "0.0312", "79.0 [79.0, 79.0]"]
    assert one.loc["l2", ["mean", "IQM", "pairs", "p", "Holm"]].tolist() == ["95.0", "95.0", "1", "–", "–"]


def test_page_says_what_is_more_than_chance_and_how_many_seeds_that_takes(
    streams: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lifelong.plots.report.page.FIGURES", {})
    page = write_report(streams).read_text()
    assert page.count('<table class="comparison">') == 3
    assert "All streams together" in page
    assert "takes\n6 pairs or more, after Holm's correction 7." in page  # of the three tests of the first stream
    assert "0.000488" in page


def test_without_validation_data_nothing_is_compared_with_a_best_method(tmp_path: Path) -> None:
    best = best_runs(read_runs(two_streams(tmp_path, val=False)))
    best = best[best["method"].isin(["ewc", "mas"])]
    assert reference(best) is None
    assert "p" not in comparison_table(best, None)


def test_compare_tests_settings_against_the_first_over_their_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [
        str(finished(tmp_path, f"method={method}", f"seed={seed}", learned=learned + 0.01 * seed))
        for method, learned in (("mas", 0.7), ("ewc", 0.8))
        for seed in range(3)
    ]
    compare.main(["--seeds", *paths])
    out = capsys.readouterr().out
    (row,) = [line for line in out.splitlines() if line.startswith("│ ewc") and "+10.0 ± 0.0" in line][:1]
    assert row.split("│")[1].strip() == "ewc, λ = 1000"
    assert "│ 0.25 │ 0.25 │" in row
    assert "one below 0.05 takes 6 seeds or more" in out
    with pytest.raises(ConfigError, match=r"^RUN must be runs of two or more .*, got mas, λ = 1 alone$"):
        compare.main(["--seeds", *paths[:3]])
    other = str(finished(tmp_path, "dataset.angles=[0,1,2]"))
    with pytest.raises(ConfigError, match=r"^RUN must be runs of one stream, got rotated"):
        compare.main(["--seeds", *paths, other])
