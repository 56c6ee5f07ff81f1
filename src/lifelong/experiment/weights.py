"""Trained weights to start from."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from lifelong.config.schema import ConfigError
from lifelong.distributed.ranks import is_first
from lifelong.runs.checksum import load_with_checksum
from lifelong.runs.folder import RunFolder


def load_weights(backbone: nn.Module, path: str) -> None:
    """Set the backbone's weights to those of a finished run's folder, or of a file that torch.save wrote.

    A file holds a state dict, or one below the key `state_dict`; its keys are the backbone's own, with or without
    `backbone.` before them. A head of another shape, or that is not in the file, keeps its initialisation.

    Raises:
        ConfigError: there is no such file, or its weights are not this backbone's.
    """
    file, own = Path(path).expanduser(), backbone.state_dict()
    try:
        saved = load_with_checksum(RunFolder(file).model) if file.is_dir() else _plain(file)
    except (OSError, RuntimeError, UnpicklingError, EOFError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"init_from must be a finished run's folder or a file of weights, got {path!r} ({reason})"
        ) from error
    weights = {name.removeprefix("backbone."): tensor for name, tensor in saved.get("state_dict", saved).items()}
    fits = {n: t for n, t in weights.items() if n in own and isinstance(t, Tensor) and t.shape == own[n].shape}
    for what, names in (("without", own.keys() - fits.keys()), ("with", weights.keys() - fits.keys())):
        if others := sorted(name for name in names if not name.startswith("head.")):
            raise ConfigError(
                f"init_from must hold this backbone's weights, got {path!r} {what} {', '.join(others[:3])}"
            )
    if len(fits) < len(own) and is_first():
        print(f"init_from: the head keeps its own initialisation, {path} holds none of its shape")
    backbone.load_state_dict(fits, strict=False)


def _plain(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(loaded, Mapping):
        raise TypeError(f"it holds a {type(loaded).__name__}")
    return loaded
