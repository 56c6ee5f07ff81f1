"""A run that was interrupted, killed or found a damaged checkpoint ends as one that was not."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import NUM_STEPS, assert_same_run, at_every_batch, run

from lifelong.experiment import Result
from lifelong.interrupted import Interrupted

DROPOUT = "backbone.dropout=0.2"
METHODS = ["ewc", "si", "rwalk"]


class Killed(BaseException):
    """kill -9: nothing is saved any more."""


def settings(method: str) -> list[str]:
    return [f"method={method}", DROPOUT, *(["method.interval=4"] if method == "rwalk" else [])]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """An uninterrupted run of each method."""
    return {method: run(tmp_path_factory.mktemp(method), *settings(method)) for method in METHODS}


@pytest.mark.parametrize("step", range(1, NUM_STEPS + 1))
@pytest.mark.parametrize("method", METHODS)
def test_interrupted_at_any_step_and_resumed_equals_uninterrupted(
    method: str, step: int, whole: dict[str, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(checkpoints: Any, done: int) -> None:
        if done == step:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        at_every_batch(patch, interrupt)
        with pytest.raises(Interrupted) as interrupted:
            run(tmp_path, *settings(method))
    assert interrupted.value.signum == signal.SIGTERM
    assert_same_run(run(tmp_path, *settings(method)), whole[method])
