"""DER: Dark experience for general continual learning (Buzzega et al. 2020, arXiv 2004.07211, eq. 5)."""

from torch import Tensor

from lifelong.data.loader import Batch
from lifelong.methods.guards import check_number
from lifelong.methods.replay import Replay, Replayed


class DER(Replay):
    """+ α mean ‖z − z_stored‖² over a batch from memory, z_stored the logits of when a sample entered, all columns.

    strength is α; batch_size as in ER.
    """

    needs_logits = True

    def __init__(self, strength: float, batch_size: int | None = None) -> None:
        super().__init__(batch_size)
        check_number("strength", strength, low=0)
        self.strength = float(strength)

    @property
    def active(self) -> bool:
        return self.strength > 0 and super().active

    def extra_loss(self, batch: Batch, z: Tensor) -> Tensor:
        again = self.replayed()
        return self.strength * departure(self.learner.logits(again.x), again)


def departure(z: Tensor, batch: Replayed) -> Tensor:
    """mean ‖z − z_stored‖², times the weight of the shard."""
    assert batch.z is not None
    return batch.weight * (z - batch.z).square().sum(1).mean()
