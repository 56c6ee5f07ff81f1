"""The typed root of the configuration, and how it is composed."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf, open_dict

from lifelong.config.groups import CONFIGS, is_wired, usual_target
from lifelong.config.options import must_be

OBJECTIVES = ("val_average_accuracy", "val_learning_accuracy", "val_forgetting")
"""What hyperparameters may be chosen by: validation data alone."""


COMPATS = ("published", "right")
"""Columns of a paper's table: methods as its code has them, at its strengths; or as our defaults are."""


class ConfigError(ValueError):
    """A setting outside what is allowed; the message is one line that names key, value and what is allowed."""


@dataclass
class Watching:
    """Where and how a run is watched, not what it computes: left out of the run id."""

    name: str = "default"  # runs/<name>/<run id>/
    root: str = "runs"  # the folder of all runs
    rerun: bool = False  # train again although the run is finished
    extend: str | None = None  # a finished run's folder: learn the tasks that this run has beyond that one's
    progress: bool = True  # a bar while training
    num_threads: int | None = 1  # torch threads: 1 does not suffer from busy neighbours; null: torch's choice
    logger: Any = field(default_factory=dict)  # name → a logger; several at once: logger=[csv,wandb]
    log_every_n_steps: int = 10  # optimiser steps between two logged rows
    evaluate_every_n_steps: int | None = None  # test all tasks seen so far within a task; null: not
    evaluate_samples: int = 256  # of each task, a fixed subset that those evaluations test
    objectives: list[str] = field(default_factory=lambda: ["val_average_accuracy"])  # what an optimising sweeper sees
    checkpoint_seconds: float = 60.0  # at the latest after so long the run is saved, after a whole optimiser step
    checkpoint_steps: int | None = None  # and after so many optimiser steps; null: by the clock alone
    resident_bytes: float = 2e9  # larger sets of images stay in host memory, from where batches are fetched ahead
    rank_timeout_seconds: float = 600.0  # several processes: how long one waits for another before the run fails
    keep_weights: bool = False  # weights/ in the run folder: the model after each task, for scripts/analyse.py
    keep_importances: bool = False  # importances/: each task's own Ω, of methods that have one; their overlap is drawn
    trusted: list[str] = field(default_factory=list)  # further prefixes a _target_ may have, e.g. [my_package]


@dataclass
class Recipes:
    """What has set other keys and has no meaning of its own."""

    experiment: Any = None  # the protocol of a study, in the place of many keys
    sweep: Any = None  # values to go through with -m; several: sweep=[methods,seeds]
    compat: str = "published"  # of a paper's experiment: published, methods as its code has them | right, our defaults
    as_published: dict[str, dict[str, Any]] = field(default_factory=dict)  # method → its options under compat=published
    strength_factor: float = 1.0  # of method.strength: one grid fits methods whose strengths are orders apart
    choices: dict[str, str] = field(default_factory=dict)  # group → the name of its yaml; filled in when composed


@dataclass
class Config(Recipes, Watching):
    """The root of the configuration; the groups' own keys stand in configs/<group>/<choice>.yaml."""

    method: Any = MISSING  # what holds the past
    dataset: Any = MISSING  # the stream of tasks
    backbone: Any = MISSING  # the network
    memory: Any = MISSING  # which exemplars of earlier tasks are kept
    augment: Any = MISSING  # what changes training images at random
    normalise: Any = MISSING  # what pixels become before the network
    optimizer: Any = MISSING  # of torch.optim
    scheduler: Any = MISSING  # the learning rate within a task
    early_stopping: Any = MISSING  # when a task ends before its last epoch
    trainer: Any = MISSING  # devices, precision, epochs: Lightning's Trainer
    seed: int = 0  # of weights, data order, splits and whatever else is drawn
    scenario: str = "domain"  # domain | task | class: which output columns are visible when
    val_fraction: float = 0.1  # share of each task's training data that chooses and never trains
    batch_size: int = 128  # training samples of a step, over all ranks
    epochs_per_task: list[int] | None = None  # one number for each task, instead of trainer.max_epochs
    compile: bool = False  # torch.compile for training steps; importance and evaluation run the module itself
    tf32: bool = False  # on a GPU: float32 products and convolutions by TF32
    keep_optimizer: bool | str = False  # its state (moments) goes on from task to task; epoch: anew each epoch
    drop_last: bool = False  # leave out an epoch's last training batch if it is smaller
    shuffle: bool = True  # training samples anew each epoch; false: they come in the source's order
    active_classes: str = "seen"  # class-incremental: all = every column competes from the first task on
    init_from: str | None = None  # a finished run's folder or a file of weights, from which the backbone starts


