"""Lightning's Trainers: by how many processes a run is learned, and what of a Trainer is our own business."""

import os
import warnings
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from lifelong.config.build import build
from lifelong.config.schema import ConfigError
from lifelong.launch.cluster import trainer_plugins
from lifelong.launch.jobs import multirun_job

TRAINER = {"log_every_n_steps": 1, "enable_checkpointing": False, "enable_model_summary": False,
           "enable_progress_bar": False, "use_distributed_sampler": False}  # fmt: skip
NOTHING: Mapping[str, Any] = {}
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")


class Ranks(NamedTuple):
    """The processes of a run: how many, and whether torchrun, srun or `launch` has started them and this is one."""

    num: int
    started: bool


def trial_trainer(config: DictConfig) -> Trainer:
    """A Trainer that trains nothing: what it refuses is refused early, and it knows the run's device."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*AMP with fp16 is not supported on CPU")  # we refuse it
        return _build(config, "auto", logger=False)


def wanted_ranks(config: DictConfig) -> Ranks:
    """What trainer.devices, trainer.num_nodes and who started this process come to. Starts nothing.

    Raises:
        ConfigError: a strategy that splits the weights, no room for the processes, or other ones were started.
    """
    strategy = config.trainer.get("strategy", "auto")
    if strategy not in STRATEGIES:
        raise ConfigError(
            f"trainer.strategy must be one of {', '.join(STRATEGIES)}: importance needs the whole weights on every "
            f"device, got {strategy!r}"
        )
    trainer, torchrun = trial_trainer(config), TorchElasticEnvironment.detect()
    num = trainer.num_devices * trainer.num_nodes
    if torchrun and TorchElasticEnvironment().world_size() != num:
        raise ConfigError(
            "trainer.devices times trainer.num_nodes must be the number of processes that torchrun started, "
            f"{TorchElasticEnvironment().world_size()}, got {num} (several devices: trainer=ddp or ddp_cpu)"
        )
    if num == 1 or not isinstance(trainer.strategy, DDPStrategy):
        return Ranks(1, started=True)
    environment: Any = trainer.strategy.cluster_environment
    for wrong in _wrong(config, trainer, num, environment):
        raise ConfigError(wrong)
    return Ranks(num, environment.creates_processes_externally)


def _wrong(config: DictConfig, trainer: Trainer, num: int, environment: Any) -> Iterator[str]:
    """What stands against `num` processes, the first cause first."""
    if TorchElasticEnvironment.detect() and multirun_job() is not None:
        yield "a multirun starts the processes of each job itself: issue it without torchrun"
    on_cpu, cores = isinstance(trainer.accelerator, CPUAccelerator), max(2, os.cpu_count() or 1)
    if on_cpu and trainer.num_devices > cores:
        yield f"trainer.devices must be at most the number of CPU cores, {cores}, got {trainer.num_devices}"
    if num > config.batch_size:
        yield f"batch_size must be at least 1 for each of the {num} processes, got {config.batch_size}"
    if on_cpu and config.trainer.get("sync_batchnorm"):
        yield "trainer.sync_batchnorm must be false on CPUs, where torch has none, got true"
    if not environment.creates_processes_externally:
        if trainer.num_nodes > 1:
            needed = "unless torchrun or srun starts the processes on every node"
            yield f"trainer.num_nodes must be 1 {needed}, got {trainer.num_nodes}"
    elif (started := environment.world_size()) != num:
        yield f"trainer.devices times trainer.num_nodes must be the {started} started tasks, got {num}"
    try:
        environment.validate_settings(trainer.num_devices, trainer.num_nodes)
    except ValueError as error:
        yield f"trainer.devices must be the number of tasks on each node: {error}"


def make_trainer(config: DictConfig, num_ranks: int, replaced: Mapping[str, Any] = NOTHING, **wired: Any) -> Trainer:
    """A Trainer of this configuration, for one task, with some options replaced.

    DDP looks for parameters without a gradient only if trainer.strategy says so: ours all have one, as a head's masked
    columns get zeros.
    """
    unused = config.trainer.get("strategy") == "ddp_find_unused_parameters_true"
    timeout = timedelta(seconds=config.rank_timeout_seconds)
    ddp = DDPStrategy(timeout=timeout, find_unused_parameters=unused) if num_ranks > 1 else "auto"
    return _build(config, ddp, replaced, **wired)


def join(config: DictConfig, num_ranks: int) -> None:
    """Meet the other ranks: from here on they compute together. Before the first fit, as an evaluation comes first."""
    if config.num_threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(config.num_threads)  # else Lightning gives the ranks all cores
    make_trainer(config, num_ranks, logger=False).strategy.setup_environment()


def _build(config: DictConfig, strategy: Any, replaced: Mapping[str, Any] = NOTHING, **wired: Any) -> Trainer:
    options: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    options.pop("strategy", None)
    return build(
        OmegaConf.create({**options, **replaced}), "trainer", strategy=strategy, **TRAINER, **trainer_plugins(), **wired
    )


def is_first_started(config: DictConfig) -> bool:
    """Whether this process is rank 0, told by its environment before any rank has met another; true of a single one."""
    ranks = (config.trainer.get("strategy", "auto"), config.trainer.get("devices"), config.trainer.get("num_nodes", 1))
    alone = ranks == ("auto", 1, 1)
    return alone or not rank_zero_only.rank  # type: ignore[attr-defined]
