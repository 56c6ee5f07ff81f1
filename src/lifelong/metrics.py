"""Measures of learning and forgetting on the accuracy matrix: a pure function each.

R is (T, T): row i = after learning task i, column j = accuracy in [0, 1] on the test data of task j, upper triangle
included. Every measure is a float64 scalar. With one task there is no earlier one: what divides by T - 1 is nan.

>>> R = torch.tensor([[0.9, 0.1, 0.1], [0.7, 0.8, 0.2], [0.6, 0.85, 0.9]], dtype=torch.float64)
>>> for name, value in measures(R, baseline=torch.full((3,), 0.1, dtype=torch.float64)).items():
...     print(f"{name:30}{value:9.5f}")
average_accuracy                0.78333
average_incremental_accuracy    0.81111
learning_accuracy               0.86667
forgetting                      0.12500
backward_transfer              -0.12500
forward_transfer                0.05000
min_accuracy                    0.72500
worst_case_accuracy             0.78333
>>> round(intransigence(R, reference=torch.tensor([0.95, 0.9, 0.9], dtype=torch.float64)).item(), 5)
0.05
"""

import csv
import io
from collections.abc import Sequence
from decimal import Decimal

import torch
from torch import Tensor


def average_accuracy(R: Tensor) -> Tensor:
    """ACC: mean over all tasks of the accuracy after the last one (Lopez-Paz & Ranzato 2017)."""
    return _square(R)[-1].mean()


def average_incremental_accuracy(R: Tensor) -> Tensor:
    """AIA: mean over k of the average accuracy on tasks 1..k after learning task k (Rebuffi et al. 2017)."""
    R = _square(R)
    return average_anytime_accuracy(R, torch.arange(len(R)))


def learning_accuracy(R: Tensor) -> Tensor:
    """LA: mean accuracy on each task just after learning it (Riemer et al. 2019)."""
    return _square(R).diagonal().mean()


def backward_transfer(R: Tensor) -> Tensor:
    """BWT: mean change on each earlier task since it was learned; negative = forgotten (Lopez-Paz & Ranzato 2017)."""
    R = _square(R)
    return (R[-1] - R.diagonal())[:-1].mean()


def forward_transfer(R: Tensor, baseline: Tensor) -> Tensor:
    """FWT: mean gain on each task just before learning it, over random initialisation (Lopez-Paz & Ranzato 2017).

    baseline: (T,) accuracy at random initialisation. Says nothing in a class-incremental stream: there the classes of
    a task are masked until it is learned.
    """
    R = _square(R)
    return (R.diagonal(1) - _row("baseline", baseline, len(R))[1:]).mean()


def forgetting(R: Tensor) -> Tensor:
    """F: mean drop on each earlier task from its best previous row to the last row (Chaudhry et al. 2018).

    The last row is not among those the best is taken from, so a task that has improved counts negative; nor is a cell
    that is nan, not known.
    """
    R = _square(R)
    if len(R) == 1:
        return R.new_tensor(torch.nan)
    return (R[:-1].nan_to_num(nan=-torch.inf).amax(dim=0) - R[-1])[:-1].mean()


def intransigence(R: Tensor, reference: Tensor) -> Tensor:
    """I: mean of a*_k - R_kk; negative = learned better than the reference did (Chaudhry et al. 2018).

    reference: (T,) a*_k, accuracy on task k of a model trained jointly on tasks 1..k.
    """
    R = _square(R)
    return (_row("reference", reference, len(R)) - R.diagonal()).mean()


def min_accuracy(R: Tensor, tasks: Tensor | None = None) -> Tensor:
    """min-ACC: mean over earlier tasks of the lowest accuracy since each was learned (De Lange et al., 2205.13452).

    The paper evaluates within tasks: then R is (E, T), a row per evaluation in order of time, and tasks (E,) the task
    being learned at each. Left out, R is the square matrix. Task j's minimum is over rows with tasks > j.
    """
    R, tasks = _evaluations(R, tasks)
    earlier = torch.arange(int(tasks[-1]), device=R.device)
    return R[:, : len(earlier)].masked_fill(tasks[:, None] <= earlier, torch.inf).amin(dim=0).mean()


def worst_case_accuracy(R: Tensor, tasks: Tensor | None = None) -> Tensor:
    """WC-ACC: A_k / k + (1 - 1/k) min-ACC, A_k = present accuracy on task k, the latest (De Lange et al., 2205.13452).

    R and tasks as in `min_accuracy`. With one task it is the accuracy on it: min-ACC has no weight.
    """
    R, tasks = _evaluations(R, tasks)
    k = int(tasks[-1]) + 1
    latest = R[-1, k - 1]
    return latest if k == 1 else latest / k + (1 - 1 / k) * min_accuracy(R, tasks)


