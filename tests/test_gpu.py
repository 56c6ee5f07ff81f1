"""On a CUDA device: the numbers of a CPU, data where the model lives, no step that waits, and runs that resume."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import reference
import tiny
from lifelong.experiment.errors import composed
from lifelong.experiment.run import Result, run_experiment
from lifelong.methods.method import Method
from lifelong.methods.penalty import Penalty
from lifelong.training.checkpoint import Checkpoints
from probe import Overflow, Probe
from runs import TINY, assert_resumes, assert_same_run, at_every_batch, run, weights
from syncs import QUIET, VARIANTS, settings

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the process first multiplies on the device

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore::lifelong.methods.penalty.StabilityWarning")]

ON_GPU = ("trainer.accelerator=gpu",)
SMOOTH = ("optimizer=sgd", "optimizer.lr=0.05")
"""Adam's first steps are the signs of the gradients: where these are rounding alone, two devices part ways."""
INTERVALS = ("ewcpp", "rwalk")


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("highest")


def options(method: str, *more: str) -> tuple[str, ...]:
    holding = isinstance(tiny.make_penalty(method), Penalty)
    proximal = ("method.step=proximal",) if holding else ()  # stable at the default strengths
    return (*tiny.overrides(method), *proximal, *(("method.interval=4",) if method in INTERVALS else ()), *more)


def run_seen(patch: pytest.MonkeyPatch, root: Path, *overrides: str) -> tuple[Result, Any]:
    """The run, and its method as the last task left it."""
    seen: list[Method] = []
    original = Method.on_fit_start

    def keeping(self: Method, *args: Any) -> None:
        seen.append(self)
        original(self, *args)

    with patch.context() as within:
        within.setattr(Method, "on_fit_start", keeping)
        done = run(root, *overrides)
    return done, seen[-1]


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor], share: float) -> None:
    """To a share of the largest number of each tensor: sums in another order, carried along 12 steps."""
    assert found.keys() == expected.keys()
    for name, e in expected.items():
        assert_close(
            found[name], e, rtol=0, atol=share * float(e.abs().max()) + 1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )


