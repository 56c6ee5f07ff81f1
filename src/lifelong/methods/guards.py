"""What ends a run, or warns, rather than let a penalty do nothing sensible in silence."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor


class StabilityWarning(UserWarning):
    """The gradient form of the penalty is past the largest step that is stable on its own quadratic."""


class ImportanceWarning(UserWarning):
    """The penalty does nothing, for a reason that may be the user's wish."""


class PenaltyError(RuntimeError):
    """The penalty would do nothing sensible: Ω not finite or negative, or zero although the task had a gradient."""


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


def check_choice(key: str, value: Any, allowed: Sequence[Any]) -> None:
    """Raises ValueError in one line unless `value` is one of those allowed, of the same type."""
    if not any(value == choice and type(value) is type(choice) for choice in allowed):
        names = ", ".join(str(choice).lower() for choice in allowed)
        raise ValueError(f"method.{key} must be one of {names}, got {value!r}")


def check_importance(importance: Mapping[str, Tensor], params: Mapping[str, Tensor], *, signed: bool = False) -> None:
    """Check Ω >= 0 after a task; warn where it is zero for every weight.

    params: the parameters, with the gradient of the task's last step in .grad. signed: Ω may be negative.

    Raises:
        PenaltyError: Ω is not finite, or negative somewhere; or it is zero everywhere although the gradient was not.
    """
    total = 0.0
    for name, omega in importance.items():
        low, high = (float(v) for v in torch.aminmax(omega))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise PenaltyError(f"importance of {name} is not finite: has the task's loss diverged?")
        if low < 0 and not signed:
            raise PenaltyError(f"importance of {name} is negative ({low:.3g}): the penalty would repel from the anchor")
        total += max(high, -low)
    if total == 0:
        zero = "importance is zero for every weight, so the penalty does nothing"
        if any(p.grad is not None and bool(p.grad.any()) for p in params.values()):
            raise PenaltyError(f"{zero}: have the outputs saturated (is optimizer.lr too high)?")
        rank_zero_warn(f"{zero}: does the task have a single class?", category=ImportanceWarning)
