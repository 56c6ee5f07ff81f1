"""Precision, TF32, compile: what is refused, what a run with them writes; and no step makes the host wait."""

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD, Adam

import tiny
from grids import grid
from lifelong.experiment.load import load
from lifelong.training import precision
from lifelong.training.precision import check_precision, set_tf32
from runs import TINY, assert_resumes, assert_same_run, run, weights
from syncs import QUIET, VARIANTS, settings, waits_of_steps

AT_ONCE = ("ewc", "rwalk", "er")
"""Among the tests of `make test`."""
ROOT = Path(__file__).resolve().parents[1]
CUDA = torch.device("cuda")


# Refused ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Adam, SGD])
def test_fused_optimizer_is_refused_in_16_mixed_alone(make: Any) -> None:
    """It would leave the loss scale in the gradients that the penalty sees."""
    plain, fused = (make([torch.nn.Parameter(torch.zeros(1))], lr=0.1, fused=fused) for fused in (False, True))
    for allowed, optimizer in (("16-mixed", plain), ("32-true", fused), ("bf16-mixed", fused)):
        check_precision(allowed, CUDA, optimizer)
    with pytest.raises(ValueError, match=r"optimizer\.fused must be false with trainer\.precision=16-mixed"):
        check_precision("16-mixed", CUDA, fused)


def test_tf32_is_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags of the process, which torch has on a machine without a GPU too; torch itself has the second one on."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)  # put back at the end
    before = torch.get_float32_matmul_precision()
    try:
        for allowed, matmul in ((True, "high"), (False, "highest")):
            set_tf32(allowed, CUDA)
            assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == (matmul, allowed)
    finally:
        torch.set_float32_matmul_precision(before)


# Half precision -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", grid(tiny.METHODS, AT_ONCE))
def test_bf16_run_keeps_and_saves_float32(method: str, tmp_path: Path) -> None:
    options = ("method.interval=4",) if method in ("ewcpp", "rwalk") else ()
    done = run(tmp_path, *tiny.overrides(method), *options, "trainer.precision=bf16-mixed")
    assert {w.dtype for w in weights(done).values()} == {torch.float32}
    assert {p.dtype for p in load(done.folder).parameters()} == {torch.float32}


# Compiled -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", grid(["finetune", "joint", "ewc", "rwalk"], ["ewc"]))
def test_traced_backbone_trains_as_the_module_and_leaves_the_same_files(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a backend that runs the traced graph as it is: bit by bit, under names without a prefix."""
    settings = (f"method={method}", *(("method.interval=4",) if method in ("ewcpp", "rwalk") else ()))
    plain = run(tmp_path, *settings)
    traced: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        traced.append(graph)
        return graph.forward

    monkeypatch.setattr(precision.torch, "compile", functools.partial(torch.compile, backend=backend))
    done = run(tmp_path, *settings, "compile=true")
    assert done.folder != plain.folder
    assert len(traced) == (4 if method == "joint" else 3)  # the trial, and every shape of batches
    assert_same_run(done, plain)
    assert weights(done).keys() == load(done.folder).state_dict().keys()


def test_evaluation_and_importance_do_not_run_what_was_compiled() -> None:
    learner = tiny.make_learner(tiny.split())
    learner.compiled = lambda x: 1 / 0
    x, y = tiny.random_batches(1, 2)[0]
    learner.eval()
    learner(x)
    tiny.keep(learner, tiny.make_penalty("ewc"), tiny.split().task(0).train)
    learner.train()
    with pytest.raises(ZeroDivisionError):
        learner.loss(x, y)


@pytest.mark.system
def test_compiled_run_is_near_the_plain_one(tmp_path: Path) -> None:
    plain, compiled = (run(tmp_path, "method=rwalk", "method.interval=4", f"compile={on}") for on in ("false", "true"))
    for name, w in weights(compiled).items():  # rounding, carried along 12 steps of Adam at 0.01
        torch.testing.assert_close(w, weights(plain)[name], rtol=1e-2, atol=1e-4)


@pytest.mark.system
def test_compiled_run_resumes_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also from before the epoch's last, smaller batch, whose graph is then compiled first; with dropout."""
    settings = ("method=si", "backbone.dropout=0.2", "compile=true")
    assert_resumes(monkeypatch, tmp_path, (2, 3, 7), *settings)


@pytest.mark.system
def test_machine_that_cannot_compile_is_told_so_in_one_line(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *TINY, f"root={tmp_path}", "compile=true"],
        env={**os.environ, "CXX": "/no/compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.startswith("error: compile must be false on a machine that cannot compile for its cpu ")
    assert found.stderr.count("\n") == 1


# Waiting for the device ---------------------------------------------------------------------------------------------

READING_NOTHING = sorted(set(tiny.METHODS) - {"gem"})
"""GEM's quadratic programme is solved on the host."""
CASES = [
    (method, variant)
    for variant in VARIANTS
    for method in (
        READING_NOTHING if variant == "clipped" else tiny.HOLDING if variant == "proximal" else ("ewc", "rwalk")
    )
]


@pytest.mark.parametrize(("method", "variant"), grid(CASES, [case for case in CASES if case[0] in AT_ONCE]))
def test_step_reads_nothing_back_from_the_device(
    method: str, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between logged rows, also in the second task, which has the penalty."""
    waits = waits_of_steps(tmp_path, monkeypatch, *settings(method, variant))
    assert {(task, step): waits[task, step] for task in range(2) for step in QUIET} == {
        (task, step): [] for task in range(2) for step in QUIET
    }


def test_row_that_is_logged_does_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the law above would say nothing."""
    waits = waits_of_steps(tmp_path, monkeypatch, *settings("ewc", "clipped"), "log_every_n_steps=3")
    assert "_local_scalar_dense" in waits[1, 3] + waits[1, 4]
    assert waits[1, 8] == []