# The numbers of a CPU -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", tiny.METHODS)
def test_weights_importance_and_anchor_are_those_of_a_cpu(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here, ours), (there, theirs) = (
        run_seen(monkeypatch, tmp_path, *options(method, *SMOOTH, *where)) for where in ((), ON_GPU)
    )
    assert here.folder != there.folder
    assert there.metrics["device"].startswith("cuda: ")
    assert_near(weights(there), weights(here), 1e-4)
    if isinstance(ours, Penalty):
        for name in ("importance", "anchor"):
            found = {n: t.cpu() for n, t in getattr(theirs, name).items()}
            assert_near(found, getattr(ours, name), 1e-3)
    assert_close(there.matrix, here.matrix, rtol=0, atol=0.01)  # of 719 digits a few lie on a boundary


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("method", tiny.METHODS)
def test_half_precision_keeps_float32_weights_and_states(
    method: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = (f"trainer.precision={precision}", "optimizer.fused=false", *ON_GPU)
    done, kept = run_seen(monkeypatch, tmp_path, *options(method, *half))
    tensors = (*weights(done).values(), *kept.tensors())
    assert {t.dtype for t in tensors if t.is_floating_point()} <= {torch.float32, torch.float64}
    assert all(torch.isfinite(t).all() for t in tensors)


@pytest.mark.parametrize("backbone", ["mlp", "cnn"])
def test_tf32_is_another_run_with_near_numbers(backbone: str, tmp_path: Path) -> None:
    """10 bits of mantissa: a share of 10⁻³ in each product, carried along 12 steps."""
    network = {"mlp": ("backbone.widths=[16]",), "cnn": ("backbone=cnn", "backbone.channels=[8]")}[backbone]
    others = (o for o in TINY if not o.startswith("backbone."))
    overrides = (*others, *network, *SMOOTH, *ON_GPU, f"root={tmp_path}")
    plain, other = (run_experiment(composed((*overrides, f"tf32={on}"))) for on in ("false", "true"))
    assert plain.folder != other.folder
    assert_near(weights(other), weights(plain), 0.05)


@pytest.mark.system
def test_compiled_run_is_near_the_plain_one(tmp_path: Path) -> None:
    plain, other = (run(tmp_path, *SMOOTH, *ON_GPU, f"compile={on}") for on in ("false", "true"))
    assert_near(weights(other), weights(plain), 1e-3)


# Overflow -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", INTERVALS)
def test_step_that_16_mixed_skips_is_not_counted(method: str) -> None:
    penalty, stream, overflow = tiny.make_penalty(method), tiny.split(), Overflow(1)
    learner = tiny.make_learner(stream)
    fit = {"accelerator": "gpu", "precision": "16-mixed"}
    tiny.fit(learner, penalty, stream.task(0).train, penalty, overflow, **fit)
    assert (overflow.made, penalty.steps) == (3, 3)  # type: ignore[attr-defined]


def test_path_in_16_mixed_runs_over_the_steps_that_were_made() -> None:
    penalty, stream, probe = tiny.make_penalty("si"), tiny.split(), Probe()
    learner = tiny.make_learner(stream)
    fit = {"accelerator": "gpu", "precision": "16-mixed", "epochs": 2}
    callbacks = [Overflow(0, 2), *probe.around(penalty)]
    tiny.fit(learner, penalty, stream.task(0).train, *callbacks, **fit)
    gradients, walked = (
        [torch.cat([t.flatten() for t in p.values()]).cpu() for p in seen] for seen in (probe.task, probe.weights)
    )
    made = [t for t, g in enumerate(gradients) if torch.isfinite(g).all()]
    assert len(made) == len(probe.stepped) <= 4 < len(gradients) == 8
    points = torch.stack([walked[t] for t in made] + [walked[made[-1] + 1]])
    expected = reference.path_integral(torch.stack([gradients[t] for t in made]), points)
    found = torch.cat([w.flatten() for w in penalty.path.values()]).cpu()  # type: ignore[attr-defined]
    assert_close(found.double(), expected, rtol=1e-4, atol=1e-8)


# Where the data lives -----------------------------------------------------------------------------------------------


def test_data_and_state_live_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[set[str]] = []
    original = Checkpoints.on_train_batch_end

    def looking(self: Checkpoints, trainer: Any, learner: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        examples = trainer.train_dataloader.examples
        (method,) = (c for c in trainer.callbacks if isinstance(c, Method))
        held = (examples.inputs, examples.labels, *batch[:2], *method.tensors(), learner.visible)
        devices.append({t.device.type for t in held})
        original(self, trainer, learner, outputs, batch, batch_idx)

    monkeypatch.setattr(Checkpoints, "on_train_batch_end", looking)
    run(tmp_path, *ON_GPU)
    assert devices == [{"cuda"}] * 12


@pytest.mark.parametrize("overrides", [("packnet", "scenario=task"), ("icarl", "scenario=class", "memory=uniform")])
def test_state_of_an_extended_run_is_tested_on_the_device(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    name, *options = overrides
    longer = (*ON_GPU, f"method={name}", *options, "dataset.angles=[0,30,60]")
    first = run(tmp_path, *longer, "dataset.window=[0,2]")
    assert run(tmp_path, *longer, f"extend={first.folder}").trained


def test_batches_fetched_ahead_from_pinned_memory_are_the_same(tmp_path: Path) -> None:
    resident, ahead = (
        run(tmp_path / name, *ON_GPU, "augment=affine", f"resident_bytes={size}")
        for name, size in (("resident", 2e9), ("ahead", 1))
    )
    assert_same_run(resident, ahead)


def test_peak_memory_is_the_run_s_own(tmp_path: Path) -> None:
    """Of several runs of a process, whichever came before: 10⁶ parameters, then a thousand."""
    peaks = [run(tmp_path, *ON_GPU, f"backbone.widths=[{width}]").metrics["peak_memory_bytes"] for width in (16000, 16)]
    assert peaks[1] < peaks[0] / 2


# Waiting for the device ---------------------------------------------------------------------------------------------

CASES = [(method, variant) for variant in VARIANTS for method in tiny.HOLDING]


@pytest.mark.parametrize(("method", "variant"), [("finetune", "clipped"), *CASES])
def test_step_does_not_wait_for_the_device(
    method: str, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA's own guard raises at any call that would; between logged rows, in the task with the penalty too."""
    guarded: list[tuple[int, int]] = []

    def guard(checkpoints: Any, done: int) -> None:
        task, step = checkpoints.record.task, done - checkpoints.record.step
        torch.cuda.set_sync_debug_mode("error" if step + 1 in QUIET else "default")
        guarded.append((task, step + 1))

    at_every_batch(monkeypatch, guard)
    run(tmp_path, *settings(method, variant), *ON_GPU)
    assert {(task, step) for task in range(2) for step in QUIET} <= set(guarded)


def test_guard_sees_a_step_that_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is logged within it: else the law above would say nothing."""
    at_every_batch(monkeypatch, lambda *_: torch.cuda.set_sync_debug_mode("error"))
    with pytest.raises(RuntimeError, match="synchronizing CUDA operation"):
        run(tmp_path, *settings("ewc", "clipped"), *ON_GPU, "log_every_n_steps=3")


# Resumed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ewc", "si", "rwalk", "scp"])
@pytest.mark.filterwarnings("ignore:.*does not have a deterministic implementation.*")
def test_interrupted_and_resumed_equals_uninterrupted_on_the_device(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit by bit, with dropout, whose random numbers are the device's own."""
    exact = options(method, "backbone.dropout=0.2", "+trainer.deterministic=warn", *ON_GPU)
    assert_resumes(monkeypatch, tmp_path, (2, 3, 7, 11), *exact)
