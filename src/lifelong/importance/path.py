"""Which way to per-sample gradients holds for a parameter: a closed form if all its uses have one, else a general."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lifelong.importance.per_sample import add_by_vmap
from lifelong.importance.sums import trainable, zero_sums
from lifelong.importance.tape import Tape, Use, used_otherwise
from lifelong.importance.traceless import as_model_input, leaving_no_trace, logits

Path = Literal["auto", "closed", "func", "loop"]
"""auto, closed: closed forms for the parameters that have one, for the others torch.func over samples or a loop over
samples; func, loop: these for all."""
FEW = 3
CHUNK_BYTES = 2**23
CACHED_BYTES = 2**19

log = logging.getLogger(__name__)
_warned: WeakSet[nn.Module] = WeakSet()
_chosen: WeakKeyDictionary[nn.Module, "Layout"] = WeakKeyDictionary()


@dataclass(frozen=True)
class Layout:
    """Where the samples of a batch lie in the outputs of uses, and what keeps a model from having any such place."""

    dims: dict[tuple, int]
    """Kind of use → dimension; a kind that is missing has no place for samples, or several."""
    mixing: str = ""
    """What computes from several samples at once; "" if nothing does."""


def survey(model: nn.Module, x: Tensor) -> Layout:
    """Run the model on three samples of x (B, ...) and on two of them: the place of the samples is what has shrunk.

    A value of the first two that changes with the third is computed from more than one sample. Batch norm without
    running statistics is known by its type, as its effect may be hidden behind a weight of zero.

    Raises:
        ValueError: such a norm that cannot take one sample.
    """
    layout = _survey(model, x)
    if layout.mixing:
        _say_once(
            model, f"importance takes one sample at a time, which is slow: {layout.mixing} mixes those of a batch"
        )
    return layout


def _survey(model: nn.Module, x: Tensor) -> Layout:
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            mixing = f"{_described(model, name)} without running statistics"
            try:
                model(x[:1])
            except ValueError as error:
                raise ValueError(f"importance takes one sample at a time, which {mixing} cannot: {error}") from error
            return Layout({}, mixing)
    few = x[torch.arange(FEW, device=x.device) % len(x)]
    (uses, z), (fewer_uses, fewer_z) = recorded(model, few), recorded(model, few[:-1])
    if _differ(z.detach()[:-1], fewer_z.detach()):
        return Layout({}, _described(model, ""))
    places: dict[tuple, set[int]] = {}
    for use, fewer in zip(uses, fewer_uses, strict=False):
        shrunk = [d for d, sizes in enumerate(zip(use.shape, fewer.shape, strict=False)) if sizes == (FEW, FEW - 1)]
        dim = shrunk[0] if use.kind == fewer.kind and len(shrunk) == 1 and _may_lie(use, shrunk[0], FEW) else -1
        places.setdefault(use.kind, set()).add(dim)
        if dim >= 0 and _differ(use.a.narrow(dim, 0, FEW - 1), fewer.a):
            return Layout({}, f"what reaches {' and '.join(use.rules)}")
    return Layout({kind: min(dims) for kind, dims in places.items() if len(dims) == 1})


def with_closed_form(
    model: nn.Module, z: Tensor, uses: list[Use], layout: Layout
) -> tuple[list[tuple[Use, int]], set[str]]:
    """The uses that closed forms take, each with the dimension of its samples, and the parameters left to other ways.

    Asked of every batch, as a branch may be new in it. z: (B, K).
    """
    placed = [(use, layout.dims.get(use.kind, -1)) for use in uses]
    rest = used_otherwise(z, uses, model)
    rest.update(*(use.rules for use, dim in placed if not _may_lie(use, dim, len(z))))
    kept = [(replace(use, rules={n: rule for n, rule in use.rules.items() if n not in rest}), d) for use, d in placed]
    return [(use, dim) for use, dim in kept if use.rules], rest


def choose_path(model: nn.Module, x: Tensor) -> Path:
    """What "auto" does with the parameters on a few samples of x (B, ...), "closed" if any has a closed form.

    To hand "closed" on saves the survey of every later call, as one batch after the other wants it.
    """
    with leaving_no_trace(model):
        few = as_model_input(model, x)[:FEW]
        layout = _chosen[model] = survey(model, few)
        if not layout.mixing:
            uses, z = recorded(model, few)
            uses_closed, rest = with_closed_form(model, z, uses, layout)
            if uses_closed or not rest:
                return "closed"
        return slow_path(model, few, trainable(model))


def layout_of(model: nn.Module, x: Tensor, path: Path) -> Layout:
    """As the path "closed" was chosen with, if it was; else by a survey of x (B, ...)."""
    return _chosen[model] if path == "closed" and model in _chosen else survey(model, x)


def slow_path(model: nn.Module, x: Tensor, names: Iterable[str]) -> Path:
    """The way for parameters without a closed form: "func", unless vmap cannot follow the model (data-dependent flow).

    Nor on a CPU for gradients beyond its cache: writing many of them to memory takes longer than one after the other.
    Says so once for a model.
    """
    few, sums = x[:FEW], {name: s for name, s in zero_sums(model).items() if name in names}
    reason = ""
    if x.device.type == "cpu" and sum(s.numel() * s.element_size() for s in sums.values()) > CACHED_BYTES:
        reason = "more gradients than the cache takes"
    else:
        try:
            with torch.no_grad():
                z = model(few)
            add_by_vmap(model, few, torch.ones_like(z)[None], sums, power=1, chunk_bytes=CHUNK_BYTES)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
    if not reason:
        return "func"
    layers = ", ".join(sorted({_described(model, name.rpartition(".")[0]) for name in sums}))
    _say_once(model, f"importance takes a backward pass per sample and label, which is slow, for {layers}: {reason}")
    return "loop"


def _say_once(model: nn.Module, message: str) -> None:
    if model not in _warned:
        _warned.add(model)
        log.warning("%s; method.num_samples or method.labels=sampled make it shorter", message)


def recorded(model: nn.Module, x: Tensor) -> tuple[list[Use], Tensor]:
    """The uses of parameters in one forward pass, and its z (B, K)."""
    with Tape(model) as tape:
        z = logits(model, x)
    return tape.uses, z


def _described(model: nn.Module, name: str) -> str:
    return f"{type(model.get_submodule(name)).__name__} ({name or 'the model'})"


def _may_lie(use: Use, dim: int, num_samples: int) -> bool:
    """Whether dimension `dim` of the use may hold the samples of a batch of this size."""
    return 0 <= dim < use.a.dim() and use.a.shape[dim] == use.shape[dim] == num_samples and dim <= use.last_dim


def _differ(batch: Tensor, part: Tensor) -> bool:
    """By more than rounding, in norm; convolutions on CUDA round float32 to 10 bits (TF32) by default."""
    if batch.shape != part.shape or not batch.is_floating_point():
        return not batch.equal(part)
    rounding = 2.0**-10 if batch.is_cuda and batch.dtype == torch.float32 else torch.finfo(batch.dtype).eps
    return float((batch - part).norm()) > rounding**0.5 * float(part.norm())
