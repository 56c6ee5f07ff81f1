"""Any module: the gradients of single samples, by torch.func or, where vmap cannot follow the module, one by one."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from lifelong.importance.sums import Params, added, in_chunks, magnitude, trainable


def add_by_vmap(model: nn.Module, x: Tensor, v: Tensor, sums: Params, power: int, chunk_bytes: int) -> None:
    """sums += Σ_n Σ_r |∂(v_rn · z_n)/∂θ|^power for the parameters in `sums`, x: (B, ...), v: (R, B, K).

    About three gradients a sample are held.
    """
    detached = {name: p.detach() for name, p in trainable(model).items()}
    own = {name: p for name, p in detached.items() if name in sums}

    def of_one_sample(x_n: Tensor, v_n: Tensor) -> Params:
        pull = vjp(lambda p: _output(model, detached | p, x_n), own)[1]
        total: Params = {}
        for v_rn in v_n:
            for name, g in pull(v_rn)[0].items():
                total[name] = added(total.get(name), g.to(sums[name].dtype), power)
        return total

    def work(chunk: slice) -> None:
        with _vmap_in_silence():
            each = vmap(of_one_sample, in_dims=(0, 1), randomness="different")(x[chunk], v[:, chunk])
        for name, part in {name: g.sum(0) for name, g in each.items()}.items():
            sums[name] += part

    gradient_bytes = sum(s.numel() * s.element_size() for s in sums.values())
    in_chunks(len(x), chunk_bytes // (3 * gradient_bytes), work)


def outputs_alone(model: nn.Module, x: Tensor, path: str) -> Tensor:
    """z (B, K) of x (B, ...), each sample as if it were the only one: by vmap ("func") or one by one ("loop")."""
    with torch.no_grad():
        if path == "func":
            with _vmap_in_silence():
                return vmap(lambda x_n: _output(model, {}, x_n), randomness="different")(x)
        return torch.cat([model(x_n) for x_n in x.split(1)])


@contextmanager
def _vmap_in_silence() -> Iterator[None]:
    """Attention in the form that vmap has a rule for, and no word from torch where it has none and loops itself."""
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
        warnings.filterwarnings("ignore", "There is a performance drop")
        yield


def _output(model: nn.Module, params: Params, x_n: Tensor) -> Tensor:
    own_buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    return functional_call(model, {**params, **own_buffers}, (x_n.unsqueeze(0),)).squeeze(0)


def add_one_by_one(model: nn.Module, x: Tensor, v: Tensor, sums: Params, power: int) -> None:
    """The same, by a forward pass per sample and R backward passes."""
    for n in range(len(x)):
        z = model(x[n : n + 1])
        for v_rn in v[:, n : n + 1]:
            for name, g in gradients(model, z, v_rn, sums).items():
                sums[name] += magnitude(g.to(sums[name].dtype), power)


def gradients(model: nn.Module, z: Tensor, v: Tensor, names: Iterable[str] | None = None) -> Params:
    """∂(Σ_n v_n · z_n)/∂θ for the named or all θ, 0 where z does not depend on θ; keeps the graph. z, v: (B, K)."""
    params = trainable(model)
    params = params if names is None else {name: params[name] for name in names}
    if not z.requires_grad:
        return {name: torch.zeros_like(p) for name, p in params.items()}
    values = torch.autograd.grad(
        z, list(params.values()), v, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return dict(zip(params, values, strict=True))
