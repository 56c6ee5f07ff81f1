"""Fine-tuning: no penalty (b = 0). The bound of forgetting."""

import torch

from lifelong.methods.penalty import Batches, Learned, Penalty


class Finetune(Penalty):
    """Holds nothing.

    Raises:
        ValueError: a strength other than 0, which would have no effect.
    """

    state = ()

    def __init__(self, strength: float = 0) -> None:
        super().__init__(strength)
        if strength != 0:
            raise ValueError(
                f"method.strength must be 0 for {type(self).__name__.lower()}, which has no penalty, got {strength!r}"
            )

    def after_task(self, learner: Learned, batches: Batches, generator: torch.Generator) -> None:
        """There is nothing to hold."""
