"""Memories in whole runs: what they are for, that nothing is lost on the way, and what they do not go with."""

from pathlib import Path

import pytest

import lifelong
from lifelong.config.groups import CONFIGS
from lifelong.experiment.run import Result

SAMPLERS = sorted(path.stem for path in (CONFIGS / "memory").glob("*.yaml") if path.stem not in ("none", "reservoir"))
TINY = ("dataset=split", "dataset/source=digits", "scenario=class", "method=finetune", "batch_size=32")
TINY += ("backbone.widths=[64]", "optimizer.lr=3e-3", "trainer=cpu", "logger=none", "progress=false")


def run(root: Path, *overrides: str) -> Result:
    return lifelong.run(*TINY, f"root={root}", *overrides)


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run(tmp_path_factory.mktemp("runs"), "trainer.max_epochs=5")


@pytest.mark.parametrize(
    "memory",
    [
        ["memory=uniform", "memory.replay=balanced"],
        *(pytest.param([f"memory={name}"], marks=pytest.mark.system) for name in SAMPLERS),
    ],
)
def test_exemplars_lift_class_incremental_learning_far_above_fine_tuning(
    memory: list[str], forgetful: Result, tmp_path: Path
) -> None:
    """Fine-tuning ends near 1/5: it knows the last of five tasks only. 20 exemplars a class are 1/6 of the data."""
    metrics = run(tmp_path, "trainer.max_epochs=5", *memory).metrics
    assert forgetful.metrics["average_accuracy"] < 0.25
    assert metrics["average_accuracy"] > 0.6
    assert metrics["memory_bytes"] == 10 * 20 * 64
    assert metrics["memory"] == memory[0].split("=")[1]


def test_run_without_memory_says_so(forgetful: Result) -> None:
    assert forgetful.metrics["memory"] == "none"
    assert forgetful.metrics["memory_bytes"] == 0
