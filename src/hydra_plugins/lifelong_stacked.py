"""Launcher of hydra/launcher=stacked: jobs that stack train together first; the others run as with Hydra's basic one.

Hydra takes launchers from the namespace hydra_plugins alone.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from lifelong.config.options import must_be
from lifelong.config.schema import ConfigError
from lifelong.launch.jobs import Outcome


class Composed:
    """Hydra's loader of configurations, but that what a sweeper composes of its jobs to check them, and forgets, is
    kept for the launcher: composing takes 0.1 s a job."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._kept: dict[tuple[str, ...], DictConfig] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: Sequence[str]) -> DictConfig:
        config: DictConfig = self._loader.load_sweep_config(master_config, list(sweep_overrides))
        self._kept[tuple(sweep_overrides)] = config
        return config

    def take(self, master: DictConfig, overrides: Sequence[str]) -> DictConfig:
        """The configuration of these overrides; another one each time."""
        kept = self._kept.pop(tuple(overrides), None)
        return self._loader.load_sweep_config(master, list(overrides)) if kept is None else kept


class StackedLauncher(BasicLauncher):
    """A job that has trained in a stack ends at once, as what it has come to there.

    Args:
        size: runs of a stack at most; None: as many as the device is good for.
    """

    def __init__(self, size: int | None = None) -> None:
        super().__init__()
        if size is not None and (type(size) is not int or size < 1):
            raise ConfigError(must_be("hydra.launcher.size", "an integer >= 1 or null", size))
        self.size = size

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        self.composed = Composed(hydra_context.config_loader)
        hydra_context.config_loader = self.composed  # the sweeper's too
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from lifelong.stacked.sweep import train_stacks  # loads torch, which --help does not wait for

        setup_globals()
        configs: dict[int, DictConfig] = {}
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            configs[number] = self.composed.take(self.config, overrides)
            with open_dict(configs[number]):
                configs[number].hydra.job.id = configs[number].hydra.job.num = number
        outcomes = train_stacks(dict(_prepared(configs)), self.size)
        where = {"job_dir_key": "hydra.sweep.dir", "job_subdir_key": "hydra.sweep.subdir"}
        return [
            run_job(self._task(outcomes.get(number)), config, hydra_context=self.hydra_context, **where)
            for number, config in configs.items()
        ]

    def _task(self, outcome: Outcome | None) -> Any:
        return self.task_function if outcome is None else lambda config: outcome


def _prepared(configs: Mapping[int, DictConfig]) -> Iterator[tuple[int, DictConfig]]:
    """The jobs' configurations as they run; what is wrong with one of them it says itself when it runs."""
    from lifelong.experiment.main import prepare

    for number, config in configs.items():
        HydraConfig.instance().set_config(config)
        own = copy.deepcopy(config)
        with open_dict(own):
            del own["hydra"]
        with suppress(ConfigError, HydraException, OmegaConfBaseException):
            prepare(own)
            yield number, own
