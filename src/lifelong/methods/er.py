"""ER: On tiny episodic memories in continual learning (Chaudhry et al. 2019, arXiv 1902.10486)."""

from torch import Tensor

from lifelong.data.loader import Batch
from lifelong.methods.guards import check_choice, check_number
from lifelong.methods.replay import Replay


class ER(Replay):
    """+ β task_loss on a batch from memory at each step. strength is β.

    Args:
        weight: "sum" as above; "tasks" (van de Ven et al. 2022): 1/k of the task's loss and 1 − 1/k of that of earlier
            tasks' exemplars at task k, which strength < 1 moves towards fine-tuning.
        batch_size: exemplars of a step; None: as many as the task's.
    """

    def __init__(self, strength: float = 1.0, weight: str = "sum", batch_size: int | None = None) -> None:
        super().__init__(batch_size)
        check_number("strength", strength, low=0, high=1.0 if weight == "tasks" else float("inf"))
        check_choice("weight", weight, ("sum", "tasks"))
        self.strength, self.weight, self.past_only = float(strength), weight, weight == "tasks"

    @property
    def active(self) -> bool:
        return self.strength > 0 and super().active

    def extra_loss(self, batch: Batch, z: Tensor) -> Tensor:
        loss = self.replayed_loss(self.replayed())
        if self.weight == "sum" or self.task is None:
            return self.strength * loss
        own = batch.weight * self.learner.task_loss(z, batch.y)
        return self.strength * (1 - 1 / (self.task.index + 1)) * (loss - own)
