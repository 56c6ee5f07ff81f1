"""The measures against the numbers of methods.md §10, against slow loops over the definitions, and at their borders."""

import csv
import io
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lifelong import metrics
from lifelong.metrics import AccuracyMatrix

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
    measures = AccuracyMatrix.from_rows(R, BASELINE).compute()
    assert measures == pytest.approx(
        {
            "average_accuracy": 2.35 / 3,
            "average_incremental_accuracy": (0.9 + 0.75 + 2.35 / 3) / 3,
            "learning_accuracy": 2.6 / 3,
            "forgetting": 0.125,
            "backward_transfer": -0.125,
            "forward_transfer": 0.05,
            "min_accuracy": 0.725,
            "worst_case_accuracy": 0.3 + 2 / 3 * 0.725,
        },
        abs=1e-15,  # float64 rounding of three terms
    )


@given(num_tasks=st.integers(2, 7), seed=st.integers(0, 99))
def test_measures_equal_loops_over_their_definitions(num_tasks: int, seed: int) -> None:
    R, baseline = random_matrix(num_tasks, seed), random_matrix(num_tasks, seed + 100)[0]
    measures = AccuracyMatrix.from_rows(R, baseline).compute()
    assert measures == pytest.approx(by_definition(R.tolist(), baseline.tolist()), abs=1e-14)


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


def test_measures_that_need_two_tasks_are_nan_after_one() -> None:
    measures = AccuracyMatrix.from_rows([[0.7]], torch.tensor([0.1])).compute()
    assert {name for name, value in measures.items() if math.isnan(value)} == set(NEED_TWO_TASKS)
    assert {value for value in measures.values() if not math.isnan(value)} == {0.7}


@pytest.mark.parametrize("shape", [(2, 3), (3,), (0, 0), (1, 2, 2)])
def test_measures_refuse_what_is_not_a_square_matrix(shape: tuple[int, ...]) -> None:
    measures = (
        metrics.average_accuracy,
        metrics.average_incremental_accuracy,
        metrics.learning_accuracy,
        metrics.backward_transfer,
        metrics.forgetting,
        metrics.min_accuracy,
        metrics.worst_case_accuracy,
        lambda R: metrics.forward_transfer(R, BASELINE),
        lambda R: metrics.intransigence(R, BASELINE),
    )
    for measure in measures:
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


