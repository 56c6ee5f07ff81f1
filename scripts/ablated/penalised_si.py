"""SI whose path integral is fed with the penalised gradient, a trap of published code."""

from lightning.pytorch import LightningModule, Trainer
from torch.optim import Optimizer

from lifelong.methods.si import SI


class PenalisedSI(SI):
    """ω ← ω − (g + ∂penalty/∂θ) Δθ: the penalty's own work is taken for a drop of the task's loss."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        self._raw = {name: p.grad.clone() for name, p in self._params.items() if p.grad is not None}
