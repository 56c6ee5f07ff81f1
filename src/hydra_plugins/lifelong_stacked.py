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
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from lifelong.config.options import must_be
from lifelong.config.schema import ConfigError
from lifelong.launch.jobs import Outcome


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

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from lifelong.stacked.sweep import train_stacks  # loads torch, which --help does not wait for

        setup_globals()
        context: Any = self.hydra_context
        configs: dict[int, DictConfig] = {}
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            configs[number] = context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(configs[number]):
                configs[number].hydra.job.id = configs[number].hydra.job.num = number
        outcomes = train_stacks(dict(_prepared(configs)), self.size)
        where = {"job_dir_key": "hydra.sweep.dir", "job_subdir_key": "hydra.sweep.subdir"}
        return [
            run_job(self._task(outcomes.get(number)), config, hydra_context=context, **where)
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