def test_matrix_of_k_rows_measures_as_a_stream_of_k_tasks() -> None:
    R, baseline = random_matrix(5), random_matrix(5, seed=1)[0]
    matrix = AccuracyMatrix(5)
    matrix.set_baseline(baseline)
    for k, row in enumerate(R, start=1):
        matrix.update(row)
        square = AccuracyMatrix.from_rows(R[:k, :k], baseline[:k])
        torch.testing.assert_close(matrix.compute(), square.compute(), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(matrix.values, R, rtol=0, atol=0)


def test_matrix_without_a_baseline_has_no_forward_transfer() -> None:
    matrix = AccuracyMatrix.from_rows(R)
    assert matrix.baseline is None
    assert [name for name, value in matrix.compute().items() if math.isnan(value)] == ["forward_transfer"]
    matrix.set_baseline(BASELINE)
    torch.testing.assert_close(matrix.baseline, BASELINE, rtol=0, atol=0)
    assert matrix.compute()["forward_transfer"] == pytest.approx(0.05)


def test_matrix_keeps_float64_whatever_the_precision_of_the_model_around_it() -> None:
    matrix = AccuracyMatrix.from_rows([[1 / 3]]).half().float()
    assert matrix.values.dtype == torch.float64
    assert matrix.values.item() == 1 / 3


@pytest.mark.filterwarnings("error")  # torchmetrics warns when compute comes before any update
def test_matrix_restored_from_its_state_goes_on_as_if_never_stopped() -> None:
    matrix = AccuracyMatrix.from_rows(R[:2], BASELINE)
    restored = AccuracyMatrix(3)
    state = matrix.state_dict()
    restored.load_state_dict(state)
    assert restored.compute() == matrix.compute()
    for each in (matrix, restored, pickle.loads(pickle.dumps(restored))):
        each.update(R[2])
        torch.testing.assert_close(each.values, R, rtol=0, atol=0)
        torch.testing.assert_close(each.baseline, BASELINE, rtol=0, atol=0)
    assert len(state["rows"]) == 2


def test_matrix_refuses_the_state_of_another_stream() -> None:
    with pytest.raises(ValueError, match=r"rows must have shape \(0\.\.4, 4\), got \(3, 3\)"):
        AccuracyMatrix(4).load_state_dict(AccuracyMatrix.from_rows(R).state_dict())


def test_matrix_reset_forgets_rows_and_baseline() -> None:
    matrix = AccuracyMatrix.from_rows(R, BASELINE)
    matrix.reset()
    assert matrix.values.shape == (0, 3)
    assert matrix.baseline is None


def test_matrix_called_appends_the_row_and_measures_all() -> None:
    matrix = AccuracyMatrix.from_rows(R[:2], BASELINE)
    assert matrix(R[2]) == AccuracyMatrix.from_rows(R, BASELINE).compute()
    torch.testing.assert_close(matrix.values, R, rtol=0, atol=0)


def test_matrix_values_are_a_copy() -> None:
    matrix = AccuracyMatrix.from_rows(R, BASELINE)
    matrix.values.zero_()
    matrix.baseline.zero_()
    torch.testing.assert_close(matrix.values, R, rtol=0, atol=0)
    torch.testing.assert_close(matrix.baseline, BASELINE, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0.1, 0.2], r"row must have shape \(3,\)"),
        ([[0.1, 0.2, 0.3]], r"row must have shape \(3,\)"),
        ([97.0, 0.2, 0.3], r"row must be accuracies in \[0, 1\], got \[97"),
        ([-0.1, 0.2, 0.3], r"row must be accuracies in \[0, 1\]"),
        ([math.nan, 0.2, 0.3], r"row must be accuracies in \[0, 1\], got \[nan"),
    ],
)
def test_matrix_refuses_a_row_that_is_no_row_of_accuracies(row: list[float], message: str) -> None:
    matrix = AccuracyMatrix(3)
    with pytest.raises(ValueError, match=message):
        matrix.update(torch.tensor(row))
    with pytest.raises(ValueError, match=message.replace("row", "baseline")):
        matrix.set_baseline(torch.tensor(row))
    assert matrix.values.shape == (0, 3)


def test_matrix_refuses_more_rows_than_tasks() -> None:
    with pytest.raises(ValueError, match="rows must be at most 3"):
        AccuracyMatrix.from_rows(R).update(R[0])
    with pytest.raises(ValueError, match="rows must have shape"):
        AccuracyMatrix.from_rows(R[0])
    with pytest.raises(ValueError, match="num_tasks must be an integer >= 1, got 0"):
        AccuracyMatrix(0)


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_matrix_without_rows_has_no_measures() -> None:
    with pytest.raises(ValueError, match="R must have shape"):
        AccuracyMatrix(3).compute()


@pytest.mark.parametrize("num_rows", [0, 2, 4])
def test_csv_reads_back_to_the_same_float64(num_rows: int) -> None:
    names = ["0°", "classes 0, 1", 'the "third"', "last"]
    R = random_matrix(4)[:num_rows] * torch.tensor([1, 1e-7, 0, 1], dtype=torch.float64)
    text = AccuracyMatrix(4).to_csv(names) if not num_rows else AccuracyMatrix.from_rows(R).to_csv(names)
    header, *rows = csv.reader(io.StringIO(text))
    assert header == names
    assert [[float(cell) for cell in row] for row in rows] == R.tolist()
    assert not any("e" in cell for row in rows for cell in row)


def test_csv_is_plain_text_of_names_and_numbers() -> None:
    assert AccuracyMatrix.from_rows([[1.0, 0.1], [0.85, 0.00005]]).to_csv(["a", "b"]) == "a,b\n1.0,0.1\n0.85,0.00005\n"
    with pytest.raises(ValueError, match="names must be 2 task names, got 1"):
        AccuracyMatrix(2).to_csv(["a"])
