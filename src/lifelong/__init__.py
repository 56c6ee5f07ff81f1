"""Continual learning with importance penalties: streams of tasks, exact importances, measures of forgetting."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lifelong.experiment.run import load as load
    from lifelong.experiment.run import run as run

__all__ = ["load", "run"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`lifelong.run` and `lifelong.load` import torch and lightning only when asked for."""
    if name in __all__:
        from lifelong.experiment import run as experiment

        return getattr(experiment, name)
    raise AttributeError(f"module 'lifelong' has no attribute {name!r}")
