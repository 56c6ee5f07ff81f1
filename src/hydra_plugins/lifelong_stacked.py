"""Launcher of hydra/launcher=stacked: jobs that stack train together first; the others run as with Hydra's basic one.

Hydra takes launchers from the namespace hydra_plugins alone.
"""

import copy
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from lifelong.config.options import must_be
from lifelong.config.schema import ConfigError
from lifelong.launch.jobs import Outcome
from lifelong.launch.workers import in_workers, num_cores


class StackedLauncher(BasicLauncher):
    """A job that has trained in a stack ends at once, as what it has come to there.

    Args:
        size: runs of a stack at most; None: as many as the device is good for.
        n_jobs: stacks at a time, each in a process of its own; None: one for each core of a CPU, one on a GPU.
    """

    def __init__(self, size: int | None = None, n_jobs: int | None = None) -> None:
        super().__init__()
        for key, value in (("size", size), ("n_jobs", n_jobs)):
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(must_be(f"hydra.launcher.{key}", "an integer >= 1 or null", value))
        self.size, self.n_jobs = size, n_jobs

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from lifelong.experiment.main import loading  # which needs the plugins

        setup_globals()
        jobs = list(enumerate(job_overrides, initial_job_idx))
        num = min(num_cores(), len(jobs))
        with in_workers(lambda i: [self._composed(*job) for job in jobs[i::num]], num) as found:
            with loading():
                from lifelong.stacked.sweep import train_stacks  # torch and lightning: --help does not wait for them
            composed = {job.number: job for job in sorted(chain(*found))}
        prepared = {job.number: job.prepared for job in composed.values() if job.prepared is not None}
        outcomes = train_stacks(prepared, self.size, self.n_jobs)
        where = {"job_dir_key": "hydra.sweep.dir", "job_subdir_key": "hydra.sweep.subdir"}
        context: Any = self.hydra_context
        return [
            run_job(self._task(outcomes.get(number)), job.config, hydra_context=context, **where)
            for number, job in composed.items()
        ]

    def _composed(self, number: int, overrides: Sequence[str]) -> "Composed":
        from lifelong.experiment.main import prepare

        context: Any = self.hydra_context
        config = context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        HydraConfig.instance().set_config(config)
        own = copy.deepcopy(config)
        with open_dict(own):
            del own["hydra"]
        with suppress(ConfigError, HydraException, OmegaConfBaseException):
            prepare(own)
            return Composed(number, config, own)
        return Composed(number, config, None)

    def _task(self, outcome: Outcome | None) -> Any:
        return self.task_function if outcome is None else lambda config: outcome


class Composed(NamedTuple):
    """A job's configuration, and as it runs: what is wrong with it the job says itself when it runs."""

    number: int
    config: DictConfig
    prepared: DictConfig | None
