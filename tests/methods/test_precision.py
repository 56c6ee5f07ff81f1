"""Precision, clipping, accumulation and form of the step together: what is added is autograd of the written formula.

16-mixed runs on a CPU here, by the plugin that Lightning makes for a GPU: the same code, another device.
"""

from contextlib import nullcontext
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import SGD
from torch.testing import assert_close

import reference
import tiny
from grids import grid
from lifelong.methods.ewcpp import EWCPP
from lifelong.methods.penalty import Penalty
from lifelong.methods.rwalk import RWalk
from lifelong.methods.si import SI
from lifelong.models.learner import Learner
from probe import Overflow, Probe
from tiny import HALVED, HOLDING, METHODS, PENALTIES, fit, keep, make_learner, make_penalty

pytestmark = [
    pytest.mark.filterwarnings("ignore::lifelong.methods.penalty.StabilityWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
]

LR, STRENGTH = 0.05, 5.0
EPS = torch.finfo(torch.float32).eps
EXACT = {"rtol": 0.0, "atol": 0.0}


class Scaled(MixedPrecision):
    """A loss scale, in steps of two, and no half precision: apart from the steps it skips it changes no bit."""

    def __init__(self, **scaler: Any) -> None:
        super().__init__("16-mixed", "cpu", GradScaler("cpu", init_scale=2.0**10, **scaler))

    def autocast_context_manager(self) -> Any:
        return nullcontext()


def half(init_scale: float = 2.0**10) -> MixedPrecision:
    return MixedPrecision("16-mixed", "cpu", GradScaler("cpu", init_scale=init_scale))


PRECISIONS = {
    "32-true": lambda: {"precision": "32-true"},
    "bf16-mixed": lambda: {"precision": "bf16-mixed"},
    "16-mixed": lambda: {"plugins": [half()]},
}
CLIPS: dict[str, dict[str, Any]] = {
    "whole": {},
    "norm": {"gradient_clip_val": 0.1},
    "value": {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
}
COMBINATIONS = [
    (HOLDING[i % len(HOLDING)], *combination)
    for i, combination in enumerate(product(PRECISIONS, CLIPS, (1, 2), ("gradient", "proximal")))
]
"""Every precision, clip, accumulation and form of the step with each other, each precision with every method."""


def second_task(penalty: Penalty, trainer: Any) -> tuple[Probe, Learner]:
    stream, probe = tiny.split(), Probe()
    learner = make_learner(stream, make_optimizer=partial(SGD, lr=LR))
    fit(learner, penalty, stream.task(0).train, penalty, epochs=2, **trainer())
    keep(learner, penalty, stream.task(0).train)
    fit(learner, penalty, stream.task(1).train, *probe.around(penalty), epochs=2, **trainer())
    return probe, learner


def clipped(gradients: dict[str, Tensor], clip: str) -> dict[str, Tensor]:
    limit = CLIPS[clip].get("gradient_clip_val", torch.inf)
    if clip == "value":
        return {n: g.clamp(-limit, limit) for n, g in gradients.items()}
    norm = torch.cat([g.flatten() for g in gradients.values()]).norm()
    return {n: g * min(1.0, limit / float(norm + 1e-6)) for n, g in gradients.items()}


def test_every_precision_meets_every_method() -> None:
    assert {(method, precision) for method, precision, *_ in COMBINATIONS} == set(product(HOLDING, PRECISIONS))


@pytest.mark.parametrize(("method", "precision", "clip", "accumulate", "step"), grid(COMBINATIONS, COMBINATIONS[::5]))
def test_step_is_the_written_formula(method: str, precision: str, clip: str, accumulate: int, step: str) -> None:
    """gradient: θ' = θ − lr · clip(g + ∂ penalty/∂θ); proximal: θ' = (θ − lr · clip(g) + aθ*)/(1 + a).

    Weights, gradients and importance are float32 in every precision. Tolerance: g + pull is rounded once, relative to
    the larger of the two, and the pull itself three times; so 4 eps of the largest number there is.
    """
    c = 0.5 if method in HALVED else 1.0
    penalty = make_penalty(method, strength=STRENGTH, step=step)
    probe, _ = second_task(
        penalty, lambda: {**PRECISIONS[precision](), **CLIPS[clip], "accumulate_grad_batches": accumulate}
    )
    names, anchor, omega = list(penalty.importance), penalty.anchor, penalty.importance
    assert len(probe.stepped) == len(probe.task) == 8 // accumulate  # no step was skipped
    pulls = []
    for t, theta in enumerate(probe.weights[:-1]):
        lists = [[held[n] for n in names] for held in (theta, anchor, omega)]
        pull = dict(zip(names, reference.penalty_gradient(*lists, c=c, strength=STRENGTH), strict=True))
        pulls.append(max(float(p.abs().max()) for p in pull.values()))
        added = pull if step == "gradient" else {n: torch.zeros_like(p) for n, p in pull.items()}
        total = {n: probe.task[t][n].double() + added[n] for n in names}
        largest = max(float(g.abs().max()) for g in total.values())
        for n in names:
            assert probe.total[t][n].dtype == torch.float32
            got = probe.total[t][n].double() - probe.task[t][n].double()
            assert_close(got, added[n], rtol=4 * EPS, atol=4 * EPS * (largest + pulls[-1]))
        descent = clipped(total, clip)
        for n in names:
            expected = theta[n].double() - LR * descent[n]
            if step == "proximal":
                a = LR * 2 * c * STRENGTH * omega[n].double()
                expected = (expected + a * anchor[n].double()) / (1 + a)
            assert_close(probe.weights[t + 1][n].double(), expected, rtol=8 * EPS, atol=1e-7)  # θ is of size one
    assert max(pulls) > 1e-5  # else the comparison above says nothing


# Steps that an overflow skips ---------------------------------------------------------------------------------------


def batches_of(examples: Any, size: int = 16) -> list[tiny.Pair]:
    return list(tiny.Batches(examples, size, seed=0))


SKIPPED = [(0,), (1, 2), (2,), (0, 3)]
"""The first, the last, and with an interval of two those that end one, in 4 batches."""
SKIPPING = [
    (method, skipped, step)
    for method in METHODS
    if "domain" in make_penalty(method).scenarios
    for skipped in SKIPPED
    for step in (("gradient", "proximal") if method in PENALTIES else ("gradient",))
]


@pytest.mark.parametrize(("method", "skipped", "step"), grid(SKIPPING, SKIPPING[::5]), ids=str)
def test_skipped_step_leaves_no_trace_in_any_method(method: str, skipped: tuple[int, ...], step: str) -> None:
    """Bit by bit: two tasks with skipped steps are two tasks without those batches."""
    settings = {"step": step, "strength": STRENGTH} if method in PENALTIES else {}
    settings |= {"interval": 2} if method in ("ewcpp", "rwalk") else {}
    stream, results = tiny.split(), []
    for skips in (True, False):
        penalty, learner = make_penalty(method, **settings), make_learner(stream)
        for task in range(2):
            examples = stream.task(task).train
            if skips:
                overflow = Overflow(*skipped)
                fit(learner, penalty, examples, penalty, overflow, plugins=[Scaled()])
                assert overflow.made == 4 - len(skipped)
            else:
                kept = [batch for i, batch in enumerate(batches_of(examples)) if i not in skipped]
                tiny.drive(penalty, learner, kept, SGD(learner.parameters(), lr=0.05))
            keep(learner, penalty, examples)
        results.append((tiny.weights_of(learner), penalty.state_dict()))
    assert_close(results[0], results[1], **EXACT)


@pytest.mark.parametrize("method", ["ewcpp", "rwalk"])
def test_skipped_step_gives_its_batches_to_no_other(method: str) -> None:
    """Accumulating two batches a step, the first step skipped: the interval ends with the second made."""
    penalty, stream = make_penalty(method, interval=1), tiny.split()
    assert isinstance(penalty, EWCPP)
    seen: list[int] = []
    fisher_of = penalty.fisher_of

    def counted(learner: Any, batches: list[tiny.Pair]) -> dict[str, Tensor]:
        seen.append(sum(len(x) for x, _ in batches))
        return fisher_of(learner, batches)

    penalty.fisher_of = counted  # type: ignore[method-assign]
    learner, examples = make_learner(stream), stream.task(0).train
    fit(learner, penalty, examples, penalty, Overflow(1), plugins=[Scaled()], accumulate_grad_batches=2)
    assert (len(examples), seen, penalty.steps) == (54, [32, 22], 1)


@pytest.mark.parametrize("method", ["si", "rwalk"])
def test_path_in_float16_runs_over_the_steps_that_were_made(method: str) -> None:
    """A scale of 2⁴⁰ overflows float16 until it has been halved often enough; the path then follows the real moves."""
    penalty, stream, probe = make_penalty(method), tiny.split(), Probe()
    learner = make_learner(stream)
    fit(learner, penalty, stream.task(0).train, *probe.around(penalty), epochs=10, plugins=[half(2.0**40)])
    gradients, weights = (
        [torch.cat([t.flatten() for t in p.values()]) for p in seen] for seen in (probe.task, probe.weights)
    )
    made = [t for t, g in enumerate(gradients) if torch.isfinite(g).all()]
    assert 0 < len(made) == len(probe.stepped) < len(gradients) == 40
    for t in set(range(40)) - set(made):
        assert_close(weights[t + 1], weights[t], **EXACT)
    if isinstance(penalty, SI):
        walked = torch.stack([weights[t] for t in made] + [weights[made[-1] + 1]])
        expected = reference.path_integral(torch.stack([gradients[t] for t in made]), walked)
        got = torch.cat([w.flatten() for w in penalty.path.values()])
        assert_close(got.double(), expected, rtol=1e-4, atol=1e-8)  # float32 sums of 40 products
    else:
        assert isinstance(penalty, RWalk)
        assert penalty.steps == len(made)
    assert all(torch.isfinite(t).all() for name in penalty.state for t in tiny.tensors_in(getattr(penalty, name)))
