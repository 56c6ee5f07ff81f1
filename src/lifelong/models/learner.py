"""The one LightningModule: a backbone, its head, and which classes are visible. It knows no method.

Shapes: B batch, K output columns (width of the head).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lifelong.data.examples import as_input as pixels_as_input
from lifelong.data.loader import Batch

Term = Callable[[Batch, Tensor], Tensor | float]
MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]
MakeScheduler = Callable[[Optimizer, int], LRScheduler | None]


class Learner(LightningModule):
    """Task-, domain- and class-incremental learning differ only in which columns are visible when.

    Args:
        backbone: x (B, C, H, W) → logits (B, K).
        make_optimizer: parameters → optimiser; called anew for every task.
        num_classes: K.
        groups: (K,) the task that owns each column, in task-incremental learning: a sample is then classified among
            its own task's columns, whichever tasks share its batch. None: all samples see the same columns.
        make_scheduler: optimiser, `num_steps` → scheduler stepped once per optimiser step, or None.
        as_input: images (B, C, H, W) uint8 → x, on their device; whatever feeds the backbone images goes through it.

    Attributes:
        num_steps: optimiser steps of the task in work, if it is not stopped early; a schedule spans them.
        terms: added to the task loss of each batch; each is given the batch and its logits (B, K).
        with_task_loss: False: the loss of a step is that of the terms alone.
        compiled: takes the backbone's place in training mode; None: the backbone itself.
        optimizer_state: what the next task's optimiser starts with (moments, step counts, not its learning rate), where
            it is kept across tasks; None: nothing.
        fresh_each_epoch: every epoch starts with an optimiser without a state, at the learning rate it has come to.
    """

    visible: Tensor
    groups: Tensor | None

    def __init__(
        self,
        backbone: nn.Module,
        make_optimizer: MakeOptimizer,
        num_classes: int,
        groups: Tensor | None = None,
        make_scheduler: MakeScheduler | None = None,
        as_input: Callable[[Tensor], Tensor] = pixels_as_input,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.make_optimizer, self.make_scheduler = make_optimizer, make_scheduler
        self.as_input = as_input
        self.num_steps = 1
        self.terms: list[Term] = []
        self.with_task_loss = True
        self.compiled: Callable[[Tensor], Tensor] | None = None
        self.optimizer_state: dict[int, Any] | None = None
        self.fresh_each_epoch = False
        self._frozen: list[nn.Module] = []
        self.register_buffer("groups", groups, persistent=False)
        self.register_buffer("visible", torch.ones(num_classes, dtype=torch.bool), persistent=False)
        self.all_visible = True
        self._ddp_params_and_buffers_to_ignore = ["groups", "visible"]  # every rank sets them, DDP need not send them

    def freeze_parts(self, names: Sequence[str]) -> None:
        """Take the backbone's modules or parameters of these names out of training; frozen modules stay in eval mode,
        so that running statistics stay too.

        Raises:
            ValueError: a name that the backbone does not have, or nothing is left to train.
        """
        parts = {**dict(self.backbone.named_modules()), **dict(self.backbone.named_parameters())}
        for name in names:
            if not name or name not in parts:
                known = ", ".join(child for child, _ in self.backbone.named_children())
                raise ValueError(f"backbone.freeze must name parts of the backbone ({known}, …), got {name!r}")
            parts[name].requires_grad_(False)
        if not any(p.requires_grad for p in self.backbone.parameters()):
            raise ValueError(f"backbone.freeze must leave something to train, got {list(names)}")
        self._frozen = [parts[name] for name in names if isinstance(parts[name], nn.Module)]
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def show(self, columns: Sequence[int]) -> None:
        """Make these output columns, and no others, visible."""
        mask = torch.zeros_like(self.visible)
        mask[list(columns)] = True
        self.visible = mask
        self.all_visible = bool(mask.all())

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K), −inf where a column is not visible."""
        return self._masked(self.logits(x))

    def logits(self, x: Tensor) -> Tensor:
        """z (B, K), all columns."""
        return self.compiled(x) if self.compiled and self.training else self.backbone(x)

    def _masked(self, z: Tensor) -> Tensor:
        return z if self.all_visible else z.masked_fill(~self.visible, -torch.inf)

    def task_loss(self, z: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy over the columns each sample may choose from; nothing else masks. z: logits (B, K)."""
        if self.groups is None:
            return F.cross_entropy(self._masked(z), y)
        others = self.groups != self.groups[y].unsqueeze(1)
        return F.cross_entropy(z.masked_fill(others, -torch.inf), y)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """`task_loss` of x."""
        return self.task_loss(self.logits(x), y)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The task loss times the weight of this rank's shard, and what the method adds."""
        z = self.logits(batch.x)
        loss = self.task_loss(z, batch.y) if self.with_task_loss else z.new_zeros(())
        if batch.weight != 1:
            loss = loss * batch.weight
        for term in self.terms:
            loss = loss + term(batch, z)
        return loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """The mean over a step's batches: Lightning divides by the full number where an epoch's last step has fewer."""
        if (size := self.trainer.accumulate_grad_batches) > 1:
            index = self.trainer.fit_loop.epoch_loop.batch_idx
            loss = loss * (size / min(size, self.trainer.num_training_batches - index + index % size))
        super().backward(loss, *args, **kwargs)

    def on_train_epoch_start(self) -> None:
        """Called as an epoch begins; not again when a run resumes in its midst."""
        for optimizer in self.trainer.optimizers if self.fresh_each_epoch else ():
            optimizer.state.clear()

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(p for p in self.parameters() if p.requires_grad)
        if self.optimizer_state is not None:
            optimizer.load_state_dict({**optimizer.state_dict(), "state": self.optimizer_state})
        scheduler = self.make_scheduler and self.make_scheduler(optimizer, self.num_steps)
        if scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
