"""S perceptrons of one shape as batched matrix products, with the backward pass written out.

S members, B samples, F features of an input, K output columns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Params = dict[str, Tensor]
"""Parameters (S, ...) by the name they have in one member."""


class Network:
    """Linear layers with ReLU between them. The members' own parameters are views of `weights`, until `release`.

    Args:
        backbones: those of the members, of one shape, without dropout.
    """

    def __init__(self, backbones: Sequence[nn.Module]) -> None:
        self.layers = [name for name, module in backbones[0].named_modules() if isinstance(module, nn.Linear)]
        self._members = [dict(backbone.named_parameters()) for backbone in backbones]
        names = self._members[0]
        self.weights: Params = {n: torch.stack([member[n].detach() for member in self._members]) for n in names}
        for s, member in enumerate(self._members):
            for name, parameter in member.items():
                parameter.data = self.weights[name][s]
        self._inputs: list[Tensor] = []
        self._deltas: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._members)

    @property
    def device(self) -> torch.device:
        return next(iter(self.weights.values())).device

    def release(self) -> None:
        """Give each member's parameters memory of their own: a view would be saved with all members' weights."""
        for parameter in (p for member in self._members for p in member.values()):
            parameter.data = parameter.data.clone()

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """z (S, B, K) of x, (B, F) for all members or (S, B, F)."""
        a = x.expand(len(self), *x.shape[-2:])
        self._inputs = []
        for name in self.layers:
            a = a.relu_() if self._inputs else a
            self._inputs.append(a)
            weight, bias = self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias")
            a = torch.bmm(a, weight.mT) if bias is None else torch.baddbmm(bias.unsqueeze(1), a, weight.mT)
        return a

    @torch.no_grad()
    def gradients(self, x: Tensor, y: Tensor, hidden: Tensor | None) -> tuple[Tensor, Params]:
        """Each member's mean cross-entropy (S,) and its gradients, named and shaped as `weights`.

        y: (B,) or (S, B). hidden: (S, B or 1, K), the columns a sample may not choose from; None: it may from all.
        """
        z = self.logits(x)
        labels = y.expand(z.shape[:2]).unsqueeze(-1)
        log_p = (z if hidden is None else z.masked_fill_(hidden, -torch.inf)).log_softmax(-1)
        losses = -log_p.gather(-1, labels).squeeze(-1).mean(1)
        delta = log_p.exp_()
        delta.scatter_add_(-1, labels, delta.new_full((), -1.0).expand(labels.shape)).div_(z.shape[1])
        grads: Params = {}
        self._deltas = []
        for i, name in reversed(list(enumerate(self.layers))):
            self._deltas.insert(0, delta)
            grads[f"{name}.weight"] = torch.bmm(delta.mT, self._inputs[i])
            if f"{name}.bias" in self.weights:
                grads[f"{name}.bias"] = delta.sum(1)
            if i:
                delta = torch.bmm(delta, self.weights[f"{name}.weight"])
                delta = torch.ops.aten.threshold_backward(delta, self._inputs[i], 0)
        return losses, {name: grads[name] for name in self.weights}

    def mean_squares(self, members: slice) -> Params | None:
        """Mean over the samples of the last `gradients` of one sample's squared gradient, of these members; None if the
        network does not know it.

        A sample's gradient of a weight is δ aᵀ with δ the gradient at the layer's output, so that its square is δ² a²ᵀ.
        """
        found: Params = {}
        for name, a, delta in zip(self.layers, self._inputs, self._deltas, strict=True):
            squares = delta[members].square().mul_(delta.shape[1])  # δ is of the mean over samples
            found[f"{name}.weight"] = torch.bmm(squares.mT, a[members].square())
            if f"{name}.bias" in self.weights:
                found[f"{name}.bias"] = squares.sum(1)
        return found