def register() -> None:
    """Make the typed root known to Hydra as `schema`."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("by_method", by_method, replace=True)
    OmegaConf.register_new_resolver("compat", by_compat, replace=True)


def by_method(table: DictConfig, *, _root_: DictConfig) -> Any:
    """`${by_method:{finetune: 0.03, others: 0.1}}`: the entry of the chosen method, for learning rates and widths.

    `others` stands for all methods that are not named; an entry may be a table by scenario: {task: 1, class: 10}.

    Raises:
        ConfigError: the chosen method has none, or the scenario.
    """
    name = choice(_root_, "method")
    if name not in table and "others" not in table:
        raise ConfigError(f"method must be one of {', '.join(table)} here, got {name!r}")
    entry = table[name] if name in table else table["others"]
    if not isinstance(entry, Mapping):
        return entry
    if _root_.scenario not in entry:
        raise ConfigError(must_be("scenario", f"one of {', '.join(entry)} here", _root_.scenario))
    return entry[_root_.scenario]


def by_compat(published: Any, right: Any, *, _root_: DictConfig) -> Any:
    """`${compat:epoch,false}`: the first under compat=published, the second under compat=right."""
    return published if _root_.compat == "published" else right


def choice(config: DictConfig, group: str) -> str:
    """The name a group was chosen by, that of its yaml: method=ewc → ewc."""
    return str(config.choices[group])


def with_choices(config: DictConfig, hydra: DictConfig) -> DictConfig:
    """The configuration with the names of its choices, which Hydra keeps to itself.

    A `_target_` that the command line sets, or another yaml than the choice's, is a name of its own. Under
    compat=published the chosen method gets its options of `as_published`, but for those that the command line sets; one
    may be a table by scenario.

    Raises:
        ConfigError: the configuration has names already.
    """
    if config.choices:
        raise ConfigError(must_be("choices", "left out: the choices of the groups fill it in", dict(config.choices)))
    given = dict(o.lstrip("+").partition("=")[::2] for o in hydra.overrides.task)
    for key, name in hydra.runtime.choices.items():
        group = key.rpartition("@")[2].replace("/", ".")
        if is_wired(group) and OmegaConf.select(config, group) is not None:
            target = OmegaConf.select(config, f"{group}._target_")
            own = name if usual_target(group, name) in (None, target) else target
            config.choices[group] = given.get(f"{group}._target_", own)
    if config.compat == "published":
        for name, value in config.as_published.get(config.choices.get("method", ""), {}).items():
            value = value.get(config.scenario) if isinstance(value, Mapping) else value
            if value is not None and f"method.{name}" not in given:
                config.method[name] = value
    config.as_published = {}
    return config


def folded(config: DictConfig) -> DictConfig:
    """A checked configuration with strength_factor multiplied into method.strength.

    A whole product is an integer, and so the run of that strength; one that is written as 1e4 is another than 10000. A
    method without a strength is the same run at any factor.
    """
    folded: DictConfig = copy.deepcopy(config)
    folded.strength_factor = 1.0
    if "strength" in config.method:
        product = float(f"{config.method.strength * config.strength_factor:.12g}")  # 0.1 · 0.1 is 0.01
        if product != config.method.strength:  # 0 stays as it was written
            folded.method.strength = int(product) if product.is_integer() else product  # as one would write it
    return folded


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
