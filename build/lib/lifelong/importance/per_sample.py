"""Any module: the gradients of single samples, by torch.func or, where vmap cannot follow the module, one by one."""

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from lifelong.importance.sums import Params, added, in_chunks, magnitude, trainable


def add_by_vmap(model: nn.Module, x: Tensor, v: Tensor, sums: Params, power: int, chunk_bytes: int) -> None:
    """sums += Σ_n Σ_r |∂(v_rn · z_n)/∂θ|^power, x: (B, ...), v: (R, B, K); about three gradients a sample are held."""
    params = {name: p.detach() for name, p in trainable(model).items()}

    def output(p: Params, x_n: Tensor) -> Tensor:
        own_buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        return functional_call(model, {**p, **own_buffers}, (x_n.unsqueeze(0),)).squeeze(0)

    def of_one_sample(x_n: Tensor, v_n: Tensor) -> Params:
        pull = vjp(lambda p: output(p, x_n), params)[1]
        total: Params = {}
        for v_rn in v_n:
            for name, g in pull(v_rn)[0].items():
                total[name] = added(total.get(name), g.to(sums[name].dtype), power)
        return total

    def work(chunk: slice) -> None:
        each = vmap(of_one_sample, in_dims=(0, 1), randomness="different")(x[chunk], v[:, chunk])
        for name, part in {name: g.sum(0) for name, g in each.items()}.items():
            sums[name] += part

    gradient_bytes = sum(s.numel() * s.element_size() for s in sums.values())
    in_chunks(len(x), chunk_bytes // (3 * gradient_bytes), work)


def add_one_by_one(model: nn.Module, x: Tensor, v: Tensor, sums: Params, power: int) -> None:
    """The same, by a forward pass per sample and R backward passes."""
    for n in range(len(x)):
        z = model(x[n : n + 1])
        for v_rn in v[:, n : n + 1]:
            for name, g in gradients(model, z, v_rn).items():
                sums[name] += magnitude(g.to(sums[name].dtype), power)


def gradients(model: nn.Module, z: Tensor, v: Tensor) -> Params:
    """∂(Σ_n v_n · z_n)/∂θ, zero where z does not depend on θ; the graph is kept. z, v: (B, K)."""
    params = trainable(model)
    if not z.requires_grad:
        return {name: torch.zeros_like(p) for name, p in params.items()}
    values = torch.autograd.grad(
        z, list(params.values()), v, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return dict(zip(params, values, strict=True))
