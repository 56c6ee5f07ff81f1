"""Everything that can be known of a configuration before anything is built from it."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from lifelong.config.build import partial_of
from lifelong.config.credentials import exposed, refusal
from lifelong.config.groups import FREEZE, SOURCES, choices, groups_of, is_wired
from lifelong.config.options import must_be, spelled, type_error, unknown_key
from lifelong.config.schema import COMPATS, OBJECTIVES, Config, ConfigError

TRUSTED = ("lifelong.", "torch.", "lightning.", "torchmetrics.")
"""Where a `_target_` may come from: a yaml can name any function of any package. The root key `trusted` adds more."""
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Weights in float32: in half precision small steps and small importances round away, and importance, evaluation and
saved models are float32, not float64."""
OF_STREAM = ("scenario", "active_classes", "val_fraction")
"""Root keys that the stream takes from there, and all that tells of it, too."""
UNUSED = ("check_val_every_n_epoch", "val_check_interval", "limit_val_batches", "limit_test_batches",
          "limit_predict_batches", "num_sanity_val_steps")  # fmt: skip
BORDERS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "seed": (lambda v: v >= 0, "an integer >= 0"),
    "compat": (lambda v: v in COMPATS, f"one of {', '.join(COMPATS)}"),
    "strength_factor": (lambda v: math.isfinite(v) and v >= 0, "a finite number >= 0"),
    "val_fraction": (lambda v: 0 <= v < 1, "a number in [0, 1)"),
    "batch_size": (lambda v: v >= 1, "an integer >= 1"),
    "keep_optimizer": (lambda v: v in (True, False, "epoch"), "true, false or epoch"),
    "epochs_per_task": (lambda v: v is None or (v and min(v) >= 1), "a list of integers >= 1 or null"),
    FREEZE: (
        lambda v: isinstance(v, ListConfig) and all(isinstance(name, str) for name in v),
        "a list of names of the backbone's modules or parameters",
    ),
    SOURCES: (
        lambda v: isinstance(v, DictConfig) and bool(v),
        "sources by name, each +dataset/source@dataset.sources.NAME=CHOICE",
    ),
    "resident_bytes": (lambda v: v > 0, "a number > 0"),
    "name": (
        lambda v: bool(re.fullmatch(r"[\w.-]+(/[\w.-]+)*", v)) and ".." not in v,
        "a folder name of letters, digits, '_', '-', '.'",
    ),
    "root": (bool, "a folder"),
    "num_threads": (lambda v: v is None or v >= 1, "an integer >= 1 or null"),
    "log_every_n_steps": (lambda v: v >= 1, "an integer >= 1"),
    "evaluate_every_n_steps": (lambda v: v is None or v >= 1, "an integer >= 1 or null"),
    "evaluate_samples": (lambda v: v >= 1, "an integer >= 1"),
    "checkpoint_seconds": (lambda v: v > 0, "a number > 0"),
    "objectives": (lambda v: v and set(v) <= set(OBJECTIVES), f"a list of some of {', '.join(OBJECTIVES)}"),
    "rank_timeout_seconds": (lambda v: math.isfinite(v) and v > 0, "a finite number > 0"),
    "checkpoint_steps": (lambda v: v is None or v >= 1, "an integer >= 1 or null"),
    "optimizer.lr": (lambda v: math.isfinite(v) and v >= 0, "a finite number >= 0"),
    "optimizer.weight_decay": (lambda v: math.isfinite(v) and v >= 0, "a finite number >= 0"),
    "logger.wandb.init_timeout": (lambda v: math.isfinite(v) and v > 0, "a finite number of seconds > 0"),
    "logger.wandb.finish_timeout": (lambda v: math.isfinite(v) and v > 0, "a finite number of seconds > 0"),
    "logger.wandb.mode": (lambda v: v in ("online", "offline", None), "one of online, offline, null"),
    "trainer.precision": (lambda v: v in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
    "trainer.max_epochs": (
        lambda v: v in (None, -1) or v >= 1,
        "an integer >= 1, or with trainer.max_steps -1 or null (no limit)",
    ),
    "trainer.max_steps": (lambda v: v >= 1 or v == -1, "an integer >= 1 or -1 (no limit)"),
    "trainer.limit_train_batches": (
        lambda v: v is None or (v >= 1 if isinstance(v, int) else 0 < v <= 1),
        "an integer >= 1, a number in (0.0, 1.0] or null",
    ),
    **dict.fromkeys(
        (f"trainer.{key}" for key in UNUSED),
        (lambda _: False, "left out, as Lightning's own validation is not run (see evaluate_every_n_steps)"),
    ),
    "trainer.accumulate_grad_batches": (lambda v: v >= 1, "an integer >= 1"),
    "trainer.gradient_clip_val": (lambda v: v is None or (math.isfinite(v) and v > 0), "a finite number > 0 or null"),
}
"""What values must be beyond their type, where no constructor of ours says so."""


