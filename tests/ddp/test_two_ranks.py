"""Two ranks learn what one process learns at the same global batch, up to the rounding of float32 sums."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

import tiny
from lifelong.experiment.result import Result, read_result
from lifelong.runs.folder import RunFolder
from lifelong.tracking import read_history
from runs import assert_same_run, run, weights

pytestmark = pytest.mark.system

INTERVAL = ("method.interval=2",)
THREE = ("memory.per_class=3",)
DROPOUT = ("method=rwalk", *INTERVAL, "backbone.dropout=0.2", "augment=affine", "memory=uniform", *THREE)
EQUAL: dict[str, tuple[str, ...]] = {
    **{m: (*tiny.overrides(m), *(INTERVAL if m in ("ewcpp", "rwalk") else ())) for m in tiny.METHODS},
    "empirical labels": ("method=ewc", "method.labels=empirical"),
    "subset": ("method=ewc", "method.num_samples=101"),
    "subset of one": ("method=ewc", "method.num_samples=1"),
    "local mas": ("method=mas", "method.local=true"),
    "drawn slices": ("method=scp", "method.slices=3"),
    "proximal": ("method=ewc", "method.step=proximal"),
    "joined replay": ("method=rwalk", *INTERVAL, "memory=uniform", *THREE),
    "balanced replay": ("method=rwalk", *INTERVAL, "memory=entropy", *THREE, "memory.replay=balanced"),
    "a reservoir joined": ("method=finetune", "optimizer=sgd", "memory=reservoir", "memory.total=30"),
    "a reservoir of earlier tasks": ("method=er", "method.weight=tasks", "memory=reservoir", "memory.total=30"),
    "herding": ("method=finetune", "memory=mean_of_features", *THREE),
    "plane distance": ("method=si", "memory=plane_distance", *THREE),
    "a head per task": ("method=ewcpp", "method.interval=1", "scenario=task", "memory=uniform", *THREE),
    "last batch of one sample": ("method=rwalk", "method.interval=1", "batch_size=29"),
    "accumulated": ("method=ewcpp", "method.interval=1", "trainer.accumulate_grad_batches=2"),
    "augmented": ("method=si", "augment=affine"),
    "within tasks": ("method=ewc", "evaluate_every_n_steps=2", "evaluate_samples=51"),
    "fetched ahead": ("method=ewc", "resident_bytes=1"),
    "unused parameters": ("method=ewc", "backbone._target_=networks.HalfUsed", "trusted=[networks]"),
}
"""291 training samples in batches of 128: the last one, of 35, is shared as 18 and 17."""
SMOKE = "joined replay"
DIFFERENT: dict[str, tuple[str, ...]] = {
    "sampled labels": ("method=ewc", "method.labels=sampled"),
    "dropout": DROPOUT,
    "batch norm": ("method=ewcpp", *INTERVAL, "backbone._target_=networks.Normed", "trusted=[networks]"),
}
"""Draws and statistics are each rank's own: such runs only have to end with the same weights on both ranks, which is
checked after each task by the run itself, or to resume."""
FIND_UNUSED = "trainer.strategy=ddp_find_unused_parameters_true"
STOPPED_AT = (2, 6, 9)
"""Amid an epoch, at an epoch's last step, and in the second task."""
WEIGHTS = 1e-6
"""|Δθ| over 12 steps of Adam, seen: 6e-8."""
IMPORTANCE = 1e-5
"""‖ΔΩ‖/‖Ω‖ of a parameter, seen: 6e-7."""


