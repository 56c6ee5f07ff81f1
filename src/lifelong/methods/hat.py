"""HAT: Overcoming catastrophic forgetting with hard attention to the task (Serrà et al. 2018, arXiv 1801.01423)."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lifelong.data.loader import Batch
from lifelong.data.stream import Task, TaskStream
from lifelong.distributed.ranks import mean_over_ranks_
from lifelong.methods.guards import check_number
from lifelong.methods.isolation import Freezing, Gated
from lifelong.methods.method import Batches, Params

LARGEST_EMBEDDING = 6.0


class HAT(Gated, Freezing):
    """Gates a = σ(s·e) behind each hidden layer, e learned with the task, s from 1/s_max to s_max in each epoch.

    A weight's gradient is multiplied by 1 − min(a_out, a_in), a the largest gate of earlier tasks. The gradient of e is
    the compensated one, s_max σ'(e) ∂L/∂a instead of s σ'(s e) ∂L/∂a. strength is c, of the share of free units that
    the task uses: + c Σ a (1 − a_earlier) / Σ (1 − a_earlier). Clipping by norm counts the embeddings too.
    """

    revisits = False
    state = ("embeddings", "masks")

    embeddings: dict[int, Tensor]
    """e (U,) of the task in work, by layer."""
    masks: dict[tuple[int, int], Tensor]
    """Gates (U,) of each learned task at s_max, by base task and layer."""

    def __init__(self, strength: float = 0.75, s_max: float = 400.0) -> None:
        check_number("strength", strength, low=0)
        check_number("s_max", s_max, low=1)
        self.strength, self.s_max, self._s = float(strength), float(s_max), float(s_max)
        self.embeddings, self.masks = {}, {}

    def check(self, stream: TaskStream, backbone: nn.Module) -> None:
        super().check(stream, backbone)
        chain(backbone)

    # The embeddings are trained by the task's optimiser ------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        learner: Any = pl_module
        self._make_optimizer = make = learner.make_optimizer
        learner.make_optimizer = lambda params: make([*params, *self.leaves(learner)])

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        learner: Any = pl_module
        learner.make_optimizer = self._make_optimizer

    def leaves(self, learner: Any) -> list[Tensor]:
        """The embeddings, as restored or to be drawn, on the learner's device."""
        params = dict(learner.backbone.named_parameters())
        sizes = [len(params[names[0]]) for names in chain(learner.backbone)]
        held = [self.embeddings.get(i, torch.zeros(size)) for i, size in enumerate(sizes)]
        self.embeddings = {i: e.detach().to(learner.device).requires_grad_() for i, e in enumerate(held)}
        return list(self.embeddings.values())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == 0:  # keep_optimizer=true keeps what it knows of weights, and these are drawn anew
            for e in self.embeddings.values():
                trainer.optimizers[0].state.pop(e, None)
        super().on_train_start(trainer, pl_module)

    @torch.no_grad()
    def before_task(self, task: Task) -> None:
        for i, e in self.embeddings.items():
            e.copy_(torch.randn(len(e), generator=self.generator(i)))

    def after_task(self, task: Task, batches: Batches) -> None:
        for i, e in self.embeddings.items():
            self.masks[task.base, i] = torch.sigmoid(self.s_max * e.detach())

    # The gates -----------------------------------------------------------------------------------------------------

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # s changes with each batch: a graph for each else
    def gate(self, base: int, layer: int, num_units: int) -> Tensor | None:
        if base != self._in_work:
            return self.masks.get((base, layer))
        e = self.embeddings[layer]
        return self.annealed(e) if self.learner.training else torch.sigmoid(self.s_max * e)

    def annealed(self, e: Tensor) -> Tensor:
        """σ(s·e), whose gradient is that of s_max·σ(e)."""
        compensated = self.s_max * torch.sigmoid(e)
        return torch.sigmoid(self._s * e).detach() + (compensated - compensated.detach())

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        num, size = trainer.num_training_batches, trainer.accumulate_grad_batches
        if trainer.max_steps > 0:  # they may end within an epoch
            num = min(num, batch_idx - batch_idx % size + (trainer.max_steps - trainer.global_step) * size)
        done = batch_idx / (num - 1) if num > 1 else 1.0
        self._s = 1 / self.s_max + (self.s_max - 1 / self.s_max) * done

    def extra_loss(self, batch: Batch, z: Tensor) -> Tensor:
        free = {i: 1 - claim for i, claim in self._claimed.items()}
        used = torch.stack([(self.annealed(self.embeddings[i]) * f).sum() for i, f in free.items()]).sum()
        total = torch.stack([f.sum() for f in free.values()]).sum().clamp_min(torch.finfo(z.dtype).tiny)
        return self.strength * batch.weight * used / total

    # What earlier tasks claim --------------------------------------------------------------------------------------

    def claimed(self, layer: int) -> Tensor:
        """(U,) the largest gate of an earlier task."""
        held = [mask for (_, i), mask in self.masks.items() if i == layer]
        return torch.stack([torch.zeros_like(self.embeddings[layer]), *held]).amax(0)

    def plastic(self) -> Params:
        self._claimed = {i: self.claimed(i).detach() for i in self.embeddings}
        found = Params()
        for i, names in enumerate(chain(self.learner.backbone)):
            for name in names:
                if name not in self._params:  # frozen: it does not move
                    continue
                p = self._params[name]
                claim = self._claimed[i].view(-1, *[1] * (p.ndim - 1))
                if p.ndim > 1 and i > 0:  # pixels of a flattened channel are one unit
                    before = self._claimed[i - 1]
                    before = before.repeat_interleave(p.shape[1] // len(before)).view(1, -1, *[1] * (p.ndim - 2))
                    claim = torch.minimum(claim, before)
                found[name] = 1 - claim
        return found

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Average over ranks, as DDP does with parameters: ahead of the loss scaler, so that all ranks skip a step."""
        mean_over_ranks_(e.grad for e in self.embeddings.values() if e.grad is not None)

    def after_step(self, grads: Params, before: Params, after: Params) -> None:
        super().after_step(grads, before, after)
        for e in self.embeddings.values():
            e.clamp_(-LARGEST_EMBEDDING, LARGEST_EMBEDDING)


def chain(backbone: nn.Module) -> list[list[str]]:
    """Parameter names of each layer that an nn.ReLU ends: its weight, what else it has.

    Raises:
        ValueError: the backbone is no chain of such layers and a head, so that it is open what a weight lies between.
    """
    layers: list[list[str]] = []
    names: list[str] = []
    plain = True
    for name, module in backbone.named_modules():
        if name and type(module) is not nn.Sequential:
            plain &= not list(module.children())
            names += [f"{name}.{n}" for n, _ in module.named_parameters()]
            if isinstance(module, nn.ReLU):
                layers.append(names)
                names = []
    weights = {n for n, p in backbone.named_parameters() if p.ndim > 1}
    if not plain or not names[0].startswith("head.") or any(sum(n in weights for n in layer) != 1 for layer in layers):
        raise ValueError(
            "backbone must be a chain of layers, each a weight and an nn.ReLU, and `head` with HAT (as mlp and cnn are)"
        )
    return layers
