"""What a run says while it works: the same rows on one step axis, wherever they go."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from lifelong.experiment.run import Result
from lifelong.methods.penalty import Penalty
from lifelong.tracking import About, DivergedError, History, Tracker, read_history
from lifelong.tracking.gallery import MAX_LAYERS, NUM_BINS, importance_histograms
from runs import NUM_STEPS, run, run_killed
from wandb_session import history, scalars


def rows_of_training(result: Result) -> list[dict[str, float]]:
    return [row for row in history(result) if "train/loss" in row]


def test_steps_run_on_through_the_stream(tmp_path: Path) -> None:
    """Losses every 2 steps, validation of all tasks so far at each epoch's end, tests at each task's end."""
    found = history(run(tmp_path))
    assert [row["step"] for row in found] == [2, 3, 4, 6, 6, 6, 8, 9, 10, 12, 12, 12]
    assert [row["step"] for row in found if "train/loss" in row] == [2, 4, 6, 8, 10, 12]
    validated = {row["step"]: "val/accuracy/rot30" in row for row in found if "val/accuracy/rot0" in row}
    assert validated == {3: False, 6: False, 9: True, 12: True}
    assert [row["step"] for row in found if "test/average_accuracy" in row] == [6, 12]


def test_loss_of_a_row_is_the_mean_since_the_row_before_and_starts_anew_with_each_task(tmp_path: Path) -> None:
    losses = {
        n: {row["step"]: row["train/loss"] for row in rows_of_training(run(tmp_path / n, f"log_every_n_steps={n}"))}
        for n in ("1", "4")
    }
    every = list(losses["1"].values())
    assert len(every) == NUM_STEPS
    assert losses["4"] == {4: pytest.approx(sum(every[:4]) / 4), 10: pytest.approx(sum(every[6:10]) / 4)}


def autograd_ratio(penalty: Penalty, backbone: torch.nn.Module) -> float:
    """‖∇penalty‖ by differentiating the formula in float64, over ‖∇task‖ of the gradients that lie there."""
    if not penalty.importance:
        return 0.0
    params = {n: p for n, p in backbone.named_parameters() if n in penalty.importance}
    held = {n: p.detach().double().requires_grad_() for n, p in params.items()}
    terms = [(w.double() * (held[n] - penalty.anchor[n].double()) ** 2).sum() for n, w in penalty.importance.items()]
    pull = torch.autograd.grad(penalty.coefficient * penalty.strength * torch.stack(terms).sum(), list(held.values()))
    norms = [torch.cat([g.flatten().double() for g in gs]).norm() for gs in (pull, [p.grad for p in params.values()])]
    return float(norms[0] / norms[1])


@pytest.mark.parametrize("step", ["gradient", "proximal"])
def test_penalty_gradient_ratio_is_that_of_autograd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """At every step that ends in a row; the task's gradient is taken behind backward, before anyone adds to it."""
    expected: list[float] = []

    def watching(self: Tracker, trainer: Any, module: Any) -> None:
        if (trainer.global_step + 1) % self.every_n_steps == 0:
            expected.append(autograd_ratio(self.method, module.backbone))

    monkeypatch.setattr(Tracker, "on_after_backward", watching)
    rows = rows_of_training(run(tmp_path, f"method.step={step}"))
    assert [row["train/penalty_gradient_ratio"] for row in rows] == pytest.approx(expected, rel=1e-4)
    for key in ("train/penalty_gradient_ratio", "train/penalty"):
        assert [row[key] > 0 for row in rows] == [False] * 3 + [True] * 3


def test_history_is_flushed_line_by_line_and_cut_to_a_checkpoint(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    history.append({"step": 1, "a": math.nan})
    position = history.position()
    history.append({"step": 2})
    assert read_history(history.path) == [{"step": 1, "a": None}, {"step": 2}]
    history.path.write_bytes(history.path.read_bytes() + b'{"torn')
    assert read_history(history.path) == [{"step": 1, "a": None}, {"step": 2}]
    history.truncate(position)
    history.append({"step": 3})
    history.close()
    assert read_history(history.path) == [{"step": 1, "a": None}, {"step": 3}]


def test_diverged_run_ends_with_the_step_and_the_task(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"^train/loss is (nan|inf) at step 2 \(task 1, rot0\)$"):
        run(tmp_path, "optimizer=sgd", "optimizer.lr=1e30")


def csv_rows(folder: Path) -> list[dict[str, float]]:
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: float(v) for k, v in row.items() if v != ""} for row in csv.DictReader(file)]


@pytest.mark.filterwarnings("error")
def test_csv_of_a_killed_and_resumed_run_has_the_rows_of_the_history(tmp_path: Path) -> None:
    run_killed(tmp_path, "logger=csv", "checkpoint_seconds=1e-9")
    result = run(tmp_path, "logger=csv", "checkpoint_seconds=1e-9")
    rows = csv_rows(result.folder)
    assert scalars(rows) == history(result)
    assert rows[-4]["cost/samples_per_second"] > 0
    assert len(rows) == 12


def test_several_loggers_have_the_same_rows_and_none_has_none(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra `tensorboard`")
    several, none = run(tmp_path, "logger=[csv,tensorboard]"), run(tmp_path, "~logger", "seed=1")
    assert scalars(csv_rows(several.folder)) == history(several)
    files = [{path.name for path in result.folder.iterdir()} for result in (several, none)]
    assert files[0] - files[1] == {"metrics.csv", "tensorboard"}


def test_flat_config_has_dotted_keys_and_whole_lists(tmp_path: Path) -> None:
    config = {"seed": 0, "method": {"exclude": ["head"]}, "dataset": {"source": {"n": 2}}, "empty": {}}
    flat = {"seed": 0, "method.exclude": ["head"], "dataset.source.n": 2, "empty": {}}
    assert About(tmp_path, "id", "title", "ewc", config).flat_config == flat


def test_importance_histogram_counts_the_positive_entries_by_decade() -> None:
    omega = torch.tensor([0.0, 1e-3, 1e-3, 1e-2, 1.0])
    (counts, edges) = importance_histograms({"w": omega, "dead": torch.zeros(3)})["w"]
    assert (counts.sum(), counts[0], counts[-1]) == (4, 2, 1)
    assert (edges[0], edges[-1], len(edges)) == (pytest.approx(-3), pytest.approx(0), NUM_BINS + 1)
    assert set(importance_histograms({"w": omega, "dead": torch.zeros(3)})) == {"w"}
    (counts, _) = importance_histograms({"same": torch.full((7,), 0.5)})["same"]
    assert counts.sum() == 7


def test_importance_histograms_are_of_the_largest_layers_alone() -> None:
    layers = {f"layer{i}": torch.ones(i) for i in range(1, MAX_LAYERS + 4)}
    assert list(importance_histograms(layers)) == list(layers)[3:]