@pytest.fixture(scope="module")
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of all runs on two ranks, started once: by torchrun, or without it if a single one is selected."""
    root = tmp_path_factory.mktemp("two")
    runs: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {n: (o, ()) for n, o in (EQUAL | DIFFERENT).items()}
    runs["interrupted"] = (DROPOUT, STOPPED_AT)
    runs["unused parameters"] = ((*EQUAL["unused parameters"], FIND_UNUSED), ())
    selected = [item for item in request.session.items if item.path == request.path]
    alone = len(selected) == 1 and SMOKE in selected[0].name
    if alone:
        runs = {SMOKE: runs[SMOKE]}
    (root / "runs.json").write_text(json.dumps(runs))
    paths = os.pathsep.join([*filter(None, sys.path), str(Path(__file__).parents[1])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    torchrun = () if alone else ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    script = [str(Path(__file__).with_name("many_runs.py")), str(root), str(root / "runs.json")]
    done = subprocess.run([sys.executable, *torchrun, *script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root


def result(root: Path, name: str) -> Result:
    (path,) = (root / name).rglob("metrics.json")
    return read_result(RunFolder(path.parent))


def penalty_state(of: Result) -> dict[str, Any]:
    return torch.load(of.folder / "last.ckpt", weights_only=True)["method"]


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.smoke if n == SMOKE else ()) for n in EQUAL])
def test_two_ranks_equal_one_process(name: str, two: Path, tmp_path: Path) -> None:
    on_two, on_one = result(two, name), run(tmp_path, *EQUAL[name])
    assert on_two.metrics["num_processes"] == 2
    assert torch.equal(on_one.matrix, on_two.matrix)
    assert on_one.metrics["num_steps"] == on_two.metrics["num_steps"]
    assert_close(weights(on_two), weights(on_one), rtol=0, atol=WEIGHTS)
    theirs, ours = penalty_state(on_two), penalty_state(on_one)
    assert_close(theirs.get("anchor", {}), ours.get("anchor", {}), rtol=0, atol=WEIGHTS)
    found, expected = theirs.get("importance", {}), ours.get("importance", {})
    assert found.keys() == expected.keys()
    assert all((found[n] - expected[n]).norm() <= IMPORTANCE * expected[n].norm() for n in expected)


def test_logged_losses_are_those_of_the_whole_batch(two: Path, tmp_path: Path) -> None:
    both = (result(two, "ewc"), run(tmp_path, "method=ewc"))
    rows = [read_history(of.folder / "history.jsonl") for of in both]
    assert len(rows[0]) == len(rows[1])
    for theirs, ours in zip(*rows, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-5)


@pytest.mark.parametrize("name", ["herding", "der"])
def test_exemplars_are_those_of_one_process(name: str, two: Path, tmp_path: Path) -> None:
    both = (run(tmp_path, *EQUAL[name]), result(two, name))
    ours, theirs = (torch.load(of.folder / "last.ckpt", weights_only=True)["memory"] for of in both)
    logits = [held.pop("logits", torch.zeros(())) for held in (ours, theirs)]
    assert_close(ours, theirs, rtol=0, atol=0)
    assert_close(*logits, rtol=0, atol=WEIGHTS)  # of weights that differ by rounding


def test_accuracies_within_tasks_are_those_of_one_process(two: Path, tmp_path: Path) -> None:
    """Counts of right answers, summed over ranks: exact, as long as no two logits are within 1e-7."""
    both = (result(two, "within tasks"), run(tmp_path, *EQUAL["within tasks"]))
    rows = [[row for row in read_history(of.folder / "history.jsonl") if "within/rot0" in row] for of in both]
    assert len(rows[0]) == 6 + 2
    assert rows[0] == rows[1]


def test_sampled_labels_follow_the_same_law(two: Path, tmp_path: Path) -> None:
    """The trace of the Fisher, a mean over 291 samples: draws of its own on rank 1, equally large."""
    theirs = penalty_state(result(two, "sampled labels"))["importance"]
    ours = penalty_state(run(tmp_path, *DIFFERENT["sampled labels"]))["importance"]
    traces = [sum(float(F.sum()) for F in importance.values()) for importance in (ours, theirs)]
    assert traces[0] == pytest.approx(traces[1], rel=0.2)
    assert traces[0] != traces[1]


def test_signal_to_one_rank_stops_all_and_the_resumed_run_equals_an_uninterrupted_one(two: Path) -> None:
    """Bit for bit, with dropout (a state of its own on each rank), augmentation and replay."""
    assert_same_run(result(two, "interrupted"), result(two, "dropout"))