def check(config: DictConfig) -> None:
    """Everything that can be known of a configuration before anything is built.

    Raises:
        ConfigError: an unknown key, a value of the wrong type or outside its border, a `_target_` from elsewhere, a
            secret of the environment, or nothing that ends a task.
    """
    allowed = [f.name for f in fields(Config)]
    for key in config:
        if key not in allowed:
            raise ConfigError(unknown_key(str(key), allowed, "the configuration"))
    for group in groups_of(config):
        check_group(config, group, config.trusted)
    for key, (allows, description) in BORDERS.items():
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
        if node is not None and name in node and not allows(node[name]):
            raise ConfigError(must_be(key, description, node[name]))
    check_dataset(config)
    epochs, steps = config.trainer.get("max_epochs"), config.trainer.get("max_steps", -1)
    if epochs in (None, -1) and steps == -1 and config.epochs_per_task is None:
        raise ConfigError(must_be("trainer.max_epochs", BORDERS["trainer.max_epochs"][1], epochs))
    if variable := exposed(OmegaConf.to_yaml(config, resolve=True)):
        raise ConfigError(refusal("the configuration", variable))


def check_dataset(config: DictConfig) -> None:
    """Raises ConfigError if the stream would be another than the root keys say, or if it has one source too many."""
    for key in OF_STREAM:
        if config.dataset.get(key, config[key]) != config[key]:
            got = spelled(config.dataset[key])
            raise ConfigError(f"dataset.{key} must be left to the root key {key} ({spelled(config[key])}), got {got}")
    if "source" in config.dataset and "sources" in config.dataset:
        found = ", ".join(map(str, config.dataset.source))
        raise ConfigError(f"dataset.source must be left out where dataset.sources has the sources, got {found}")


def check_group(config: DictConfig, group: str, trusted: Sequence[str] = ()) -> None:
    """Raises ConfigError if the group is not chosen, comes from elsewhere or has options its object cannot take."""
    node = OmegaConf.select(config, group)
    if not isinstance(node, DictConfig) or "_target_" not in node:
        raise ConfigError(must_be(group, f"one of {', '.join(choices(group))}", node))
    for key in sorted(OmegaConf.missing_keys(node)):
        raise ConfigError(f"{key} must be set, got nothing")
    options: dict[str, Any] = OmegaConf.to_container(node, resolve=True)  # type: ignore[assignment]
    for key in _targets_within(options, group):
        if not is_wired(key):
            raise ConfigError(f"{key} must be a value, not a _target_ of its own: Python wires the parts")
    target = trusted_target(options.pop("_target_"), group, trusted)
    if wrong := type_error({k: v for k, v in options.items() if not is_wired(f"{group}.{k}")}, target, group):
        raise ConfigError(wrong)


def _targets_within(value: Any, key: str) -> Iterator[str]:
    """Keys of the nodes below `key` that have a `_target_`."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in inner:
        if isinstance(child, dict) and "_target_" in child:
            yield f"{key}.{name}"
        yield from _targets_within(child, f"{key}.{name}")


def trusted_target(target: Any, group: str, more: Sequence[str] = ()) -> Callable[..., Any]:
    """What `target` names; raises ConfigError unless its name and its module have a trusted prefix or one of `more`."""
    prefixes = (*TRUSTED, *more)

    def trusted(name: str) -> bool:
        return any(f"{name}.".startswith(prefix.rstrip(".") + ".") for prefix in prefixes)

    allowed = f"{group}._target_ must start with {', '.join(prefixes)} or a prefix that the root key trusted lists"
    if not isinstance(target, str) or not trusted(target):
        raise ConfigError(f"{allowed}, got {target!r}")
    found = _named(target, group)
    home = str(getattr(found, "__module__", None))
    if not trusted(home):
        raise ConfigError(f"{allowed}, got {target!r}, which comes from {home!r}")
    return found


@cache
def _named(target: str, group: str) -> Callable[..., Any]:
    return partial_of({"_target_": target}, group).func
