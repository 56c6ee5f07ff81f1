"""What ends a run rather than let a penalty do nothing, or nothing sensible."""

import math
from typing import Any

import torch
from torch import Tensor


class StabilityWarning(UserWarning):
    """The gradient form of the penalty is past the largest step that is stable on its own quadratic."""


class PenaltyError(RuntimeError):
    """The penalty would do nothing, or nothing sensible: Ω not finite, negative or zero, or no pull off the anchor."""


def check_number(
    key: str,
    value: Any,
    *,
    low: float,
    high: float = math.inf,
    above: bool = False,
    whole: bool = False,
    other: str | None = None,
) -> None:
    """Raises ValueError in one line unless `value` is finite and in [low, high] (`above`: in (low, high]).

    `whole`: an integer; `other`: what else the key may be, for the message.
    """
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and low <= value <= high and not (above and value == low)):
        kind = "an integer" if whole else "a finite number"
        allowed = f"{kind} {'>' if above else '>='} {low}" + ("" if high == math.inf else f" and <= {high}")
        raise ValueError(f"method.{key} must be {allowed}{f' or {other}' if other else ''}, got {value!r}")


def check_importance(importance: dict[str, Tensor]) -> None:
    """Raises PenaltyError unless Ω is finite, non-negative and somewhere positive. One host sync per task."""
    total = 0.0
    for name, omega in importance.items():
        low, high = (float(v) for v in torch.aminmax(omega))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise PenaltyError(f"importance of {name} is not finite: has the task's loss diverged?")
        if low < 0:
            raise PenaltyError(f"importance of {name} is negative ({low:.3g}): the penalty would repel from the anchor")
        total += high
    if total == 0:
        raise PenaltyError("importance is zero for every weight: the penalty would do nothing")
