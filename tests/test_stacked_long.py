"""A stack over a long stream: its arithmetic is that of single runs, as float64 shows."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lifelong.data.normalise import Normalise
from lifelong.experiment import parts
from runs import Said, run, weights
from stacks import last_line, member, stacked, without_pictures  # noqa: F401 - a fixture
from test_stacked import METHODS

pytestmark = pytest.mark.system
LONG = ("dataset.angles=[0,20,40,60,80]", "batch_size=8", "trainer.max_epochs=2", "backbone.widths=[64,32]",
        "normalise=given", "normalise.mean=[0.0]", "normalise.std=[1.0]")  # fmt: skip
"""400 steps."""
NOT_AMPLIFIED = "optimizer.eps=1e-3"
"""A weight that only the penalty pulls, and that is at its anchor, has a gradient of rounding alone. Adam divides it by
its own size: in a few steps such a weight moves by up to a learning rate. EWC's merged anchors are seldom the weights'
very bits, so that it happens there; with a larger ε it does not."""


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let backbones be made, and fed, in float64."""
    initial, normalised = parts.initial_learner, Normalise.__call__

    def converted(self: Normalise, images: Tensor) -> Tensor:
        return normalised(self, images).double()

    monkeypatch.setattr(parts, "initial_learner", lambda *given: initial(*given).double())
    monkeypatch.setattr(Normalise, "__call__", converted)


def test_members_equal_their_runs_alone_in_float64_after_hundreds_of_steps(double: None, tmp_path: Path) -> None:
    some = [method for method in METHODS if method != "joint"]
    sweep = f"method={','.join(some)}"
    said: Said = stacked(tmp_path / "stack", *LONG, NOT_AMPLIFIED, sweep, "seed=0,1", "hydra.launcher.size=18")
    assert last_line(said) == "18 jobs: 18 trained, 0 finished before, 0 failed", said.err
    for method in some:
        alone = run(tmp_path / "alone", *LONG, NOT_AMPLIFIED, f"method={method}", "seed=1")
        one = member(tmp_path / "stack", alone)
        assert (one.matrix == alone.matrix).all(), method
        for (name, ours), theirs in zip(weights(one).items(), weights(alone).values(), strict=True):
            assert ours.dtype == torch.float64
            assert float((ours - theirs).norm() / theirs.norm()) < 1e-12, (method, name)
