"""Launchers of hydra/launcher=slurm and local: submitit's, but that every job is heard although one was lost.

Hydra takes launchers from the namespace hydra_plugins alone.
"""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from lifelong.config.schema import ConfigError
from lifelong.launch.jobs import Jobs, Outcome

with suppress(ImportError):  # the extra `slurm` is not installed
    from hydra_plugins.hydra_submitit_launcher import submitit_launcher
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

    class _HearsAll(submitit_launcher.BaseSubmititLauncher):
        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
            """Submit all jobs as one array, wait for each."""
            import submitit

            if self._EXECUTOR == "slurm" and shutil.which("srun") is None:
                raise ConfigError("hydra/launcher=slurm must find srun on the PATH of this machine, got none")
            kind, params = self._EXECUTOR, dict(self.params)
            folder, limits = params.pop("submitit_folder"), params.pop("max_num_timeout", None)
            requeued = {} if limits is None else {f"{kind}_max_num_timeout": limits}
            executor = submitit.AutoExecutor(folder, cluster=kind, **requeued)
            common = set(OmegaConf.structured(BaseQueueConf))
            executor.update_parameters(**{k if k in common else f"{kind}_{k}": v for k, v in params.items()})
            state = Singleton.get_state()
            arguments = [
                (list(overrides), "hydra.sweep.dir", number, f"job_id_for_{number}", state)
                for number, overrides in enumerate(job_overrides, initial_job_idx)
            ]
            jobs = executor.map_array(self, *zip(*arguments, strict=True))
            return [self._heard(job, *args[:3]) for job, args in zip(jobs, arguments, strict=True)]

        def _heard(self, job: Any, overrides: list[str], _: str, number: int) -> JobReturn:
            """What the job returned, or a failure where its scheduler or its node lost it."""
            from submitit.core.utils import FailedJobError, UncompletedJobError

            try:
                returned = job.results()[0]
            except (FailedJobError, UncompletedJobError):
                lost = f"job {job.job_id} ended without a result ({job.state}), its log is in {job.paths.folder}"
                returned = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
                returned.return_value = Outcome(failed=f"{lost}; the same command goes on")
            if Jobs.current and returned.status is JobStatus.COMPLETED:
                Jobs.current.hear(number, overrides, returned.return_value)
            return returned

    class SlurmLauncher(_HearsAll, submitit_launcher.SlurmLauncher):
        """hydra/launcher=slurm."""

    class LocalLauncher(_HearsAll, submitit_launcher.LocalLauncher):
        """hydra/launcher=local."""
