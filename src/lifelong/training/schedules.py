"""Learning rates over a task: functions of (optimiser, the task's number of steps N), made anew for every task.

The highest rate is optimizer.lr, of each parameter group its own. N is that of a task that is not stopped early.
"""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler


def none(optimizer: Optimizer, num_steps: int) -> None:
    """The rate stays as it is."""


def cosine(optimizer: Optimizer, num_steps: int) -> LRScheduler:
    """lr · ½(1 + cos(πt/N)) at step t = 0 … N − 1 (Loshchilov & Hutter 2017, arXiv 1608.03983)."""
    return CosineAnnealingLR(optimizer, num_steps)


def one_cycle(
    optimizer: Optimizer, num_steps: int, pct_start: float = 0.3, div_factor: float = 25, final_div_factor: float = 1e4
) -> LRScheduler:
    """Along half waves from lr/div_factor up to lr and down to lr/div_factor/final_div_factor at the last step.

    Smith & Topin 2018 (arXiv 1708.07120), momentum left as it is. Torch's OneCycleLR has the same options, but divides
    by zero where pct_start · N = 1.

    Args:
        pct_start: share of the steps in which the rate rises, in (0, 1).

    Raises:
        ValueError: a setting outside what is allowed.
    """
    if not 0 < pct_start < 1:
        raise ValueError(f"scheduler.pct_start must be a number in (0, 1), got {pct_start!r}")
    for key, value in (("div_factor", div_factor), ("final_div_factor", final_div_factor)):
        if not (math.isfinite(value) and value >= 1):
            raise ValueError(f"scheduler.{key} must be a finite number >= 1, got {value!r}")
    last = max(num_steps - 1, 1)
    top = max(pct_start * num_steps - 1, 0.0)
    low, end = 1 / div_factor, 1 / div_factor / final_div_factor

    def factor(step: int) -> float:
        rising = step < top
        start, target, share = (low, 1.0, step / top) if rising else (1.0, end, (step - top) / (last - top))
        return target + (start - target) * (1 + math.cos(math.pi * min(share, 1.0))) / 2

    return LambdaLR(optimizer, factor)