def average_anytime_accuracy(R: Tensor, tasks: Tensor) -> Tensor:
    """AAA: mean over evaluations of the average accuracy on the tasks met so far (Caccia et al. 2022, 2104.05025).

    R: (E, T), a row per evaluation; tasks: (E,) the task being learned at each. Columns of tasks not yet met are not
    read. Evaluated once after each task it is `average_incremental_accuracy`.

    >>> R = torch.tensor([[0.5, 0.0], [0.9, 0.0], [0.7, 0.3]], dtype=torch.float64)
    >>> round(average_anytime_accuracy(R, tasks=torch.tensor([0, 0, 1])).item(), 5)
    0.63333
    """
    R, tasks = _evaluations(R, tasks)
    met = torch.arange(R.shape[1], device=R.device) <= tasks[:, None]
    return (R.masked_fill(~met, 0).sum(dim=1) / met.sum(dim=1)).mean()


def stability_gap(R: Tensor, tasks: Tensor) -> Tensor:
    """(T - 1,) at each switch to a further task, the drop that is made up for by that task's end: mean over earlier
    tasks of min(accuracy before, accuracy after) - lowest accuracy in between. 0 if accuracies only rise or only fall.

    R: (E, T), a row per evaluation; tasks: (E,) the task being learned at each; every task has a row, its last one at
    its end. De Lange et al. (2205.13452) show the gap and give it no number: this one is ours.

    >>> R = torch.tensor([[0.9, 0.0], [0.5, 0.6], [0.7, 0.8]], dtype=torch.float64)
    >>> round(stability_gap(R, tasks=torch.tensor([0, 1, 1])).item(), 5)
    0.2
    """
    R, tasks = _evaluations(R, tasks)
    if tasks.unique().tolist() != list(range(int(tasks[-1]) + 1)):
        raise ValueError(f"tasks must hold each of 0..{int(tasks[-1])}, got {tasks.unique().tolist()}")
    gaps = []
    for k in range(1, int(tasks[-1]) + 1):
        start, stop = int((tasks < k).sum()) - 1, int((tasks <= k).sum())
        rows = R[start:stop, :k]
        gaps.append((torch.minimum(rows[0], rows[-1]) - rows.amin(dim=0)).mean().item())
    return R.new_tensor(gaps)


def within_measures(R: Tensor, tasks: Tensor) -> dict[str, float | list[float]]:
    """Every measure of evaluations within tasks by name; R and tasks as in `stability_gap`."""
    gaps = stability_gap(R, tasks)
    return {
        "within_min_accuracy": min_accuracy(R, tasks).item(),
        "within_worst_case_accuracy": worst_case_accuracy(R, tasks).item(),
        "within_average_anytime_accuracy": average_anytime_accuracy(R, tasks).item(),
        "within_stability_gap": gaps.mean().item(),
        "within_stability_gap_per_switch": gaps.tolist(),
    }


def measures(R: Tensor, baseline: Tensor | None = None) -> dict[str, float]:
    """Every measure of R by name; forward_transfer is nan without a baseline."""
    R = _square(R)
    unknown = R.new_full((len(R),), torch.nan)
    found = {
        "average_accuracy": average_accuracy(R),
        "average_incremental_accuracy": average_incremental_accuracy(R),
        "learning_accuracy": learning_accuracy(R),
        "forgetting": forgetting(R),
        "backward_transfer": backward_transfer(R),
        "forward_transfer": forward_transfer(R, unknown if baseline is None else baseline),
        "min_accuracy": min_accuracy(R),
        "worst_case_accuracy": worst_case_accuracy(R),
    }
    return {name: measure.item() for name, measure in found.items()}


def to_csv(R: Tensor, names: Sequence[str]) -> str:
    """A header of the T task names, then a line per row of R; decimals that read back to the same float64."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([f"{Decimal(repr(value)):f}" for value in row] for row in R.tolist())
    return text.getvalue()


def _square(R: Tensor) -> Tensor:
    if R.ndim != 2 or R.shape[0] != R.shape[1] or not len(R):
        raise ValueError(f"R must have shape (T, T) with T >= 1, got {tuple(R.shape)}")
    return R.double()


def _row(key: str, row: Tensor, num_tasks: int) -> Tensor:
    if row.shape != (num_tasks,):
        raise ValueError(f"{key} must have shape ({num_tasks},), one accuracy per task, got {tuple(row.shape)}")
    return row.double()


def _evaluations(R: Tensor, tasks: Tensor | None) -> tuple[Tensor, Tensor]:
    if tasks is None:
        return _square(R), torch.arange(len(R), device=R.device)
    if R.ndim != 2 or not len(R) or tasks.shape != R.shape[:1]:
        raise ValueError(f"R and tasks must have shapes (E, T) and (E,), got {tuple(R.shape)} and {tuple(tasks.shape)}")
    if tasks[0] < 0 or tasks[-1] >= R.shape[1] or (tasks.diff() < 0).any():
        raise ValueError(f"tasks must ascend within 0..{R.shape[1] - 1}, got {tasks.tolist()}")
    return R.double(), tasks.to(R.device)
