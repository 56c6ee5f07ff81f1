"""From settings to objects: the one caller of Hydra's instantiate."""

import functools
import re
import zlib
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lifelong.config.groups import SOURCES, is_wired
from lifelong.config.options import spelled
from lifelong.config.schema import Config, ConfigError, one_line

REFUSALS = (TypeError, ValueError, RuntimeError, OSError, EOFError, ImportError, zlib.error)
"""What constructors raise on bad settings and on files that are missing or damaged; anything else is a defect."""


def build(node: DictConfig, key: str, **wired: Any) -> Any:
    """What the group configures, with the objects Python wires in."""
    return factory(node, key)(**wired)


def factory(node: DictConfig, key: str) -> Callable[..., Any]:
    """The group's `_target_` with its options bound. Nested groups stay out: Python wires those.

    Raises (when called): ConfigError instead of what a constructor that refuses raises.
    """
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    options: dict[str, Any] = OmegaConf.to_container(node, resolve=True)  # type: ignore[assignment]
    options = {k: v for k, v in options.items() if not is_wired(f"{key}.{k}")}
    partial = partial_of(options, key)
    refusals = (*REFUSALS, MisconfigurationException)

    @functools.wraps(partial.func)
    def build(*args: Any, **wired: Any) -> Any:
        for name in options.keys() & wired.keys():
            raise ConfigError(f"{key}.{name} must not be set: the program sets it, got {spelled(options[name])}")
        try:
            return partial(*args, **wired)
        except refusals as error:
            raise ConfigError(_refusal(error, key, options)) from error

    return build


def partial_of(options: dict[str, Any], key: str) -> functools.partial[Any]:
    """What `_target_` names, with the other options bound; raises ConfigError if there is no such thing."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate({**options, "_partial_": True}, _convert_="all")
    except InstantiationException as error:
        reason = error.__cause__ or error
        raise ConfigError(f"{key}._target_ {options['_target_']!r} cannot be used: {one_line(reason)}") from error


def _refusal(error: Exception, key: str, options: dict[str, Any]) -> str:
    """The constructor's message, with the group's name and options around it unless it names its key."""
    message = one_line(error) or type(error).__name__
    if key.startswith(f"{SOURCES}."):
        message = re.sub(r"dataset\.source\b", key, message)
    if missing := re.search(r"missing \d+ required .*?: '(\w+)'", message):
        return f"{key}.{missing.group(1)} must be set, got nothing"
    if re.split(r"[.\s]", message)[0] in {f.name for f in fields(Config)}:
        return message
    given = ", ".join(f"{k}={spelled(v)}" for k, v in options.items() if k != "_target_")
    return f"{key}: {message}" + (f" (given {given})" if given else "")
