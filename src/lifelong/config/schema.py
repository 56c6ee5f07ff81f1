"""From the command line to objects: the typed root, the checks at the border, the one caller of Hydra's instantiate."""

import copy
import functools
import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf, open_dict

from lifelong.config.arguments import misfit, spelled, unknown_key
from lifelong.config.credentials import exposures, refusal
from lifelong.config.groups import CONFIGS, SOURCES, choices, groups_of, is_wired

OBJECTIVES = ("val_average_accuracy", "val_learning_accuracy", "val_forgetting")
"""What hyperparameters may be chosen by: validation data alone."""
TRUSTED = ("lifelong.", "torch.", "lightning.", "torchmetrics.")
"""Where a `_target_` may come from: a yaml can name any function of any package. The root key `trusted` adds more."""


REFUSALS = (TypeError, ValueError, RuntimeError, OSError, EOFError, ImportError, zlib.error)
"""What constructors raise on bad settings and on files that are missing or damaged; anything else is a defect."""


class ConfigError(ValueError):
    """A setting outside what is allowed; the message is one line that names key, value and what is allowed."""


@dataclass
class Config:
    """The root of the configuration; the groups' own keys stand in configs/<group>/<choice>.yaml."""

    method: Any = MISSING
    dataset: Any = MISSING
    backbone: Any = MISSING
    memory: Any = MISSING
    augment: Any = MISSING
    normalise: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = MISSING
    early_stopping: Any = MISSING
    trainer: Any = MISSING
    logger: Any = field(default_factory=dict)  # name → a logger; several at once: logger=[csv,wandb]
    choices: dict[str, str] = field(default_factory=dict)  # group → the name of its yaml; filled in when composed
    experiment: Any = None
    sweep: Any = None
    strength_factor: float = 1.0  # of method.strength: one grid fits methods whose strengths are orders apart
    seed: int = 0
    scenario: str = "domain"  # domain | task | class: which output columns are visible when
    val_fraction: float = 0.1  # of each task's training data
    batch_size: int = 128
    epochs_per_task: list[int] | None = None  # one number for each task, instead of trainer.max_epochs
    compile: bool = False  # torch.compile for training steps; importance and evaluation run the module itself
    tf32: bool = False  # on a GPU: float32 products and convolutions by TF32
    keep_optimizer: bool = False  # its state (moments) goes on from task to task; false: made anew for each
    name: str = "default"  # runs/<name>/<run id>/
    root: str = "runs"
    rerun: bool = False  # train again although the run is finished
    num_threads: int | None = 1  # torch threads: 1 does not suffer from busy neighbours; None: torch's choice
    log_every_n_steps: int = 10
    objectives: list[str] = field(default_factory=lambda: ["val_average_accuracy"])  # what an optimising sweeper sees
    checkpoint_seconds: float = 60.0  # at the latest after so long the run is saved, behind a whole optimiser step
    checkpoint_steps: int | None = None  # and after so many optimiser steps; null: by the clock alone
    resident_bytes: float = 2e9  # larger sets of images stay in host memory, from where batches are fetched ahead
    rank_timeout_seconds: float = 600.0  # several processes: how long one waits for another before the run fails
    progress: bool = True
    trusted: list[str] = field(default_factory=list)  # further prefixes a _target_ may have, e.g. [my_package]


PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Weights in float32: in half precision small steps and small importances round away, and importance, evaluation and
saved models are float32, not float64."""
Border = tuple[Callable[[Any], bool], str]
BORDERS: dict[str, Border] = {
    "seed": (lambda v: v >= 0, "an integer >= 0"),
    "strength_factor": (lambda v: math.isfinite(v) and v >= 0, "a finite number >= 0"),
    "val_fraction": (lambda v: 0 <= v < 1, "a number in [0, 1)"),
    "batch_size": (lambda v: v >= 1, "an integer >= 1"),
    "epochs_per_task": (lambda v: v is None or (v and min(v) >= 1), "a list of integers >= 1 or null"),
    "resident_bytes": (lambda v: v > 0, "a number > 0"),
    "name": (
        lambda v: bool(re.fullmatch(r"[\w.-]+(/[\w.-]+)*", v)) and ".." not in v,
        "a folder name of letters, digits, '_', '-', '.'",
    ),
    "root": (bool, "a folder"),
    "num_threads": (lambda v: v is None or v >= 1, "an integer >= 1 or null"),
    "log_every_n_steps": (lambda v: v >= 1, "an integer >= 1"),
    "checkpoint_seconds": (lambda v: v > 0, "a number > 0"),
    "objectives": (lambda v: v and set(v) <= set(OBJECTIVES), f"a list of some of {', '.join(OBJECTIVES)}"),
    "rank_timeout_seconds": (lambda v: math.isfinite(v) and v > 0, "a finite number > 0"),
    "checkpoint_steps": (lambda v: v is None or v >= 1, "an integer >= 1 or null"),
    "optimizer.lr": (lambda v: math.isfinite(v) and v >= 0, "a finite number >= 0"),
    "optimizer.weight_decay": (lambda v: math.isfinite(v) and v >= 0, "a finite number >= 0"),
    "logger.wandb.init_timeout": (lambda v: math.isfinite(v) and v > 0, "a finite number of seconds > 0"),
    "logger.wandb.finish_timeout": (lambda v: math.isfinite(v) and v > 0, "a finite number of seconds > 0"),
    "trainer.precision": (lambda v: v in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
    "trainer.max_epochs": (
        lambda v: v in (None, -1) or v >= 1,
        "an integer >= 1, or with trainer.max_steps -1 or null (no limit)",
    ),
    "trainer.max_steps": (lambda v: v >= 1 or v == -1, "an integer >= 1 or -1 (no limit)"),
    "trainer.accumulate_grad_batches": (lambda v: v >= 1, "an integer >= 1"),
    "trainer.gradient_clip_val": (lambda v: v is None or (math.isfinite(v) and v > 0), "a finite number > 0 or null"),
}
"""What values must be beyond their type, where no constructor of ours says so."""


def register() -> None:
    """Make the typed root known to Hydra as `schema`."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("by_method", by_method, replace=True)


def by_method(table: DictConfig, *, _root_: DictConfig) -> Any:
    """`${by_method:{ewc: 100, mas: 0.1}}`: the entry of the chosen method, for strengths and learning rates.

    `others` stands for all methods that are not named; an entry may be a table by scenario: {task: 1, class: 10}.

    Raises:
        ConfigError: the chosen method has none.
    """
    name = choice(_root_, "method")
    if name not in table and "others" not in table:
        raise ConfigError(f"method must be one of {', '.join(table)} here, or be given a strength, got {name!r}")
    entry = table[name] if name in table else table["others"]
    return entry[_root_.scenario] if isinstance(entry, Mapping) else entry


def check(config: DictConfig) -> None:
    """Everything that can be known of a configuration before anything is built.

    Raises:
        ConfigError: an unknown key, a value of the wrong type or outside its border, a `_target_` from elsewhere, a
            secret of the environment.
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
            raise ConfigError(f"{key} must be {description}, got {spelled(node[name])}")
    check_ends(config)
    for place, variable in exposures(OmegaConf.to_container(config, resolve=True)):
        raise ConfigError(refusal(place, variable))


def check_ends(config: DictConfig) -> None:
    """Raises ConfigError if nothing ends a task."""
    epochs, steps = config.trainer.get("max_epochs"), config.trainer.get("max_steps", -1)
    if epochs in (None, -1) and steps == -1 and config.epochs_per_task is None:
        _, description = BORDERS["trainer.max_epochs"]
        raise ConfigError(f"trainer.max_epochs must be {description}, got {spelled(epochs)}")


def folded(config: DictConfig) -> DictConfig:
    """A checked configuration with strength_factor multiplied into method.strength: equal products are one run."""
    folded: DictConfig = copy.deepcopy(config)
    if "strength" not in config.method:
        folded.strength_factor = 1.0
        return folded
    product = float(f"{config.method.strength * config.strength_factor:.12g}")  # 0.1 · 0.1 is 0.01
    if product != config.method.strength:  # 0 stays as it was written
        folded.method.strength = product
    folded.strength_factor = 1.0
    return folded


def check_group(config: DictConfig, group: str, trusted: Sequence[str] = ()) -> None:
    """Raises ConfigError if the group is not chosen, comes from elsewhere or has options its object cannot take."""
    node = OmegaConf.select(config, group)
    if not isinstance(node, DictConfig) or "_target_" not in node:
        raise ConfigError(f"{group} must be one of {', '.join(choices(group))}, got {spelled(node)}")
    for key in sorted(OmegaConf.missing_keys(node)):
        raise ConfigError(f"{key} must be set, got nothing")
    options: dict[str, Any] = OmegaConf.to_container(node, resolve=True)  # type: ignore[assignment]
    for key in _targets_within(options, group):
        if not is_wired(key):
            raise ConfigError(f"{key} must be a value, not a _target_ of its own: Python wires the parts")
    target = _trusted(options.pop("_target_"), group, (*TRUSTED, *trusted))
    wrong = misfit({k: v for k, v in options.items() if not is_wired(f"{group}.{k}")}, target, group)
    if wrong:
        raise ConfigError(wrong)


def _targets_within(value: Any, key: str) -> Iterator[str]:
    """Keys of the nodes below `key` that have a `_target_`."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in inner:
        if isinstance(child, dict) and "_target_" in child:
            yield f"{key}.{name}"
        yield from _targets_within(child, f"{key}.{name}")


