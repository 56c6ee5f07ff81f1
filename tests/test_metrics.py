"""The measures against the numbers of methods.md §10, against slow loops over the definitions, and at their borders."""

import csv
import io
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lifelong import metrics
from lifelong.metrics import measures, to_csv
from reference import continual_evaluation

R = torch.tensor([[0.9, 0.1, 0.1], [0.7, 0.8, 0.2], [0.6, 0.85, 0.9]], dtype=torch.float64)
BASELINE = torch.full((3,), 0.1, dtype=torch.float64)
NEED_TWO_TASKS = ("forgetting", "backward_transfer", "forward_transfer", "min_accuracy")


def random_matrix(num_tasks: int, seed: int = 0) -> Tensor:
    return torch.rand(num_tasks, num_tasks, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_definition(R: list[list[float]], b: list[float]) -> dict[str, float]:
    """Every measure as a loop over its formula, with the papers' indices 1..T shifted to 0..T-1."""
    T = len(R)
    last = R[-1]
    lowest = [min(R[i][j] for i in range(j + 1, T)) for j in range(T - 1)]
    return {
        "average_accuracy": sum(last) / T,
        "average_incremental_accuracy": sum(sum(R[k][: k + 1]) / (k + 1) for k in range(T)) / T,
        "learning_accuracy": sum(R[i][i] for i in range(T)) / T,
        "forgetting": sum(max(R[i][j] for i in range(T - 1)) - last[j] for j in range(T - 1)) / (T - 1),
        "backward_transfer": sum(last[j] - R[j][j] for j in range(T - 1)) / (T - 1),
        "forward_transfer": sum(R[j - 1][j] - b[j] for j in range(1, T)) / (T - 1),
        "min_accuracy": sum(lowest) / (T - 1),
        "worst_case_accuracy": last[-1] / T + (1 - 1 / T) * sum(lowest) / (T - 1),
    }


def test_measures_are_the_numbers_of_the_reference_page() -> None:
    by_hand = (2.35 / 3, (0.9 + 0.75 + 2.35 / 3) / 3, 2.6 / 3, 0.125, -0.125, 0.05, 0.725, 0.3 + 2 / 3 * 0.725)
    assert list(measures(R, BASELINE).values()) == pytest.approx(by_hand, abs=1e-15)  # float64 rounding of three terms


@given(num_tasks=st.integers(2, 7), seed=st.integers(0, 99))
def test_measures_equal_loops_over_their_definitions(num_tasks: int, seed: int) -> None:
    R, baseline = random_matrix(num_tasks, seed), random_matrix(num_tasks, seed + 100)[0]
    assert measures(R, baseline) == pytest.approx(by_definition(R.tolist(), baseline.tolist()), abs=1e-14)


def test_forgetting_is_negative_when_the_last_row_is_the_best() -> None:
    R = torch.tensor([[0.5, 0.0], [0.8, 0.9]], dtype=torch.float64)
    torch.testing.assert_close(metrics.forgetting(R).item(), -0.3)


def test_intransigence_is_the_mean_shortfall_from_the_reference() -> None:
    reference = torch.tensor([0.95, 0.9, 0.85], dtype=torch.float64)
    torch.testing.assert_close(metrics.intransigence(R, reference).item(), (0.05 + 0.1 - 0.05) / 3)
    assert metrics.intransigence(R, R.diagonal()).item() == 0


def test_min_accuracy_sees_a_drop_within_a_task_but_none_before_the_task_was_learned() -> None:
    tasks = torch.tensor([0, 0, 1, 1])
    evaluations = torch.tensor([[0.2, 0.0], [0.9, 0.0], [0.3, 0.4], [0.7, 0.8]], dtype=torch.float64)
    torch.testing.assert_close(metrics.min_accuracy(evaluations, tasks).item(), 0.3)
    torch.testing.assert_close(metrics.worst_case_accuracy(evaluations, tasks).item(), 0.8 / 2 + 0.3 / 2)


def test_anytime_measures_once_a_task_are_those_of_the_matrix() -> None:
    R, tasks = random_matrix(5), torch.arange(5)
    assert metrics.average_anytime_accuracy(R, tasks) == metrics.average_incremental_accuracy(R)
    assert metrics.min_accuracy(R, tasks) == metrics.min_accuracy(R)
    assert metrics.worst_case_accuracy(R, tasks) == metrics.worst_case_accuracy(R)


def test_anytime_measures_read_no_column_of_a_task_not_yet_met() -> None:
    evaluations, tasks = random_matrix(4)[:, :3], torch.tensor([0, 0, 1, 2])
    unmet = torch.arange(3) > tasks[:, None]
    for measure in (metrics.average_anytime_accuracy, metrics.min_accuracy, metrics.worst_case_accuracy):
        assert measure(evaluations.masked_fill(unmet, torch.nan), tasks) == measure(evaluations, tasks)


GRID = [[0.9, 0.0, 0.0], [0.5, 0.6, 0.0], [0.7, 0.8, 0.0], [0.6, 0.9, 0.5], [0.65, 0.7, 0.8]]
"""Of 3 tasks, evaluated once, twice and twice."""
TASKS = [0, 1, 1, 2, 2]


def test_measures_within_tasks_are_those_by_hand() -> None:
    found = metrics.within_measures(torch.tensor(GRID, dtype=torch.float64), torch.tensor(TASKS))
    gaps = [0.7 - 0.5, (0.65 - 0.6 + 0.7 - 0.7) / 2]
    anytime = (0.9 + (0.5 + 0.6) / 2 + (0.7 + 0.8) / 2 + (0.6 + 0.9 + 0.5) / 3 + (0.65 + 0.7 + 0.8) / 3) / 5
    assert found["within_stability_gap_per_switch"] == pytest.approx(gaps)
    assert found["within_stability_gap"] == pytest.approx(sum(gaps) / 2)
    assert found["within_min_accuracy"] == pytest.approx((0.5 + 0.7) / 2)
    assert found["within_worst_case_accuracy"] == pytest.approx(0.8 / 3 + 2 / 3 * 0.6)
    assert found["within_average_anytime_accuracy"] == pytest.approx(anytime)


@given(counts=st.lists(st.integers(1, 4), min_size=2, max_size=5), seed=st.integers(0, 99))
def test_measures_within_tasks_equal_loops_over_their_definitions(counts: list[int], seed: int) -> None:
    tasks = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    rows = torch.rand(len(tasks), len(counts), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found, slow = metrics.within_measures(rows, tasks), continual_evaluation(rows.tolist(), tasks.tolist())
    assert found.keys() == slow.keys()
    for name, value in slow.items():
        assert found[name] == pytest.approx(value, abs=1e-14), name  # float64 sums of at most 20 terms


@given(seed=st.integers(0, 99))
def test_gap_needs_a_drop_that_is_made_up_for(seed: int) -> None:
    tasks = torch.tensor([0, 1, 1, 1, 2, 2, 2])
    rows = torch.rand(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    assert (metrics.stability_gap(rows, tasks) >= 0).all()
    for falls in (False, True):
        assert metrics.stability_gap(rows.sort(dim=0, descending=falls).values, tasks).tolist() == [0, 0]
    at_ends = rows[[0, 3, 6]]
    assert metrics.stability_gap(at_ends, torch.arange(3)).tolist() == [0, 0]
    within, ends = metrics.within_measures(rows, tasks), metrics.measures(at_ends)
    assert within["within_min_accuracy"] <= ends["min_accuracy"] <= ends["average_accuracy"] * 3 / 2
    assert within["within_worst_case_accuracy"] <= ends["worst_case_accuracy"] <= ends["average_accuracy"] + 1e-15


def test_stream_of_one_task_has_no_gap() -> None:
    found = metrics.within_measures(torch.tensor([[0.2], [0.7]]), torch.tensor([0, 0]))
    assert found.pop("within_stability_gap_per_switch") == []
    assert {name for name, value in found.items() if math.isnan(value)} == {
        "within_min_accuracy",
        "within_stability_gap",
    }
    assert found["within_average_anytime_accuracy"] == pytest.approx(0.45)


def test_gap_refuses_a_task_without_an_evaluation() -> None:
    with pytest.raises(ValueError, match=r"tasks must hold each of 0..2, got \[0, 2\]"):
        metrics.stability_gap(R, torch.tensor([0, 2, 2]))


def test_measures_that_need_two_tasks_are_nan_after_one() -> None:
    found = measures(torch.tensor([[0.7]], dtype=torch.float64), torch.tensor([0.1]))
    assert {name for name, value in found.items() if math.isnan(value)} == set(NEED_TWO_TASKS)
    assert {value for value in found.values() if not math.isnan(value)} == {0.7}


def test_without_a_baseline_forward_transfer_alone_is_nan() -> None:
    assert [name for name, value in measures(R).items() if math.isnan(value)] == ["forward_transfer"]


@pytest.mark.parametrize("shape", [(2, 3), (3,), (0, 0), (1, 2, 2)])
def test_measures_refuse_what_is_not_a_square_matrix(shape: tuple[int, ...]) -> None:
    rows = (lambda R: metrics.forward_transfer(R, BASELINE), lambda R: metrics.intransigence(R, BASELINE))
    names = ("average_accuracy", "average_incremental_accuracy", "learning_accuracy", "backward_transfer", "forgetting",
             "min_accuracy", "worst_case_accuracy", "measures")  # fmt: skip
    refusing = (*rows, *(getattr(metrics, name) for name in names))
    for measure in refusing:
        with pytest.raises(ValueError, match=r"R must have shape \(T, T\)"):
            measure(torch.zeros(shape))


def test_measures_refuse_a_row_of_another_length() -> None:
    with pytest.raises(ValueError, match=r"baseline must have shape \(3,\)"):
        metrics.forward_transfer(R, BASELINE[:2])
    with pytest.raises(ValueError, match=r"reference must have shape \(3,\)"):
        metrics.intransigence(R, BASELINE[None])


@pytest.mark.parametrize(
    ("tasks", "message"),
    [([0, 1], "shapes"), ([0, 2, 1], "ascend"), ([0, 1, 3], "ascend"), ([-1, 0, 1], "ascend")],
)
def test_anytime_measures_refuse_tasks_that_do_not_fit(tasks: list[int], message: str) -> None:
    for measure in (metrics.average_anytime_accuracy, metrics.min_accuracy, metrics.worst_case_accuracy):
        with pytest.raises(ValueError, match=message):
            measure(R, torch.tensor(tasks))


def test_csv_reads_back_to_the_same_float64() -> None:
    names = ["0°", "classes 0, 1", 'the "third"', "last"]
    R = random_matrix(4) * torch.tensor([1, 1e-7, 0, 1], dtype=torch.float64)
    text = to_csv(R, names)
    header, *rows = csv.reader(io.StringIO(text))
    assert header == names
    assert [[float(cell) for cell in row] for row in rows] == R.tolist()
    assert not any("e" in cell for row in rows for cell in row)


def test_csv_is_plain_text_of_names_and_numbers() -> None:
    R = torch.tensor([[1.0, 0.1], [0.85, 0.00005]], dtype=torch.float64)
    assert to_csv(R, ["a", "b"]) == "a,b\n1.0,0.1\n0.85,0.00005\n"
