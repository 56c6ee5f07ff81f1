"""What methods share that give each task a part of the network to itself, so that it is told at test time."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lifelong.data.stream import Task, TaskStream
from lifelong.importance.traceless import leaving_no_trace
from lifelong.methods.method import Method, Params


class Isolation(Method):
    """A method with a part of the network for each task."""

    scenarios = ("task",)
    revisits: ClassVar[bool] = True
    """Whether a task may come again."""

    def check(self, stream: TaskStream, backbone: nn.Module) -> None:
        super().check(stream, backbone)
        name = type(self).__name__
        if self.memory.keeps:
            raise ValueError(f"memory must be none with {name}: a batch passes through the part of one task")
        if stream.cycles > 1 and not self.revisits:
            raise ValueError(f"dataset.cycles must be 1 with {name}, which learns a task once, got {stream.cycles}")


class Freezing(Isolation):
    """A method that keeps weights where they are, whatever momentum, Adam or weight decay would make of them.

    Statistics of batch norm stay as the first task left them. The rows of `backbone.head` are each task's own.
    """

    def plastic(self) -> Params:
        """By parameter: what its gradient is multiplied by, in [0, 1] and broadcast to its shape; 0: it stays."""
        raise NotImplementedError

    def check(self, stream: TaskStream, backbone: nn.Module) -> None:
        super().check(stream, backbone)
        if not isinstance(getattr(backbone, "head", None), nn.Linear):
            raise ValueError(f"backbone must have a linear layer `head` with {type(self).__name__}")

    def hold(self) -> None:
        """Take up what is plastic from here on, and what is not."""
        self._plastic = self.plastic() | self.rows_of_head()
        self._kept = {n: self._params[n].detach().clone() for n in self._plastic}

    def rows_of_head(self) -> Params:
        """Which rows of weight and bias belong to the task in work."""
        mine, head = self.learner.visible, [n for n in self._params if n.startswith("head.")]
        return {n: mine.view(-1, *[1] * (self._params[n].ndim - 1)) for n in head}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        modules = self.learner.backbone.modules()
        self._norms = [m for m in modules if getattr(m, "running_mean", None) is not None and m.training]
        self.hold()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        for norm in self._norms if self.task and self.task.index else ():  # an evaluation amid the task has undone it
            norm.eval()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        for norm in self._norms:
            norm.train()

    def edit_gradients(self, grads: Params) -> None:
        for name, share in self._plastic.items():
            grads[name].mul_(share)

    def after_step(self, grads: Params, before: Params, after: Params) -> None:
        for name, share in self._plastic.items():
            after[name].copy_(torch.where(share > 0, after[name], self._kept[name]))


class Gated(Isolation):
    """A method that multiplies the units behind each nn.ReLU of the backbone by a gate of the task."""

    _hooks_of_gates: Sequence[Any] = ()
    _in_work: int | None = None

    def gate(self, base: int, layer: int, num_units: int) -> Tensor | None:
        """(num_units,) of the base task; None: all units pass. layer: counts the nn.ReLU of the backbone."""
        raise NotImplementedError

    def check(self, stream: TaskStream, backbone: nn.Module) -> None:
        super().check(stream, backbone)
        if not (relus := _relus(backbone)):
            raise ValueError(f"backbone must have nn.ReLU modules with {type(self).__name__}, whose gates follow them")
        with leaving_no_trace(backbone), torch.no_grad(), ExitStack() as hooks:
            for layer, relu in enumerate(relus):
                hooks.callback(relu.register_forward_hook(partial(self._look, layer)).remove)
            backbone(stream.as_input(stream.task(0).train.subset(torch.tensor([0])).inputs))

    def _look(self, layer: int, module: nn.Module, inputs: Any, units: Tensor) -> None:
        if units.ndim == 3:  # (B, T, D) of tokens and (B, C, L) of a signal look alike
            shape = tuple(units.shape)
            raise ValueError(f"backbone must have units (B, U) or (B, C, H, W) behind each nn.ReLU, got shape {shape}")
        self.check_layer(layer, units.shape[1])

    def check_layer(self, layer: int, num_units: int) -> None:
        """Raise ValueError, in one line, if so many units behind the layer-th nn.ReLU cannot be gated."""

    def gate_for(self, base: int | None) -> None:
        """Put up the gates of a base task, in the place of any others; None: take them down."""
        for hook in self._hooks_of_gates:
            hook.remove()
        self._hooks_of_gates = []
        if base is not None:
            relus = _relus(self.learner.backbone)
            passes = [partial(self._pass, base, layer) for layer in range(len(relus))]
            self._hooks_of_gates = [m.register_forward_hook(hook) for m, hook in zip(relus, passes, strict=True)]

    def _pass(self, base: int, layer: int, module: nn.Module, inputs: Any, units: Tensor) -> Tensor:
        gate = self.gate(base, layer, units.shape[1])
        return units if gate is None else units * gate.to(units).view(-1, *[1] * (units.ndim - 2))

    def enter(self, task: Task | None) -> None:
        self.gate_for(self._in_work if task is None else task.base)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._in_work = self.task.base if self.task else None
        self.gate_for(self._in_work)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        self._in_work = None
        self.gate_for(None)


def _relus(backbone: nn.Module) -> list[nn.ReLU]:
    return [module for module in backbone.modules() if isinstance(module, nn.ReLU)]
