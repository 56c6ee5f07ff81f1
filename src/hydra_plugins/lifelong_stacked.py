"""Launcher of hydra/launcher=stacked: jobs that stack train together first; the others run as with Hydra's basic one.

Hydra takes launchers and sweepers from the namespace hydra_plugins alone.
"""

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from lifelong.config.options import must_be
from lifelong.config.schema import ConfigError
from lifelong.launch.jobs import Outcome
from lifelong.launch.workers import in_workers, num_cores


class GridSweeper(BasicSweeper):
    """hydra/sweeper=basic. Composing takes 0.1 s a job, so it does not try whether all jobs can be composed where the
    launcher composes all of them, before the first one starts."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        if not getattr(self.launcher, "composes_first", False):
            super().validate_batch_is_legal(batch)


@dataclass
class GridSweeperConf(BasicSweeperConf):
    _target_: str = "hydra_plugins.lifelong_stacked.GridSweeper"  # pytest gives this file another __name__


ConfigStore.instance().store(group="hydra/sweeper", name="basic", node=GridSweeperConf)


class StackedLauncher(BasicLauncher):
    """A job that has trained in a stack ends at once, as what it has come to there.

    Args:
        size: runs of a stack at most; None: as many as the device is good for.
        n_jobs: stacks at a time, each in a process of its own; None: one for each core of a CPU, one on a GPU.
    """

    composes_first = True

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
            composed = sorted(chain(*found))
        configs = {job.number: job.config or self._load(*jobs[job.number - initial_job_idx]) for job in composed}
        prepared = {job.number: job.prepared for job in composed if job.prepared is not None}
        hydra, before = HydraConfig.instance(), HydraConfig.instance().cfg
        hydra.set_config(configs[initial_job_idx])  # a job's number says which GPU it takes
        try:
            outcomes = train_stacks(prepared, self.size, self.n_jobs)
            return [self._ended(config, outcomes.get(number)) for number, config in configs.items()]
        finally:
            hydra.cfg = before

    def _ended(self, config: DictConfig, outcome: Outcome | None) -> JobReturn:
        """What comes of a job, heard by the callbacks: Hydra runs it, unless it has trained in a stack."""
        context: Any = self.hydra_context
        task: Any = self.task_function
        if outcome is None:
            where = {"job_dir_key": "hydra.sweep.dir", "job_subdir_key": "hydra.sweep.subdir"}
            return run_job(task, config, hydra_context=context, **where)
        found = JobReturn(list(config.hydra.overrides.task), status=JobStatus.COMPLETED)
        found.return_value = outcome
        context.callbacks.on_job_start(config=config, task_function=task)
        context.callbacks.on_job_end(config=config, job_return=found)
        return found

    def _load(self, number: int, overrides: Sequence[str]) -> DictConfig:
        context: Any = self.hydra_context
        config: DictConfig = context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return config

    def _composed(self, number: int, overrides: Sequence[str]) -> "Composed":
        """In a worker, which has no way to hand on what Hydra raises."""
        from lifelong.experiment.main import prepare

        config = None
        with suppress(ConfigError, HydraException, OmegaConfBaseException):
            config = self._load(number, overrides)
            if config.hydra.job.env_set or config.hydra.job.chdir:  # which a process has once, not by job
                return Composed(number, config, None)
            HydraConfig.instance().set_config(config)
            own = copy.deepcopy(config)
            with open_dict(own):
                del own["hydra"]
            prepare(own)
            return Composed(number, config, own)
        return Composed(number, config, None)


class Composed(NamedTuple):
    """A job's configuration, and as it runs; None: what is wrong with it Hydra says, or the job when it runs."""

    number: int
    config: DictConfig | None
    prepared: DictConfig | None
