"""Continual learning in one slot for all methods: streams of tasks, exact importances, measures of forgetting."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lifelong.experiment.load import load as load
    from lifelong.experiment.run import run as run

__all__ = ["load", "run"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`lifelong.run` and `lifelong.load` import torch and lightning only when asked for."""
    if name in __all__:
        from importlib import import_module

        return getattr(import_module(f"lifelong.experiment.{name}"), name)
    raise AttributeError(f"module 'lifelong' has no attribute {name!r}")
