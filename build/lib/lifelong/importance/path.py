"""Which way to per-sample gradients holds for a model: closed forms where they can be shown to, else general ones."""

import logging
from typing import Literal

import torch
from torch import Tensor, nn

from lifelong.importance.closed import add_passes
from lifelong.importance.per_sample import add_by_vmap, gradients
from lifelong.importance.sums import Params, trainable, zero_sums
from lifelong.importance.tape import NoClosedForm, covered_layers, recording
from lifelong.importance.traceless import leaving_no_trace

Path = Literal["auto", "closed", "func", "loop"]
"""Closed forms per layer, torch.func over samples, a loop over samples; auto: the first of them that holds."""
CHECKED_SAMPLES = 4
CHUNK_BYTES = 2**23
CACHED_BYTES = 2**19

log = logging.getLogger(__name__)


def choose_path(model: nn.Module, x: Tensor) -> Path:
    """The fastest path that holds on a few samples of x (B, ...); leaves no trace. The log says why not the first.

    The closed forms are compared with autograd, sample by sample. Nothing else can see that a weight also works in a
    place that is not its layer, F.linear(x, other.weight), or that the leading dimension of a layer is not the batch.
    """
    with leaving_no_trace(model):
        try:
            _check_closed_forms(model, as_model_input(model, x)[:CHECKED_SAMPLES])
        except NoClosedForm as reason:
            log.info("per-sample gradients without closed forms, which is slower: %s", reason)
            return choose_slow_path(model, x)
    return "closed"


def choose_slow_path(model: nn.Module, x: Tensor) -> Path:
    """torch.func, unless vmap cannot follow the model (recurrent layers, control flow that depends on data).

    Nor on a CPU for gradients beyond its cache: writing many of them to memory takes longer than one after the other.
    """
    few = as_model_input(model, x)[:CHECKED_SAMPLES]
    gradient_bytes = sum(p.numel() * p.element_size() for p in trainable(model).values())
    if few.device.type == "cpu" and gradient_bytes > CACHED_BYTES:
        return "loop"
    try:
        with torch.no_grad():
            z = model(few)
        add_by_vmap(model, few, torch.ones_like(z)[None], zero_sums(model), power=1, chunk_bytes=CHUNK_BYTES)
    except RuntimeError as reason:
        log.info("one backward pass per sample, which is slowest: %s", reason)
        return "loop"
    return "func"


def as_model_input(model: nn.Module, x: Tensor) -> Tensor:
    """x in the model's dtype, and usable by autograd even if it was made in inference mode."""
    x = x.clone() if x.is_inference() else x
    dtypes = [p.dtype for p in model.parameters() if p.is_floating_point()]
    return x.to(dtypes[0]) if x.is_floating_point() and dtypes else x


def _check_closed_forms(model: nn.Module, x: Tensor) -> None:
    with recording(covered_layers(model), len(x)) as passes:
        z = model(x)
    draw = torch.Generator().manual_seed(0)
    v = torch.randn(z.shape, generator=draw).to(z)
    expected, closed = zero_sums(model), zero_sums(model)
    for n in range(len(x)):
        v_n = torch.zeros_like(v)
        v_n[n] = v[n]
        for name, g in gradients(model, z, v_n).items():
            expected[name] += g.abs()
    add_passes(z, passes, v[None], closed, power=1, chunk_bytes=CHUNK_BYTES)
    _check_equal(closed, expected, _rounding(z))


def _check_equal(closed: Params, expected: Params, rounding: float) -> None:
    """In norm, per parameter. A gradient that cancels to zero is only noise, so there is a floor set by the others."""
    norms = {name: float(e.norm()) for name, e in expected.items()}
    floor = 10 * rounding * max(norms.values(), default=0.0)
    for name, norm in norms.items():
        error = float((closed[name] - expected[name]).norm())
        if not error <= rounding**0.5 * norm + floor:
            raise NoClosedForm(f"{name} also works outside of its layer (closed form off by {error:.1e} of {norm:.1e})")


def _rounding(z: Tensor) -> float:
    """Relative rounding error of one operation; convolutions on CUDA round float32 to 10 bits (TF32) by default."""
    tf32 = z.is_cuda and z.dtype == torch.float32
    return 2.0**-10 if tf32 else torch.finfo(z.dtype).eps
