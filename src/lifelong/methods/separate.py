"""Separate networks: the upper bound of isolation, whose memory grows with the tasks."""

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lifelong.data.stream import Task
from lifelong.methods.isolation import Isolation
from lifelong.methods.method import Batches, Params

INITIAL = -1
"""In the place of a base task: the network that each begins with."""


class Separate(Isolation):
    """A network for each task, from one initialisation: no forgetting, and no transfer, whatever keep_optimizer
    is. Holds T + 1 networks."""

    state = ("networks",)

    networks: dict[tuple[int, str], Tensor]
    """Weights and buffers by base task and name."""

    def __init__(self) -> None:
        self.networks = {}
        self._live = Params()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == 0:  # with keep_optimizer=true it knows the network before
            trainer.optimizers[0].state.clear()
        super().on_train_start(trainer, pl_module)

    def before_task(self, task: Task) -> None:
        if not self.networks:
            self.store(INITIAL)
        self.learner.backbone.load_state_dict(self.network(task.base))

    def after_task(self, task: Task, batches: Batches) -> None:
        self.store(task.base)

    def store(self, base: int) -> None:
        """Keep the present network as that of a base task."""
        self.networks |= {(base, n): t.clone() for n, t in self.learner.backbone.state_dict().items()}

    def network(self, base: int) -> Params:
        """That of a base task, or the initial one."""
        held = {n: t for (g, n), t in self.networks.items() if g == base}
        return held or self.network(INITIAL)

    def enter(self, task: Task | None) -> None:
        backbone = self.learner.backbone
        if self._live:
            backbone.load_state_dict(self._live)
        in_work = task is None or (self.task is not None and task.base == self.task.base)
        self._live = {} if in_work or not self.networks else {n: t.clone() for n, t in backbone.state_dict().items()}
        if self._live and task is not None:
            backbone.load_state_dict(self.network(task.base))