def _trusted(target: Any, group: str, prefixes: Sequence[str]) -> Callable[..., Any]:
    """What `target` names, if both its name and the module that defines it have a trusted prefix."""

    def trusted(name: str) -> bool:
        return any(f"{name}.".startswith(prefix.rstrip(".") + ".") for prefix in prefixes)

    allowed = f"{group}._target_ must start with {', '.join(prefixes)} or a prefix that the root key trusted lists"
    if not isinstance(target, str) or not trusted(target):
        raise ConfigError(f"{allowed}, got {target!r}")
    found = _partial({"_target_": target}, group).func
    home = str(getattr(found, "__module__", None))
    if not trusted(home):
        raise ConfigError(f"{allowed}, got {target!r}, which comes from {home!r}")
    return found


def _partial(options: dict[str, Any], key: str) -> functools.partial[Any]:
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate({**options, "_partial_": True}, _convert_="all")
    except InstantiationException as error:
        reason = error.__cause__ or error
        raise ConfigError(f"{key}._target_ {options['_target_']!r} cannot be used: {one_line(reason)}") from error


def choice(config: DictConfig, group: str) -> str:
    """The name a group was chosen by, that of its yaml: method=ewc → ewc."""
    return str(config.choices[group])


def with_choices(config: DictConfig, hydra: DictConfig) -> DictConfig:
    """The configuration with the names of its choices, which Hydra keeps to itself.

    A `_target_` that the command line sets is a name of its own. A null strength goes: so an experiment's table says of
    a method that has none.
    """
    targets = dict(o.lstrip("+").split("=", 1) for o in hydra.overrides.task if "._target_=" in o)
    for key, name in hydra.runtime.choices.items():
        group = key.rpartition("@")[2].replace("/", ".")
        if is_wired(group) and OmegaConf.select(config, group) is not None:
            config.choices[group] = targets.get(f"{group}._target_", name)
    if config.method.get("strength", 0) is None:
        del config.method["strength"]
    return config


def factory(node: DictConfig, key: str) -> Callable[..., Any]:
    """The group's `_target_` with its options bound. Nested groups stay out: Python wires those.

    Raises (when called): ConfigError instead of what a constructor that refuses raises.
    """
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    options: dict[str, Any] = OmegaConf.to_container(node, resolve=True)  # type: ignore[assignment]
    options = {k: v for k, v in options.items() if not is_wired(f"{key}.{k}")}
    partial = _partial(options, key)
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


def _refusal(error: Exception, key: str, options: dict[str, Any]) -> str:
    """The constructor's message, with the group's name and options before and behind it unless it names its key."""
    message = one_line(error) or type(error).__name__
    if key.startswith(f"{SOURCES}."):
        message = re.sub(r"dataset\.source\b", key, message)
    if missing := re.search(r"missing \d+ required .*?: '(\w+)'", message):
        return f"{key}.{missing.group(1)} must be set, got nothing"
    if re.split(r"[.\s]", message)[0] in {f.name for f in fields(Config)}:
        return message
    given = ", ".join(f"{k}={spelled(v)}" for k, v in options.items() if k != "_target_")
    return f"{key}: {message}" + (f" (given {given})" if given else "")


def build(node: DictConfig, key: str, **wired: Any) -> Any:
    """What the group configures, with the objects Python wires in."""
    return factory(node, key)(**wired)


def compose(overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """The configuration of `python train.py *overrides`; with_hydra: Hydra's own part too, below `hydra`."""
    import hydra

    register()
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        composed = hydra.compose("train", list(overrides), return_hydra_config=True)
    with open_dict(composed):
        config = with_choices(composed, composed.hydra)
        if not with_hydra:
            del config["hydra"]
    return config


def one_line(error: BaseException) -> str:
    """The lines of a message worth keeping, joined."""
    lines = [line.strip() for line in str(error).splitlines()]
    kept = (line for line in lines if line and not line.startswith(("object_type", "Set the environment", "See https")))
    return "; ".join(kept).replace(", set env var HYDRA_FULL_ERROR=1 to see chained exception.", "")
